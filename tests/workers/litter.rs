//! What a confined plugin leaves in its folder: nobody waits until it is deleted.

use std::{fs, path::PathBuf};

use billhook::{Host, Install, Isolation};
use serde_json::json;

use crate::support::{Home, Package, Server, asset, options, order, wait_for};

/// How often each is run: more for a long run, as `docs/contributing.md` says.
fn rounds() -> usize {
    std::env::var("BILLHOOK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

fn confined(home: &Home, name: &str, fixture: &str) -> Host {
    let host = Host::open_with(home.path(), options()).expect("the home opens");
    let how = Install { isolation: Some(Isolation::Process), ..Install::default() };
    host.install(Package::new(name).of(fixture).write(home.folder()), &how).expect("installed");
    host
}

fn perform(host: &Host, kind: &str, deed: &str, what: &str) -> Result<String, billhook::HookError> {
    let (order, mut asset) = (order(), asset(kind));
    asset.meta_info = json!({"do": deed, "what": what}).into();
    let changes = host.on_product_acquisition(&asset, &order.contracts[0], &order)?;
    Ok(changes.meta_info.map(|told| told.to_string()).unwrap_or_default())
}

/// Everything that is moved aside and not deleted yet.
fn aside(home: &Home) -> Vec<PathBuf> {
    fs::read_dir(home.path().join("workers/aside")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn what_a_plugin_leaves_keeps_nobody_waiting() {
    for _ in 0..rounds() {
        let home = Home::new();
        let host = confined(&home, "Rogue", "rogue");
        let other = confined(&home, "Healthy", "healthy");
        // What it does takes long where much else goes on.
        let runtime = home.file("runtime.json", r#"{"deadline_ms": 120000, "limits": {"cpu_ms": 60000}}"#);
        home.run(&["setplugin", "rogue", "--runtime", &runtime]).succeeded();
        host.refresh().expect("readable");
        for (deed, what) in [("litter", "16000"), ("deep", "1500")] {
            perform(&host, "Rogue", deed, what).expect("it may");
            // Its worker ends, with all that.
            perform(&host, "Rogue", "exit", "3").expect_err("it ended");
        }
        wait_for("both to be moved aside", || !aside(&home).is_empty());
        // Long before it is deleted: another worker starts, calls go on, homes are opened, and packages are tried.
        perform(&host, "Rogue", "pid", "").expect("another worker starts");
        perform(&other, "Healthy", "", "").expect("another plugin's worker starts");
        assert!(!aside(&home).is_empty(), "it takes longer than all of that");
        let listed = home.run(&["listplugins"]).succeeded().stdout;
        assert!(listed.contains("rogue"), "{listed}");
        let server = Server::start(&home);
        assert_eq!(server.get("/readyz").status, 200);
        let package = Package::new("Third").of("rogue").write(home.folder());
        home.run(&["loadplugin", package.to_str().expect("UTF-8"), "--isolation", "process"]).succeeded();
        home.run(&["removeplugin", "rogue", "--force"]).succeeded();
        wait_for("everything to be deleted", || aside(&home).is_empty());
    }
}

#[test]
fn what_a_worker_holds_beside_its_memory_is_bounded_and_it_is_killed_first() {
    for _ in 0..rounds() {
        let home = Home::new();
        let host = confined(&home, "Rogue", "rogue");
        assert_eq!(perform(&host, "Rogue", "oom", "").expect("readable"), "\"1000\"");
        assert_eq!(perform(&host, "Rogue", "escapes", "").expect("it answers"), "[]");
        let limit = host.show("rogue").expect("there").runtime.limits.open_files;
        for (what, each) in [("pipes", 64 * 1024), ("sockets", 512 * 1024)] {
            let held: u64 = perform(&host, "Rogue", "hold", what).expect("it answers").parse().expect("a number");
            assert!(held <= limit * each, "{held} bytes in {what}, with {limit} descriptors");
        }
        perform(&host, "Rogue", "exit", "3").expect_err("it ended");
    }
}

#[test]
fn what_is_left_when_hosts_are_gone_is_deleted_by_the_next_one() {
    let home = Home::new();
    let host = confined(&home, "Rogue", "rogue");
    perform(&host, "Rogue", "litter", "100").expect("it may");
    drop(host);
    let left = home.path().join("workers/worker-left");
    fs::create_dir_all(left.join("a/b/c")).expect("made");
    let host = home.host();
    wait_for("everything to be deleted", || !left.exists() && aside(&home).is_empty());
    drop(host);
}
