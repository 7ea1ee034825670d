//! The plugin host for charging backends.
//!
//! A charging backend sells digital assets; a plugin teaches it one kind. A host does this with plugins:
//!
//! 1. [`Host::open`] opens a home: a folder with the installed packages and a registry of them.
//! 2. [`Host::install`] takes a package: unpacks and checks it without running it, tries its module in a child process, and
//!    installs or upgrades in one step that can be cut off anywhere.
//! 3. The hook functions, such as [`Host::on_product_acquisition`], find the plugin by the asset's type, load it on its
//!    first call, and call it on the caller's thread. What the hook changed on the asset comes back to the caller, who saves
//!    it; a refusal, a panic or a fault comes back as a [`HookError`].
//! 4. [`Host::downgrade`] and [`Host::remove`] go back. What other processes do on the same home is noticed within a second.
//!
//! ```no_run
//! use billhook::{Host, Install, data};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     billhook::run_child_process();
//!
//!     let host = Host::open("/var/lib/my-backend/billhook")?;
//!     let installed = host.install("test-resource-1.0.zip", &Install::default())?;
//!     println!("installed {}", installed.plugin.id);
//!
//!     let seller = data::User { username: "acme".into(), ..data::User::default() };
//!     host.on_pre_product_spec_validation(&seller, "Test Resource", "application/json", "https://acme.example/api")?;
//!     Ok(())
//! }
//! ```
//!
//! The library logs through `tracing` and never prints. The `billhook` command is in the feature `command`.

mod accounting;
mod child_process;
mod crash_point;
mod database;
mod delivery;
mod disk;
mod dispatch;
mod events;
mod executions;
mod host;
mod http_client;
mod ledger;
mod lifecycle;
mod locks;
mod number;
pub mod package;
mod private;
mod provisioning;
mod registry;
mod runtime;
#[cfg(feature = "server")]
pub mod server;
mod shown;

pub use accounting::{
    AssetUsage, FoundSpecification, FoundUsageDocument, HttpUsageApi, NewSpecification, NewUsageDocument, Reconciled,
    SpecificationRef, UsageApi, UsageApiError, UsageApiSettings, UsageApiSettingsError, UsageError, UsageOutcome,
    UsageRefreshed,
};
/// The version of the plugin API that this host has.
pub use billhook_plugin_api::abi::record::API_VERSION;
pub use billhook_plugin_api::call::{HookAnswer, HookObjects, HookReply, PendingUsage};
/// Reads JSON; what goes wrong names its field.
pub use billhook_plugin_api::json_tree::parse_located;
pub use billhook_plugin_api::{Decimal, ErrorKind, Hook, Json, Timestamp, data};
pub use child_process::run_child_process;
pub use database::DatabaseError;
pub use disk::{DiskError, DiskTrouble};
pub use dispatch::{Forbidden, HookError, LONGEST_OBJECT_ID};
pub use events::{
    BadEventName, BadHandler, BadObjectId, EventInfo, EventKind, Handler, HandlerStatus, ListenerKind, Mode, NewEvent,
    OnFailure, RetryPolicy, Task, UnknownEvent, standard_events,
};
#[cfg(any(feature = "command", feature = "server"))]
pub use executions::parse_moment;
pub use executions::{Execution, ExecutionFilter, ExecutionLogError, ExecutionStatus};
pub use host::{Downgrade, EventError, HandlerFilter, Host, HostError, HostOptions, Install, Installed, Step};
pub use ledger::{Delivery, DeliveryFilter, DeliveryStatus, Emitted, LedgerError};
pub use lifecycle::{
    AroundError, AssetOutcome, BeginError, BegunOffering, BegunProductSpec, BegunValidation, BundleError, Catalogue,
    CatalogueError, ChangedAsset, Done, NoBundles, ProductSpecValidation,
};
pub use provisioning::{CreatedResource, ProvisioningError, SignOnRequest, SignedOn};
pub use registry::{
    AddonResources, InstalledVersion, KeptState, PendingSpec, PluginDetails, PluginSummary, PluginUses, RegistryError,
    Resource, ResourceFilter, Scope, Status, Token, UsageSpecState,
};
#[cfg(target_os = "linux")]
pub use runtime::keep_last_words;
pub use runtime::{
    ChildProgram, Confinement, HookSettings, Isolation, RuntimeSettings, Stage, TrialError, WorkerLimits,
};
pub use shown::{visible, visible_json, visible_line};

/// Runs the examples of the embedding guide as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding-guide.md")]
pub struct EmbeddingGuide;
