//! Workers in another language: the protocol is all that they need, and what they say is held to it.

use std::fs;

use billhook::{Host, Install, Isolation};
use serde_json::{Value, json};

use crate::support::{Home, Package, acquired, library, options};

#[test]
fn a_worker_in_another_language_needs_the_protocol_and_nothing_else() {
    let home = Home::new();
    let program = library("healthy").with_file_name(format!("foreign_worker{}", std::env::consts::EXE_SUFFIX));
    let host = Host::open_with(home.path(), options().child_program(program)).expect("opens");
    let install = |manner: &str| {
        let settings = json!({"manner": manner}).to_string();
        let how = Install { settings: Some(&settings), isolation: Some(Isolation::Process), ..Install::default() };
        host.install(Package::new(&format!("Foreign {manner}")).write(home.folder()), &how)
    };
    install("well").expect("installed");
    let told = acquired(&host, "Foreign well").expect("it answers");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let expected = json!({
        "asset": "asset-1", "contracts": 1, "kept": "done", "value": {"value": "\"on_product_acquisition\""},
    });
    assert_eq!(told, expected);
    for (manner, expected) in [
        ("garbage", "what can't be understood"),
        ("no message", "unknown variant `finished`"),
        ("truncated", "ended its process with exit code 0"),
        ("gigantic", "a frame of 4294967295 bytes; at most 16842816 are taken"),
        ("ready again", "ready in the middle of a call"),
        ("large changes", "a frame of"),
    ] {
        install(manner).expect("installed");
        let error = acquired(&host, &format!("Foreign {manner}")).expect_err(manner);
        assert!(error.message().contains(expected) && error.is_outcome_unknown(), "{manner}: {error}");
    }
    // What it says unasked is no answer to a later call, which is made by another worker.
    install("hasty").expect("installed");
    for _ in 0..3 {
        assert_eq!(acquired(&host, "Foreign hasty").as_deref(), Ok("\"first\""));
    }
    // A hook that has begun is never begun again, wherever its worker ends.
    let counter = home.folder().join("counter");
    let settings = json!({"manner": "deaf", "counter": counter}).to_string();
    let how = Install { settings: Some(&settings), isolation: Some(Isolation::Process), ..Install::default() };
    host.install(Package::new("Foreign deaf").write(home.folder()), &how).expect("installed");
    let error = acquired(&host, "Foreign deaf").expect_err("it ends");
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(fs::read_to_string(counter).expect("it began"), "1");

    let error = install("other protocol").expect_err("refused").to_string();
    assert!(error.contains("the worker speaks protocol 7 and this host 1"), "{error}");
    let installed = install("not ready").expect("it asks for settings");
    assert_eq!(installed.needs_settings.as_deref(), Some("I would rather not"));
}

#[test]
fn no_hook_gets_what_it_can_not_return_nor_more_of_it_than_it_can() {
    let home = Home::new();
    let program = library("healthy").with_file_name(format!("foreign_worker{}", std::env::consts::EXE_SUFFIX));
    let host = Host::open_with(home.path(), options().child_program(program)).expect("opens");
    let answers = [
        ("another hook", r#"{"done":{"usage_specs":["#, "0,", 1, "0]}}", "unknown field `usage_specs`"),
        ("an add-on", r#"{"done":{"changes":{},"location":""#, "x", 1000, r#""}}"#, "unknown field `location`"),
        ("large spaces", r#"{"done":{}"#, " ", 17 << 20, "}", "a frame of"),
        ("large usage", r#"{"done":{"pending_accounting":{"records":["#, "{},", 8 << 20, "{}]}}}", "a frame of"),
        ("changes too large", r#"{"done":{"changes":{"meta_info":""#, "x", 16 << 20, r#""}}}"#, "its changes have"),
        ("a large refusal", r#"{"refused":{"kind":"conflict","message":""#, "x", 17 << 20, r#""}}"#, "a frame of"),
        ("depth", r#"{"done":{"changes":{"meta_info":"#, "[", 1 << 20, "", "what can't be understood"),
    ];
    for (what, begin, middle, times, end, expected) in answers {
        let settings = json!({"manner": "as told", "begin": begin, "middle": middle, "times": times, "end": end});
        let settings = settings.to_string();
        let how = Install { settings: Some(&settings), isolation: Some(Isolation::Process), ..Install::default() };
        host.install(Package::new(&format!("Foreign {what}")).write(home.folder()), &how).expect(what);
        let error = acquired(&host, &format!("Foreign {what}")).expect_err(what);
        assert!(error.message().contains(expected) && error.is_outcome_unknown(), "{what}: {error}");
    }
}
