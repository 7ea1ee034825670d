//! Changes that fail: each is whole or not made at all, and its error says which.

use std::time::Duration;

use billhook_model::{
    Clock as _, DeliveryFilter, ExecutionFilter, Handler, ListenerKind, Moment, OwnEvent, ResourceFilter, RunPolicy,
    Scope, Task, Token,
};
use billhook_plugin_api::data::Provisioned;

use super::{
    ledger,
    resources::request,
    subject::{Maker, Subject, tests, version, with_addon, works},
    usage,
};
use crate::{
    ChangeError, Crashed, EventRecord, ExecutionNote, Fault, Result, StoreError, Stores, UsageEnd, UsageProgress,
    Verdict, WasDone,
};

tests![each_change_is_whole_and_an_error_says_whether_it_was_made];

/// A change, by its name, and what it is made on.
struct Case {
    name: &'static str,
    prepare: fn(&Subject),
    change: fn(&Stores) -> Result<()>,
}

/// Everything that can be read, as text.
fn dump(subject: &Subject) -> String {
    let Stores { plugins, state, handlers, ledger, executions, usage, resources, tokens, .. } = &subject.stores;
    let mut text = String::new();
    let mut add = |part: &dyn std::fmt::Debug| text += &format!("{part:#?}\n");
    add(&plugins.routes().expect("read"));
    add(&plugins.all_details().expect("read"));
    for plugin in plugins.list().expect("read") {
        for entry in plugins.details(&plugin.id).expect("read").expect("installed").history {
            add(&plugins.settings_of_version(&plugin.id, &entry.version).expect("read"));
        }
        add(&state.get(&plugin.id, "key").expect("read"));
    }
    add(&(handlers.handlers().expect("read"), handlers.own_events().expect("read"), tokens.tokens().expect("read")));
    if ledger.exists() {
        for delivery in ledger.list(&DeliveryFilter::default()).expect("read") {
            add(&ledger.show(delivery.number).expect("read"));
        }
        add(&(ledger.recorded("a").expect("read"), ledger.recorded("b").expect("read")));
        add(&(ledger.holders().expect("read"), ledger.waiting_listeners().expect("read")));
    }
    add(&executions.search(&ExecutionFilter::default()).expect("read"));
    add(&(usage.contract(&usage::key()).expect("read"), usage.unsent_contracts().expect("read")));
    add(&(usage.unsent_usage(&usage::key()).expect("read"), usage.specs(None).expect("read")));
    let all = resources.resources(&ResourceFilter::default()).expect("read");
    let configs: Vec<_> = all.iter().map(|resource| (resource.number, &resource.plan, &resource.config)).collect();
    add(&(&all, configs, resources.addons().expect("read")));
    text
}

/// What isn't the store's own refusal.
fn store<T>(changed: std::result::Result<T, ChangeError>) -> Result<()> {
    match changed {
        Ok(_) => Ok(()),
        Err(ChangeError::Store(error)) => Err(error),
        Err(refusal) => panic!("{refusal}"),
    }
}

fn plugin(subject: &Subject) {
    subject.stores.plugins.install(&version("a", "1.0")).expect("installed");
    subject.stores.plugins.install(&version("a", "2.0")).expect("installed");
}

fn handler() -> Handler {
    Handler::new("h", "clients.create", Task::Http("https://a.example/".to_owned()))
}

fn with_handler(subject: &Subject) {
    subject.stores.handlers.add_handler(&handler()).expect("added");
    subject.stores.handlers.add_event(&OwnEvent::new("tickets.create", "")).expect("added");
    subject.stores.tokens.add_token(&token()).expect("added");
}

fn token() -> Token {
    Token::new("t", "n", Scope::Read, Moment::from_seconds(1), vec![1])
}

fn with_resource(subject: &Subject) {
    subject.stores.plugins.install(&with_addon("notes", version("n", "1.0"))).expect("installed");
    subject.stores.resources.note_resource("notes", &request(Some("k"), Some(1))).expect("noted");
}

fn number_of_resource(stores: &Stores) -> i64 {
    stores.resources.resources(&ResourceFilter::default()).expect("read")[0].number
}

fn with_usage(subject: &Subject) {
    usage::record(&subject.stores, "a", &["one", "two"], 1).expect("recorded");
}

