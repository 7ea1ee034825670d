//! One worker process, from the host's side: started, called, and ended.

use std::{
    io::{self, Read},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use billhook_model::text::visible;
use billhook_plugin_api::{
    PluginError,
    call::{HookCall, HookReply, WithoutContracts},
};
use billhook_process::{
    Cgroup, ChildProgram, CpuClock, CpuLimit, KeptOutput, OwnFolder, SupervisedChild, WhichEnd, how_it_ended,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use super::{
    super::{PluginServices, Stage},
    process::NO_ROOM,
    start::{serve_in_background, spawn},
    wire::{
        Ask, Incoming, LARGEST_CALL, LARGEST_CHANGES, LARGEST_REFUSAL, Load, PROTOCOL, Said, largest_answer,
        write_frame,
    },
};

/// What a worker is started with.
pub(super) struct Start<'a> {
    pub(super) program: &'a ChildProgram,
    /// The folder in which it gets a folder of its own, if it gets one.
    pub(super) folders: Option<&'a Path>,
    pub(super) load: Load,
    pub(super) services: Arc<PluginServices>,
    pub(super) deadline: Instant,
}

/// Why a call got no answer of the plugin's.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The deadline passed.
    TimedOut,
    /// It used more processor time than a call may.
    TooMuchCpu,
    /// The process ended before it had the whole of what it was asked: nothing was done.
    GoneBefore,
    /// The process ended, or closed its socket.
    Gone,
    /// It said something that no worker says.
    Nonsense(String),
    /// It said something before it was asked: nothing was done.
    NonsenseBefore,
    /// What it asked for is too large to be sent.
    Unsendable(String),
}

/// What became of a module instead of what it was asked for, when its worker starts or is tried.
#[derive(Debug)]
pub(crate) enum ModuleFailure {
    /// No process could be started or talked to.
    NoProcess(io::Error),
    /// The plugin's constructor asks for other settings.
    NeedsSettings(String),
    /// It refused, before or while its instance was made.
    Refused(Stage, String),
    /// Its process ended, or said something that no worker says.
    Crashed(Stage, String),
    /// It wasn't ready in time.
    Hung(Stage),
}

/// A worker that is ready for calls. Dropping it ends it.
pub(crate) struct Worker {
    process: Option<Arc<Process>>,
    /// The clock of the processor time that the plugin's process uses.
    clock: Option<CpuClock>,
    /// Whether the plugin may put its things in order when the worker is ended.
    is_sound: bool,
    calls: UnixStream,
    incoming: Incoming,
    outgoing: Vec<u8>,
    /// The time limit of reads that is set on the socket.
    read_limit: Option<Duration>,
    pub(super) idle_since: Instant,
}

/// The process of a worker. Others may end it while it is called.
pub(super) struct Process {
    child: SupervisedChild,
    errors: KeptOutput,
    /// Its own folder, which goes with it.
    folder: Option<OwnFolder>,
    /// Its control group, where it has one.
    cgroup: Option<Cgroup>,
}

impl Process {
    /// Asks the supervisor to end the process and everything that it started. It may take a moment; see [`Process::reap`].
    pub(super) fn end(&self) {
        self.child.end();
    }

    /// Waits until the process ended, and ends it for good if that takes too long: then what it started may be left.
    pub(super) fn reap(&self) -> Option<ExitStatus> {
        let status = self.child.reap();
        if let Some(folder) = &self.folder {
            folder.give_up();
        }
        status
    }

    /// Lets the process end by itself for a moment, ends it if it doesn't, and reaps it.
    fn end_and_reap(&self) {
        if !self.child.wait(Instant::now() + SOFT_END) {
            self.child.end();
        }
        self.reap();
    }

    /// How it ended, with the last lines that it wrote; to be asked when it ended.
    pub(super) fn end_of(&self, status: Option<ExitStatus>) -> String {
        if let Some(problem) = self.cgroup.as_ref().and_then(Cgroup::problem) {
            return problem;
        }
        let Some(status) = status else { return "its process ended".to_owned() };
        let (errors, _) = self.errors.read(LAST_WORDS);
        how_it_ended("it", status, &visible(&String::from_utf8_lossy(&errors)))
    }
}

/// How long a plugin may take to put its things in order.
const SOFT_END: Duration = Duration::from_secs(2);
/// How long the end of what it writes to standard error is waited for, when it is gone.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How much is kept of that.
const KEPT_ERRORS: usize = 4096;

