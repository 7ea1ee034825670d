//! Clients that are many, slow, or guess: they are put off, and keep nobody else out.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use billhook::data::Asset;
use serde_json::json;

use super::hostile::{ACQUISITION, PLUGINS, connect, head, staged, status};
use crate::support::{Home, Package, Server, asset, order, wait_for};

#[test]
fn clients_that_send_a_byte_now_and_then_are_cut_off_and_hold_up_nobody() {
    let home = Home::new();
    let config = home.file("hurry.toml", "[server]\nreceive_s = 1\n");
    let server = Server::start_with(&home, &["--config", &config]);
    let request = |method: &str, path: &str, more: &str| format!("{}{more}", head(&server, method, path));
    let body = "Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n{";
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let package = "Content-Type: application/zip\r\nContent-Length: 10000\r\n\r\nPK";
    // What is sent at first, and what is sent now and then.
    let clients = [
        (String::new(), ""),
        ("G".to_owned(), "E"),
        (request("GET", PLUGINS, ""), "X-A: b\r\n"),
        (request("POST", "/api/v1/events", body), " "),
        (request("POST", "/api/v1/events", chunked), "1\r\n \r\n"),
        (request("POST", "/api/v1/events", body), ""),
        (request("POST", PLUGINS, package), ""),
    ];
    let answers: Vec<String> = thread::scope(|scope| {
        let server = &server;
        let slow = clients.iter().map(|(begin, bytes)| scope.spawn(move || trickle(server, begin, bytes)));
        let slow: Vec<_> = slow.collect();
        for _ in 0..20 {
            server.get(PLUGINS).is(200);
        }
        slow.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    // An answer may be lost where what was sent after it isn't read any more.
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 408 ")), "{answers:?}");
    assert!(answers[5].contains("the body took too long to arrive"), "{answers:?}");
    assert!(answers[6].contains("the package took too long to arrive"), "{answers:?}");
    wait_for("the package to be deleted", || staged(&home) == 0);
    server.get(PLUGINS).is(200);
}

/// Sends a beginning, and then a few bytes again and again, until the connection is closed. What was answered.
fn trickle(server: &Server, begin: &str, bytes: &str) -> String {
    let mut connection = connect(&server.address);
    connection.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    connection.write_all(begin.as_bytes()).expect("written");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    for _ in 0..300 {
        match connection.read(&mut buffer) {
            Ok(0) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // Where this fails, reading tells why.
                let _ = connection.write_all(bytes.as_bytes());
            }
            Err(_) => return String::from_utf8_lossy(&answer).into_owned(),
        }
    }
    panic!("after {begin:?}, {bytes:?} was taken for a minute")
}

#[test]
fn thousands_of_connections_are_served_and_leave_the_server_well() {
    let home = Home::new();
    let server = Server::start(&home);
    let request = format!("{}\r\n", head(&server, "GET", PLUGINS));
    let threads = 16;
    let each = most_connections() / threads;
    let client = || -> Vec<u16> {
        let ask = |_: usize| {
            let mut connection = connect(&server.address);
            connection.write_all(request.as_bytes()).expect("written");
            connection
        };
        let mut connections: Vec<TcpStream> = (0..each).map(ask).collect();
        connections.iter_mut().map(status).collect()
    };
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..threads).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    });
    assert_eq!(statuses.len(), threads * each);
    // On a slow machine, some may have to be put off: they are told so.
    assert!(statuses.iter().all(|status| [200, 503].contains(status)) && statuses.contains(&200), "{statuses:?}");
    server.get(PLUGINS).is(200);
    assert!(server.stop(), "it ends as ever");
}

/// How many connections a test may have: other tests of this process have files open, too.
fn most_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(200).min(4_000) / 2).expect("small")
}

#[test]
fn connections_that_ask_nothing_keep_nobody_out_and_give_way_before_those_of_clients_that_are_known() {
    let home = Home::new();
    home.load(&Package::new("Slow").of("waiter")).succeeded();
    // So long that it is no help.
    let config = home.file("patient.toml", "[server]\nreceive_s = 600\nconnections = 500\n");
    let server = Server::start_with(&home, &["--config", &config]);
    let request = head(&server, "GET", PLUGINS).replace("Connection: close\r\n", "");
    // A client that is known, and keeps its connection.
    let mut known = connect(&server.address);
    let ask = |connection: &mut TcpStream| {
        connection.write_all(format!("{request}\r\n").as_bytes()).expect("it is open");
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).expect("answered");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = vec![0; 64 * 1024];
        let _ = connection.read(&mut rest).expect("the rest");
    };
    ask(&mut known);
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\nt";
    let form = format!("{}{form}", head(&server, "POST", "/login"));
    let end = home.folder().join("end");
    let slow = Asset { download_link: Some(end.display().to_string()), ..asset("Slow") };
    thread::scope(|scope| {
        // Work that is under way while the others come.
        let slow = scope.spawn(|| server.post(ACQUISITION, &json!({"asset": slow, "order": order()})).is(200));
        wait_for("the call to begin", || end.with_extension("called").exists());
        let open = |number: usize| {
            let mut connection = connect(&server.address);
            // Nothing, the beginning of a head, or that of a body.
            let _ = connection.write_all([b"".as_slice(), b"GET / HT", form.as_bytes()][number % 3]);
            connection
        };
        let idle: Vec<TcpStream> = (0..most_connections()).map(open).collect();
        for _ in 0..10 {
            server.get(PLUGINS).is(200);
        }
        ask(&mut known);
        let metrics = server.get("/metrics").is(200).body;
        assert!(metrics.contains("billhook_http_connections_closed_total{reason=\"room\"}"), "{metrics}");
        fs::write(&end, "").expect("written");
        slow.join().expect("answered");
        drop(idle);
    });
}

#[test]
fn whoever_guesses_tokens_waits_and_keeps_nobody_out_who_has_another() {
    let home = Home::new();
    let config = home.file("guesses.toml", "[server]\nguesses = 3\n");
    let server = Server::start_with(&home, &["--config", &config]);
    let guess = |token: &str| {
        for _ in 0..3 {
            server.ask_as(token, "GET", PLUGINS, None).is(401);
        }
        // On a slow machine, guesses are forgotten meanwhile.
        let mut guesses = (0..100).map(|_| server.ask_as(token, "GET", PLUGINS, None));
        let refused = guesses.find(|answer| answer.status != 401).expect("somebody notices").is(429);
        assert_eq!(refused.json()["status"], 429);
        assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{refused:#?}");
    };
    guess("billhook_000000000000_guessed");
    server.get(PLUGINS).is(200);
    let other = crate::support::token(&home, "read");
    let (id, _) = other.rsplit_once('_').expect("it has an id");
    wait_for("the new token to be known", || server.ask_as(&other, "GET", PLUGINS, None).status == 200);
    guess(&format!("{id}_guessed"));
    server.get(PLUGINS).is(200);
    // What needs no token goes on.
    server.request("GET", "/healthz", &[], b"").is(200);
    wait_for("the token that was guessed at to be taken again", || {
        server.ask_as(&other, "GET", PLUGINS, None).status == 200
    });
}
