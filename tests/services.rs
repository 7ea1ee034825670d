//! What a plugin is offered: state, settings, log.

use billhook::{ErrorKind, HookError, Host, data::Asset};
use serde_json::{Value, json};

use crate::support::{Home, Package, acquire, asset};

/// Tells the fixture `keeper` to do something and answers what it wrote onto the asset.
fn tell(host: &Host, what: &str, key: &str, value: Value) -> Result<Value, HookError> {
    let asset = Asset { meta_info: json!([what, key, value]).into(), ..asset("Keeper") };
    let changes = acquire(host, &asset)?;
    Ok(serde_json::from_str(changes.meta_info.expect("it always answers").as_str()).expect("JSON"))
}

fn keeper() -> Home {
    let home = Home::new();
    home.load(&Package::new("Keeper").of("keeper")).succeeded();
    home
}

#[test]
fn state_outlives_the_instance_and_upgrades_and_is_deleted_with_the_plugin() {
    let home = keeper();
    tell(&home.host(), "keep", "key", json!({"a": [1, "ä"]})).expect("kept");
    assert_eq!(tell(&home.host(), "get", "key", Value::Null).expect("read"), json!({"a": [1, "ä"]}));
    home.load(&Package::new("Keeper").of("keeper").version("2")).succeeded();
    home.run(&["downgradeplugin", "keeper"]).succeeded();
    assert_eq!(tell(&home.host(), "get", "key", Value::Null).expect("read"), json!({"a": [1, "ä"]}));

    tell(&home.host(), "delete", "key", Value::Null).expect("deleted");
    tell(&home.host(), "delete", "key", Value::Null).expect("deleting nothing is fine");
    assert_eq!(tell(&home.host(), "get", "key", Value::Null).expect("read"), Value::Null);

    tell(&home.host(), "keep", "key", json!(1)).expect("kept");
    home.run(&["removeplugin", "keeper", "--force"]).succeeded();
    home.load(&Package::new("Keeper").of("keeper")).succeeded();
    assert_eq!(tell(&home.host(), "get", "key", Value::Null).expect("read"), Value::Null);
}

#[test]
fn state_is_not_undone_by_a_refusal_and_the_refusal_says_when_to_try_again() {
    let home = keeper();
    let host = home.host();
    let error = tell(&host, "keep and refuse", "key", json!("kept")).expect_err("it refuses");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(7)));
    assert_eq!(tell(&host, "get", "key", Value::Null).expect("read"), json!("kept"));
}

#[test]
fn state_takes_small_values_and_says_so_of_large_ones() {
    let home = keeper();
    let host = home.host();
    for (key, value, expected) in [
        ("", json!(1), "1 to 512 bytes"),
        (&*"k".repeat(513), json!(1), "1 to 512 bytes"),
        ("key", json!("v".repeat(65_536)), "it may take 65536"),
    ] {
        let error = tell(&host, "keep", key, value).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::BadValue);
        assert!(error.message().contains(expected), "{error}");
    }
    tell(&host, "keep", &"k".repeat(512), json!("v".repeat(65_534))).expect("the most that goes");
}

#[test]
fn plugins_do_not_see_each_others_state() {
    let home = keeper();
    home.load(&Package::new("Other").of("keeper")).succeeded();
    let host = home.host();
    tell(&host, "keep", "key", json!("mine")).expect("kept");
    let asset = Asset { meta_info: json!(["get", "key", null]).into(), ..asset("Other") };
    assert_eq!(acquire(&host, &asset).expect("read").meta_info.expect("answered").as_str(), "null");
}

#[test]
fn state_is_kept_from_many_threads_at_once() {
    let home = keeper();
    let host = home.host();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..20 {
                    tell(host, "keep", &format!("{thread}/{round}"), json!(thread * 100 + round)).expect("kept");
                }
            });
        }
    });
    for thread in 0..8 {
        for round in 0..20 {
            let value = tell(&host, "get", &format!("{thread}/{round}"), Value::Null).expect("read");
            assert_eq!(value, json!(thread * 100 + round));
        }
    }
}

#[test]
fn settings_that_fit_make_a_new_instance_and_others_leave_the_old_one() {
    let home = Home::new();
    let host = home.host();
    let package = Package::new("X").of("refuse_settings").write(home.folder());
    let install = billhook::Install { settings: Some(r#"{"address": "one"}"#), ..billhook::Install::default() };
    assert_eq!(host.install(package, &install).expect("installed").needs_settings, None);
    let address = || crate::support::acquired(&host, "X").expect("it works");
    assert!(address().contains("one"));
    host.set_settings("x", r#"{"address": "two"}"#).expect("they fit");
    assert!(address().contains("two"), "a loaded plugin gets a new instance at once");
    host.set_settings("x", "{}").expect_err("they don't fit");
    assert!(address().contains("two"));
    for wrong in ["", "{", "{\"address\": \"a\"} x"] {
        let error = host.set_settings("x", wrong).expect_err("no JSON").to_string();
        assert!(error.contains("the settings are not JSON"), "{error}");
    }
}

#[test]
fn what_a_plugin_logs_carries_its_id_and_is_clean() {
    let home = keeper();
    let objects = json!({"asset": Asset { meta_info: json!(["get", "key", null]).into(), ..asset("Keeper") }, "order": crate::support::order()});
    let objects = home.file("objects.json", &objects.to_string());
    let run = home.run(&["-v", "callplugin", "keeper", "on_product_acquisition", "--objects", &objects]).succeeded();
    assert!(run.stderr.contains("get: null plugin=\"keeper\""), "{}", run.stderr);
    let quiet = home.run(&["callplugin", "keeper", "on_product_acquisition", "--objects", &objects]).succeeded();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_plugin_finds_the_files_that_were_packed_with_it() {
    let home = Home::new();
    let package = Package::new("X").of("package_folder").with("data/greeting.txt", b"hello");
    home.load(&package).succeeded();
    assert_eq!(crate::support::acquired(&home.host(), "X").expect("it works"), "\"hello\"");
}
