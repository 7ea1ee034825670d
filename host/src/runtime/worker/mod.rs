//! A plugin in worker processes: whatever it does there, the host lives.
//!
//! The first call starts a worker; it stays for later ones, and is ended when nobody called it for a while. A worker has one
//! call at a time. One that crashes, hangs or talks nonsense is ended, with everything that it started, and the next call
//! gets another.

mod child;
mod process;
mod start;
mod wire;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use billhook_plugin_api::call::{HookCall, HookReply};
use billhook_process::{ChildProgram, is_shortage};

use super::{
    PluginServices,
    call::{CallFailure, Fault, FaultKind, Instance},
    plugin::timed_out,
};
use billhook_machine::disk::DiskTrouble;
use billhook_model::{ModuleInfo, RunPolicy};
pub(crate) use child::{Failure, ModuleFailure, Worker};
use child::{Process, Start};
pub(crate) use process::run;
pub(crate) use start::WORK;
use wire::Load;

/// What the workers of a plugin are made of.
pub(crate) struct WorkerConfig {
    pub(crate) program: ChildProgram,
    /// The folder in which each worker gets a folder of its own, and is confined to it. Without one it is not confined: so a plugin
    /// is tried that is to run in the process of the host.
    pub(crate) folders: Option<PathBuf>,
    pub(crate) library: PathBuf,
    pub(crate) module: ModuleInfo,
    pub(crate) services: Arc<PluginServices>,
    pub(crate) runtime: RunPolicy,
    /// How long loading the plugin may take.
    pub(crate) start_limit: Duration,
}

impl WorkerConfig {
    /// Starts a worker, however little time the caller has left who made it necessary: the next one has a use for it too.
    pub(crate) fn start(&self) -> Result<Worker, ModuleFailure> {
        let services = &self.services;
        Worker::start(Start {
            program: &self.program,
            folders: self.folders.as_deref(),
            load: Load {
                protocol: wire::PROTOCOL,
                plugin: services.plugin.clone(),
                library: self.library.clone(),
                module: self.module.clone(),
                settings: services.settings.clone(),
                package_folder: PathBuf::from(&services.folder),
                folder: None,
                limits: self.runtime.limits.clone(),
                is_confined: self.folders.is_some(),
            },
            services: Arc::clone(services),
            deadline: Instant::now() + self.start_limit,
        })
    }
}

/// The workers of one plugin.
pub(crate) struct Workers(Arc<Shared>);

/// What callers and the threads that start workers share.
struct Shared {
    config: WorkerConfig,
    /// Told when the plugin crashed too often, and why it takes no more calls.
    quarantine: Box<dyn Fn(&str) + Send + Sync>,
    pool: Mutex<Pool>,
    /// A worker became free, there is room for another, or a start failed.
    changed: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Worker>,
    /// The processes that have a call, with the numbers of the calls.
    busy: Vec<(u64, Arc<Process>)>,
    /// How many callers wait for a free worker.
    waiting: usize,
    starting: usize,
    calls: u64,
    /// How many starts failed, and what the last one means for a call that waited for it.
    failed_starts: u64,
    last_failure: Option<Fault>,
    crashes: VecDeque<Instant>,
    /// Crashes since the last call that was answered.
    in_a_row: u32,
    /// No worker is started before.
    not_before: Option<Instant>,
    quarantined: Option<String>,
    /// The plugin was changed or removed: no worker is kept.
    is_retired: bool,
    is_ended: bool,
}

/// After the second crash in a row the next start waits; each further one doubles that.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// Calls wait so long for the next start, and are refused where it is later.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A worker that has a call, and its number.
struct Taken {
    worker: Worker,
    number: u64,
}

impl Workers {
    /// Starts nothing yet.
    pub(crate) fn new(config: WorkerConfig, quarantine: Box<dyn Fn(&str) + Send + Sync>) -> Self {
        Workers(Arc::new(Shared { config, quarantine, pool: Mutex::default(), changed: Condvar::new() }))
    }

    /// The plugin was changed or removed: ends workers without a call, and those that get free.
    fn retire(&self) {
        let idle = {
            let mut pool = self.0.pool();
            pool.is_retired = true;
            std::mem::take(&mut pool.idle)
        };
        drop(idle);
    }

    /// Takes no more calls, and ends those that are under way.
    fn cut_off(&self) {
        let processes: Vec<Arc<Process>> = {
            let mut pool = self.0.pool();
            pool.is_ended = true;
            pool.busy.iter().map(|(_, process)| Arc::clone(process)).collect()
        };
        self.0.changed.notify_all();
        processes.iter().for_each(|process| process.end());
    }
}

impl Instance for Workers {
    /// Waiting for a free worker counts towards the deadline.
    fn call(&self, call: HookCall<'_>) -> Result<HookReply, CallFailure> {
        self.0.call(call)
    }

    /// A worker's calls are ended at their deadlines.
    fn is_in_this_process(&self) -> bool {
        false
    }

