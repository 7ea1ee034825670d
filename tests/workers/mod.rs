//! A plugin in a worker process: whatever it does, the host lives. And what the same does in the process of the host.

mod confined;
mod foreign;
mod in_process;
mod litter;
mod observed;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use billhook::{
    ErrorKind, HookError, Host, Install, Isolation, PluginStatus, RunPolicy,
    data::{Asset, Contract},
};
use serde_json::{Value, json};

use crate::support::{Home, Package, acquired, alone, asset, order, wait_for};

/// A home with a plugin that does what it is asked for in a worker, and a healthy one beside it.
struct Rogue {
    home: Home,
    host: Host,
}

/// How the rogue is run unless a test says otherwise: little time, and no end of crashes.
fn runtime() -> Value {
    json!({"isolation": "process", "deadline_ms": 20_000, "most_crashes": 1_000_000,
           "limits": {"memory_mb": 128, "cpu_ms": 500, "open_files": 64}})
}

fn parsed(runtime: &Value) -> RunPolicy {
    serde_json::from_value(runtime.clone()).expect("settings")
}

impl Rogue {
    fn new() -> Self {
        Self::with(&runtime())
    }

    fn with(runtime: &Value) -> Self {
        let home = Home::new();
        let host = home.host();
        let rogue = Rogue { home, host };
        rogue.install(&Package::new("Rogue").of("rogue"));
        rogue.install(&Package::new("Healthy"));
        rogue.run_so(runtime);
        rogue
    }

    fn install(&self, package: &Package) {
        let how = Install { isolation: Some(Isolation::Process), ..Install::default() };
        self.host.install(package.write(self.home.folder()), &how).expect("installed");
    }

    fn run_so(&self, runtime: &Value) {
        self.host.set_runtime("rogue", &parsed(runtime)).expect("it can be run so");
    }

    fn does(&self, deed: &str, what: &str) -> Result<Value, HookError> {
        does(&self.host, deed, what)
    }

    /// What it answers to a deed that goes through.
    #[track_caller]
    fn answers(&self, deed: &str, what: &str) -> Value {
        self.does(deed, what).unwrap_or_else(|error| panic!("{deed}: {error}"))
    }

    /// The process that the plugin runs in.
    fn pid(&self) -> u64 {
        self.answers("pid", "").as_u64().expect("a number")
    }

    /// The healthy plugin answers, and so does the rogue, in whatever process.
    #[track_caller]
    fn check_alive(&self, context: &str) {
        assert_eq!(acquired(&self.host, "Healthy").as_deref(), Ok("\"healthy\""), "{context}");
        // After several crashes in a row it is started again only after a while.
        wait_for(context, || self.does("pid", "").is_ok());
    }
}

fn does(host: &Host, deed: &str, what: &str) -> Result<Value, HookError> {
    let asset = Asset { meta_info: json!({"do": deed, "what": what}).into(), ..asset("Rogue") };
    let order = order();
    let changes = host.on_product_acquisition(&asset, &order.contracts[0], &order)?;
    Ok(changes.meta_info.map_or(Value::Null, |json| serde_json::from_str(json.as_str()).expect("JSON")))
}

/// The processes whose working folder is in a home: workers, and whatever they started.
fn processes(home: &Home) -> Vec<u32> {
    let home = home.path();
    let pids = fs::read_dir("/proc").expect("there").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.starts_with(&home)))
        .collect()
}

fn kill(pid: u64, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it is there");
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("there").count()
}

/// The memory that this process has, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").expect("there");
    let pages: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size()
}

