//! The contract of a handler, row by row: what it answers and what becomes of the delivery.

use std::{
    fs,
    time::{Duration, Instant},
};

use billhook::{DeliveryStatus, Handler, HostOptions, Mode, Task};
use serde_json::json;

use super::{delivering, delivering_with, event, executions, handler, http, script, settled};
use crate::support::{HandlerServer, Home, Reply, options, wait_for};

/// What becomes of a delivery: its status, its problem's part, how the first attempt is in the log, and how many attempts.
type Outcome = (DeliveryStatus, &'static str, &'static str, u32);

const DONE: Outcome = (DeliveryStatus::Done, "", "success", 1);

fn dead(part: &'static str, logged: &'static str, attempts: u32) -> Outcome {
    (DeliveryStatus::Dead, part, logged, attempts)
}

#[test]
fn what_an_http_handler_answers_decides_what_becomes_of_a_delivery() {
    let home = Home::new();
    let message = json!({"message": "because"}).to_string();
    let other = HandlerServer::echo();
    let elsewhere = other.url("/stolen");
    let cases: Vec<(&str, Reply, Outcome)> = vec![
        ("ok", Reply::ok(), DONE),
        ("created", Reply::Answer(201, "done".into()), DONE),
        ("no content", Reply::status(204), DONE),
        ("forbidden", Reply::Answer(403, message.clone()), dead("because", "forbidden", 1)),
        ("conflict", Reply::Answer(409, message.clone()), dead("because", "forbidden", 1)),
        ("unprocessable", Reply::Answer(422, message.clone()), dead("because", "forbidden", 1)),
        ("bad request", Reply::Answer(400, message.clone()), dead("it answered 400: because", "failed", 1)),
        ("not found", Reply::status(404), dead("it answered 404", "failed", 1)),
        (
            "server error",
            Reply::Answer(500, message.clone()),
            dead("attempt 2 of 2: it answered 500: because", "failed", 2),
        ),
        ("bad gateway", Reply::status(502), dead("it answered 502", "failed", 2)),
        ("dropped", Reply::Drop, dead("outcome unknown", "unknown", 2)),
        ("hangs", Reply::Hang, dead("timed out after 0.4 s: outcome unknown", "timed_out", 2)),
        ("slow body", Reply::Slow, dead("timed out after 0.4 s: outcome unknown", "timed_out", 2)),
        ("giant body", Reply::Giant(8 * 1024 * 1024), DONE),
        (
            "redirected elsewhere",
            Reply::With(307, ("location", elsewhere), String::new()),
            dead("a redirect to another place, which is not followed", "failed", 1),
        ),
        (
            "endlessly redirected",
            Reply::With(308, ("location", "/endlessly-redirected".into()), String::new()),
            dead("it redirects more than 3 times", "failed", 1),
        ),
        (
            "turned into a GET",
            Reply::With(302, ("location", "/ok".into()), String::new()),
            dead("a redirect that would turn the POST into a GET", "failed", 1),
        ),
        ("moved", Reply::With(307, ("location", "/ok".into()), String::new()), DONE),
    ];
    let answers: Vec<(String, Reply)> =
        cases.iter().map(|(name, reply, _)| (format!("/{}", name.replace(' ', "-")), reply.clone())).collect();
    let server = HandlerServer::start(move |call| {
        let found = answers.iter().find(|(path, _)| *path == call.path);
        found.map_or_else(|| Reply::status(404), |(_, reply)| reply.clone())
    });
    let host = delivering(&home);
    for (name, ..) in &cases {
        let mut handler = Handler { deadline_ms: 10_000, ..http(name, "clients.create", &server) };
        if matches!(*name, "hangs" | "slow body") {
            handler.deadline_ms = 400;
        }
        handler.retry.attempts = 2;
        host.add_handler(&handler).expect("added");
    }
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    for delivery in settled(&host) {
        let (_, _, (status, part, logged, attempts)) =
            cases.iter().find(|(name, ..)| *name == delivery.listener).expect("one of them");
        let name = &delivery.listener;
        assert_eq!((delivery.status, delivery.attempts), (*status, *attempts), "{name}: {delivery:?}");
        assert!(delivery.problem.clone().unwrap_or_default().contains(part), "{name}: {delivery:?}");
        let (_, _, tries) = host.delivery(delivery.number).expect("there");
        let how = serde_json::to_value(tries[0].status).expect("JSON");
        assert_eq!((how, tries.len()), (json!(logged), *attempts as usize), "{name}: {tries:?}");
        assert!(tries[0].response.as_ref().is_none_or(|response| response.len() <= 4096), "{name}");
    }
    assert!(other.calls().is_empty(), "nobody was led astray");
    // The key is the same at every attempt, and every delivery has its own.
    let mut keys: Vec<(String, String)> =
        server.calls().iter().map(|call| (call.headers["idempotency-key"].clone(), call.path.clone())).collect();
    keys.sort();
    keys.dedup_by_key(|(key, _)| key.clone());
    assert_eq!(keys.len(), cases.len(), "{keys:?}");
}

