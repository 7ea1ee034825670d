//! Calling a handler that is a script. `docs/handlers.md` is the contract.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use billhook_model::{Handler, Mode};

use super::answer::{Answer, Body, Called, KEPT_RESPONSE, LARGEST_ANSWER, response};
use super::run_script::{Script, ScriptEnd, ScriptExit, run_script};
use billhook_process::ChildProgram;

/// Exit codes that mean something, as `sysexits.h` names them.
const EX_DATAERR: i32 = 65;
const EX_TEMPFAIL: i32 = 75;
const EX_NOPERM: i32 = 77;

/// Runs a script with the envelope on its standard input and the event's id as its first argument.
pub(super) fn call(
    program: &ChildProgram,
    handler: &Handler,
    words: &[String],
    event_id: &str,
    envelope: &[u8],
    limit: Duration,
    may_begin: &dyn Fn() -> Option<Box<dyn Any>>,
) -> Called {
    // The operator's own arguments come behind it.
    let mut all: Vec<String> = words.to_vec();
    all.insert(1.min(all.len()), event_id.to_owned());
    let script = Script {
        words: &all,
        environment: &handler.environment,
        input: envelope,
        deadline: Instant::now() + limit,
        most_output: LARGEST_ANSWER,
        most_errors: KEPT_RESPONSE,
        may_begin,
    };
    match run_script(program, &script) {
        Ok(end) => answered(handler.mode, limit, &end),
        Err(error) => {
            let problem = format!("the script was not started: {error}");
            Called { answer: Answer::Again { problem, after: None }, response: String::new() }
        }
    }
}

fn answered(mode: Mode, limit: Duration, end: &ScriptEnd) -> Called {
    let said = end.errors.trim();
    let with_errors = |how: String| if said.is_empty() { how } else { format!("{how}: {said}") };
    let message = |otherwise: &str| {
        let otherwise = if said.is_empty() { otherwise } else { said };
        Body::message(&end.output, otherwise)
    };
    let answer = match &end.how {
        ScriptExit::Code(0) => passed(mode, end),
        ScriptExit::Code(EX_NOPERM) => Answer::Forbidden(message("the script forbade it")),
        ScriptExit::Code(EX_DATAERR) => Answer::Failed(message("the script refused the data")),
        ScriptExit::Code(EX_TEMPFAIL) => {
            Answer::Again { problem: message("the script asked for another attempt"), after: None }
        }
        ScriptExit::Code(code) => {
            Answer::Again { problem: with_errors(format!("the script ended with exit code {code}")), after: None }
        }
        ScriptExit::Signal(how) => Answer::Again { problem: with_errors(how.clone()), after: None },
        ScriptExit::NotBegun => Answer::NotBegun,
        ScriptExit::TimedOut => Answer::TimedOut(format!("timed out after {} s: outcome unknown", limit.as_secs_f64())),
    };
    // Both are kept, what it answered first.
    let mut kept = response(&end.output);
    if !said.is_empty() {
        kept = if kept.is_empty() { said.to_owned() } else { format!("{kept}\n{said}") };
    }
    Called { answer, response: response(kept.as_bytes()) }
}

/// What a script that ended well answered. After an event, nobody waits for its data.
fn passed(mode: Mode, end: &ScriptEnd) -> Answer {
    if mode == Mode::After {
        return Answer::Passed { data: None };
    }
    if end.is_cut {
        return Answer::Failed(format!("its answer has more than {LARGEST_ANSWER} bytes"));
    }
    match Body::parse(&end.output) {
        Ok(body) => Answer::Passed { data: body.data },
        Err(problem) => Answer::Failed(problem),
    }
}
