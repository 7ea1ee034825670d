//! The home: whose it is, under any mask and any platform; and what is said of disks that are mounted otherwise.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{BILLHOOK, Home, Killed, Package, Run, Server, asset, order, run, skip, wait_for};

fn set(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).expect("there").mode() & 0o7777
}

/// Everything in a folder, with its mode.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        all.push((path.clone(), mode(&path)));
        if path.is_dir() && !path.is_symlink() {
            all.extend(modes(&path));
        }
    }
    all
}

/// Everything in a folder is its user's own: files that only they read and write, and folders that only they enter.
#[track_caller]
fn check_own(folder: &Path, context: &str) {
    let all = modes(folder);
    assert!(!all.is_empty(), "{context}");
    for (path, mode) in all {
        let own = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(format!("{mode:o}"), format!("{own:o}"), "{context}: {}", path.display());
    }
}

/// A run of the command under a mask.
fn masked(home: &Home, mask: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {mask}; exec \"$@\""), "sh", BILLHOOK]).args(arguments);
    command.env("BILLHOOK_HOME", home.path()).current_dir(home.folder()).stdin(Stdio::null());
    command
}

/// The objects of a call, in a file.
fn objects(home: &Home, kind: &str) -> String {
    home.file("objects.json", &json!({"asset": asset(kind), "order": order()}).to_string())
}

fn load(home: &Home, package: &Package, more: &[&str]) -> Run {
    let file = package.write(home.folder());
    home.run(&[&["loadplugin", file.to_str().expect("UTF-8")], more].concat())
}

/// What the platform of a volume does at each start: everything is its group's, to read and to write.
fn platform(folder: &Path) {
    for (path, mode) in modes(folder).into_iter().chain([(folder.to_owned(), mode(folder))]) {
        set(&path, mode | if path.is_dir() { 0o2770 } else { 0o660 });
    }
}

#[test]
fn files_and_folders_are_their_users_own_under_any_mask_and_in_a_folder_that_hands_on_its_group() {
    for mask in ["000", "022", "077", "007", "0777"] {
        let home = Home::new();
        // A folder that was given, with the mark by which what is made in it gets its group.
        fs::create_dir(home.path()).expect("made");
        set(home.path(), 0o2755);
        let run_masked = |arguments: &[&str]| run(&mut masked(&home, mask, arguments));
        let (package, objects) = (Package::new("X").with("in/a/folder.txt", b"x"), objects(&home, "X"));
        let file = package.write(home.folder());
        let call = ["callplugin", "x", "on_product_acquisition", "--objects", &objects];
        run_masked(&["loadplugin", file.to_str().expect("UTF-8"), "--isolation", "process"]).succeeded();
        run_masked(&call).succeeded();
        run_masked(&["addhandler", "a", "--event", "clients.create", "--task", "/bin/true"]).succeeded();
        run_masked(&["emit", "clients.create"]).succeeded();
        run_masked(&["token", "create", "--scope", "read"]).succeeded();
        // What is there only while something is done stays if that is killed.
        for step in ["unpacked", "before rename", "before commit"] {
            let next = package.clone().version("2.0").write(home.folder());
            let mut command = masked(&home, mask, &["loadplugin", next.to_str().expect("UTF-8")]);
            assert_eq!(run(command.env("BILLHOOK_KILL_AT", step)).code, None, "{step}: it was killed");
            check_own(&home.path(), &format!("mask {mask}, killed at {step}"));
        }
        assert_eq!(mode(home.path()), 0o2755, "the folder that was given is left as it is");
    }
}

#[test]
fn a_home_that_is_made_is_its_users_own_with_all_folders_that_it_is_in() {
    for mask in ["000", "022", "0777"] {
        let home = Home::new();
        let deep = home.folder().join("one/two/home");
        let package = Package::new("X").write(home.folder());
        let arguments = ["--home", deep.to_str().expect("UTF-8"), "loadplugin", package.to_str().expect("UTF-8")];
        run(&mut masked(&home, mask, &arguments)).succeeded();
        check_own(&home.folder().join("one"), mask);
        assert_eq!(mode(home.folder().join("one")), 0o700, "mask {mask}");
    }
}

#[test]
fn the_folder_of_a_check_is_its_users_own() {
    let home = Home::new();
    let scratch = home.folder().join("scratch");
    fs::create_dir(&scratch).expect("made");
    set(&scratch, 0o2777);
    let package = Package::new("X").of("hang_in_construction").write(home.folder());
    let mut command = masked(&home, "000", &["checkplugin", "--try", package.to_str().expect("UTF-8")]);
    command.env("TMPDIR", &scratch).stdout(Stdio::null()).stderr(Stdio::null());
    let _checking = Killed::start(&mut command);
    // It is there while the trial hangs, which makes none of its own.
    let is_unpacked = || modes(&scratch).iter().any(|(path, _)| path.extension().is_some_and(|ending| ending == "so"));
    wait_for("the package's folder", is_unpacked);
    check_own(&scratch, "a check");
}

