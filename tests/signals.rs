//! Signals: each that would end a process lets what is under way come to its end; and the command as the first process of a
//! container.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
};

use crate::support::{BILLHOOK, Home, Killed, Server, deed, home_with_rogue, library, signal, terminal, wait_for};
use billhook::{DeliveryFilter, DeliveryStatus, NewEvent};

/// Every signal that ends a process by default, but for those of crashes and the one that nobody can watch for. The last are
/// real-time signals: the first, one in the middle, the last.
const ENDING: [(i32, &str); 16] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (24, "XCPU"),
    (26, "VTALRM"),
    (27, "PROF"),
    (29, "IO"),
    (30, "PWR"),
    (34, "RTMIN"),
    (50, "RTMIN+16"),
    (64, "RTMAX"),
];

#[test]
fn every_signal_that_ends_a_process_lets_a_server_end_what_it_began() {
    let home = home_with_rogue();
    for signals in ENDING.chunks(4) {
        thread::scope(|scope| {
            for (number, name) in signals {
                let home = &home;
                scope.spawn(move || {
                    let server = Server::start(home);
                    let begun = home.folder().join(format!("begun-{number}"));
                    let lingers = deed("linger", begun.to_str().expect("UTF-8"));
                    thread::scope(|scope| {
                        let call = scope.spawn(|| server.post("/api/v1/hooks/on_product_acquisition", &lingers));
                        wait_for("the call", || begun.exists());
                        signal(server.id(), *number);
                        if *name == "HUP" {
                            // A closed terminal is told twice; and whoever asks once more, otherwise, is asking for the first time.
                            signal(server.id(), 1);
                            signal(server.id(), 15);
                        }
                        assert_eq!(call.join().expect("no panic").status, 200, "{name}");
                    });
                    assert_eq!(server.wait().code(), Some(0), "{name}");
                });
            }
        });
    }
}

