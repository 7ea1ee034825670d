//! Handlers, and the operator's own events.

use billhook_model::{Handler, OwnEvent};

use crate::Result;

/// The operator's handlers and events. Each function is one atomic operation, and durable on return; each that changes
/// something raises the [generation](crate::Plugins).
pub trait Handlers: Send + Sync {
    /// Returns all handlers, by the bytes of their names.
    fn handlers(&self) -> Result<Vec<Handler>>;

    /// Returns a handler, if there is one of that name.
    fn handler(&self, name: &str) -> Result<Option<Handler>>;

    /// Adds a handler. Returns whether its name was free.
    fn add_handler(&self, handler: &Handler) -> Result<bool>;

    /// Changes a handler in one step: nobody changes it between what `change` gets and what it returns. `change` refuses by
    /// `None`. It may be asked again where the store has to begin anew.
    fn change_handler(&self, name: &str, change: &mut dyn FnMut(Handler) -> Option<Handler>) -> Result<HandlerChange>;

    /// Removes a handler. Returns whether there was one.
    fn remove_handler(&self, name: &str) -> Result<bool>;

    /// Returns the operator's own events, by the bytes of their names.
    fn own_events(&self) -> Result<Vec<OwnEvent>>;

    /// Adds an event of the operator's. Returns whether its name was free.
    fn add_event(&self, event: &OwnEvent) -> Result<bool>;

    /// Removes an event of the operator's. Returns whether there was one.
    fn remove_event(&self, name: &str) -> Result<bool>;
}

/// What became of the change of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum HandlerChange {
    /// There is no handler of that name.
    Missing,
    /// The change was refused.
    Refused,
    /// This is the handler now, changed or as it was.
    Done(Box<Handler>),
}
