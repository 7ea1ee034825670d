//! The table that calls look plugins up in: immutable, made anew when the registry changed.

use std::{collections::HashMap, sync::Arc};

use billhook_plugin_api::{Hook, json_tree::JsonTree};
use foldhash::fast::RandomState;

use super::{Loader, Slot, same};
use crate::{
    events::{DEFAULT_PRIORITY, EventNames, Listeners, ListeningPlugin},
    registry::{DispatchRow, DispatchRows},
};

/// All plugins, by type and by id.
#[derive(Default)]
pub(super) struct Table {
    pub(super) generation: i64,
    pub(super) listeners: Arc<Listeners>,
    /// The bits of the hooks whose calls anybody listens to: here they are at hand.
    listened_to: u32,
    // Its keys come from the operator and not from callers, so a quick hash will do.
    by_type: HashMap<String, Arc<Slot>, RandomState>,
    by_id: HashMap<String, Entry>,
}

/// A slot, and the row that it stands for: a plugin that refused new settings keeps the slot of its old ones.
struct Entry {
    row: DispatchRow,
    slot: Arc<Slot>,
}

impl Table {
    /// Whether anybody listens to the calls of a hook.
    #[inline]
    pub(super) fn is_listened_to(&self, hook: Hook) -> bool {
        self.listened_to & (1 << (hook as u32)) != 0
    }

    pub(super) fn by_type(&self, asset_type: &str) -> Option<&Arc<Slot>> {
        self.by_type.get(asset_type)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Arc<Slot>> {
        self.by_id.get(id).map(|entry| &entry.slot)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.by_id.values().map(|entry| &entry.slot)
    }

    /// The table for new rows. What didn't change keeps its instance; a loaded plugin that only got new settings keeps its
    /// old one until [`Table::renewed`] gives it another.
    pub(super) fn with(&self, rows: DispatchRows, loader: &Arc<Loader>) -> Changed {
        let DispatchRows { generation, plugins, handlers, events } = rows;
        let mut new = Table { generation, ..Table::default() };
        let mut to_renew = Vec::new();
        let mut listening = Vec::new();
        for row in plugins {
            let old = self.by_id.get(&row.id);
            let slot = match old {
                Some(old) if same(&old.row, &row) => Arc::clone(&old.slot),
                Some(old) if old.slot.serves_until(&row) => {
                    to_renew.push(row.clone());
                    Arc::clone(&old.slot)
                }
                _ => Arc::new(Slot::new(row.clone(), loader)),
            };
            if slot.implements(Hook::OnEvent)
                && let Some(events) = row.events.as_deref()
            {
                // What is no text was warned of when the package was loaded.
                let events = JsonTree::read(events).map(|events| {
                    events.root().elements().filter_map(|event| Some(event.text()?.into_owned())).collect()
                });
                listening.push(ListeningPlugin {
                    id: row.id.clone(),
                    priority: row.priority.unwrap_or(DEFAULT_PRIORITY),
                    events: events.unwrap_or_default(),
                });
            }
            new.insert(row, slot);
        }
        let listeners = Listeners::new(EventNames::new(events), handlers, listening);
        new.listened_to = listeners.hooks();
        new.listeners = Arc::new(listeners);
        let gone = self.missing_in(&new);
        Changed { table: new, gone, to_renew }
    }

    /// The table with another slot for a row, and what that took the place of; `None` if the row is not in it any more.
    pub(super) fn renewed(&self, slot: Arc<Slot>) -> Option<Changed> {
        let row = slot.row().clone();
        if !self.by_id.get(&row.id).is_some_and(|entry| same(&entry.row, &row)) {
            return None;
        }
        let listeners = Arc::clone(&self.listeners);
        let (generation, listened_to) = (self.generation, self.listened_to);
        let mut new = Table { generation, listeners, listened_to, ..Table::default() };
        for entry in self.by_id.values() {
            let slot = if entry.row.id == row.id { &slot } else { &entry.slot };
            new.insert(entry.row.clone(), Arc::clone(slot));
        }
        let gone = self.missing_in(&new);
        Some(Changed { table: new, gone, to_renew: Vec::new() })
    }

    fn insert(&mut self, row: DispatchRow, slot: Arc<Slot>) {
        self.by_type.insert(row.name.clone(), Arc::clone(&slot));
        self.by_id.insert(row.id.clone(), Entry { row, slot });
    }

    fn missing_in(&self, new: &Table) -> Vec<Arc<Slot>> {
        let kept = |id: &String, old: &Entry| new.by_id.get(id).is_some_and(|new| Arc::ptr_eq(&new.slot, &old.slot));
        self.by_id.iter().filter(|(id, old)| !kept(id, old)).map(|(_, old)| Arc::clone(&old.slot)).collect()
    }
}

/// A table that is to take another's place.
pub(super) struct Changed {
    pub(super) table: Table,
    /// The slots that it doesn't have any more.
    pub(super) gone: Vec<Arc<Slot>>,
    /// The rows of loaded plugins that got new settings.
    pub(super) to_renew: Vec<DispatchRow>,
}
