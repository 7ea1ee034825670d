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
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

pub use api::{
    FoundSpecification, FoundUsageDocument, NewSpecification, NewUsageDocument, SpecificationRef, UsageApi,
    UsageApiError,
};
use billhook_model::Moment;
use billhook_store::{Coordination, Guard, LockName, StoreError, UsageBook};
pub use http::{HttpUsageApi, UsageApiSettings, UsageApiSettingsError};
pub use reconcile::Reconciled;
pub(crate) use reconcile::Scope;
pub use refresh::{AssetUsage, UsageOutcome, UsageRefreshed};

use crate::lifecycle::BundleError;

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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reconciler's thread can't be started.
    #[error("the reconciler can't be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// What a host has for pull accounting.
pub(crate) struct Accounting {
    pub(crate) book: Arc<dyn UsageBook>,
    pub(crate) api: Option<Arc<dyn UsageApi>>,
    /// The locks that all hosts share.
    pub(crate) coordination: Arc<dyn Coordination>,
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
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest that what failed is left alone.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// For how long what failed so often in a row is left alone.
fn retry_pause(failures: u32) -> Duration {
    (FIRST_RETRY * (1 << failures.saturating_sub(1).min(20))).min(LAST_RETRY)
}

impl Accounting {
    fn now(&self) -> Result<Moment, UsageError> {
        Ok(self.book.now()?)
    }

    /// Whether the time to try again has come.
    fn is_due(&self, retry_at: Moment) -> Result<bool, UsageError> {
        let now = self.now()?;
        Ok(retry_at <= now || retry_at > now.after(2 * LAST_RETRY))
    }

    /// Takes a lock, once nobody else has it; `None` if somebody still has it after a time.
    fn lock(&self, name: &LockName<'_>, patience: Duration) -> Result<Option<Guard>, UsageError> {
        Ok(self.coordination.lock(name, patience)?)
    }
}

/// Whole seconds, rounded up: for people to read.
fn seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000)
}

/// How long a usage API may be at work on a call, from its beginning: also where this host ends meanwhile.
fn longest_work(api: &dyn UsageApi) -> Duration {
    api.call_time().saturating_add(api.settle_time()).saturating_add(MARGIN)
}

/// What clocks that tell whole seconds may be off.
const MARGIN: Duration = Duration::from_secs(1);
