//! Installing, upgrading, downgrading and removing by the rules. Several tests are named after what the Business API
//! Ecosystem's own host got wrong.

use std::fs;

use billhook::{ErrorKind, HostError, Install, PluginStatus};
use serde_json::json;

use crate::support::{Home, Package, acquire, acquired, asset, order};

fn versions(home: &Home, id: &str) -> Vec<String> {
    let details = home.host().show(id).expect("installed");
    details.history.into_iter().map(|entry| entry.version).collect()
}

fn packages(home: &Home) -> usize {
    fs::read_dir(home.path().join("packages")).expect("readable").count()
}

#[test]
fn a_plugin_goes_through_its_whole_life() {
    let home = Home::new();
    let plugin = Package::new("NGSI-LD Data Service");
    for version in ["0.1", "0.2", "1.1.1", "2.0.0", "3.0.0"] {
        home.load(&plugin.clone().version(version)).succeeded();
    }
    assert_eq!(versions(&home, "ngsi-ld-data-service"), ["0.1", "0.2", "1.1.1", "2.0.0", "3.0.0"]);
    assert_eq!(packages(&home), 5);

    home.run(&["downgradeplugin", "ngsi-ld-data-service"]).succeeded();
    assert_eq!(versions(&home, "ngsi-ld-data-service"), ["0.1", "0.2", "1.1.1", "2.0.0"]);
    home.run(&["downgradeplugin", "ngsi-ld-data-service", "0.2"]).succeeded();
    assert_eq!(versions(&home, "ngsi-ld-data-service"), ["0.1", "0.2"]);
    assert_eq!(packages(&home), 2, "the newer versions are gone from the disk");
    assert_eq!(acquired(&home.host(), "NGSI-LD Data Service").expect("it works"), "\"healthy\"");

    home.load(&plugin.version("1.0")).succeeded();
    home.run(&["removeplugin", "ngsi-ld-data-service"]).succeeded();
    assert_eq!(packages(&home), 0);
}

#[test]
fn removing_deletes_every_version_and_the_id_is_free_again() {
    let home = Home::new();
    for version in ["1.0", "1.1"] {
        home.load(&Package::new("X").version(version)).succeeded();
    }
    home.run(&["removeplugin", "x"]).succeeded();
    assert_eq!(home.content(), ["in-use", "lock", "packages", "registry.db", "staging"]);
    home.run(&["removeplugin", "x"]).failed_with(&["there is no plugin \"x\"", "listplugins"]);
    home.load(&Package::new("X")).succeeded();
}

#[test]
fn a_failed_upgrade_leaves_the_older_version_working() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    let before = home.content();
    for fixture in ["crash_on_load", "panic_in_construction", "no_layout", "refuse_settings"] {
        home.load(&Package::new("X").of(fixture).version("2.0")).failed_with(&[]);
        assert_eq!(home.content(), before, "{fixture} left something behind");
        assert_eq!(acquired(&home.host(), "X").expect("it works"), "\"healthy\"");
    }
}

#[test]
fn a_later_failure_undoes_no_earlier_success() {
    let home = Home::new();
    let host = home.host();
    let install = |package: Package| host.install(package.write(home.folder()), &Install::default());
    install(Package::new("First")).expect("installed");
    install(Package::new("Second").of("crash_on_load")).expect_err("it crashes");
    install(Package::new("First").of("panic_in_construction").version("2")).expect_err("it panics");
    assert_eq!(acquired(&host, "First").expect("it works"), "\"healthy\"");
    assert_eq!(host.list().expect("readable").len(), 1);
}

#[test]
fn a_version_of_any_number_of_parts_can_be_upgraded() {
    let home = Home::new();
    for version in ["1.2.3.4", "1.2.3.4.5", "1.2.4", "1.10"] {
        home.load(&Package::new("X").version(version)).succeeded();
    }
    for (version, expected) in [
        ("1.10", "version 1.10 of x is already installed"),
        ("1.10.0", "version 1.10 of x is already installed"),
        ("1.9", "version 1.10 of x is installed, which is newer than 1.9"),
    ] {
        home.load(&Package::new("X").version(version).with("other", b"content")).failed_with(&[expected]);
    }
    home.run(&["downgradeplugin", "x", "1.2.3.4.0"]).succeeded();
    assert_eq!(versions(&home, "x"), ["1.2.3.4"], "equal versions may be spelled differently");
}

