//! Disks in trouble: it is nobody's fault who asks, it is told in one way everywhere, and nothing is lost.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::support::{Answer, Home, Package, Run, Server, asset, order, wait_for};

/// Something large: a disk that is nearly full may take something small.
fn large() -> String {
    "x".repeat(900_000)
}

/// A home with what requests and runs of the command are about.
fn furnish(home: &Home) {
    let addon = json!({"id": "fix", "config_vars": ["FIX_URL", "FIX_PLAN"]});
    home.load(&Package::new("Fix").of("addon").field("addon", addon)).succeeded();
    home.load(&Package::new("Keeper").of("keeper")).succeeded();
    let worker = Package::new("Worker").write(home.folder());
    home.run(&["loadplugin", worker.to_str().expect("UTF-8"), "--isolation", "process"]).succeeded();
    // Nobody answers there; its deliveries wait.
    let handler = ["addhandler", "waits", "--event", "clients.create", "--task", "http://127.0.0.1:9/"];
    home.run(&[&handler[..], &["--first-pause", "600s"]].concat()).succeeded();
    home.run(&["emit", "clients.create", "--no-wait"]).succeeded();
    let listens = ["addhandler", "listens", "--event", "on_product_suspension", "--task", "http://127.0.0.1:9/"];
    home.run(&listens).succeeded();
    home.file("large.json", &json!({"large": large()}).to_string());
}

/// A server that has begun all that it does.
fn started(home: &Home) -> Server {
    let server = Server::start(home);
    server.get("/readyz").is(200);
    server
}

/// Calls the hook of a plugin, for an asset with its meta_info.
fn call(server: &Server, kind: &str, meta_info: &Value) -> Answer {
    let mut asset = asset(kind);
    asset.meta_info = meta_info.clone().into();
    server.post("/api/v1/hooks/on_product_acquisition", &json!({"asset": asset, "order": order()}))
}

/// Asks for everything that the server keeps on its disk.
fn ask_for_all(server: &Server, package: &[u8], round: usize) -> Vec<(&'static str, Answer)> {
    let large = json!({"large": large()});
    let basic = format!("Basic {}", BASE64_STANDARD.encode("fix:fixture-password-1234"));
    let platform = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let resource = json!({"uuid": format!("u-{round}"), "plan": "free", "region": large["large"], "options": {}});
    let handler = json!({"name": format!("new {round}"), "event": "clients.create", "task": {"http": "http://127.0.0.1:9/"},
        "secret": "s".repeat(40)});
    let in_use = json!({"resource_type": "Keeper"});
    vec![
        ("a package", server.upload(package)),
        ("settings", server.ask("PUT", "/api/v1/plugins/keeper/settings", Some(&large))),
        ("an event", server.post("/api/v1/events", &json!({"event": "clients.create", "data": large}))),
        ("a handler", server.post("/api/v1/handlers", &handler)),
        ("a resource", server.request("POST", "/cloudcontrol/resources", &platform, resource.to_string().as_bytes())),
        ("state", call(server, "Keeper", &json!(["keep", "key", "x".repeat(60_000)]))),
        ("an asset in use", server.ask("PUT", &format!("/api/v1/assets/{round}"), Some(&in_use))),
        (
            "an event's name",
            server.ask("PUT", &format!("/api/v1/events/own.{round}"), Some(&json!({"description": ""}))),
        ),
        ("a delivery", server.post("/api/v1/deliveries/1/discard", &json!(null))),
        ("a delivery again", server.post("/api/v1/deliveries/1/redrive", &json!(null))),
    ]
}

/// It is told in one way, without a place.
fn check_told(what: &str, answer: &Answer, home: &Home, status: u16, kind: &str) {
    assert!(!answer.body.contains(home.folder().to_str().expect("UTF-8")), "{what}: {answer:#?}");
    let body = answer.json();
    let said = body.get("detail").or(body.get("message")).and_then(Value::as_str).unwrap_or_default();
    assert!(said.contains("the host's disk"), "{what}: {answer:#?}");
    // What a plugin can't keep is the plugin's to tell: that it can't now.
    let status = if what == "state" { 503 } else { status };
    assert_eq!(answer.status, status, "{what}: {answer:#?}");
    // A platform reads messages alone.
    if !["state", "a resource"].contains(&what) {
        assert_eq!(body["kind"], kind, "{what}: {answer:#?}");
    }
}

/// Runs verbs that keep something.
fn run_all(home: &Home, package: &str) -> Vec<(&'static str, Run)> {
    let large = home.folder().join("large.json");
    let large = large.to_str().expect("UTF-8");
    vec![
        ("loadplugin", home.run(&["--json", "loadplugin", package])),
        ("setplugin", home.run(&["--json", "setplugin", "keeper", "--settings", large])),
        ("emit", home.run(&["--json", "emit", "clients.create", "--no-wait", "--data", large])),
        (
            "addhandler",
            home.run(&["--json", "addhandler", "more", "--event", "clients.create", "--task", "http://127.0.0.1:9/"]),
        ),
        ("token", home.run(&["--json", "token", "create", "--scope", "read", "--name", "more"])),
    ]
}

