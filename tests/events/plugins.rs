//! Plugins that listen to events.

use std::fs;

use billhook::{DeliveryStatus, Hook, Host};
use serde_json::{Value, json};

use super::{deliveries, delivering, event, http, settled};
use crate::support::{HandlerServer, Home, Package, acquire, asset, wait_for};

/// A home with a plugin that listens to some events, and the file that it writes.
fn listening(home: &Home, isolation: &str) -> String {
    let log = home.file("heard", "");
    let settings = home.file("settings.json", &json!({ "log": log }).to_string());
    let events = json!(["clients.create", "Clients Update", "on_product_acquisition", "tickets.create"]);
    let package = Package::new("Listener").of("listener").field("events", events).write(home.folder());
    let package = package.to_str().expect("UTF-8");
    home.run(&["addevent", "tickets.create", "--description", "a ticket"]).succeeded();
    let arguments = ["loadplugin", package, "--settings", &settings, "--isolation", isolation];
    let said = home.run(&arguments).succeeded();
    assert_eq!(said.stderr, "", "nothing to warn of");
    log
}

fn heard(log: &str) -> Vec<String> {
    fs::read_to_string(log).expect("readable").lines().map(str::to_owned).collect()
}

fn emit(host: &Host, name: &str, data: &Value) {
    host.emit(&event(name, 12, data)).expect("recorded");
}

#[test]
fn a_plugin_hears_the_events_of_its_package_json_in_order_and_is_tried_again() {
    let home = Home::new();
    let log = listening(&home, "in-process");
    let host = delivering(&home);
    emit(&host, "clients.create", &json!({"unavailable_until": 3}));
    emit(&host, "clients.delete", &json!({}));
    emit(&host, "clients.update", &json!({"panic_until": 2}));
    emit(&host, "tickets.create", &json!({"refuse": true}));
    let all = settled(&host);
    let states: Vec<(DeliveryStatus, u32)> = all.iter().map(|delivery| (delivery.status, delivery.attempts)).collect();
    let expected = [(DeliveryStatus::Done, 3), (DeliveryStatus::Done, 2), (DeliveryStatus::Dead, 1)];
    assert_eq!(states, expected);
    assert_eq!(all[2].problem.as_deref(), Some("not this one"));
    let heard = heard(&log);
    let begin = ["clients.create 12 1", "clients.create 12 2", "clients.create 12 3", "clients.update 12 1"];
    for (line, begin) in heard.iter().zip(begin) {
        assert!(line.starts_with(&format!("listener {begin} ")), "{heard:?}");
    }
    assert_eq!(heard.len(), 6, "{heard:?}");
}

#[test]
fn a_plugin_in_a_worker_hears_events_too() {
    let home = Home::new();
    let log = home.file("kept", "");
    drop(log);
    let events = json!(["clients.create"]);
    // It may write only into its own folder there.
    let settings = home.file("settings.json", &json!({ "log": "heard" }).to_string());
    let package = Package::new("Listener").of("listener").field("events", events).write(home.folder());
    let package = package.to_str().expect("UTF-8");
    home.run(&["loadplugin", package, "--settings", &settings, "--isolation", "process"]).succeeded();
    let host = delivering(&home);
    emit(&host, "clients.create", &json!({"unavailable_until": 2}));
    let all = settled(&host);
    assert_eq!((all[0].status, all[0].attempts, all[0].kind.name()), (DeliveryStatus::Done, 2, "plugin"));
    assert_eq!(host.workers(), 1);
}

#[test]
fn a_plugin_listens_to_hooks_of_other_plugins_after_they_went_through() {
    let home = Home::new();
    let log = listening(&home, "in-process");
    home.load(&Package::new("Healthy")).succeeded();
    let host = delivering(&home);
    acquire(&host, &asset("Healthy")).expect("acquired");
    settled(&host);
    let heard = heard(&log);
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("listener on_product_acquisition asset-1 1 "), "{heard:?}");
    let data: Value = serde_json::from_str(heard[0].splitn(6, ' ').nth(5).expect("data")).expect("JSON");
    assert_eq!(data["asset"]["meta_info"], "healthy", "as the hook left it");
}

#[test]
fn plugins_and_handlers_are_told_by_priority_and_explain_says_so() {
    let home = Home::new();
    let log = listening(&home, "in-process");
    let server = HandlerServer::echo();
    let host = home.host();
    host.add_handler(&http("m", "clients.create", &server)).expect("added");
    let order = || -> Vec<String> {
        let steps = host.explain("clients.create", None).expect("explained");
        steps
            .into_iter()
            .filter(|step| step.phase == "after")
            .map(|step| format!("{} {}", step.kind, step.who))
            .collect()
    };
    assert_eq!(order(), ["plugin listener", "handler m"], "by name where the priorities are equal");
    home.run(&["setplugin", "listener", "--priority", "200"]).succeeded();
    assert_eq!(order(), ["handler m", "plugin listener"]);
    assert!(home.run(&["showplugin", "listener"]).stdout.contains("priority      200"));
    emit(&host, "clients.create", &json!({}));
    let told: Vec<String> = deliveries(&host).into_iter().map(|delivery| delivery.listener).collect();
    assert_eq!(told, ["m", "listener"]);

    // While it is disabled, what it is told waits; when it is removed, that is dead.
    home.run(&["disableplugin", "listener"]).succeeded();
    host.refresh().expect("readable");
    host.start_deliveries().expect("started");
    wait_for("the handler", || deliveries(&host)[0].status == DeliveryStatus::Done);
    assert_eq!((deliveries(&host)[1].status, heard(&log).len()), (DeliveryStatus::Waiting, 0));
    home.run(&["enableplugin", "listener"]).succeeded();
    assert_eq!(settled(&host)[1].status, DeliveryStatus::Done);
    host.set_enabled("listener", false).expect("disabled");
    emit(&host, "clients.create", &json!({}));
    host.remove("listener", false).expect("removed");
    assert_eq!(settled(&host)[3].status, DeliveryStatus::Dead);
}

#[test]
fn a_package_whose_events_and_module_dont_match_is_warned_of() {
    let home = Home::new();
    let said = home.load(&Package::new("Healthy").field("events", json!(["clients.create"]))).succeeded();
    assert!(said.stderr.contains("lists events, and the module doesn't implement on_event"), "{}", said.stderr);
    let settings = home.file("settings.json", &json!({ "log": "x" }).to_string());
    let package = Package::new("Listener").of("listener").write(home.folder());
    let said = home.run(&["loadplugin", package.to_str().expect("UTF-8"), "--settings", &settings]).succeeded();
    assert!(said.stderr.contains("implements on_event, and package.json lists no events"), "{}", said.stderr);
}

#[test]
fn on_event_is_called_by_hand_like_any_hook() {
    let home = Home::new();
    let log = listening(&home, "in-process");
    let envelope = json!({"event": {"events_id": "clients.create", "object_id": "x", "id": "1", "attempt": 1,
                                    "dt": "2000-01-01T00:00:00+00:00"}, "data": {}});
    let objects = home.file("objects.json", &json!({ "event": envelope }).to_string());
    let answer = home.run(&["callplugin", "listener", Hook::OnEvent.name(), "--objects", &objects]).succeeded().json();
    assert_eq!(answer["outcome"], "ok");
    assert_eq!(heard(&log), ["listener clients.create x 1 2000-01-01T00:00:00+00:00 {}"]);
}
