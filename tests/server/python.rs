//! The backend in Python, which stands for those that aren't written in Rust.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    authoring::source,
    support::{Home, Package, Run, Server, run, token},
};

/// Runs the backend against a server; none where there is no Python, which is told.
fn backend(server: &Server, token: &str, asset_type: &str) -> Option<Run> {
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("BILLHOOK_BROWSER").is_none(), "python3 has to be there, and isn't");
        let _ = writeln!(io::stderr(), "SKIPPED: python3 is not installed, so the backend in Python is not tested");
        return None;
    }
    let script = source().join("host/examples/backend.py");
    let mut command = Command::new("python3");
    // It leaves nothing behind beside itself.
    command.arg("-B").arg(script).args(["--url", &server.url(""), "--asset-type", asset_type]);
    Some(run(command.env("BILLHOOK_TOKEN", token).stdin(Stdio::null())))
}

#[test]
fn the_whole_life_of_an_asset_goes_through_the_hook_api() {
    let home = Home::new();
    // The example's own package, as cargo builds it for the tests of the whole workspace.
    let manifest = std::fs::read(source().join("example-plugin/package.json")).expect("there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let mut package = Package::new("Test Resource").of("test_resource");
    for (key, value) in manifest.as_object().expect("an object") {
        if key != "module" {
            package = package.field(key, value.clone());
        }
    }
    home.load(&package).succeeded();
    let server = Server::start(&home);
    let Some(told) = backend(&server, &token(&home, "emit"), "Test Resource") else { return };
    told.succeeded();
    // What it had in use, it released.
    assert_eq!(server.get("/api/v1/plugins/test-resource").json()["assets_in_use"], json!(0));
    let told = backend(&server, "billhook_0_wrong", "Test Resource").expect("it was there");
    told.failed_with(&["token"]);
    let told = backend(&server, &token(&home, "emit"), "Nobody's").expect("it was there");
    told.failed_with(&["Nobody's"]);
}
