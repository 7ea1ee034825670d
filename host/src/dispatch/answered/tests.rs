use super::*;

const SENT: &str = r#"{"asset": {"id": "1", "resource_type": "X", "meta_info": {"a": 1.0}, "is_public": false},
    "order": {"order_id": "7", "contracts": [{"item_id": "1"}], "extra": {}}}"#;

fn changed(answered: &str) -> Result<AssetChanges, String> {
    hook_changes(SENT, answered, Some(&Asset::default()))
}

#[test]
fn an_echo_and_what_is_left_out_change_nothing() {
    for answered in [
        SENT,
        "{}",
        "[]",
        r#"{"asset": []}"#,
        r#"{"asset": {"meta_info": {"a": 1}}}"#,
        r#"{"order": {}}"#,
        r#"{"order": {"extra": []}}"#,
        r#"{"order": null, "order": {"order_id": "\u0037"}, "more": null}"#,
    ] {
        assert!(changed(answered).expect(answered).is_empty(), "{answered}");
    }
}

#[test]
fn what_the_hook_may_change_is_taken_whole_and_nothing_else() {
    let changes = changed(r#"{"asset": {"meta_info": {"b": 2}, "content_type": "text/csv"}}"#).expect("allowed");
    assert_eq!(changes.meta_info.expect("changed").as_str(), r#"{"b": 2}"#);
    assert_eq!((changes.content_type.as_deref(), changes.download_link), (Some("text/csv"), None));
    for (answered, expected) in [
        (r#"{"asset": {"id": "2", "content_type": "text/csv"}}"#, "it changed /asset/id;"),
        (r#"{"order": {"order_id": "8"}}"#, "it changed /order/order_id;"),
        (r#"{"order": {"contracts": []}}"#, "it changed /order/contracts;"),
        (r#"{"order": null}"#, "it changed /order;"),
        (r#"{"extra": 1}"#, "it changed /extra;"),
        (r#"{"extra": []}"#, "it changed /extra;"),
        (r#"{"asset": {"meta_info/x": 1}}"#, "it changed /asset/meta_info~1x;"),
        (r#"{"asset/meta_info": 5}"#, "it changed /asset~1meta_info;"),
        (r#"{"asset": {"content_type": 1}}"#, "no text"),
        (r#"{"asset": {"content_type": "\ud800"}}"#, "no text"),
        ("[1]", "no object"),
        ("\"x\"", "no object"),
    ] {
        let problem = changed(answered).expect_err(answered);
        assert!(problem.contains(expected), "{problem}");
    }
    let problem = hook_changes(SENT, r#"{"asset": {"meta_info": {}}}"#, None).expect_err("not before this one");
    assert!(problem.contains("/asset/meta_info"), "{problem}");
}

/// What is sent, what languages make of it and what a handler changes in it, and what comes of that.
const CASES: &[(&str, &str, &str)] = &[
    // Numbers that nobody touched keep their text, beside one that somebody did.
    (r#"{"x":1,"y":117.63331139400017}"#, r#"{"x":2,"y":117.63331139400017}"#, r#"{"x":2,"y":117.63331139400017}"#),
    (
        r#"{"x":1,"y":0.1000000000000000055511151231257827}"#,
        r#"{"x":2,"y":0.1}"#,
        r#"{"x":2,"y":0.1000000000000000055511151231257827}"#,
    ),
    (r#"{"x":1,"y":[1.10,-0,1E+2,5.0]}"#, r#"{ "x":2, "y":[1.1,0,100,5] }"#, r#"{ "x":2, "y":[1.10,-0,1E+2,5.0] }"#),
    (r#"{"id":9007199254740993}"#, r#"{"id":9007199254740992,"new":1.50}"#, r#"{"id":9007199254740993,"new":1.50}"#),
    (
        r#"{"id":18446744073709551616}"#,
        r#"{"id":1.8446744073709552e+19,"new":1}"#,
        r#"{"id":18446744073709551616,"new":1}"#,
    ),
    (
        r#"{"a":1e999999999,"b":-1e-999999999,"c":0}"#,
        r#"{"a":null,"b":0,"c":1}"#,
        r#"{"a":1e999999999,"b":-1e-999999999,"c":1}"#,
    ),
    // Numbers that somebody touched are those of the handler.
    (r#"{"y":117.63331139400017}"#, r#"{"y":117.63331139400016}"#, r#"{"y":117.63331139400016}"#),
    (r#"{"y":9007199254740993}"#, r#"{"y":9007199254740994}"#, r#"{"y":9007199254740994}"#),
    (r#"{"y":12345678901234567891}"#, r#"{"y":12345678901234567892}"#, r#"{"y":12345678901234567892}"#),
    (r#"{"y":1}"#, r#"{"y":null}"#, r#"{"y":null}"#),
    (r#"{"y":1}"#, r#"{"y":"1"}"#, r#"{"y":"1"}"#),
    // PHP: empty objects at any depth, and objects whose keys count.
    (r#"{"x":1,"o":{"p":[{"q":{}}]}}"#, r#"{"x":2,"o":{"p":[{"q":[]}]}}"#, r#"{"x":2,"o":{"p":[{"q":{}}]}}"#),
    (r#"{"x":1,"o":{"0":1.0,"1":{}}}"#, r#"{"x":2,"o":[1,[]]}"#, r#"{"x":2,"o":{"0":1.0,"1":{}}}"#),
    (r#"{"o":{"0":1}}"#, r#"{"o":[2]}"#, r#"{"o":[2]}"#),
    (r#"{"o":{"1":1,"0":2}}"#, r#"{"o":[1,2]}"#, r#"{"o":[1,2]}"#),
    (r#"{"o":{"a":1}}"#, r#"{"o":[]}"#, r#"{"o":[]}"#),
    (r#"{"o":[1]}"#, r#"{"o":[]}"#, r#"{"o":[]}"#),
    // Lua: empty lists.
    (r#"{"x":1,"o":[ ]}"#, r#"{"x":2,"o":{}}"#, r#"{"x":2,"o":[ ]}"#),
    // Texts that are escaped otherwise, half a pair, and keys that stand twice.
    (r#"{"x":1,"t":"a\/\u00e9\ud800"}"#, r#"{"x":2,"t":"a/é\uD800"}"#, r#"{"x":2,"t":"a\/\u00e9\ud800"}"#),
    (r#"{"x":1,"o":{"k":1,"k":2.0}}"#, r#"{"x":2,"o":{"k":2}}"#, r#"{"x":2,"o":{"k":1,"k":2.0}}"#),
    (r#"{"o":{"k":1,"k":2.0}}"#, r#"{"o":{"k":1}}"#, r#"{"o":{"k":1}}"#),
    // Lists: what was added, removed, moved or changed takes nothing else with it.
    (r#"[1.10,2.20]"#, r#"[0,1.1,2.2]"#, r#"[0,1.10,2.20]"#),
    (r#"[1.10,2.20,3.30]"#, r#"[1.1,3.3]"#, r#"[1.10,3.30]"#),
    (r#"[1.10,{"a":2.20,"b":1},3.30]"#, r#"[{"a":2.2,"b":2},3.3,1.1]"#, r#"[{"a":2.20,"b":2},3.30,1.10]"#),
    (r#"[[1.10]]"#, r#"[[1.1],[1.1]]"#, r#"[[1.10],[1.1]]"#),
    // Order counts in a list, and not in an object.
    (r#"{"x":1,"o":{"a":1.0,"b":2.0}}"#, r#"{"x":2,"o":{"b":2,"a":1}}"#, r#"{"x":2,"o":{"a":1.0,"b":2.0}}"#),
    (r#"[[1.0,2.0],0]"#, r#"[[2,1],1]"#, r#"[[2.0,1.0],1]"#),
    // What is unchanged as a whole is as it was sent, to the last space.
    (" {\"a\" :\n1.0} ", r#"{"a":1}"#, "{\"a\" :\n1.0}"),
];

#[test]
fn what_nobody_touched_is_as_it_was_sent_and_what_somebody_did_is_theirs() {
    for (sent, answered, expected) in CASES {
        assert_eq!(merged(sent, answered).as_deref(), Ok(*expected), "{sent} {answered}");
        // Also as the meta_info of an asset.
        let of_asset = |meta_info: &str| format!("\n {{\"asset\":{{\"meta_info\":{meta_info}}}}}");
        let changes = hook_changes(&of_asset(sent), &of_asset(answered), Some(&Asset::default())).expect("allowed");
        let meta_info = changes.meta_info.map_or_else(|| sent.trim().to_owned(), |meta_info| meta_info.to_string());
        assert_eq!(meta_info, *expected, "{sent} {answered}");
    }
}

#[test]
fn a_document_of_any_depth_and_breadth_is_compared_in_time_that_grows_with_its_length() {
    let deep = |inner: &str| "[".repeat(200_000) + inner + &"]".repeat(200_000);
    assert_eq!(merged(&deep("{}"), &deep("[]")), Ok(deep("{}")));
    assert_eq!(merged(&deep("1.0,2"), &deep("1,3")), Ok(deep("1.0,3")));
    let nested = |inner: &str| "{\"a\":".repeat(100_000) + inner + &"}".repeat(100_000);
    assert_eq!(merged(&nested("1.0"), &nested("1")), Ok(nested("1.0")));
    let sent = format!("{{\"order\":{}}}", nested("1.0"));
    let problem = hook_changes(&sent, &sent.replace("1.0", "2"), None).expect_err("changed");
    assert!(problem.contains("/order/a/a") && problem.len() < 1_000, "{problem}");
    let broad = |last: &str| format!("[{}{last}]", "1.0,".repeat(200_000));
    assert_eq!(merged(&broad("2"), &broad("3").replace("1.0", "1")), Ok(broad("3")));
    let keys = |value: &str| (0..50_000).map(|key| format!("\"k{key}\":{value},")).collect::<String>();
    let object = |value: &str, last: &str| format!("{{{}\"last\":{last}}}", keys(value));
    assert_eq!(merged(&object("1.0", "1"), &object("1", "2")), Ok(object("1.0", "2")));
}
