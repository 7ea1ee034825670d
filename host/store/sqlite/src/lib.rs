//! Keeps what a host keeps in a folder of one machine: three SQLite files, with locks beside them.
//!
//! | file | holds | a commit survives |
//! | --- | --- | --- |
//! | `registry.db` | plugins, settings, state, handlers, usage, resources, tokens | the end of the machine |
//! | `ledger.db` | events and deliveries | the end of the machine; who holds what, the end of the process |
//! | `executions.db` | calls of listeners | the end of the process |
//!
//! Several processes of one machine share them. On SQLite one writer at a time changes a file, so that changes have one order.

mod clock;
mod coordination;
mod executions;
mod failure;
mod file;
mod filter;
mod foreign_log;
mod ledger;
mod registry;

use std::{path::Path, sync::Arc};

use billhook_model::Clock;
use billhook_store::{Result, Retention, Stores};

/// The name of the file that makes a folder a home.
pub const REGISTRY_FILE: &str = "registry.db";

/// What was opened in a home.
#[derive(Debug)]
pub struct SqliteStores {
    /// Everything that is kept.
    pub stores: Stores,
    /// Whether the registry was made just now: there was nothing in the home.
    pub is_new: bool,
}

/// Opens the files of a home, and makes what isn't there; ledger and execution log are made when they are first needed. `locks` is
/// the folder of the locks.
///
/// # Errors
/// A file can't be opened or brought to the newest format, or was put back beside the log of another.
pub fn open(home: &Path, locks: &Path, retention: Retention, clock: &Arc<dyn Clock>) -> Result<SqliteStores> {
    registry::refuse_foreign_logs(home, REGISTRY_FILE, &[REGISTRY_FILE, "ledger.db"])?;
    let (registry, is_new) = registry::Registry::open(&home.join(REGISTRY_FILE), Arc::clone(clock))?;
    let registry = Arc::new(registry);
    let stores = Stores {
        plugins: Arc::clone(&registry) as _,
        state: Arc::clone(&registry) as _,
        handlers: Arc::clone(&registry) as _,
        ledger: Arc::new(ledger::SqliteLedger::new(home, Arc::clone(clock))),
        executions: Arc::new(executions::SqliteExecutionLog::new(home, retention, Arc::clone(clock))),
        usage: Arc::clone(&registry) as _,
        resources: Arc::clone(&registry) as _,
        tokens: registry,
        coordination: Arc::new(coordination::FileLocks::new(locks.to_owned())),
    };
    Ok(SqliteStores { stores, is_new })
}

#[cfg(test)]
mod tests {
    use billhook_store::conformance::{Subject, TestClock, failed};

    use super::*;

    fn make() -> Subject {
        let clock = Arc::new(TestClock::default());
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_owned();
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let reopen = move || open(&home, &home.join("locks"), Retention::default(), &shared).expect("opened").stores;
        Subject {
            stores: reopen(),
            clock,
            fail_next: Box::new(failure::tests::fail_next),
            reopen: Box::new(reopen),
            keeps: Box::new(folder),
        }
    }

    #[test]
    fn files_keep_the_contracts() {
        assert_eq!(failed(&make), [""; 0]);
    }
}
