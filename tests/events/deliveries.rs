//! The ledger: at least once, in order, each listener for itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use billhook::{DeliveryStatus, EventError, ExecutionFilter, Handler, HandlerStatus, Task};
use serde_json::{Value, json};

use super::{deliveries, delivering, event, handler, http, script, settled};
use crate::support::{HandlerServer, Home, Reply, wait_for};

#[test]
fn a_host_delivers_nothing_until_it_is_asked_to_and_what_was_emitted_waits() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    let emitted = host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    assert_eq!((emitted.deliveries.len(), emitted.is_repeated), (1, false));
    thread::sleep(Duration::from_millis(500));
    assert_eq!((server.calls().len(), deliveries(&host)[0].status), (0, DeliveryStatus::Waiting));
    drop(host);
    let host = delivering(&home);
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Done);
    // A handler that comes later hears of later events only.
    host.add_handler(&http("b", "clients.create", &server)).expect("added");
    assert_eq!(settled(&host).len(), 1);
}

#[test]
fn the_same_event_is_recorded_once() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = delivering(&home);
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    let new = event("clients.create", 1, &json!({}));
    let first = host.emit(&new).expect("recorded");
    let second = host.emit(&new).expect("recorded before");
    assert_eq!((&second.id, &second.deliveries, second.is_repeated), (&first.id, &first.deliveries, true));
    settled(&host);
    assert_eq!(server.calls().len(), 1);
}

#[test]
fn a_failing_delivery_holds_up_later_ones_of_its_object_and_listener_and_nothing_else() {
    let home = Home::new();
    let server = HandlerServer::start(|call| {
        let fails = call.path == "/fails" && call.at("/event/object_id") == json!(1) && call.at("/data/n") == json!(0);
        if fails && call.at("/event/attempt").as_u64() < Some(4) { Reply::status(500) } else { Reply::ok() }
    });
    let host = delivering(&home);
    for name in ["fails", "works"] {
        host.add_handler(&http(name, "clients.create", &server)).expect("added");
    }
    for n in 0..3 {
        for object in 1..=2 {
            host.emit(&event("clients.create", object, &json!({ "n": n }))).expect("recorded");
        }
    }
    assert!(settled(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done));
    let mut seen: BTreeMap<(String, i64), Vec<i64>> = BTreeMap::new();
    for call in server.calls() {
        let object = call.at("/event/object_id").as_i64().expect("a number");
        seen.entry((call.path.clone(), object)).or_default().push(call.at("/data/n").as_i64().expect("a number"));
    }
    assert_eq!(seen[&("/fails".to_owned(), 1)], [0, 0, 0, 0, 1, 2], "four attempts, and then the later ones");
    for (path, object) in [("/fails", 2), ("/works", 1), ("/works", 2)] {
        assert_eq!(seen[&(path.to_owned(), object)], [0, 1, 2], "{path}, object {object}");
    }
}

#[test]
fn a_listener_that_hangs_holds_up_no_other() {
    let home = Home::new();
    let server = HandlerServer::start(|call| if call.path == "/hangs" { Reply::Hang } else { Reply::ok() });
    let host = delivering(&home);
    host.add_handler(&http("hangs", "clients.create", &server)).expect("added");
    host.add_handler(&http("works", "clients.create", &server)).expect("added");
    for object in 0..200 {
        host.emit(&event("clients.create", object, &json!({}))).expect("recorded");
    }
    let done = || deliveries(&host).iter().filter(|delivery| delivery.status == DeliveryStatus::Done).count();
    wait_for("the healthy handler to be told everything", || done() == 200);
    assert!(deliveries(&host).iter().all(|delivery| delivery.listener == "works" || delivery.attempts == 0));
}

