//! How handlers are reached over HTTP: connections that are kept and closed, names, and what a listener asks for.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use billhook::{DeliveryFilter, DeliveryStatus, ExecutionStatus, Mode, Task};
use serde_json::json;

use super::{deliveries, delivering, event, executions, handler, http, settled};
use crate::support::{Call, HandlerServer, Home, Killed, Reply, wait_for};

/// What a server does with the request of this number on a connection.
#[derive(Clone, Copy)]
enum Second {
    /// Closes the connection unread.
    Reset,
    /// Reads it, and closes the connection without a word.
    Close,
    /// Reads it, and sends the beginning of an answer.
    BreakOff,
}

/// A server that answers the first request of each connection, and treats the second as told. Returns its address, the number of
/// its connections, and the keys of the requests that it read.
fn short_server(second: Second) -> (String, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/", listener.local_addr().expect("an address"));
    let (connections, keys) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counted, noted) = (Arc::clone(&connections), Arc::clone(&keys));
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let noted = Arc::clone(&noted);
            thread::spawn(move || serve(&connection, second, &noted));
        }
    });
    (address, connections, keys)
}

fn serve(connection: &TcpStream, second: Second, keys: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(connection);
    if read(&mut reader, keys).is_none() {
        return;
    }
    let _ = (&mut &*connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    match second {
        Second::Reset => {
            // It comes, and is reset: the system does so where something is left unread.
            let _ = connection.peek(&mut [0; 1]);
        }
        Second::Close => drop(read(&mut reader, keys)),
        Second::BreakOff => {
            let _ = read(&mut reader, keys);
            let _ = (&mut &*connection).write_all(b"HTTP/1.1 200");
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>, keys: &Mutex<Vec<String>>) -> Option<()> {
    let (mut line, mut length, mut key) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.trim_end().to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        } else if let Some(value) = lower.strip_prefix("idempotency-key:") {
            key = value.trim().to_owned();
        } else if lower.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    keys.lock().expect("whole").push(key);
    Some(())
}

#[test]
fn a_connection_that_was_kept_and_is_closed_costs_no_call_and_no_second_key() {
    for second in [Second::Reset, Second::Close] {
        let home = Home::new();
        let (address, connections, keys) = short_server(second);
        let host = home.host();
        let mut before = handler("guard", "clients.create", Task::Http(address));
        before.mode = Mode::Before;
        host.add_handler(&before).expect("added");
        for number in 0..6 {
            host.before(&event("clients.create", number, &json!({}))).expect("nothing forbids it");
        }
        assert!(connections.load(Ordering::Relaxed) <= 6, "one more for each that was closed");
        let mut keys = keys.lock().expect("whole").clone();
        keys.dedup();
        assert_eq!(keys.len(), 6, "what is sent again has the same key");
    }
}

#[test]
fn a_call_that_broke_off_within_its_answer_or_on_a_new_connection_is_not_made_again() {
    let home = Home::new();
    let (address, _, keys) = short_server(Second::BreakOff);
    let host = home.host();
    let mut before = handler("guard", "clients.create", Task::Http(address));
    before.mode = Mode::Before;
    host.add_handler(&before).expect("added");
    host.before(&event("clients.create", 1, &json!({}))).expect("nothing forbids it");
    let error = host.before(&event("clients.create", 2, &json!({}))).expect_err("it broke off");
    assert!(error.to_string().contains("outcome unknown"), "{error}");
    assert_eq!(keys.lock().expect("whole").len(), 2, "each was sent once");

    let server = HandlerServer::start(|_| Reply::Drop);
    let mut before = http("dropping", "clients.update", &server);
    before.mode = Mode::Before;
    host.add_handler(&before).expect("added");
    host.before(&event("clients.update", 1, &json!({}))).expect_err("it broke off");
    assert_eq!(server.calls().len(), 1, "a new connection");
}

#[test]
fn calls_over_kept_connections_make_no_connection() {
    let home = Home::new();
    let (accepted, listener) = (Arc::new(AtomicUsize::new(0)), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let port = listener.local_addr().expect("an address").port();
    let counted = Arc::clone(&accepted);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                let (mut reader, keys) = (BufReader::new(&connection), Mutex::default());
                while read(&mut reader, &keys).is_some() {
                    let _ = (&mut &connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
                }
            });
        }
    });
    let host = home.host();
    // A name, and not an address.
    let mut before = handler("guard", "clients.create", Task::Http(format!("http://localhost:{port}/")));
    before.mode = Mode::Before;
    host.add_handler(&before).expect("added");
    for number in 0..200 {
        host.before(&event("clients.create", number, &json!({}))).expect("nothing forbids it");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1, "all calls went over one connection");
}

