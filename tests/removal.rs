//! Removing plugins: what they are needed for, and what they keep, is told before it is deleted.

use billhook::{Downgrade, Host, HostError, Install};
use serde_json::{Value, json};

use crate::support::{Home, Package, Server, asset, order};

/// Lets the fixture do something with its state.
fn tell(host: &Host, what: [&str; 3]) -> Value {
    let (order, mut asset) = (order(), asset("Keeper"));
    asset.meta_info = json!(what).into();
    let changes = host.on_product_acquisition(&asset, &order.contracts[0], &order).expect("it goes through");
    serde_json::from_str(changes.meta_info.expect("an answer").as_str()).expect("JSON")
}

/// A home with a plugin that keeps two values of eleven bytes, with their keys.
fn keeping() -> Home {
    let home = Home::new();
    home.load(&Package::new("Keeper").of("keeper")).succeeded();
    let host = home.host();
    tell(&host, ["keep", "a", "one"]);
    // A value without a byte is a value.
    tell(&host, ["keep", "bcd", ""]);
    home
}

fn error_of(stderr: &str) -> Value {
    serde_json::from_str(stderr.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn what_a_plugin_keeps_is_deleted_only_by_force_and_told_before() {
    let home = keeping();
    let host = home.host();
    let error = host.remove("keeper", false).expect_err("it keeps something");
    let HostError::InUse { uses, .. } = &error else { panic!("{error:?}") };
    assert_eq!((uses.state.values, uses.state.bytes), (2, 11));
    let says = "keeper keeps 2 values (11 bytes), which would be deleted with it";
    assert_eq!(error.to_string(), says);
    let forced = "--force removes the plugin nevertheless: deleting 2 values (11 bytes) for good";
    home.run(&["removeplugin", "keeper"]).failed_with(&[says, forced]);
    let refused = error_of(&home.run(&["--json", "removeplugin", "keeper"]).stderr);
    assert_eq!((&refused["kind"], &refused["uses"]["state"]["values"]), (&json!("keeps_state"), &json!(2)));
    assert!(home.run(&["showplugin", "keeper"]).succeeded().stdout.contains("keeps         2 values (11 bytes)"));

    let server = Server::start(&home);
    let refused = server.ask("DELETE", "/api/v1/plugins/keeper", None).is(409).json();
    assert_eq!(refused["kind"], "keeps_state", "{refused}");
    assert_eq!(refused["uses"]["state"], json!({"values": 2, "bytes": 11}), "{refused}");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{refused}");
    assert_eq!(server.get("/api/v1/plugins/keeper").json()["state"], json!({"values": 2, "bytes": 11}));
    assert_eq!(tell(&host, ["get", "a", ""]), "one", "it is still there");

    server.ask("DELETE", "/api/v1/plugins/keeper?force=true", None).is(200);
    home.load(&Package::new("Keeper").of("keeper")).succeeded();
    assert_eq!(home.host().show("keeper").expect("there").state, billhook::KeptState::default());
    home.run(&["removeplugin", "keeper"]).succeeded();
}

#[test]
fn whoever_forces_a_removal_for_one_reason_was_told_of_the_others() {
    let home = keeping();
    let server = Server::start(&home);
    for asset in ["one", "two"] {
        let body = json!({"resource_type": "Keeper"});
        server.ask("PUT", &format!("/api/v1/assets/{asset}"), Some(&body)).is(204);
    }
    let says = "keeper is used by 2 assets; it keeps 2 values (11 bytes), which would be deleted with it";
    let forced = "nothing answers for the assets any more, deleting 2 values (11 bytes) for good";
    home.run(&["removeplugin", "keeper"]).failed_with(&[says, "the backend releases its assets", forced]);
    let refused = server.ask("DELETE", "/api/v1/plugins/keeper", None).is(409).json();
    assert_eq!((&refused["kind"], &refused["uses"]["assets"]), (&json!("in_use"), &json!(2)), "{refused}");
    assert_eq!(refused["uses"]["state"]["values"], 2, "{refused}");
    for asset in ["one", "two"] {
        server.ask("DELETE", &format!("/api/v1/assets/{asset}"), None).is(204);
    }
    let refused = server.ask("DELETE", "/api/v1/plugins/keeper", None).is(409).json();
    assert_eq!(refused["kind"], "keeps_state", "{refused}");
}

#[test]
fn nothing_but_a_forced_removal_deletes_what_a_plugin_keeps() {
    let home = keeping();
    let host = home.host();
    let package = Package::new("Keeper").of("keeper");
    let install = |package: &Package| {
        let how = Install { force: true, ..Install::default() };
        host.install(package.write(home.folder()), &how).expect("installed");
    };
    install(&package.clone().version("2.0"));
    install(&package.clone().version("3.0").field("author", json!("somebody else")));
    host.downgrade("keeper", &Downgrade { version: Some("2.0"), ..Downgrade::default() }).expect("downgraded");
    host.downgrade("keeper", &Downgrade::default()).expect("downgraded");
    host.set_enabled("keeper", false).expect("disabled");
    host.set_enabled("keeper", true).expect("enabled");
    host.set_settings("keeper", r#"{"other": 1}"#).expect("set");
    // Another plugin's removal deletes nothing of it.
    install(&Package::new("Keeper Two").of("keeper"));
    host.remove("keeper-two", true).expect("removed");
    assert_eq!(tell(&host, ["get", "a", ""]), "one");
    host.remove("keeper", false).expect_err("it keeps something");
    // What it deletes itself stands in nobody's way.
    tell(&host, ["delete", "a", ""]);
    tell(&host, ["delete", "bcd", ""]);
    host.remove("keeper", false).expect("removed");
}
