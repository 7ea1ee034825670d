//! What all requests share.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, io,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    blocking::{NotRun, Threads},
    failures::Failures,
    metrics::{Metrics, RouteCounters},
    options::{MANAGEMENT, SEARCHES, ServerOptions},
    problem::Problem,
    sessions::Sessions,
};
use crate::{Host, HostError, Token, UsageError};

/// The document that describes the API.
pub(super) struct Document {
    /// As it is served.
    pub(super) text: String,
    /// The same to be looked at.
    pub(super) value: serde_json::Value,
}

/// What all requests share.
#[derive(Clone)]
pub(super) struct App(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) host: Arc<Host>,
    pub(super) options: ServerOptions,
    pub(super) metrics: Option<Arc<Metrics>>,
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
    pub(super) failures: Failures,
    pub(super) sessions: Sessions,
    pub(super) routes: RouteCounters,
    threads: Threads,
    /// Calls of plugins, of one plugin each, and everything else that blocks.
    calls: Arc<Semaphore>,
    by_plugin: Mutex<HashMap<String, Arc<Semaphore>, foldhash::fast::RandomState>>,
    management: Arc<Semaphore>,
    /// Searches of what may be long: they keep neither those that manage waiting, nor all processors busy.
    searches: Arc<Semaphore>,
    /// Looks into the registry for whoever is unknown: one at a time.
    strangers: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    tokens: ArcSwap<Tokens>,
    document: OnceLock<Document>,
    /// Why the server can't take requests now, if it can't.
    unready: Mutex<Option<String>>,
}

/// The tokens of a generation of the registry.
#[derive(Default)]
struct Tokens {
    generation: Option<i64>,
    by_id: HashMap<String, Arc<Token>>,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("host", &self.host).finish_non_exhaustive()
    }
}

/// How much longer than its deadline a call may take until nobody waits for it any more: what ends it at its deadline comes first.
const GRACE: Duration = Duration::from_secs(2);
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);

impl Shared {
    pub(super) fn new(
        host: Arc<Host>,
        options: ServerOptions,
        metrics: Option<Arc<Metrics>>,
        address: SocketAddr,
        is_tls: bool,
        threads: Threads,
    ) -> Self {
        Shared {
            failures: Failures::new(options.guesses),
            sessions: Sessions::default(),
            routes: RouteCounters::default(),
            threads,
            calls: Arc::new(Semaphore::new(options.calls)),
            by_plugin: Mutex::default(),
            management: Arc::new(Semaphore::new(MANAGEMENT)),
            searches: Arc::new(Semaphore::new(SEARCHES)),
            strangers: Arc::new(Semaphore::new(1)),
            uploads: Arc::new(Semaphore::new(2)),
            tokens: ArcSwap::default(),
            document: OnceLock::new(),
            unready: Mutex::new(None),
            host,
            options,
            metrics,
            address,
            is_tls,
        }
    }

    pub(super) fn set_document(&self, document: Document) {
        let _ = self.document.set(document);
    }

    /// What the API's document says.
    pub(super) fn document(&self) -> Option<&Document> {
        self.document.get()
    }

    /// Why the server can't take requests now, if it can't.
    pub(super) fn readiness(&self) -> Option<String> {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_readiness(&self, problem: Option<String>) {
        *self.unready.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Starts what runs beside the requests.
    pub(super) fn start(&self) -> io::Result<()> {
        self.renew_tokens().map_err(io::Error::other)?;
        self.host.start_deliveries().map_err(io::Error::other)?;
        match self.host.start_reconciler() {
            Ok(()) | Err(UsageError::NoUsageApi) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Whether clients reach it through TLS, here or at a proxy.
    pub(super) fn is_secure(&self) -> bool {
        self.is_tls || self.options.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }

    /// What is done every few seconds.
    pub(super) fn keep(&self) {
        self.sessions.forget_old();
        if let Some(metrics) = &self.metrics {
            metrics.keep();
        }
    }

    /// The token of an id, as far as is known here.
    pub(super) fn token(&self, id: &str) -> Option<Arc<Token>> {
        self.tokens().by_id.get(id).cloned()
    }

    /// A token that was shown before, if it still counts.
    pub(super) fn token_by_id(&self, id: &str) -> Option<Arc<Token>> {
        self.token(id).filter(|token| !token.is_expired(self.host.now()))
    }

    fn tokens(&self) -> Arc<Tokens> {
        self.tokens.load_full()
    }

    /// Whether the registry has changed since the tokens were read.
    pub(super) fn has_old_tokens(&self) -> bool {
        self.tokens.load().generation != Some(self.host.generation())
    }

    /// Reads the tokens again, where the registry has changed. Blocks.
    pub(super) fn renew_tokens(&self) -> Result<(), HostError> {
        // Before they are read: what changes meanwhile has them read again.
        let generation = Some(self.host.generation());
        if self.tokens.load().generation == generation {
            return Ok(());
        }
        let by_id = self.host.tokens()?.into_iter().map(|token| (token.id.clone(), Arc::new(token))).collect();
        self.tokens.store(Arc::new(Tokens { generation, by_id }));
        Ok(())
    }

    /// Looks whether the home can still be read, and what changed in it. Blocks.
    pub(super) fn look(&self) -> Result<(), HostError> {
        self.host.refresh()?;
        self.renew_tokens()
    }
}

impl App {
    /// Does what blocks on a thread for that, when it is its turn: looking and managing.
    pub(super) async fn manage<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = turn(&self.management, "too many requests that manage are under way").await?;
        self.run(work, vec![turn], None).await
    }

    /// Searches what may be long, on a thread for that, when it is its turn.
    pub(super) async fn search<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = turn(&self.searches, "too many searches are under way").await?;
        self.run(work, vec![turn], None).await
    }

    /// Looks what changed in the registry, for whoever brings a token that isn't known here.
    pub(super) async fn look_for_stranger(&self) -> Result<(), Problem> {
        let turn = turn(&self.strangers, "too many tokens that nobody knows came in").await?;
        let looking = self.clone();
        Ok(self.run(move |_| looking.look(), vec![turn], None).await??)
    }

    /// Takes the turn of an upload, which lasts as long as the answer lives.
    pub(super) async fn upload_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        turn(&self.uploads, "other packages are arriving").await
    }

    /// Calls a plugin, or something that stands for one, on a thread for that, when it is its turn. After `limit` nobody waits for
    /// it any more; it keeps its turn as long as it takes.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        plugin: &str,
        limit: Option<Duration>,
        work: impl FnOnce(&Host) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.call_all([plugin], limit, work).await
    }

