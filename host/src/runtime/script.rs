//! Running an operator's script: bounded in time and in what it writes, and ended with everything that it started.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    ChildProgram,
    child::{has_ended, kill},
    starter,
    trial::how_it_ended,
};

/// What is run.
pub(crate) struct Script<'a> {
    /// The absolute path of the script, and its arguments.
    pub(crate) words: &'a [String],
    /// The names of the environment variables that it gets beside `PATH`.
    pub(crate) environment: &'a [String],
    /// What it reads from standard input.
    pub(crate) input: &'a [u8],
    pub(crate) deadline: Instant,
    /// The most that is kept of what it writes to standard output, and the most of standard error.
    pub(crate) most_output: usize,
    pub(crate) most_errors: usize,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct ScriptEnd {
    pub(crate) how: ScriptExit,
    pub(crate) output: Vec<u8>,
    /// It wrote more to standard output than is kept.
    pub(crate) is_cut: bool,
    /// The end of what it wrote to standard error.
    pub(crate) errors: String,
}

/// How the process of a script ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScriptExit {
    /// By itself, with an exit code.
    Code(i32),
    /// By a signal, as told here.
    Signal(String),
    /// It was ended at the deadline.
    TimedOut,
}

/// The exit code with which the child process says that the script couldn't be started, with the reason on standard error.
const NOT_STARTED: i32 = 127;

/// Runs a script. An error says that it was not started.
pub(crate) fn run_script(program: &ChildProgram, script: &Script<'_>) -> io::Result<ScriptEnd> {
    let mut command = command(program, script.words)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/").env_clear();
    for name in ["PATH"].into_iter().chain(script.environment.iter().map(String::as_str)) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut child = starter::spawn(command)?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let most_output = script.most_output;
    let run = thread::scope(|scope| {
        // A script that doesn't read, or closes its input, holds nothing up.
        scope.spawn(move || input.map(|mut input| input.write_all(script.input)));
        let output = scope.spawn(move || keep_beginning(output, most_output));
        let errors = scope.spawn(move || keep_end(errors, script.most_errors));
        let ended = wait(&mut child, script.deadline);
        // Whatever it started goes with it, also after a good end; only then do the pipes end.
        end(&mut child);
        let status = child.wait();
        let (output, is_cut) = output.join().unwrap_or_default();
        let errors = errors.join().unwrap_or_default();
        (ended, status, output, is_cut, errors)
    });
    let (ended, status, output, is_cut, errors) = run;
    let how = if ended? { exit(status?) } else { ScriptExit::TimedOut };
    let errors = String::from_utf8_lossy(&errors).into_owned();
    if let (ScriptExit::Code(NOT_STARTED), Some(problem)) = (&how, errors.strip_prefix(MARK)) {
        return Err(io::Error::other(problem.trim().to_owned()));
    }
    Ok(ScriptEnd { how, output, is_cut, errors })
}

/// The command that becomes the script, below a supervisor.
#[cfg(target_os = "linux")]
fn command(program: &ChildProgram, words: &[String]) -> io::Result<Command> {
    let mut command = program.command("run")?;
    command.arg(std::process::id().to_string()).args(words);
    Ok(command)
}

/// The script itself, in a process group of its own: what leaves the group outlives it.
#[cfg(not(target_os = "linux"))]
fn command(_: &ChildProgram, words: &[String]) -> io::Result<Command> {
    let (path, arguments) = words.split_first().ok_or_else(|| io::Error::other("no script"))?;
    let mut command = Command::new(path);
    command.args(arguments);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

/// What the child process writes before the reason why a script couldn't be started.
const MARK: &str = "billhook: ";

fn exit(status: ExitStatus) -> ScriptExit {
    match status.code() {
        Some(code) => ScriptExit::Code(code),
        None => ScriptExit::Signal(how_it_ended(status, "")),
    }
}

/// Waits until the child ended, or until the deadline: then `false`.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<bool> {
    let mut pause = Duration::from_micros(200);
    while !has_ended(child)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(true)
}

/// How long the supervisor may take to end everything that a script started.
const HARD_END: Duration = Duration::from_secs(10);

/// Ends the script: its supervisor ends everything that it started.
fn end(child: &mut Child) {
    #[cfg(target_os = "linux")]
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if wait(child, Instant::now() + HARD_END).unwrap_or(false) {
            return;
        }
    }
    kill(child);
}

/// Reads everything, and keeps the beginning; the second part tells whether there was more.
fn keep_beginning(pipe: Option<impl Read>, most: usize) -> (Vec<u8>, bool) {
    let (mut kept, mut is_cut) = (Vec::new(), false);
    read_all(pipe, |bytes| {
        let taken = bytes.len().min(most - kept.len());
        kept.extend(&bytes[..taken]);
        is_cut |= taken < bytes.len();
    });
    (kept, is_cut)
}

/// Reads everything, and keeps the end.
fn keep_end(pipe: Option<impl Read>, most: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    read_all(pipe, |bytes| {
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(most);
        kept.drain(..excess);
    });
    kept
}

fn read_all(pipe: Option<impl Read>, mut each: impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => each(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What the child process does: becomes the script, below a supervisor. Returns only if that fails.
#[cfg(target_os = "linux")]
pub(crate) fn become_script(host: u32, words: &[std::ffi::OsString]) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    super::supervisor::split(host)?;
    let Some((path, arguments)) = words.split_first() else { return Err(io::Error::other("no script")) };
    let error = Command::new(path).args(arguments).exec();
    // The place where the script's own errors go; the host tells by the mark whose it is.
    let _ = writeln!(io::stderr(), "{MARK}{} can't be run: {error}", path.display());
    std::process::exit(NOT_STARTED);
}
