//! What operators see of calls: metrics through the `metrics` facade, and `tracing` spans. Only where the host's options say so,
//! because it reads the clock.

use std::{sync::OnceLock, time::Instant};

use billhook_plugin_api::{
    Hook,
    call::{HookCall, HookReply},
};
use metrics::{Counter, Histogram, counter, histogram};

use crate::runtime::{CallFailure, Instance, is_outage};

/// The counters of a plugin's hooks. Each hook's are looked up once, because looking them up costs more than counting: whoever
/// installs a recorder does so before the first call.
pub(super) struct Observer {
    plugin: String,
    hooks: Vec<OnceLock<Counters>>,
}

struct Counters {
    took: Histogram,
    outcomes: [Counter; OUTCOMES.len()],
}

/// How calls end, as the label `outcome` names it.
const OUTCOMES: [&str; 5] = ["ok", "refused", "failed", "unknown", "unavailable"];
const OK: usize = 0;
const REFUSED: usize = 1;
const FAILED: usize = 2;
const UNKNOWN: usize = 3;
const UNAVAILABLE: usize = 4;

impl Observer {
    pub(super) fn new(plugin: &str) -> Self {
        Observer { plugin: plugin.to_owned(), hooks: Hook::ALL.iter().map(|_| OnceLock::new()).collect() }
    }

    fn counters(&self, hook: Hook) -> &Counters {
        self.hooks[hook as usize].get_or_init(|| {
            let plugin = || self.plugin.clone();
            let took = histogram!("billhook_call_duration_seconds", "plugin" => plugin(), "hook" => hook.name());
            let count = |outcome: &'static str| {
                counter!("billhook_calls_total", "plugin" => plugin(), "hook" => hook.name(), "outcome" => outcome)
            };
            Counters { took, outcomes: OUTCOMES.map(count) }
        })
    }

    /// Calls a hook, and tells how it went and how long it took.
    pub(super) fn observed(&self, instance: &dyn Instance, call: HookCall<'_>) -> Result<HookReply, CallFailure> {
        let hook = call.hook();
        let _span = tracing::info_span!("hook", plugin = self.plugin, hook = hook.name()).entered();
        let start = Instant::now();
        let answer = instance.call(call);
        let took = start.elapsed();
        let outcome = match &answer {
            Ok(_) => OK,
            Err(CallFailure::Plugin(error)) if is_outage(error.kind()) => FAILED,
            Err(CallFailure::Plugin(_)) => REFUSED,
            Err(CallFailure::Runtime(fault)) if fault.kind.is_outcome_unknown() => UNKNOWN,
            Err(CallFailure::Runtime(_)) => UNAVAILABLE,
        };
        let counters = self.counters(hook);
        counters.outcomes[outcome].increment(1);
        counters.took.record(took.as_secs_f64());
        tracing::debug!(outcome = OUTCOMES[outcome], took_us = took.as_micros(), "called");
        answer
    }

    /// Tells of a call that didn't reach the plugin.
    #[cold]
    pub(super) fn refused(&self, hook: Hook) {
        self.counters(hook).outcomes[UNAVAILABLE].increment(1);
    }
}

/// Tells of how many plugins an older version or older settings go on, because what is installed can't be loaded.
pub(super) fn stale(plugins: usize) {
    metrics::gauge!("billhook_stale_plugins").set(plugins as f64);
}

/// Tells how many worker processes a plugin has.
pub(super) fn workers(plugin: &str, alive: usize) {
    metrics::gauge!("billhook_workers", "plugin" => plugin.to_owned()).set(alive as f64);
}