#[test]
fn a_volume_whose_group_the_platform_lets_write_again_and_again_is_taken_where_the_operator_said_so() {
    // As a platform mounts it, and as a folder within it that the host makes.
    for within in [false, true] {
        let home = Home::new();
        if !within {
            fs::create_dir(home.path()).expect("made");
            set(home.path(), 0o2775);
        }
        let said = |arguments: &[&str]| run(home.command(arguments).env("BILLHOOK_GROUP_WRITABLE", "1"));
        let package = Package::new("X").write(home.folder());
        let (package, objects) = (package.to_str().expect("UTF-8").to_owned(), objects(&home, "X"));
        let call = ["callplugin", "x", "on_product_acquisition", "--objects", &objects];
        said(&["loadplugin", &package]).succeeded();
        said(&["addhandler", "a", "--event", "clients.create", "--task", "/bin/true"]).succeeded();
        for _start in 0..3 {
            platform(&home.path());
            let refused = home.run(&["--json", "listplugins"]);
            assert_eq!(refused.code, Some(1), "{refused:#?}");
            let error: Value = serde_json::from_str(refused.stderr.trim()).expect("JSON");
            assert_eq!(error["kind"], "group_writable", "{error}");
            home.run(&call).failed_with(&[
                "its group",
                "libraries are loaded",
                "chmod go-w",
                "BILLHOOK_GROUP_WRITABLE=1",
            ]);
            said(&call).succeeded();
            said(&["emit", "clients.create"]).succeeded();
            said(&["setplugin", "x", "--isolation", "process"]).succeeded();
            said(&call).succeeded();
            // What the platform opened within it is closed again.
            for (path, mode) in modes(&home.path()) {
                let is_deep =
                    path.strip_prefix(home.path().join("packages")).is_ok_and(|rest| rest.components().count() > 0);
                assert!(is_deep || mode & 0o077 == 0, "{}: {mode:o}", path.display());
            }
            assert_eq!(mode(home.path()) & 0o070, 0o070, "the folder itself is left as it is");
            home.run(&["--group-writable", "listplugins"]).succeeded();
        }
        let mut serve = home.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-no-auth"]);
        serve.env("BILLHOOK_GROUP_WRITABLE", "yes").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut serving = Killed::start(&mut serve);
        let mut line = String::new();
        let out = serving.0.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("read");
        assert!(line.starts_with("listening on"), "{line}");
    }
}

#[test]
fn whatever_the_operator_said_others_and_groups_of_others_write_to_no_home() {
    let home = Home::new();
    load(&home, &Package::new("X"), &[]).succeeded();
    let said = |arguments: &[&str]| run(home.command(arguments).env("BILLHOOK_GROUP_WRITABLE", "1"));
    set(home.path(), 0o777);
    said(&["listplugins"]).failed_with(&["others than its user can write to it", "chmod go-w"]);
    set(home.path(), 0o770);
    said(&["listplugins"]).succeeded();
    for word in ["0", "", "no"] {
        run(home.command(&["listplugins"]).env("BILLHOOK_GROUP_WRITABLE", word)).failed_with(&["chmod go-w"]);
    }
    // Nor does a file in the home say it: whoever can write to the home could.
    home.file("home/config.toml", "group_writable = true");
    home.run(&["listplugins"]).failed_with(&["group_writable"]);
    fs::remove_file(home.path().join("config.toml")).expect("removed");
    home.run(&["listplugins"]).failed_with(&["chmod go-w"]);
    if !rustix::process::geteuid().is_root() {
        skip("this user can give nothing to another group");
        return;
    }
    chown(home.path(), None, Some(54_321)).expect("given");
    said(&["listplugins"]).failed_with(&["its group 54321", "which isn't this process's"]);
}

#[test]
fn what_others_could_write_to_in_a_home_is_refused_or_closed_where_they_could_not_get_there() {
    let inner = [
        ("packages", 0o777),
        ("staging", 0o770),
        ("locks", 0o777),
        ("workers", 0o1777),
        ("registry.db", 0o666),
        ("ledger.db", 0o660),
        ("executions.db", 0o606),
        ("lock", 0o622),
    ];
    let home = Home::new();
    load(&home, &Package::new("X"), &["--isolation", "process"]).succeeded();
    home.run(&["addhandler", "a", "--event", "clients.create", "--task", "/bin/true"]).succeeded();
    home.run(&["emit", "clients.create"]).succeeded();
    let objects = objects(&home, "X");
    home.run(&["callplugin", "x", "on_product_acquisition", "--objects", &objects]).succeeded();
    for (name, opened) in inner {
        let path = home.path().join(name);
        let closed = mode(&path);
        set(&path, opened);
        set(home.path(), 0o755);
        home.run(&["listplugins"]).failed_with(&[path.to_str().expect("UTF-8"), "others than its user can write to"]);
        assert_eq!(mode(&path), opened, "{name}: what may be somebody's is left to be looked at");
        // Nobody but its user could get there.
        set(home.path(), 0o700);
        home.run(&["listplugins"]).succeeded();
        assert_eq!(mode(&path), closed, "{name}");
    }
    home.run(&["callplugin", "x", "on_product_acquisition", "--objects", &objects]).succeeded();
}

