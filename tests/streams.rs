//! The standard streams and signals: whatever becomes of what is written, the work, its answers and its exit code are the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{BILLHOOK, Home, Killed, Package, Server, asset, order, run, wait_for};

/// What standard error may be like.
#[derive(Debug, Clone, Copy)]
enum Errors {
    Full,
    Closed,
    Broken,
    /// A pipe that nobody reads.
    Unread,
}

const ERRORS: [Errors; 4] = [Errors::Full, Errors::Closed, Errors::Broken, Errors::Unread];

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("it is there")
}

/// Gives a command such a standard error. What is returned has to live as long as the command.
fn with_errors(command: &mut Command, errors: Errors) -> Option<std::io::PipeReader> {
    match errors {
        Errors::Full => drop(command.stderr(full())),
        Errors::Closed => {
            // SAFETY: between fork and exec it closes a descriptor, which is safe there.
            unsafe {
                command.pre_exec(|| {
                    rustix::io::close(2);
                    Ok(())
                });
            }
        }
        Errors::Broken => drop(command.stderr(std::io::pipe().expect("a pipe").1)),
        Errors::Unread => {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            command.stderr(writer);
            return Some(reader);
        }
    }
    None
}

/// A home with a plugin that does what its asset says.
fn home_with_rogue() -> Home {
    let home = Home::new();
    let package = Package::new("Rogue").of("rogue").write(home.folder());
    home.run(&["loadplugin", package.to_str().expect("UTF-8")]).succeeded();
    home
}

fn objects(deed: &str, what: &str) -> Value {
    let mut asset = json!(asset("Rogue"));
    asset["meta_info"] = json!({ "do": deed, "what": what });
    json!({ "asset": asset, "order": order() })
}

#[test]
fn a_server_answers_and_ends_well_whatever_becomes_of_its_log() {
    for errors in ERRORS {
        let home = home_with_rogue();
        let token = home.run(&["token", "create", "--scope", "manage"]).succeeded().stdout;
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "-vv"]);
        let unread = with_errors(&mut command, errors);
        let mut server = Killed::start(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let address = line.trim().strip_prefix("listening on http://").expect("it says where it is").to_owned();
        let client = ureq::Agent::new_with_defaults();
        let bearer = format!("Bearer {}", token.trim());
        for (number, deed) in ["print", "state"].into_iter().cycle().take(60).enumerate() {
            // Two lines of a thousand bytes each time: more than a pipe holds.
            let answered = client
                .post(format!("http://{address}/api/v1/hooks/on_product_acquisition"))
                .header("authorization", &bearer)
                .header("content-type", "application/json")
                .send(objects(deed, "1000").to_string());
            let answered = answered.unwrap_or_else(|error| panic!("{errors:?}, call {number}: {error}"));
            assert_eq!(answered.status(), 200, "{errors:?}");
        }
        let metrics = client.get(format!("http://{address}/metrics")).header("authorization", &bearer).call();
        let metrics = metrics.expect("answered").body_mut().read_to_string().expect("text");
        if matches!(errors, Errors::Full | Errors::Broken) {
            assert!(metrics.contains("billhook_log_lines_lost_total"), "{errors:?}: {metrics}");
        }
        signal(server.0.id(), Signal::TERM);
        assert_eq!(server.0.wait().expect("ended").code(), Some(0), "{errors:?}");
        drop(unread);
    }
}

fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(process, signal).expect("it is there");
}

#[test]
fn a_verb_does_its_work_and_ends_as_it_does_whatever_its_streams_are() {
    let answer = |home: &Home| home.file("objects.json", &objects("", "").to_string());
    for errors in ERRORS {
        let home = home_with_rogue();
        let (objects, package) = (answer(&home), Package::new("Other").write(home.folder()));
        let verbs: [(&[&str], i32); 6] = [
            (&["loadplugin", package.to_str().expect("UTF-8")], 0),
            (&["listplugins"], 0),
            (&["showplugin", "nobody"], 1),
            (&["callplugin", "rogue", "on_product_acquisition", "--objects", &objects], 0),
            (&["disableplugin", "other"], 0),
            (&["--json", "listevents"], 0),
        ];
        for (arguments, expected) in verbs {
            let mut command = home.command(arguments);
            let unread = with_errors(command.stdout(full()), errors);
            let status = Killed::start(&mut command).0.wait().expect("ended");
            assert_eq!(status.code(), Some(expected), "{arguments:?} with {errors:?}");
            drop(unread);
        }
        let plugins = home.run(&["--json", "listplugins"]).succeeded().json();
        let other = plugins.as_array().expect("a list").iter().find(|plugin| plugin["id"] == "other").expect("loaded");
        assert_eq!(other["status"], "disabled");
    }
    let home = home_with_rogue();
    let said = run(home.command(&["listplugins"]).stdout(full()));
    assert!(said.stderr.contains("the answer can't be written to standard output"), "{}", said.stderr);
}

