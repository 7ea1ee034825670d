//! What a worker may and may not, and how the operator says so.

use std::{fs, path::Path, time::Duration};

use billhook::{Host, Install, Isolation, data::Asset};
use serde_json::{Value, json};

use super::{Rogue, kill, processes, runtime};
use crate::support::{Home, Package, asset, options, order, run, wait_for};

#[test]
fn a_worker_sees_what_it_may_see_and_nothing_else() {
    let rogue = Rogue::new();
    let home = rogue.home.path();
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let refused = |deed: &str, what: &str| {
        let told = rogue.answers(deed, what).to_string();
        assert!(told.contains("ermission denied") || told.contains("not permitted"), "{deed} {what}: {told}");
    };
    refused("read", "/etc/passwd");
    refused("read", &path(&home.join("registry.db")));
    refused("read", &format!("/proc/{}/environ", std::process::id()));
    refused("write", &path(&rogue.home.folder().join("written")));
    refused("write", "/tmp/written-by-a-worker");
    refused("chmod", &path(&home.join("registry.db")));
    refused("udp", "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    refused("tcp", &listener.local_addr().expect("an address").to_string());
    refused("unix", "/nowhere");
    refused("fork", "");
    refused("run", "/bin/true");
    refused("kill", &std::process::id().to_string());
    refused("kill", "-1");
    refused("kill-parent", "");
    assert_eq!(rogue.answers("escapes", ""), json!([]), "what it got through with");

    // Its own folder, its package, and threads are its own.
    let folder = rogue.answers("folder", "").as_str().expect("text").to_owned();
    assert!(Path::new(&folder).starts_with(home.join("workers")), "{folder}");
    assert_eq!(rogue.answers("write", "own"), "written");
    assert_eq!(rogue.answers("read", &format!("{folder}/own")), 1);
    assert_eq!(rogue.answers("package", ""), 2);
    assert_eq!(rogue.answers("thread", ""), 7);
    let environment = rogue.answers("environment", "");
    assert_eq!(environment, json!({"HOME": folder, "TMPDIR": folder}));
    let open = rogue.answers("open", "");
    let open: Vec<&str> = open.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let is_own = |file: &&str| {
        let own = ["/dev/null", "/proc/"].iter().any(|own| file.starts_with(own));
        own || file.starts_with("socket:") || file.starts_with("pipe:")
    };
    assert!(open.iter().all(is_own), "{open:?}");
    let sockets = open.iter().filter(|file| file.starts_with("socket:")).count();
    assert_eq!(sockets, 2, "those of calls and of services: {open:?}");
}

#[test]
fn the_operator_lets_a_worker_do_more() {
    let rogue = Rogue::new();
    let shared = rogue.home.folder().join("shared");
    fs::create_dir(&shared).expect("made");
    fs::write(shared.join("data"), "four").expect("written");
    let mut settings = runtime();
    settings["limits"] = json!({
        "network": true, "processes": true, "environment": ["CARGO_PKG_NAME", "NO_SUCH"], "write": [shared], "open_files": 128,
    });
    rogue.run_so(&settings);
    let data = shared.join("data");
    assert_eq!(rogue.answers("read", data.to_str().expect("UTF-8")), 4);
    assert_eq!(rogue.answers("write", data.to_str().expect("UTF-8")), "written");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    assert_eq!(rogue.answers("tcp", &listener.local_addr().expect("an address").to_string()), "connected");
    assert_eq!(rogue.answers("udp", ""), "bound");
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        assert_eq!(rogue.answers("read", file).is_u64(), Path::new(file).exists(), "{file}");
    }
    assert!(rogue.answers("read", "/etc/passwd").is_string());
    assert_eq!(rogue.answers("run", "/bin/true"), 0);
    if let Ok(name) = std::env::var("CARGO_PKG_NAME") {
        assert_eq!(rogue.answers("environment", "")["CARGO_PKG_NAME"], name.as_str());
    }

    // What it starts ends with it, also what left its group; and it ends also if its worker crashes.
    for (what, end) in [("group", "sleep"), ("setsid", "sleep"), ("setsid", "segfault"), ("setsid", "kill")] {
        let child = rogue.answers("fork", what).as_u64().expect("a process");
        assert!(Path::new(&format!("/proc/{child}")).exists());
        settings["deadline_ms"] = json!(1_000);
        match end {
            "kill" => kill(rogue.pid(), rustix::process::Signal::KILL),
            end => drop(rogue.does(end, "60000").expect_err("it is ended")),
        }
        wait_for(&format!("{what} and {end}"), || !Path::new(&format!("/proc/{child}")).exists());
        rogue.check_alive(end);
    }
}