#[test]
fn dead_letters_are_redriven_or_discarded_and_let_later_ones_pass() {
    let home = Home::new();
    let works = Arc::new(Mutex::new(false));
    let switch = Arc::clone(&works);
    let server = HandlerServer::start(move |call| {
        let refuses = call.at("/data/n") == json!(0) && !*switch.lock().expect("sound");
        if refuses { Reply::Answer(422, json!({"message": "not this one"}).to_string()) } else { Reply::ok() }
    });
    let host = delivering(&home);
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    for n in 0..2 {
        host.emit(&event("clients.create", 1, &json!({ "n": n }))).expect("recorded");
    }
    let all = settled(&host);
    assert_eq!((all[0].status, all[1].status), (DeliveryStatus::Dead, DeliveryStatus::Done));
    host.redrive(all[0].number).expect("redriven");
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Dead, "it refuses again");
    *works.lock().expect("sound") = true;
    home.run(&["redrive", "--all-dead", "--listener", "a"]).succeeded();
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Done);
    let keys: Vec<String> = server.calls().iter().map(|call| call.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys[0] == keys[2] && keys[0] == keys[3] && keys[0] != keys[1], "{keys:?}");
    for (refused, expected) in [
        (host.redrive(all[0].number), "is done: only dead"),
        (host.discard(all[0].number), "is done"),
        (host.redrive(99), "no delivery 99"),
        (host.discard(-1), "no delivery -1"),
    ] {
        let error = refused.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn discarding_what_waits_lets_the_next_one_run() {
    let home = Home::new();
    let server =
        HandlerServer::start(|call| if call.at("/data/n") == json!(0) { Reply::status(500) } else { Reply::ok() });
    let host = delivering(&home);
    let mut slow = http("a", "clients.create", &server);
    (slow.retry.first_ms, slow.retry.longest_ms) = (600_000, 600_000);
    host.add_handler(&slow).expect("added");
    for n in 0..3 {
        host.emit(&event("clients.create", 1, &json!({ "n": n }))).expect("recorded");
    }
    wait_for("the first attempt", || deliveries(&host)[0].attempts == 1);
    let (delivery, ..) = host.delivery(deliveries(&host)[2].number).expect("there");
    assert_eq!(delivery.waits_for, Some(deliveries(&host)[0].number), "it says what it waits for");
    home.run(&["discard", &deliveries(&host)[0].number.to_string()]).succeeded();
    let all = settled(&host);
    let states: Vec<DeliveryStatus> = all.iter().map(|delivery| delivery.status).collect();
    assert_eq!(states, [DeliveryStatus::Discarded, DeliveryStatus::Done, DeliveryStatus::Done]);
}

#[test]
fn a_disabled_handlers_deliveries_wait_and_a_removed_ones_are_dead() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = home.host();
    for name in ["disabled", "removed", "archived"] {
        host.add_handler(&http(name, "clients.create", &server)).expect("added");
    }
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    let set = |name: &str, status| host.set_handler(name, |handler| handler.status = status).map(drop);
    set("disabled", HandlerStatus::Disabled).expect("set");
    set("archived", HandlerStatus::Archived).expect("set");
    let error = host.remove_handler("removed", false).expect_err("it has a delivery");
    assert!(matches!(error, EventError::HandlerInUse { deliveries: 1, .. }), "{error}");
    let error =
        host.set_handler("removed", |handler| handler.mode = billhook::Mode::Before).expect_err("it has a delivery");
    assert!(matches!(error, EventError::HandlerInUse { .. }), "{error}");
    host.remove_handler("removed", true).expect("removed");
    // At once, so that another handler of the same name would get none of them.
    let removed = deliveries(&host).into_iter().find(|delivery| delivery.listener == "removed").expect("there");
    assert_eq!((removed.status, removed.problem.as_deref()), (DeliveryStatus::Dead, Some("the handler was removed")));
    let dead = deliveries(&host).iter().filter(|delivery| delivery.status == DeliveryStatus::Dead).count();
    assert_eq!(dead, 2, "the archived one's is dead at once, too");
    host.start_deliveries().expect("started");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(deliveries(&host)[1].listener, "disabled", "in the order of their names");
    assert_eq!(deliveries(&host)[1].status, DeliveryStatus::Waiting);
    // Events that come meanwhile are not for it.
    let emitted = host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    assert_eq!(emitted.deliveries.len(), 0);
    set("disabled", HandlerStatus::Enabled).expect("set");
    assert_eq!(settled(&host)[1].status, DeliveryStatus::Done);
}

