//! What operators see of calls: metrics through the `metrics` facade, and `tracing` spans. Only where the host's options say so,
//! because it reads the clock.

use std::time::Instant;

use billhook_plugin_api::{ErrorKind, Hook};

use crate::runtime::{CallFailure, Plugin};

/// Calls a hook, and tells how it went and how long it took.
pub(super) fn observed<T>(
    hook: Hook,
    plugin: &str,
    call: impl FnOnce(&Plugin) -> Result<T, CallFailure>,
    ready: &Plugin,
) -> Result<T, CallFailure> {
    let _span = tracing::info_span!("hook", plugin, hook = hook.name()).entered();
    let start = Instant::now();
    let answer = call(ready);
    let took = start.elapsed();
    let outcome = match &answer {
        Ok(_) => "ok",
        Err(CallFailure::Plugin(error)) if error.kind() == ErrorKind::Internal => "failed",
        Err(CallFailure::Plugin(_)) => "refused",
        Err(CallFailure::Runtime(fault)) if fault.outcome_unknown => "unknown",
        Err(CallFailure::Runtime(_)) => "unavailable",
    };
    count(hook, plugin, outcome);
    metrics::histogram!("billhook_call_duration_seconds", "plugin" => plugin.to_owned(), "hook" => hook.name())
        .record(took.as_secs_f64());
    tracing::debug!(outcome, took_us = took.as_micros(), "called");
    answer
}

/// Tells of a call that didn't reach the plugin.
#[cold]
pub(super) fn refused(hook: Hook, plugin: &str) {
    count(hook, plugin, "unavailable");
}

fn count(hook: Hook, plugin: &str, outcome: &'static str) {
    let plugin = plugin.to_owned();
    metrics::counter!("billhook_calls_total", "plugin" => plugin, "hook" => hook.name(), "outcome" => outcome)
        .increment(1);
}

/// Tells how many worker processes a plugin has.
pub(super) fn workers(plugin: &str, alive: usize) {
    metrics::gauge!("billhook_workers", "plugin" => plugin.to_owned()).set(alive as f64);
}
