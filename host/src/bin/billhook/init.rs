//! The first process of a container. The system gives it every process whose parent ended, and expects it to take their ends.
//!
//! A host that did both could take away the end of a child of its own. So the first process only starts the command again as its
//! child, hands on signals, and takes the ends of whatever ends.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process};
use signal_hook::consts::SIGCHLD;

use crate::signals;

/// Does the work of a first process, if this is one, and returns the exit code of the command.
pub(crate) fn run() -> Option<ExitCode> {
    if !getpid().is_init() {
        // Whoever started this command may have made this process one that orphans are left to. They are the system's.
        let _ = rustix::process::set_child_subreaper(None);
        return None;
    }
    // Without it the command goes on as it can.
    start().ok()
}

fn start() -> io::Result<ExitCode> {
    let mut signals = signals::ending()?;
    // Asked for before anything is started: no end goes unnoticed.
    signals.add_signal(SIGCHLD)?;
    let mut command = Command::new("/proc/self/exe");
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // In a group of its own: a terminal tells a whole group of an interrupt, and this process hands it on, too.
    let own = Pid::from_child(&command.args(arguments).process_group(0).spawn()?);
    // It reads from the terminal, if there is one. Whoever isn't in the foreground may only ask for that once it ignores the signal
    // which forbids it; as the first process, this one does.
    let _ = rustix::termios::tcsetpgrp(io::stdin(), own);
    for number in signals.forever() {
        if number != SIGCHLD {
            // One without a name asks for the same.
            let _ = kill_process(own, Signal::from_named_raw(number).unwrap_or(Signal::TERM));
            continue;
        }
        while let Ok(Some((ended, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if ended == own {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)));
            }
        }
    }
    Ok(ExitCode::FAILURE)
}
