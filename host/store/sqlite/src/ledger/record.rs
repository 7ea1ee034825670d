//! Recording events: callers that come at the same time share a transaction.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use billhook_machine::crash_point;
use billhook_model::Emitted;
use billhook_plugin_api::data::ObjectId;
use billhook_store::{EventRecord, Kept, Result, StoreError, StoreErrorKind};
use rusqlite::{Connection, Transaction, params};

use super::{
    SqliteLedger,
    queue::{Job, Queue},
};
use crate::{
    failure::{Step, commit},
    file::begin,
    foreign_log,
};

/// As many events are recorded in one transaction at most.
const LARGEST_BATCH: usize = 256;

impl SqliteLedger {
    /// Callers that come while another's transaction is being made durable share the next one: the first of them writes it, and
    /// the others sleep until it is done.
    pub(super) fn emit_together(&self, records: Vec<EventRecord>) -> Result<Vec<Emitted>> {
        let thread = thread::current();
        let job = Arc::new(Job { records, done: OnceLock::new(), leads: AtomicBool::new(false), thread });
        {
            let mut queue = self.queue();
            queue.jobs.push_back(Arc::clone(&job));
            if !queue.is_led {
                queue.is_led = true;
                job.leads.store(true, Ordering::Relaxed);
            }
        }
        loop {
            if let Some(done) = job.done.get() {
                return done.clone();
            }
            if job.leads.load(Ordering::Acquire) {
                self.lead();
            } else {
                thread::park();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what waits, the caller's own with it, and hands on to the first who came meanwhile.
    fn lead(&self) {
        // Those who were told last may have more to record: they get a turn, so that they needn't wait for a whole transaction.
        let told = self.queue().told;
        for _ in 1..told.min(8) {
            thread::yield_now();
        }
        let batch: Vec<Arc<Job>> = {
            let mut queue = self.queue();
            let count = queue.jobs.len().min(LARGEST_BATCH);
            queue.told = count;
            queue.jobs.drain(..count).collect()
        };
        let recorded = catch_unwind(AssertUnwindSafe(|| {
            let now = self.open()?.clock.now().millis();
            let mut writer = self.writer()?;
            self.record_batch(&mut writer.durable, &batch, now).map_err(|failure| failure.of(Kept::Ledger))
        }));
        // Nobody may wait for ever because of a fault here.
        let recorded = recorded.unwrap_or_else(|_| {
            let message = "the ledger failed: the host panicked";
            Err(StoreError::new(Kept::Ledger, StoreErrorKind::Failed, message).perhaps_done())
        });
        match recorded {
            Ok(all) => batch.iter().zip(all).for_each(|(job, emitted)| drop(job.done.set(Ok(emitted)))),
            Err(error) => batch.iter().for_each(|job| drop(job.done.set(Err(error.clone())))),
        }
        {
            let mut queue = self.queue();
            match queue.jobs.front() {
                Some(next) => {
                    next.leads.store(true, Ordering::Release);
                    next.thread.unpark();
                }
                None => queue.is_led = false,
            }
        }
        batch.iter().for_each(|job| job.thread.unpark());
    }

    /// Records what several callers wait for in one transaction.
    fn record_batch(&self, connection: &mut Connection, batch: &[Arc<Job>], now: i64) -> Step<Vec<Vec<Emitted>>> {
        let transaction = begin(connection)?;
        foreign_log::count(&transaction)?;
        let mut all = Vec::with_capacity(batch.len());
        for job in batch {
            let emitted: Step<Vec<Emitted>> =
                job.records.iter().map(|record| insert(&transaction, record, now)).collect();
            all.push(emitted?);
        }
        self.note_time(&transaction)?;
        crash_point::reached("before ledger commit");
        commit(transaction)?;
        crash_point::reached("after ledger commit");
        Ok(all)
    }
}

fn insert(transaction: &Transaction<'_>, record: &EventRecord, now: i64) -> Step<Emitted> {
    let EventRecord { event, listeners, trace_context, call_id } = record;
    let object_id = event.object_id.as_ref().and_then(|id| serde_json::to_string(id).ok());
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO event (id, name, object_id, date, data, recorded, unheard, trace_context, call_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            event.id,
            event.name,
            object_id,
            event.date.as_str(),
            event.data.as_str(),
            now,
            listeners.is_empty(),
            trace_context,
            call_id
        ])?;
    if inserted == 0 {
        let mut statement = transaction.prepare_cached(
            "SELECT d.number FROM delivery d JOIN event e ON e.number = d.event WHERE e.id = ?1 ORDER BY d.number",
        )?;
        let deliveries = statement.query_map([&event.id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        return Ok(Emitted::new(event.id.clone(), deliveries).repeated());
    }
    let number = transaction.last_insert_rowid();
    let object = event.object_id.as_ref().map(ObjectId::as_str);
    let mut deliveries = Vec::with_capacity(listeners.len());
    let mut statement = transaction.prepare_cached(
        "INSERT INTO delivery (event, kind, listener, object, due, state) VALUES (?1, ?2, ?3, ?4, ?5,
         ?4 IS NOT NULL AND EXISTS (SELECT 1 FROM delivery WHERE state < 2 AND kind = ?2 AND listener = ?3 AND object = ?4))",
    )?;
    for listener in listeners {
        statement.execute(params![number, listener.kind.name(), listener.name, object, now])?;
        deliveries.push(transaction.last_insert_rowid());
    }
    Ok(Emitted::new(event.id.clone(), deliveries))
}
