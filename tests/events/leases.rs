//! Hosts that stand still: what was theirs is told by others, and nothing of it a second time after what came later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use billhook::DeliveryStatus;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{deliveries, event, handler, http, script, settled};
use crate::support::{HandlerServer, Home, Killed, Reply, wait_for};

/// How often each race is run: more for a long run, as `docs/contributing.md` says.
fn rounds() -> usize {
    std::env::var("BILLHOOK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// A lease that ends soon, in milliseconds.
const LEASE: u64 = 1_500;

/// A process that delivers.
struct Deliverer(Killed);

impl Deliverer {
    fn start(home: &Home) -> Self {
        Self::start_with(home, &[])
    }

    fn start_with(home: &Home, environment: &[(&str, &str)]) -> Self {
        let mut command = home.command(&["deliver"]);
        command.envs(environment.iter().copied());
        command.env("BILLHOOK_LEASE_MS", LEASE.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        Deliverer(Killed::start(&mut command))
    }

    fn signal(&self, signal: Signal) {
        let process = i32::try_from(self.0.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(process, signal).expect("it is there");
    }

    /// Whether each of its threads stands still: one of them is told, and stops the others.
    fn stands_still(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.0.id())).expect("it is there");
        let mut states = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
        states.all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
    }
}

/// Whether a host that stands still does so outside of a transaction: in the middle of one, it holds the lock of the ledger or of the
/// execution log, and nobody can note anything until it goes on.
fn is_outside_of_a_transaction(home: &Home) -> bool {
    let may_write = |name: &&str| {
        let path = home.path().join(name);
        let database = rusqlite::Connection::open(path).expect("opened");
        database.busy_timeout(Duration::from_millis(300)).expect("set");
        database.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
    };
    ["ledger.db", "executions.db"].iter().all(may_write)
}

/// Lets a host stand still outside of a transaction.
fn stand_still(home: &Home, still: &Deliverer) {
    loop {
        still.signal(Signal::STOP);
        wait_for("all of it to stand still", || still.stands_still());
        if is_outside_of_a_transaction(home) {
            return;
        }
        still.signal(Signal::CONT);
        thread::sleep(Duration::from_millis(7));
    }
}

/// The numbers that the handler heard of each object, in the order in which they were sent.
fn heard(server: &HandlerServer) -> BTreeMap<i64, Vec<i64>> {
    let mut heard: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for call in server.calls() {
        let (object, number) = (call.at("/event/object_id"), call.at("/data/number"));
        heard.entry(object.as_i64().expect("a number")).or_default().push(number.as_i64().expect("a number"));
    }
    heard
}

/// The same of envelopes, one in a line.
fn heard_by_script(told: &str) -> BTreeMap<i64, Vec<i64>> {
    let mut heard: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for line in told.lines() {
        let envelope: serde_json::Value = serde_json::from_str(line).expect("an envelope");
        let (object, number) = (&envelope["event"]["object_id"], &envelope["data"]["number"]);
        heard.entry(object.as_i64().expect("a number")).or_default().push(number.as_i64().expect("a number"));
    }
    heard
}

/// Twenty objects with five events each, and a handler that is slow at first.
fn race(pauses: usize, others: usize) {
    let home = Home::new();
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let server = HandlerServer::start(move |_| {
        while slow.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Reply::ok()
    });
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    for number in 0..5 {
        for object in 0..20 {
            host.emit(&event("clients.create", object, &json!({ "number": number }))).expect("recorded");
        }
    }
    let still = Deliverer::start(&home);
    wait_for("four slow calls", || server.calls().len() == 4);
    // Its lease was renewed just now, or will be: what is queued is queued under it.
    stand_still(&home, &still);
    is_slow.store(false, Ordering::Relaxed);
    let all_others: Vec<Deliverer> = (0..others).map(|_| Deliverer::start(&home)).collect();
    // What it was just sending is left to it: it may stand still between the last byte and the wait for an answer.
    let sent: BTreeSet<i64> = heard(&server).into_keys().collect();
    let are_told = |but_for: &BTreeSet<i64>| {
        deliveries(&host).iter().all(|delivery| {
            let object = delivery.object_id.as_ref().expect("an object").to_string().parse().expect("a number");
            delivery.status == DeliveryStatus::Done || but_for.contains(&object)
        })
    };
    wait_for("the others to tell everything else", || are_told(&sent));
    for _ in 0..20 {
        if !are_told(&BTreeSet::new()) {
            thread::sleep(Duration::from_millis(LEASE / 10));
        }
    }
    for _ in 0..pauses {
        still.signal(Signal::CONT);
        thread::sleep(Duration::from_millis(400));
        stand_still(&home, &still);
        thread::sleep(Duration::from_millis(LEASE));
    }
    still.signal(Signal::CONT);
    thread::sleep(Duration::from_millis(LEASE));
    drop(all_others);
    let all = settled(&host);
    assert_eq!(all.len(), 100);
    assert!(all.iter().all(|delivery| delivery.status == DeliveryStatus::Done), "{all:?}");
    for (object, numbers) in heard(&server) {
        assert!(numbers.is_sorted(), "object {object}: {numbers:?}");
        assert!((0..5).all(|number| numbers.contains(&number)), "object {object}: {numbers:?}");
    }
}

#[test]
fn a_host_that_stood_still_tells_nothing_after_what_came_later() {
    for _ in 0..rounds() {
        race(0, 1);
    }
}

#[test]
fn a_host_that_stands_still_again_and_again_beside_several_tells_nothing_after_what_came_later() {
    for _ in 0..rounds() {
        race(2, 3);
    }
}

#[test]
fn a_host_that_stood_still_alone_goes_on_with_what_nobody_took() {
    let home = Home::new();
    let server = HandlerServer::start(|_| {
        thread::sleep(Duration::from_millis(30));
        Reply::ok()
    });
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    for number in 0..5 {
        for object in 0..10 {
            host.emit(&event("clients.create", object, &json!({ "number": number }))).expect("recorded");
        }
    }
    let alone = Deliverer::start(&home);
    wait_for("some of it", || server.calls().len() > 5);
    stand_still(&home, &alone);
    thread::sleep(Duration::from_millis(LEASE + 300));
    alone.signal(Signal::CONT);
    assert!(settled(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done));
    for (object, numbers) in heard(&server) {
        assert_eq!(numbers, [0, 1, 2, 3, 4], "object {object}");
    }
}

#[test]
fn what_a_host_that_stands_still_is_just_beginning_is_left_alone_until_it_goes_on_or_ends() {
    for (step, ends) in [("before sending", false), ("before sending", true), ("before starting", false)] {
        // Another of its threads may be in the middle of a transaction: then again.
        assert!((0..20).any(|_| stands_still_at(step, ends)), "{step}, {ends}");
    }
}

/// Lets a host stand still at a step, and go on or end. False where nobody else could deliver meanwhile.
fn stands_still_at(step: &str, ends: bool) -> bool {
    let home = Home::new();
    let server = HandlerServer::start(|_| Reply::ok());
    let (told, host) = (home.folder().join("told"), home.host());
    let handler = match step {
        "before sending" => http("a", "clients.create", &server),
        _ => {
            let text = format!("envelope=$(cat)\necho \"$envelope\" >> {}", told.display());
            handler("a", "clients.create", script(&home, "tell.sh", &text))
        }
    };
    host.add_handler(&handler).expect("added");
    let emit = |object: i64, number: i64| {
        host.emit(&event("clients.create", object, &json!({ "number": number }))).expect("recorded");
    };
    // One only: nothing else of the host is under way where it stands still.
    emit(0, 0);
    let all_heard = || match step {
        "before sending" => heard(&server),
        _ => heard_by_script(&fs::read_to_string(&told).unwrap_or_default()),
    };
    let still = Deliverer::start_with(&home, &[("BILLHOOK_STOP_AT", step)]);
    wait_for(&format!("a host to stand still {step}, {ends}"), || still.stands_still());
    if !is_outside_of_a_transaction(&home) {
        return false;
    }
    for number in 1..3 {
        for object in 0..3 {
            emit(object, number);
        }
    }
    let other = Deliverer::start(&home);
    let is_told = || [1, 2].map(|object| all_heard().get(&object).is_some_and(|numbers| numbers.len() >= 2));
    wait_for("the other objects to be told of", || is_told() == [true, true]);
    thread::sleep(Duration::from_millis(2 * LEASE));
    let heard = all_heard();
    assert!(!heard.contains_key(&0), "{step}: what is just beginning is nobody else's: {heard:?}");
    if ends {
        drop(still);
    } else {
        still.signal(Signal::CONT);
    }
    let all = settled(&host);
    drop(other);
    assert!(all.iter().all(|delivery| delivery.status == DeliveryStatus::Done), "{step}: {all:?}");
    let whole = BTreeMap::from([(0, vec![0, 1, 2]), (1, vec![1, 2]), (2, vec![1, 2])]);
    assert_eq!(all_heard(), whole, "{step}");
    true
}

#[test]
fn a_process_that_stands_still_in_the_middle_of_the_execution_log_holds_up_no_delivery() {
    let (home, server) = (Home::new(), HandlerServer::start(|_| Reply::ok()));
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    let emit = |number: i64| {
        host.emit(&event("clients.create", 0, &json!({ "number": number }))).expect("recorded");
    };
    emit(0);
    let deliverer = Deliverer::start(&home);
    settled(&host);
    let mut holder = rusqlite::Connection::open(home.path().join("executions.db")).expect("opened");
    let held = holder.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("held");
    // One after the other: waiting for the log each time would take minutes.
    for number in 1..12 {
        emit(number);
    }
    let all = settled(&host);
    assert!(all.iter().all(|delivery| delivery.status == DeliveryStatus::Done), "{all:?}");
    assert_eq!(heard(&server), BTreeMap::from([(0, (0..12).collect())]));
    held.rollback().expect("given up");
    // What could not be written is counted, and what is written again comes behind.
    emit(12);
    wait_for("what is not in the log to be counted", || host.dropped_executions().expect("readable") > 0);
    assert_eq!(host.dropped_executions().expect("readable"), 11);
    drop(deliverer);
}

#[test]
fn thirteen_ends_of_hosts_use_up_no_attempt_of_a_listener() {
    let home = Home::new();
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let server = HandlerServer::start(move |_| {
        while slow.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Reply::ok()
    });
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    host.emit(&event("clients.create", 1, &json!({ "number": 1 }))).expect("recorded");
    for end in 1..=13 {
        let killed = Deliverer::start(&home);
        wait_for("the call", || server.calls().len() == end);
        drop(killed);
    }
    is_slow.store(false, Ordering::Relaxed);
    let last = Deliverer::start(&home);
    let all = settled(&host);
    drop(last);
    assert_eq!((all[0].status, all[0].attempts), (DeliveryStatus::Done, 1), "{all:?}");
}
