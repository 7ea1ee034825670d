//! Threads for what blocks. They are started as they are needed; where the system gives no more, that is an error of one call,
//! which was not begun, and not the end of anything.

use std::{
    any::Any,
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::problem::Problem;

/// Why what blocks came to no end.
#[derive(Debug)]
pub(super) enum NotRun {
    /// No thread can be started: it was not begun.
    NoThread(io::Error),
    /// It panicked.
    Panicked,
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRun::NoThread(error) => write!(f, "the system lets this process start no more threads: {error}"),
            NotRun::Panicked => f.write_str("the server failed"),
        }
    }
}

impl From<NotRun> for io::Error {
    fn from(not_run: NotRun) -> Self {
        io::Error::other(not_run.to_string())
    }
}

impl From<NotRun> for Problem {
    fn from(not_run: NotRun) -> Self {
        match not_run {
            NotRun::NoThread(_) => Problem::busy(StatusCode::SERVICE_UNAVAILABLE, not_run.to_string(), 1),
            NotRun::Panicked => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, not_run.to_string()),
        }
    }
}

/// Threads are there even if nothing is to be done, so that the server can look at its home and end whatever the system gives.
const ALWAYS: usize = 2;
/// The others end after so long without work.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// The threads. Dropping it lets them end when they have done what was begun.
pub(super) struct Threads(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    /// What waits: for a thread that is idle and was told, or else, where there are as many threads as there may be, for any.
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threads {
    /// Starts the first of at most so many threads.
    pub(super) fn start(most: usize) -> io::Result<Self> {
        let most = most.max(ALWAYS);
        let threads = Threads(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), most }));
        for _ in 0..ALWAYS {
            threads.add(&mut threads.0.lock(), Box::new(|| {}))?;
        }
        Ok(threads)
    }

    /// Runs what blocks, and waits for its end. Whoever stops waiting leaves it to its end.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotRun> {
        let (done, outcome) = oneshot::channel::<Outcome<T>>();
        let job = move || drop(done.send(catch_unwind(AssertUnwindSafe(work))));
        self.begin(Box::new(job)).map_err(NotRun::NoThread)?;
        match outcome.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err(NotRun::Panicked),
        }
    }

    fn begin(&self, job: Job) -> io::Result<()> {
        let mut state = self.0.lock();
        // One that was told of a job counts as idle until it took it.
        if state.idle > state.jobs.len() || state.threads >= self.0.most {
            state.jobs.push_back(job);
            drop(state);
            self.0.changed.notify_one();
            return Ok(());
        }
        self.add(&mut state, job)
    }

    fn add(&self, state: &mut State, first: Job) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name("billhook-call".to_owned()).spawn(move || work(&shared, first))?;
        state.threads += 1;
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.lock().is_ended = true;
        self.0.changed.notify_all();
    }
}

/// What a thread does: its first job, and then whatever comes.
fn work(shared: &Shared, first: Job) {
    first();
    let mut state = shared.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = shared.lock();
            continue;
        }
        if state.is_ended {
            break;
        }
        state.idle += 1;
        let waited = shared.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = waited.0;
        state.idle -= 1;
        if waited.1.timed_out() && state.jobs.is_empty() && state.threads > ALWAYS {
            break;
        }
    }
    state.threads -= 1;
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn many_run_at_once_never_too_many_and_each_comes_to_its_end() {
        let threads = Arc::new(Threads::start(4).expect("started"));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let barrier = Arc::new(Barrier::new(4));
        let runs = (0..40).map(|number| {
            let (threads, now, most, barrier) =
                (Arc::clone(&threads), Arc::clone(&now), Arc::clone(&most), Arc::clone(&barrier));
            tokio::spawn(async move {
                let work = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Only if four run at once does any go on.
                    barrier.wait();
                    now.fetch_sub(1, Ordering::SeqCst);
                    number
                };
                threads.run(work).await
            })
        });
        let runs: Vec<_> = runs.collect();
        for (number, run) in runs.into_iter().enumerate() {
            assert_eq!(run.await.expect("no panic").expect("run"), number);
        }
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_panic_is_an_end_and_takes_no_thread_away() {
        let threads = Threads::start(2).expect("started");
        for _ in 0..8 {
            let run = threads.run(|| std::panic::panic_any(())).await;
            assert!(matches!(run, Err(NotRun::Panicked)), "{run:?}");
        }
        assert_eq!(threads.run(|| 7).await.expect("run"), 7);
        assert_eq!(threads.0.lock().threads, 2);
    }
}
