//! What is kept, as plain data.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Condvar, Mutex},
    time::Duration,
};

use billhook_model::{Execution, Handler, Listener, Moment, OwnEvent, Resource, RunPolicy, Token};
use billhook_plugin_api::UsageSpec;

use crate::{EventRecord, KnownSpec, NewVersion, UsageKey};

/// What has one generation, or is counted with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    pub(super) generation: i64,
    pub(super) plugins: PluginTable,
    pub(super) handlers: HandlerTable,
    pub(super) resources: ResourceTable,
    pub(super) usage: UsageTable,
}

/// Plugins by their ids, and assets with the plugins that they use.
#[derive(Debug, Clone, Default)]
pub(super) struct PluginTable {
    pub(super) plugins: BTreeMap<String, InstalledRow>,
    pub(super) assets: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct InstalledRow {
    /// The place in the history of the version in use.
    pub(super) in_use: usize,
    pub(super) history: Vec<VersionRow>,
    pub(super) weights: Vec<(String, u32)>,
    pub(super) is_enabled: bool,
    pub(super) settings: String,
    pub(super) settings_changed: i64,
    pub(super) needs_settings: Option<String>,
    pub(super) quarantined: Option<String>,
    pub(super) policy: RunPolicy,
    pub(super) priority: Option<u32>,
    pub(super) state: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct VersionRow {
    pub(super) package: NewVersion,
    pub(super) installed_at: Moment,
    pub(super) usage_specs: Vec<UsageSpec>,
    /// The settings that it had when a later one took its place.
    pub(super) settings: Option<String>,
}

/// Each by its name or id.
#[derive(Debug, Clone, Default)]
pub(super) struct HandlerTable {
    pub(super) handlers: BTreeMap<String, Handler>,
    pub(super) events: BTreeMap<String, OwnEvent>,
    pub(super) tokens: BTreeMap<String, Token>,
}

/// Resources by their numbers, each with the plugin and the author that made it.
#[derive(Debug, Clone, Default)]
pub(super) struct ResourceTable {
    pub(super) last: i64,
    pub(super) rows: BTreeMap<i64, ResourceRow>,
}

#[derive(Debug, Clone)]
pub(super) struct ResourceRow {
    pub(super) plugin: String,
    pub(super) author: String,
    pub(super) resource: Resource,
}

/// Contracts, records and specifications.
#[derive(Debug, Clone, Default)]
pub(super) struct UsageTable {
    pub(super) contracts: BTreeMap<UsageKey, ContractRow>,
    /// When the last usage was made: of plugin, asset, order and item.
    pub(super) reported: BTreeMap<[String; 4], String>,
    pub(super) specs: BTreeMap<[String; 3], KnownSpec>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ContractRow {
    pub(super) customer: String,
    pub(super) next: u64,
    pub(super) tries: u32,
    pub(super) retry_at: Moment,
    pub(super) settles_at: Moment,
    pub(super) records: BTreeMap<u64, UsageRow>,
}

#[derive(Debug, Clone)]
pub(super) struct UsageRow {
    pub(super) plugin: String,
    pub(super) item: String,
    pub(super) identity: String,
    pub(super) unit: String,
    pub(super) date: String,
    pub(super) value: String,
    pub(super) stage: UsageRowStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageRowStage {
    Recorded,
    Attempted,
    Guided,
}

/// Events and deliveries by their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct LedgerTable {
    pub(super) was_used: bool,
    pub(super) events: BTreeMap<i64, EventRow>,
    pub(super) deliveries: BTreeMap<i64, DeliveryRow>,
    pub(super) last: i64,
}

#[derive(Debug, Clone)]
pub(super) struct EventRow {
    pub(super) record: EventRecord,
    pub(super) recorded: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryState {
    Ready,
    Blocked,
    Done,
    Dead,
    Discarded,
}

#[derive(Debug, Clone)]
pub(super) struct DeliveryRow {
    pub(super) event: i64,
    pub(super) listener: Listener,
    pub(super) object: Option<String>,
    pub(super) state: DeliveryState,
    pub(super) attempts: u32,
    pub(super) taken: u32,
    pub(super) begun: u32,
    pub(super) lease: i64,
    pub(super) due: Moment,
    pub(super) settled: Option<Moment>,
    pub(super) held: Option<Hold>,
    pub(super) problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) holder: String,
    pub(super) until: Duration,
}

/// ExecutionTable by their ids, and how many were dropped until when.
#[derive(Debug, Clone, Default)]
pub(super) struct ExecutionTable {
    pub(super) last: i64,
    pub(super) rows: BTreeMap<i64, Execution>,
    pub(super) dropped: Vec<(Moment, u64)>,
    /// Not told yet.
    pub(super) lost: u64,
}

/// What is locked, and who takes part.
#[derive(Debug, Default)]
pub(super) struct Locks {
    pub(super) table: Mutex<LockTable>,
    pub(super) freed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct LockTable {
    pub(super) locked: HashSet<String>,
    pub(super) members: HashMap<String, Member>,
}

#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) is_gone: bool,
    pub(super) announced: HashSet<i64>,
}
