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

#[cfg(not(target_os = "linux"))]
compile_error!(
    "the host of billhook runs on Linux, which confines its workers; plugins are written and tested on any system"
);

mod accounting;
mod child_process;
mod delivery;
mod dispatch;
mod events;
mod host;
mod http_client;
mod lifecycle;
#[cfg(any(feature = "command", feature = "server"))]
mod moment;
pub mod package;
mod provisioning;
mod recorder;
mod runtime;
#[cfg(feature = "server")]
pub mod server;

pub use accounting::{
    AssetUsage, FoundSpecification, FoundUsageDocument, HttpUsageApi, NewSpecification, NewUsageDocument, Reconciled,
    SpecificationRef, UsageApi, UsageApiError, UsageApiSettings, UsageApiSettingsError, UsageError, UsageOutcome,
    UsageRefreshed,
};
/// Which characters are shown, everywhere.
pub use billhook_machine::{
    MachineClock,
    disk::{DiskError, DiskTrouble},
};
pub use billhook_model::{
    AddonResources, BadObjectId, Clock, Confinement, Delivery, DeliveryFilter, DeliveryStatus, Emitted, EventInfo,
    EventKind, Execution, ExecutionFilter, ExecutionStatus, Handler, HandlerStatus, HookPolicy, InstalledVersion,
    Isolation, KeptState, LONGEST_OBJECT_ID, ListenerKind, Mode, ModuleInfo, Moment, Named, NewEvent, OnFailure,
    PendingSpec, PluginDetails, PluginStatus, PluginSummary, PluginUses, Resource, ResourceFilter, RetryPolicy,
    RunPolicy, Scope, Task, TaskKind, Token, UnknownName, UsageSpecState, WorkerLimits,
    text::{self, visible, visible_json, visible_line},
};
/// The version of the plugin API that this host has.
pub use billhook_plugin_api::abi::record::API_VERSION;
pub use billhook_plugin_api::call::{HookAnswer, HookObjects, HookReply, PendingUsage};
/// Reads JSON; what goes wrong names its field.
pub use billhook_plugin_api::json_tree::parse_located;
pub use billhook_plugin_api::{Decimal, ErrorKind, Hook, Json, Timestamp, data};
pub use billhook_process::{ChildProgram, keep_last_words};
pub use billhook_store::{Kept, StoreError, StoreErrorKind, WasDone};
pub use child_process::run_child_process;
pub use dispatch::{Forbidden, HookError};
pub use events::{BadEventName, BadHandler, UnknownEvent, standard_events};
pub use host::{Downgrade, EventError, HandlerFilter, Host, HostError, HostOptions, Install, Installed, Step};
pub use lifecycle::{
    AroundError, AssetOutcome, BeginError, BegunOffering, BegunProductSpec, BegunValidation, BundleError, Catalogue,
    CatalogueError, ChangedAsset, Done, NoBundles, ProductSpecValidation,
};
#[cfg(any(feature = "command", feature = "server"))]
pub use moment::parse_moment;
pub use provisioning::{CreatedResource, ProvisioningError, SignOnRequest, SignedOn};
pub use runtime::{Stage, TrialError};

/// Runs the examples of the embedding guide as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding-guide.md")]
pub struct EmbeddingGuide;
