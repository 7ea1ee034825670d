//! What happens to a change that is killed: afterwards the old state is there or the new one, and nothing else.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::support::{Home, Package};

/// Every step of a change at which it may be cut off, as the host names them.
const STEPS: [&str; 6] = ["unpacked", "tried", "before rename", "renamed", "before commit", "after commit"];

/// The installed versions, oldest first; none if the plugin isn't installed.
fn versions(home: &Home) -> Vec<String> {
    let run = home.run(&["showplugin", "x", "--json"]);
    if run.code != Some(0) {
        assert!(run.stderr.contains("there is no plugin"), "{run:#?}");
        return Vec::new();
    }
    let history = run.json()["history"].clone();
    history
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["version"].as_str().expect("text").to_owned())
        .collect()
}

/// Checks that a home is whole: what the registry says is on the disk, nothing else is, and it works.
#[track_caller]
fn check_whole(home: &Home, context: &str) -> Vec<String> {
    let listed = home.run(&["listplugins", "--json"]).succeeded().json();
    let versions = versions(home);
    assert_eq!(listed.as_array().map(Vec::len), Some(usize::from(!versions.is_empty())), "{context}");
    let content = home.content();
    let packages =
        content.iter().filter(|name| name.starts_with("packages/") && name.matches('/').count() == 1).count();
    assert_eq!(packages, versions.len(), "{context}: {content:#?}");
    assert!(!content.iter().any(|name| name.starts_with("staging/")), "{context}: {content:#?}");
    if !versions.is_empty() {
        let objects = home.folder().join("objects.json");
        let run =
            home.run(&["callplugin", "x", "on_product_acquisition", "--objects", objects.to_str().expect("UTF-8")]);
        assert_eq!(run.succeeded().json()["changes"]["meta_info"], Value::from("healthy"), "{context}");
    }
    versions
}

fn home() -> Home {
    let home = Home::new();
    let objects = serde_json::json!({"asset": crate::support::asset("X"), "order": crate::support::order()});
    home.file("objects.json", &objects.to_string());
    // A first install that is killed at once would leave none, which is whole but can't be looked at.
    drop(home.host());
    home
}

/// A change of what is installed, as arguments of the command, and the versions that are there when it went through.
fn change(home: &Home, versions: &[String], choice: u64) -> (Vec<String>, Vec<String>) {
    let arguments = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match (choice % 4, versions) {
        (0, [.., _]) => (arguments(&["removeplugin", "x"]), Vec::new()),
        (1, [older @ .., _]) if !older.is_empty() => (arguments(&["downgradeplugin", "x"]), older.to_vec()),
        _ => {
            let next = versions.last().map_or(0, |last| last.parse::<u64>().expect("a number")) + 1;
            let package = Package::new("X").version(&next.to_string()).write(home.folder());
            let after = versions.iter().cloned().chain([next.to_string()]).collect();
            (arguments(&["loadplugin", package.to_str().expect("UTF-8")]), after)
        }
    }
}

/// What a killed command says is nobody's business.
fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_change_that_is_killed_at_any_step_leaves_the_old_state_or_the_new() {
    for step in STEPS {
        let home = home();
        let mut before = Vec::new();
        // A first install, an upgrade, a downgrade, a removal: each killed, looked at, and then done.
        for choice in [2, 2, 1, 0] {
            let (arguments, after) = change(&home, &before, choice);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let context = format!("{arguments:?} killed at {step:?}");
            let killed = home.command(&arguments).env("BILLHOOK_KILL_AT", step).output().expect("it starts");
            let reached = !killed.status.success();
            let only_installs = !step.contains("commit") && arguments[0] != "loadplugin";
            assert_eq!(reached, !only_installs, "{context}: {killed:?}");

            let found = check_whole(&home, &context);
            let committed = step == "after commit" || !reached;
            assert_eq!(found, if committed { after.clone() } else { before.clone() }, "{context}");
            if !committed {
                home.run(&arguments).succeeded();
                assert_eq!(check_whole(&home, &context), after, "{context}, and then done");
            }
            before = after;
        }
    }
}

#[test]
fn two_hundred_changes_killed_at_random_moments_need_no_repair() {
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let home = home();
                let mut versions = Vec::new();
                let seed = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos();
                let mut random = Random(u64::from(seed) | 1);
                for round in 0..100 {
                    let (arguments, after) = change(&home, &versions, random.next());
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    let moment = Duration::from_micros(random.next() % 60_000);
                    let mut child = quiet(home.command(&arguments)).spawn().expect("it starts");
                    thread::sleep(moment);
                    let _ = child.kill();
                    child.wait().expect("it ends");

                    let context = format!("seed {seed}, round {round}: {arguments:?} killed after {moment:?}");
                    let found = check_whole(&home, &context);
                    assert!(found == versions || found == after, "{context}: {found:?}, before {versions:?}");
                    versions = found;
                }
            });
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_child_in_which_a_package_is_tried_ends_with_its_host() {
    let home = home();
    let package = Package::new("X").of("hang_in_construction").write(home.folder());
    let mut host = quiet(home.command(&["loadplugin", package.to_str().expect("UTF-8")])).spawn().expect("it starts");
    let parent = host.id().to_string();
    // The fourth field of `stat`, behind the name in brackets, is the parent.
    let children = || -> Vec<String> {
        let all =
            std::fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        all.filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&parent)
        })
        .collect()
    };
    let mut child = Vec::new();
    crate::support::wait_for("the child", || {
        child = children();
        !child.is_empty()
    });
    host.kill().expect("killed");
    host.wait().expect("it ends");
    let state = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Gone, or a zombie that nobody has waited for yet.
    crate::support::wait_for("the child's end", || {
        child.iter().all(|pid| state(pid).is_empty() || state(pid).contains(") Z "))
    });
    assert_eq!(check_whole(&home, "killed while a package is tried"), [""; 0]);
}

#[test]
fn hosts_in_several_processes_change_one_home_in_turn() {
    let home = home();
    let package = Package::new("X").write(home.folder());
    let package = package.to_str().expect("UTF-8");
    let runs: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = (0..8).map(|_| scope.spawn(|| home.run(&["loadplugin", package]))).collect();
        started.into_iter().map(|run| run.join().expect("no panic")).collect()
    });
    let said: Vec<String> = runs.into_iter().map(|run: crate::support::Run| run.succeeded().stdout).collect();
    let is_first = |said: &&String| !said.contains("is installed already: nothing changed");
    assert_eq!(said.iter().filter(is_first).count(), 1, "one installs it, the others find it installed: {said:?}");
    assert_eq!(check_whole(&home, "several processes"), ["1.0"]);
}

/// Marsaglia's xorshift: enough to choose moments, and repeatable from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
