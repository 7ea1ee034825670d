//! What this program does when it was started as a child process.

use billhook_process::{become_program, child_arguments};

use crate::{events, runtime};

/// Lets this program be a child process, in which packages are tried, plugins run confined, and scripts are begun.
///
/// Call it first thing in `main`, before threads, arguments and configuration: it returns at once, unless the program was
/// started as a child process; then it does what was asked for and exits.
///
/// ```
/// billhook::run_child_process();
/// // … the rest of `main`
/// ```
///
/// Without it, a host refuses to install packages, because it would have to start your program a second time; give it the
/// path of a `billhook` command instead, with [`HostOptions::child_program`](crate::HostOptions::child_program).
pub fn run_child_process() {
    let Some(arguments) = child_arguments() else { return };
    let (task, host, words) = match arguments.as_slice() {
        [task, host, words @ ..] => (task.to_str(), host.to_str().and_then(|host| host.parse().ok()), words),
        _ => (None, None, [].as_slice()),
    };
    let done = match (task, host) {
        (Some(runtime::WORK), Some(host)) if words.is_empty() => runtime::run_worker(host),
        (Some(events::BECOME_SCRIPT), Some(host)) => become_program(host, words),
        _ => Err(std::io::Error::other("this child process was started with arguments that it doesn't know")),
    };
    // The parent hears of it by the exit code alone.
    std::process::exit(i32::from(done.is_err()));
}
