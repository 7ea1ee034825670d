//! Before handlers: they change data, forbid, or give no answer.

use billhook::{ErrorKind, EventError, Handler, Hook, Host, Mode, OnFailure, data::Asset};
use serde_json::json;

use super::{event, executions, http, script};
use crate::support::{Call, HandlerServer, Home, Package, Reply, acquire, asset};

fn before(handler: Handler) -> Handler {
    Handler { mode: Mode::Before, ..handler }
}

/// Answers the data with one field set.
fn set(call: &Call, pointer: &str, value: serde_json::Value) -> Reply {
    let mut data = call.at("/data");
    *data.pointer_mut(pointer).expect("there") = value;
    Reply::Answer(200, json!({ "data": data }).to_string())
}

#[test]
fn before_handlers_change_data_in_their_order_and_an_echo_changes_nothing() {
    let home = Home::new();
    let host = home.host();
    let server = HandlerServer::start(|call| match call.path.as_str() {
        "/first" => set(call, "/name", json!("first")),
        "/second" => set(call, "/name", json!(format!("{}, second", call.at("/data/name").as_str().unwrap_or("?")))),
        _ => Reply::Answer(200, call.body.clone()),
    });
    // Neither the order in which they were added nor the names decide, but the priority; then the names.
    for (name, priority) in [("echo", 1), ("second", 7), ("first", 3)] {
        let mut handler = before(http(name, "clients.create", &server));
        handler.priority = priority;
        host.add_handler(&handler).expect("added");
    }
    let data = host.before(&event("clients.create", 12, &json!({"name": "none", "rest": 1.50}))).expect("allowed");
    assert_eq!(data.as_str(), r#"{"name":"first, second","rest":1.5}"#);
    let called: Vec<String> = server.calls().iter().map(|call| call.path.clone()).collect();
    assert_eq!(called, ["/echo", "/first", "/second"]);
    let logged = executions(&host, 3);
    assert!(logged.iter().all(|execution| execution.status.name() == "success" && execution.delivery.is_none()));
}

#[test]
fn a_before_handler_forbids_and_later_ones_are_not_asked() {
    let home = Home::new();
    let host = home.host();
    let server = HandlerServer::start(|call| match call.path.as_str() {
        "/a" => set(call, "/name", json!("changed")),
        "/b" => Reply::Answer(403, json!({"message": "no credit"}).to_string()),
        _ => Reply::ok(),
    });
    for name in ["a", "b", "c"] {
        host.add_handler(&before(http(name, "clients.create", &server))).expect("added");
    }
    let new = event("clients.create", 12, &json!({"name": "x"}));
    let error = host.before(&new).expect_err("forbidden");
    let EventError::Forbidden(forbidden) = &error else { panic!("{error}") };
    assert_eq!(
        (forbidden.handler.as_str(), forbidden.message.as_str(), forbidden.by_policy),
        ("b", "no credit", false)
    );
    assert_eq!(new.data.as_str(), r#"{"name":"x"}"#, "the caller's data is its own");
    assert_eq!(server.calls().len(), 2, "c was not asked");
    let logged = executions(&host, 2);
    assert_eq!((logged[1].status.name(), logged[1].error.as_deref()), ("forbidden", Some("no credit")));
    // A script forbids by its exit code.
    host.remove_handler("b", false).expect("removed");
    let task = script(&home, "forbid", "echo '{\"message\": \"not today\"}'; exit 77");
    host.add_handler(&before(super::handler("b", "clients.create", task))).expect("added");
    let error = host.before(&new).expect_err("forbidden");
    assert_eq!(error.to_string(), "the handler \"b\" forbids it: not today");
    // The command says so, and records nothing.
    let file = home.file("data.json", r#"{"id": 12, "name": "x"}"#);
    home.run(&["emit", "clients.create", "--data", &file])
        .failed_with(&["forbids it: not today", "nothing was recorded"]);
}

#[test]
fn a_before_handler_without_an_answer_is_passed_or_forbids_as_its_policy_says() {
    let home = Home::new();
    let host = home.host();
    let server = HandlerServer::start(|call| match call.path.as_str() {
        "/changes" => set(call, "/name", json!("changed")),
        "/hangs" => Reply::Hang,
        "/fails" => Reply::status(500),
        "/nonsense" => Reply::Answer(200, "this is no JSON".to_owned()),
        "/list" => Reply::Answer(200, r#"[{"name": "a list"}]"#.to_owned()),
        "/half" => Reply::Answer(200, r#"{"data": {"name": "#.to_owned()),
        _ => Reply::Drop,
    });
    host.add_handler(&Handler { priority: 1, ..before(http("changes", "clients.create", &server)) }).expect("added");
    let new = event("clients.create", 12, &json!({"name": "x"}));
    for (name, expected) in [
        ("hangs", "timed out after 0.3 s: outcome unknown"),
        ("fails", "it answered 500"),
        ("nonsense", "no JSON object"),
        ("half", "no JSON object"),
        ("list", "no JSON object"),
        ("drops", "outcome unknown"),
    ] {
        let deadline_ms = if name == "hangs" { 300 } else { 20_000 };
        let handler = Handler { deadline_ms, ..before(http(name, "clients.create", &server)) };
        for policy in [OnFailure::Closed, OnFailure::Open] {
            host.add_handler(&Handler { on_failure: policy, ..handler.clone() }).expect("added");
            let answer = host.before(&new);
            match (policy, answer) {
                (OnFailure::Open, Ok(data)) => assert_eq!(data.as_str(), r#"{"name":"changed"}"#, "{name}"),
                (OnFailure::Closed, Err(EventError::Forbidden(forbidden))) => {
                    assert!(forbidden.by_policy && forbidden.message.contains(expected), "{name}: {forbidden}");
                }
                (_, answer) => panic!("{name}, {policy}: {answer:?}"),
            }
            host.remove_handler(name, false).expect("removed");
        }
    }
}

/// A host with a plugin whose hooks write lines into a file.
fn recorder(home: &Home) -> (Host, String) {
    let log = home.file("calls", "");
    let settings = home.file("settings.json", &json!({ "log": log }).to_string());
    let package = Package::new("Recorder").of("recorder").write(home.folder());
    home.run(&["loadplugin", package.to_str().expect("UTF-8"), "--settings", &settings]).succeeded();
    (home.host(), log)
}

#[test]
fn a_hook_is_not_called_after_a_forbid_and_gets_what_before_handlers_changed() {
    let home = Home::new();
    let (host, log) = recorder(&home);
    let server = HandlerServer::start(|call| match call.path.as_str() {
        "/changes" => {
            Reply::Answer(200, json!({"data": {"asset": {"meta_info": 1, "content_type": "text/checked"}}}).to_string())
        }
        "/meddles" => set(call, "/order/order_id", json!("another")),
        _ => Reply::Answer(409, json!({"message": "blocked"}).to_string()),
    });
    let hook = "on_product_acquisition";
    host.add_handler(&before(http("changes", hook, &server))).expect("added");
    let changes = acquire(&host, &asset("Recorder")).expect("it went through");
    // What the plugin sets itself counts; the rest is the handler's.
    assert_eq!(changes.meta_info.map(|json| json.as_str().to_owned()).as_deref(), Some("\"acquired\""));
    assert_eq!(changes.content_type.as_deref(), Some("text/checked"));
    let envelope = &server.calls()[0];
    assert_eq!((envelope.at("/event/events_id"), envelope.at("/event/object_id")), (json!(hook), json!("asset-1")));
    assert_eq!(envelope.at("/data/order/contracts/0/item_id"), json!("item-1"), "the whole order is there");
    let called = || std::fs::read_to_string(&log).expect("readable").lines().count();
    assert_eq!(called(), 1);

    // What the hook itself may not change, a handler before it may not either.
    host.add_handler(&before(http("meddles", hook, &server))).expect("added");
    let error = acquire(&host, &asset("Recorder")).expect_err("not without its answer");
    assert_eq!(
        (error.kind(), error.handler(), error.asset()),
        (ErrorKind::Unavailable, Some("meddles"), Some("asset-1"))
    );
    assert!(error.message().contains("/order/order_id"), "{error}");
    host.set_handler("meddles", |handler| handler.on_failure = OnFailure::Open).expect("set");
    acquire(&host, &asset("Recorder")).expect("it goes on without it");
    assert_eq!(called(), 2);

    host.add_handler(&before(http("forbids", hook, &server))).expect("added");
    let error = acquire(&host, &asset("Recorder")).expect_err("forbidden");
    assert_eq!((error.kind(), error.status(), error.handler()), (ErrorKind::Forbidden, 403, Some("forbids")));
    assert!(error.message().contains("blocked"), "{error}");
    assert_eq!(called(), 2, "the plugin was not called");
    // A type that nobody has is refused without asking anybody.
    let count = server.calls().len();
    acquire(&host, &Asset { resource_type: "Nothing".into(), ..asset("Recorder") }).expect_err("no such type");
    assert_eq!(server.calls().len(), count);
}

#[test]
fn around_functions_ask_before_handlers_of_both_hooks_and_tell_after_listeners_only_when_all_went_through() {
    let home = Home::new();
    let (host, log) = recorder(&home);
    let server = HandlerServer::start(|call| if call.path == "/stops" { Reply::status(403) } else { Reply::ok() });
    let (pre, post) = (Hook::OnPreProductSpecAttachment.name(), Hook::OnPostProductSpecAttachment.name());
    for (name, hook) in [("after pre", pre), ("after post", post)] {
        host.add_handler(&http(name, hook, &server)).expect("added");
    }
    let spec = billhook::Json::new("{}").expect("JSON");
    let (mut one, catalogue) = (asset("Recorder"), billhook::NoBundles);
    one.product_id = Some("7".into());
    let run = |work: Result<(), &'static str>| {
        host.product_spec_attachment(&one, &spec, &catalogue, |_| work.map(|()| ((), one.clone())))
    };
    run(Err("the backend failed")).expect_err("it failed");
    assert_eq!(super::deliveries(&host).len(), 0, "nothing happened");
    host.add_handler(&before(http("stops", post, &server))).expect("added");
    run(Ok(())).expect_err("refused after the work");
    assert_eq!(super::deliveries(&host).len(), 0, "the pair didn't go through");
    host.remove_handler("stops", false).expect("removed");
    run(Ok(())).expect("it went through");
    let told: Vec<(String, String)> =
        super::deliveries(&host).into_iter().map(|delivery| (delivery.event, delivery.listener)).collect();
    let expected = [(pre, "after pre"), (post, "after post")].map(|(event, name)| (event.to_owned(), name.to_owned()));
    assert_eq!(told, expected);
    let called = std::fs::read_to_string(&log).expect("readable");
    assert_eq!(called.lines().filter(|line| line.contains("pre attachment")).count(), 3, "{called}");
    assert_eq!(called.lines().filter(|line| line.contains("post attachment")).count(), 1, "{called}");
    // The data of the event is the asset as the hooks left it.
    let (_, envelope, _) = host.delivery(super::deliveries(&host)[0].number).expect("there");
    let data: serde_json::Value = serde_json::from_str(envelope.data.as_str()).expect("JSON");
    assert_eq!(data["asset"]["content_type"], "text/attaching", "{data}");
}

#[test]
fn an_answer_with_data_for_an_event_that_carries_none_is_no_answer() {
    let home = Home::new();
    let host = home.host();
    let server = HandlerServer::start(|call| {
        let data = if call.path == "/echo" { json!({}) } else { json!({"more": 1}) };
        Reply::Answer(200, json!({ "data": data }).to_string())
    });
    host.add_handler(&before(http("echo", "clients.delete", &server))).expect("added");
    let new = event("clients.delete", 12, &json!({}));
    assert_eq!(host.before(&new).expect("allowed").as_str(), "{}");
    host.add_handler(&before(http("more", "clients.delete", &server))).expect("added");
    let error = host.before(&new).expect_err("no answer").to_string();
    assert!(error.contains("\"more\" gave no answer") && error.contains("carries none"), "{error}");
}
