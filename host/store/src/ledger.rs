//! The ledger: which events happened, and what became of each delivery.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use billhook_model::{Delivery, DeliveryFilter, Emitted, Listener, Moment, NewEvent};
use billhook_plugin_api::data::Event;

use crate::Result;

/// Events, and deliveries of them to their listeners.
///
/// A delivery is what one listener is told of one event. It is in the ledger before whoever emitted the event goes on, and
/// stays until it is done, dead or discarded.
///
/// **Order.** Of all deliveries to one listener about one object that are neither done, dead nor discarded, only the first,
/// by when their events were recorded, *may run*; the others are *blocked*. That holds between any two functions of any two
/// hosts: recording an event and settling a delivery of the same listener and object take turns, so that no delivery is blocked
/// without one that may run before it. Deliveries that are about no object never wait for each other.
///
/// **Holding.** A host takes deliveries under a lease: until it runs out nobody else takes them, nor any that are blocked
/// behind them. The lease runs by the store's clock, which nobody can set. Every taking raises the *lease number* of a delivery,
/// which never falls; what a host notes under a lease number that isn't the delivery's any more changes nothing.
///
/// Each function is one atomic operation. What is recorded, settled, redriven, discarded or given up is durable on return, beyond
/// the end of the machine; who holds what is durable beyond the end of the process.
pub trait Ledger: Send + Sync {
    /// Returns whether anything was ever recorded: until then there is nothing to deliver.
    fn exists(&self) -> bool;

    /// Returns the time by which deliveries are due and age. Nobody who sets a machine's clock moves it.
    fn now(&self) -> Result<Moment>;

    /// Records events, each with a delivery for each of its listeners, all of them or none. An event whose id was recorded before
    /// is not recorded again. Callers may share a transaction: then all of them get its error.
    fn emit(&self, records: Vec<EventRecord>) -> Result<Vec<Emitted>>;

    /// Returns the event of a held delivery, as the listener gets it at an attempt, by the number that the delivery has of it.
    fn event(&self, number: i64, attempt: u64) -> Result<Option<Event>>;

    /// Returns what was recorded of an event, by its id, and the event.
    fn recorded(&self, id: &str) -> Result<Option<(Emitted, Event)>>;

    /// Returns a delivery and its event.
    fn show(&self, number: i64) -> Result<Option<(Delivery, Event)>>;

    /// Returns deliveries, the newest first. Holds up nobody who delivers.
    fn list(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>>;

    /// Returns how many deliveries of a listener are neither done, dead nor discarded.
    fn open_deliveries(&self, listener: &Listener) -> Result<u64>;

    /// Returns the listeners that have such deliveries, by the bytes of their kinds' names and then of their names.
    fn waiting_listeners(&self) -> Result<Vec<Listener>>;

    /// Lets a dead or discarded delivery run again, with all its attempts, and one that waits for another attempt run now.
    fn redrive(&self, number: i64) -> Result<Intervention>;

    /// Gives a delivery up, unless it is done or just being delivered; the next of its listener and object may run.
    fn discard(&self, number: i64) -> Result<Intervention>;

    /// Makes dead letters of all deliveries that a listener has left, but for those that are held.
    fn give_up(&self, listener: &Listener, problem: &str) -> Result<()>;

    /// Deletes deliveries that were done or discarded longer ago than `kept`, and events that have no delivery left: at most some
    /// thousand at once, so that nobody waits for long. Returns whether there may be more.
    fn forget(&self, kept: Duration) -> Result<bool>;

    /// Returns the listeners for which deliveries wait that may run. Takes as long as there are listeners, however much waits for
    /// each.
    fn ready_listeners(&self) -> Result<Vec<Listener>>;

    /// Returns whether a listener has deliveries that may run, are due, and that nobody holds.
    fn is_due(&self, listener: &Listener) -> Result<bool>;

    /// Takes deliveries of a listener that may run, are due and that nobody holds, those that are due for longest first; returns
    /// them by their numbers.
    ///
    /// `announced` returns the deliveries that a host is just beginning whose lease ran out: those are left alone, because that
    /// host may send them when it goes on. It is asked after the lease is known to have run out.
    fn take(&self, take: &Take<'_>, announced: &dyn Fn(&str) -> HashSet<i64>) -> Result<Vec<HeldDelivery>>;

    /// Notes that a held delivery is begun. Returns how often it was, since an attempt ended last; `None` if it isn't held any
    /// more.
    fn begin(&self, holder: &str, held: &HeldDelivery) -> Result<Option<u32>>;

    /// Holds what a host holds for longer, from now on.
    fn renew(&self, holder: &str, hold_for: Duration) -> Result<()>;

    /// Holds for longer what a host whose lease had run out still holds, because nobody took it. Returns that: the number of each
    /// delivery with its lease number.
    fn renew_lapsed(&self, holder: &str, hold_for: Duration) -> Result<HashMap<i64, i64>>;

    /// Notes what became of held deliveries, and lets the next ones of their listeners and objects run: held by the same host, and
    /// returned, for `hold_for`, or, without it, by anybody. What isn't held any more under its lease number is left alone.
    fn settle(&self, holder: &str, hold_for: Option<Duration>, all: &[Settled]) -> Result<Vec<HeldDelivery>>;

    /// Returns who holds deliveries, whether the lease lasts or not.
    fn holders(&self) -> Result<Vec<String>>;

    /// Lets anybody take what a host held that is no more. Returns that.
    fn recover(&self, holder: &str) -> Result<Vec<HeldDelivery>>;
}

/// An event that is to be recorded, and whom it is for.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The event.
    pub event: NewEvent,
    /// Its listeners, in their order.
    pub listeners: Vec<Listener>,
    /// The W3C trace context in which it was emitted, if there is one: a `traceparent`.
    pub trace_context: Option<String>,
    /// The id of the call of a hook that it is about, if it is about one.
    pub call_id: Option<String>,
}

impl EventRecord {
    /// Returns an event for its listeners.
    pub fn new(event: NewEvent, listeners: Vec<Listener>) -> Self {
        EventRecord { event, listeners, trace_context: None, call_id: None }
    }
}

/// What a host wants to take.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// Whose deliveries.
    pub listener: &'a Listener,
    /// What the host is called.
    pub holder: &'a str,
    /// How long the lease is.
    pub hold_for: Duration,
    /// How many deliveries at most.
    pub most: usize,
}

/// A delivery that a host holds: nobody else delivers it, and nobody delivers later ones of its listener and object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDelivery {
    /// Its number.
    pub number: i64,
    /// The number of its event.
    pub event: i64,
    /// Whom it is for.
    pub listener: Listener,
    /// The object that it is about, if it is about one.
    pub object: Option<String>,
    /// How many attempts ended.
    pub attempts: u32,
    /// How often it was taken since an attempt ended last, this time included.
    pub taken: u32,
    /// How often it was taken since it was recorded: the lease number.
    pub lease: i64,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The listener was told.
    Done,
    /// Another attempt, after a pause.
    Again {
        /// The pause.
        pause: Duration,
        /// Why this attempt failed.
        problem: String,
    },
    /// It failed for good.
    Dead(String),
    /// It was not attempted, and anybody may take it.
    Released,
}

/// What became of a delivery that a host held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The delivery.
    pub held: HeldDelivery,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What became of an operator's step into a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Intervention {
    /// There is no such delivery.
    Missing,
    /// Its state doesn't allow it.
    NotPossible,
    /// It is done.
    Done,
}
