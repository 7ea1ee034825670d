//! The usage book: which usage was reported, what became of it, and which usage specifications there are.

use billhook_model::{Moment, PendingSpec, UsageSpecState};
use billhook_plugin_api::UsageSpec;

use crate::Result;

/// Reported usage, on its way to documents in the usage API.
///
/// A record is durable before anything is sent, and stays for good: by it a report that comes again is told from new usage.
/// Nothing here goes away with a plugin. Each function is one atomic operation, and durable on return.
///
/// Whoever sends what is recorded for an order and product holds a [lock](crate::Coordination) on them meanwhile.
pub trait UsageBook: Send + Sync {
    /// Returns the time by which usage is tried again. Nobody who sets a machine's clock moves it.
    fn now(&self) -> Result<Moment>;

    /// Returns the units that the version in use of a plugin declared; `None` if the plugin isn't installed.
    fn declared_units(&self, plugin: &str) -> Result<Option<Vec<UsageSpec>>>;

    /// Returns the last usage that a plugin reported for an asset of a contract.
    fn last_usage(&self, plugin: &str, asset: &str, key: &UsageKey, item: &str) -> Result<LastUsage>;

    /// Records what plugins reported, and gives each new record its correlation number: from the contract's next one on, or from
    /// a higher one that was reached before, without gaps. A record whose identity its plugin, order and item had before is
    /// known, and not recorded again.
    ///
    /// # Errors
    /// A kind [`CorrelationNumber`](crate::StoreErrorKind::CorrelationNumber) where the numbers are used up: nothing is recorded.
    fn record(&self, contract: &UsageContract<'_>, reports: &[UsageReport<'_>]) -> Result<RecordedUsage>;

    /// Returns what a plugin reported under an identity.
    fn reported_as(&self, plugin: &str, key: &UsageKey, item: &str, identity: &str) -> Result<Option<ReportedUsage>>;

    /// Notes progress, and takes the next records whose documents aren't guided, at most `most` with higher numbers than `after`:
    /// from now on they may have been sent, and until `settles_at` the usage API may be at work on them.
    fn next_usage(
        &self,
        key: &UsageKey,
        after: Option<u64>,
        most: usize,
        progress: &UsageProgress,
        settles_at: Moment,
    ) -> Result<Vec<UnsentUsage>>;

    /// Notes until when the usage API may be at work on what is sent of an order and product.
    fn note_settling(&self, key: &UsageKey, settles_at: Moment) -> Result<()>;

    /// Notes progress and how it ended. Returns how many records' documents aren't guided yet.
    fn note_usage(&self, key: &UsageKey, progress: &UsageProgress, ended: &UsageEnd) -> Result<u64>;

    /// Returns what is known of a contract whose usage was recorded.
    fn contract(&self, key: &UsageKey) -> Result<Option<KnownContract>>;

    /// Returns the contracts with records whose documents aren't guided yet, those that are due first at the front.
    fn unsent_contracts(&self) -> Result<Vec<UnsentContract>>;

    /// Returns how many records of an order and product have no guided document yet.
    fn unsent_usage(&self, key: &UsageKey) -> Result<u64>;

    /// Returns all usage specifications that there are or have to be, of one plugin or of all: those that a version in use declares,
    /// that a record without a guided document needs, and that the usage API has or may have. All of one moment, by plugin, name
    /// and description.
    fn specs(&self, plugin: Option<&str>) -> Result<Vec<KnownSpec>>;

    /// Returns the specification in the usage API of a unit of a plugin's.
    fn made_spec(&self, plugin: &str, unit: &str) -> Result<Option<MadeSpec>>;

    /// Returns the ids in the usage API of all usage specifications that are known to be ours.
    fn made_spec_ids(&self) -> Result<Vec<String>>;

    /// Notes what is known of a usage specification.
    fn note_spec(&self, spec: &KnownSpec) -> Result<()>;

    /// Forgets a usage specification that the usage API doesn't have any more. One that records came to need meanwhile is to be
    /// made again.
    fn forget_spec(&self, spec: &KnownSpec) -> Result<()>;
}

/// What correlation numbers run along: a product of an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    /// The order's id.
    pub order: String,
    /// The product's id.
    pub product: String,
}

/// The last usage that was reported for an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUsage {
    /// When it was made, as it was reported.
    pub date: Option<String>,
    /// Whether any usage of the contract was recorded.
    pub is_contract_known: bool,
}

/// A contract whose usage is recorded.
#[derive(Debug, Clone, Copy)]
pub struct UsageContract<'a> {
    /// Its order and product.
    pub key: &'a UsageKey,
    /// Its item.
    pub item: &'a str,
    /// Who uses it.
    pub customer: &'a str,
    /// The correlation number that the contract has.
    pub next: u64,
    /// The plugins and assets that the contract is about, and its last usage: where they begin, if the contract wasn't known
    /// before.
    pub assets: &'a [(String, String)],
    /// When the last usage of the contract was made.
    pub last_usage: Option<&'a str>,
}

