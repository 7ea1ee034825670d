//! Notes of calls on their way into the execution log.
//!
//! Who calls a hook only puts a note into a queue of fixed length; a thread writes what is there, many at once. Where the queue
//! is full, the note is dropped and counted. Deliveries wait for nobody, and their notes are written with what became of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use billhook_model::{Clock, text::with_causes};
use billhook_store::{ExecutionLog, ExecutionNote};

/// Notes calls of hooks without holding them up.
pub(crate) struct Recorder {
    queue: SyncSender<ExecutionNote>,
    dropped: Arc<AtomicU64>,
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// So many notes wait to be written at most.
const LONGEST_QUEUE: usize = 16 * 1024;
/// How often they are written. The writer isn't woken by a note: waking costs the caller more than noting does.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log is trimmed.
const TRIMMED: Duration = Duration::from_secs(60);

impl Recorder {
    /// Starts the thread that writes.
    pub(crate) fn start(log: Arc<dyn ExecutionLog>, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (queue, notes) = sync_channel(LONGEST_QUEUE);
        let (dropped, is_ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&dropped), Arc::clone(&is_ended));
        let run = move || write_all(&*log, &*clock, &notes, &count, &end);
        let thread = thread::Builder::new().name("billhook-executions".to_owned()).spawn(run)?;
        Ok(Recorder { queue, dropped, is_ended, thread: Some(thread) })
    }

    /// Notes a call. Never waits.
    #[inline]
    pub(crate) fn note(&self, note: ExecutionNote) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // What was noted is written before the host is gone.
            let _ = thread.join();
        }
    }
}

fn write_all(
    log: &dyn ExecutionLog,
    clock: &dyn Clock,
    notes: &Receiver<ExecutionNote>,
    dropped: &AtomicU64,
    is_ended: &AtomicBool,
) {
    let mut batch = Vec::new();
    let mut trimmed: Option<Instant> = None;
    loop {
        // Asked before the queue is emptied: what was noted before the end is still there then.
        let ended = is_ended.load(Ordering::Relaxed);
        let is_open = loop {
            match notes.try_recv() {
                Ok(note) if batch.len() < LONGEST_QUEUE => batch.push(note),
                Ok(note) => {
                    batch.push(note);
                    break true;
                }
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        let lost = dropped.swap(0, Ordering::Relaxed);
        if !batch.is_empty() || lost > 0 {
            if let Err(error) = log.write(&batch, lost) {
                tracing::error!("{} executions are not in the log: {}", batch.len(), with_causes(&error));
                dropped.fetch_add(lost + batch.len() as u64, Ordering::Relaxed);
            }
            batch.clear();
        }
        if ended || !is_open {
            return;
        }
        if trimmed.is_none_or(|at| at.elapsed() >= TRIMMED) {
            trimmed = Some(Instant::now());
            if let Err(error) = log.trim(clock.now()) {
                tracing::warn!("the execution log can't be trimmed: {}", with_causes(&error));
            }
        }
        thread::park_timeout(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use billhook_machine::MachineClock;
    use billhook_model::{Execution, ExecutionFilter, ExecutionStatus, ListenerKind, Moment};
    use billhook_store::{CalledName, Result};

    use super::*;

    /// Counts what is written.
    #[derive(Default)]
    struct Counting(Mutex<(usize, u64)>);

    impl ExecutionLog for Counting {
        fn write(&self, notes: &[ExecutionNote], dropped: u64) -> Result<()> {
            let mut counted = self.0.lock().expect("sound");
            *counted = (counted.0 + notes.len(), counted.1 + dropped);
            Ok(())
        }

        fn lose(&self, _count: u64) {}

        fn search(&self, _filter: &ExecutionFilter) -> Result<Vec<Execution>> {
            Ok(Vec::new())
        }

        fn dropped(&self) -> Result<u64> {
            Ok(0)
        }

        fn trim(&self, _now: Moment) -> Result<()> {
            Ok(())
        }
    }

    fn note() -> ExecutionNote {
        ExecutionNote {
            at: MachineClock.now(),
            event: CalledName::Event("a".to_owned()),
            object: "o".to_owned(),
            kind: ListenerKind::Handler,
            listener: "l".into(),
            attempt: 1,
            status: ExecutionStatus::Success,
            error: None,
            response: String::new(),
            took: Duration::from_millis(1),
            delivery: None,
        }
    }

    #[test]
    fn notes_never_wait_and_what_is_dropped_is_counted() {
        // Nobody empties the queue meanwhile.
        let (queue, notes) = sync_channel(10);
        let dropped = Arc::new(AtomicU64::new(0));
        let is_ended = Arc::new(AtomicBool::new(true));
        let recorder = Recorder { queue, dropped: Arc::clone(&dropped), is_ended: Arc::clone(&is_ended), thread: None };
        (0..25).for_each(|_| recorder.note(note()));
        let log = Counting::default();
        write_all(&log, &MachineClock, &notes, &dropped, &is_ended);
        assert_eq!(*log.0.lock().expect("sound"), (10, 15));
    }
}