#[test]
fn every_signal_that_ends_a_process_lets_deliveries_end_that_were_begun() {
    for (number, name) in [(1, "HUP"), (12, "USR2"), (15, "TERM"), (34, "RTMIN")] {
        let home = Home::new();
        let (begun, done) = (home.folder().join("begun"), home.folder().join("done"));
        let script = format!("#!/bin/sh\necho x >> {}\nsleep 0.5\necho x >> {}\n", begun.display(), done.display());
        let task = home.file("slow.sh", &script);
        fs::set_permissions(&task, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        home.run(&["addhandler", "slow", "--event", "clients.create", "--task", &task]).succeeded();
        home.host().emit(&NewEvent::new("clients.create")).expect("emitted");
        let mut deliver = Killed::start(home.command(&["deliver"]).stdout(Stdio::null()).stderr(Stdio::null()));
        wait_for("the delivery to begin", || begun.exists());
        signal(deliver.0.id(), number);
        assert_eq!(deliver.0.wait().expect("ended").code(), Some(0), "{name}");
        let delivered = home.host().deliveries(&DeliveryFilter::default()).expect("readable");
        assert_eq!(delivered[0].status, DeliveryStatus::Done, "{name}");
        assert_eq!(fs::read_to_string(&done).expect("it came to its end").lines().count(), 1, "{name}");
    }
}

#[test]
fn a_closed_terminal_lets_a_server_end_what_it_began() {
    let home = home_with_rogue();
    let token = home.run(&["token", "create", "--scope", "manage"]).succeeded().stdout;
    let (terminal, side) = terminal();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.stdin(side.try_clone().expect("opened")).stdout(Stdio::piped()).stderr(side);
    // SAFETY: between fork and exec it makes two system calls, which is safe there.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
    let mut server = Killed::start(&mut command);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    let address = line.trim().strip_prefix("listening on http://").expect("it says where it is").to_owned();
    let begun = home.folder().join("begun");
    let lingers = deed("linger", begun.to_str().expect("UTF-8")).to_string();
    let call = thread::spawn(move || {
        ureq::post(format!("http://{address}/api/v1/hooks/on_product_acquisition"))
            .header("authorization", format!("Bearer {}", token.trim()))
            .header("content-type", "application/json")
            .send(lingers)
    });
    wait_for("the call", || begun.exists());
    drop(terminal);
    assert_eq!(call.join().expect("no panic").expect("an answer").status(), 200);
    assert_eq!(server.0.wait().expect("ended").code(), Some(0));
}

/// Lets a command be started with a signal that is ignored.
fn ignoring(command: &mut Command, number: i32) -> &mut Command {
    // SAFETY: between fork and exec it makes one system call, which is safe there.
    unsafe {
        command.pre_exec(move || {
            libc::signal(number, libc::SIG_IGN);
            Ok(())
        })
    }
}

#[test]
fn a_closed_terminal_is_nothing_to_a_server_that_was_started_so() {
    let home = Home::new();
    let token = home.run(&["token", "create", "--scope", "manage"]).succeeded().stdout;
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut server = Killed::start(ignoring(&mut command, libc::SIGHUP).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    let address = line.trim().strip_prefix("listening on http://").expect("it says where it is").to_owned();
    signal(server.0.id(), libc::SIGHUP);
    let plugins = ureq::get(format!("http://{address}/api/v1/plugins"));
    let answer = plugins.header("authorization", format!("Bearer {}", token.trim())).call().expect("it goes on");
    assert_eq!(answer.status(), 200);
    signal(server.0.id(), libc::SIGTERM);
    assert_eq!(server.0.wait().expect("ended").code(), Some(0));
}

#[test]
fn how_children_end_is_known_also_where_whoever_starts_it_ignores_their_ends() {
    let home = Home::new();
    let package = crate::support::Package::new("Test Resource").write(home.folder());
    let mut command = home.command(&["loadplugin", package.to_str().expect("UTF-8")]);
    crate::support::run(ignoring(&mut command, libc::SIGCHLD)).succeeded();
}

/// Whether this user may make a namespace of processes, and says so if not.
fn can_make_namespaces() -> bool {
    let may = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    let may = may.is_ok_and(|status| status.success());
    if !may {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: no namespace of processes can be made\n");
    }
    may
}

#[test]
fn as_the_first_process_it_takes_the_ends_of_whatever_ends() {
    if !can_make_namespaces() {
        return;
    }
    let home = home_with_rogue();
    let task = home.file("leaves.sh", "#!/bin/sh\n(sleep 0.05 &) \ncat > /dev/null\n");
    fs::set_permissions(&task, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    home.run(&["addhandler", "leaves", "--event", "clients.create", "--task", &task]).succeeded();
    for _ in 0..20 {
        home.host().emit(&NewEvent::new("clients.create")).expect("emitted");
    }
    // The second way is how some containers are told to end: one that a shell has no word for.
    for (verb, ending) in [("deliver", libc::SIGTERM), ("serve", 37), ("serve", libc::SIGPWR)] {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child", BILLHOOK, verb]);
        if verb == "serve" {
            command.args(["--listen", "127.0.0.1:0", "--insecure-no-auth"]);
        }
        command.env("BILLHOOK_HOME", home.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut init = Killed::start(&mut command);
        let mut answers = BufReader::new(init.0.stdout.take().expect("piped"));
        if verb == "serve" {
            let mut line = String::new();
            answers.read_line(&mut line).expect("read");
            let address = line.trim().strip_prefix("listening on ").expect("it says where it is").to_owned();
            // What a plugin in the host's own process leaves behind goes to the first process, too.
            for _ in 0..5 {
                let call = ureq::post(format!("{address}/api/v1/hooks/on_product_acquisition"));
                let answer = call.content_type("application/json").send(deed("orphan", "").to_string());
                let answered = answer.expect("answered").body_mut().read_to_string().expect("text");
                let answered: serde_json::Value = serde_json::from_str(&answered).expect("JSON");
                assert_eq!(answered["changes"]["meta_info"], true, "the end of its own child is its own: {answered}");
            }
        } else {
            let host = home.host();
            wait_for("all to be delivered", || {
                let all = host.deliveries(&DeliveryFilter::default()).expect("readable");
                all.iter().all(|delivery| delivery.status == DeliveryStatus::Done)
            });
        }
        let first = *children(init.0.id()).first().expect("the first process of the namespace");
        wait_for("all that ended to be taken", || zombies_below(first) == 0 && children(first).len() == 1);
        signal(first, ending);
        let mut said = String::new();
        answers.read_to_string(&mut said).expect("read");
        assert_eq!(init.0.wait().expect("ended").code(), Some(0), "{verb}, {ending}: {said}");
    }
}

#[test]
fn scripts_leave_nothing_to_a_first_process_that_takes_the_ends_of_its_own_children_alone() {
    if !can_make_namespaces() {
        return;
    }
    let home = Home::new();
    // Each in a session of its own: neither in the script's group of processes nor in that of whoever supervises it.
    let task = home.file("leaves.sh", "#!/bin/sh\n(setsid sleep 600 &)\nsetsid sleep 600 &\ncat > /dev/null\n");
    fs::set_permissions(&task, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    home.run(&["addhandler", "leaves", "--event", "clients.create", "--task", &task]).succeeded();
    // A program that embeds the host, and knows nothing of orphans.
    let program = library("healthy").with_file_name("courier");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(program).arg(home.path()).args(["16", "0"]);
    let init = Killed::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let host = home.host();
    wait_for("all to be delivered", || {
        let all = host.deliveries(&DeliveryFilter::default()).expect("readable");
        all.len() == 12 && all.iter().all(|delivery| delivery.status == DeliveryStatus::Done)
    });
    let first = *children(init.0.id()).first().expect("the first process of the namespace");
    wait_for("nothing to be left, neither alive nor ended", || children(first).is_empty());
}

#[test]
fn orphans_are_left_to_the_system_where_whoever_starts_it_takes_them() {
    let home = home_with_rogue();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "--insecure-no-auth"]);
    // SAFETY: between fork and exec it makes one system call, which is safe there. It lasts beyond the start of the command.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?));
    }
    let mut server = Killed::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    let address = line.trim().strip_prefix("listening on ").expect("it says where it is").to_owned();
    let call = ureq::post(format!("{address}/api/v1/hooks/on_product_acquisition"));
    let answer = call.content_type("application/json").send(deed("orphan", "").to_string()).expect("answered");
    assert_eq!(answer.status(), 200);
    assert_eq!(children(server.0.id()), [0_u32; 0], "the orphan is somebody else's");
}

/// The processes whose parent is this one, whichever of its threads started them.
fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let started = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let numbers = |text: String| text.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>();
    started.flat_map(numbers).collect()
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
