//! A process between a host and a plugin's: it ends with the host, and with it ends everything that the plugin started.
//!
//! The plugin's process is its child and loses its life with it. What that process starts becomes a child of the supervisor
//! when its own parent ends, also if it left the process group, so that nothing is left behind.

use std::{io, process, time::Duration};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// Splits this process into a supervisor, which never returns, and its child, in which this returns.
///
/// To be called before any thread is started. `host` is the process that started this one: if it is gone already, so is this.
///
/// # Errors
/// This process has several threads, or the system gives no process.
pub fn split(host: u32) -> io::Result<()> {
    // A second thread might hold a lock for ever in the child, and files that are closed below.
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("run_child_process has to be called before any thread is started"));
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let mask = block_signals()?;
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs()) != Some(host) {
        process::exit(1);
    }
    // A crash leaves no core file.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    close_inherited()?;
    let supervisor = rustix::process::getpid();
    // SAFETY: this process has one thread, so the child may do whatever this one may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(supervisor) {
                process::exit(1);
            }
            restore_signals(&mask)
        }
        child => {
            let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("a child without a number"))?;
            supervise(child)
        }
    }
}

/// Waits until the child ended, or until the host is gone or asks for its end; ends what is left, and then as the child did.
fn supervise(child: Pid) -> ! {
    // What the child has, this process must not keep open.
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                end_all();
                end_as(status);
            }
            Ok(None) => {}
            Err(_) => {
                end_all();
                process::exit(1);
            }
        }
        reap_others(child);
        if wait_for_signal() == libc::SIGTERM {
            end_all();
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        }
    }
}

/// Reaps what was left to this process and ended, but not the child, whose end is still to be told.
fn reap_others(child: Pid) {
    for pid in children() {
        if pid != child {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Ends every child until there is none: those of a child that ended become children of this process.
fn end_all() {
    loop {
        // None of them goes on starting others while its brothers end.
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in children() {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return,
            Ok(Some(_)) => {}
            // They need a moment to end.
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// The children of this process, which has one thread.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero();
    let numbers = |text: String| text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
    if let Ok(text) = std::fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        return numbers(text);
    }
    // Some kernels don't have that file.
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in brackets: state and parent.
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|pid| pid.parse().ok());
        parent == Some(own.get())
    };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// Ends this process as its child ended, so that the host sees how.
fn end_as(status: WaitStatus) -> ! {
    if let Some(signal) = status.terminating_signal() {
        // SAFETY: sets how this process takes a signal, and lets it come.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const all, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
    process::exit(status.exit_status().unwrap_or(1))
}

/// Closes everything but standard input, output and error.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // SAFETY: no value in this process owns the descriptor: it has just begun, with what it inherited, and the folder that was
        // read above is closed.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Blocks the signals that the supervisor waits for. Answers what was blocked before.
fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: the sets are plain data that the functions fill.
    unsafe {
        // Whoever started this process may have left it ignored, and that outlives the start.
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let (mut set, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        match libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut old) {
            0 => Ok(old),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn restore_signals(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the mask is one that `block_signals` was given.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn wait_for_signal() -> i32 {
    // SAFETY: the set is plain data; these signals are blocked.
    unsafe {
        let (mut set, mut signal) = (std::mem::zeroed(), 0);
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigwait(&raw const set, &raw mut signal);
        signal
    }
}