impl Worker {
    /// Starts a process, and waits until it has loaded the plugin.
    pub(super) fn start(start: Start<'_>) -> Result<Self, ModuleFailure> {
        let failed = ModuleFailure::NoProcess;
        let load = start.load;
        let folder = start.folders.map(OwnFolder::make).transpose().map_err(failed)?;
        let give_up = |error| {
            if let Some(folder) = &folder {
                folder.give_up();
            }
            failed(error)
        };
        let (child, calls, services) =
            spawn(start.program, &load.limits.environment, folder.as_ref().map(OwnFolder::path)).map_err(give_up)?;
        let cgroup = folder.as_ref().and_then(|_| Cgroup::make(load.limits.memory_mb));
        if let Some(cgroup) = &cgroup {
            cgroup.add(child.id());
        }
        let errors = child.take_stderr().ok_or_else(|| io::Error::other("it has no standard error"));
        let errors = errors.and_then(|pipe| KeptOutput::start(pipe, WhichEnd::End, KEPT_ERRORS));
        let errors = errors.map_err(|error| {
            child.end();
            child.reap();
            give_up(error)
        })?;
        let path = folder.as_ref().map(|folder| folder.path().to_owned());
        let process = Process { child, errors, folder, cgroup };
        let mut worker = Worker {
            process: Some(Arc::new(process)),
            clock: None,
            is_sound: false,
            calls,
            incoming: Incoming::default(),
            outgoing: Vec::new(),
            read_limit: None,
            idle_since: Instant::now(),
        };
        serve_in_background(services, start.services).map_err(failed)?;
        let load = Load { folder: path, protocol: PROTOCOL, ..load };
        worker.outgoing.clear();
        write_frame(&mut worker.outgoing, &load, LARGEST_CALL).map_err(failed)?;
        let mut stage = Stage::Loading;
        match worker.say(start.deadline, None) {
            Ok(()) => {}
            Err(Failure::TimedOut | Failure::TooMuchCpu) => return Err(ModuleFailure::Hung(Stage::Starting)),
            Err(_) => return Err(worker.ended_at_start(Stage::Starting)),
        }
        loop {
            match worker.hear(start.deadline, None, LARGEST_REFUSAL) {
                Ok(Said::Loading { process }) if worker.clock.is_none() => {
                    worker.clock = CpuClock::of(process);
                    // It may have been started before the one that started it was put there.
                    if let Some(cgroup) = worker.process.as_ref().and_then(|process| process.cgroup.as_ref()) {
                        cgroup.add(process);
                    }
                }
                Ok(Said::Constructing) => stage = Stage::Constructing,
                Ok(Said::Ready { protocol: PROTOCOL, lacks }) => {
                    for lacking in lacks {
                        tracing::warn!(plugin = load.plugin, "its worker is not confined by {}", lacking.name());
                    }
                    worker.is_sound = true;
                    return Ok(worker);
                }
                Ok(Said::Ready { protocol, .. }) => {
                    let problem = format!("the worker speaks protocol {protocol} and this host {PROTOCOL}");
                    return Err(ModuleFailure::NoProcess(io::Error::other(problem)));
                }
                Ok(Said::NotReady { message, needs_settings: true }) => {
                    return Err(ModuleFailure::NeedsSettings(message));
                }
                Ok(Said::NotReady { message, .. }) => return Err(ModuleFailure::Refused(stage, message)),
                Ok(_) => {
                    let problem = "it answered a call that was not made".to_owned();
                    return Err(ModuleFailure::Crashed(stage, problem));
                }
                Err(Failure::Gone | Failure::GoneBefore) => {
                    return Err(worker.ended_at_start(stage));
                }
                Err(Failure::TimedOut | Failure::TooMuchCpu) => return Err(ModuleFailure::Hung(stage)),
                Err(Failure::Nonsense(problem) | Failure::Unsendable(problem)) => {
                    return Err(ModuleFailure::Crashed(stage, problem));
                }
                Err(Failure::NonsenseBefore) => return Err(ModuleFailure::Crashed(stage, UNASKED.to_owned())),
            }
        }
    }

    /// The process, which others may end.
    pub(super) fn process(&self) -> Option<Arc<Process>> {
        self.process.clone()
    }