/// The greatest number of calls that were under way at once, of each delivery.
#[derive(Default)]
struct Running {
    now: HashMap<String, usize>,
    most: HashMap<String, usize>,
}

#[test]
fn several_hosts_share_the_work_and_none_delivers_what_another_does() {
    let home = Home::new();
    let running: Arc<Mutex<Running>> = Arc::default();
    let shared = Arc::clone(&running);
    let server = HandlerServer::start(move |call| {
        // Of one object, nothing runs at once, whichever delivery it is.
        let object = call.at("/event/object_id").to_string();
        {
            let mut running = shared.lock().expect("sound");
            let now = running.now.entry(object.clone()).or_default();
            *now += 1;
            let now = *now;
            let most = running.most.entry(object.clone()).or_default();
            *most = now.max(*most);
        }
        thread::sleep(Duration::from_millis(5));
        *shared.lock().expect("sound").now.get_mut(&object).expect("there") -= 1;
        if call.at("/event/attempt") == json!(1) && call.at("/data/n") == json!(3) {
            Reply::status(500)
        } else {
            Reply::ok()
        }
    });
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    let mut others: Vec<_> = (0..2)
        .map(|_| home.command(&["deliver"]).stdout(std::process::Stdio::piped()).spawn().expect("started"))
        .collect();
    wait_for("both to deliver", || delivering_hosts(&home) == 2);
    host.start_deliveries().expect("started");
    let hosts = [home.host(), home.host()];
    thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| {
                for n in 0..10 {
                    for object in 0..20 {
                        host.emit(&event("clients.create", object, &json!({ "n": n }))).expect("recorded");
                    }
                }
            });
        }
    });
    assert!(settled(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done));
    let most = &running.lock().expect("sound").most;
    assert!(most.values().all(|most| *most == 1), "{most:?}");
    assert_eq!(server.calls().len(), 400 + 40, "each once, and those that failed once twice");
    for other in &mut others {
        let pid = rustix::process::Pid::from_child(other);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("there");
    }
    let said: Vec<String> = others
        .into_iter()
        .map(|other| {
            let output = other.wait_with_output().expect("ended");
            assert!(output.status.success(), "it ends well when it is asked to");
            String::from_utf8(output.stdout).expect("UTF-8")
        })
        .collect();
    assert!(said.iter().any(|said| said.contains("clients.create")), "the others did some of it");
}

#[test]
fn what_a_host_held_that_was_killed_is_delivered_by_another_at_once() {
    let home = Home::new();
    let out = home.folder().join("out").to_str().expect("UTF-8").to_owned();
    // The first run hangs, every later one goes through.
    let task = script(&home, "hangs", &format!("test -e {out} || {{ echo begun > {out}; sleep 100; }}"));
    let host = home.host();
    let mut slow = handler("a", "clients.create", task);
    slow.deadline_ms = 120_000;
    host.add_handler(&slow).expect("added");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    let mut other = home.command(&["deliver"]).stdout(std::process::Stdio::null()).spawn().expect("started");
    wait_for("the script to run", || std::path::Path::new(&out).exists());
    assert_eq!(deliveries(&host)[0].status, DeliveryStatus::Running);
    other.kill().expect("killed");
    other.wait().expect("ended");
    host.start_deliveries().expect("started");
    let all = settled(&host);
    assert_eq!(
        (all[0].status, all[0].attempts),
        (DeliveryStatus::Done, 1),
        "what was cut off is no attempt that failed"
    );
}

