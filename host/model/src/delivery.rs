//! Deliveries: what one listener is told of one event.

use billhook_plugin_api::{Timestamp, data::ObjectId};
use serde::Serialize;

use crate::{ListenerKind, Moment, named::named};

named! {
    /// What became of a delivery so far.
    pub enum DeliveryStatus: "delivery status" {
        /// It runs when it is due, or when earlier ones of the same listener and object are done.
        Waiting = 0, "waiting";
        /// A host holds it.
        Running = 1, "running";
        /// The listener was told.
        Done = 2, "done";
        /// It failed for good, or too often: a dead letter.
        Dead = 3, "dead";
        /// The operator discarded it.
        Discarded = 4, "discarded";
    }
}

/// A delivery.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Delivery {
    /// Its number.
    pub number: i64,
    /// The id of the event.
    pub event_id: String,
    /// The name of the event.
    pub event: String,
    /// When the event happened, as RFC 3339 has it.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub date: Timestamp<'static>,
    /// The object that the event is about.
    pub object_id: Option<ObjectId>,
    /// What kind of listener it is for.
    pub kind: ListenerKind,
    /// The handler's name or the plugin's id.
    pub listener: String,
    /// What became of it so far.
    pub status: DeliveryStatus,
    /// How many attempts ended.
    pub attempts: u32,
    /// When it may run next; in JSON, in milliseconds since 1970.
    #[cfg_attr(feature = "schema", schema(value_type = i64))]
    pub due: Moment,
    /// The delivery that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<i64>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Delivery {
    /// Returns a delivery that waits, of an event by its id and name, to a listener.
    pub fn new(
        number: i64,
        event_id: impl Into<String>,
        event: impl Into<String>,
        kind: ListenerKind,
        listener: impl Into<String>,
    ) -> Self {
        Delivery {
            number,
            event_id: event_id.into(),
            event: event.into(),
            date: Timestamp::default(),
            object_id: None,
            kind,
            listener: listener.into(),
            status: DeliveryStatus::Waiting,
            attempts: 0,
            due: Moment::default(),
            waits_for: None,
            problem: None,
        }
    }
}

/// Which deliveries are asked for; what is `None` doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// The status.
    pub status: Option<DeliveryStatus>,
    /// The event's name.
    pub event: Option<String>,
    /// The event's id.
    pub event_id: Option<String>,
    /// The handler's name or the plugin's id.
    pub listener: Option<String>,
    /// The object's id.
    pub object: Option<String>,
    /// Deliveries with lower numbers than this.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// An event that was recorded.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Emitted {
    /// The event's id.
    pub id: String,
    /// The numbers of its deliveries, in the order of the listeners.
    pub deliveries: Vec<i64>,
    /// It had been recorded before.
    pub is_repeated: bool,
}

impl Emitted {
    /// Returns an event, by its id, that was recorded just now with deliveries.
    pub fn new(id: impl Into<String>, deliveries: Vec<i64>) -> Self {
        Emitted { id: id.into(), deliveries, is_repeated: false }
    }

    /// Returns the same event as one that had been recorded before.
    #[must_use]
    pub fn repeated(self) -> Self {
        Emitted { is_repeated: true, ..self }
    }
}