    /// Calls a hook.
    pub(crate) fn call(
        &mut self,
        call: HookCall<'_>,
        deadline: Instant,
        cpu: Duration,
    ) -> Result<Result<HookReply, PluginError>, Failure> {
        self.outgoing.clear();
        let ask = Ask::Call { hook: call.hook(), objects: WithoutContracts(call) };
        if let Err(error) = write_frame(&mut self.outgoing, &ask, LARGEST_CALL) {
            return Ok(Err(PluginError::bad_value(format!("the objects can't be sent: {error}"))));
        }
        // What came before the question is no answer to it.
        if self.has_spoken() {
            self.is_sound = false;
            return Err(Failure::NonsenseBefore);
        }
        // Until there is an answer, it may be anywhere.
        self.is_sound = false;
        let mut cpu = self.clock.map(|clock| CpuLimit::new(clock, cpu));
        self.say(deadline, cpu.as_mut())?;
        let mut asked_back = false;
        loop {
            let said =
                self.hear(deadline, cpu.as_mut(), largest_answer(call.hook())).map_err(|failure| match failure {
                    // It had begun.
                    Failure::GoneBefore if asked_back => Failure::Gone,
                    failure => failure,
                });
            match said? {
                Said::Done(answer) => {
                    let reply = HookReply::read(call.hook(), answer.get().as_bytes()).map_err(|error| {
                        Failure::Nonsense(format!("its worker said what can't be understood: {error}"))
                    })?;
                    check(&reply)?;
                    self.is_sound = true;
                    return Ok(Ok(reply));
                }
                Said::Refused(refusal) => {
                    self.is_sound = true;
                    return Ok(Err(refusal.into()));
                }
                Said::NeedContracts => {
                    asked_back = true;
                    let contracts = call.order().map(|order| order.contracts.as_slice()).unwrap_or_default();
                    self.outgoing.clear();
                    write_frame(&mut self.outgoing, &Ask::Contracts(contracts), LARGEST_CALL).map_err(|error| {
                        Failure::Unsendable(format!("the order's contracts can't be sent: {error}"))
                    })?;
                    // The hook has begun, wherever its process ends.
                    self.say(deadline, cpu.as_mut()).map_err(|failure| match failure {
                        Failure::GoneBefore => Failure::Gone,
                        failure => failure,
                    })?;
                }
                Said::Loading { .. } | Said::Constructing | Said::Ready { .. } | Said::NotReady { .. } => {
                    return Err(Failure::Nonsense(
                        "its worker said that it is ready in the middle of a call".to_owned(),
                    ));
                }
            }
        }
    }

    /// Whether the worker said something that nobody asked for, or hung up.
    fn has_spoken(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(&self.calls, &mut [0_u8; 1][..], flags);
        // A closed socket is found by writing to it.
        self.incoming.has_rest() || matches!(peeked, Ok((_, 1..)))
    }

    /// Sends what is to be said. A worker that reads nothing, or little by little, holds nobody up beyond the deadline.
    fn say(&mut self, deadline: Instant, mut cpu: Option<&mut CpuLimit>) -> Result<(), Failure> {
        let mut left = self.outgoing.as_slice();
        while !left.is_empty() {
            match rustix::net::send(&self.calls, left, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => left = &left[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let time = deadline.saturating_duration_since(Instant::now());
                    if time.is_zero() {
                        return Err(Failure::TimedOut);
                    }
                    let slice = time.min(SLICE);
                    let slice =
                        Timespec { tv_sec: slice.as_secs().cast_signed(), tv_nsec: slice.subsec_nanos().into() };
                    let _ = rustix::event::poll(&mut [PollFd::new(&self.calls, PollFlags::OUT)], Some(&slice));
                    if cpu.as_mut().is_some_and(|limit| limit.is_over()) {
                        return Err(Failure::TooMuchCpu);
                    }
                }
                // It can't have begun what it has only a part of.
                Err(_) => return Err(Failure::GoneBefore),
            }
            if Instant::now() >= deadline && !left.is_empty() {
                return Err(Failure::TimedOut);
            }
        }
        if self.outgoing.len() > KEPT {
            self.outgoing = Vec::new();
        }
        Ok(())
    }

    /// Hears one thing of the worker, of at most so many bytes.
    fn hear(&mut self, deadline: Instant, mut cpu: Option<&mut CpuLimit>, largest: usize) -> Result<Said, Failure> {
        let (calls, read_limit) = (&self.calls, &mut self.read_limit);
        let mut too_much_cpu = false;
        let mut next_look = None;
        let read = |buffer: &mut [u8]| {
            loop {
                let now = Instant::now();
                let left = deadline.saturating_duration_since(now);
                // What is there is taken also at the deadline, but no more than that.
                if left.is_zero() {
                    return match rustix::net::recv(calls, &mut *buffer, RecvFlags::DONTWAIT) {
                        Ok((count, _)) if next_look.is_none() => Ok(count),
                        _ => Err(io::ErrorKind::TimedOut.into()),
                    };
                }
                // By the clock, and not only when nothing comes: a worker may say a byte at a time.
                let look = *next_look.get_or_insert(now + SLICE);
                if now >= look {
                    next_look = Some(now + SLICE);
                    if cpu.as_mut().is_some_and(|limit| limit.is_over()) {
                        too_much_cpu = true;
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                // Set only when it differs: most calls are answered within the first slice.
                let slice = left.min(SLICE);
                if *read_limit != Some(slice) {
                    calls.set_read_timeout(Some(slice))?;
                    *read_limit = Some(slice);
                }
                match (&mut &*calls).read(buffer) {
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    read => return read,
                }
            }
        };
        let frame = self.incoming.frame(read, largest);
        let said = match frame {
            Ok(Some(json)) => serde_json::from_slice(json)
                .map_err(|error| Failure::Nonsense(format!("its worker said what can't be understood: {error}"))),
            Ok(None) => Err(Failure::Gone),
            Err(_) if too_much_cpu => Err(Failure::TooMuchCpu),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::TimedOut => Failure::TimedOut,
                // The socket says so when it was closed with something in it that nobody had read.
                io::ErrorKind::ConnectionReset => Failure::GoneBefore,
                io::ErrorKind::InvalidData => {
                    Failure::Nonsense(format!("its worker said what can't be understood: {error}"))
                }
                _ => Failure::Gone,
            }),
        };
        self.incoming.shrink();
        said
    }

