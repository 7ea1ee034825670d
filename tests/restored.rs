//! Files of a home that are put back from a copy: what lies beside them is theirs, or nothing is opened.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::support::{Home, Package, Server, signal};

/// The names of the plugins, as the command lists them.
fn listed(home: &Home) -> Vec<String> {
    let plugins = home.run(&["--json", "listplugins"]).succeeded().json();
    plugins.as_array().expect("a list").iter().map(|plugin| plugin["id"].as_str().expect("an id").to_owned()).collect()
}

/// Does something in a server that is killed then: what it did is in the logs beside the files.
fn killed_after(home: &Home, work: impl FnOnce(&Server)) {
    let server = Server::start(home);
    work(&server);
    signal(server.id(), 9);
    server.wait();
}

fn load(home: &Home, name: &str) {
    let package = fs::read(Package::new(name).write(home.folder())).expect("readable");
    killed_after(home, |server| drop(server.upload(&package).is(201)));
}

/// A copy of a file, with its times, as backups have them.
fn copy(file: &PathBuf, name: &str) -> PathBuf {
    let copy = file.with_file_name(name);
    assert!(Command::new("cp").arg("-p").args([file, &copy]).status().expect("cp is there").success());
    copy
}

#[test]
fn a_registry_that_is_put_back_beside_a_later_log_is_refused_with_what_to_do_until_the_log_is_gone() {
    for with_times in [false, true] {
        for rounds in [1, 2] {
            let home = Home::new();
            home.load(&Package::new("First")).succeeded();
            let registry = home.path().join("registry.db");
            let backup = copy(&registry, "backup.db");
            for round in 0..rounds {
                // What was killed is gone on with, and nobody notices.
                assert_eq!(listed(&home).len(), 1 + round);
                load(&home, &format!("Later{round}"));
            }
            let arguments: &[&str] = if with_times { &["-p"] } else { &[] };
            assert!(Command::new("cp").args(arguments).args([&backup, &registry]).status().expect("cp").success());
            let before = fs::read(&registry).expect("readable");
            let parts = ["registry.db was put back", "registry.db-wal", "delete", "registry.db-shm", "touch"];
            home.run(&["listplugins"]).failed_with(&parts);
            home.run(&["disableplugin", "first"]).failed_with(&parts);
            let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0"]);
            let refused = serve.stdout(Stdio::null()).output().expect("it ends");
            assert!(!refused.status.success());
            assert_eq!(fs::read(&registry).expect("readable"), before, "nothing was changed");
            for end in ["wal", "shm"] {
                fs::remove_file(home.path().join(format!("registry.db-{end}"))).expect("there");
            }
            assert_eq!(listed(&home), ["first"]);
        }
    }
}

#[test]
fn a_ledger_that_is_put_back_beside_a_later_log_is_refused() {
    let home = Home::new();
    home.load(&Package::new("First")).succeeded();
    let ledger = home.path().join("ledger.db");
    let emit = |server: &Server| drop(server.post("/api/v1/events", &json!({"event": "clients.create"})).is(201));
    killed_after(&home, emit);
    home.run(&["listdeliveries"]).succeeded();
    let backup = copy(&ledger, "backup.db");
    killed_after(&home, |server| (0..3).for_each(|_| emit(server)));
    home.run(&["listdeliveries"]).succeeded();
    killed_after(&home, emit);
    fs::copy(&backup, &ledger).expect("put back");
    home.run(&["listdeliveries"]).failed_with(&["ledger.db was put back", "ledger.db-wal"]);
    fs::remove_file(home.path().join("ledger.db-wal")).expect("there");
    home.run(&["listdeliveries"]).succeeded();
}

#[test]
fn a_home_of_a_killed_host_is_copied_and_opened_as_a_whole() {
    let home = Home::new();
    home.load(&Package::new("First")).succeeded();
    load(&home, "Second");
    let copy = home.folder().join("copy");
    assert!(Command::new("cp").arg("-a").args([home.path(), copy.clone()]).status().expect("cp is there").success());
    let mut command = home.command(&["--json", "listplugins"]);
    let listed = command.env("BILLHOOK_HOME", &copy).output().expect("it ends");
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("second"), "{listed:?}");
}

#[test]
fn a_registry_is_taken_where_it_is_what_its_log_began_with_unless_it_was_written_later() {
    let home = Home::new();
    home.load(&Package::new("First")).succeeded();
    load(&home, "Second");
    let registry = home.path().join("registry.db");
    let backup = copy(&registry, "backup.db");
    fs::copy(&backup, &registry).expect("put back");
    home.run(&["listplugins"]).failed_with(&["registry.db was put back"]);
    // With its times it is as if nobody had put anything back.
    assert!(Command::new("cp").arg("-p").args([&backup, &registry]).status().expect("cp is there").success());
    assert_eq!(listed(&home), ["first", "second"]);
}
