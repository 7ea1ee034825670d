//! The standard streams: whatever becomes of what is written, the work, its answers and its exit code are the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    Home, Killed, Package, Server, deed, home_with_rogue, run, run_on_terminal, signal, terminal, wait_for,
};

/// What standard error may be like.
#[derive(Debug, Clone, Copy)]
enum Errors {
    Full,
    Closed,
    Broken,
    /// A pipe that nobody reads.
    Unread,
    /// A terminal that shows nothing more, as after Ctrl-S.
    Held,
}

const ERRORS: [Errors; 5] = [Errors::Full, Errors::Closed, Errors::Broken, Errors::Unread, Errors::Held];

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("it is there")
}

/// Lets a command be started without some of its standard streams.
fn closing(command: &mut Command, streams: std::ops::RangeInclusive<i32>) {
    // SAFETY: between fork and exec it closes descriptors, which is safe there.
    unsafe {
        command.pre_exec(move || {
            streams.clone().for_each(|stream| rustix::io::close(stream));
            Ok(())
        });
    }
}

/// Gives a command such a standard error. What is returned has to live as long as the command.
fn with_errors(command: &mut Command, errors: Errors) -> Option<OwnedFd> {
    match errors {
        Errors::Full => drop(command.stderr(full())),
        Errors::Closed => closing(command, 2..=2),
        Errors::Broken => drop(command.stderr(std::io::pipe().expect("a pipe").1)),
        Errors::Unread => {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            command.stderr(writer);
            return Some(reader.into());
        }
        Errors::Held => {
            let (terminal, side) = terminal();
            command.stderr(side);
            return Some(terminal);
        }
    }
    None
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
        for (number, what) in ["print", "state"].into_iter().cycle().take(60).enumerate() {
            // Two lines of a thousand bytes each time: more than a pipe holds.
            let answered = client
                .post(format!("http://{address}/api/v1/hooks/on_product_acquisition"))
                .header("authorization", &bearer)
                .header("content-type", "application/json")
                .send(deed(what, "1000").to_string());
            let answered = answered.unwrap_or_else(|error| panic!("{errors:?}, call {number}: {error}"));
            assert_eq!(answered.status(), 200, "{errors:?}");
        }
        let metrics = client.get(format!("http://{address}/metrics")).header("authorization", &bearer).call();
        let metrics = metrics.expect("answered").body_mut().read_to_string().expect("text");
        if matches!(errors, Errors::Full | Errors::Broken) {
            assert!(metrics.contains("billhook_log_lines_lost_total"), "{errors:?}: {metrics}");
        }
        signal(server.0.id(), libc::SIGTERM);
        assert_eq!(server.0.wait().expect("ended").code(), Some(0), "{errors:?}");
        drop(unread);
    }
}

#[test]
fn a_verb_does_its_work_and_ends_as_it_does_whatever_its_streams_are() {
    let answer = |home: &Home| home.file("objects.json", &deed("", "").to_string());
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
    for (verb, status) in [("disableplugin", "disabled"), ("enableplugin", "enabled")] {
        let mut command = home.command(&[verb, "rogue"]);
        match verb {
            "disableplugin" => closing(&mut command, 1..=1),
            _ => drop(command.stdout(std::io::pipe().expect("a pipe").1)),
        }
        assert_eq!(run(&mut command).succeeded().stderr, "", "nobody wants to know");
        assert_eq!(home.run(&["--json", "listplugins"]).succeeded().json()[0]["status"], status);
    }
    let said = run(home.command(&["listplugins"]).stdout(full()));
    assert!(said.stderr.contains("the answer can't be written to standard output"), "{}", said.stderr);
}