    fn workers(&self) -> usize {
        let pool = self.0.pool();
        pool.idle.len() + pool.busy.len() + pool.starting
    }

    fn end_idle(&self) {
        let idle = Duration::from_secs(self.0.config.runtime.idle_s);
        let is_unused = |worker: &mut Worker| worker.idle_since.elapsed() >= idle;
        let unused: Vec<Worker> = self.0.pool().idle.extract_if(.., is_unused).collect();
        drop(unused);
    }

    fn drain(&self, since: Duration) {
        self.retire();
        if since > Duration::from_secs(self.0.config.runtime.drain_s) {
            self.cut_off();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let idle = {
            let mut pool = self.0.pool();
            pool.is_ended = true;
            std::mem::take(&mut pool.idle)
        };
        idle.into_iter().for_each(Worker::retire);
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(self: &Arc<Self>, call: HookCall<'_>) -> Result<HookReply, CallFailure> {
        let hook = call.hook();
        let limit = self.config.runtime.deadline(hook);
        let deadline = Instant::now() + limit;
        let cpu = Duration::from_millis(self.config.runtime.limits.cpu_ms);
        let (mut worker, number, answered) = loop {
            let Taken { mut worker, number } = self.take(deadline, limit)?;
            // What certainly did nothing is done with another worker.
            let how = match worker.call(call, deadline, cpu) {
                Err(Failure::GoneBefore) => worker.bury(),
                Err(Failure::NonsenseBefore) => "it said something that nobody asked for".to_owned(),
                answered => break (worker, number, answered),
            };
            drop(worker);
            self.forget(number);
            self.crashed(&format!("between two calls: {how}"));
        };
        let fault = match answered {
            Ok(answer) => {
                self.give_back(number, worker);
                return answer.map_err(CallFailure::Plugin);
            }
            Err(Failure::TimedOut) => timed_out(&self.config.services.plugin, hook, limit),
            Err(Failure::TooMuchCpu) => Fault::new(
                FaultKind::Crashed,
                format!("it used more than {} s of processor time and was ended: outcome unknown", cpu.as_secs_f64()),
            ),
            Err(Failure::Gone | Failure::GoneBefore | Failure::NonsenseBefore) => {
                let how = worker.bury();
                if self.pool().is_ended {
                    Fault::new(
                        FaultKind::Crashed,
                        "the plugin was changed or removed, and this call took too long after that",
                    )
                } else {
                    self.crashed(&format!("in {hook}: {how}"));
                    Fault::new(FaultKind::Crashed, format!("its worker crashed: {how}"))
                }
            }
            Err(Failure::Nonsense(problem)) => {
                self.crashed(&format!("in {hook}: {problem}"));
                Fault::new(FaultKind::Crashed, problem)
            }
            Err(Failure::Unsendable(problem)) => Fault::new(FaultKind::Crashed, problem),
        };
        drop(worker);
        self.forget(number);
        Err(fault.into())
    }

    /// A call ended without giving its worker back: there is room for another.
    fn forget(&self, number: u64) {
        self.pool().busy.retain(|(call, _)| *call != number);
        // Everybody who waits: when the next start may be is another matter now, and none would wake the others.
        self.changed.notify_all();
    }

    /// Wakes who waits for a worker; without one waiting, that would be a system call for nothing.
    fn notify(&self, pool: MutexGuard<'_, Pool>) {
        let is_waited_for = pool.waiting > 0;
        drop(pool);
        if is_waited_for {
            self.changed.notify_one();
        }
    }

    /// Takes a free worker, or waits for one that is started.
    fn take(self: &Arc<Self>, deadline: Instant, limit: Duration) -> Result<Taken, Fault> {
        let mut pool = self.pool();
        let failed_starts = pool.failed_starts;
        loop {
            if let Some(reason) = &pool.quarantined {
                return Err(Fault::unavailable(reason.clone(), None));
            }
            if pool.is_ended {
                return Err(Fault::unavailable("the plugin is being ended".to_owned(), None));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message = format!("no worker was free for {} s: nothing was done", limit.as_secs_f64());
                return Err(Fault::unavailable(message, None));
            }
            if let Some(worker) = pool.idle.pop() {
                return Ok(pool.busy_with(worker));
            }
            if pool.failed_starts != failed_starts
                && let Some(fault) = &pool.last_failure
            {
                return Err(fault.clone());
            }
            let there = pool.busy.len() + pool.starting;
            let mut longest = left;
            if there < self.config.runtime.workers as usize {
                let wait = pool.not_before.and_then(|time| time.checked_duration_since(Instant::now()));
                match wait {
                    Some(wait) if there == 0 && wait > left.min(LONGEST_PAUSE) => {
                        let message = format!("it crashed {} times in a row and is started again later", pool.in_a_row);
                        return Err(Fault::unavailable(message, Some(wait)));
                    }
                    Some(wait) => longest = wait.min(left),
                    None => {
                        pool.starting += 1;
                        if let Err(error) = self.start_in_background() {
                            pool.starting -= 1;
                            let message = format!("the plugin can't be loaded: no thread can be started: {error}");
                            return Err(Fault::unavailable(message, None));
                        }
                    }
                }
            }
            pool.waiting += 1;
            pool = self.changed.wait_timeout(pool, longest).unwrap_or_else(PoisonError::into_inner).0;
            pool.waiting -= 1;
        }
    }

    /// Starts a worker on a thread of its own. Whoever waits for it may have less time than it takes.
    fn start_in_background(self: &Arc<Self>) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        let start = move || {
            let started = shared.config.start();
            let failure = match started {
                Ok(mut worker) => {
                    worker.idle_since = Instant::now();
                    let mut pool = shared.pool();
                    pool.starting -= 1;
                    if pool.is_ended {
                        drop(pool);
                        drop(worker);
                    } else {
                        pool.idle.push(worker);
                        shared.notify(pool);
                    }
                    return;
                }
                Err(not_started) => shared.not_started(not_started),
            };
            let mut pool = shared.pool();
            pool.starting -= 1;
            pool.failed_starts += 1;
            pool.last_failure = Some(failure);
            drop(pool);
            shared.changed.notify_all();
        };
        thread::Builder::new().name("billhook-start".to_owned()).spawn(start).map(drop)
    }

    /// What a start that failed means for the call. Nothing was done.
    fn not_started(&self, not_started: ModuleFailure) -> Fault {
        let problem = match not_started {
            // It may be there in a moment, and is asked for at the next call.
            ModuleFailure::NoProcess(problem) if is_shortage(&problem) => {
                let message = format!("the plugin can't be loaded: its worker can't be started: {problem}");
                return Fault::new(FaultKind::Unavailable, message);
            }
            ModuleFailure::NoProcess(error) => {
                let trouble = DiskTrouble::of(&error);
                let why = trouble.map_or_else(|| error.to_string(), |trouble| trouble.to_string());
                let message = format!("the plugin can't be loaded: its worker can't be started: {why}");
                return Fault::not_begun(message, trouble);
            }
            ModuleFailure::NeedsSettings(problem) | ModuleFailure::Refused(_, problem) => problem,
            ModuleFailure::Crashed(stage, how) => {
                self.crashed(&format!("{stage}: {how}"));
                format!("its worker crashed {stage}: {how}")
            }
            ModuleFailure::Hung(stage) => format!("its worker hung {stage}"),
        };
        let message = format!("the plugin can't be loaded: {problem}");
        Fault::not_begun(message, None)
    }

    fn give_back(&self, number: u64, mut worker: Worker) {
        worker.idle_since = Instant::now();
        let mut pool = self.pool();
        pool.busy.retain(|(call, _)| *call != number);
        pool.in_a_row = 0;
        pool.not_before = None;
        // One that is not kept is ended when the lock is given back.
        let mut unkept = None;
        if pool.is_ended || (pool.is_retired && pool.waiting == 0) {
            unkept = Some(worker);
        } else {
            pool.idle.push(worker);
        }
        self.notify(pool);
        drop(unkept);
    }

    /// Notes a crash, and puts the plugin into quarantine if there were too many.
    fn crashed(&self, how: &str) {
        let (plugin, runtime) = (&self.config.services.plugin, &self.config.runtime);
        tracing::error!(plugin, "a worker crashed {how}");
        metrics::counter!("billhook_worker_crashes_total", "plugin" => plugin.clone()).increment(1);
        let mut pool = self.pool();
        let now = Instant::now();
        pool.in_a_row = pool.in_a_row.saturating_add(1);
        if pool.in_a_row > 1 {
            let doubled = FIRST_BACKOFF.saturating_mul(1 << (pool.in_a_row - 2).min(16));
            pool.not_before = Some(now + doubled.min(LAST_BACKOFF));
        }
        let window = Duration::from_secs(runtime.crash_window_s);
        pool.crashes.push_back(now);
        while pool.crashes.front().is_some_and(|first| now.duration_since(*first) > window) {
            pool.crashes.pop_front();
        }
        if pool.crashes.len() < runtime.most_crashes as usize || pool.quarantined.is_some() {
            return;
        }
        let (times, most) = (pool.crashes.len(), window.as_secs());
        let reason = format!("in quarantine: it crashed {times} times within {most} s, the last time {how}");
        pool.quarantined = Some(reason.clone());
        drop(pool);
        // Whoever waits for a worker waits in vain.
        self.changed.notify_all();
        (self.quarantine)(&reason);
    }
}

impl Pool {
    fn busy_with(&mut self, worker: Worker) -> Taken {
        self.calls += 1;
        let number = self.calls;
        self.busy.extend(worker.process().map(|process| (number, process)));
        Taken { worker, number }
    }
}
