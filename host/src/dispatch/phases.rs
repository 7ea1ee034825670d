//! What surrounds what happens: before handlers, which may change data or forbid; and the ledger, from which after listeners are
//! told.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use billhook_plugin_api::{
    Hook, Json,
    call::OwnedHookCall,
    data::{Asset, AssetChanges, Event},
};
use serde::Serialize;
use serde_json::Value;

use super::{HookError, brief};
use crate::{
    events::{Answer, Called, Caller, Chain, Handler, LARGEST_DATA, ListenerKind, NewEvent, OnFailure},
    executions::{ExecutionLog, ExecutionStatus, Name, Note, Recorder},
    ledger::{Emitted, Ledger, LedgerError, Record},
};

/// What a before handler said, or what stands for it: it must not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Forbidden {
    /// The handler.
    pub handler: String,
    /// Its reason. From the handler, and so not to be trusted: escape it where it is shown.
    pub message: String,
    /// The handler didn't forbid it: it gave no answer that can be used, and its failure policy is *closed*.
    pub by_policy: bool,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forbidden { handler, message, by_policy } = self;
        if *by_policy {
            write!(f, "the handler {handler:?} gave no answer, and nothing goes on without it: {message}")
        } else {
            write!(f, "the handler {handler:?} forbids it: {message}")
        }
    }
}

impl std::error::Error for Forbidden {}

/// Runs what surrounds events.
pub(crate) struct Phases {
    pub(crate) caller: Caller,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) log: Arc<ExecutionLog>,
    /// Whether calls of hooks are noted, and not only those of handlers.
    pub(crate) records_hooks: bool,
    recorder: OnceLock<Option<Recorder>>,
    /// Told that there is something to deliver.
    pub(crate) emitted: Box<dyn Fn() + Send + Sync>,
}

impl Phases {
    pub(crate) fn new(
        caller: Caller,
        ledger: Arc<Ledger>,
        log: Arc<ExecutionLog>,
        records_hooks: bool,
        emitted: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Phases { caller, ledger, log, records_hooks, recorder: OnceLock::new(), emitted }
    }

    /// Notes a call in the execution log. Never waits for the disk.
    pub(super) fn note(&self, note: Note) {
        let start = || {
            Recorder::start(Arc::clone(&self.log))
                .inspect_err(|error| tracing::error!("calls are not in the execution log: no thread: {error}"))
                .ok()
        };
        if let Some(recorder) = self.recorder.get_or_init(start) {
            recorder.note(note);
        }
    }

    /// Records events for their listeners. Durable on return.
    pub(crate) fn emit(&self, records: Vec<Record>) -> Result<Vec<Emitted>, LedgerError> {
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
        self.note(Note {
            at: SystemTime::now(),
            event: Name::Event(event.name.clone()),
            object: event.object_id.as_ref().map(|id| brief(id.as_str()).to_owned()).unwrap_or_default(),
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

/// Takes the data that a before handler answered: all of it, or none.
pub(crate) fn replace_data(event: &mut Event, data: Json<'static>) -> Result<(), String> {
    if data.as_str().len() > LARGEST_DATA {
        return Err(format!("its data has {} bytes; at most {LARGEST_DATA} are taken", data.as_str().len()));
    }
    event.data = data;
    Ok(())
}

/// The fields of an asset that a hook may change, and so may a handler before it.
const CHANGEABLE: [&str; 3] = ["meta_info", "content_type", "download_link"];

/// What a handler changed of a hook's asset. Fields that it left out stay; anything else that it changed is refused.
fn hook_changes(present: &str, answered: &str, asset: Option<&Asset>) -> Result<AssetChanges, String> {
    let parse =
        |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("its data can't be read: {error}"));
    let (present, answered) = (parse(present)?, parse(answered)?);
    if !answered.is_object() {
        return Err("its data is no object".to_owned());
    }
    let mut changed = Vec::new();
    differences(&present, &answered, &mut Vec::new(), &mut changed);
    let mut changes = AssetChanges::default();
    for path in changed {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let field = match path.as_slice() {
            ["asset", field] if CHANGEABLE.contains(field) && asset.is_some() => *field,
            _ => {
                let (path, may) = (path.join("/"), CHANGEABLE.join(", "));
                return Err(format!("it changed /{path}; before this hook, only an asset's {may} may be"));
            }
        };
        let value = &answered["asset"][field];
        let text = || {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| format!("it changed /asset/{field} into something that is no text"))
        };
        match field {
            "meta_info" => changes.meta_info = Some(Json::from(value.clone())),
            "content_type" => changes.content_type = Some(text()?),
            _ => changes.download_link = Some(text()?),
        }
    }
    Ok(changes)
}

/// The paths at which `answered` says something else than `present`. Where an object is there on both sides, what it leaves out is
/// no difference, except inside of what may be changed as a whole.
fn differences(present: &Value, answered: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match (present, answered) {
        (Value::Object(present), Value::Object(answered)) if *path != ["asset", "meta_info"] => {
            for (key, value) in answered {
                path.push(key.clone());
                differences(present.get(key).unwrap_or(&Value::Null), value, path, found);
                path.pop();
            }
        }
        _ if is_same(present, answered) => {}
        _ => found.push(path.clone()),
    }
}

/// Whether two values mean the same. Other languages write numbers otherwise.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| is_same(value, other)))
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: &str = r#"{"asset": {"id": "1", "resource_type": "X", "meta_info": {"a": 1.0}, "is_public": false},
        "order": {"order_id": "7", "contracts": [{"item_id": "1"}]}}"#;

    fn changed(answered: &str) -> Result<AssetChanges, String> {
        hook_changes(PRESENT, answered, Some(&Asset::default()))
    }

    #[test]
    fn an_echo_and_what_is_left_out_change_nothing() {
        for answered in [PRESENT, "{}", r#"{"asset": {"meta_info": {"a": 1}}}"#, r#"{"order": {}}"#] {
            assert!(changed(answered).expect(answered).is_empty(), "{answered}");
        }
    }

    #[test]
    fn what_the_hook_may_change_is_taken_whole_and_nothing_else() {
        let changes = changed(r#"{"asset": {"meta_info": {"b": 2}, "content_type": "text/csv"}}"#).expect("allowed");
        assert_eq!(changes.meta_info.expect("changed").as_str(), r#"{"b":2}"#);
        assert_eq!((changes.content_type.as_deref(), changes.download_link), (Some("text/csv"), None));
        for (answered, expected) in [
            (r#"{"asset": {"id": "2", "content_type": "text/csv"}}"#, "/asset/id"),
            (r#"{"order": {"order_id": "8"}}"#, "/order/order_id"),
            (r#"{"order": {"contracts": []}}"#, "/order/contracts"),
            (r#"{"extra": 1}"#, "/extra"),
            (r#"{"asset": {"meta_info/x": 1}}"#, "/asset/meta_info/x"),
            (r#"{"asset/meta_info": 5}"#, "/asset/meta_info"),
            (r#"{"asset": {"content_type": 1}}"#, "no text"),
            ("[]", "no object"),
        ] {
            let problem = changed(answered).expect_err(answered);
            assert!(problem.contains(expected), "{problem}");
        }
        let problem = hook_changes(PRESENT, r#"{"asset": {"meta_info": {}}}"#, None).expect_err("not before this one");
        assert!(problem.contains("/asset/meta_info"), "{problem}");
    }
}