/// How often each deed is done: more for a long run, as `docs/contributing.md` says.
fn rounds() -> usize {
    std::env::var("BILLHOOK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

/// What ends a worker, and what the caller is told.
const FATAL: [(&str, &str, &str); 17] = [
    ("segfault", "", "ended by signal 11 (SIGSEGV); it wrote last: about to crash"),
    ("abort", "", "ended by signal 6 (SIGABRT)"),
    ("exit", "0", "ended its process with exit code 0"),
    ("exit", "7", "ended its process with exit code 7"),
    ("loop", "", "used more than 0.5 s of processor time"),
    ("overflow", "", "has overflowed its stack"),
    ("allocate", "", "memory allocation of 8388608 bytes failed"),
    ("stdout", "", "processor time"),
    ("stderr", "", "processor time"),
    ("close", "", "its worker crashed"),
    ("sleep", "60000", "timed out after 1.2 s: outcome unknown"),
    ("stop", "", "timed out after 1.2 s: outcome unknown"),
    ("garbage", "", "a frame of 1952999795 bytes"),
    ("gigantic", "", "a frame of 4294967295 bytes; at most"),
    ("truncated", "", "its process"),
    ("other", "", "what can't be understood"),
    ("kill", "own", "ended by signal 9 (SIGKILL)"),
];

#[test]
fn whatever_ends_a_worker_is_an_error_of_that_call_and_nothing_else() {
    if !alone("workers::whatever_ends_a_worker_is_an_error_of_that_call_and_nothing_else") {
        return;
    }
    let rogue = Rogue::new();
    rogue.check_alive("before");
    let before = descriptors();
    let mut memory = Vec::new();
    for round in 0..rounds() {
        for (deed, what, expected) in FATAL {
            let mut settings = runtime();
            if expected.contains("timed out") {
                settings["deadline_ms"] = json!(1_200);
            }
            rogue.run_so(&settings);
            let own;
            let what = match what {
                "own" => {
                    own = rogue.pid().to_string();
                    &own
                }
                what => what,
            };
            let context = format!("{deed}, round {round}");
            let error = rogue.does(deed, what).expect_err(&context);
            assert!(error.message().contains(expected), "{context}: {error}");
            assert_eq!((error.kind(), error.plugin()), (ErrorKind::Internal, Some("rogue")), "{context}");
            assert!(error.is_outcome_unknown(), "{context}: it may have done something");
            rogue.check_alive(&context);
        }
        memory.push(resident());
    }
    wait_for("all that was ended to be gone", || processes(&rogue.home).len() <= 4);
    // Two workers are there, with their sockets, as before.
    let home = rogue.home.path();
    wait_for("descriptors to be given back", || descriptors() <= before);
    // The first round grows caches and pools; the later ones leave nothing behind, however many they are.
    assert!(memory[memory.len() - 1] < memory[0] + 4 * 1024 * 1024, "it grows: {memory:?} bytes");
    drop(rogue.host);
    wait_for("everything to end with the host", || processes(&rogue.home).is_empty());
    wait_for("its folders to be given back", || fs::read_dir(home.join("workers")).expect("there").count() == 0);
}

#[test]
fn what_a_worker_survives_it_answers() {
    let mut settings = runtime();
    // Large answers and many threads take their time.
    settings["limits"]["cpu_ms"] = json!(15_000);
    let rogue = Rogue::with(&settings);
    let error = rogue.does("refuse", "").expect_err("refused");
    assert_eq!((error.kind(), error.message(), error.status()), (ErrorKind::Conflict, "as asked", 409));
    assert_eq!((error.retry_after(), error.is_outcome_unknown()), (Some(Duration::from_secs(2)), false));
    let pid = rogue.pid();
    let error = rogue.does("panic", "").expect_err("it panicked");
    assert!(error.message().starts_with("the plugin panicked at") && error.message().contains("as asked"), "{error}");
    let error = rogue.does("descriptors", "").expect_err("there are no more");
    assert!(error.message().contains("Too many open files"), "{error}");
    assert_eq!(rogue.answers("large", "1000000").as_str().map(str::len), Some(1_000_000));
    let error = rogue.does("large", "20000000").expect_err("larger than the changes of a call may be");
    assert!(error.message().contains("larger than the host takes"), "{error}");
    let error = rogue.does("threads", "").expect_err("there are no more");
    assert!(error.message().ends_with(" threads"), "{error}");
    rogue.does("one-more-thread", "").expect_err("there is no room for another");
    assert_eq!(rogue.pid(), pid, "it is the same process all the time");
}

#[test]
fn a_worker_that_is_killed_between_calls_is_replaced_and_nobody_notices() {
    let rogue = Rogue::new();
    for _ in 0..3 {
        let pid = rogue.pid();
        kill(pid, rustix::process::Signal::KILL);
        wait_for("its end", || !Path::new(&format!("/proc/{pid}")).exists());
        assert_ne!(rogue.pid(), pid);
    }
    // One that is stopped doesn't answer in time, and is replaced too.
    let mut settings = runtime();
    settings["deadline_ms"] = json!(1_000);
    rogue.run_so(&settings);
    let pid = rogue.pid();
    kill(pid, rustix::process::Signal::STOP);
    let error = rogue.does("pid", "").expect_err("it is stopped");
    assert_eq!(error.message(), "timed out after 1 s: outcome unknown");
    wait_for("its end", || !Path::new(&format!("/proc/{pid}")).exists());
    rogue.check_alive("stopped");
    // What it says without being asked is no answer to the next call, which is made elsewhere.
    rogue.check_alive("before garbage");
    let pid = rogue.pid();
    rogue.answers("garbage-later", "");
    thread::sleep(Duration::from_millis(300));
    assert_ne!(rogue.pid(), pid);
}

#[test]
fn a_worker_lives_on_when_the_thread_that_made_its_first_call_ends_and_ends_when_nobody_calls() {
    let mut settings = runtime();
    settings["idle_s"] = json!(1);
    let rogue = Rogue::with(&settings);
    assert_eq!((rogue.host.workers(), processes(&rogue.home).len()), (0, 0), "the first call starts it");
    let pid = thread::scope(|scope| scope.spawn(|| rogue.pid()).join().expect("no panic"));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(rogue.pid(), pid);
    assert_eq!(rogue.host.workers(), 1);
    wait_for("it to be ended", || rogue.host.workers() == 0 && processes(&rogue.home).is_empty());
    let state = rogue.host.call("healthy", billhook::Hook::OnProductAcquisition, Default::default());
    assert!(state.is_err(), "an asset is missing");
    assert_ne!(rogue.pid(), pid);
}

#[test]
fn log_settings_state_and_contracts_work_as_in_the_process_of_the_host() {
    let rogue = Rogue::new();
    let mut order = order();
    order.contracts = (0..1_000).map(|index| Contract { item_id: index.to_string(), ..Contract::default() }).collect();
    for isolation in ["process", "in-process"] {
        let mut settings = runtime();
        settings["isolation"] = json!(isolation);
        rogue.run_so(&settings);
        let call = |what: &str| {
            let asset = Asset { meta_info: json!({"do": "contracts", "what": what}).into(), ..asset("Rogue") };
            let changes = rogue.host.on_product_acquisition(&asset, &order.contracts[0], &order).expect("called");
            changes.meta_info.map(|json| json.as_str().to_owned())
        };
        assert_eq!(call("999").as_deref(), Some("[1000,true]"), "{isolation}");
        assert_eq!(call("1000").as_deref(), Some("[1000,false]"), "{isolation}");
    }
    // State that was kept in one is there in the other.
    assert_eq!(rogue.answers("state", ""), 1);
    rogue.run_so(&runtime());
    assert_eq!(rogue.answers("state", ""), 2);
    kill(rogue.pid(), rustix::process::Signal::KILL);
    assert_eq!(rogue.answers("state", ""), 3);
    // An instance that is ended puts its things in order.
    let reader = |host: &Host| host.call("rogue", billhook::Hook::OnProductSuspension, suspension());
    reader(&rogue.host).expect("another hook works too");
    let Rogue { home, host } = rogue;
    drop(host);
    let connection = rusqlite::Connection::open(home.path().join("registry.db")).expect("opens");
    let ended: String = connection
        .query_row("SELECT value FROM state WHERE plugin = 'rogue' AND key = 'ended'", (), |row| row.get(0))
        .expect("it was kept");
    assert_eq!(ended, "true");
}

fn suspension() -> billhook::HookObjects {
    let order = order();
    billhook::HookObjects {
        asset: Some(asset("Rogue")),
        contract: order.contracts.first().cloned(),
        order: Some(order),
        ..Default::default()
    }
}

#[test]
fn a_plugin_that_crashes_too_often_is_put_into_quarantine_until_it_is_enabled() {
    let mut settings = runtime();
    settings["most_crashes"] = json!(3);
    let rogue = Rogue::with(&settings);
    let other = rogue.home.host();
    for times in 1..=3 {
        wait_for("the next crash", || {
            let error = rogue.does("abort", "").expect_err("it crashes");
            // After the second in a row, the next start waits a moment.
            assert!(error.is_outcome_unknown() || error.retry_after().is_some(), "{error}");
            error.is_outcome_unknown()
        });
        let _ = times;
    }
    let started = Instant::now();
    let error = rogue.does("pid", "").expect_err("in quarantine");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unavailable, 503));
    let reason = "in quarantine: it crashed 3 times within 3600 s, the last time in on_product_acquisition";
    assert!(error.message().starts_with(reason) && error.message().contains("SIGABRT"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "it is answered at once");
    assert_eq!(acquired(&rogue.host, "Healthy").as_deref(), Ok("\"healthy\""));

    // Everybody knows, and the operator sees it.
    wait_for("another host to know", || does(&other, "pid", "").is_err());
    let listed = rogue.home.run(&["listplugins"]).succeeded().stdout;
    assert!(listed.contains("id: rogue version: 1.0 author: acme status: quarantined"), "{listed}");
    let shown = rogue.home.run(&["showplugin", "rogue"]).succeeded().stdout;
    assert!(shown.contains("because       in quarantine: it crashed 3 times"), "{shown}");
    rogue.home.run(&["enableplugin", "rogue"]).succeeded();
    wait_for("both hosts to know", || rogue.does("pid", "").is_ok() && does(&other, "pid", "").is_ok());
    assert_eq!(rogue.host.list().expect("readable")[1].status, PluginStatus::Enabled);
}

#[test]
fn calls_that_wait_for_a_worker_that_crashes_are_answered_at_once() {
    let rogue = Rogue::new();
    rogue.does("abort", "").expect_err("the first crash");
    thread::scope(|scope| {
        let busy = scope.spawn(|| rogue.does("sleep", "60000"));
        wait_for("its worker to be busy", || rogue.host.workers() == 1);
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| (rogue.does("pid", ""), Instant::now()))).collect();
        thread::sleep(Duration::from_millis(500));
        // The second crash in a row, after which the next start has to wait.
        for pid in processes(&rogue.home) {
            kill(pid.into(), rustix::process::Signal::KILL);
        }
        let error = busy.join().expect("no panic").expect_err("it was killed");
        assert!(error.is_outcome_unknown(), "{error}");
        let crashed = Instant::now();
        for call in waiting {
            let (answer, answered) = call.join().expect("no panic");
            answer.expect("the next worker answers it");
            assert!(answered.saturating_duration_since(crashed) < Duration::from_secs(10), "none waits in vain");
        }
    });
}

