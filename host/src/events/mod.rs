//! Events, and the handlers that operators attach to them: names, order, and how a script or an HTTP endpoint is called.

mod answer;
mod chain;
mod handler;
mod http;
mod names;
mod script;

use std::{
    any::Any,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use billhook_plugin_api::{
    Json, Timestamp,
    data::{Event, ObjectId},
    json_tree::{JsonKind, JsonTree},
};
use sha2::{Digest, Sha256};

pub(crate) use answer::{Answer, Called};
pub use chain::ListenerKind;
pub(crate) use chain::{Chain, Listener, Listeners, ListeningPlugin};
pub(crate) use handler::DEFAULT_PRIORITY;
pub use handler::{BadHandler, Handler, HandlerStatus, Mode, OnFailure, RetryPolicy, Task};
pub(crate) use names::EventNames;
pub use names::{BadEventName, EventInfo, EventKind, UnknownEvent, standard_events};

use crate::{crash_point, database::steady_ms, http_client::Begin, runtime::ChildProgram};

/// Something that is about to happen or happened, as a backend tells of it.
///
/// The id is made with the value: telling of the same value again records nothing twice.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent {
    /// A UUID of version 7.
    pub id: String,
    /// The event's name, or an alias of it.
    pub name: String,
    /// The object that it happens to. Events of one object reach each listener in order.
    pub object_id: Option<ObjectId>,
    /// When it happens.
    pub date: Timestamp<'static>,
    /// What is known about the object.
    pub data: Json<'static>,
}

/// The data of an event have an `id` that can't be that of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the \"id\" of the data can't be that of the event's object ({problem}); name the object beside the data")]
pub struct BadObjectId {
    problem: String,
}

impl NewEvent {
    /// An event that happens now, to no object, with empty data.
    pub fn new(name: impl Into<String>) -> Self {
        NewEvent {
            id: uuid::Uuid::now_v7().to_string(),
            name: name.into(),
            object_id: None,
            date: now(),
            data: Json::default(),
        }
    }

    /// The same event about an object.
    #[must_use]
    pub fn about(mut self, object_id: impl Into<ObjectId>) -> Self {
        self.object_id = Some(object_id.into());
        self
    }

    /// The same event about the object that its data name as their `id`, where they do. An error if that is neither a number, a text
    /// nor `null`: the event must not lose its order without a word.
    pub fn about_own_id(mut self) -> Result<Self, BadObjectId> {
        let bad = |problem: String| BadObjectId { problem };
        let data = JsonTree::read(self.data.as_str()).map_err(|error| bad(error.to_string()))?;
        self.object_id = match data.root().get("id").filter(|id| id.kind() != JsonKind::Null) {
            Some(id) => Some(id.parse().map_err(|error| bad(error.to_string()))?),
            None => None,
        };
        Ok(self)
    }

    /// The same event with data.
    #[must_use]
    pub fn with_data(mut self, data: Json<'static>) -> Self {
        self.data = data;
        self
    }

    /// The event as a listener gets it.
    pub(crate) fn to_event(&self, attempt: u64) -> Event {
        Event {
            id: self.id.clone(),
            name: self.name.clone(),
            object_id: self.object_id.clone(),
            date: self.date.clone(),
            attempt,
            data: self.data.clone(),
        }
    }
}

/// This second, in the form that the Provisioning API shows: with an offset in digits.
fn now() -> Timestamp<'static> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let second: Timestamp<'static> = (UNIX_EPOCH + Duration::from_secs(now.as_secs())).into();
    Timestamp::new(second.as_str().replace('Z', "+00:00")).unwrap_or(second)
}

/// The most bytes that the data of an event may have.
pub(crate) const LARGEST_DATA: usize = 16 * 1024 * 1024;

/// How handlers are called.
#[derive(Debug, Clone, Default)]
pub(crate) struct HandlerOptions {
    /// The hosts that may be called; all if there is no list.
    pub(crate) allowed_hosts: Option<Vec<String>>,
}

/// Calls handlers.
pub(crate) struct Caller {
    client: http::Client,
    program: ChildProgram,
}

impl Caller {
    pub(crate) fn new(options: &HandlerOptions, program: ChildProgram) -> Self {
        Caller { client: http::Client::new(options.allowed_hosts.clone()), program }
    }

    /// Calls a handler on this thread, if it may be begun yet.
    pub(crate) fn call(&self, handler: &Handler, event: &Event, limit: Duration, begin: Option<Begin<'_>>) -> Called {
        let envelope = match serde_json::to_vec(event) {
            Ok(envelope) => envelope,
            Err(error) => {
                let problem = format!("the event can't be written: {error}");
                return Called { answer: Answer::Failed(problem), response: String::new() };
            }
        };
        match &handler.task {
            Task::Http(address) => self.client.call(&http::Post {
                address,
                mode: handler.mode,
                secret: handler.secret.as_deref(),
                idempotency_key: &idempotency_key(&event.id, ListenerKind::Handler, &handler.name),
                envelope: &envelope,
                limit,
                begin,
            }),
            Task::Script(words) => {
                let may_begin = || match begin {
                    None => Some(Box::new(()) as Box<dyn Any>),
                    Some(begin) => {
                        let announced = (begin.announce)();
                        let is_in_time = steady_ms() < begin.before;
                        crash_point::stands_still("before starting");
                        is_in_time.then(|| Box::new(announced) as Box<dyn Any>)
                    }
                };
                script::call(&self.program, handler, words, &event.id, &envelope, limit, &may_begin)
            }
        }
    }
}

/// What tells a delivery from all others, the same at every attempt: the event's id, and what stands for the listener.
pub(crate) fn idempotency_key(event: &str, kind: ListenerKind, listener: &str) -> String {
    let digest = Sha256::digest(format!("{} {listener}", kind.name()));
    let mut key = format!("{event}-");
    for byte in &digest[..8] {
        let _ = write!(key, "{byte:02x}");
    }
    key
}