#[test]
fn events_without_an_object_have_no_order_and_dont_wait_for_each_other() {
    let home = Home::new();
    let server =
        HandlerServer::start(|call| if call.at("/data/n") == json!(0) { Reply::status(500) } else { Reply::ok() });
    let host = delivering(&home);
    let mut slow = http("a", "clients.create", &server);
    (slow.retry.first_ms, slow.retry.longest_ms) = (600_000, 600_000);
    host.add_handler(&slow).expect("added");
    for n in 0..3 {
        let mut new = event("clients.create", 1, &json!({ "n": n }));
        new.object_id = None;
        host.emit(&new).expect("recorded");
    }
    wait_for("the later ones", || {
        deliveries(&host)[1..].iter().all(|delivery| delivery.status == DeliveryStatus::Done)
    });
    assert_eq!(server.calls()[0].at("/event/object_id"), Value::Null);
}

#[test]
fn what_was_recorded_is_all_or_nothing_wherever_it_is_cut_off() {
    for (step, recorded) in [("before ledger commit", 0), ("after ledger commit", 1)] {
        let home = Home::new();
        let task = script(&home, "a", "exit 0");
        let host = home.host();
        host.add_handler(&handler("a", "clients.create", task)).expect("added");
        let mut command = home.command(&["emit", "clients.create", "--object", "1"]);
        let output = command.env("BILLHOOK_KILL_AT", format!("{step}#1")).output().expect("ran");
        assert_eq!(output.status.code(), None, "{step}: it was killed");
        assert_eq!(deliveries(&host).len(), recorded, "{step}");
        host.start_deliveries().expect("started");
        assert!(settled(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done), "{step}");
    }
    // What was delivered and not noted is delivered again, and known by its key.
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    let mut command = home.command(&["emit", "clients.create", "--object", "1"]);
    let output = command.env("BILLHOOK_KILL_AT", "before settling#1").output().expect("ran");
    assert_eq!((output.status.code(), server.calls().len()), (None, 1));
    host.start_deliveries().expect("started");
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Done);
    let calls = server.calls();
    assert_eq!((calls.len(), &calls[0].body), (2, &calls[1].body), "the same attempt again");
    assert_eq!(calls[0].headers["idempotency-key"], calls[1].headers["idempotency-key"]);
}

#[test]
fn a_full_disk_is_an_error_of_emit_and_loses_nothing_that_was_recorded() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    // What SQLite says of a full disk it says of a file that may not grow, too.
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).expect("opens");
    let pages: i64 = ledger.query_row("PRAGMA page_count", (), |row| row.get(0)).expect("counted");
    drop(ledger);
    let limited = || {
        let mut command = home.command(&["emit", "clients.create", "--no-wait", "--data", "large.json"]);
        let limit = rustix::process::Rlimit { current: Some(pages.unsigned_abs() * 4096 + 65_536), maximum: None };
        // SAFETY: only sets a limit, between fork and exec.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
                rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).map_err(Into::into)
            });
        }
        crate::support::run(&mut command)
    };
    home.file("large.json", &json!({"id": 2, "x": "x".repeat(4_000_000)}).to_string());
    limited().failed_with(&["the ledger (ledger.db in the home) failed"]);
    assert_eq!(deliveries(&host).len(), 1, "all or nothing");
    host.start_deliveries().expect("started");
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Done);
    let executions = host.executions(&ExecutionFilter::default()).expect("readable");
    assert_eq!(executions.len(), 1);
}

#[test]
fn handlers_of_the_same_event_are_told_in_the_order_of_their_priorities_and_names() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = home.host();
    for (name, priority) in [("c", 5), ("b", 100), ("a", 100), ("d", 1)] {
        let handler = Handler { priority, ..handler(name, "clients.create", Task::Http(server.url("/"))) };
        host.add_handler(&handler).expect("added");
    }
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    let order: Vec<String> = deliveries(&host).into_iter().map(|delivery| delivery.listener).collect();
    assert_eq!(order, ["d", "c", "a", "b"]);
}

