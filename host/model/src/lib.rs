//! What billhook keeps and shows: plugins, handlers, events, deliveries, executions, usage, resources and tokens.
//!
//! Values alone: nothing in here reads or writes a file, opens a connection, or waits. Everything else of the host stands on it.

pub mod moment;
pub mod number;
pub mod text;

mod delivery;
mod event;
mod execution;
mod handler;
mod named;
mod plugin;
mod resource;
mod run_policy;
mod token;
mod usage;
mod version;

pub use delivery::{Delivery, DeliveryFilter, DeliveryStatus, Emitted};
pub use event::{
    BadObjectId, EventInfo, EventKind, LARGEST_EVENT_DATA, LONGEST_OBJECT_ID, Listener, ListenerKind, NewEvent,
    OwnEvent,
};
pub use execution::{Execution, ExecutionFilter, ExecutionStatus};
pub use handler::{DEFAULT_PRIORITY, Handler, HandlerStatus, Mode, OnFailure, RetryPolicy, Task, TaskKind};
pub use moment::{Clock, Moment};
pub use named::{Named, UnknownName};
pub use plugin::{
    AddonResources, InstalledVersion, KeptState, ModuleInfo, PluginDetails, PluginStatus, PluginSummary, PluginUses,
};
pub use resource::{Resource, ResourceFilter};
pub use run_policy::{Confinement, HookPolicy, Isolation, RunPolicy, WorkerLimits};
pub use token::{Scope, Token};
pub use usage::{PendingSpec, UsageSpecState};
pub use version::{Version, VersionError};
