//! Handlers, the operator's own events, and tokens.

use std::collections::BTreeMap;

use billhook_model::{Handler, OwnEvent, Token};

use super::{
    store::{Change, MemoryStore},
    tables::HandlerTable,
};
use crate::{HandlerChange, Handlers, Result, Tokens};

impl HandlerTable {
    pub(super) fn handlers(&self) -> Vec<Handler> {
        self.handlers.values().cloned().collect()
    }

    pub(super) fn events(&self) -> Vec<OwnEvent> {
        self.events.values().cloned().collect()
    }
}

/// Adds a value unless its key is taken. Returns whether it was free.
fn add<T: Clone>(table: &mut BTreeMap<String, T>, key: &str, value: &T) -> Change<bool> {
    if table.contains_key(key) {
        return Change::Nothing(false);
    }
    table.insert(key.to_owned(), value.clone());
    Change::Made(true)
}

/// Removes a value. Returns whether there was one.
fn remove<T>(table: &mut BTreeMap<String, T>, key: &str) -> Change<bool> {
    match table.remove(key) {
        Some(_) => Change::Made(true),
        None => Change::Nothing(false),
    }
}

impl Handlers for MemoryStore {
    fn handlers(&self) -> Result<Vec<Handler>> {
        self.read(|registry| registry.handlers.handlers())
    }

    fn handler(&self, name: &str) -> Result<Option<Handler>> {
        self.read(|registry| registry.handlers.handlers.get(name).cloned())
    }

    fn add_handler(&self, handler: &Handler) -> Result<bool> {
        self.change(|registry| Ok(add(&mut registry.handlers.handlers, &handler.name, handler)))
    }

    fn change_handler(&self, name: &str, change: &mut dyn FnMut(Handler) -> Option<Handler>) -> Result<HandlerChange> {
        self.change(|registry| {
            let Some(found) = registry.handlers.handlers.get_mut(name) else {
                return Ok(Change::Nothing(HandlerChange::Missing));
            };
            let Some(changed) = change(found.clone()) else { return Ok(Change::Nothing(HandlerChange::Refused)) };
            let is_same = *found == changed;
            *found = changed.clone();
            let done = HandlerChange::Done(Box::new(changed));
            Ok(if is_same { Change::Nothing(done) } else { Change::Made(done) })
        })
    }

    fn remove_handler(&self, name: &str) -> Result<bool> {
        self.change(|registry| Ok(remove(&mut registry.handlers.handlers, name)))
    }

    fn own_events(&self) -> Result<Vec<OwnEvent>> {
        self.read(|registry| registry.handlers.events())
    }

    fn add_event(&self, event: &OwnEvent) -> Result<bool> {
        self.change(|registry| Ok(add(&mut registry.handlers.events, &event.name, event)))
    }

    fn remove_event(&self, name: &str) -> Result<bool> {
        self.change(|registry| Ok(remove(&mut registry.handlers.events, name)))
    }
}

impl Tokens for MemoryStore {
    fn tokens(&self) -> Result<Vec<Token>> {
        self.read(|registry| {
            let mut tokens: Vec<Token> = registry.handlers.tokens.values().cloned().collect();
            tokens.sort_by_key(|token| token.created);
            tokens
        })
    }

    fn add_token(&self, token: &Token) -> Result<bool> {
        self.change(|registry| Ok(add(&mut registry.handlers.tokens, &token.id, token)))
    }

    fn remove_token(&self, id: &str) -> Result<bool> {
        self.change(|registry| Ok(remove(&mut registry.handlers.tokens, id)))
    }
}
