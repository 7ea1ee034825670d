//! The table that calls look plugins up in: immutable, made anew when something was installed or changed.

use std::{collections::HashMap, sync::Arc};

use billhook_model::DEFAULT_PRIORITY;
use billhook_plugin_api::{Hook, HookSet};
use billhook_store::{RoutedPlugin, Routes};
use foldhash::fast::RandomState;
use sha2::{Digest as _, Sha256};

use super::{Loader, Slot, slot::SlotSpec};
use crate::events::{EventNames, Listeners, ListeningPlugin};

/// All plugins, by type and by id.
#[derive(Default)]
pub(super) struct Table {
    pub(super) generation: i64,
    pub(super) listeners: Arc<Listeners>,
    /// The hooks whose calls anybody listens to: here they are at hand.
    listened_to: HookSet,
    // Its keys come from the operator and not from callers, so a quick hash will do.
    by_type: HashMap<String, Route, RandomState>,
    by_id: HashMap<String, Entry>,
}

/// Where calls of a plugin go: to the version in use, and perhaps to others.
#[derive(Clone)]
pub(super) struct Route {
    in_use: Arc<Slot>,
    /// The other versions, and how many of all calls go to each, in proportion.
    others: Vec<(u32, Arc<Slot>)>,
    /// The weight of the version in use.
    weight: u32,
}

impl Route {
    /// Returns the slot of the version in use.
    #[inline]
    pub(super) fn in_use(&self) -> &Arc<Slot> {
        &self.in_use
    }

    /// Returns the slot that a call about an object goes to: the same for all calls about it, on every node.
    #[inline]
    pub(super) fn choose(&self, object: Option<&str>) -> &Arc<Slot> {
        if self.others.is_empty() { &self.in_use } else { self.choose_by_weight(object) }
    }

    #[cold]
    fn choose_by_weight(&self, object: Option<&str>) -> &Arc<Slot> {
        let Some(object) = object else { return &self.in_use };
        let digest = Sha256::digest(object);
        let number = digest[..8].iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let sum = u64::from(self.weight) + self.others.iter().map(|(weight, _)| u64::from(*weight)).sum::<u64>();
        let mut place = number % sum.max(1);
        for (weight, slot) in &self.others {
            match place.checked_sub(u64::from(*weight)) {
                Some(rest) => place = rest,
                None => return slot,
            }
        }
        &self.in_use
    }

    fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        std::iter::once(&self.in_use).chain(self.others.iter().map(|(_, slot)| slot))
    }
}

/// A route, and what the version in use stands for: a plugin that refused new settings keeps the slot of its old ones.
struct Entry {
    spec: SlotSpec,
    route: Route,
}

impl Table {
    /// Whether anybody listens to the calls of a hook.
    #[inline]
    pub(super) fn is_listened_to(&self, hook: Hook) -> bool {
        self.listened_to.contains(hook)
    }

    #[inline]
    pub(super) fn by_type(&self, asset_type: &str) -> Option<&Route> {
        self.by_type.get(asset_type)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Route> {
        self.by_id.get(id).map(|entry| &entry.route)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.by_id.values().flat_map(|entry| entry.route.slots())
    }

    /// The table for new routes. What didn't change keeps its instance; a loaded plugin that only got new settings keeps its
    /// old one until [`Table::renewed`] gives it another.
    pub(super) fn with(&self, routes: Routes, loader: &Arc<Loader>) -> Changed {
        let Routes { generation, plugins, handlers, events } = routes;
        let mut new = Table { generation, ..Table::default() };
        let mut to_renew = Vec::new();
        let mut listening = Vec::new();
        for plugin in &plugins {
            let Some((spec, route)) = self.route(plugin, loader, &mut to_renew) else { continue };
            if route.in_use.implements(Hook::OnEvent) {
                listening.push(ListeningPlugin {
                    id: plugin.id.clone(),
                    priority: plugin.priority.unwrap_or(DEFAULT_PRIORITY),
                    events: spec.version.events.clone(),
                });
            }
            new.insert(spec, route);
        }
        let listeners = Listeners::new(EventNames::new(events), handlers, listening);
        new.listened_to = listeners.hooks();
        new.listeners = Arc::new(listeners);
        let gone = self.missing_in(&new);
        Changed { table: new, gone, to_renew }
    }

    /// Where calls of a plugin go from now on.
    fn route(
        &self,
        plugin: &RoutedPlugin,
        loader: &Arc<Loader>,
        to_renew: &mut Vec<SlotSpec>,
    ) -> Option<(SlotSpec, Route)> {
        let old = self.by_id.get(&plugin.id);
        let kept = |spec: &SlotSpec| old.and_then(|old| old.route.slots().find(|slot| slot.spec() == spec)).cloned();
        let mut specs = SlotSpec::of(plugin);
        let spec = specs.next()?;
        let in_use = match old {
            Some(old) if old.spec == spec => Arc::clone(&old.route.in_use),
            _ => match (kept(&spec), old) {
                (Some(slot), _) => slot,
                (None, Some(old)) if old.route.in_use.serves_until(&spec) => {
                    to_renew.push(spec.clone());
                    Arc::clone(&old.route.in_use)
                }
                _ => Arc::new(Slot::new(spec.clone(), loader)),
            },
        };
        let others = specs.map(|other| {
            let weight = other.version.weight;
            (weight, kept(&other).unwrap_or_else(|| Arc::new(Slot::new(other, loader))))
        });
        let route = Route { in_use, others: others.collect(), weight: spec.version.weight };
        Some((spec, route))
    }

    /// The table with another slot for the version in use of a plugin, and what that took the place of; `None` if that isn't in use
    /// any more.
    pub(super) fn renewed(&self, slot: Arc<Slot>) -> Option<Changed> {
        let spec = slot.spec().clone();
        if !self.by_id.get(&spec.id).is_some_and(|entry| entry.spec == spec) {
            return None;
        }
        let listeners = Arc::clone(&self.listeners);
        let (generation, listened_to) = (self.generation, self.listened_to);
        let mut new = Table { generation, listeners, listened_to, ..Table::default() };
        for entry in self.by_id.values() {
            let mut route = entry.route.clone();
            if entry.spec.id == spec.id {
                route.in_use = Arc::clone(&slot);
            }
            new.insert(entry.spec.clone(), route);
        }
        let gone = self.missing_in(&new);
        Some(Changed { table: new, gone, to_renew: Vec::new() })
    }

    fn insert(&mut self, spec: SlotSpec, route: Route) {
        self.by_type.insert(spec.name.clone(), route.clone());
        self.by_id.insert(spec.id.clone(), Entry { spec, route });
    }

    fn missing_in(&self, new: &Table) -> Vec<Arc<Slot>> {
        let is_kept = |id: &String, slot: &Arc<Slot>| {
            new.by_id.get(id).is_some_and(|new| new.route.slots().any(|kept| Arc::ptr_eq(kept, slot)))
        };
        let slots = self.by_id.iter().flat_map(|(id, entry)| entry.route.slots().map(move |slot| (id, slot)));
        slots.filter(|(id, slot)| !is_kept(id, slot)).map(|(_, slot)| Arc::clone(slot)).collect()
    }
}

/// A table that is to take another's place.
pub(super) struct Changed {
    pub(super) table: Table,
    /// The slots that it doesn't have any more.
    pub(super) gone: Vec<Arc<Slot>>,
    /// What loaded plugins that got new settings stand for now.
    pub(super) to_renew: Vec<SlotSpec>,
}
