//! Running an operator's script: bounded in time and in what it writes, and ended with everything that it started.

use std::{
    any::Any,
    io::{self, Write},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use billhook_process::{ChildProgram, KeptOutput, SupervisedChild, WhichEnd, how_it_ended, not_begun};

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

/// The task of the child process that becomes a script.
pub(crate) const BECOME_SCRIPT: &str = "run";

/// Runs a script. An error says that it was not started.
pub(crate) fn run_script(program: &ChildProgram, script: &Script<'_>) -> io::Result<ScriptEnd> {
    let mut command = program.command(BECOME_SCRIPT)?;
    command.args(script.words).current_dir("/").env_clear();
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
    let output = KeptOutput::start(output, WhichEnd::Beginning, script.most_output)?;
    let errors = KeptOutput::start(errors, WhichEnd::End, script.most_errors)?;
    command.stdin(its_input).stdout(its_output).stderr(its_errors);
    let Some(begun) = (script.may_begin)() else {
        let (output, errors) = (Vec::new(), String::new());
        return Ok(ScriptEnd { how: ScriptExit::NotBegun, output, is_cut: false, errors });
    };
    let child = SupervisedChild::spawn(command)?;
    drop(begun);
    let has_ended = child.wait(script.deadline);
    // Whatever it started goes with it, also after a good end; only then do the pipes end.
    child.end();
    let status = child.reap().ok_or_else(|| io::Error::other("how it ended is not known"));
    let ((output, is_cut), (errors, _)) = (output.read(LAST_WORDS), errors.read(LAST_WORDS));
    let errors = String::from_utf8_lossy(&errors).into_owned();
    let how = match status {
        _ if !has_ended => ScriptExit::TimedOut,
        Err(error) => return Err(error),
        Ok(status) => match not_begun(status, &errors) {
            Some(problem) => return Err(io::Error::other(problem.to_owned())),
            None => exit(status),
        },
    };
    Ok(ScriptEnd { how, output, is_cut, errors })
}

fn exit(status: ExitStatus) -> ScriptExit {
    match status.code() {
        Some(code) => ScriptExit::Code(code),
        None => ScriptExit::Signal(how_it_ended("the script", status, "")),
    }
}

/// How long the pipes of a script that ended may stay open: longer only where something of it could not be ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
