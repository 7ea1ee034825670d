//! Child processes: this program again, under another first argument.

use std::{
    env,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

/// The first argument that makes a program a child process of billhook's.
const CHILD: &str = "__billhook-child";

/// Whether this program's `main` begins with [`run_child_process`](crate::run_child_process).
static CAN_BE_CHILD: AtomicBool = AtomicBool::new(false);

/// The arguments of a child process, if this program was started as one. From then on it may be.
pub(crate) fn child_arguments() -> Option<Vec<OsString>> {
    CAN_BE_CHILD.store(true, Ordering::Relaxed);
    let mut arguments = env::args_os().skip(1);
    (arguments.next()? == CHILD).then(|| arguments.collect())
}

/// Which program is started as a child process.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ChildProgram {
    /// This program, whose `main` begins with [`run_child_process`](crate::run_child_process).
    #[default]
    ThisProgram,
    /// A `billhook` command, or another program whose `main` begins with [`run_child_process`](crate::run_child_process).
    At(PathBuf),
}

impl ChildProgram {
    /// A command that starts a child process for a task: in a process group of its own, with a pipe to its standard
    /// input that the child watches, with nothing on its standard output.
    pub(super) fn command(&self, task: &str) -> io::Result<Command> {
        let program = match self {
            ChildProgram::At(path) => path.clone(),
            ChildProgram::ThisProgram if !CAN_BE_CHILD.load(Ordering::Relaxed) => {
                return Err(io::Error::other(
                    "this program can't be started as a child process: call billhook::run_child_process() first thing \
                     in main, or set HostOptions::child_program to the path of the billhook command",
                ));
            }
            // The name may have been given to a newer file meanwhile; this is the file that runs.
            ChildProgram::ThisProgram if cfg!(target_os = "linux") => PathBuf::from("/proc/self/exe"),
            ChildProgram::ThisProgram => env::current_exe()?,
        };
        let mut command = Command::new(program);
        command.arg(CHILD).arg(task).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }
}

/// Makes this process end with its parent, and leave no core file when it crashes.
pub(super) fn die_with_parent() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    #[cfg(unix)]
    {
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    }
    // Where there is no such signal, and where the parent was gone before it was asked for, the pipe from the parent
    // closes.
    let watch = || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        // Not `exit`, which runs the destructors of libraries and waits for the loader's lock.
        #[cfg(unix)]
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    };
    // Without a thread the signal has to do.
    let _ = std::thread::Builder::new().name("billhook-parent".to_owned()).spawn(watch);
}

/// Whether a child process ended. It is not reaped yet, so that its number is still its own.
pub(super) fn has_ended(child: &mut std::process::Child) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("no such process"))?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some())
    }
    #[cfg(not(unix))]
    Ok(child.try_wait()?.is_some())
}

/// Ends a child process that was not reaped yet, and whatever it started in its process group.
pub(super) fn kill(child: &mut std::process::Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}

/// Whether the system lacked threads, processes, memory or descriptors for something: it may have them in a moment.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
    }
    #[cfg(not(unix))]
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
}
