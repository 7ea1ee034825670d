//! Fixtures built for benchmarks.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

/// Builds a fixture plugin with the profile of the benchmarks and packs it.
pub fn package(fixture: &str, name: &str, padding: usize, folder: &Path) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--example", fixture, "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .status()
        .expect("cargo starts");
    assert!(built.success());
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let here = std::env::current_exe().expect("a benchmark has a file");
    let profile = here.parent().and_then(Path::parent).expect("it is in target/PROFILE/deps");
    let library = profile.join("examples").join(format!("{prefix}{fixture}{suffix}"));
    let manifest = folder.join("package.json");
    let fields = json!({
        "name": name, "author": "acme", "version": "1.0", "module": fixture, "formats": ["URL"],
        "pull_accounting": fixture == "meter",
    });
    std::fs::write(&manifest, fields.to_string()).expect("written");
    let mut files = vec![("package.json".to_owned(), manifest), (format!("{prefix}{fixture}{suffix}"), library)];
    if padding > 0 {
        // Bytes that compress about as well as a library does.
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..padding)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 3 == 0 { (state >> 24) as u8 } else { (at % 7) as u8 }
            })
            .collect();
        let data = folder.join("data.bin");
        std::fs::write(&data, noise).expect("written");
        files.push(("data.bin".to_owned(), data));
    }
    let package = folder.join("package.zip");
    billhook::package::pack(&package, &files).expect("packed");
    package
}
