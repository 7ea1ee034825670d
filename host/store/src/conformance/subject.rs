//! What every test works on.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use billhook_model::{Clock, ModuleInfo, Moment, RunPolicy};
use billhook_plugin_api::UsageSpec;

use crate::{Fault, NewVersion, Stores, Tried};

/// A store to be tested.
pub struct Subject {
    /// The store.
    pub stores: Stores,
    /// The clock that it asks.
    pub clock: Arc<TestClock>,
    /// Lets the next change on this thread fail.
    pub fail_next: Box<dyn Fn(Fault)>,
    /// Opens the same data again, as another host does.
    pub reopen: Box<dyn Fn() -> Stores + Send + Sync>,
    /// What has to live as long as the store.
    pub keeps: Box<dyn Any>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

/// Makes an empty store, each time another one.
pub type Maker<'a> = &'a dyn Fn() -> Subject;

/// A test, by its name.
pub type Test = (&'static str, fn(Maker<'_>));

/// Lists tests by their names.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub(super) const TESTS: &[$crate::conformance::Test] = &[$((stringify!($test), $test)),*];
    };
}

pub(super) use tests;

/// A clock that stands still until it is set.
#[derive(Debug)]
pub struct TestClock {
    now: AtomicI64,
    since_boot: AtomicU64,
}

impl Default for TestClock {
    fn default() -> Self {
        // A store may give its own time a few seconds.
        TestClock { now: AtomicI64::new(1_800_000_000_000), since_boot: AtomicU64::new(1_000_000) }
    }
}

impl TestClock {
    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(0);
        self.since_boot.fetch_add(millis, Ordering::SeqCst);
        self.now.fetch_add(i64::try_from(millis).unwrap_or(0), Ordering::SeqCst);
    }

    /// Sets the time of day, as who administers the machine can.
    pub fn set(&self, now: Moment) {
        self.now.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Moment {
        Moment::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.since_boot.load(Ordering::SeqCst))
    }

    fn boot(&self) -> String {
        "a test".to_owned()
    }
}

/// A version of a plugin, to be installed.
pub(super) fn version(id: &str, version: &str) -> NewVersion {
    NewVersion {
        id: id.to_owned(),
        name: id.to_uppercase(),
        author: "acme".to_owned(),
        version: version.to_owned(),
        digest: format!("digest of {id} {version}"),
        library_digest: format!("library of {id} {version}"),
        manifest: r#"{"name": "x", "events": ["clients.create"]}"#.to_owned(),
        module: ModuleInfo::default(),
        addon: None,
        settings: None,
        policy: RunPolicy::default(),
        tried: works(&[]),
        takes_over: false,
    }
}

/// The same, providing an add-on.
pub(super) fn with_addon(addon: &str, new: NewVersion) -> NewVersion {
    let manifest = format!(r#"{{"addon": {{"id": "{addon}", "config_vars": ["URL"]}}}}"#);
    NewVersion { addon: Some(addon.to_owned()), manifest, ..new }
}

/// A trial that went well, and the units that were declared in it.
pub(super) fn works(units: &[&str]) -> Tried {
    let spec = |unit: &&str| UsageSpec::new(*unit, format!("{unit}s are counted"));
    Tried::Works { usage_specs: units.iter().map(spec).collect() }
}
