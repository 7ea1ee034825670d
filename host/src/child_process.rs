//! What this program does when it was started as a child process.

use billhook_store_sqlite::read_only_state;

use crate::runtime;

/// Lets this program be the child process in which packages are tried.
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
    let Some(arguments) = runtime::child_arguments() else { return };
    let done = match arguments.as_slice() {
        [task, answer] if task == "try" => {
            runtime::run_trial(answer.as_ref(), |registry, plugin, key| Ok(read_only_state(registry, plugin, key)?))
        }
        #[cfg(target_os = "linux")]
        [task, host] if task == "work" => {
            let host = host.to_str().and_then(|host| host.parse().ok());
            host.map_or_else(|| Err(std::io::Error::other("no host")), runtime::run_worker)
        }
        #[cfg(target_os = "linux")]
        [task, host, words @ ..] if task == "run" => {
            let host = host.to_str().and_then(|host| host.parse().ok());
            host.map_or_else(|| Err(std::io::Error::other("no host")), |host| runtime::become_script(host, words))
        }
        _ => Err(std::io::Error::other("this child process was started with arguments that it doesn't know")),
    };
    // The parent reads the answer; an exit code tells it that there is none.
    std::process::exit(i32::from(done.is_err()));
}
