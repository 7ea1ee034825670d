//! Events, handlers, the delivery ledger and the execution log.

mod before;
mod chaos;
mod client;
mod commands;
mod contract;
mod deliveries;
mod leases;
mod plugins;

use std::{fs, path::Path, time::Duration};

use billhook::{
    Delivery, DeliveryFilter, DeliveryStatus, Execution, ExecutionFilter, Handler, Host, HostOptions, Json, NewEvent,
    Task,
};
use serde_json::{Value, json};

use crate::support::{HandlerServer, Home, options, wait_for};

/// A host that delivers.
pub(crate) fn delivering(home: &Home) -> Host {
    delivering_with(home, options())
}

pub(crate) fn delivering_with(home: &Home, options: HostOptions) -> Host {
    let host = Host::open_with(home.path(), options).expect("the home opens");
    host.start_deliveries().expect("started");
    host
}

/// A handler that is tried again at once.
pub(crate) fn handler(name: &str, event: &str, task: Task) -> Handler {
    let mut handler = Handler::new(name, event, task);
    (handler.retry.first_ms, handler.retry.longest_ms) = (10, 50);
    handler
}

pub(crate) fn http(name: &str, event: &str, server: &HandlerServer) -> Handler {
    handler(name, event, Task::Http(server.url(&format!("/{}", name.replace(' ', "-")))))
}

/// A script that does what is written here, as a task.
pub(crate) fn script(home: &Home, name: &str, text: &str) -> Task {
    let path = home.file(name, &format!("#!/bin/sh\n{text}\n"));
    make_executable(Path::new(&path));
    Task::Script(vec![path])
}

pub(crate) fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

pub(crate) fn event(name: &str, object: i64, data: &Value) -> NewEvent {
    NewEvent::new(name).about(object).with_data(Json::from_value(data).expect("JSON"))
}

/// All deliveries, the oldest first.
pub(crate) fn deliveries(host: &Host) -> Vec<Delivery> {
    let mut all = host.deliveries(&DeliveryFilter::default()).expect("readable");
    all.reverse();
    all
}

/// Waits until nothing is left to deliver; answers what became of all, the oldest first.
#[track_caller]
pub(crate) fn settled(host: &Host) -> Vec<Delivery> {
    let is_open = |delivery: &Delivery| matches!(delivery.status, DeliveryStatus::Waiting | DeliveryStatus::Running);
    wait_for("everything to be delivered or given up", || !deliveries(host).iter().any(is_open));
    deliveries(host)
}

/// The execution log, the oldest first, once there are so many.
#[track_caller]
pub(crate) fn executions(host: &Host, count: usize) -> Vec<Execution> {
    let all = || host.executions(&ExecutionFilter { after: Some(0), ..ExecutionFilter::default() }).expect("readable");
    wait_for("the executions to be written", || all().len() >= count);
    let all = all();
    assert_eq!(all.len(), count, "{all:#?}");
    all
}

#[test]
fn the_manuals_example_runs_and_its_execution_is_in_the_log() {
    let home = Home::new();
    let server = HandlerServer::echo();
    // As the manual of the Provisioning API tells it: an http:// handler for "Clients Create" that sends back what it gets.
    let address = server.url("/api");
    home.run(&["addhandler", "CRM", "--event", "Clients Create", "--task", &address]).succeeded();
    let data = home.file("client.json", r#"{"id": 12, "name": "My name", "companies_id": 3}"#);
    let said = home.run(&["emit", "clients.create", "--data", &data]).succeeded().stdout;
    assert!(said.contains("delivery 1 to handler CRM: done"), "{said}");

    let calls = server.calls();
    assert_eq!((calls.len(), calls[0].path.as_str()), (1, "/api"));
    assert_eq!(calls[0].headers["content-type"], "application/json");
    let envelope: Value = serde_json::from_str(&calls[0].body).expect("JSON");
    assert_eq!(envelope["data"], json!({"id": 12, "name": "My name", "companies_id": 3}));
    let head = envelope["event"].as_object().expect("an object");
    assert_eq!(head.keys().collect::<Vec<_>>(), ["dt", "events_id", "object_id", "id", "attempt"]);
    assert_eq!(
        (&head["events_id"], &head["object_id"], &head["attempt"]),
        (&json!("clients.create"), &json!(12), &json!(1))
    );
    let date = head["dt"].as_str().expect("a date");
    assert!(date.len() == 25 && date.ends_with("+00:00"), "{date} is not like 2000-01-01T00:00:00+00:00");
    let id = head["id"].as_str().expect("an id");
    assert!(id.len() == 36 && id.as_bytes()[14] == b'7', "{id} is no UUID of version 7");
    assert!(calls[0].headers["idempotency-key"].starts_with(id));

    let logged = home.run(&["log", "--json"]).succeeded().json();
    let logged = &logged.as_array().expect("a list")[0];
    let shown = ["event", "object_id", "kind", "listener", "attempt", "status", "delivery"].map(|key| &logged[key]);
    let expected =
        [json!("clients.create"), json!("12"), json!("handler"), json!("CRM"), json!(1), json!("success"), json!(1)];
    assert_eq!(shown, expected.each_ref(), "{logged}");
    assert_eq!(logged["response"], calls[0].body, "what it answered");
}

#[test]
fn handlers_see_what_changed_within_a_second_and_no_restart_is_needed() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = delivering(&home);
    let started = std::time::Instant::now();
    home.run(&["addhandler", "late", "--event", "clients.create", "--task", &server.url("/late")]).succeeded();
    let done = |host: &Host| {
        host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
        !deliveries(host).is_empty()
    };
    wait_for("the host to notice the handler", || done(&host));
    assert!(started.elapsed() < Duration::from_secs(20), "it is far less on an idle machine");
    settled(&host);
    home.run(&["sethandler", "late", "--status", "disabled"]).succeeded();
    let count = deliveries(&host).len();
    wait_for("the host to notice that it is disabled", || {
        let before = deliveries(&host).len();
        host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
        deliveries(&host).len() == before
    });
    assert!(deliveries(&host).len() >= count);
}
