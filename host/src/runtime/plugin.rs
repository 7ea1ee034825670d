//! A plugin in this process. Hooks that the operator released run on threads of their own, so that their callers get away at
//! the deadline.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use billhook_plugin_api::{
    Hook,
    call::{HookCall, HookReply, OwnedHookCall},
};

use super::{
    LoadedInstance,
    call::{CallFailure, Fault, FaultKind, Instance},
    overdue,
};

/// A plugin in this process.
pub(crate) struct InProcess {
    pub(crate) instance: Arc<LoadedInstance>,
    /// The hooks that run on threads of their own, with their deadlines.
    pub(crate) released: Vec<(Hook, Duration)>,
    /// The number of its slot, by which overdue calls are counted.
    pub(crate) number: u32,
}

impl Instance for InProcess {
    #[inline]
    fn call(&self, call: HookCall<'_>) -> Result<HookReply, CallFailure> {
        if !self.released.is_empty()
            && let Some((_, deadline)) = self.released.iter().find(|(hook, _)| *hook == call.hook())
        {
            return self.call_released(call.to_owned(), *deadline);
        }
        Ok(self.instance.call(call)?)
    }

    fn is_in_this_process(&self) -> bool {
        true
    }
}

impl InProcess {
    /// Runs a hook on a thread of its own with copies of its objects, and lets the caller go at the deadline. What the hook
    /// changes later is dropped.
    #[cold]
    fn call_released(&self, call: OwnedHookCall, deadline: Duration) -> Result<HookReply, CallFailure> {
        let (reply, replied) = mpsc::sync_channel(1);
        let (instance, number, hook) = (Arc::clone(&self.instance), self.number, call.borrowed().hook());
        let run = move || {
            // The caller goes at the deadline, and this thread may not: so many of them are too many.
            let _watched = overdue::enter(number, overdue::ticks(deadline));
            // Nobody may wait any more.
            let _ = reply.send(instance.call(call.borrowed()).map_err(CallFailure::Plugin));
        };
        thread::Builder::new()
            .name("billhook-released".to_owned())
            .spawn(run)
            .map_err(|error| Fault::unavailable(format!("no thread can be started for the call: {error}"), None))?;
        replied.recv_timeout(deadline).unwrap_or_else(|_| Err(timed_out(self.instance.plugin(), hook, deadline).into()))
    }
}

/// A call that took too long. What it was to do may be done.
#[cold]
pub(super) fn timed_out(plugin: &str, hook: Hook, deadline: Duration) -> Fault {
    metrics::counter!("billhook_timeouts_total", "plugin" => plugin.to_owned(), "hook" => hook.name()).increment(1);
    Fault::new(FaultKind::TimedOut, format!("timed out after {} s: outcome unknown", deadline.as_secs_f64()))
}
