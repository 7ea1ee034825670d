//! Which program is a child: this one again, under another first argument; and how such a child becomes another program.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use billhook_machine::disk;

use crate::{be_killed_first, split};

/// The first argument that makes a program a child process of billhook's.
const CHILD: &str = "__billhook-child";

/// Whether this program's `main` begins with a question for [`child_arguments`].
static CAN_BE_CHILD: AtomicBool = AtomicBool::new(false);

/// Returns the arguments of a child process, if this program was started as one: its task first. From then on it may be.
pub fn child_arguments() -> Option<Vec<OsString>> {
    CAN_BE_CHILD.store(true, Ordering::Relaxed);
    let mut arguments = env::args_os().skip(1);
    (arguments.next()? == CHILD).then(|| arguments.collect())
}

/// Which program is started as a child process.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ChildProgram {
    /// This program, whose `main` begins with `billhook::run_child_process()`.
    #[default]
    ThisProgram,
    /// A `billhook` command, or another program whose `main` begins with `billhook::run_child_process()`.
    At(PathBuf),
}

impl ChildProgram {
    /// Returns a command that starts a child process for a task, in a process group of its own, and tells it which process this is.
    /// Standard error is a pipe.
    ///
    /// # Errors
    /// This program is to be started, and its `main` doesn't begin as it has to.
    pub fn command(&self, task: &str) -> io::Result<Command> {
        let program = match self {
            ChildProgram::At(path) => path.clone(),
            ChildProgram::ThisProgram if !CAN_BE_CHILD.load(Ordering::Relaxed) => {
                return Err(io::Error::other(
                    "this program can't be started as a child process: call billhook::run_child_process() first thing \
                     in main, or set HostOptions::child_program to the path of the billhook command",
                ));
            }
            // The name may have been given to a newer file meanwhile; this is the file that runs.
            ChildProgram::ThisProgram => PathBuf::from("/proc/self/exe"),
        };
        let mut command = Command::new(program);
        command.arg(CHILD).arg(task).arg(process::id().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        Ok(command)
    }
}

/// What a child process writes before the reason why another program couldn't be begun.
const MARK: &str = "billhook: ";
/// The exit code with which it says so.
const NOT_BEGUN: i32 = 127;

/// Becomes another program, below a supervisor: what a child process does whose task that is. `host` is the process that started it.
/// Doesn't return: where it fails, it says why on standard error, and the host tells by [`not_begun`] whose words these are.
pub fn become_program(host: u32, words: &[OsString]) -> ! {
    let Some((path, arguments)) = words.split_first() else { fail("no program was named") };
    let cant = |problem: &dyn std::fmt::Display| -> ! { fail(&format!("{} can't be run: {problem}", path.display())) };
    if let Err(error) = split(host) {
        cant(&error);
    }
    be_killed_first();
    let error = disk::not_run(path.as_ref(), Command::new(path).args(arguments).exec());
    if error.kind() == io::ErrorKind::NotFound && Path::new(path).exists() {
        cant(&"the interpreter that its first line names is not there");
    }
    cant(&error)
}

fn fail(problem: &str) -> ! {
    let _ = writeln!(io::stderr(), "{MARK}{problem}");
    process::exit(NOT_BEGUN);
}

/// Returns why a child process didn't become the program that it was to become, by how it ended and what it wrote to standard error.
pub fn not_begun(status: ExitStatus, errors: &str) -> Option<&str> {
    if status.code() == Some(NOT_BEGUN) { errors.strip_prefix(MARK).map(str::trim) } else { None }
}
