//! From `newplugin` to `callplugin`, as an author goes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::support::{BILLHOOK, Home, Package, Run, run};

/// The root of the source.
pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("there")
}

/// Builds of authors' crates share a folder, so that each dependency is built once.
fn author(home: &Home, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments);
    command.current_dir(folder).env("CARGO_TARGET_DIR", authors_target());
    command
}

pub(crate) fn authors_target() -> PathBuf {
    let here = std::env::current_exe().expect("a test has a file");
    here.parent().and_then(Path::parent).and_then(Path::parent).expect("it is in target/PROFILE/deps").join("authors")
}

fn cargo(folder: &Path, arguments: &[&str]) -> Run {
    run(Command::new(env!("CARGO")).args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", authors_target()))
}

fn api() -> String {
    source().join("plugin-api").to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_new_plugin_tests_packs_loads_and_answers_as_it_is() {
    let home = Home::new();
    let made = home.run(&["newplugin", "Weather Data", "--api", &api()]).succeeded();
    assert!(made.stdout.starts_with("weather-data is a new plugin; go on with:"), "{}", made.stdout);
    let folder = home.folder().join("weather-data");
    cargo(&folder, &["test", "--quiet"]).succeeded();
    run(Command::new(env!("CARGO")).args(["fmt", "--check"]).current_dir(&folder)).succeeded();

    run(&mut author(&home, &folder, &["packplugin"])).succeeded();
    run(&mut author(&home, &folder, &["loadplugin", "weather-data-0.1.zip"])).succeeded();
    let call = |hook| {
        let arguments = ["callplugin", "weather-data", hook, "--objects", "objects.json"];
        run(&mut author(&home, &folder, &arguments)).succeeded().json()["outcome"].clone()
    };
    assert_eq!(call("on_pre_product_spec_validation"), "ok");
    assert_eq!(call("on_product_acquisition"), "ok");
    assert_eq!(call("on_product_suspension"), "ok");
    assert_eq!(call("on_post_product_spec_upgrade"), "not implemented");

    home.run(&["newplugin", "Weather Data", "--api", &api()]).failed_with(&["weather-data is already there"]);

    // The same source in another folder gives the same bytes.
    let elsewhere = home.folder().join("somewhere else");
    fs::create_dir(&elsewhere).expect("made");
    let copy = elsewhere.join("weather-data");
    run(Command::new("cp").arg("-r").arg(&folder).arg(&copy)).succeeded();
    run(&mut author(&home, &copy, &["packplugin", "--output", "again.zip"])).succeeded();
    let [first, second] =
        [folder.join("weather-data-0.1.zip"), copy.join("again.zip")].map(|path| fs::read(path).expect("packed"));
    assert!(first == second, "the same source gives the same bytes");
    let text = String::from_utf8_lossy(&fs::read(library_of(&home, &folder)).expect("there")).into_owned();
    let cargo_home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").expect("set")));
    for path in [cargo_home.as_str(), source().to_str().expect("UTF-8"), home.folder().to_str().expect("UTF-8")] {
        assert!(!text.contains(path), "a package tells nothing of the machine that packed it: {path}");
    }

    // What a build with panic = "abort" gives can't be guarded.
    let manifest = folder.join("Cargo.toml");
    let aborting = fs::read_to_string(&manifest).expect("there") + "\n[profile.release]\npanic = \"abort\"\n";
    fs::write(&manifest, aborting).expect("written");
    run(&mut author(&home, &folder, &["packplugin"])).failed_with(&["panic = \"abort\"", "would end the host"]);
}

fn library_of(home: &Home, folder: &Path) -> PathBuf {
    let shown = run(&mut author(home, folder, &["showplugin", "weather-data", "--json"])).succeeded().json();
    let digest = shown["history"][0]["digest"].as_str().expect("text").to_owned();
    home.path().join("packages").join(digest).join(shown["module"]["path"].as_str().expect("text"))
}

#[test]
fn a_name_that_is_no_crate_is_refused() {
    let home = Home::new();
    for name in ["", "1st", "Größe", "a/b", "a.b", "-a", "a "] {
        home.run(&["newplugin", name, "--api", &api()]).failed_with(&["can't name a crate"]);
    }
    home.run(&["newplugin", "X", "--api", "nowhere"])
        .failed_with(&["nowhere is not the source of billhook-plugin-api"]);
    assert!(!home.folder().join("x").exists());
}

#[test]
fn without_api_a_new_plugin_depends_on_the_released_crate_and_says_if_there_is_none() {
    let home = Home::new();
    // A registry that is not there: as if nothing was released.
    let mut command = home.command(&["newplugin", "X"]);
    let made = run(command.env("CARGO_NET_OFFLINE", "true").env("CARGO_HOME", home.folder().join("cargo"))).succeeded();
    assert!(made.stderr.contains("warning: cargo finds no released billhook-plugin-api"), "{}", made.stderr);
    assert!(made.stderr.contains("hint: name a folder with its source"), "{}", made.stderr);
    let mut command = home.command(&["newplugin", "Y", "--json"]);
    let made = run(command.env("CARGO_NET_OFFLINE", "true").env("CARGO_HOME", home.folder().join("cargo"))).succeeded();
    assert_eq!(made.json()["warnings"], json!(["cargo finds no released billhook-plugin-api for it"]));
    assert_eq!(made.stderr, "", "a JSON answer holds its warnings itself");
    let manifest = fs::read_to_string(home.folder().join("x/Cargo.toml")).expect("made");
    assert!(manifest.contains("billhook-plugin-api = { version = \"1."), "{manifest}");
}

#[test]
fn a_crate_that_can_not_be_packed_is_told_why() {
    let home = Home::new();
    home.run(&["packplugin"]).failed_with(&["package.json can't be read"]);
    home.file("package.json", "{}");
    home.run(&["packplugin"]).failed_with(&["package.json is refused", "$.name: this required field is missing"]);
    let manifest = json!({"name": "X", "author": "a", "version": "1", "module": "other", "formats": ["URL"]});
    home.file("package.json", &manifest.to_string());
    home.run(&["packplugin"]).failed_with(&["is no crate: it has no Cargo.toml", "newplugin"]);
    home.file("Cargo.toml", "[package]\nname = \"x\"\nedition = \"2024\"\n[workspace]\n");
    fs::create_dir(home.folder().join("src")).expect("made");
    home.file("src/lib.rs", "");
    home.run(&["packplugin"]).failed_with(&["builds no dynamic library", "crate-type = [\"cdylib\"]"]);
    home.file(
        "Cargo.toml",
        "[package]\nname = \"x\"\nedition = \"2024\"\n[workspace]\n[lib]\ncrate-type = [\"cdylib\"]\n",
    );
    home.run(&["packplugin"]).failed_with(&["$.module in package.json is \"other\", and the crate builds libx.so"]);
    home.file("package.json", &manifest.to_string().replace("other", "x"));
    home.run(&["packplugin"]).failed_with(&["the plugin can't be packed", "it exports no billhook plugin"]);
    assert!(!home.folder().join("x-1.zip").exists());
    home.file("src/lib.rs", "this is no Rust");
    home.run(&["packplugin"]).failed_with(&["cargo can't build"]);
}

#[test]
fn quickstart_runs_the_whole_life_of_an_asset() {
    let home = Home::new();
    let mut command = Command::new(BILLHOOK);
    command.arg("quickstart").current_dir(source()).env("BILLHOOK_HOME", home.path());
    let shown = run(command.env("CARGO_TARGET_DIR", authors_target())).succeeded().stdout;
    let mut rest = shown.as_str();
    for hook in [
        "on_pre_product_spec_validation",
        "on_post_product_spec_validation",
        "on_pre_product_spec_attachment",
        "on_post_product_spec_attachment",
        "on_pre_product_spec_upgrade",
        "on_post_product_spec_upgrade",
        "on_pre_product_offering_validation",
        "on_post_product_offering_validation",
        "on_product_acquisition",
        "get_usage_specs",
        "get_pending_accounting",
        "on_product_suspension",
    ] {
        let at = rest.find(hook).unwrap_or_else(|| panic!("{hook} is missing or out of order:\n{shown}"));
        assert!(rest[at + hook.len()..].trim_start().starts_with("ok"), "{shown}");
        rest = &rest[at..];
    }
    for part in
        ["\"auth_type\":\"key\"", "12 API call on 2026-03-02", "test-resource was removed again", "What to try next:"]
    {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    assert!(!home.path().exists(), "the operator's own home is left alone");
    let nowhere = home.run(&["quickstart"]);
    nowhere.failed_with(&["there is no example-plugin here or above", "--plugin DIR"]);
}

#[test]
fn a_plugin_of_another_compiler_loads_where_one_is_installed() {
    let nightly = run(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
    if nightly.code != Some(0) {
        // Nothing to compare with: a machine with one compiler has shown nothing wrong.
        return;
    }
    let home = Home::new();
    home.run(&["newplugin", "Nightly", "--api", &api()]).succeeded();
    let folder = home.folder().join("nightly");
    let built = run(Command::new("rustup")
        .args(["run", "nightly", "cargo", "build", "--quiet"])
        .current_dir(&folder)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env("CARGO_TARGET_DIR", authors_target().join("nightly")));
    built.succeeded();
    let library = fs::read(authors_target().join("nightly/debug/libnightly.so")).expect("built");
    home.load(&Package::new("Nightly").patched(|bytes| *bytes = library)).succeeded();
    let shown = home.run(&["showplugin", "nightly", "--json"]).succeeded().json();
    assert!(shown["module"]["compiler"].as_str().expect("text").contains("nightly"), "{shown}");
    let objects = folder.join("objects.json");
    let arguments = ["callplugin", "nightly", "on_product_acquisition", "--objects", objects.to_str().expect("UTF-8")];
    assert_eq!(home.run(&arguments).succeeded().json()["outcome"], "ok");
}