#[test]
fn what_plugins_print_and_close_is_no_part_of_an_answer() {
    let home = home_with_rogue();
    for deed in ["print", "close-output"] {
        let objects = home.file("objects.json", &objects(deed, "10").to_string());
        let said = home.run(&["--json", "callplugin", "rogue", "on_product_acquisition", "--objects", &objects]);
        assert_eq!(said.succeeded().json()["outcome"], "ok", "{deed}");
    }
    let server = Server::start(&home);
    for deed in ["print", "close-output", "print"] {
        server.post("/api/v1/hooks/on_product_acquisition", &objects(deed, "10")).is(200);
    }
}

#[test]
fn every_signal_that_ends_a_process_lets_a_server_end_what_it_began() {
    let signals = [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::TERM,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::XCPU,
        Signal::IO,
        Signal::POWER,
    ];
    let home = home_with_rogue();
    for sent in signals {
        let server = Server::start(&home);
        let slow = objects("sleep", "700");
        thread::scope(|scope| {
            let call = scope.spawn(|| server.post("/api/v1/hooks/on_product_acquisition", &slow));
            wait_for("the call", || server.get("/api/v1/plugins/rogue").status == 200);
            thread::sleep(Duration::from_millis(200));
            signal(server.id(), sent);
            // A closed terminal is told twice.
            if sent == Signal::HUP {
                signal(server.id(), sent);
            }
            assert_eq!(call.join().expect("no panic").status, 200, "{sent:?}");
        });
        assert_eq!(server.wait().code(), Some(0), "{sent:?}");
    }
}

#[test]
fn only_verbs_that_are_to_make_a_home_make_one() {
    let objects = |home: &Home| home.file("objects.json", "{}");
    for is_there in [false, true] {
        let home = Home::new();
        if is_there {
            fs::create_dir_all(home.path()).expect("made");
        }
        let objects = objects(&home);
        for arguments in [
            &["listevents"] as &[&str],
            &["listplugins"],
            &["listhandlers"],
            &["listresources"],
            &["token", "list"],
            &["emit", "clients.create"],
            &["deliver", "--until-done"],
            &["listdeliveries"],
            &["log"],
            &["explain", "clients.create"],
            &["callplugin", "x", "get_usage_specs", "--objects", &objects],
            &["removeplugin", "x"],
            &["redrive", "1"],
            &["reconcile"],
        ] {
            let said = home.run(arguments);
            let made: Vec<_> = fs::read_dir(home.path()).into_iter().flatten().flatten().collect();
            assert!(made.is_empty(), "{arguments:?} made {made:?}: {said:?}");
        }
        home.run(&["emit", "clients.create"]).failed_with(&["there is no home at"]);
        assert!(home.run(&["listevents"]).succeeded().stdout.contains("clients.create"));
    }
}

#[test]
fn nothing_that_others_say_hides_what_is_shown() {
    let home = home_with_rogue();
    let objects = home.file("objects.json", &objects("hide", "").to_string());
    let call = ["callplugin", "rogue", "on_product_acquisition", "--objects", &objects];
    for before in [&["-vvv"] as &[&str], &["-vvv", "--json"]] {
        let said = home.run(&[before, &call].concat()).succeeded();
        let hidden = |text: &str| text.chars().find(|c| matches!(c, '\u{1b}' | '\u{202e}' | '\u{200f}' | '\u{7f}'));
        assert_eq!(hidden(&said.stdout), None, "{}", said.stdout);
        assert_eq!(hidden(&said.stderr), None, "{}", said.stderr);
        assert_eq!(said.json()["changes"]["meta_info"], "\u{1b}[2J\u{202e}evil\u{200f}", "it means the same");
    }
}

#[test]
fn as_the_first_process_it_takes_the_ends_of_whatever_ends() {
    // It needs the right to make a namespace of processes.
    let may = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no namespace of processes can be made");
        return;
    }
    let home = Home::new();
    let task = home.file("leaves.sh", "#!/bin/sh\n(sleep 0.05 &) \ncat > /dev/null\n");
    fs::set_permissions(&task, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    home.run(&["addhandler", "leaves", "--event", "clients.create", "--task", &task]).succeeded();
    for _ in 0..20 {
        home.run(&["emit", "clients.create"]).succeeded();
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", BILLHOOK, "deliver"]);
    command.env("BILLHOOK_HOME", home.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut init = Killed::start(&mut command);
    let host = home.host();
    wait_for("all to be delivered", || {
        let all = host.deliveries(&billhook::DeliveryFilter::default()).expect("readable");
        all.iter().all(|delivery| delivery.status == billhook::DeliveryStatus::Done)
    });
    thread::sleep(Duration::from_millis(300));
    let zombies = zombies_below(init.0.id());
    assert_eq!(zombies, 0, "ended processes that nobody took");
    // It hands on what asks it to end.
    let first = children(init.0.id());
    signal(*first.first().expect("the first process of the namespace"), Signal::TERM);
    let mut said = String::new();
    init.0.stdout.take().expect("piped").read_to_string(&mut said).expect("read");
    assert_eq!(init.0.wait().expect("ended").code(), Some(0), "{said}");
}

/// The processes whose parent is this one.
fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// How many processes below this one have ended and were not taken.
fn zombies_below(parent: u32) -> usize {
    children(parent)
        .into_iter()
        .map(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let is_zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
            usize::from(is_zombie) + zombies_below(child)
        })
        .sum()
}