fn check_run(what: &str, run: &Run, kind: &str) {
    assert_eq!(run.code, Some(1), "{what}: {run:#?}");
    let said: Value = serde_json::from_str(run.stderr.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(said["kind"], kind, "{what}: {run:#?}");
    assert!(said["hint"].is_string(), "{what}: {run:#?}");
}

#[test]
fn trouble_of_the_disk_is_the_servers_and_is_told_in_one_way_everywhere() {
    let home = Home::on_failing_disk();
    furnish(&home);
    let file = Package::new("New").write(home.folder());
    let package = fs::read(&file).expect("readable");
    let server = started(&home);
    let troubles: [(&[&str], Errno, u16, &str); 6] = [
        (&["write", "make"], Errno::NOSPC, 507, "disk_full"),
        (&["write", "make"], Errno::DQUOT, 507, "disk_full"),
        (&["write"], Errno::FBIG, 507, "disk_full"),
        (&["write", "make"], Errno::ROFS, 503, "disk_read_only"),
        (&["write", "make"], Errno::IO, 503, "disk_failing"),
        (&["sync"], Errno::IO, 503, "disk_failing"),
    ];
    for (calls, errno, status, kind) in troubles {
        home.fail(calls, errno.raw_os_error());
        for (what, answer) in ask_for_all(&server, &package, 0) {
            check_told(what, &answer, &home, status, kind);
        }
        // A worker needs a folder.
        if calls.contains(&"make") {
            check_told("a worker", &call(&server, "Worker", &json!({})), &home, status, "unavailable");
        }
        // What was done and can't be recorded is told apart from what was not done.
        let suspended = json!({"asset": asset("Keeper"), "order": order()});
        let unrecorded = server.post("/api/v1/hooks/on_product_suspension", &suspended);
        check_told("a hook's listeners", &unrecorded, &home, status, "internal");
        assert_eq!(unrecorded.json()["outcome_unknown"], true, "{unrecorded:#?}");
        // Who only looks is answered.
        for path in ["/api/v1/plugins", "/api/v1/events", "/api/v1/deliveries", "/metrics", "/api/v1/handlers"] {
            server.get(path).is(200);
        }
        for (what, run) in run_all(&home, file.to_str().expect("UTF-8")) {
            check_run(what, &run, kind);
        }
        home.fail(&[], 0);
    }
    for (what, answer) in ask_for_all(&server, &package, 1) {
        assert!(answer.status < 300, "{what}: {answer:#?}");
    }
    call(&server, "Worker", &json!({})).is(200);
    let deliveries = server.get("/api/v1/deliveries").json();
    assert_eq!(deliveries["items"].as_array().map(Vec::len), Some(2), "nothing was half done: {deliveries}");
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_with_room_everything_goes_on() {
    let Some(home) = Home::on_small_disk("size=96m") else { return };
    furnish(&home);
    let file = Package::new("New").write(home.folder());
    let package = fs::read(&file).expect("readable");
    let server = started(&home);
    home.disk().fill();
    for (what, answer) in ask_for_all(&server, &package, 0) {
        // What is small may find a place.
        let is_small = !["a package", "settings", "an event", "a resource", "state"].contains(&what);
        if !is_small || answer.status >= 300 {
            check_told(what, &answer, &home, 507, "disk_full");
        }
    }
    for (what, run) in run_all(&home, file.to_str().expect("UTF-8")).into_iter().take(3) {
        check_run(what, &run, "disk_full");
    }
    home.disk().empty();
    for (what, answer) in ask_for_all(&server, &package, 1) {
        assert!(answer.status < 300, "{what}: {answer:#?}");
    }
    let settings = server.get("/api/v1/plugins/keeper/settings").json();
    assert_eq!(settings["large"].as_str().map(str::len), Some(large().len()));
}

#[test]
fn a_disk_without_room_for_another_file_starts_no_worker_and_says_so() {
    let Some(home) = Home::on_small_disk("size=96m,nr_inodes=1000") else { return };
    furnish(&home);
    let server = started(&home);
    home.disk().fill_files();
    let answer = call(&server, "Worker", &json!({}));
    check_told("a worker", &answer, &home, 507, "unavailable");
    home.disk().empty();
    wait_for("the worker", || call(&server, "Worker", &json!({})).status == 200);
}

#[test]
fn the_document_lists_trouble_of_the_disk_wherever_it_can_be_met() {
    let home = Home::new();
    let server = Server::start(&home);
    let document = server.get("/api/v1/openapi.json").is(200).json();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            if operation["security"].as_array().is_some_and(|security| security.is_empty()) {
                continue;
            }
            for status in ["503", "507"] {
                let text = operation["responses"][status]["description"].as_str().unwrap_or_default();
                assert!(text.contains("disk"), "{method} {path}: {status}: {text:?}");
            }
        }
    }
}