fn with_events(subject: &Subject) {
    let ledger = &*subject.stores.ledger;
    ledger::emit(ledger, "a", Some(1));
    ledger::emit(ledger, "b", Some(1));
}

fn with_held(subject: &Subject) {
    with_events(subject);
    ledger::take(&*subject.stores.ledger, "host");
}

fn held(stores: &Stores) -> crate::HeldDelivery {
    let all = stores.ledger.list(&DeliveryFilter::default()).expect("read");
    let first = all.last().expect("there");
    crate::HeldDelivery {
        number: first.number,
        event: 0,
        listener: ledger::listener("l"),
        object: Some("1".to_owned()),
        attempts: 0,
        taken: 1,
        lease: 1,
    }
}

fn with_dead(subject: &Subject) {
    with_held(subject);
    let dead = ledger::settled(&held(&subject.stores), Verdict::Dead("x".to_owned()));
    subject.stores.ledger.settle("host", None, &dead).expect("settled");
}

fn note(at: Moment) -> ExecutionNote {
    ExecutionNote {
        at,
        event: crate::CalledName::Hook("get_usage_specs"),
        object: String::new(),
        kind: ListenerKind::Plugin,
        listener: "a".into(),
        attempt: 1,
        status: billhook_model::ExecutionStatus::Success,
        error: None,
        response: String::new(),
        took: Duration::ZERO,
        delivery: None,
    }
}

const LATER: Moment = Moment::from_seconds(1_900_000_000);

macro_rules! cases {
    ($($name:literal on $prepare:expr, $stores:ident => $change:expr;)*) => {
        const CASES: &[Case] = &[$(Case { name: $name, prepare: $prepare, change: |$stores| $change }),*];
    };
}