#[test]
fn a_downgrade_needs_an_older_version_of_the_history() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    home.run(&["downgradeplugin", "x"]).failed_with(&["x has no older version than 1.0", "removeplugin x"]);
    home.run(&["downgradeplugin", "x", "0.5"]).failed_with(&["version 0.5 of x is not in its history"]);
    home.load(&Package::new("X").version("2.0")).succeeded();
    home.run(&["downgradeplugin", "x", "2.0"]).failed_with(&["not in its history (older ones are 1.0)"]);
    home.run(&["downgradeplugin", "x", "garbage"]).failed_with(&["not in its history"]);
    home.run(&["downgradeplugin", "y"]).failed_with(&["there is no plugin \"y\""]);
}

#[test]
fn plugins_whose_ids_and_versions_look_alike_share_nothing() {
    let home = Home::new();
    home.load(&Package::new("foo-1").version("0")).succeeded();
    home.load(&Package::new("foo").version("1.0").of("keeper")).succeeded();
    assert_eq!(packages(&home), 2);
    home.run(&["removeplugin", "foo"]).succeeded();
    assert_eq!(acquired(&home.host(), "foo-1").expect("it works"), "\"healthy\"");
}

#[test]
fn another_author_or_spelling_upgrades_only_by_force() {
    let home = Home::new();
    home.load(&Package::new("My Plug")).succeeded();
    let other_author = Package::new("My Plug").version("2").field("author", json!("eve"));
    let other_spelling = Package::new("my-plug").version("3");
    home.load(&other_author).failed_with(&["my-plug was written by \"acme\", and this package by \"eve\"", "--force"]);
    home.load(&other_spelling).failed_with(&["is installed as \"My Plug\"", "is named \"my-plug\"", "--force"]);
    assert_eq!(versions(&home, "my-plug"), ["1.0"]);

    let package = other_spelling.write(home.folder());
    home.run(&["loadplugin", "--force", package.to_str().expect("UTF-8")]).succeeded();
    let host = home.host();
    assert!(acquired(&host, "my-plug").is_ok());
    assert_eq!(acquired(&host, "My Plug").expect_err("assets find it by its new name").kind(), ErrorKind::Invalid);
    host.downgrade("my-plug", &Default::default()).expect("downgraded");
    assert!(acquired(&host, "My Plug").is_ok(), "the older version has its own spelling again");
}

#[test]
fn a_constructor_that_returns_an_error_installs_the_plugin_as_needs_settings() {
    let home = Home::new();
    let plugin = Package::new("X").of("refuse_settings");
    let run = home.load(&plugin).succeeded();
    assert!(run.stderr.contains("it needs settings") && run.stderr.contains("set \"address\""), "{}", run.stderr);
    assert!(run.stderr.contains("hint: billhook setplugin x --settings FILE.json"), "{}", run.stderr);

    let host = home.host();
    assert_eq!(host.list().expect("readable")[0].status, PluginStatus::NeedsSettings);
    let error = acquire(&host, &asset("X")).expect_err("it takes no calls");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("set \"address\" to where the service is"), "{error}");

    let wrong = host.set_settings("x", r#"{"address": 5}"#).expect_err("it refuses these too");
    assert!(matches!(wrong, HostError::SettingsRefused { .. }), "{wrong}");
    host.set_settings("x", r#"{"address": "here"}"#).expect("these do");
    assert_eq!(host.list().expect("readable")[0].status, PluginStatus::Enabled);
    let kept = acquired(&host, "X").expect("it works");
    assert_eq!(
        kept, r#"["here","in vain"]"#,
        "what it kept when it was tried was thrown away; this is of its real start"
    );
}

#[test]
fn what_a_plugin_keeps_when_it_is_only_tried_is_thrown_away() {
    let home = Home::new();
    home.load(&Package::new("X").of("refuse_settings")).succeeded();
    let file = home.file("s.json", r#"{"address": "here"}"#);
    home.run(&["setplugin", "x", "--settings", &file]).succeeded();
    home.load(&Package::new("X").of("keeper").version("2")).succeeded();
    let asset = billhook::data::Asset { meta_info: json!(["get", "constructed", null]).into(), ..asset("X") };
    assert_eq!(acquire(&home.host(), &asset).expect("it works").meta_info.expect("answered").as_str(), "null");
}

#[test]
fn a_disabled_plugin_answers_unavailable_and_is_never_skipped() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    home.run(&["disableplugin", "x"]).succeeded();
    let host = home.host();
    let error = acquire(&host, &asset("X")).expect_err("it is off");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "the plugin is disabled"));
    let order = order();
    let not_implemented = host.on_product_suspension(&asset("X"), &order.contracts[0], &order);
    assert_eq!(not_implemented.expect_err("also for hooks that it lacks").kind(), ErrorKind::Unavailable);
    home.load(&Package::new("X").version("2")).succeeded();
    assert_eq!(
        home.host().list().expect("readable")[0].status,
        PluginStatus::Disabled,
        "an upgrade doesn't switch it on"
    );
    home.run(&["enableplugin", "x"]).succeeded();
    assert!(acquired(&home.host(), "X").is_ok());
}

