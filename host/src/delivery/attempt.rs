//! One attempt at a delivery.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use billhook_machine::crash_point;
use billhook_model::{ExecutionStatus, HandlerStatus, Listener, ListenerKind, Mode, RetryPolicy, text::with_causes};
use billhook_plugin_api::data::Event;
use billhook_store::{CalledName, ExecutionNote, Settled, Verdict};

use super::{lanes::Queued, shared::Shared};
use crate::{
    dispatch::{Dispatcher, status_of},
    events::{Answer, Called},
    http_client::Begin,
    runtime::is_outage,
};

/// A delivery that was taken more often than this without an attempt that ended is noted before it is begun.
const OFTEN_TAKEN: u32 = 3;
/// No pause is longer, whatever a listener asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(86_400);
/// One that was begun so often then is given up: it may be what ended its hosts.
const MOST_BEGUN: u32 = 10;

/// How an attempt ended.
struct Attempt {
    status: ExecutionStatus,
    problem: Option<String>,
    response: String,
    /// Whether it may be tried again, and when, if the listener said so.
    again: Option<Option<Duration>>,
}

impl Attempt {
    fn success(response: String) -> Self {
        Attempt { status: ExecutionStatus::Success, problem: None, response, again: None }
    }

    fn final_failure(status: ExecutionStatus, problem: String, response: String) -> Self {
        Attempt { status, problem: Some(problem), response, again: None }
    }

    fn again(status: ExecutionStatus, problem: String, response: String, after: Option<Duration>) -> Self {
        Attempt { status, problem: Some(problem), response, again: Some(after) }
    }
}

/// Whether a listener takes deliveries now; `None` if it never will.
pub(crate) fn takes(dispatcher: &Dispatcher, listener: &Listener) -> Option<bool> {
    match listener.kind {
        ListenerKind::Plugin => dispatcher.takes_events(&listener.name),
        _ => match dispatcher.listeners().handler(&listener.name) {
            Some(handler) if handler.mode == Mode::After => match handler.status {
                HandlerStatus::Enabled => Some(true),
                HandlerStatus::Archived => None,
                _ => Some(false),
            },
            _ => None,
        },
    }
}

/// Attempts a delivery that was queued as one that this host holds.
pub(super) fn run(shared: &Shared, queued: Queued) {
    // Without a lease somebody else may have it by now; what is given back then is left alone.
    let until = shared.holds_until(&queued);
    let held = queued.held;
    let Some(until) = until.filter(|_| !shared.is_ended()) else {
        return shared.end(Settled { held, verdict: Verdict::Released }, None);
    };
    let dead = |held, problem: String| shared.end(Settled { held, verdict: Verdict::Dead(problem) }, None);
    // What isn't known here may have been added a moment ago by another process.
    let takes_now = match takes(&shared.dispatcher, &held.listener) {
        None if shared.dispatcher.refresh().is_err() => Some(false),
        None => takes(&shared.dispatcher, &held.listener),
        known => known,
    };
    match takes_now {
        Some(true) => {}
        Some(false) => return shared.end(Settled { held, verdict: Verdict::Released }, None),
        None => {
            let what = held.listener.kind.name();
            return dead(held, format!("the {what} is gone, or listens no more"));
        }
    }
    // The end of a host is no failure of the listener's, and uses up none of its attempts. But a plugin in this process may be what
    // ended the hosts: one that was taken again and again is noted before it is begun.
    if held.taken > OFTEN_TAKEN && held.listener.kind == ListenerKind::Plugin {
        match shared.ledger.begin(&shared.holder, &held) {
            Ok(Some(begun)) if begun > MOST_BEGUN && shared.dispatcher.runs_in_this_process(&held.listener.name) => {
                return dead(
                    held,
                    format!("its host ended {MOST_BEGUN} times while the plugin was called in it: outcome unknown"),
                );
            }
            Ok(Some(_)) => {}
            Ok(None) => return shared.end(Settled { held, verdict: Verdict::Released }, None),
            Err(error) => {
                tracing::error!("a delivery can't be begun: {}", with_causes(&error));
                return shared.end(Settled { held, verdict: Verdict::Released }, None);
            }
        }
    }
    let event = match shared.ledger.event(held.event, u64::from(held.attempts) + 1) {
        Ok(Some(event)) => event,
        Ok(None) => return dead(held, "its event is not in the ledger".to_owned()),
        Err(error) => {
            tracing::error!("a delivery can't be read: {}", with_causes(&error));
            return shared.end(Settled { held, verdict: Verdict::Released }, None);
        }
    };
    let (start, listener) = (Instant::now(), held.listener.clone());
    let announce = || match shared.membership()?.announce(held.number) {
        Ok(announced) => Some(announced),
        Err(error) => {
            let problem = with_causes(&error);
            tracing::warn!("a delivery that is begun can't be announced to other hosts: {problem}");
            None
        }
    };
    let attempt = || match listener.kind {
        ListenerKind::Plugin => {
            // Nobody can tell where in it the plugin does what it does: it is announced until it returns.
            let _announced = announce();
            let call = || (call_plugin(shared, &listener.name, &event), RetryPolicy::default());
            let is_in_time = shared.clock.since_boot() < until;
            crash_point::stands_still("before calling");
            is_in_time.then(call)
        }
        _ => call_handler(shared, &listener.name, &event, Begin { before: until, announce: &announce }),
    };
    // A fault of this program's own must not stop the lane.
    let attempted = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| {
        let problem = "the host panicked: outcome unknown".to_owned();
        let attempt = Attempt::again(ExecutionStatus::Unknown, problem, String::new(), None);
        Some((attempt, RetryPolicy::default()))
    });
    let Some((attempt, policy)) = attempted else {
        return shared.end(Settled { held, verdict: Verdict::Released }, None);
    };
    let took = start.elapsed();
    let ended = held.attempts + 1;
    let verdict = match (&attempt.problem, attempt.again) {
        (None, _) => Verdict::Done,
        (Some(problem), None) => Verdict::Dead(problem.clone()),
        (Some(problem), Some(_)) if ended >= policy.attempts => {
            Verdict::Dead(format!("attempt {ended} of {}: {problem}", policy.attempts))
        }
        (Some(problem), Some(after)) => {
            // A listener may ask for more time than the host leaves it, and not for less.
            let pause = pause(&policy, ended).max(after.unwrap_or_default());
            Verdict::Again { pause: pause.min(LONGEST_PAUSE), problem: problem.clone() }
        }
    };
    let note = ExecutionNote {
        at: shared.clock.now(),
        event: CalledName::Event(event.name.clone()),
        object: event.object_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        kind: listener.kind,
        listener: listener.name.as_str().into(),
        attempt: ended,
        status: attempt.status,
        error: attempt.problem,
        response: attempt.response,
        took,
        delivery: Some(held.number),
    };
    shared.end(Settled { held, verdict }, Some(note));
}