#[test]
fn a_handler_that_asks_for_time_is_tried_again_then() {
    let home = Home::new();
    let server = HandlerServer::start(|call| {
        let status = if call.path == "/busy" { 503 } else { 429 };
        if call.at("/event/attempt") == json!(1) {
            Reply::With(status, ("retry-after", "1".into()), String::new())
        } else {
            Reply::ok()
        }
    });
    let host = delivering(&home);
    for name in ["busy", "limited"] {
        let mut handler = http(name, "clients.create", &server);
        // Its own pauses would be short.
        (handler.retry.first_ms, handler.retry.longest_ms) = (1, 1);
        host.add_handler(&handler).expect("added");
    }
    let started = Instant::now();
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    let all = settled(&host);
    assert!(all.iter().all(|delivery| delivery.status == DeliveryStatus::Done && delivery.attempts == 2), "{all:?}");
    assert!(started.elapsed() >= Duration::from_secs(1), "not before");
}

#[test]
fn what_a_script_answers_decides_what_becomes_of_a_delivery() {
    let home = Home::new();
    let host = delivering(&home);
    let cases: Vec<(&str, &str, Outcome)> = vec![
        ("passes", "cat > /dev/null", DONE),
        ("forbids", "echo '{\"message\": \"because\"}'; exit 77", dead("because", "forbidden", 1)),
        ("refuses", "echo because >&2; exit 65", dead("because", "failed", 1)),
        ("tries again", "exit 75", dead("asked for another attempt", "failed", 2)),
        ("fails", "echo 'all wrong' >&2; exit 3", dead("exit code 3: all wrong", "failed", 2)),
        ("is killed", "kill -9 $$", dead("signal 9 (SIGKILL)", "failed", 2)),
        ("hangs", "sleep 60", dead("timed out after 1 s: outcome unknown", "timed_out", 2)),
        ("closes its input", "exec <&-; exit 0", DONE),
        ("writes a gigabyte", "head -c 1000000000 /dev/zero", DONE),
        ("writes a gigabyte of errors", "head -c 1000000000 /dev/zero >&2; exit 65", dead("", "failed", 1)),
        ("leaves a child behind", "(trap '' TERM; setsid sleep 300) & exit 0", DONE),
    ];
    for (name, text, _) in &cases {
        let mut handler = handler(name, "clients.create", script(&home, &name.replace(' ', "-"), text));
        handler.deadline_ms = if *name == "hangs" { 1_000 } else { 60_000 };
        handler.retry.attempts = 2;
        host.add_handler(&handler).expect("added");
    }
    // More than a pipe holds, so that a script that doesn't read would hold up who writes.
    let long = json!({"long": "x".repeat(1_000_000)});
    host.emit(&event("clients.create", 1, &long)).expect("recorded");
    for delivery in settled(&host) {
        let (_, _, (status, part, logged, attempts)) =
            cases.iter().find(|(name, ..)| *name == delivery.listener).expect("one of them");
        let name = &delivery.listener;
        assert_eq!((delivery.status, delivery.attempts), (*status, *attempts), "{name}: {delivery:?}");
        let problem = delivery.problem.clone().unwrap_or_default();
        assert!(problem.contains(part) && problem.len() < 8_192, "{name}: {problem}");
        let (_, _, tries) = host.delivery(delivery.number).expect("there");
        assert_eq!(serde_json::to_value(tries[0].status).expect("JSON"), json!(logged), "{name}: {tries:?}");
    }
    let left = fs::read_dir("/proc")
        .expect("there")
        .flatten()
        .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x00300\x00"));
    assert_eq!(left.count(), 0, "what a script started goes with it");
}

#[test]
fn a_script_gets_the_envelope_the_events_id_its_arguments_and_no_more_environment_than_is_allowed() {
    let home = Home::new();
    let out = home.folder().join("out");
    let text =
        format!("cat > {0}.input; echo \"$@\" > {0}.arguments; env > {0}.environment; pwd > {0}.folder", out.display());
    let Task::Script(mut words) = script(&home, "tells", &text) else { panic!("a script") };
    words.extend(["one word".to_owned(), "--flag".to_owned()]);
    let mut handler = handler("tells", "clients.create", Task::Script(words));
    handler.environment = vec!["CARGO_PKG_NAME".to_owned(), "NO_SUCH_VARIABLE".to_owned()];
    let host = delivering(&home);
    host.add_handler(&handler).expect("added");
    let new = event("clients.create", 12, &json!({"name": "é"}));
    host.emit(&new).expect("recorded");
    settled(&host);
    let read = |kind: &str| fs::read_to_string(out.with_extension(kind)).expect("written");
    let envelope: serde_json::Value = serde_json::from_str(&read("input")).expect("JSON");
    assert_eq!((&envelope["data"]["name"], &envelope["event"]["object_id"]), (&json!("é"), &json!(12)));
    assert_eq!(read("arguments").trim(), format!("{} one word --flag", new.id));
    let environment = read("environment");
    let mut names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    // What shells set themselves.
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    names.sort_unstable();
    let expected: &[&str] =
        if std::env::var_os("CARGO_PKG_NAME").is_some() { &["CARGO_PKG_NAME", "PATH"] } else { &["PATH"] };
    assert_eq!(names, expected);
    assert_eq!(read("folder").trim(), "/");
}