    /// The same with several plugins, one after the other.
    pub(super) async fn call_all<T: Send + 'static>(
        &self,
        plugins: impl IntoIterator<Item = &str>,
        limit: Option<Duration>,
        work: impl FnOnce(&Host) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        // First those of the plugins: who waits for one that hangs holds nothing that others need. In their order, so that no two
        // wait for each other.
        let plugins: BTreeSet<&str> = plugins.into_iter().collect();
        let mut turns = Vec::with_capacity(plugins.len() + 1);
        for plugin in plugins {
            let own = self.of_plugin(plugin);
            let detail = || format!("too many calls of {plugin:?} are under way");
            turns.push(turn_or(&own, detail).await?);
        }
        turns.push(turn(&self.calls, "too many calls are under way").await?);
        self.run(work, turns, limit).await
    }

    fn of_plugin(&self, plugin: &str) -> Arc<Semaphore> {
        // Names come from clients: no plugin's is so long, and of those that nobody has there is nothing to keep apart.
        let plugin = if plugin.len() > 200 { "" } else { plugin };
        let mut all = self.by_plugin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get(plugin) {
            return Arc::clone(own);
        }
        if all.len() > 1_000 {
            all.retain(|_, own| Arc::strong_count(own) > 1);
        }
        let own = Arc::new(Semaphore::new(self.options.calls_per_plugin));
        all.insert(plugin.to_owned(), Arc::clone(&own));
        own
    }

    /// Does what blocks for a moment and is no request of its own.
    pub(super) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        self.threads.run(work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host) -> T + Send + 'static,
        turns: Vec<OwnedSemaphorePermit>,
        limit: Option<Duration>,
    ) -> Result<T, Problem> {
        let host = Arc::clone(&self.host);
        let run = move || {
            // Given back when the work is done, and not when nobody waits for it any more.
            let _turns = turns;
            work(&host)
        };
        let work = self.threads.run(run);
        let done = match limit {
            None => work.await,
            // A plugin in this process can't be ended; those of workers are before.
            Some(limit) => timeout(limit + GRACE, work).await.map_err(|_| unknown("the call takes too long"))?,
        };
        done.map_err(|not_run| match not_run {
            NotRun::NoThread(_) => not_run.into(),
            // In the middle of something.
            NotRun::Panicked => unknown(&not_run.to_string()),
        })
    }
}

/// Nobody knows what became of what was asked for.
fn unknown(detail: &str) -> Problem {
    let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    problem.with("outcome", "unknown").with("outcome_unknown", true)
}

async fn turn(of: &Arc<Semaphore>, problem: &str) -> Result<OwnedSemaphorePermit, Problem> {
    turn_or(of, || problem.to_owned()).await
}

async fn turn_or(of: &Arc<Semaphore>, problem: impl Fn() -> String) -> Result<OwnedSemaphorePermit, Problem> {
    if let Ok(turn) = Arc::clone(of).try_acquire_owned() {
        return Ok(turn);
    }
    let busy = || Problem::busy(StatusCode::SERVICE_UNAVAILABLE, problem(), 1);
    timeout(TURN, Arc::clone(of).acquire_owned()).await.map_err(|_| busy())?.map_err(|_| busy())
}