    /// Ends the process at once, and waits for its end. Answers how it ended.
    pub(crate) fn bury(&mut self) -> String {
        self.bury_and_tell().1
    }

    fn bury_and_tell(&mut self) -> (Option<ExitStatus>, String) {
        let Some(process) = self.process.take() else { return (None, String::new()) };
        // A process that crashed is still on its way: its own end says more than the one that it is given here.
        if !process.child.wait(Instant::now() + LAST_WORDS) {
            process.end();
        }
        let status = process.reap();
        (status, process.end_of(status))
    }

    /// Why there is no worker, whose process ended before it was ready.
    fn ended_at_start(&mut self, stage: Stage) -> ModuleFailure {
        let (status, how) = self.bury_and_tell();
        // As long as it didn't say that it loads the plugin, none of the plugin's code has run.
        let is_host = self.clock.is_none() && status.and_then(|status| status.code()) == Some(NO_ROOM);
        if is_host { ModuleFailure::NoProcess(Errno::AGAIN.into()) } else { ModuleFailure::Crashed(stage, how) }
    }

    /// Lets the plugin put its things in order, and finds out what became of that. The process is gone afterwards.
    pub(crate) fn finish(mut self, deadline: Instant) -> Result<(), ModuleFailure> {
        let stage = Stage::Dropping;
        let _ = self.calls.shutdown(Shutdown::Write);
        match self.hear(deadline, None, LARGEST_REFUSAL) {
            Ok(Said::Refused(refusal)) => {
                return Err(ModuleFailure::Refused(stage, PluginError::from(refusal).message().to_owned()));
            }
            Ok(_) => return Err(ModuleFailure::Crashed(stage, "it answered a call that was not made".to_owned())),
            Err(Failure::TimedOut | Failure::TooMuchCpu) => return Err(ModuleFailure::Hung(stage)),
            Err(Failure::Nonsense(how) | Failure::Unsendable(how)) => return Err(ModuleFailure::Crashed(stage, how)),
            Err(Failure::Gone | Failure::GoneBefore | Failure::NonsenseBefore) => {}
        }
        let Some(process) = self.process.take() else { return Ok(()) };
        let has_ended = process.child.wait(deadline);
        if !has_ended {
            process.end();
        }
        match process.reap() {
            _ if !has_ended => Err(ModuleFailure::Hung(stage)),
            Some(status) if status.success() => Ok(()),
            status => Err(ModuleFailure::Crashed(stage, process.end_of(status))),
        }
    }

    /// Lets the plugin put its things in order, and waits until the process ended.
    pub(crate) fn retire(mut self) {
        let Some(process) = self.process.take() else { return };
        self.hang_up();
        process.end_and_reap();
    }

    /// Tells the worker that no call will come.
    fn hang_up(&self) {
        let _ = self.calls.shutdown(Shutdown::Both);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.hang_up();
        if !self.is_sound {
            process.end();
        }
        // Nobody waits for it: the folder and the process's number are given back when it is gone.
        let awaited = Arc::clone(&process);
        let reap = move || awaited.end_and_reap();
        if let Err(error) = thread::Builder::new().name("billhook-reap".to_owned()).spawn(reap) {
            tracing::warn!("a worker that was ended is awaited here: {error}");
            process.end();
            process.reap();
        }
    }
}

/// Refuses an answer that holds more than one in this process may.
fn check(reply: &HookReply) -> Result<(), Failure> {
    let Some(changes) = reply.changes() else { return Ok(()) };
    let texts = [changes.content_type.as_deref(), changes.download_link.as_deref()];
    let size: usize =
        texts.into_iter().chain([changes.meta_info.as_ref().map(|json| json.as_str())]).flatten().map(str::len).sum();
    if size > LARGEST_CHANGES {
        return Err(Failure::Nonsense(format!("its changes have {size} bytes; at most {LARGEST_CHANGES} are taken")));
    }
    Ok(())
}

const UNASKED: &str = "its worker said something that nobody asked for";

/// How long a read waits before the deadline and the processor time are looked at again.
const SLICE: Duration = Duration::from_millis(100);
/// How much memory is kept for the next call.
const KEPT: usize = 1024 * 1024;
