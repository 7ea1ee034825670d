//! Threads that the system doesn't give: a server says so and doesn't start; later, single calls are refused, and nothing else ends.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use serde_json::{Value, json};

use crate::support::{BILLHOOK, Home, Killed, Package, deed, home_with_rogue, signal, wait_for};

/// The command on a home, run by a user who has no other processes, where that can be arranged: how many threads a user may have is
/// counted over all of that user's processes, and doesn't bind the system's own user.
fn command_of_user(home: &Home, user: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new(BILLHOOK);
    if getuid().is_root() {
        // The command's own folder may be closed to others.
        let own = home.folder().join("billhook");
        if !own.exists() {
            fs::copy(BILLHOOK, &own).expect("copied");
        }
        give(home.folder(), user);
        command = Command::new(own);
        command.uid(user).gid(user);
    }
    command.args(arguments).env("BILLHOOK_HOME", home.path()).current_dir(home.folder()).stdin(Stdio::null());
    command
}

/// Gives everything in a folder to a user.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("given");
    if path.is_dir() {
        fs::read_dir(path).expect("readable").for_each(|entry| give(&entry.expect("readable").path(), user));
    }
}

/// At most so many threads from now on; more may be allowed again.
fn most(threads: u64) -> Rlimit {
    Rlimit { current: Some(threads), maximum: getrlimit(Resource::Nproc).maximum }
}

/// Limits the threads of a process that runs, as its user may.
fn limit(process: u32, user: u32, threads: Option<u64>) {
    let named = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    let hard = getrlimit(Resource::Nproc).maximum;
    let (soft, hard) = (named(threads.or(hard)), named(hard));
    let mut command = Command::new("prlimit");
    if getuid().is_root() {
        command.uid(user).gid(user);
    }
    let limited = command.arg(format!("--nproc={soft}:{hard}")).args(["--pid", &process.to_string()]).status();
    assert!(limited.expect("it is there").success());
}

#[test]
fn a_server_for_which_there_are_too_few_threads_says_so_or_serves_and_ends_when_it_is_told_to() {
    let home = home_with_rogue();
    let user = 2_000_000_000 + std::process::id();
    let (mut refused, mut served) = (0, 0);
    for threads in (1..14).chain([20, 40, 200]) {
        let log = home.folder().join("log");
        let mut command = command_of_user(&home, user, &["serve", "--listen", "127.0.0.1:0", "--insecure-no-auth"]);
        command.stdout(Stdio::piped()).stderr(File::create(&log).expect("made"));
        let limit = most(threads);
        // SAFETY: between fork and exec it makes one system call, which is safe there.
        unsafe {
            command.pre_exec(move || Ok(setrlimit(Resource::Nproc, Rlimit { ..limit })?));
        }
        let mut server = Killed::start(&mut command);
        let mut said = String::new();
        BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut said).expect("read");
        if let Some(address) = said.trim().strip_prefix("listening on ") {
            // It may still have said so and then have had no thread for its deliveries.
            if ureq::get(format!("{address}/healthz")).call().is_ok() {
                signal(server.0.id(), libc::SIGTERM);
                assert_eq!(server.0.wait().expect("ended").code(), Some(0), "{threads} threads");
                served += 1;
                continue;
            }
        }
        let code = server.0.wait().expect("ended").code();
        let log = fs::read_to_string(&log).expect("text");
        assert_eq!(code, Some(1), "{threads} threads: {log}");
        let is_told = ["thread", "can't be"].iter().all(|part| log.contains(part));
        assert!(is_told && log.contains("os error 11") && !log.contains("panicked"), "{threads} threads: {log}");
        refused += 1;
    }
    assert!(refused > 0, "one thread is enough for nobody");
    // Another user's processes may be too many for any of these.
    assert!(served > 0 || !getuid().is_root());
}

#[test]
fn calls_for_which_there_is_no_thread_are_refused_and_the_server_goes_on() {
    let home = home_with_rogue();
    let isolated = Package::new("Apart").of("rogue").write(home.folder());
    let isolated = isolated.to_str().expect("UTF-8");
    home.run(&["loadplugin", isolated, "--isolation", "process"]).succeeded();
    let task = home.file("nothing.sh", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(&task, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    home.run(&["addhandler", "nothing", "--event", "clients.create", "--task", &task]).succeeded();
    let user = 2_100_000_000 + std::process::id();
    let mut command = command_of_user(&home, user, &["serve", "--listen", "127.0.0.1:0", "--insecure-no-auth"]);
    let log = home.folder().join("log");
    let mut server = Killed::start(command.stdout(Stdio::piped()).stderr(File::create(&log).expect("made")));
    let mut said = String::new();
    BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut said).expect("read");
    let address = said.trim().strip_prefix("listening on ").expect("it says where it is").to_owned();
    let post = |path: &str, body: &Value| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.post(format!("{address}{path}")).content_type("application/json").send(body.to_string());
        let mut answer = answer.expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let hook = "/api/v1/hooks/on_product_acquisition";
    let mut apart = deed("pid", "");
    apart["asset"]["resource_type"] = json!("Apart");
    assert_eq!(post(hook, &deed("", "")).0, 200, "while there are threads");

    limit(server.0.id(), user, Some(1));
    let start = Barrier::new(24);
    let answers: Vec<(u16, Value)> = thread::scope(|scope| {
        let call = || {
            start.wait();
            post(hook, &deed("sleep", "300"))
        };
        let calls: Vec<_> = (0..24).map(|_| scope.spawn(call)).collect();
        calls.into_iter().map(|call| call.join().expect("no panic")).collect()
    });
    for (status, answer) in &answers {
        assert!(matches!(status, 200 | 503), "{status}: {answer}");
        if *status == 503 {
            assert!(answer["outcome_unknown"] != true && answer["detail"].as_str().is_some(), "{answer}");
        }
    }
    let refused = answers.iter().filter(|(status, _)| *status == 503).count();
    assert!(refused > 0 && refused < answers.len(), "some have a thread, some have none: {refused}");
    let (status, answer) = post(hook, &apart);
    assert_eq!(status, 503, "no worker can be started, and that is nobody's fault: {answer}");
    let (status, _) = post("/api/v1/events", &json!({"event": "clients.create"}));
    assert_eq!(status, 201, "what needs no thread of its own goes on");

    limit(server.0.id(), user, None);
    wait_for("the server to be well", || post(hook, &deed("", "")).0 == 200);
    let (status, answer) = post(hook, &apart);
    assert_eq!(status, 200, "the worker is started at the next call: {answer}");
    wait_for("what was emitted to be delivered", || {
        let deliveries = ureq::get(format!("{address}/api/v1/deliveries")).call().expect("answered");
        let mut text = String::new();
        deliveries.into_body().into_reader().read_to_string(&mut text).expect("text");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        all["items"].as_array().is_some_and(|all| all.len() == 1 && all[0]["status"] == "done")
    });
    let ready = ureq::get(format!("{address}/readyz")).call().expect("it is ready");
    assert_eq!(ready.status(), 200);
    signal(server.0.id(), libc::SIGTERM);
    let log = fs::read_to_string(&log).expect("text");
    assert_eq!(server.0.wait().expect("ended").code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