#[test]
fn a_handler_that_was_just_added_by_another_process_is_called_by_a_host_that_runs() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let host = delivering(&home);
    let other = home.host();
    for number in 0..15 {
        other.add_handler(&http(&format!("new {number}"), "clients.create", &server)).expect("added");
        other.emit(&event("clients.create", number, &json!({}))).expect("recorded");
    }
    let all = settled(&host);
    assert_eq!(all.len(), 15 * 16 / 2);
    assert!(all.iter().all(|delivery| delivery.status == DeliveryStatus::Done), "{all:?}");
}

#[test]
fn a_call_that_outlasts_the_end_of_deliveries_keeps_its_lease_and_is_settled() {
    let home = Home::new();
    let out = home.folder().join("out").to_str().expect("UTF-8").to_owned();
    let host = home.host();
    let task = script(&home, "slow", &format!("echo begun >> {out}; sleep 1.5"));
    host.add_handler(&handler("slow", "clients.create", task)).expect("added");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    host.start_deliveries().expect("started");
    wait_for("the script to run", || std::path::Path::new(&out).exists());
    host.stop_deliveries(Duration::ZERO);
    let other = delivering(&home);
    let all = settled(&other);
    assert_eq!((all[0].status, all[0].attempts), (DeliveryStatus::Done, 1));
    assert_eq!(std::fs::read_to_string(&out).expect("written"), "begun\n", "nobody else began it meanwhile");
    // Deliveries can be started again.
    host.start_deliveries().expect("started");
    host.stop_deliveries(Duration::MAX);
}

/// How many hosts have said that they deliver.
fn delivering_hosts(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.path().join("locks")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("delivers-")).count()
}

#[test]
fn files_of_hosts_that_held_nothing_are_cleared_away() {
    let home = Home::new();
    let host = home.host();
    let mut other = home.command(&["deliver"]).stdout(std::process::Stdio::null()).spawn().expect("started");
    let files = || delivering_hosts(&home);
    wait_for("its file", || files() == 1);
    other.kill().expect("killed");
    other.wait().expect("ended");
    host.start_deliveries().expect("started");
    assert_eq!(files(), 1, "its own");
    host.stop_deliveries(Duration::from_secs(60));
    assert_eq!(files(), 0);
}

#[test]
fn what_a_host_holds_that_hangs_is_delivered_by_another_when_its_lease_ran_out_and_not_twice_when_it_goes_on() {
    let home = Home::new();
    // One host is told nothing, however long it waits; what comes later is answered.
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let server = HandlerServer::start(move |_| {
        if turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 4 { Reply::Hang } else { Reply::ok() }
    });
    let host = home.host();
    let mut handler = http("a", "clients.create", &server);
    handler.deadline_ms = 300_000;
    host.add_handler(&handler).expect("added");
    for object in 0..6 {
        host.emit(&event("clients.create", object, &json!({}))).expect("recorded");
    }
    let mut other = home.command(&["deliver"]).stdout(std::process::Stdio::null()).spawn().expect("started");
    let signal =
        |signal| rustix::process::kill_process(rustix::process::Pid::from_child(&other), signal).expect("there");
    wait_for("it to hold everything, and to wait for four answers", || server.calls().len() == 4);
    signal(rustix::process::Signal::STOP);
    let stopped = std::time::Instant::now();
    host.start_deliveries().expect("started");
    assert!(settled(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done));
    assert!(stopped.elapsed() > Duration::from_secs(20), "not before the lease ran out: it might only have been slow");
    assert_eq!(server.calls().len(), 4 + 6);
    signal(rustix::process::Signal::CONT);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(server.calls().len(), 4 + 6, "what it still had it gives up");
    assert!(deliveries(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done && delivery.attempts == 1));
    other.kill().expect("killed");
    other.wait().expect("ended");
}