#[test]
fn one_package_can_serve_several_machines() {
    let home = Home::new();
    home.load(&Package::new("W")).succeeded();
    let target = home.host().show("w").expect("installed").module.target;
    let here = format!("{target}/{}fixture{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let package = Package::new("X").library_at(&here).with("other-machine-os/libfixture.so", b"for another machine");
    home.load(&package).succeeded();
    assert_eq!(acquired(&home.host(), "X").expect("it works"), "\"healthy\"");

    home.load(&Package::new("Y").library_at("other-machine-os/libfixture.so"))
        .failed_with(&["it is there for other-machine-os, and this host is"]);
    home.load(&Package::new("Z").library_at("lib/exact.bin").field("module", json!("lib/exact.bin"))).succeeded();
}

#[test]
fn an_unknown_type_is_refused_in_the_words_that_backends_know() {
    let home = Home::new();
    let error = acquire(&home.host(), &asset("Nobody's")).expect_err("there is no such plugin");
    assert_eq!(error.message(), "The given product specification contains a not supported asset type: Nobody's");
    assert_eq!((error.kind(), error.status(), error.plugin()), (ErrorKind::Invalid, 422, None));
}

#[test]
fn a_full_disk_refuses_the_install_and_loses_nothing() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    let before = home.content();
    let package = Package::new("X").version("2").write(home.folder());
    // No file may grow beyond 100 blocks of 512 bytes: writes fail as they do on a full disk.
    let script = format!("trap '' XFSZ; ulimit -f 100; exec {} loadplugin {:?}", crate::support::BILLHOOK, package);
    let mut shell = std::process::Command::new("bash");
    let run = crate::support::run(shell.arg("-c").arg(script).env("BILLHOOK_HOME", home.path()));
    run.failed_with(&["can't be written", "File too large"]);
    assert_eq!(home.content(), before);
    assert_eq!(acquired(&home.host(), "X").expect("it works"), "\"healthy\"");
}

#[test]
fn a_library_that_was_changed_on_disk_is_not_loaded() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    let library = home.content().into_iter().find(|name| name.ends_with("libfixture.so")).expect("installed");
    let path = home.path().join(library);
    let mut bytes = fs::read(&path).expect("readable");
    bytes.extend(b"!");
    fs::write(&path, bytes).expect("written");
    let error = acquire(&home.host(), &asset("X")).expect_err("it was changed");
    assert!(error.message().contains("was changed on disk"), "{error}");
}

#[test]
fn a_version_that_never_worked_can_be_upgraded_to_another_that_needs_settings() {
    let home = Home::new();
    home.load(&Package::new("X").of("refuse_settings")).succeeded();
    let run = home.load(&Package::new("X").of("refuse_settings").version("2")).succeeded();
    assert!(run.stderr.contains("it needs settings"), "{}", run.stderr);
    assert_eq!(versions(&home, "x"), ["1.0", "2"]);
}