/// The pause after so many failed attempts: shortened by chance, by up to half, so that many don't come at once.
fn pause(policy: &RetryPolicy, failed: u32) -> Duration {
    let longest = u64::try_from(policy.longest_pause(failed).as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(fastrand::u64(longest / 2..=longest))
}

/// Calls a handler, unless the lease ends before anything is sent to it.
fn call_handler(shared: &Shared, name: &str, event: &Event, begin: Begin<'_>) -> Option<(Attempt, RetryPolicy)> {
    let listeners = shared.dispatcher.listeners();
    let Some(handler) = listeners.handler(name) else {
        let problem = "the handler is gone".to_owned();
        let attempt = Attempt::final_failure(ExecutionStatus::Failed, problem, String::new());
        return Some((attempt, RetryPolicy::default()));
    };
    let deadline = handler.deadline();
    let Called { answer, response } = shared.dispatcher.phases().caller.call(handler, event, deadline, Some(begin));
    let attempt = match answer {
        Answer::Passed { .. } => Attempt::success(response),
        Answer::NotBegun => return None,
        Answer::Forbidden(message) => Attempt::final_failure(ExecutionStatus::Forbidden, message, response),
        Answer::Failed(problem) => Attempt::final_failure(ExecutionStatus::Failed, problem, response),
        Answer::Again { problem, after } => Attempt::again(ExecutionStatus::Failed, problem, response, after),
        Answer::TimedOut(problem) => Attempt::again(ExecutionStatus::TimedOut, problem, response, None),
        Answer::Unknown(problem) => Attempt::again(ExecutionStatus::Unknown, problem, response, None),
    };
    Some((attempt, handler.retry))
}

fn call_plugin(shared: &Shared, id: &str, event: &Event) -> Attempt {
    let Err(error) = shared.dispatcher.deliver(id, event) else { return Attempt::success(String::new()) };
    let (status, message) = (status_of(&error), error.message().to_owned());
    if is_outage(error.kind()) {
        Attempt::again(status, message, String::new(), error.retry_after())
    } else {
        Attempt::final_failure(status, message, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_shortened_by_chance_by_up_to_half() {
        let policy = RetryPolicy { attempts: 8, first_ms: 1_000, longest_ms: 5_000 };
        for (failed, longest) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (200, 5_000)] {
            for _ in 0..50 {
                let pause = pause(&policy, failed).as_millis();
                assert!((longest / 2..=longest).contains(&pause), "{pause} after {failed}");
            }
        }
    }
}
