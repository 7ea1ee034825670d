//! The command: what it prints, where, and how it exits.

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{BILLHOOK, Entry, Home, Package, RawZip, asset, order, run, run_on_terminal};

#[test]
fn every_verb_answers_in_a_line_and_as_json() {
    let home = Home::new();
    let package = Package::new("Test Resource").write(home.folder());
    let package = package.to_str().expect("UTF-8");
    let newer = Package::new("Test Resource").version("2.0").write(home.folder());
    let settings = home.file("settings.json", r#"{"a": 1}"#);

    let says = |arguments: &[&str], expected: &str| {
        let run = home.run(arguments).succeeded();
        assert_eq!(run.stdout, format!("{expected}\n"));
        assert_eq!(run.stderr, "");
    };
    says(&["checkplugin", package], &format!("{package} is right: \"Test Resource\", version 1.0, id test-resource"));
    says(
        &["checkplugin", "--try", package],
        &format!("{package} is right: \"Test Resource\", version 1.0, id test-resource"),
    );
    says(&["loadplugin", package], "test-resource was installed, version 1.0; listplugins lists all");
    says(&["listplugins"], "Name: Test Resource id: test-resource version: 1.0 author: acme status: enabled");
    says(&["loadplugin", newer.to_str().expect("UTF-8")], "test-resource was upgraded from 1.0 to 2.0");
    says(&["downgradeplugin", "test-resource"], "test-resource was downgraded to 1.0");
    says(&["setplugin", "test-resource", "--settings", &settings], "test-resource has the new settings");
    says(&["disableplugin", "test-resource"], "test-resource is disabled: its calls are answered as unavailable");
    says(&["enableplugin", "test-resource"], "test-resource is enabled");
    says(&["removeplugin", "test-resource"], "test-resource was removed");
    assert_eq!(home.run(&["listplugins"]).succeeded().stdout, "", "in a pipe, nothing is nothing");

    let plugin = json!({"id": "test-resource", "name": "Test Resource", "author": "acme", "version": "1.0", "status": "enabled"});
    let answers = |arguments: &[&str]| home.run(&[arguments, &["--json"]].concat()).succeeded().json();
    let mut installed = plugin.clone();
    installed["warnings"] = json!([]);
    assert_eq!(answers(&["loadplugin", package]), installed);
    assert_eq!(answers(&["listplugins"]), json!([plugin]));
    assert_eq!(answers(&["disableplugin", "test-resource"])["status"], "disabled");
    assert_eq!(answers(&["enableplugin", "test-resource"]), plugin);
    assert_eq!(answers(&["setplugin", "test-resource", "--settings", &settings]), plugin);
    let shown = answers(&["showplugin", "test-resource"]);
    assert_eq!((&shown["settings"]["a"], &shown["manifest"]["module"]), (&json!(1), &json!("fixture")));
    assert_eq!(shown["module"]["hooks"], json!(["on_product_acquisition"]));
    assert_eq!(answers(&["checkplugin", package])["errors"], json!([]));
    assert_eq!(answers(&["removeplugin", "test-resource"]), plugin);
}

#[test]
fn showplugin_shows_everything_about_a_plugin() {
    let home = Home::new();
    home.load(&Package::new("X").of("undescribed_usage").field("pull_accounting", json!(true))).failed_with(&[]);
    for version in ["1.0", "1.1"] {
        home.load(&Package::new("X").of("refuse_settings").version(version)).code.expect("it ends");
    }
    let shown = home.run(&["showplugin", "x"]).succeeded().stdout;
    for part in
        ["id            x\n", "status        needs settings\n", "because       set \"address\"", "built with    API 1."]
    {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    home.run(&["showplugin", "y"]).failed_with(&["error: there is no plugin \"y\"", "hint: listplugins"]);
}

#[test]
fn callplugin_prints_outcome_and_changes_as_json() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    home.load(&Package::new("Refuses").of("refuse_after_a_change")).succeeded();
    let objects = json!({"asset": asset("X"), "order": order()});
    let file = home.file("objects.json", &objects.to_string());
    let call = |id: &str, hook: &str, file: &str| home.run(&["callplugin", id, hook, "--objects", file]);

    let ok = call("x", "on_product_acquisition", &file).succeeded().json();
    assert_eq!(ok, json!({"outcome": "ok", "changes": {"meta_info": "healthy"}}));
    let not_there = call("x", "on_product_suspension", &file).succeeded().json();
    assert_eq!(not_there, json!({"outcome": "not implemented", "changes": {}}));

    let refused = call("refuses", "on_product_acquisition", &file)
        .failed_with(&["error: refuses: on_product_acquisition: conflict"]);
    assert_eq!(
        refused.json(),
        json!({"outcome": "refused", "refusal": {"kind": "conflict", "status": 409, "message": "after the change",
            "hook": "on_product_acquisition", "plugin": "refuses", "asset": "asset-1"}})
    );

    call("y", "on_product_acquisition", &file).failed_with(&["there is no plugin \"y\""]);
    assert_eq!(call("x", "on_nothing", &file).code, Some(2));
    let incomplete = home.file("incomplete.json", &json!({"asset": asset("X")}).to_string());
    call("x", "on_product_acquisition", &incomplete).failed_with(&["takes \"order\", which is missing"]);
    let misspelt = home.file("misspelt.json", r#"{"aset": {}}"#);
    call("x", "on_product_acquisition", &misspelt).failed_with(&["misspelt.json doesn't hold", "unknown field `aset`"]);
    call("x", "on_product_acquisition", "nowhere.json").failed_with(&["nowhere.json can't be read"]);
}

#[test]
fn checkplugin_tells_everything_that_is_wrong_and_runs_nothing() {
    let home = Home::new();
    let wrong = Package::new("X").of("no_plugin").field("version", json!("01")).field("formats", json!(["FTP"]));
    let path = wrong.write(home.folder());
    let run = home.run(&["checkplugin", path.to_str().expect("UTF-8")]);
    run.failed_with(&["package.json breaks 2 rules:", "$.version", "$.formats[0]", "it exports no billhook plugin"]);

    // A library that would crash is only crashed by --try, and there in a process of its own.
    let crashing = Package::new("X").of("crash_on_load").write(home.folder());
    let crashing = crashing.to_str().expect("UTF-8");
    home.run(&["checkplugin", crashing]).succeeded();
    home.run(&["checkplugin", "--try", crashing]).failed_with(&["crashed when it was loaded"]);
    let refusing = Package::new("Y").of("refuse_settings").write(home.folder());
    let refusing = refusing.to_str().expect("UTF-8");
    assert!(home.run(&["checkplugin", "--try", refusing]).succeeded().stderr.contains("needs settings"));
    let settings = home.file("settings.json", r#"{"address": "here"}"#);
    let run = home.run(&["checkplugin", "--try", refusing, "--settings", &settings]).succeeded();
    assert_eq!(run.stderr, "");

    // A folder, and a manifest alone.
    let folder = home.folder().join("unpacked");
    fs::create_dir(&folder).expect("made");
    let folder_name = folder.to_str().expect("UTF-8");
    home.run(&["checkplugin", folder_name]).failed_with(&["there is no package.json"]);
    let manifest = json!({"name": "X", "author": "a", "version": "1", "module": "plugin.X", "formats": ["URL"]});
    let alone = home.file("unpacked/package.json", &manifest.to_string());
    home.run(&["checkplugin", folder_name]).failed_with(&["names the Python class"]);
    let run = home.run(&["checkplugin", &alone]).succeeded();
    assert!(run.stderr.starts_with("warning: $.module names the Python class \"plugin.X\""), "{}", run.stderr);
    let other_name = home.file("bae-plugin@1234_manifest", &manifest.to_string());
    home.run(&["checkplugin", &other_name]).succeeded();
    home.run(&["checkplugin", "nowhere.zip"]).failed_with(&["nowhere.zip can't be checked", "No such file"]);
    assert!(!home.path().exists(), "a check needs no home");
}

#[test]
fn wrong_usage_exits_with_2_and_shows_what_is_right() {
    let home = Home::new();
    for arguments in
        [&[][..], &["nonsense"], &["loadplugin"], &["listplugins", "extra"], &["setplugin", "x"], &["--home"]]
    {
        let run = home.run(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {run:?}");
        assert_eq!(run.stdout, "");
        assert!(run.stderr.contains("--help"), "{}", run.stderr);
    }
    for verb in [
        "loadplugin",
        "listplugins",
        "removeplugin",
        "downgradeplugin",
        "showplugin",
        "checkplugin",
        "newplugin",
        "packplugin",
        "callplugin",
        "enableplugin",
        "disableplugin",
        "setplugin",
        "quickstart",
        "completions",
    ] {
        let run = home.run(&[verb, "--help"]).succeeded();
        assert!(run.stdout.contains(&format!("Usage: billhook {verb}")), "{}", run.stdout);
    }
    assert!(home.run(&["--version"]).succeeded().stdout.starts_with("billhook "));
}

#[test]
fn errors_go_to_standard_error_and_name_what_where_and_what_to_do() {
    let home = Home::new();
    let text = home.file("x.zip", "I am no zip");
    let run = home.run(&["loadplugin", &text]);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", &*format!("error: {text} was not installed: it is not a zip file\n"))
    );
    let run = home.run(&["removeplugin", "nobody", "--json"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    let error: Value = serde_json::from_str(&run.stderr).expect("JSON");
    assert_eq!(error["error"], "there is no plugin \"nobody\"");

    let file = home.file("file", "");
    home.run(&["--home", &format!("{file}/home"), "listplugins"]).failed_with(&["the home", "can't be used"]);
    let broken = home.folder().join("broken");
    fs::create_dir(&broken).expect("made");
    fs::write(broken.join("registry.db"), "no database".repeat(100)).expect("written");
    home.run(&["--home", broken.to_str().expect("UTF-8"), "listplugins"]).failed_with(&["registry.db can't be opened"]);
}

#[test]
fn a_terminal_gets_a_table_and_colours_and_a_pipe_does_not() {
    let home = Home::new();
    let (code, shown) = run_on_terminal(&mut home.command(&["listplugins"]));
    assert_eq!(code, Some(0));
    assert!(shown.contains("there is no home at") && shown.contains("loadplugin ZIP makes one"), "{shown}");
    home.load(&Package::new("Test Resource")).succeeded();
    home.run(&["removeplugin", "test-resource"]).succeeded();
    let (_, shown) = run_on_terminal(&mut home.command(&["listplugins"]));
    assert_eq!(shown, "no plugins are installed; loadplugin ZIP installs one\n");
    home.load(&Package::new("Test Resource")).succeeded();
    let (_, shown) = run_on_terminal(&mut home.command(&["listplugins"]));
    assert!(shown.contains("═════") && shown.contains(" test-resource   Test Resource   1.0"), "{shown}");
    let (code, shown) = run_on_terminal(&mut home.command(&["removeplugin", "nobody"]));
    assert_eq!(code, Some(1));
    assert!(shown.starts_with("\u{1b}[1;31merror:\u{1b}[0m there is no plugin"), "{shown:?}");
    let (_, shown) = run_on_terminal(&mut home.command(&["listplugins", "--json"]));
    assert!(shown.starts_with("[\n"), "{shown}");
}

#[test]
fn a_name_that_would_move_the_cursor_is_shown_plain() {
    let home = Home::new();
    home.load(&Package::new("X").field("author", json!("eve\u{1b}[2J\u{7}\nName: Bank id: bank"))).succeeded();
    for shown in [
        home.run(&["listplugins"]).stdout,
        home.run(&["showplugin", "x"]).stdout,
        run_on_terminal(&mut home.command(&["listplugins"])).1,
    ] {
        assert!(!shown.contains('\u{7}') && !shown.contains("\u{1b}[2J"), "{shown:?}");
    }
    assert_eq!(home.run(&["listplugins"]).stdout.lines().count(), 1, "one plugin is one line");
    let zip = home.folder().join("evil.zip");
    fs::write(&zip, RawZip::new(vec![Entry::new("\u{1b}[2J", "")]).bytes()).expect("written");
    let run = home.run(&["checkplugin", zip.to_str().expect("UTF-8")]).failed_with(&["its name holds"]);
    assert!(!run.stderr.contains('\u{1b}'), "{:?}", run.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    let mut child =
        home.command(&["showplugin", "x"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn the_home_is_where_it_was_said_or_in_the_platforms_data_folder() {
    let home = Home::new();
    let data = home.folder().join("data");
    let package = Package::new("X").write(home.folder());
    let load = || {
        let mut command = Command::new(BILLHOOK);
        command.arg("loadplugin").arg(&package).env_remove("BILLHOOK_HOME");
        command.env("XDG_DATA_HOME", &data).env("HOME", home.folder());
        command
    };
    run(&mut load()).succeeded();
    #[cfg(target_os = "linux")]
    assert!(data.join("billhook/registry.db").exists());
    run(load().env("BILLHOOK_HOME", home.folder().join("a"))).succeeded();
    run(load().env("BILLHOOK_HOME", home.folder().join("a")).arg("--home").arg(home.folder().join("b"))).succeeded();
    assert!(home.folder().join("a/registry.db").exists() && home.folder().join("b/registry.db").exists());
}

#[test]
fn completions_are_printed_for_each_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(home.run(&["completions", shell]).succeeded().stdout.contains("downgradeplugin"), "{shell}");
    }
    assert_eq!(home.run(&["completions", "tcsh"]).code, Some(2));
}