cases! {
    "install" on |_| {}, stores => store(stores.plugins.install(&version("a", "1.0")));
    "upgrade" on plugin, stores => store(stores.plugins.install(&version("a", "3.0")));
    "downgrade" on plugin, stores => store(stores.plugins.downgrade("a", "1.0", Some("{}"), &works(&["call"])));
    "set settings" on plugin, stores => store(stores.plugins.set_settings("a", r#"{"x": 1}"#, &works(&["call"])));
    "disable" on plugin, stores => store(stores.plugins.set_enabled("a", false));
    "set run policy" on plugin, stores => {
        let mut policy = RunPolicy::default();
        policy.workers = 3;
        store(stores.plugins.set_run_policy("a", &policy))
    };
    "set priority" on plugin, stores => stores.plugins.set_priority("a", 3).map(drop);
    "set weights" on plugin, stores => stores.plugins.set_weights("a", &[("1.0".to_owned(), 9)]).map(drop);
    "quarantine" on plugin, stores => {
        let settings_changed = stores.plugins.routes()?.plugins[0].settings_changed;
        stores.plugins.quarantine(&Crashed { id: "a", digest: &version("a", "2.0").digest, settings_changed }, "x")
    };
    "repaired" on plugin, stores => stores.plugins.repaired();
    "use an asset" on plugin, stores => stores.plugins.use_asset("a", "asset").map(drop);
    "release an asset" on |subject| {
        plugin(subject);
        subject.stores.plugins.use_asset("a", "asset").expect("noted");
    }, stores => stores.plugins.release_asset("asset").map(drop);
    "remove" on plugin, stores => stores.plugins.remove("a", true).map(drop);
    "keep" on plugin, stores => stores.state.keep("a", "key", "value").map(drop);
    "delete" on |subject| {
        plugin(subject);
        subject.stores.state.keep("a", "key", "value").expect("kept");
    }, stores => stores.state.delete("a", "key");
    "add a handler" on |_| {}, stores => stores.handlers.add_handler(&handler()).map(drop);
    "change a handler" on with_handler, stores => {
        let change = |mut handler: Handler| {
            handler.priority = 7;
            Some(handler)
        };
        stores.handlers.change_handler("h", &mut { change }).map(drop)
    };
    "remove a handler" on with_handler, stores => stores.handlers.remove_handler("h").map(drop);
    "add an event" on |_| {}, stores => stores.handlers.add_event(&OwnEvent::new("tickets.create", "")).map(drop);
    "remove an event" on with_handler, stores => stores.handlers.remove_event("tickets.create").map(drop);
    "add a token" on |_| {}, stores => stores.tokens.add_token(&token()).map(drop);
    "remove a token" on with_handler, stores => stores.tokens.remove_token("t").map(drop);
    "note a resource" on with_resource, stores => {
        stores.resources.note_resource("notes", &request(Some("l"), Some(2))).map(drop)
    };
    "record a resource" on with_resource, stores => {
        stores.resources.made_resource(number_of_resource(stores), &Provisioned::new("x")).map(drop)
    };
    "change a resource" on with_resource, stores => {
        stores.resources.change_resource(number_of_resource(stores), Some("premium"), None)
    };
    "forget a resource" on with_resource, stores => stores.resources.forget_resource(number_of_resource(stores));
    "record usage" on |_| {}, stores => usage::record(stores, "a", &["one", "two"], 1).map(drop);
    "take usage" on with_usage, stores => {
        stores.usage.next_usage(&usage::key(), None, 1, &UsageProgress::default(), LATER).map(drop)
    };
    "note what settles" on with_usage, stores => stores.usage.note_settling(&usage::key(), LATER);
    "note usage" on with_usage, stores => {
        let progress = UsageProgress { guided: vec![1], untouched: vec![2] };
        stores.usage.note_usage(&usage::key(), &progress, &UsageEnd::Whole).map(drop)
    };
    "note a specification" on with_usage, stores => {
        let mut spec = stores.usage.specs(None)?.remove(0);
        spec.tries = 4;
        stores.usage.note_spec(&spec)
    };
    "forget a specification" on |subject| {
        with_usage(subject);
        let progress = UsageProgress { guided: vec![1, 2], untouched: vec![] };
        subject.stores.usage.note_usage(&usage::key(), &progress, &UsageEnd::Whole).expect("noted");
    }, stores => {
        let spec = stores.usage.specs(None)?.remove(0);
        stores.usage.forget_spec(&spec)
    };
    "emit" on with_events, stores => {
        let record = |id: &str| EventRecord::new(ledger::event(id, Some(1)), vec![ledger::listener("l")]);
        stores.ledger.emit(vec![record("c"), record("d")]).map(drop)
    };
    "take" on with_events, stores => {
        let listener = ledger::listener("l");
        let take = crate::Take { listener: &listener, holder: "host", hold_for: Duration::from_secs(60), most: 9 };
        stores.ledger.take(&take, &|_| Default::default()).map(drop)
    };
    "settle" on with_held, stores => {
        let done = ledger::settled(&held(stores), Verdict::Done);
        stores.ledger.settle("host", Some(Duration::from_secs(60)), &done).map(drop)
    };
    "recover" on with_held, stores => stores.ledger.recover("host").map(drop);
    "redrive" on with_dead, stores => stores.ledger.redrive(held(stores).number).map(drop);
    "discard" on with_dead, stores => stores.ledger.discard(held(stores).number).map(drop);
    "give up" on with_events, stores => stores.ledger.give_up(&ledger::listener("l"), "it is gone");
    "write executions" on |subject| {
        // A store may make its log when it is first needed.
        subject.stores.executions.write(&[note(LATER)], 0).expect("written");
    }, stores => stores.executions.write(&[note(LATER), note(LATER)], 0);
}

fn each_change_is_whole_and_an_error_says_whether_it_was_made(make: Maker<'_>) {
    for Case { name, prepare, change } in CASES {
        let prepared = || {
            let subject = make();
            prepare(&subject);
            subject
        };
        let subject = prepared();
        let before = dump(&subject);
        change(&subject.stores).unwrap_or_else(|error| panic!("{name}: {error}"));
        let after = dump(&subject);
        assert_ne!(before, after, "{name} changes something");

        let subject = prepared();
        assert_eq!(dump(&subject), before, "{name}");
        (subject.fail_next)(Fault::BeforeCommit);
        let error: StoreError = change(&subject.stores).expect_err(name);
        assert_eq!(error.was_done(), WasDone::No, "{name}: {error}");
        assert_eq!(dump(&subject), before, "{name} was not made");
        change(&subject.stores).unwrap_or_else(|error| panic!("{name}, again: {error}"));
        assert_eq!(dump(&subject), after, "{name}, again");

        let subject = prepared();
        (subject.fail_next)(Fault::AfterCommit);
        let error = change(&subject.stores).expect_err(name);
        assert_eq!(error.was_done(), WasDone::Perhaps, "{name}: {error}");
        assert_eq!(dump(&subject), after, "{name} was made");
        let _ = subject.clock.now();
    }
}
