//! Hosts that are killed on the way: in the end everything is delivered, or given up for its own reason.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use billhook::{DeliveryStatus, HandlerStatus};
use serde_json::json;

use super::{deliveries, handler, http, script, settled};
use crate::support::{HandlerServer, Home, Killed, Reply, library, wait_for};

/// How many events: more for a long run, as `docs/contributing.md` says.
fn event_count() -> i64 {
    std::env::var("BILLHOOK_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000)
}

/// Starts the example `courier`, which emits and delivers; tells the numbers of the events that it recorded.
fn courier(home: &Home, from: i64) -> (Killed, mpsc::Receiver<i64>) {
    let program = library("healthy").with_file_name(format!("courier{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(program);
    command.arg(home.path()).args([event_count().to_string(), from.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for number in lines.map_while(Result::ok).filter_map(|line| line.parse().ok()) {
            let _ = tell.send(number);
        }
    });
    (Killed(child), told)
}

#[test]
fn whatever_is_killed_every_delivery_is_done_or_dead_for_its_own_reason_and_in_order() {
    let home = Home::new();
    let late = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let count = std::sync::atomic::AtomicU64::new(0);
    let server = HandlerServer::start(move |call| match call.path.as_str() {
        "/third" if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 == 2 => Reply::status(500),
        "/hangs" => Reply::Hang,
        _ => Reply::ok(),
    });
    let seen = home.folder().join("seen").to_str().expect("UTF-8").to_owned();
    let host = home.host();
    for event in ["clients.create", "clients.update"] {
        let named = |name: &str| format!("{name} {}", event.replace("clients.", ""));
        for name in ["right", "third", "hangs"] {
            let mut handler = http(&named(name), event, &server);
            handler.task = billhook::Task::Http(server.url(&format!("/{name}")));
            handler.retry.attempts = 50;
            if name == "hangs" {
                (handler.deadline_ms, handler.retry.attempts) = (20, 2);
            }
            host.add_handler(&handler).expect("added");
        }
        let mut down = handler(&named("down"), event, billhook::Task::Http(format!("http://{late}/down")));
        (down.retry.attempts, down.retry.longest_ms) = (1_000, 300);
        host.add_handler(&down).expect("added");
    }
    // A script takes longest to start, so it hears of every fifth event.
    let pattern = r#"s/.*"object_id":\([0-9]*\).*"number":\([0-9]*\).*/\1 \2/"#;
    let task = script(&home, "notes", &format!("line=$(sed '{pattern}'); echo \"$line\" >> {seen}"));
    host.add_handler(&handler("script", "clients.update", task)).expect("added");

    let (mut told, mut kills) = (-1, 0);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut down = None;
    while kills < 10 {
        let (child, numbers) = courier(&home, told + 1);
        let until = told + 1 + event_count() / 11;
        while let Ok(number) = numbers.recv_timeout(Duration::from_secs(60)) {
            told = number;
            if number >= until || number + 1 == event_count() {
                break;
            }
        }
        thread::sleep(Duration::from_millis(rng.u64(0..40)));
        drop(child);
        // What it told after that was recorded, too.
        told = numbers.try_iter().last().unwrap_or(told);
        kills += 1;
        if kills == 6 {
            down = Some(HandlerServer::start_at(late, |_| Reply::ok()));
        }
    }
    let (child, numbers) = courier(&home, told + 1);
    while told + 1 < event_count() {
        told = numbers.recv_timeout(Duration::from_secs(120)).expect("it goes on");
    }
    let is_open = || {
        let mut filter = billhook::DeliveryFilter { limit: Some(1), ..Default::default() };
        [DeliveryStatus::Waiting, DeliveryStatus::Running].into_iter().any(|status| {
            filter.status = Some(status);
            !host.deliveries(&filter).expect("readable").is_empty()
        })
    };
    // A minute for each two thousand, and as long as something goes on.
    for _ in 0..6_000 * (1 + event_count() / 2_000) {
        if !is_open() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    drop(child);

    let all = settled(&host);
    let events = usize::try_from(event_count()).expect("positive");
    assert_eq!(all.len(), events * 4 + events / 5, "one for each event and listener, and no more");
    for delivery in &all {
        let expected = if delivery.listener.starts_with("hangs") { DeliveryStatus::Dead } else { DeliveryStatus::Done };
        assert_eq!(delivery.status, expected, "{delivery:?}");
        if expected == DeliveryStatus::Dead {
            let problem = delivery.problem.clone().unwrap_or_default();
            // On a slow machine, so short a time may be over before there is a connection.
            let known = ["timed out after 0.02 s: outcome unknown", "it can't be reached: timeout: "];
            let problem = problem.strip_prefix("attempt 2 of 2: ").expect("its last attempt");
            assert!(known.iter().any(|known| problem.starts_with(known)), "{delivery:?}");
        }
    }
    // Of an object, a listener never hears of an earlier event after a later one; and hears of each.
    let mut heard: BTreeMap<(String, i64, String), Vec<i64>> = BTreeMap::new();
    let calls = server.calls().into_iter().chain(down.expect("started").calls());
    let mut keys: HashMap<String, String> = HashMap::new();
    for call in calls {
        let (object, number) = (call.at("/event/object_id"), call.at("/data/number"));
        let listener = (call.path.clone(), object.as_i64().expect("a number"), call.at("/event/events_id").to_string());
        heard.entry(listener).or_default().push(number.as_i64().expect("a number"));
        let key = call.headers["idempotency-key"].clone();
        let what = format!("{} {number}", call.path);
        assert_eq!(keys.entry(key).or_insert_with(|| what.clone()), &what, "a key is of one delivery");
    }
    // A script whose host is killed may find its input cut off, and writes an empty line.
    for line in fs::read_to_string(&seen).expect("written").lines().filter(|line| !line.is_empty()) {
        let (object, number) = line.split_once(' ').expect("two numbers");
        let listener = ("script".to_owned(), object.parse().expect("a number"), String::new());
        heard.entry(listener).or_default().push(number.parse().expect("a number"));
    }
    // What was given up at its deadline may be read later than what was sent after it.
    for (listener, numbers) in heard.iter().filter(|((path, ..), _)| path != "/hangs") {
        assert!(numbers.is_sorted(), "{listener:?}: {numbers:?}");
    }
    let distinct = |path: &str| {
        let of_path = heard.iter().filter(|((heard, ..), _)| heard == path);
        of_path.map(|(_, numbers)| numbers.iter().collect::<std::collections::BTreeSet<_>>().len()).sum::<usize>()
    };
    // The one that hangs may not even have read what it was sent before the deadline.
    for path in ["/right", "/third", "/down"] {
        assert_eq!(distinct(path), events, "{path}");
    }
    assert_eq!(distinct("script"), events / 5);
}

#[test]
fn two_hosts_that_are_both_killed_leave_everything_to_a_third() {
    let home = Home::new();
    let server = HandlerServer::start(|call| {
        thread::sleep(Duration::from_millis(2));
        if call.at("/event/attempt") == json!(1) && call.at("/data/n") == json!(1) {
            Reply::status(500)
        } else {
            Reply::ok()
        }
    });
    let host = home.host();
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    for n in 0..5 {
        for object in 0..40 {
            host.emit(&super::event("clients.create", object, &json!({ "n": n }))).expect("recorded");
        }
    }
    let mut others: Vec<Child> = (0..2)
        .map(|_| home.command(&["deliver"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started"))
        .collect();
    wait_for("some of it", || server.calls().len() > 60);
    for other in &mut others {
        other.kill().expect("killed");
        other.wait().expect("ended");
    }
    host.set_handler("a", |handler| handler.status = HandlerStatus::Enabled).expect("set");
    host.start_deliveries().expect("started");
    assert!(settled(&host).iter().all(|delivery| delivery.status == DeliveryStatus::Done));
    assert_eq!(deliveries(&host).len(), 200);
}
