//! Versions: packages that are loaded again, files that are gone, settings that travel, and what can't be loaded any more.

use std::fs;

use billhook::{Downgrade, Host, HostError, Install, Isolation};
use serde_json::{Value, json};

use crate::support::{Home, Package, Server, asset, options, order};

fn install(host: &Host, package: &Package, home: &Home, how: &Install<'_>) -> Result<billhook::Installed, HostError> {
    host.install(package.write(home.folder()), how)
}

fn acquire(host: &Host, kind: &str) -> Result<billhook::data::AssetChanges, billhook::HookError> {
    let (order, mut asset) = (order(), asset(kind));
    // What the fixture that keeps things takes.
    asset.meta_info = json!(["keep", "key", "value"]).into();
    host.on_product_acquisition(&asset, &order.contracts[0], &order)
}

/// What may become of the files of a package.
const LOSSES: [fn(&std::path::Path); 4] = [
    |folder| fs::remove_dir_all(folder).expect("removed"),
    |folder| fs::remove_file(folder.join("package.json")).expect("removed"),
    |folder| {
        let library = fs::read_dir(folder)
            .expect("readable")
            .flatten()
            .find(|entry| entry.path().extension().is_some_and(|end| end == "so"));
        fs::write(library.expect("a library").path(), "damaged").expect("written");
    },
    |folder| fs::write(folder.join("more"), "added").expect("written"),
];

#[test]
fn a_package_whose_files_are_gone_is_repaired_by_loading_it_again_and_keeps_everything() {
    for (number, lose) in LOSSES.into_iter().enumerate() {
        let home = Home::new();
        let package = Package::new("Keeper").of("keeper");
        let host = home.host();
        install(&host, &package, &home, &Install::default()).expect("installed");
        let digest = host.show("keeper").expect("there").history[0].digest.clone();
        drop(host);
        lose(&home.path().join("packages").join(&digest));
        let host = home.host();
        let installed = install(&host, &package, &home, &Install::default()).expect("repaired");
        assert!(installed.unchanged && installed.repaired, "loss {number}: {installed:?}");
        acquire(&host, "Keeper").unwrap_or_else(|error| panic!("loss {number}: {error}"));
        let again = install(&host, &package, &home, &Install::default()).expect("it is there");
        assert!(again.unchanged && !again.repaired, "loss {number}");
    }
}

#[test]
fn files_that_are_lost_under_a_server_are_put_back_without_a_restart() {
    let home = Home::new();
    let package = Package::new("Healthy").write(home.folder());
    let bytes = fs::read(&package).expect("readable");
    home.run(&["loadplugin", package.to_str().expect("UTF-8")]).succeeded();
    let digest = home.host().show("healthy").expect("there").history[0].digest.clone();
    fs::remove_dir_all(home.path().join("packages").join(&digest)).expect("removed");
    let server = Server::start(&home);
    let objects = json!({"asset": asset("Healthy"), "order": order()});
    let lost = server.post("/api/v1/hooks/on_product_acquisition", &objects);
    assert!(lost.status >= 500 && lost.body.contains("load its package again"), "{lost:?}");
    let put_back = server.upload(&bytes).is(200).json();
    assert_eq!((&put_back["unchanged"], &put_back["repaired"]), (&json!(true), &json!(true)), "{put_back}");
    server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200);
}

#[test]
fn an_older_version_whose_files_are_gone_is_repaired_and_the_newer_one_stays() {
    let home = Home::new();
    let (host, package) = (home.host(), Package::new("Healthy"));
    for version in ["1.0", "2.0"] {
        install(&host, &package.clone().version(version), &home, &Install::default()).expect("installed");
    }
    let digest = host.show("healthy").expect("there").history[0].digest.clone();
    fs::remove_dir_all(home.path().join("packages").join(&digest)).expect("removed");
    let repaired = install(&host, &package, &home, &Install::default()).expect("repaired");
    assert_eq!((repaired.repaired, repaired.plugin.version.as_str()), (true, "2.0"));
    assert_eq!(host.downgrade("healthy", &Downgrade::default()).expect("it is there").version, "1.0");
    // Whole, it is an older one, as before.
    install(&host, &package.clone().version("2.0"), &home, &Install::default()).expect("installed");
    let error = install(&host, &package, &home, &Install::default()).expect_err("older");
    assert_eq!(error.kind(), "newer_installed");
}