#[test]
fn a_package_that_is_coming_in_is_no_left_over() {
    let home = Home::new();
    let host = home.host();
    let arriving = host.upload_file().expect("made");
    home.run(&["listplugins"]).succeeded();
    assert!(arriving.path().exists(), "it is in use");
    let path = arriving.path().to_owned();
    let (file, _) = arriving.keep().expect("kept");
    drop(file);
    home.run(&["listplugins"]).succeeded();
    assert!(!path.exists(), "nobody writes it any more");
}

/// Verbs that look.
const LOOKING: [&[&str]; 11] = [
    &["listplugins"],
    &["showplugin", "x"],
    &["listhandlers"],
    &["showhandler", "waits"],
    &["listevents"],
    &["explain", "clients.create"],
    &["listdeliveries"],
    &["showdelivery", "1"],
    &["log"],
    &["listresources"],
    &["token", "list"],
];

/// A home on a small disk, with something of everything in it.
fn furnished() -> Option<Home> {
    let home = Home::on_small_disk("size=96m")?;
    load(&home, &Package::new("X"), &[]).succeeded();
    let waits =
        ["addhandler", "waits", "--event", "clients.create", "--task", "http://127.0.0.1:9/", "--attempts", "1"];
    home.run(&waits).succeeded();
    home.run(&["emit", "clients.create", "--object", "7"]);
    home.run(&["token", "create", "--scope", "read", "--name", "me"]).succeeded();
    Some(home)
}

fn look(home: &Home) -> Vec<String> {
    LOOKING.iter().map(|arguments| home.run(arguments).succeeded().stdout).collect()
}

/// Every verb that changes something says that nothing can be changed.
fn check_refused(home: &Home) {
    let package = Package::new("X").version("2.0").write(home.folder());
    let (package, settings) = (package.to_str().expect("UTF-8").to_owned(), home.file("settings.json", "{}"));
    let changing: [&[&str]; 17] = [
        &["loadplugin", &package],
        &["removeplugin", "x", "--force"],
        &["downgradeplugin", "x"],
        &["enableplugin", "x"],
        &["disableplugin", "x"],
        &["setplugin", "x", "--settings", &settings],
        &["addhandler", "more", "--event", "clients.create", "--task", "/bin/true"],
        &["sethandler", "waits", "--status", "disabled"],
        &["removehandler", "waits", "--force"],
        &["addevent", "own.event"],
        &["removeevent", "own.event"],
        &["emit", "clients.create", "--no-wait"],
        &["redrive", "1"],
        &["discard", "1"],
        &["token", "create", "--scope", "read"],
        &["deliver"],
        &["serve", "--listen", "127.0.0.1:0"],
    ];
    for arguments in changing {
        // There is nothing of that name, so nothing would be changed.
        if arguments[0] == "removeevent" || arguments[0] == "downgradeplugin" {
            assert_eq!(home.run(arguments).code, Some(1), "{arguments:?}");
            continue;
        }
        let refused = home.run(&[&["--json"], arguments].concat());
        assert_eq!(refused.code, Some(1), "{arguments:?}: {refused:#?}");
        let error: Value = serde_json::from_str(refused.stderr.lines().last().unwrap_or_default()).expect("JSON");
        assert!(error["error"].as_str().is_some_and(|text| text.contains("read-only")), "{arguments:?}: {error}");
        assert_eq!(error["kind"], "disk_read_only", "{arguments:?}: {error}");
    }
}

#[test]
fn a_home_on_a_read_only_disk_can_be_looked_at_and_what_would_change_it_says_why_not() {
    let Some(home) = furnished() else { return };
    let before = look(&home);
    home.disk().remount("ro");
    assert_eq!(look(&home), before);
    check_refused(&home);
    let call = ["callplugin", "x", "on_product_acquisition", "--objects", &objects(&home, "X")];
    assert_eq!(home.run(&call).succeeded().stderr, "", "a plugin that keeps nothing needs nothing to be written");
    assert_eq!(look(&home), before);
    home.disk().remount("rw");
    home.run(&["disableplugin", "x"]).succeeded();
}

