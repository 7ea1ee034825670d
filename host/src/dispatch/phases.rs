//! What surrounds what happens: before handlers, which may change data or forbid; and the ledger, from which after listeners are
//! told.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use billhook_model::{
    Clock, Emitted, ExecutionStatus, Handler, LARGEST_EVENT_DATA, LONGEST_OBJECT_ID, ListenerKind, NewEvent, OnFailure,
    text,
};
use billhook_plugin_api::{
    Hook, Json,
    call::OwnedHookCall,
    data::{AssetChanges, Event},
};
use billhook_store::{CalledName, EventRecord, ExecutionLog, ExecutionNote, Ledger, StoreError};

use super::{
    HookError,
    answered::{hook_changes, merged},
    forbidden::Forbidden,
};
use crate::{
    events::{Answer, Called, Caller, Chain},
    recorder::Recorder,
};

/// Runs what surrounds events.
pub(crate) struct Phases {
    pub(crate) caller: Caller,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) log: Arc<dyn ExecutionLog>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether calls of hooks are noted, and not only those of handlers.
    pub(crate) records_hooks: bool,
    recorder: OnceLock<Recorder>,
    /// Held while the recorder is started.
    starting: Mutex<()>,
    /// Told that there is something to deliver.
    pub(crate) emitted: Box<dyn Fn() + Send + Sync>,
}

impl Phases {
    pub(crate) fn new(
        caller: Caller,
        ledger: Arc<dyn Ledger>,
        log: Arc<dyn ExecutionLog>,
        clock: Arc<dyn Clock>,
        records_hooks: bool,
        emitted: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Phases {
            caller,
            ledger,
            log,
            clock,
            records_hooks,
            recorder: OnceLock::new(),
            starting: Mutex::default(),
            emitted,
        }
    }

    /// Starts the thread that writes the execution log, unless it runs.
    pub(crate) fn start_recorder(&self) -> io::Result<&Recorder> {
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recorder) = self.recorder.get() {
            return Ok(recorder);
        }
        let recorder = Recorder::start(Arc::clone(&self.log), Arc::clone(&self.clock))?;
        Ok(self.recorder.get_or_init(|| recorder))
    }

    /// Notes a call in the execution log. Never waits for the disk.
    pub(super) fn note(&self, note: ExecutionNote) {
        let started = match self.recorder.get() {
            Some(recorder) => Ok(recorder),
            None => self.start_recorder(),
        };
        match started {
            Ok(recorder) => recorder.note(note),
            // The next call tries again.
            Err(error) => {
                tracing::error!("a call is not in the execution log: no thread can be started: {error}");
                self.log.lose(1);
            }
        }
    }

    /// Records events for their listeners. Durable on return.
    pub(crate) fn emit(&self, records: Vec<EventRecord>) -> Result<Vec<Emitted>, StoreError> {
        let emitted = self.ledger.emit(records)?;
        (self.emitted)();
        Ok(emitted)
    }

    /// Asks the before handlers of an event. Each gets the data as the one before it left them; `change` takes what a handler
    /// answered, whole, or says why not.
    pub(crate) fn before(
        &self,
        chain: &Chain,
        event: &mut Event,
        mut change: impl FnMut(&mut Event, Json<'static>) -> Result<(), String>,
    ) -> Result<(), Forbidden> {
        for handler in &chain.before {
            let start = Instant::now();
            let Called { answer, response } = self.caller.call(handler, event, handler.deadline(), None);
            let took = start.elapsed();
            let (status, verdict) = match answer {
                Answer::Passed { data: None } => (ExecutionStatus::Success, Ok(())),
                Answer::Passed { data: Some(data) } => match change(event, data) {
                    Ok(()) => (ExecutionStatus::Success, Ok(())),
                    Err(problem) => (ExecutionStatus::Failed, Err((problem, true))),
                },
                Answer::Forbidden(message) => (ExecutionStatus::Forbidden, Err((message, false))),
                Answer::Failed(problem) | Answer::Again { problem, .. } => {
                    (ExecutionStatus::Failed, Err((problem, true)))
                }
                Answer::NotBegun => (ExecutionStatus::Failed, Err(("it was not called".to_owned(), true))),
                Answer::TimedOut(problem) => (ExecutionStatus::TimedOut, Err((problem, true))),
                Answer::Unknown(problem) => (ExecutionStatus::Unknown, Err((problem, true))),
            };
            let error = verdict.as_ref().err().map(|(problem, _)| problem.clone());
            self.note_handler(handler, event, status, error, response, took);
            match verdict {
                Err((message, false)) => {
                    return Err(Forbidden { handler: handler.name.clone(), message, by_policy: false });
                }
                Err((message, true)) if handler.on_failure == OnFailure::Closed => {
                    return Err(Forbidden { handler: handler.name.clone(), message, by_policy: true });
                }
                Err((message, true)) => {
                    tracing::warn!(handler = handler.name, "it gave no answer, and it goes on without it: {message}");
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn note_handler(
        &self,
        handler: &Handler,
        event: &Event,
        status: ExecutionStatus,
        error: Option<String>,
        response: String,
        took: Duration,
    ) {
        self.note(ExecutionNote {
            at: self.clock.now(),
            event: CalledName::Event(event.name.clone()),
            object: event
                .object_id
                .as_ref()
                .map(|id| text::beginning(id.as_str(), LONGEST_OBJECT_ID).to_owned())
                .unwrap_or_default(),
            kind: ListenerKind::Handler,
            listener: handler.name.as_str().into(),
            attempt: 1,
            status,
            error,
            response,
            took,
            delivery: None,
        });
    }

    /// Asks the before handlers of a hook. What they may change is what the hook itself may, of its asset.
    pub(super) fn before_hook(
        &self,
        hook: Hook,
        chain: &Chain,
        event: &NewEvent,
        call: &mut OwnedHookCall,
    ) -> Result<AssetChanges, HookError> {
        let mut changes = AssetChanges::default();
        if chain.before.is_empty() {
            return Ok(changes);
        }
        let mut event = event.to_event(1);
        let before = self.before(chain, &mut event, |event, answered| {
            let asset = call.asset_mut();
            let changed = hook_changes(event.data.as_str(), answered.as_str(), asset.as_deref())?;
            if let (Some(asset), false) = (asset, changed.is_empty()) {
                changed.clone().apply(asset);
                changes.add(changed);
                event.data = Json::from_value(&call.borrowed())
                    .map_err(|error| format!("the objects can't be written as JSON: {error}"))?;
            }
            Ok(())
        });
        match before {
            Ok(()) => Ok(changes),
            Err(forbidden) => Err(HookError::forbidden(hook, forbidden)),
        }
    }
}

/// Returns the data of an event with what a before handler changed: all of it, or none. The rest is as it was, to the letter.
pub(crate) fn merged_data(event: &Event, answered: &Json<'_>) -> Result<Json<'static>, String> {
    let within_limit = |data: &str| match data.len() {
        size if size > LARGEST_EVENT_DATA => {
            Err(format!("its data has {size} bytes; at most {LARGEST_EVENT_DATA} are taken"))
        }
        _ => Ok(()),
    };
    within_limit(answered.as_str())?;
    let merged = merged(event.data.as_str(), answered.as_str())?;
    within_limit(&merged)?;
    Json::new(merged).map_err(|error| format!("its data can't be read: {error}"))
}
