//! Tells the crate which compiler and target build it, for the record that every exported plugin carries.

use std::{env, process::Command};

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_else(|| "unknown compiler".to_owned());
    println!("cargo::rustc-env=BILLHOOK_COMPILER={}", version.trim().replace(['"', '\\'], ""));
    println!("cargo::rustc-env=BILLHOOK_TARGET={}", env::var("TARGET").expect("cargo sets TARGET"));
    println!("cargo::rerun-if-changed=build.rs");
}