#[test]
fn a_package_that_is_to_run_confined_is_tried_confined() {
    let home = Home::new();
    for (deed, what, expected) in [
        ("abort", "", "crashed when it was constructed: it was ended by signal 6"),
        ("loop", "", "hung when it was constructed"),
        ("panic", "", "panicked at"),
    ] {
        let settings = home.file("settings.json", &json!({"do": deed, "what": what}).to_string());
        let package = Package::new("Rogue").of("rogue").write(home.folder());
        let options = options().trial_limit(Duration::from_secs(2));
        let host = Host::open_with(home.path(), options).expect("opens");
        let text = fs::read_to_string(settings).expect("there");
        let how = Install { settings: Some(&text), isolation: Some(Isolation::Process), ..Install::default() };
        let error = host.install(&package, &how).expect_err(deed).to_string();
        assert!(error.contains(expected), "{deed}: {error}");
        assert_eq!(host.list().expect("readable").len(), 0);
    }
    wait_for("trials to end", || processes(&home).is_empty());
    // By the command, and what a constructor reads is refused there too.
    let settings = home.file("settings.json", &json!({"do": "read", "what": "/etc/passwd"}).to_string());
    let package = Package::new("Rogue").of("rogue").write(home.folder());
    let load = ["loadplugin", package.to_str().expect("UTF-8"), "--isolation", "process", "--settings", &settings];
    home.run(&load).succeeded();
    let shown = home.run(&["showplugin", "rogue"]).succeeded().stdout;
    assert!(shown.contains("runs          in worker processes"), "{shown}");
    home.run(&["setplugin", "rogue", "--isolation", "in-process"]).succeeded();
    let runtime =
        home.file("runtime.json", r#"{"deadline_ms": 5, "hooks": {"on_product_acquisition": {"deadline_ms": 7}}}"#);
    home.run(&["setplugin", "rogue", "--isolation", "process", "--runtime", &runtime]).succeeded();
    home.run(&["setplugin", "rogue", "--runtime", &runtime]).succeeded();
    let shown = home.run(&["showplugin", "rogue", "--json"]).succeeded().json();
    assert_eq!(shown["runtime"]["isolation"], "process", "a file of limits takes it out of no worker");
    assert_eq!(shown["runtime"]["hooks"]["on_product_acquisition"]["deadline_ms"], 7);
}

/// Lets a command run as if the kernel lacked Landlock, or seccomp.
fn without(command: &mut std::process::Command, confinement: &str) {
    use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
    let (call, rules, error) = if confinement == "landlock" {
        (libc::SYS_landlock_create_ruleset, Vec::new(), libc::ENOSYS)
    } else {
        let asked = u64::from(libc::PR_GET_SECCOMP.unsigned_abs());
        let asks = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, asked).expect("a condition");
        (libc::SYS_prctl, vec![SeccompRule::new(vec![asks]).expect("a rule")], libc::EINVAL)
    };
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    let here = std::env::consts::ARCH.try_into().expect("a known machine");
    let filter = SeccompFilter::new([(call, rules)].into(), SeccompAction::Allow, refuse, here).expect("a filter");
    let program: seccompiler::BpfProgram = filter.try_into().expect("a program");
    let apply = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: between fork and exec it makes two system calls, and allocates only if they fail.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, apply) };
}

#[test]
fn where_the_kernel_lacks_what_confines_workers_they_start_only_if_the_operator_allows_it() {
    let home = Home::new();
    let package = Package::new("Rogue").of("rogue").write(home.folder());
    let package = package.to_str().expect("UTF-8");
    home.run(&["loadplugin", package, "--isolation", "process"]).succeeded();
    let asset = Asset { meta_info: json!({"do": "thread"}).into(), ..asset("Rogue") };
    let objects = home.file("objects.json", &json!({"asset": asset, "order": order()}).to_string());
    let call = ["callplugin", "rogue", "on_product_acquisition", "--objects", &objects];
    for lacking in ["landlock", "seccomp"] {
        let run_without = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            without(&mut command, lacking);
            run(&mut command)
        };
        home.run(&["setplugin", "rogue", "--runtime", &home.file("runtime.json", "{}")]).succeeded();
        run_without(&call).failed_with(&[&format!("the kernel lacks {lacking}"), "may_lack"]);
        let shown = run_without(&["showplugin", "rogue"]).succeeded().stdout;
        assert!(shown.contains(&format!("this kernel lacks {lacking}: its workers don't start")), "{shown}");

        let allowed = json!({"limits": {"may_lack": [lacking]}}).to_string();
        let allowed = home.file("runtime.json", &allowed);
        run_without(&["setplugin", "rogue", "--runtime", &allowed]).succeeded();
        let called = run_without(&call).succeeded();
        assert_eq!(called.json()["changes"]["meta_info"], 7);
        assert!(called.stderr.contains(&format!("its worker is not confined by {lacking}")), "{}", called.stderr);
        let shown = run_without(&["showplugin", "rogue"]).succeeded().stdout;
        assert!(shown.contains(&format!("this kernel lacks {lacking}: allowed")), "{shown}");
    }
}

#[test]
fn how_a_plugin_is_run_is_checked_before_it_is_changed() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    for (text, expected) in [
        (r#"{"deadline_ms": 0}"#, "a deadline of 0 ms is not between 1 ms and a day"),
        (r#"{"hooks": {"on_birthday": {}}}"#, "\"on_birthday\" is no hook"),
        (r#"{"workers": 0}"#, "workers is 0, which is not between 1 and 64"),
        (r#"{"limits": {"memory_mb": 1}}"#, "memory_mb is 1"),
        (r#"{"limits": {"read": ["data"]}}"#, "the path data is not absolute"),
        (r#"{"limits": {"environment": ["A=B"]}}"#, "\"A=B\" is no name of an environment variable"),
        (r#"{"limits": {"may_lack": ["luck"]}}"#, "unknown variant `luck`"),
        (r#"{"deadline": 5}"#, "unknown field `deadline`"),
        ("[]", "is refused"),
    ] {
        let file = home.file("runtime.json", text);
        home.run(&["setplugin", "x", "--runtime", &file]).failed_with(&[expected]);
    }
    assert_eq!(home.run(&["setplugin", "x"]).code, Some(2));
    assert_eq!(home.run(&["setplugin", "x", "--isolation", "elsewhere"]).code, Some(2));
    let shown = home.run(&["showplugin", "x", "--json"]).succeeded().json();
    assert_eq!(shown["runtime"]["deadline_ms"], 30_000);
}
