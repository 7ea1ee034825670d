//! Events on their way into the ledger, of callers that wait for them.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    thread::Thread,
};

use billhook_model::Emitted;
use billhook_store::{EventRecord, Result};

/// Events that wait to be recorded.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Arc<Job>>,
    /// Somebody records what is here, or was told to.
    pub(super) is_led: bool,
    /// How many were recorded together last.
    pub(super) told: usize,
}

/// Events that one caller waits for.
pub(super) struct Job {
    pub(super) records: Vec<EventRecord>,
    pub(super) done: OnceLock<Result<Vec<Emitted>>>,
    /// Whether the caller is to record what waits.
    pub(super) leads: AtomicBool,
    pub(super) thread: Thread,
}
