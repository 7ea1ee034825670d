//! What a host asks of whatever keeps its data.
//!
//! A trait for each concern. Each function is one operation with a meaning, atomic as a whole, and its documentation is its
//! contract: what may be assumed when it returned, and what after an error. There are no transactions, rows or statements here.
//!
//! All functions block. They may be called from any thread, at the same time. What is changed through one trait is seen through
//! the others.

#[cfg(feature = "testing")]
pub mod conformance;
mod coordination;
mod error;
mod executions;
mod handlers;
mod ledger;
#[cfg(feature = "testing")]
mod memory;
mod plugins;
mod resources;
mod state;
mod tokens;
mod usage;

use std::sync::Arc;

pub use coordination::{Coordination, Guard, LockName, Membership};
pub use error::{Kept, Result, StoreError, StoreErrorKind, WasDone};
pub use executions::{CalledName, ExecutionLog, ExecutionNote, Retention};
pub use handlers::{HandlerChange, Handlers};
pub use ledger::{EventRecord, HeldDelivery, Intervention, Ledger, Settled, Take, Verdict};
#[cfg(feature = "testing")]
pub use memory::{Fault, MemoryStore};
pub use plugins::{
    ChangeError, Crashed, InstalledPackage, NewVersion, Plugins, Removal, RoutedPlugin, RoutedVersion, Routes, Tried,
};
pub use resources::{AddonClash, InstalledAddon, NewResource, NextAddon, Resources};
pub use state::PluginState;
pub use tokens::Tokens;
pub use usage::{
    KnownContract, KnownSpec, LastUsage, MadeSpec, NewUsage, RecordedUsage, ReportCount, ReportedUsage, UnsentContract,
    UnsentUsage, UsageBook, UsageContract, UsageEnd, UsageKey, UsageProgress, UsageReport, UsageStage,
};

/// Everything that a host keeps, by concern.
#[derive(Clone)]
pub struct Stores {
    /// What is installed.
    pub plugins: Arc<dyn Plugins>,
    /// What plugins keep.
    pub state: Arc<dyn PluginState>,
    /// Handlers and the operator's own events.
    pub handlers: Arc<dyn Handlers>,
    /// Events and deliveries.
    pub ledger: Arc<dyn Ledger>,
    /// Calls of listeners.
    pub executions: Arc<dyn ExecutionLog>,
    /// Reported usage.
    pub usage: Arc<dyn UsageBook>,
    /// Resources of add-ons.
    pub resources: Arc<dyn Resources>,
    /// Tokens of a server's clients.
    pub tokens: Arc<dyn Tokens>,
    /// Locks, and who is alive.
    pub coordination: Arc<dyn Coordination>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}
