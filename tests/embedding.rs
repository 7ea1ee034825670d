//! An embedder's own program as the child process.

use std::process::Command;

use billhook::{Host, HostError, Install, TrialError};

use crate::support::{Home, Package, run};

/// The example `embedder`, which cargo builds beside this binary.
fn embedder(home: &Home, arguments: &[&str]) -> Command {
    let library = crate::support::library("healthy");
    let program = library.with_file_name(format!("embedder{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(program);
    command.arg(home.path()).args(arguments);
    command
}

#[test]
fn a_program_that_calls_run_child_process_first_is_its_own_child() {
    let home = Home::new();
    let package = Package::new("X").write(home.folder());
    let run_it = run(&mut embedder(&home, &[package.to_str().expect("UTF-8")])).succeeded();
    assert_eq!(run_it.stdout, "x 1.0\n", "it ran once as itself, and its child printed nothing");
    let crashing = Package::new("Y").of("crash_on_load").write(home.folder());
    let run_it = run(&mut embedder(&home, &[crashing.to_str().expect("UTF-8")]));
    run_it.failed_with(&["the module crashed when it was loaded"]);
}

#[test]
fn its_plugins_workers_are_that_program_too() {
    let home = Home::new();
    let package = Package::new("X").of("undescribed_usage").field("pull_accounting", true.into()).write(home.folder());
    let run_it = run(&mut embedder(&home, &[package.to_str().expect("UTF-8"), "worker"]));
    run_it.failed_with(&["failed in get_usage_specs: a usage specification has to have a name and a description"]);
    let package = Package::new("Y").of("meter").field("pull_accounting", true.into()).write(home.folder());
    let run_it = run(&mut embedder(&home, &[package.to_str().expect("UTF-8"), "worker"])).succeeded();
    // It has no settings, so it is asked for none of its units.
    assert!(run_it.stdout.starts_with("y 1.0\nErr("), "{}", run_it.stdout);
    let package = Package::new("Z").write(home.folder());
    let run_it = run(&mut embedder(&home, &[package.to_str().expect("UTF-8"), "worker"])).succeeded();
    assert_eq!(run_it.stdout, "z 1.0\nOk([]) 0\n", "a hook that isn't implemented is not sent");
}

#[test]
fn the_small_backend_of_the_embedding_guide_runs() {
    let home = Home::new();
    let package = home.folder().join("test-resource.zip");
    let package = package.to_str().expect("UTF-8");
    let mut pack = home.command(&["packplugin", "--output", package]);
    let pack = pack.arg(crate::authoring::source().join("example-plugin"));
    run(pack.env("CARGO_TARGET_DIR", crate::authoring::authors_target())).succeeded();
    let shop = crate::support::library("healthy").with_file_name(format!("shop{}", std::env::consts::EXE_SUFFIX));
    let shown = run(Command::new(shop).arg(package)).succeeded().stdout;
    for part in [
        "created asset-https://api.acme.example/weather with {\"auth_type\":\"key\",\"token_required\":true}",
        "is no https address",
        "attached to product-1",
        "offered alone and in a bundle",
        "paid; 0 of its assets failed",
        "metered 2 records, of which 2 are ready to be charged",
        "test-resource is used by 1 asset; it keeps 1 value",
        "\ntest-resource keeps 1 value",
        "removed test-resource",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}

#[test]
fn a_program_that_does_not_is_told_what_to_do_and_not_started_again() {
    let home = Home::new();
    let host = Host::open(home.path()).expect("opens");
    let error = host.install(Package::new("X").write(home.folder()), &Install::default()).expect_err("no child");
    assert!(matches!(error, HostError::Trial(TrialError::Start(_))));
    let message = error.to_string();
    assert!(message.contains("billhook::run_child_process()") && message.contains("child_program"), "{message}");
    assert_eq!(host.list().expect("readable").len(), 0);
}

#[test]
fn a_child_that_can_not_be_started_refuses_the_install() {
    let home = Home::new();
    let options = billhook::HostOptions::new().child_program(home.folder().join("nowhere"));
    let host = Host::open_with(home.path(), options).expect("opens");
    let error = host.install(Package::new("X").write(home.folder()), &Install::default()).expect_err("no child");
    assert!(error.to_string().contains("the module can't be tried: No such file"), "{error}");
}
