//! Events, and who hears of them.

use billhook_plugin_api::{
    Json, Timestamp,
    data::{Event, ObjectId},
    json_tree::{JsonKind, JsonTree},
};
use serde::Serialize;

use crate::{Moment, named::named};

named! {
    /// What kind of listener it is.
    pub enum ListenerKind: "kind of listener" {
        /// An operator's handler.
        Handler = 0, "handler";
        /// A plugin that listens to events, or whose hook is called.
        Plugin = 1, "plugin";
    }
}

named! {
    /// Where an event comes from.
    pub enum EventKind: "kind of event" {
        /// It is known to every billhook: the backend emits it.
        BuiltIn = 0, "built_in";
        /// A call of a hook: the hook functions emit it.
        Hook = 1, "hook";
        /// The operator added it: the backend emits it.
        Own = 2, "own";
    }
}

/// An event that can be listened to.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EventInfo {
    /// Its name, the `events_id` of the envelope.
    pub name: String,
    /// Where it comes from.
    pub kind: EventKind,
    /// What it is about.
    pub description: String,
    /// Another name that is accepted for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Whether its `data` is always empty.
    pub carries_no_data: bool,
}

impl EventInfo {
    /// Returns an event that carries data and has one name.
    pub fn new(name: impl Into<String>, kind: EventKind, description: impl Into<String>) -> Self {
        EventInfo { name: name.into(), kind, description: description.into(), alias: None, carries_no_data: false }
    }
}

/// An event that the operator added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnEvent {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: String,
}

impl OwnEvent {
    /// Returns an event with what it is about.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        OwnEvent { name: name.into(), description: description.into() }
    }
}

/// Whom an event is delivered to: a handler by its name, or a plugin by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Listener {
    /// Which of the two.
    pub kind: ListenerKind,
    /// The name or the id.
    pub name: String,
}

impl Listener {
    /// Returns a listener.
    pub fn new(kind: ListenerKind, name: impl Into<String>) -> Self {
        Listener { kind, name: name.into() }
    }
}

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
    /// Returns an event that happens now, to no object, with empty data.
    pub fn new(name: impl Into<String>) -> Self {
        let id = uuid::Uuid::now_v7();
        NewEvent { id: id.to_string(), name: name.into(), object_id: None, date: now(), data: Json::default() }
    }

    /// Returns the same event about an object.
    #[must_use]
    pub fn about(mut self, object_id: impl Into<ObjectId>) -> Self {
        self.object_id = Some(object_id.into());
        self
    }

    /// Returns the same event about the object that its data name as their `id`, where they do.
    ///
    /// # Errors
    /// That is neither a number, a text nor `null`: the event must not lose its order without a word.
    pub fn about_own_id(mut self) -> Result<Self, BadObjectId> {
        let bad = |problem: String| BadObjectId { problem };
        let data = JsonTree::read(self.data.as_str()).map_err(|error| bad(error.to_string()))?;
        self.object_id = match data.root().get("id").filter(|id| id.kind() != JsonKind::Null) {
            Some(id) => Some(id.parse().map_err(|error| bad(error.to_string()))?),
            None => None,
        };
        Ok(self)
    }

    /// Returns the same event with data.
    #[must_use]
    pub fn with_data(mut self, data: Json<'static>) -> Self {
        self.data = data;
        self
    }

    /// Returns the event as a listener gets it at an attempt.
    pub fn to_event(&self, attempt: u64) -> Event {
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
#[expect(clippy::disallowed_methods, reason = "an event is made by the backend, before any host is asked")]
fn now() -> Timestamp<'static> {
    let now = Moment::from(std::time::SystemTime::now());
    let second = Timestamp::from(Moment::from_seconds(now.seconds()));
    Timestamp::new(second.as_str().replace('Z', "+00:00")).unwrap_or(second)
}

/// The most bytes that an object's id has: a longer one is refused in an event, and cut off in the execution log.
pub const LONGEST_OBJECT_ID: usize = 1024;
/// The most bytes that the data of an event may have.
pub const LARGEST_EVENT_DATA: usize = 16 * 1024 * 1024;
