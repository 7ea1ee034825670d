//! What the same plugin does in the process of the host, and how its calls are bounded there.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use billhook::{
    ErrorKind, Install, Json,
    data::{Asset, Order},
};
use serde_json::{Value, json};

use super::{does, parsed, suspension};
use crate::support::{Home, Package, acquired, asset, order, run, wait_for};

/// What the same deeds do in the process of the host, here a run of the command: what a panic guard contains is contained, and
/// the rest ends the process, as the operator's guide says.
#[test]
fn in_the_process_of_the_host_only_panics_are_contained() {
    let home = Home::new();
    home.load(&Package::new("Rogue").of("rogue")).succeeded();
    let call = |deed: &str, what: &str| {
        let asset = Asset { meta_info: json!({"do": deed, "what": what}).into(), ..asset("Rogue") };
        let file = home.file("objects.json", &json!({"asset": asset, "order": order()}).to_string());
        home.run(&["callplugin", "rogue", "on_product_acquisition", "--objects", &file])
    };
    call("panic", "").failed_with(&["the plugin panicked at"]);
    call("refuse", "").failed_with(&["conflict: as asked"]);
    for (deed, what) in [("segfault", ""), ("abort", ""), ("overflow", "")] {
        assert_eq!(call(deed, what).code, None, "{deed} ends the process by a signal");
    }
    for (what, code) in [("0", 0), ("7", 7)] {
        let run = call("exit", what);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "it ends the process");
    }
    // Nothing bounds it: neither its time, nor its memory, nor what it starts.
    let objects = |deed: &str, what: &str| {
        let asset = Asset { meta_info: json!({"do": deed, "what": what}).into(), ..asset("Rogue") };
        home.file("objects.json", &json!({"asset": asset, "order": order()}).to_string())
    };
    for deed in ["loop", "stop", "stdout", "stderr"] {
        let file = objects(deed, "");
        let mut command = home.command(&["callplugin", "rogue", "on_product_acquisition", "--objects", &file]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        thread::sleep(Duration::from_millis(700));
        assert!(child.try_wait().expect("asked").is_none(), "{deed}: it keeps its caller");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
    let call_within = |limits: &str, deed: &str| {
        let file = objects(deed, "");
        let command = format!("{} callplugin rogue on_product_acquisition --objects {file}", crate::support::BILLHOOK);
        let mut shell = Command::new("bash");
        run(shell.arg("-c").arg(format!("ulimit {limits}; exec {command}")).env("BILLHOOK_HOME", home.path()))
    };
    let ended = call_within("-v 2000000", "allocate");
    assert_eq!(ended.code, None, "running out of memory ends the process: {ended:#?}");
    assert!(ended.stderr.contains("memory allocation of 8388608 bytes failed"), "{}", ended.stderr);
    // What it takes of files and threads it takes from the host.
    call_within("-n 128", "descriptors").failed_with(&["Too many open files"]);
    call_within("-v 2000000", "threads").failed_with(&[" threads"]);
    // To a file: what it starts keeps a pipe open. Nor is the process itself able to say what came of it any more.
    let call_into_file = |deed: &str, what: &str| {
        let file = objects(deed, what);
        let said = std::fs::File::create(home.folder().join("said")).expect("made");
        let mut command = home.command(&["callplugin", "rogue", "on_product_acquisition", "--objects", &file]);
        command.stdout(said).stderr(Stdio::null()).status().expect("it starts");
        std::fs::read_to_string(home.folder().join("said")).expect("there")
    };
    assert_eq!(call_into_file("close", ""), "", "what it closes is closed");
    let forked: Value = serde_json::from_str(&call_into_file("fork", "setsid")).expect("an answer");
    let forked = forked["changes"]["meta_info"].as_i64().expect("a process");
    let forked = rustix::process::Pid::from_raw(i32::try_from(forked).expect("a number")).expect("a process");
    rustix::process::kill_process(forked, rustix::process::Signal::KILL).expect("what it started goes on without it");

    // It sees and does whatever the host may.
    assert!(call("environment", "").succeeded().stdout.contains("BILLHOOK_HOME"));
    assert_eq!(call("read", "/etc/hostname").succeeded().json()["outcome"], "ok");
    assert_eq!(call("udp", "").succeeded().json()["changes"]["meta_info"], "bound");
}

#[test]
fn overdue_calls_in_the_process_of_the_host_make_a_plugin_stuck_until_one_returns() {
    let home = Home::new();
    let host = home.host();
    for name in ["Rogue", "Healthy"] {
        let package = Package::new(name).of(&name.to_lowercase());
        host.install(package.write(home.folder()), &Install::default()).expect("installed");
    }
    let settings = json!({"deadline_ms": 200, "most_overdue": 3});
    host.set_runtime("rogue", &parsed(&settings)).expect("it can be run so");
    thread::scope(|scope| {
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| does(&host, "sleep", "3000"))).collect();
        wait_for("the plugin to be stuck", || does(&host, "pid", "").is_err());
        let started = Instant::now();
        let error = does(&host, "pid", "").expect_err("stuck");
        assert_eq!(error.message(), "the plugin is stuck: 3 of its calls or more are overdue");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(started.elapsed() < Duration::from_secs(2), "it is refused at once");
        assert_eq!(acquired(&host, "Healthy").as_deref(), Ok("\"healthy\""));
        for call in calls {
            assert_eq!(call.join().expect("no panic").expect("they return after all"), "done");
        }
    });
    wait_for("it to take calls again", || does(&host, "pid", "").is_ok());
}

