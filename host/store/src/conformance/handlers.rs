//! Handlers, the operator's events, and tokens.

use billhook_model::{Handler, HandlerStatus, Moment, OwnEvent, Scope, Task, Token};

use super::subject::{Maker, tests};
use crate::HandlerChange;

tests![
    a_handler_is_added_changed_and_removed,
    a_handler_that_is_not_changed_raises_no_generation,
    an_event_of_the_operators_is_added_once,
    tokens_are_listed_by_when_they_were_made,
];

fn handler(name: &str) -> Handler {
    let mut handler = Handler::new(name, "clients.create", Task::Http("https://a.example/".to_owned()));
    handler.secret = Some("a secret of sixteen bytes".to_owned());
    handler
}

fn a_handler_is_added_changed_and_removed(make: Maker<'_>) {
    let subject = make();
    let handlers = &subject.stores.handlers;
    assert!(handlers.add_handler(&handler("b")).expect("added"));
    assert!(handlers.add_handler(&handler("a")).expect("added"));
    assert!(!handlers.add_handler(&handler("a")).expect("asked"), "there is one");
    assert_eq!(handlers.handlers().expect("read"), [handler("a"), handler("b")]);
    assert_eq!(handlers.handler("a").expect("read"), Some(handler("a")), "its secret with it");
    assert_eq!(handlers.handler("c").expect("read"), None);
    let disabled = |mut handler: Handler| {
        handler.status = HandlerStatus::Disabled;
        Some(handler)
    };
    let mut expected = handler("a");
    expected.status = HandlerStatus::Disabled;
    let done = handlers.change_handler("a", &mut |handler| disabled(handler)).expect("changed");
    assert_eq!(done, HandlerChange::Done(Box::new(expected.clone())));
    assert_eq!(subject.stores.plugins.routes().expect("read").handlers, [expected.clone(), handler("b")]);
    assert_eq!((subject.reopen)().handlers.handler("a").expect("read"), Some(expected), "it is durable");
    assert_eq!(handlers.change_handler("a", &mut |_| None).expect("asked"), HandlerChange::Refused);
    assert_eq!(handlers.change_handler("c", &mut disabled.clone()).expect("asked"), HandlerChange::Missing);
    assert!(handlers.remove_handler("a").expect("removed") && !handlers.remove_handler("a").expect("asked"));
    assert_eq!(handlers.handlers().expect("read"), [handler("b")]);
}

fn a_handler_that_is_not_changed_raises_no_generation(make: Maker<'_>) {
    let subject = make();
    let handlers = &subject.stores.handlers;
    assert!(handlers.add_handler(&handler("a")).expect("added"));
    let generation = || subject.stores.plugins.generation().expect("read");
    let before = generation();
    assert!(matches!(handlers.change_handler("a", &mut Some).expect("asked"), HandlerChange::Done(_)));
    assert_eq!(handlers.change_handler("a", &mut |_| None).expect("asked"), HandlerChange::Refused);
    assert!(!handlers.add_handler(&handler("a")).expect("asked") && !handlers.remove_handler("b").expect("asked"));
    assert!(!handlers.remove_event("tickets.create").expect("asked"));
    assert!(!subject.stores.tokens.remove_token("x").expect("asked"));
    assert_eq!(generation(), before);
}

fn an_event_of_the_operators_is_added_once(make: Maker<'_>) {
    let subject = make();
    let handlers = &subject.stores.handlers;
    let (first, second) = (OwnEvent::new("tickets.create", "a ticket"), OwnEvent::new("orders.close", ""));
    assert!(handlers.add_event(&first).expect("added") && handlers.add_event(&second).expect("added"));
    assert!(!handlers.add_event(&OwnEvent::new("tickets.create", "another")).expect("asked"));
    assert_eq!(handlers.own_events().expect("read"), [second.clone(), first.clone()]);
    assert_eq!(subject.stores.plugins.routes().expect("read").events, [second, first.clone()]);
    assert!(handlers.remove_event("orders.close").expect("removed"));
    assert_eq!((subject.reopen)().handlers.own_events().expect("read"), [first]);
}

fn tokens_are_listed_by_when_they_were_made(make: Maker<'_>) {
    let subject = make();
    let tokens = &subject.stores.tokens;
    let token = |id: &str, at: i64| Token::new(id, "n", Scope::Emit, Moment::from_seconds(at), vec![0, 255, 7]);
    let mut expiring = token("a", 30);
    expiring.expires = Some(Moment::from_seconds(60));
    for added in [&token("c", 20), &token("b", 30), &expiring] {
        assert!(tokens.add_token(added).expect("added"));
    }
    assert!(!tokens.add_token(&token("c", 99)).expect("asked"), "its id is taken");
    assert_eq!(tokens.tokens().expect("read"), [token("c", 20), expiring, token("b", 30)]);
    assert!(tokens.remove_token("b").expect("removed"));
    assert_eq!((subject.reopen)().tokens.tokens().expect("read").len(), 2, "it is durable");
}