#[test]
fn an_identical_package_is_no_failure_and_a_different_one_has_a_kind_of_its_own() {
    let home = Home::new();
    let package = Package::new("Healthy");
    let (first, other) = (package.write(home.folder()), package.clone().with("more", b"other"));
    let first = first.to_str().expect("UTF-8").to_owned();
    home.run(&["loadplugin", &first]).succeeded();
    let again = home.run(&["--json", "loadplugin", &first]).succeeded().json();
    assert_eq!(again["unchanged"], true, "{again}");
    let said = home.run(&["loadplugin", &first]).succeeded().stdout;
    assert!(said.contains("nothing changed"), "{said}");
    let folder = tempfile::tempdir().expect("a folder");
    let other = other.write(folder.path());
    let refused = home.run(&["--json", "loadplugin", other.to_str().expect("UTF-8")]);
    assert_eq!(refused.code, Some(1));
    let error: Value = serde_json::from_str(refused.stderr.lines().last().expect("a line")).expect("JSON");
    assert_eq!(error["kind"], "same_version", "{error}");

    let server = Server::start(&home);
    let before = home.host().generation();
    server.upload(&fs::read(&first).expect("readable")).is(200);
    let refused = server.upload(&fs::read(&other).expect("readable")).is(409).json();
    assert_eq!(refused["kind"], "same_version", "{refused}");
    assert_eq!(home.host().generation(), before, "nothing changed");
}

