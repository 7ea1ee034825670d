//! Every rule of `package.json`, as input and the violations that it is answered with.

use serde_json::{Value, json};

use super::{Manifest, ManifestError};

/// The smallest manifest that is right, with some fields replaced (`null` takes one away).
fn with(changes: Value) -> Vec<u8> {
    let mut manifest = json!({
        "name": "Test Resource", "author": "acme", "formats": ["URL"], "module": "test_resource", "version": "1.0"
    });
    for (key, value) in changes.as_object().expect("changes are an object") {
        match value {
            Value::Null => drop(manifest.as_object_mut().expect("an object").remove(key)),
            value => manifest[key] = value.clone(),
        }
    }
    manifest.to_string().into_bytes()
}

fn violations(bytes: &[u8]) -> Vec<String> {
    match Manifest::parse(bytes) {
        Ok(_) => Vec::new(),
        Err(ManifestError::Rules(violations)) => violations.iter().map(ToString::to_string).collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[track_caller]
fn check(changes: Value, expected: &[&str]) {
    let found = violations(&with(changes.clone()));
    let alike = found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part));
    assert!(alike, "{changes}\n expected: {expected:#?}\n found: {found:#?}");
}

#[test]
fn what_the_guide_allows_is_accepted() {
    check(json!({}), &[]);
    check(json!({"formats": ["URL", "FILE"], "media_types": [], "overrides": ["NAME", "VERSION", "OPEN"]}), &[]);
    check(json!({"name": "Größe_1 - x", "version": "1.2.3.4", "pull_accounting": true, "form": {}}), &[]);
    check(json!({"form": {"a b": {"type": "select", "options": [{"text": "A", "value": "a"}]}}}), &[]);
    check(json!({"runtime": "native"}), &[]);
}

#[test]
fn every_missing_and_mistyped_field_is_reported_at_once() {
    let all = json!({
        "name": null, "author": 5, "formats": "URL", "module": ["text"], "version": 1.0, "media_types": {},
        "pull_accounting": "yes", "form": 3, "form_order": "a", "overrides": 5, "runtime": 1
    });
    check(
        all,
        &[
            "$.name: this required field is missing",
            "$.author: it has to be text, and is a number",
            "$.formats: it has to be a list, and is text",
            "$.module: it has to be text, and is a list",
            "$.version: it has to be text, and is a number",
            "$.media_types: it has to be a list, and is an object",
            "$.pull_accounting: it has to be true or false, and is text",
            "$.form: it has to be an object, and is a number",
            "$.form_order: it has to be a list, and is text",
            "$.overrides: it has to be a list, and is a number",
            "$.runtime: it has to be text, and is a number",
        ],
    );
    for other in ["[]", "5", "\"text\"", "null"] {
        assert_eq!(violations(other.as_bytes()), ["$: package.json has to be an object"]);
    }
}

#[test]
fn a_name_or_version_that_ends_in_a_newline_is_refused() {
    check(json!({"name": "Test\n"}), &["$.name: \"Test\\n\" is no name"]);
    check(json!({"version": "1.0\n"}), &["$.version: \"1.0\\n\" is no version"]);
}

#[test]
fn names_versions_formats_and_overrides_follow_their_rules() {
    for name in ["", "a/b", "a.b", "x\u{0}", "a\tb", "<b>", "\u{24b6}", "cafe\u{301}", "a\u{a0}b"] {
        check(json!({ "name": name }), &["$.name"]);
    }
    check(json!({"version": "01.0"}), &["$.version"]);
    check(json!({"formats": []}), &["$.formats: it has to hold one or two"]);
    check(json!({"formats": ["URL", "FTP", 5]}), &["$.formats: it has", "$.formats[1]: \"FTP\"", "$.formats[2]: 5"]);
    check(json!({"overrides": ["NAME", "PRICE"]}), &["$.overrides[1]: \"PRICE\" is none of NAME, VERSION, OPEN"]);
    check(json!({"runtime": "wasm"}), &["$.runtime: this version of billhook has no runtime \"wasm\""]);
}

#[test]
fn wrong_types_inside_the_form_are_reported_and_crash_nothing() {
    check(json!({"overrides": 5}), &["$.overrides"]);
    check(json!({"form": 3, "form_order": ["a"]}), &["$.form: it has to be an object"]);
    check(json!({"form": {"a": {"type": ["text"]}}}), &["$.form.a.type: [\"text\"] is none of"]);
    check(json!({"form": {"a": 5, "b": {}}}), &["$.form.a: it has to be an object", "$.form.b.type: it is missing"]);
    check(
        json!({"form": {"a.b": {"type": "text", "label": 1, "default": true, "placeholder": [], "mandatory": "no"}}}),
        &[
            "$.form[\"a.b\"]: \"a.b\" is no name",
            "$.form[\"a.b\"].mandatory: it has to be true or false",
            "$.form[\"a.b\"].label",
            "$.form[\"a.b\"].default",
            "$.form[\"a.b\"].placeholder",
        ],
    );
    check(json!({"form": {"a": {"type": "checkbox", "default": "true"}}}), &["$.form.a.default: it has to be true"]);
    check(
        json!({"form": {"a": {"type": "select"}, "b": {"type": "select", "options": []},
            "c": {"type": "select", "options": [5, {"text": "x"}, {"text": 1, "value": "v"}]},
            "d": {"type": "select", "options": "x"}}}),
        &[
            "$.form.a.options: a select has to have options",
            "$.form.b.options: a select has to have at least one",
            "$.form.c.options[0]: it has to be an object",
            "$.form.c.options[1].value: it is missing",
            "$.form.c.options[2].text: it has to be text",
            "$.form.d.options: it has to be a list",
        ],
    );
}

