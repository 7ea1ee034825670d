//! Plugins that misbehave: each is refused or reported in one clear sentence, and the host goes on.

use billhook::{ErrorKind, Hook, HookObjects, Host, Install};
use serde_json::json;

use crate::support::{Home, Package, acquire, acquired, asset, order, replace};

/// Loads a package that is refused, and then a healthy one, which works.
#[track_caller]
fn refused(package: Package, expected: &[&str]) {
    let home = Home::new();
    let run = home.load(&package).failed_with(expected);
    assert!(run.stderr.lines().count() <= 3, "one clear sentence:\n{}", run.stderr);
    assert_eq!(home.content(), ["in-use", "lock", "packages", "registry.db", "staging"], "nothing is left of it");
    home.load(&Package::new("Healthy")).succeeded();
    assert_eq!(acquired(&home.host(), "Healthy").expect("it works"), "\"healthy\"");
}

fn zoo(fixture: &str) -> Package {
    Package::new("Zoo").of(fixture)
}

/// Lets the section header of an ELF file's dynamic table lead behind its first entry.
fn move_dynamic_section(library: &mut [u8]) {
    const DYNAMIC: [u8; 4] = 6_u32.to_le_bytes();
    let number = |at: usize, length: usize| {
        library[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (start, size, count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    let headers = (0..count).map(|index| start + index * size);
    let header = headers.into_iter().find(|at| library[at + 4..at + 8] == DYNAMIC).expect("a dynamic table");
    library[header + 0x18] ^= 16;
}

#[test]
fn what_is_wrong_with_the_file_is_refused_without_running_it() {
    refused(
        zoo("healthy").patched(|library| replace(library, b"\"api\":\"1.", b"\"api\":\"2.")),
        &["it was built with API 2.", "and this host has API 1.", "rebuild it with billhook-plugin-api 1"],
    );
    refused(
        zoo("healthy").patched(|library| replace(library, b"\"unwind\"", b"\"abort\" ")),
        &["panic = \"abort\"", "would end the host"],
    );
    refused(zoo("healthy").patched(|library| library[18] = 0xb7), &["it was built for Aarch64", "this machine is"]);
    refused(zoo("healthy").patched(|library| *library = b"I am a text".to_vec()), &["it is not a library"]);
    refused(zoo("healthy").patched(|library| library.truncate(4096)), &["libfixture.so"]);
    // The name of a needed library becomes a path of the same length.
    refused(
        zoo("healthy").patched(|library| replace(library, b"libgcc_s.so.1", b"./gcc_s.so.1/")),
        &["it needs the library \"./gcc_s.so.1/\" by its path"],
    );
    // The checks read another table of needed libraries than the loader.
    refused(
        zoo("healthy").patched(|library| move_dynamic_section(library)),
        &["section headers and its program headers disagree"],
    );
    refused(zoo("no_plugin"), &["it exports no billhook plugin", "#[billhook_plugin_api::export]"]);
    refused(zoo("no_entry"), &["it lacks the entry symbol billhook_plugin_1"]);
    refused(zoo("healthy").field("module", json!("plugin.TestPlugin")), &["names the Python class", "plugin guide"]);
    refused(
        zoo("healthy").field("pull_accounting", json!(true)),
        &["$.pull_accounting", "doesn't implement get_usage_specs"],
    );
    refused(zoo("undescribed_usage"), &["$.pull_accounting", "the module implements get_usage_specs"]);
}

#[test]
fn what_breaks_when_it_is_tried_is_refused_and_never_loaded() {
    refused(zoo("no_layout"), &["failed when it was loaded", "without a layout"]);
    refused(zoo("missing_symbol"), &["failed when it was loaded", "a_function_that_no_library_has"]);
    refused(zoo("crash_on_load"), &["crashed when it was loaded", "SIGSEGV"]);
    refused(zoo("exit_in_construction"), &["crashed when it was constructed", "exit code 0"]);
    refused(
        zoo("panic_in_construction"),
        &[
            "failed when it was constructed",
            "panicked at",
            "panic_in_construction.rs:",
            "no, I will not be constructed",
        ],
    );
    refused(zoo("panic_in_drop"), &["failed when it was dropped", "panic_in_drop.rs:", "dropped, and not amused"]);
    refused(
        zoo("undescribed_usage").field("pull_accounting", json!(true)),
        &["failed in get_usage_specs", "has to have a name and a description"],
    );
}

#[test]
fn a_constructor_that_hangs_is_ended() {
    let home = Home::new();
    let options = crate::support::options().trial_limit(std::time::Duration::from_millis(600));
    let host = Host::open_with(home.path(), options).expect("opens");
    let package = zoo("hang_in_construction").write(home.folder());
    let error = host.install(package, &Install::default()).expect_err("it hangs").to_string();
    assert_eq!(error, "the module hung when it was constructed: it was ended after 0.6 s");
    assert_eq!(host.list().expect("readable").len(), 0);
}

#[test]
fn a_panic_in_any_hook_is_an_internal_error_with_message_and_place() {
    let home = Home::new();
    home.load(&zoo("panic_in_each_hook").field("pull_accounting", json!(true))).succeeded();
    let host = home.host();
    let objects = json!({
        "provider": {"username": "acme"}, "media_type": "a/b", "url": "https://x.example", "asset": asset("Zoo"),
        "product_spec": {}, "product_offering": {}, "order": order(),
        "event": {"event": {"events_id": "clients.create", "id": "1", "dt": "2000-01-01T00:00:00+00:00"}}
    });
    let objects: HookObjects = serde_json::from_value(objects).expect("right");
    // It provides no add-on.
    let is_panicking = |hook: &Hook| *hook != Hook::GetUsageSpecs && !hook.name().starts_with("addon_");
    for hook in Hook::ALL.iter().copied().filter(is_panicking) {
        let error = host.call("zoo", hook, objects.clone()).expect_err("it panics");
        assert_eq!((error.kind(), error.status(), error.plugin()), (ErrorKind::Internal, 500, Some("zoo")));
        assert!(error.message().starts_with("the plugin panicked at "), "{error}");
        assert!(error.message().contains("panic_in_each_hook.rs:"), "{error}");
        assert!(error.message().ends_with(&format!(": in {hook}")), "{error}");
    }
    assert_eq!(host.get_usage_specs("Zoo").expect("this one doesn't panic"), []);
    let file = home.file("settings.json", r#"{"in_get_usage_specs": true}"#);
    home.run(&["setplugin", "zoo", "--settings", &file]).failed_with(&["failed in get_usage_specs", "panicked at"]);
}

#[test]
fn a_payload_that_panics_when_it_is_dropped_is_one_error_more_and_no_end() {
    let home = Home::new();
    home.load(&zoo("panic_with_a_bomb")).succeeded();
    let host = home.host();
    for _ in 0..3 {
        let error = acquire(&host, &asset("Zoo")).expect_err("it panics");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("a value that is no text"), "{error}");
    }
}

#[test]
fn what_was_changed_before_a_panic_or_a_refusal_is_not_seen() {
    let home = Home::new();
    for (name, fixture, kind) in [
        ("Panics", "panic_after_a_change", ErrorKind::Internal),
        ("Refuses", "refuse_after_a_change", ErrorKind::Conflict),
    ] {
        home.load(&Package::new(name).of(fixture)).succeeded();
        let before = asset(name);
        let error = acquire(&home.host(), &before).expect_err("it does not go through");
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains("after the change"), "{error}");
        assert_eq!(error.asset(), Some("asset-1"));
        assert_eq!(before, asset(name), "the asset itself is never written to");
    }
}

#[test]
fn an_enormous_or_broken_error_text_is_cut_and_cleaned() {
    let home = Home::new();
    home.load(&Package::new("Enormous").of("enormous_error")).succeeded();
    home.load(&Package::new("Broken").of("error_not_utf8")).succeeded();
    let host = home.host();
    let enormous = acquire(&host, &asset("Enormous")).expect_err("it refuses");
    assert_eq!(enormous.kind(), ErrorKind::Invalid);
    assert!(enormous.message().len() < 10_000);
    assert!(enormous.message().ends_with("(67108864 bytes in all)"), "{enormous}");
    let broken = acquire(&host, &asset("Broken")).expect_err("it refuses");
    assert_eq!(broken.message(), "broken \u{fffd}\u{fffd} text");
}

#[test]
fn a_change_larger_than_a_host_takes_is_an_error_of_the_hook() {
    let home = Home::new();
    home.load(&zoo("enormous_change")).succeeded();
    let error = acquire(&home.host(), &asset("Zoo")).expect_err("it is too large");
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("larger than the host takes"), "{error}");
}

#[test]
fn a_panic_in_a_late_drop_or_in_a_thread_of_its_own_does_not_end_the_host() {
    let home = Home::new();
    home.load(&Package::new("Late").of("panic_in_a_late_drop")).succeeded();
    home.load(&Package::new("Thread").of("panic_in_a_thread")).succeeded();
    let host = home.host();
    acquire(&host, &asset("Late")).expect("the call itself is right");
    acquire(&host, &asset("Thread")).expect("the panic was on another thread");
    host.remove("late", false).expect("removed");
    host.refresh().expect("the instance is dropped");
    drop(host);
    home.load(&Package::new("Healthy")).succeeded();
    assert!(acquired(&home.host(), "Healthy").is_ok());
}

#[test]
fn a_crash_in_a_hook_ends_the_process_as_the_guide_says_and_loses_nothing() {
    let home = Home::new();
    home.load(&zoo("crash_in_a_hook")).succeeded();
    home.load(&Package::new("Healthy")).succeeded();
    let objects = home.file("objects.json", &json!({"asset": asset("Zoo"), "order": order()}).to_string());
    let run = home.run(&["callplugin", "zoo", "on_product_acquisition", "--objects", &objects]);
    assert_eq!(run.code, None, "a null pointer can't be survived in the process: {run:?}");
    assert_eq!(home.host().list().expect("the registry is whole").len(), 2);
    assert!(acquired(&home.host(), "Healthy").is_ok());
}
