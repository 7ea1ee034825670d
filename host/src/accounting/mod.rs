//! Pull accounting: usage that plugins report becomes usage documents in the backend's usage API, each record once.
//!
//! A report is recorded before anything is sent, and recording gives each record its correlation number. Order, product and
//! correlation number are the identity of its document. Before records are sent they are noted as attempted; what was cut
//! off is found again in the usage API by that identity before it is sent a second time.

mod api;
mod http;
mod reconcile;
mod refresh;
mod send;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

pub use api::{
    FoundSpecification, FoundUsageDocument, NewSpecification, NewUsageDocument, SpecificationRef, UsageApi,
    UsageApiError,
};
pub use http::{HttpUsageApi, UsageApiSettings, UsageApiSettingsError};
pub use reconcile::Reconciled;
pub(crate) use reconcile::Scope;
pub use refresh::{AssetUsage, UsageOutcome, UsageRefreshed};

use crate::{
    lifecycle::BundleError,
    registry::{Registry, RegistryError},
};

/// Why usage can't be accounted at all. What was recorded before stays so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The host has no usage API.
    #[error("this host has no usage API; give it one with HostOptions::usage_api, or [usage_api] in the configuration")]
    NoUsageApi,
    /// The order or the contract lacks something that usage documents have to name.
    #[error("item {item:?} of order {order:?} has no {lacks} yet: usage documents have to name one")]
    Incomplete {
        /// The order.
        order: String,
        /// The contract's item.
        item: String,
        /// What is missing.
        lacks: &'static str,
    },
    /// Which assets the contract is about can't be told.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Another process or thread accounts the same usage, and doesn't end.
    #[error("the same usage is being accounted elsewhere, and that didn't end within {} s", .0.as_secs_f64())]
    Busy(Duration),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The home's locks can't be used.
    #[error("the home's locks can't be used: {0}")]
    Lock(#[source] std::io::Error),
    /// The reconciler's thread can't be started.
    #[error("the reconciler can't be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// What a host has for pull accounting.
pub(crate) struct Accounting {
    pub(crate) registry: Arc<Registry>,
    pub(crate) api: Option<Arc<dyn UsageApi>>,
    /// The folder of the locks, which all processes share.
    pub(crate) locks: PathBuf,
    /// How long to wait for another refresh of the same contract.
    pub(crate) patience: Duration,
    /// Set when the host ends: a pass of the reconciler goes no further.
    pub(crate) is_ended: AtomicBool,
}

impl Accounting {
    fn api(&self) -> Result<&dyn UsageApi, UsageError> {
        self.api.as_deref().ok_or(UsageError::NoUsageApi)
    }
}

/// The first time that what failed is tried again; each failure doubles it.
const FIRST_RETRY: i64 = 1;
/// The longest that what failed is left alone.
const LAST_RETRY: i64 = 300;

/// For how many seconds what failed so often in a row is left alone.
fn retry_pause(failures: u32) -> i64 {
    (FIRST_RETRY << failures.saturating_sub(1).min(20)).min(LAST_RETRY)
}

impl Accounting {
    /// Whether the time to try again has come.
    fn is_due(&self, retry_at: i64) -> bool {
        let now = self.registry.now_s();
        retry_at <= now || retry_at > now.saturating_add(2 * LAST_RETRY)
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// How long a usage API may be at work on a call, in whole seconds, from its beginning: also where this host ends meanwhile.
fn longest_work(api: &dyn UsageApi) -> i64 {
    seconds(api.call_time()).saturating_add(seconds(api.settle_time())).saturating_add(1)
}
