//! The table that calls look plugins up in: immutable, made anew when the registry changed.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{Loader, Slot, same};
use crate::registry::{DispatchRow, Status};

/// All plugins, by type and by id.
#[derive(Default)]
pub(super) struct Table {
    pub(super) generation: i64,
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
    pub(super) fn by_type(&self, asset_type: &str) -> Option<&Arc<Slot>> {
        self.by_type.get(asset_type)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Arc<Slot>> {
        self.by_id.get(id).map(|entry| &entry.slot)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.by_id.values().map(|entry| &entry.slot)
    }

    /// The table for new rows, and the slots that it no longer has. What didn't change keeps its instance.
    pub(super) fn with(
        &self,
        generation: i64,
        rows: Vec<DispatchRow>,
        loader: &Arc<Loader>,
    ) -> (Table, Vec<Arc<Slot>>) {
        let mut new = Table { generation, ..Table::default() };
        for row in rows {
            let slot = self.slot_for(&row, loader);
            new.by_type.insert(row.name.clone(), Arc::clone(&slot));
            new.by_id.insert(row.id.clone(), Entry { row, slot });
        }
        let kept = |id: &String, old: &Entry| new.by_id.get(id).is_some_and(|new| Arc::ptr_eq(&new.slot, &old.slot));
        let gone = self.by_id.iter().filter(|(id, old)| !kept(id, old)).map(|(_, old)| Arc::clone(&old.slot)).collect();
        (new, gone)
    }

    fn slot_for(&self, row: &DispatchRow, loader: &Arc<Loader>) -> Arc<Slot> {
        let Some(old) = self.by_id.get(&row.id) else { return Arc::new(Slot::new(row.clone(), loader)) };
        if same(&old.row, row) {
            return Arc::clone(&old.slot);
        }
        let only_settings = row.status == Status::Enabled && old.slot.row().digest == row.digest;
        if only_settings && old.slot.is_loaded() && old.slot.row().status == Status::Enabled {
            if old.row.settings_changed == row.settings_changed {
                return Arc::clone(&old.slot);
            }
            return match Slot::renewed(row.clone(), loader) {
                Ok(slot) => Arc::new(slot),
                Err(problem) => {
                    tracing::error!(plugin = row.id, "the new settings were refused, the old ones stay: {problem}");
                    Arc::clone(&old.slot)
                }
            };
        }
        Arc::new(Slot::new(row.clone(), loader))
    }
}
