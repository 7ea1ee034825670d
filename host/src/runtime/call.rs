//! What a call of a plugin comes to where the hook doesn't go through.

use std::time::Duration;

use billhook_plugin_api::{
    ErrorKind, PluginError,
    call::{HookCall, HookReply},
};

use billhook_machine::disk::DiskTrouble;

/// A plugin that takes calls, wherever it runs.
pub(crate) trait Instance: Send + Sync {
    /// Calls a hook, on the thread of the caller and for no longer than the hook's deadline.
    fn call(&self, call: HookCall<'_>) -> Result<HookReply, CallFailure>;

    /// Whether calls run in this process, where nothing but the plugin itself ends them.
    fn is_in_this_process(&self) -> bool;

    /// Returns how many processes it has.
    fn workers(&self) -> usize {
        0
    }

    /// Ends processes that nobody called for a while.
    fn end_idle(&self) {}

    /// Ends processes without a call, and those that get free: the plugin was changed or removed so long ago. Calls that go on
    /// beyond their time are ended, too.
    fn drain(&self, since: Duration) {
        let _ = since;
    }
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum CallFailure {
    /// The plugin refused, failed or panicked.
    Plugin(PluginError),
    /// The call didn't reach the plugin, or its answer didn't come back.
    Runtime(Box<Fault>),
}

/// What went wrong around a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// The trouble of the disk that it comes from.
    pub(crate) disk: Option<DiskTrouble>,
}

/// What became of a call that the plugin didn't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The plugin takes no calls now: it was not called.
    Unavailable,
    /// The plugin can't be loaded, or the call can't be sent: it was not called.
    NotBegun,
    /// The plugin was called and didn't answer by its deadline. What it was to do may be done.
    TimedOut,
    /// The plugin's process ended in the call, or spoke against the protocol. What it was to do may be done.
    Crashed,
}

impl FaultKind {
    /// Whether the plugin may have done what it was asked for.
    pub(crate) fn is_outcome_unknown(self) -> bool {
        matches!(self, FaultKind::TimedOut | FaultKind::Crashed)
    }

    /// The kind of error that stands for it.
    pub(crate) fn error_kind(self) -> ErrorKind {
        match self {
            FaultKind::Unavailable => ErrorKind::Unavailable,
            FaultKind::NotBegun | FaultKind::TimedOut | FaultKind::Crashed => ErrorKind::Internal,
        }
    }
}

/// Whether a kind of error says that something failed, and not that something was refused: what was asked for may succeed later.
pub(crate) fn is_outage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable)
}

impl From<PluginError> for CallFailure {
    fn from(error: PluginError) -> Self {
        CallFailure::Plugin(error)
    }
}

impl From<Fault> for CallFailure {
    fn from(fault: Fault) -> Self {
        CallFailure::Runtime(Box::new(fault))
    }
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Fault { kind, message: message.into(), retry_after: None, disk: None }
    }

    /// The plugin can't be loaded: it was not called.
    pub(crate) fn not_begun(message: String, disk: Option<DiskTrouble>) -> Self {
        Fault { disk, ..Fault::new(FaultKind::NotBegun, message) }
    }

    /// The plugin was not asked: it takes no calls now.
    pub(crate) fn unavailable(message: String, retry_after: Option<Duration>) -> Self {
        Fault { kind: FaultKind::Unavailable, message, retry_after, disk: None }
    }
}
