//! Hosts that stand still: what was theirs is told by others, and nothing of it a second time after what came later.

use std::{
    collections::BTreeMap,
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

use super::{deliveries, event, http, settled};
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
        let mut command = home.command(&["deliver"]);
        command.env("BILLHOOK_LEASE_MS", LEASE.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        Deliverer(Killed::start(&mut command))
    }

    fn signal(&self, signal: Signal) {
        let process = i32::try_from(self.0.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(process, signal).expect("it is there");
    }
}

/// Lets a host stand still outside of a transaction: in the middle of one, it would hold the lock of the ledger or of the execution
/// log, and nobody could note anything until it goes on.
fn stand_still(home: &Home, still: &Deliverer) {
    let may_write = |name: &&str| {
        let path = home.path().join(name);
        let database = rusqlite::Connection::open(path).expect("opened");
        database.busy_timeout(Duration::from_millis(300)).expect("set");
        database.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
    };
    loop {
        still.signal(Signal::STOP);
        if ["ledger.db", "executions.db"].iter().all(may_write) {
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
    wait_for("the others to tell everything", || {
        deliveries(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done)
    });
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