#[test]
fn ten_thousand_calls_of_which_one_plugin_crashes_on_every_tenth_are_all_answered() {
    let home = Home::new();
    let host = home.host();
    let names = ["Rogue", "One", "Two", "Three"];
    for name in names {
        let package = Package::new(name).of(if name == "Rogue" { "rogue" } else { "healthy" });
        let how = Install { isolation: Some(Isolation::Process), ..Install::default() };
        host.install(package.write(home.folder()), &how).expect("installed");
    }
    host.set_runtime("rogue", &parsed(&runtime())).expect("it can be run so");
    let (answered, crashed, turn) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let went_through = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let index @ 0..10_000 = turn.fetch_add(1, Ordering::Relaxed) {
                    let name = names[index as usize % names.len()];
                    if name == "Rogue" {
                        let deed = if index % 40 == 0 { "abort" } else { "pid" };
                        match does(&host, deed, "") {
                            Ok(_) => {
                                assert_eq!(deed, "pid");
                                went_through.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => {
                                // Crashes in a row let the next start wait, in the end for so long that calls are refused.
                                assert!(error.is_outcome_unknown() || error.retry_after().is_some(), "{error}");
                                crashed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    } else {
                        assert_eq!(acquired(&host, name).as_deref(), Ok("\"healthy\""));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), 10_000);
    assert!(crashed.into_inner() >= 250);
    assert!(went_through.into_inner() >= 1_000, "it is started again, time after time");
    drop(host);
    wait_for("everything to end with the host", || processes(&home).is_empty());
}

#[test]
fn waiting_for_a_free_worker_counts_towards_the_deadline_and_two_work_at_once() {
    let mut settings = runtime();
    settings["deadline_ms"] = json!(3_000);
    let rogue = Rogue::with(&settings);
    rogue.pid();
    thread::scope(|scope| {
        let busy = scope.spawn(|| rogue.does("sleep", "2000"));
        thread::sleep(Duration::from_millis(300));
        // It waits for its turn, and then there isn't enough time left.
        let error = rogue.does("sleep", "2000").expect_err("too late");
        assert_eq!(error.message(), "timed out after 3 s: outcome unknown");
        busy.join().expect("no panic").expect("it went through");
    });
    // Another hook has less time, and gets no turn.
    settings["hooks"] = json!({"on_product_suspension": {"deadline_ms": 400}});
    rogue.run_so(&settings);
    rogue.pid();
    thread::scope(|scope| {
        let busy = scope.spawn(|| rogue.does("sleep", "2000"));
        thread::sleep(Duration::from_millis(500));
        let error = rogue.host.call("rogue", billhook::Hook::OnProductSuspension, suspension()).expect_err("no turn");
        assert_eq!(error.message(), "no worker was free for 0.4 s: nothing was done");
        assert!(!error.is_outcome_unknown() && error.kind() == ErrorKind::Unavailable);
        busy.join().expect("no panic").expect("it went through");
    });
    settings["workers"] = json!(2);
    settings["deadline_ms"] = json!(20_000);
    rogue.run_so(&settings);
    rogue.pid();
    let started = Instant::now();
    let pids: Vec<u64> = thread::scope(|scope| {
        let stay = || {
            rogue.answers("sleep", "1500");
            rogue.pid()
        };
        let calls: Vec<_> = (0..2).map(|_| scope.spawn(stay)).collect();
        calls.into_iter().map(|call| call.join().expect("no panic")).collect()
    });
    assert!(started.elapsed() < Duration::from_millis(2_900), "they don't wait for each other");
    assert_eq!((pids.len(), rogue.host.workers()), (2, 2));
}

#[test]
fn an_upgrade_or_a_removal_lets_running_calls_finish_within_a_bound() {
    let mut settings = runtime();
    settings["drain_s"] = json!(1);
    let rogue = Rogue::with(&settings);
    rogue.pid();
    thread::scope(|scope| {
        let short = scope.spawn(|| rogue.does("sleep", "800"));
        thread::sleep(Duration::from_millis(300));
        rogue.install(&Package::new("Rogue").of("rogue").version("2.0"));
        rogue.pid();
        assert_eq!(short.join().expect("no panic").expect("it finishes on the old version"), "done");
        let long = scope.spawn(|| rogue.does("sleep", "60000"));
        thread::sleep(Duration::from_millis(300));
        rogue.host.remove("rogue", true).expect("removed");
        let error = long.join().expect("no panic").expect_err("it took too long");
        assert!(error.message().contains("was changed or removed") && error.is_outcome_unknown(), "{error}");
    });
    wait_for("its worker to end", || processes(&rogue.home).is_empty());
}

#[test]
fn a_worker_that_takes_longer_to_start_than_a_call_may_take_is_there_for_the_next() {
    let rogue = Rogue::new();
    rogue.host.set_settings("rogue", &json!({"do": "sleep", "what": "700"}).to_string()).expect("they fit");
    let mut settings = runtime();
    settings["deadline_ms"] = json!(300);
    rogue.run_so(&settings);
    let error = rogue.does("pid", "").expect_err("it isn't there yet");
    assert_eq!(error.message(), "no worker was free for 0.3 s: nothing was done");
    wait_for("the worker", || rogue.does("pid", "").is_ok());
}

#[test]
fn a_crash_of_an_old_version_puts_no_new_one_into_quarantine() {
    let mut settings = runtime();
    settings["most_crashes"] = json!(1);
    let rogue = Rogue::with(&settings);
    let old = rogue.pid();
    thread::scope(|scope| {
        let call = scope.spawn(|| rogue.does("sleep", "60000"));
        thread::sleep(Duration::from_millis(300));
        rogue.install(&Package::new("Rogue").of("rogue").version("2.0"));
        kill(old, rustix::process::Signal::KILL);
        call.join().expect("no panic").expect_err("it was killed");
    });
    rogue.host.refresh().expect("readable");
    assert_eq!(rogue.host.show("rogue").expect("installed").quarantined, None);
    assert_ne!(rogue.pid(), old);
}

#[test]
fn workers_end_with_a_host_that_is_killed() {
    let rogue = Rogue::new();
    let mut settings = runtime();
    settings["limits"]["processes"] = json!(true);
    rogue.run_so(&settings);
    let objects = |deed: &str, what: &str| {
        let asset = Asset { meta_info: json!({"do": deed, "what": what}).into(), ..asset("Rogue") };
        json!({"asset": asset, "order": order()}).to_string()
    };
    for (deed, what) in [("fork", "setsid-and-stay"), ("sleep", "60000")] {
        let file = rogue.home.file("objects.json", &objects(deed, what));
        let mut command = rogue.home.command(&["callplugin", "rogue", "on_product_acquisition", "--objects", &file]);
        let mut child = command.spawn().expect("it starts");
        // The worker, and what it started, if it did.
        let expected = if deed == "fork" { 2 } else { 1 };
        wait_for("its worker", || processes(&rogue.home).len() > expected);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        wait_for("its worker to end", || processes(&rogue.home).is_empty());
    }
    // What its folder was is cleared away by the next host.
    let next = rogue.home.host();
    let workers = rogue.home.path().join("workers");
    wait_for("its folder to be cleared away", || fs::read_dir(&workers).expect("there").count() == 0);
    drop(next);
}