/// What a plugin reported for an asset.
#[derive(Debug, Clone)]
pub struct UsageReport<'a> {
    /// The plugin.
    pub plugin: &'a str,
    /// The asset.
    pub asset: &'a str,
    /// The records.
    pub records: Vec<NewUsage<'a>>,
    /// When the last of this usage was made.
    pub last_usage: Option<&'a str>,
}

/// A reported record, checked.
#[derive(Debug, Clone)]
pub struct NewUsage<'a> {
    /// What tells it from all others of its plugin, order and item.
    pub identity: String,
    /// The unit.
    pub unit: &'a UsageSpec,
    /// When the usage was made.
    pub date: &'a str,
    /// How much.
    pub value: &'a str,
}

/// What became of reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedUsage {
    /// What became of each.
    pub reports: Vec<ReportCount>,
    /// The contract's next correlation number.
    pub next: u64,
}

/// What became of a report's records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReportCount {
    /// So many are recorded now.
    pub new: u64,
    /// So many were recorded before.
    pub known: u64,
}

/// A record as it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedUsage {
    /// The unit.
    pub unit: String,
    /// When the usage was made.
    pub date: String,
    /// How much.
    pub value: String,
}

/// How far a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageStage {
    /// Nothing was sent.
    Recorded,
    /// It may have been sent.
    Attempted,
}

/// A record whose document isn't guided yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsentUsage {
    /// The correlation number.
    pub number: u64,
    /// The plugin that reported it.
    pub plugin: String,
    /// The unit.
    pub unit: String,
    /// When the usage was made.
    pub date: String,
    /// How much.
    pub value: String,
    /// How far it was before it was taken.
    pub stage: UsageStage,
}

/// What became of records since it was noted last.
#[derive(Debug, Default, Clone)]
pub struct UsageProgress {
    /// Those whose documents are guided: there is nothing left to do.
    pub guided: Vec<u64>,
    /// Those that certainly have no document.
    pub untouched: Vec<u64>,
}

/// How a try to send a contract's records ended.
#[derive(Debug, Clone, Copy)]
pub enum UsageEnd {
    /// Everything was sent.
    Whole,
    /// Something failed.
    Failed {
        /// The usage API may still be at work until then.
        settles_at: Moment,
        /// How long to leave it alone after so many failures in a row.
        retry_pause: fn(u32) -> std::time::Duration,
    },
}

/// What is known of a contract whose usage was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownContract {
    /// Who used what is recorded and not yet sent.
    pub customer: String,
    /// Until when the usage API may be at work on it.
    pub settles_at: Moment,
}

/// A contract with records whose documents aren't guided yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsentContract {
    /// Its order and product.
    pub key: UsageKey,
    /// When it is tried again.
    pub retry_at: Moment,
}

/// A specification that the usage API has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeSpec {
    /// The usage API's id of it.
    pub id: String,
    /// The usage API's address of it.
    pub href: String,
}

/// A usage specification: declared by a plugin, or known to the usage API, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSpec {
    /// The plugin.
    pub plugin: String,
    /// The unit's name.
    pub name: String,
    /// What is counted.
    pub description: String,
    /// Whether there has to be one.
    pub is_wanted: bool,
    /// The one that the usage API has.
    pub made: Option<MadeSpec>,
    /// The ids that its name had in the usage API before one was made, if that was tried.
    pub before: Option<Vec<String>>,
    /// How often in a row it failed.
    pub tries: u32,
    /// When it is tried again.
    pub retry_at: Moment,
    /// Why it failed last.
    pub failure: Option<String>,
    /// Until when the usage API may be at work on making it.
    pub settles_at: Moment,
}

impl KnownSpec {
    /// Returns one that has to be made, and of which nothing else is known.
    pub fn wanted(plugin: impl Into<String>, name: impl Into<String>, description: impl Into<String>) -> Self {
        KnownSpec {
            plugin: plugin.into(),
            name: name.into(),
            description: description.into(),
            is_wanted: true,
            made: None,
            before: None,
            tries: 0,
            retry_at: Moment::default(),
            failure: None,
            settles_at: Moment::default(),
        }
    }

    /// Returns whether there is something to do.
    pub fn is_pending(&self) -> bool {
        !self.is_wanted || self.made.is_none()
    }
}

impl From<KnownSpec> for UsageSpecState {
    fn from(spec: KnownSpec) -> Self {
        let mut state = UsageSpecState::new(spec.plugin, spec.name);
        state.pending = match (spec.is_wanted, &spec.made) {
            (true, Some(_)) => None,
            (true, None) => Some(PendingSpec::Create),
            (false, _) => Some(PendingSpec::Delete),
        };
        state.href = spec.made.map(|made| made.href);
        state.failure = spec.failure;
        state
    }
}
