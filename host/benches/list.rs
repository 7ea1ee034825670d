//! `billhook listplugins` with 1,000 plugins, against a process that does nothing.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod support;

use std::process::{Command, Stdio};

use billhook::{Host, Install};

fn main() {
    billhook::run_child_process();
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("home");
    let package = support::package("reader", "Reader", 0, folder.path());
    let host = Host::open(&home).expect("opens");
    host.install(&package, &Install::default()).expect("installed");
    drop(host);
    multiply(&home.join("registry.db"), 1000);

    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_billhook"));
        let done = command.args(arguments).env("BILLHOOK_HOME", &home).stdout(Stdio::null()).status();
        assert!(done.expect("starts").success());
    };
    let (floor, subject) = support::in_turn(31, || run(&["--version"]), || run(&["listplugins"]));
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    println!(
        "listplugins with 1,000 plugins: {:.2} ms; the command doing nothing: {:.2} ms; at most {} MB of memory",
        ms(subject),
        ms(floor),
        peak_memory(&home) / 1024
    );
}

/// Copies the one plugin of a registry until there are `count`.
fn multiply(registry: &std::path::Path, count: usize) {
    let registry = rusqlite::Connection::open(registry).expect("opens");
    registry.execute_batch("BEGIN").expect("begins");
    for index in 1..count {
        let (plugin, version) = (
            "INSERT INTO plugin (id, position, enabled, settings, settings_changed, needs_settings) SELECT ?1, position, enabled, settings, settings_changed, needs_settings
             FROM plugin WHERE id = 'reader'",
            "INSERT INTO version SELECT ?1, position, version, ?2, author, digest, library_digest, manifest, module,
             usage_specs, installed_at FROM version WHERE plugin = 'reader'",
        );
        let id = format!("reader-{index}");
        registry.execute(plugin, [&id]).expect("copied");
        registry.execute(version, [&id, &format!("Reader {index}")]).expect("copied");
    }
    registry.execute_batch("UPDATE registry SET generation = generation + 1; COMMIT").expect("commits");
}

/// The most resident memory of a run, in KiB, as the kernel counts it; 0 where it doesn't tell.
fn peak_memory(home: &std::path::Path) -> u64 {
    let mut command = Command::new("sh");
    // The shell replaces itself, and waits for nothing else: the peak of its children is the command's.
    let script = format!(
        "{} listplugins > /dev/null & pid=$!; peak=0; while [ -e /proc/$pid/status ]; do \
         now=$(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status 2>/dev/null); \
         [ -n \"$now\" ] && peak=$now; [ -z \"$now\" ] && break; done; echo $peak",
        env!("CARGO_BIN_EXE_billhook")
    );
    let output = command.arg("-c").arg(script).env("BILLHOOK_HOME", home).output().expect("starts");
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_default()
}
