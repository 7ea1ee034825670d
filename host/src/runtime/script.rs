//! Running an operator's script: bounded in time and in what it writes, and ended with everything that it started.

use std::{
    any::Any,
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    ChildProgram,
    child::{has_ended, kill},
    starter,
    trial::how_it_ended,
};
#[cfg(target_os = "linux")]
use billhook_machine::disk;

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
    /// Asked right before it is started: `None` if it must not be any more; what it returns is dropped when it is started.
    pub(crate) may_begin: &'a dyn Fn() -> Option<Box<dyn Any>>,
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
    /// It was not started, because it was too late to.
    NotBegun,
}

/// The exit code with which the child process says that the script couldn't be started, with the reason on standard error.
const NOT_STARTED: i32 = 127;

/// Runs a script. An error says that it was not started.
pub(crate) fn run_script(program: &ChildProgram, script: &Script<'_>) -> io::Result<ScriptEnd> {
    let mut command = command(program, script.words)?;
    command.current_dir("/").env_clear();
    for name in ["PATH"].into_iter().chain(script.environment.iter().map(String::as_str)) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // Threads of their own, which end with the pipes: nobody waits for one that doesn't. They are there before the script is, so
    // that one for which they can't be started is not begun.
    let ((its_input, mut input), written) = (io::pipe()?, script.input.to_owned());
    let write = move || drop(input.write_all(&written));
    thread::Builder::new().name("billhook-script".to_owned()).spawn(write)?;
    let ((output, its_output), (errors, its_errors)) = (io::pipe()?, io::pipe()?);
    let output = Kept::start(output, End::Beginning, script.most_output)?;
    let errors = Kept::start(errors, End::End, script.most_errors)?;
    command.stdin(its_input).stdout(its_output).stderr(its_errors);
    let Some(begun) = (script.may_begin)() else {
        let (output, errors) = (Vec::new(), String::new());
        return Ok(ScriptEnd { how: ScriptExit::NotBegun, output, is_cut: false, errors });
    };
    let mut child = starter::spawn(command)?;
    drop(begun);
    let ended = wait(&mut child, script.deadline);
    // Whatever it started goes with it, also after a good end; only then do the pipes end.
    end(&mut child);
    let status = child.wait();
    let ((output, is_cut), (errors, _)) = (output.take(), errors.take());
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

/// Which end of what is written is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Beginning,
    End,
}

/// What is kept of what is written into a pipe.
struct Kept {
    /// The bytes, and whether there were more.
    bytes: Arc<Mutex<(Vec<u8>, bool)>>,
    reader: JoinHandle<()>,
}

/// How long the pipes of a script that ended may stay open: longer only where something of it could not be ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Kept {
    /// Reads a pipe to its end.
    fn start(mut pipe: impl Read + Send + 'static, end: End, most: usize) -> io::Result<Self> {
        let bytes = Arc::new(Mutex::new((Vec::new(), false)));
        let kept = Arc::clone(&bytes);
        let read = move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let (kept, is_cut) = &mut *kept;
                let excess = (kept.len() + count).saturating_sub(most);
                *is_cut |= excess > 0;
                if end == End::Beginning {
                    kept.extend(&buffer[..count.saturating_sub(excess)]);
                } else {
                    kept.extend(&buffer[..count]);
                    kept.drain(..excess);
                }
            }
        };
        let reader = thread::Builder::new().name("billhook-script".to_owned()).spawn(read)?;
        Ok(Kept { bytes, reader })
    }

    /// What was kept, once the pipe ended or after a moment.
    fn take(self) -> (Vec<u8>, bool) {
        let deadline = Instant::now() + LAST_WORDS;
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(200));
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the child process does: becomes the script, below a supervisor. Returns only if that fails.
#[cfg(target_os = "linux")]
pub(crate) fn become_script(host: u32, words: &[std::ffi::OsString]) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let Some((path, arguments)) = words.split_first() else { return Err(io::Error::other("no script")) };
    // The place where the script's own errors go; the host tells by the mark whose it is.
    let not_started = |problem: &str| -> ! {
        let _ = writeln!(io::stderr(), "{MARK}{} can't be run: {problem}", path.display());
        std::process::exit(NOT_STARTED);
    };
    if let Err(error) = super::supervisor::split(host) {
        not_started(&error.to_string());
    }
    super::confine::be_killed_first();
    let error = disk::not_run(path.as_ref(), Command::new(path).args(arguments).exec());
    let is_there = error.kind() == io::ErrorKind::NotFound && std::path::Path::new(path).exists();
    let problem =
        if is_there { "the interpreter that its first line names is not there".to_owned() } else { error.to_string() };
    not_started(&problem)
}