#[test]
fn what_plugins_print_and_close_is_no_part_of_an_answer() {
    let home = home_with_rogue();
    for what in ["print", "close-output"] {
        let objects = home.file("objects.json", &deed(what, "10").to_string());
        let said = home.run(&["--json", "callplugin", "rogue", "on_product_acquisition", "--objects", &objects]);
        assert_eq!(said.succeeded().json()["outcome"], "ok", "{what}");
    }
    let server = Server::start(&home);
    for what in ["print", "close-output", "print"] {
        server.post("/api/v1/hooks/on_product_acquisition", &deed(what, "10")).is(200);
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
    let objects = home.file("objects.json", &deed("hide", "").to_string());
    let call = ["callplugin", "rogue", "on_product_acquisition", "--objects", &objects];
    let hidden = |text: &str| text.chars().find(|c| matches!(c, '\u{1b}' | '\u{202e}' | '\u{200f}' | '\u{7f}'));
    for before in [&["-vvv"] as &[&str], &["-vvv", "--json"]] {
        let said = home.run(&[before, &call].concat()).succeeded();
        assert_eq!(hidden(&said.stdout), None, "{}", said.stdout);
        assert_eq!(hidden(&said.stderr), None, "{}", said.stderr);
        assert_eq!(said.json()["changes"]["meta_info"], "\u{1b}[2J\u{202e}evil\u{200f}", "it means the same");
        assert_eq!(said.stderr.matches("evil").count(), 3, "its log and what it printed: {}", said.stderr);
        let (code, shown) = run_on_terminal(&mut home.command(&[before, &call].concat()));
        assert_eq!((code, shown.contains("\u{1b}[2J")), (Some(0), false), "{shown}");
        assert!(!shown.contains(['\u{202e}', '\u{200f}', '\u{7f}']) && shown.contains("evil"), "{shown}");
    }
    let server = Server::start(&home);
    for path in ["/a\u{1b}[2J", "/\u{202e}evil", "/%1b%5b2J", "/line%0aINFO"] {
        let mut stream = TcpStream::connect(&server.address).expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address);
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sent");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.post("/api/v1/hooks/on_product_acquisition", &deed("hide", "")).is(200);
    assert!(server.stop());
    let log = fs::read_to_string(home.folder().join("server.log")).expect("text");
    assert_eq!(hidden(&log), None, "{log}");
    assert!(log.matches("evil").count() >= 3, "{log}");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

/// A server whose log goes into a pipe, and its address.
fn server_with_log(home: &Home, log: std::io::PipeWriter) -> (Killed, String) {
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-no-auth"]);
    let mut server = Killed::start(command.stdout(Stdio::piped()).stderr(log));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    (server, line.trim().strip_prefix("listening on ").expect("it says where it is").to_owned())
}

fn call(address: &str, what: &str, how: &str) {
    let call = ureq::post(format!("{address}/api/v1/hooks/on_product_acquisition"));
    let answer = call.content_type("application/json").send(deed(what, how).to_string());
    assert_eq!(answer.expect("answered").status(), 200);
}

#[test]
fn lines_of_the_log_that_were_lost_are_counted_and_told_once_they_can_be_written() {
    let home = home_with_rogue();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (mut server, address) = server_with_log(&home, writer);
    // More than the queue and the pipe hold.
    for _ in 0..8 {
        call(&address, "print", "1000000");
    }
    let lost = || {
        let metrics = ureq::get(format!("{address}/metrics")).call().expect("answered").body_mut().read_to_string();
        let metrics = metrics.expect("text");
        let count = metrics.lines().find_map(|line| line.strip_prefix("billhook_log_lines_lost_total "));
        count.expect("it is there from the beginning").parse::<u64>().expect("a number")
    };
    wait_for("lines to be lost", || lost() > 0);
    let read = thread::spawn(move || BufReader::new(reader).lines().collect::<Result<Vec<_>, _>>().expect("text"));
    // Once it is read, there is room again: what is logged then is told, and what was lost before.
    call(&address, "print", "7");
    let all = lost();
    signal(server.0.id(), libc::SIGTERM);
    assert_eq!(server.0.wait().expect("ended").code(), Some(0));
    drop(server);
    let lines: Vec<Value> = read.join().expect("no panic").iter().map(|line| json_of(line)).collect();
    let told: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(told >= all, "{told} of {all} were told");
    assert!(lines.iter().any(|line| line["message"] == "asked to end: what is under way comes to its end"));
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn an_answer_is_whole_where_whoever_reads_it_is_slow_and_made_the_pipe_one_that_does_not_wait() {
    let home = home_with_rogue();
    let expected = home.run(&["completions", "bash"]).succeeded();
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("set");
    rustix::io::ioctl_fionbio(&writer, true).expect("set");
    assert!(expected.stdout.len() > 2 * 4096, "it has to be longer than the pipe");
    let mut command = home.command(&["completions", "bash"]);
    let mut run = Killed::start(command.stdout(writer));
    drop(command);
    thread::sleep(Duration::from_millis(200));
    let mut answer = String::new();
    reader.read_to_string(&mut answer).expect("read");
    assert_eq!(run.0.wait().expect("ended").code(), Some(0));
    assert_eq!(answer, expected.stdout);
}

#[test]
fn a_server_serves_whatever_becomes_of_its_standard_output() {
    let home = home_with_rogue();
    // Full from the beginning, and read by nobody.
    let (mut reader, mut stuffed) = std::io::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&stuffed, 4096).expect("set");
    std::io::Write::write_all(&mut stuffed, &[b'-'; 4096]).expect("written");
    let broken = std::io::pipe().expect("a pipe").1;
    for output in [Some(Stdio::from(stuffed)), Some(Stdio::from(broken)), Some(Stdio::from(full())), None] {
        // Nobody says where it is, so it has to be told.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("bound");
        let mut command = home.command(&["serve", "--insecure-no-auth", "--listen", &port.to_string()]);
        match output {
            Some(output) => drop(command.stdout(output).stderr(Stdio::null())),
            None => closing(&mut command, 0..=2),
        }
        let mut server = Killed::start(&mut command);
        drop(command);
        wait_for("the server", || TcpStream::connect(port).is_ok());
        call(&format!("http://{port}"), "", "");
        for stream in 0..=2 {
            // Whoever writes to one of them by habit must not write into a database, or to a client.
            let file = fs::read_link(format!("/proc/{}/fd/{stream}", server.0.id())).expect("it is open");
            let is_harmless = file.starts_with("/dev") || file.to_string_lossy().starts_with("pipe:");
            assert!(is_harmless, "{stream} is {}", file.display());
        }
        signal(server.0.id(), libc::SIGTERM);
        assert_eq!(server.0.wait().expect("ended").code(), Some(0));
    }
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("read");
    assert_eq!(said, "-".repeat(4096));
}

#[test]
fn events_are_delivered_and_deliveries_end_where_nobody_reads_what_is_printed() {
    let home = Home::new();
    let task = home.file("nothing.sh", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(&task, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    home.run(&["addhandler", "nothing", "--event", "clients.create", "--task", &task]).succeeded();
    for (output, unread) in [
        (Stdio::from(full()), None),
        {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("set");
            (Stdio::from(writer), Some(reader))
        },
        (Stdio::from(std::io::pipe().expect("a pipe").1), None),
    ] {
        let host = home.host();
        for _ in 0..80 {
            host.emit(&billhook::NewEvent::new("clients.create")).expect("emitted");
        }
        drop(host);
        let mut command = home.command(&["deliver", "--until-done"]);
        let mut deliver = Killed::start(command.stdout(output).stderr(Stdio::null()));
        assert_eq!(deliver.0.wait().expect("ended").code(), Some(0));
        drop(unread);
        let all = home.host().deliveries(&billhook::DeliveryFilter::default()).expect("readable");
        assert!(all.iter().all(|delivery| delivery.status == billhook::DeliveryStatus::Done));
    }
}

#[test]
fn the_last_words_of_a_plugin_that_crashes_are_in_the_log() {
    let home = home_with_rogue();
    for (what, number, words) in
        [("segfault", libc::SIGSEGV, "about to crash"), ("overflow", libc::SIGABRT, "has overflowed its stack")]
    {
        let objects = home.file("objects.json", &deed(what, "").to_string());
        let call = ["callplugin", "rogue", "on_product_acquisition", "--objects", &objects];
        let output = home.command(&call).output().expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(number), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_reader_of_the_log_that_takes_little_by_little_does_not_hold_up_the_end() {
    let home = home_with_rogue();
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (mut server, address) = server_with_log(&home, writer);
    call(&address, "print", "1000000");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Ten times a second some of it: all of it would take minutes.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                reader.read_exact(&mut [0; 1024]).expect("there is more");
                thread::sleep(Duration::from_millis(100));
            }
        });
        signal(server.0.id(), libc::SIGTERM);
        let code = server.0.wait().expect("ended").code();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(code, Some(0));
    });
}