#[test]
fn what_was_never_sent_is_told_so() {
    let home = Home::new();
    let host = delivering(&home);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    for (name, address) in [
        ("no such name", "http://no-such-host.invalid/".to_owned()),
        ("refused", format!("http://{closed}/")),
        ("no TLS", format!("https://{}/", HandlerServer::echo().address)),
    ] {
        let mut handler = handler(name, "clients.create", Task::Http(address));
        handler.retry.attempts = 1;
        host.add_handler(&handler).expect("added");
    }
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    for delivery in settled(&host) {
        let problem = delivery.problem.clone().unwrap_or_default();
        assert_eq!(delivery.status, DeliveryStatus::Dead);
        assert!(problem.contains("it can't be reached"), "{delivery:?}");
        assert!(!problem.contains("unknown"), "{delivery:?}");
    }
    assert!(executions(&host, 3).iter().all(|execution| execution.status == ExecutionStatus::Failed));
}

#[test]
fn a_listener_may_ask_for_more_time_and_not_for_less() {
    let home = Home::new();
    let asked =
        |after: &'static str| move |_: &Call| Reply::With(503, ("Retry-After", after.to_owned()), String::new());
    let host = delivering(&home);
    let hasty = ["0", "-5", "0.0", "Wed, 21 Oct 2015 07:28:00 GMT"];
    for (number, after) in hasty.into_iter().enumerate() {
        let server = HandlerServer::start(asked(after));
        let mut handler = http(&format!("hasty {number}"), "clients.create", &server);
        (handler.retry.first_ms, handler.retry.longest_ms) = (600_000, 600_000);
        host.add_handler(&handler).expect("added");
    }
    let server = HandlerServer::start(asked("7200"));
    host.add_handler(&http("patient", "clients.create", &server)).expect("added");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    wait_for("all to be called once", || deliveries(&host).iter().all(|delivery| delivery.attempts == 1));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    let now = i64::try_from(now).expect("a time");
    for delivery in deliveries(&host) {
        let left = delivery.due.millis() - now;
        if delivery.listener == "patient" {
            assert!(left > 7_000_000, "it asked for two hours: {delivery:?}");
        } else {
            assert!((200_000..=600_000).contains(&left), "the host's own pause: {delivery:?}");
        }
        assert_eq!(delivery.status, DeliveryStatus::Waiting);
    }
}

#[test]
fn a_delivery_that_waits_is_brought_forward() {
    let home = Home::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let server = HandlerServer::start(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::With(503, ("Retry-After", "7200".to_owned()), String::new()),
        _ => Reply::ok(),
    });
    let host = delivering(&home);
    host.add_handler(&http("a", "clients.create", &server)).expect("added");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    wait_for("the first attempt", || deliveries(&host)[0].attempts == 1);
    let number = deliveries(&host)[0].number;
    host.redrive(number).expect("it waits");
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Done);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert!(host.redrive(number).is_err(), "it is done");
    assert_eq!(host.deliveries(&DeliveryFilter::default()).expect("readable")[0].attempts, 2, "none was given back");
}

#[test]
fn a_pause_is_as_long_as_it_was_whatever_the_clock_does() {
    for (ahead, then) in [(86_400_000_i64, 0_i64), (0, 86_400_000), (86_400_000 * 400, 0)] {
        let home = Home::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let server = HandlerServer::start(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::status(503),
            _ => Reply::ok(),
        });
        let host = home.host();
        let mut handler = http("a", "clients.create", &server);
        (handler.retry.first_ms, handler.retry.longest_ms) = (3_000, 3_000);
        host.add_handler(&handler).expect("added");
        host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
        drop(host);
        let deliver = |ahead: i64| {
            let mut command = home.command(&["deliver"]);
            command.env("BILLHOOK_CLOCK_AHEAD_MS", ahead.to_string());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            Killed::start(&mut command)
        };
        let wrong = deliver(ahead);
        wait_for("the first attempt", || calls.load(Ordering::Relaxed) == 1);
        let host = home.host();
        wait_for("it to be noted", || deliveries(&host)[0].attempts == 1);
        drop(wrong);
        let right = deliver(then);
        assert_eq!(settled(&host)[0].status, DeliveryStatus::Done, "{ahead} and {then}");
        drop(right);
        assert_eq!(deliveries(&host).len(), 1, "nothing aged");
    }
}