#[test]
fn the_order_of_the_form_names_each_of_its_fields() {
    let form = json!({"b": {"type": "text"}, "a": {"type": "text"}});
    check(json!({"form_order": ["a"]}), &["$.form_order: there is no form"]);
    check(
        json!({"form": form, "form_order": ["a"]}),
        &["$.form_order: it has to name every field of the form, and lacks \"b\""],
    );
    let manifest = Manifest::parse(&with(json!({"form": form, "form_order": ["b", "x", "a"]}))).expect("right");
    assert_eq!(manifest.form.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert!(manifest.warnings[0].contains("$.form_order[1] names \"x\""), "{:?}", manifest.warnings);
}

#[test]
fn duplicate_keys_byte_order_marks_and_utf_16_are_refused() {
    let twice = br#"{"name": "a", "name": "b", "author": "x", "formats": ["URL"], "module": "m", "version": "1",
        "form": {"f": {"type": "text", "type": "select"}}}"#;
    assert_eq!(violations(twice), ["$.name: this key stands twice", "$.form.f.type: this key stands twice"]);
    let text = String::from_utf8(with(json!({}))).expect("JSON");
    let with_mark = [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked_utf_16: Vec<u8> = [vec![0xff, 0xfe], utf_16.clone()].concat();
    for (bytes, expected) in [
        (with_mark, "byte-order mark"),
        (utf_16, "UTF-16"),
        (marked_utf_16, "UTF-16"),
        (b"{\"name\": \"\xff\"}".to_vec(), "not UTF-8"),
        (b"{} {}".to_vec(), "trailing characters"),
        (b"{\"name\": ".to_vec(), "EOF"),
        (b"".to_vec(), "EOF"),
        ("[".repeat(100_000).into_bytes(), "EOF"),
        (("[".repeat(100_000) + &"]".repeat(100_000)).into_bytes(), "recursion limit"),
        (vec![b' '; 2_000_000], "bytes"),
    ] {
        let found = violations(&bytes).join("");
        assert!(found.contains(expected), "expected {expected:?}, found {found:?}");
    }
}

#[test]
fn what_the_original_accepts_is_accepted_with_a_warning() {
    let odd = json!({"module": "", "media_types": ["a/b", 5], "formats": ["URL", "URL"], "form": {"a": {"type": "text"}},
        "form_order": ["a", 5]});
    let manifest = Manifest::parse(&with(odd)).expect("accepted");
    assert_eq!(manifest.media_types, ["a/b"]);
    for part in [
        "$.module names no library",
        "$.media_types[1] is no text",
        "names \"URL\" twice",
        "$.form_order[1] is no text",
    ] {
        assert!(manifest.warnings.iter().any(|warning| warning.contains(part)), "{part}: {:?}", manifest.warnings);
    }
}

#[test]
fn a_report_is_bounded_whatever_is_wrong() {
    let long = "k".repeat(50_000);
    let many: serde_json::Map<_, _> = (0..5_000).map(|index| (format!("{index}"), json!(5))).collect();
    let found = violations(&with(json!({"form": many, long.as_str(): {}})));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], "$: and more: mend these first");
    let twice = format!("{{\"{long}\": {{{}\"a\": 0}}}}", "\"a\": 0, ".repeat(5_000));
    let found = violations(twice.as_bytes());
    assert!(found.iter().map(String::len).sum::<usize>() < 50_000, "{}", found.len());
}

#[test]
fn what_is_unknown_is_accepted_with_a_warning() {
    let manifest =
        Manifest::parse(&with(json!({"homepage": "x", "form": {"a": {"type": "text", "options": [], "hint": 1}}})));
    let warnings = manifest.expect("right").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("$.homepage") && warnings[1].contains("$.form.a.hint"), "{warnings:?}");
}

#[test]
fn the_id_is_the_name_in_lower_case_with_dashes_for_spaces() {
    for (name, id) in [("Test Resource", "test-resource"), ("foo-1", "foo-1"), ("ÄPFEL  x", "äpfel--x")] {
        assert_eq!(Manifest::parse(&with(json!({ "name": name }))).expect("right").id(), id);
    }
}

#[test]
fn an_add_on_has_an_id_and_variables_and_needs_no_formats() {
    let addon = json!({"id": "my-addon_1.0", "config_vars": ["MY_ADDON_URL", "_x"]});
    check(json!({"formats": null, "addon": addon}), &[]);
    check(json!({"addon": {"id": "a"}}), &[]);
    check(json!({"formats": null}), &["$.formats: this required field is missing"]);
    check(json!({"formats": [], "addon": addon}), &["$.formats: it has to hold one or two"]);
    for (addon, expected) in [
        (json!("my-addon"), "$.addon: it has to be an object, and is text"),
        (json!({}), "$.addon.id: it is missing"),
        (json!({"id": 7}), "$.addon.id: it has to be text, and is a number"),
        (json!({"id": ""}), "$.addon.id: \"\" is no id"),
        (json!({"id": "a:b"}), "$.addon.id: \"a:b\" is no id"),
        (json!({"id": "x".repeat(101)}), "is no id"),
        (json!({"id": "a", "config_vars": "URL"}), "$.addon.config_vars: it has to be a list, and is text"),
        (json!({"id": "a", "config_vars": [7]}), "$.addon.config_vars[0]: it has to be text, and is a number"),
        (json!({"id": "a", "config_vars": ["A", "B C"]}), "$.addon.config_vars[1]: \"B C\" is no variable"),
        (json!({"id": "a", "config_vars": ["1A"]}), "$.addon.config_vars[0]: \"1A\" is no variable"),
    ] {
        check(json!({"addon": addon}), &[expected]);
    }
}