#[test]
fn a_released_hook_lets_its_caller_go_at_the_deadline_and_drops_what_comes_late() {
    let home = Home::new();
    let host = home.host();
    host.install(Package::new("Rogue").of("rogue").write(home.folder()), &Install::default()).expect("installed");
    let hooks: BTreeMap<&str, Value> =
        [("on_product_acquisition", json!({"deadline_ms": 500, "release": true}))].into_iter().collect();
    host.set_runtime("rogue", &parsed(&json!({"hooks": hooks}))).expect("it can be run so");
    assert_eq!(does(&host, "pid", "").expect("in time"), std::process::id());
    assert_eq!(does(&host, "contracts", "item-1").expect("in time"), json!([1, true]));
    let error = does(&host, "refuse", "").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = does(&host, "panic", "").expect_err("it panicked");
    assert!(error.message().starts_with("the plugin panicked at"), "{error}");
    let started = Instant::now();
    let error = does(&host, "sleep", "2000").expect_err("too late");
    assert_eq!(error.message(), "timed out after 0.5 s: outcome unknown");
    assert!(error.is_outcome_unknown() && started.elapsed() < Duration::from_millis(1_900));
    // A hook that isn't released stays on its caller's thread.
    let suspended = host.call("rogue", billhook::Hook::OnProductSuspension, suspension()).expect("it goes through");
    let suspended = suspended.expect("it is implemented").into_changes();
    assert_eq!(suspended.meta_info.as_ref().map(Json::as_str), Some("\"suspended\""));
}

#[test]
fn released_hooks_that_hang_make_a_plugin_stuck_too() {
    let home = Home::new();
    let host = home.host();
    host.install(Package::new("Rogue").of("rogue").write(home.folder()), &Install::default()).expect("installed");
    let hooks: BTreeMap<&str, Value> =
        [("on_product_acquisition", json!({"deadline_ms": 100, "release": true}))].into_iter().collect();
    host.set_runtime("rogue", &parsed(&json!({"hooks": hooks, "most_overdue": 2}))).expect("it can be run so");
    // Callers go at their deadlines, but what they called stays.
    for _ in 0..2 {
        does(&host, "sleep", "4000").expect_err("too late");
    }
    wait_for("the plugin to be stuck", || {
        does(&host, "pid", "").is_err_and(|error| error.message().contains("is stuck: 2 of its calls"))
    });
    wait_for("it to take calls again", || does(&host, "pid", "").is_ok());
}

#[test]
fn a_plugin_that_hangs_when_it_is_loaded_holds_its_callers_no_longer_than_a_call_may_take() {
    let home = Home::new();
    let host = home.host();
    // Its constructor hangs only with these settings, and they are not tried.
    let package = Package::new("X").of("hang_with_settings").write(home.folder());
    host.install(package, &Install::default()).expect("installed");
    host.set_runtime("x", &parsed(&json!({"deadline_ms": 500}))).expect("it can be run so");
    let registry = home.path().join("registry.db");
    drop(host);
    let connection = rusqlite::Connection::open(registry).expect("opens");
    connection.execute("UPDATE plugin SET settings = '{\"hang\": true}'", ()).expect("changed");
    let host = home.host();
    let order: Order = order();
    let started = Instant::now();
    let called = host.on_product_acquisition(&asset("X"), &order.contracts[0], &order);
    let error = called.expect_err("it hangs");
    assert_eq!(error.message(), "the plugin is still being loaded after 0.5 s");
    assert!(started.elapsed() < Duration::from_secs(5));
}