#[test]
fn settings_are_whatever_json_allows_and_nothing_else() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    let host = home.host();
    let deep = "[".repeat(200) + &"]".repeat(200);
    for right in ["{\"limit\": 1e999}", &deep, "{\"a\": 1, \"a\": 1.0}", "\"\\ud800\"", "null"] {
        host.set_settings("x", right).expect(right);
        assert_eq!(host.show("x").expect("readable").settings.as_str(), right);
    }
    for wrong in ["{\"limit\": .5}", "", "NaN", "{} {}", &format!("\"{}\"", "x".repeat(2_000_000))] {
        host.set_settings("x", wrong).expect_err("refused");
        assert_eq!(host.show("x").expect("readable").settings.as_str(), "null", "as before");
    }
    let file = home.file("broken.json", "{");
    home.run(&["setplugin", "x", "--settings", &file]).failed_with(&["broken.json is refused", "not JSON"]);
}

#[test]
fn a_folder_that_holds_something_else_is_no_home_and_nothing_of_it_is_touched() {
    let home = Home::new();
    let project = home.folder().join("project");
    for folder in ["packages/my-lib", "staging"] {
        fs::create_dir_all(project.join(folder)).expect("made");
    }
    for file in ["packages/my-lib/index.js", "staging/notes.txt", "package.json"] {
        fs::write(project.join(file), "mine").expect("written");
    }
    let name = project.to_str().expect("UTF-8");
    for arguments in [&["listplugins"][..], &["loadplugin", "x.zip"], &["removeplugin", "x"]] {
        let run = home.run(&[&["--home", name], arguments].concat());
        run.failed_with(&["it is no home: its folder \"packages\" holds \"my-lib\"", "hint: --home DIR"]);
    }
    assert!(project.join("packages/my-lib/index.js").exists() && project.join("staging/notes.txt").exists());
    assert!(!project.join("registry.db").exists());

    // Files beside the host's own folders are nobody's trouble.
    let package = Package::new("X").write(home.folder());
    let name = home.folder().to_str().expect("UTF-8");
    home.run(&["--home", name, "loadplugin", package.to_str().expect("UTF-8")]).succeeded();
    home.run(&["--home", name, "removeplugin", "x"]).succeeded();
    assert!(package.exists() && project.join("package.json").exists());
}

#[test]
fn a_lost_registry_takes_no_package_with_it() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    for file in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        let _ = fs::remove_file(home.path().join(file));
    }
    let before = packages(&home);
    assert_eq!(home.run(&["listplugins"]).succeeded().stdout, "");
    assert_eq!(packages(&home), before, "they may be all that is left");
    fs::create_dir(home.path().join("packages/not-a-digest")).expect("made");
    fs::create_dir(home.path().join("staging/somebodys")).expect("made");
    home.run(&["listplugins"]).succeeded();
    assert!(home.path().join("packages/not-a-digest").exists() && home.path().join("staging/somebodys").exists());
}

#[test]
fn only_installing_makes_a_home() {
    let home = Home::new();
    let run = home.run(&["listplugins"]).succeeded();
    assert!(run.stderr.contains("there is no home at"), "{}", run.stderr);
    home.run(&["showplugin", "x"]).failed_with(&["there is no home at", "loadplugin makes one"]);
    assert!(!home.path().exists());
}

#[cfg(unix)]
#[test]
fn a_home_is_its_users_own() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    fs::create_dir(home.path()).expect("made");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("set");
    home.load(&Package::new("X")).succeeded();
    for file in ["registry.db", "lock"] {
        let mode = fs::metadata(home.path().join(file)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "settings and state may be secrets: {file}");
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("set");
    home.run(&["listplugins"]).failed_with(&["others than its user can write to it", "chmod go-w"]);
}

#[test]
fn a_downgrade_to_a_version_whose_files_were_changed_is_refused() {
    let home = Home::new();
    home.load(&Package::new("X").version("1")).succeeded();
    let library = home.content().into_iter().find(|name| name.ends_with("libfixture.so")).expect("installed");
    home.load(&Package::new("X").version("2")).succeeded();
    fs::write(home.path().join(library), "changed").expect("written");
    home.run(&["downgradeplugin", "x"]).failed_with(&["the library of version 1 of x was changed on disk"]);
    assert_eq!(acquired(&home.host(), "X").expect("the newer one goes on"), "\"healthy\"");
}