#[test]
fn settings_travel_with_an_upgrade_and_come_back_with_a_downgrade() {
    let home = Home::new();
    let (host, package) = (home.host(), Package::new("Picky").of("refuse_settings"));
    // This plugin wants to be told an address.
    let install = |version: &str, settings| {
        let package = package.clone().version(version).write(home.folder());
        host.install(package, &Install { settings, ..Install::default() })
    };
    install("1.0", Some(r#"{"address": "one"}"#)).expect("installed");
    install("2.0", Some(r#"{"address": "two"}"#)).expect("upgraded");
    install("3.0", None).expect("upgraded, with those that are there");
    let settings =
        || host.show("picky").expect("there").settings.pointer::<String>("/address").expect("a text").expect("set");
    assert_eq!(settings(), "two");
    host.downgrade("picky", &Downgrade { version: Some("1.0"), ..Downgrade::default() }).expect("downgraded");
    assert_eq!(settings(), "one");
    install("2.0", None).expect("upgraded");
    assert_eq!(settings(), "one");
    let given = Downgrade { settings: Some(r#"{"address": "given"}"#), ..Downgrade::default() };
    host.downgrade("picky", &given).expect("downgraded");
    assert_eq!(settings(), "given");
}

#[test]
fn settings_are_sent_with_a_package_over_http() {
    let home = Home::new();
    let server = Server::start(&home);
    let package = fs::read(Package::new("Picky").of("refuse_settings").write(home.folder())).expect("readable");
    let send = |settings: &str, more: &str| {
        let mut body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"settings\"\r\n\r\n{settings}\r\n{more}--b\r\n\
            Content-Disposition: form-data; name=\"package\"; filename=\"p.zip\"\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(&package);
        body.extend_from_slice(b"\r\n--b--\r\n");
        let authorization = format!("Bearer {}", server.token);
        let headers = [("authorization", authorization.as_str()), ("content-type", "multipart/form-data; boundary=b")];
        server.request("POST", "/api/v1/plugins", &headers, &body)
    };
    send("no JSON", "").is(400);
    let unknown = "--b\r\nContent-Disposition: form-data; name=\"nonsense\"\r\n\r\nx\r\n";
    assert!(send("{}", unknown).is(400).body.contains("nonsense"));
    send(r#"{"address": "http"}"#, "").is(201);
    assert_eq!(server.get("/api/v1/plugins/picky/settings").is(200).json()["address"], "http");
}

#[test]
fn a_version_that_can_not_be_loaded_any_more_is_refused_and_the_older_one_goes_on() {
    let home = Home::new();
    let server = Server::start(&home);
    let objects = json!({"asset": asset("Spacious"), "order": order()});
    let package = |number: usize| {
        fs::read(Package::new("Spacious").of("static_tls").version(&format!("{number}.0")).write(home.folder()))
            .expect("readable")
    };
    server.upload(&package(1)).is(201);
    let mut last = 1;
    let refused = (2..60).find_map(|number| {
        server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200);
        let answered = server.upload(&package(number));
        if answered.status == 201 {
            last = number;
            return None;
        }
        Some(answered)
    });
    let refused = refused.expect("the space ends").is(409);
    assert_eq!(refused.json()["kind"], "not_loadable", "{refused:?}");
    server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200);
    assert_eq!(server.get("/api/v1/plugins/spacious").json()["version"], format!("{last}.0"));
    // Installed by another process, it is not loaded either, and that is told.
    let next = home.file("next.zip", "");
    fs::write(&next, package(99)).expect("written");
    home.run(&["loadplugin", &next]).succeeded();
    crate::support::wait_for("the server to notice", || {
        server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200);
        server.get("/metrics").body.contains("billhook_stale_plugins 1")
    });
    let form = format!("token={}", server.token);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let cookie = server.request("POST", "/login", &headers, form.as_bytes()).is(303).header("set-cookie").to_owned();
    let cookie = [("cookie", cookie.split(';').next().expect("a cookie"))];
    for (path, said) in [("/", "of <a href=\"/plugins/spacious\">"), ("/plugins/spacious", "can't be loaded here: ")] {
        let page = server.request("GET", path, &cookie, b"").is(200).body;
        assert!(page.contains("goes on with an older version") && page.contains(said), "{path}: {page}");
    }
    server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200);
}

#[test]
fn a_plugin_that_was_loaded_a_moment_ago_is_asked_for() {
    let home = Home::new();
    let host = home.host();
    let other = Host::open_with(home.path(), options()).expect("the home opens");
    acquire(&other, "Healthy").expect_err("there is none");
    for number in 0..5 {
        let name = format!("Healthy {number}");
        install(&host, &Package::new(&name), &home, &Install::default()).expect("installed");
        acquire(&other, &name).unwrap_or_else(|error| panic!("{name}: {error}"));
        host.remove(&name.to_lowercase().replace(' ', "-"), true).expect("removed");
        crate::support::wait_for("the other to notice", || {
            acquire(&other, &name).is_err_and(|error| error.status() == 422)
        });
    }
}

#[test]
fn a_call_goes_to_the_version_in_use_however_another_process_changed_it_while_no_worker_ran() {
    let home = Home::new();
    let how = Install { isolation: Some(Isolation::Process), ..Install::default() };
    // Each host has the first version in its table, and no worker yet, when another process changes the plugin.
    let first = Package::new("Keeper").of("keeper");
    install(&home.host(), &first, &home, &how).expect("installed");
    let second = Package::new("Keeper").of("keeper").version("2.0.0");
    type Change = fn(&Host, &Home, &Package);
    let changes: [(&str, Change, Option<&str>); 4] = [
        (
            "upgraded",
            |other, home, second| drop(install(other, second, home, &Install::default()).expect("done")),
            None,
        ),
        ("downgraded", |other, _, _| drop(other.downgrade("keeper", &Downgrade::default()).expect("done")), None),
        (
            "upgraded again",
            |other, home, second| drop(install(other, second, home, &Install::default()).expect("done")),
            None,
        ),
        (
            "removed",
            |other, _, _| drop(other.remove("keeper", true).expect("done")),
            Some("not supported asset type: Keeper"),
        ),
    ];
    for (change, make, expected) in changes {
        let host = home.host();
        make(&home.host(), &home, &second);
        match (acquire(&host, "Keeper"), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => assert!(error.message().contains(expected), "{change}: {error}"),
            (answer, expected) => panic!("{change}: {answer:?} instead of {expected:?}"),
        }
    }
}