#[test]
fn a_script_that_is_not_there_is_said_so_and_tried_again() {
    let home = Home::new();
    let host = delivering(&home);
    let path = home.folder().join("later").to_str().expect("UTF-8").to_owned();
    let mut handler = handler("later", "clients.create", Task::Script(vec![path.clone()]));
    handler.retry.attempts = 1_000;
    host.add_handler(&handler).expect("added");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    let problem = || super::deliveries(&host)[0].problem.clone().unwrap_or_default();
    wait_for("the first attempt", || !problem().is_empty());
    assert!(problem().contains("the script was not started") && problem().contains("No such file"), "{}", problem());
    script(&home, "later", "exit 0");
    assert_eq!(settled(&host)[0].status, DeliveryStatus::Done);
}

#[test]
fn calls_over_http_are_signed_with_the_handlers_secret_which_is_never_shown() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let secret = home.file("secret", "a key of the operator\n");
    let url = server.url("/");
    home.run(&["addhandler", "signed", "--event", "clients.create", "--task", &url, "--secret-file", &secret])
        .succeeded();
    home.run(&["emit", "clients.create"]).succeeded();
    let call = &server.calls()[0];
    let signature = &call.headers["billhook-signature"];
    let (time, hex) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("t=…,v1=…");
    // What a receiver does, with a tool that isn't ours.
    let signed = home.file("signed", &format!("{time}.{}", call.body));
    let openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", "a key of the operator", &signed])
        .output();
    if let Ok(output) = openssl {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(said.ends_with(hex), "{said} and {hex}");
    }
    for arguments in [&["showhandler", "signed"][..], &["showhandler", "signed", "--json"], &["listhandlers", "--json"]]
    {
        let shown = home.run(arguments).succeeded();
        assert!(!shown.stdout.contains("a key of"), "{}", shown.stdout);
    }
    assert!(home.run(&["showhandler", "signed"]).stdout.contains("signed        yes"));
    home.run(&["sethandler", "signed", "--no-secret"]).succeeded();
    home.run(&["emit", "clients.create"]).succeeded();
    assert!(!server.calls()[1].headers.contains_key("billhook-signature"));
}

#[test]
fn only_hosts_that_the_configuration_allows_are_called_also_if_they_were_allowed_before() {
    let home = Home::new();
    let server = HandlerServer::echo();
    let open = home.host();
    open.add_handler(&http("once allowed", "clients.create", &server)).expect("added");
    drop(open);
    let limited = || -> HostOptions { options().allowed_hosts(["*.acme.example".to_owned()]) };
    let host = delivering_with(&home, limited());
    let refused = host.add_handler(&http("another", "clients.create", &server)).expect_err("not allowed").to_string();
    assert!(refused.contains("127.0.0.1") && refused.contains("not among those"), "{refused}");
    host.emit(&event("clients.create", 1, &json!({}))).expect("recorded");
    let all = settled(&host);
    assert_eq!(all[0].status, DeliveryStatus::Dead);
    assert!(all[0].problem.clone().unwrap_or_default().contains("not among those"), "{all:?}");
    assert!(server.calls().is_empty());
    home.file("home/config.toml", "[handlers]\nallowed_hosts = [\"127.0.0.1\"]\n");
    home.run(&["addhandler", "by name", "--event", "clients.create", "--task", "http://localhost:1/"])
        .failed_with(&["localhost:1 is not among those that the configuration allows"]);
}

#[test]
fn an_answer_that_is_too_large_is_no_answer_before_an_event() {
    let home = Home::new();
    let host = home.host();
    let server = HandlerServer::start(|_| Reply::Giant(4 * 1024 * 1024));
    host.add_handler(&Handler { mode: Mode::Before, ..http("giant", "clients.create", &server) }).expect("added");
    let task = script(&home, "giant", "head -c 4000000 /dev/zero");
    host.add_handler(&Handler { mode: Mode::Before, ..handler("script", "clients.update", task) }).expect("added");
    for name in ["clients.create", "clients.update"] {
        let error = host.before(&event(name, 1, &json!({}))).expect_err("no answer").to_string();
        assert!(error.contains("its answer has more than 1048576 bytes"), "{error}");
    }
    executions(&host, 2);
}