#[test]
fn what_a_host_that_was_killed_had_committed_is_seen_on_a_read_only_disk() {
    let Some(home) = furnished() else { return };
    // Its log is left beside the registry, with what it did last.
    let killed = run(home.command(&["disableplugin", "x"]).env("BILLHOOK_KILL_AT", "after commit"));
    assert_eq!(killed.code, None, "{killed:#?}");
    home.disk().remount("ro");
    let listed = home.run(&["--json", "listplugins"]).succeeded().json();
    assert_eq!(listed[0]["status"], "disabled", "{listed}");
}

#[test]
fn a_home_of_another_user_who_lets_it_be_read_can_be_looked_at() {
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", BILLHOOK]).args(arguments);
        command
    };
    let may = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", BILLHOOK, "--version"])
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        skip("this user can run nothing as another");
        return;
    }
    let home = Home::new();
    load(&home, &Package::new("X"), &[]).succeeded();
    set(home.folder(), 0o755);
    for (path, _) in modes(&home.path()).into_iter().chain([(home.path(), 0)]) {
        set(&path, if path.is_dir() { 0o755 } else { 0o644 });
    }
    let listed = run(as_nobody(&["listplugins"]).env("BILLHOOK_HOME", home.path())).succeeded();
    assert_eq!(listed.stdout, home.run(&["listplugins"]).succeeded().stdout);
    run(as_nobody(&["disableplugin", "x"]).env("BILLHOOK_HOME", home.path())).failed_with(&["read-only"]);
    run(as_nobody(&["token", "create", "--scope", "read"]).env("BILLHOOK_HOME", home.path()))
        .failed_with(&["read-only"]);
}

#[test]
fn a_disk_that_lets_nothing_be_run_is_named_and_the_author_is_not() {
    let Some(home) = Home::on_small_disk("size=96m,noexec") else { return };
    let package = Package::new("X");
    for isolation in ["in-process", "process"] {
        let refused = load(&home, &package, &["--isolation", isolation]);
        refused.clone().failed_with(&["is mounted noexec", "not the package's fault"]);
        assert!(!refused.stderr.contains("author"), "{isolation}: {}", refused.stderr);
    }
    // A check unpacks where the system has its place for such things.
    let file = package.write(home.folder());
    let check = run(home.command(&["checkplugin", "--try", file.to_str().expect("UTF-8")]).env("TMPDIR", home.path()));
    check.failed_with(&["is mounted noexec"]);
    let server = Server::start(&home);
    let refused = server.upload(&fs::read(&file).expect("readable")).is(500).json();
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("is mounted noexec")), "{refused}");
    assert!(!refused["detail"].to_string().contains(home.folder().to_str().expect("UTF-8")), "{refused}");
}

#[test]
fn what_was_installed_before_its_disk_let_nothing_be_run_says_why_it_does_not_run() {
    let Some(home) = Home::on_small_disk("size=96m") else { return };
    load(&home, &Package::new("X"), &[]).succeeded();
    load(&home, &Package::new("Y"), &["--isolation", "process"]).succeeded();
    let script = "#!/bin/sh\nexit 0\n";
    home.disk().write("script", script);
    let task = home.path().join("script");
    home.run(&[
        "addhandler",
        "a",
        "--event",
        "clients.create",
        "--mode",
        "before",
        "--task",
        task.to_str().expect("UTF-8"),
    ])
    .succeeded();
    home.run(&["emit", "clients.create", "--no-wait"]).succeeded();
    home.disk().remount("noexec");
    for (id, kind) in [("x", "X"), ("y", "Y")] {
        let call = ["callplugin", id, "on_product_acquisition", "--objects", &objects(&home, kind)];
        home.run(&call).failed_with(&["mounted noexec"]);
    }
    home.run(&["emit", "clients.create", "--no-wait"]).failed_with(&["mounted noexec"]);
}

#[test]
fn packages_on_a_disk_of_their_own_are_installed_upgraded_and_repaired() {
    let Some(home) = Home::with_disk_at("packages", "size=96m") else { return };
    let call = ["callplugin", "x", "on_product_acquisition", "--objects", &objects(&home, "X")];
    load(&home, &Package::new("X"), &[]).succeeded();
    home.run(&call).succeeded();
    load(&home, &Package::new("X").version("2.0"), &[]).succeeded();
    let digest = home.run(&["--json", "showplugin", "x"]).succeeded().json()["history"][1]["digest"].clone();
    home.disk().write(&format!("{}/more", digest.as_str().expect("text")), "damaged");
    let repaired = load(&home, &Package::new("X").version("2.0"), &["--json"]).succeeded().json();
    assert_eq!(repaired["repaired"], true, "{repaired}");
    home.run(&["downgradeplugin", "x"]).succeeded();
    home.run(&call).succeeded();
}
