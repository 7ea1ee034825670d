//! How a call ends that doesn't end well.

use std::{fmt, time::Duration};

use billhook_plugin_api::{ErrorKind, Hook};
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Forbidden, load_failure::LoadFailure};
use billhook_machine::disk::DiskTrouble;
use billhook_model::text::with_causes;
use billhook_store::StoreError;

use crate::{
    package::form::FormProblem,
    runtime::{CallFailure, Fault, FaultKind},
};

/// A refusal or a failure of a hook, with who refused what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    hook: Hook,
    plugin: Option<String>,
    handler: Option<String>,
    asset: Option<String>,
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    /// What became of the call, where it is known that the plugin didn't answer it.
    fault: Option<FaultKind>,
    outcome_unknown: bool,
    /// Whether the plugin said so itself.
    is_of_plugin: bool,
    /// Whether no plugin was found for the call.
    is_unknown: bool,
    /// The trouble of the disk that it comes from.
    disk: Option<DiskTrouble>,
    /// Whether the message may quote the plugin's settings.
    is_about_settings: bool,
}

const NEEDS_SETTINGS: &str = "the plugin needs settings";

impl HookError {
    fn of_host(hook: Hook, plugin: Option<&str>, kind: ErrorKind, message: String) -> Self {
        let plugin = plugin.map(str::to_owned);
        let details = Details {
            hook,
            plugin,
            handler: None,
            asset: None,
            kind,
            message,
            retry_after: None,
            fault: None,
            outcome_unknown: false,
            is_of_plugin: false,
            is_unknown: false,
            disk: None,
            is_about_settings: false,
        };
        HookError(Box::new(details))
    }

    /// A before handler forbade it, or stands in the way.
    #[cold]
    pub(super) fn forbidden(hook: Hook, forbidden: Forbidden) -> Self {
        let kind = if forbidden.by_policy { ErrorKind::Unavailable } else { ErrorKind::Forbidden };
        let mut error = Self::of_host(hook, None, kind, forbidden.to_string());
        error.0.handler = Some(forbidden.handler);
        error
    }

    /// The hook went through, and its listeners can't be told of it.
    #[cold]
    pub(super) fn not_recorded(hook: Hook, problem: &StoreError) -> Self {
        let disk = DiskTrouble::of(problem);
        let problem = disk.map_or_else(|| with_causes(problem), |trouble| trouble.to_string());
        let message = format!("it was done, and its listeners can't be told: {problem}");
        let mut error = Self::of_host(hook, None, ErrorKind::Internal, message);
        error.0.outcome_unknown = true;
        error.of_disk(disk)
    }

    #[cold]
    pub(super) fn unknown_type(hook: Hook, asset_type: &str) -> Self {
        // It comes from a client, and no type's name is long.
        let end = asset_type.char_indices().nth(200).map_or(asset_type.len(), |(at, _)| at);
        let more = if end < asset_type.len() { "…" } else { "" };
        let asset_type = &asset_type[..end];
        let message =
            format!("The given product specification contains a not supported asset type: {asset_type}{more}");
        Self::of_host(hook, None, ErrorKind::Invalid, message).unknown()
    }

    #[cold]
    pub(crate) fn not_installed(hook: Hook, id: &str) -> Self {
        Self::of_host(hook, Some(id), ErrorKind::NotFound, format!("there is no plugin {id:?}")).unknown()
    }

    fn unknown(mut self) -> Self {
        self.0.is_unknown = true;
        self
    }

    /// Whether no plugin was found for the call.
    pub(super) fn is_unknown(&self) -> bool {
        self.0.is_unknown
    }

    #[cold]
    pub(super) fn unavailable(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::Unavailable, message)
    }

    /// The plugin can't be loaded: it was not called.
    #[cold]
    pub(super) fn not_loaded(hook: Hook, plugin: &str, failure: LoadFailure) -> Self {
        let LoadFailure { message, disk } = failure;
        // A disk that is in trouble now may be in order later.
        let kind = if disk.is_some() { ErrorKind::Unavailable } else { ErrorKind::Internal };
        Self::of_host(hook, Some(plugin), kind, message).of_disk(disk)
    }

    /// The same, coming from trouble of the disk if it does.
    pub(crate) fn of_disk(mut self, disk: Option<DiskTrouble>) -> Self {
        self.0.disk = disk;
        self
    }

    #[cold]
    pub(super) fn needs_settings(hook: Hook, plugin: &str, reason: &str) -> Self {
        let mut error = Self::unavailable(hook, plugin, format!("{NEEDS_SETTINGS}: {reason}"));
        error.0.is_about_settings = true;
        error
    }

    /// The message as whoever may not see a plugin's settings may see it.
    #[cfg(feature = "server")]
    pub(crate) fn public_message(&self) -> &str {
        if self.0.is_about_settings { NEEDS_SETTINGS } else { self.message() }
    }

    #[cold]
    pub(crate) fn invalid(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::Invalid, message)
    }

    #[cold]
    pub(crate) fn bad_value(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::BadValue, message)
    }

    /// What a seller filled into the form of an asset type can't be taken.
    #[cold]
    pub(crate) fn of_form(hook: Hook, plugin: &str, problem: FormProblem) -> Self {
        match problem {
            FormProblem::NoObject => {
                Self::bad_value(hook, plugin, "the asset's meta_info has to be an object".to_owned())
            }
            FormProblem::Fields(problem) => Self::invalid(hook, plugin, problem),
        }
    }

    #[cold]
    pub(crate) fn internal(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::Internal, message)
    }

    #[cold]
    pub(super) fn of_call(hook: Hook, plugin: &str, failure: CallFailure) -> Self {
        let is_of_plugin = matches!(failure, CallFailure::Plugin(_));
        let mut disk = None;
        let (kind, message, retry_after, fault) = match failure {
            CallFailure::Plugin(error) => {
                let message = error.message();
                let message = if error.is_panic() { format!("the plugin {message}") } else { message.to_owned() };
                (error.kind(), message, error.retry_after(), None)
            }
            CallFailure::Runtime(fault) => {
                let Fault { kind, message, retry_after, disk: trouble } = *fault;
                disk = trouble;
                let error_kind = if disk.is_some() { ErrorKind::Unavailable } else { kind.error_kind() };
                (error_kind, message, retry_after, Some(kind))
            }
        };
        let plugin = Some(plugin.to_owned());
        HookError(Box::new(Details {
            hook,
            plugin,
            handler: None,
            asset: None,
            kind,
            message,
            retry_after,
            fault,
            outcome_unknown: fault.is_some_and(FaultKind::is_outcome_unknown),
            is_of_plugin,
            is_unknown: false,
            disk,
            is_about_settings: false,
        }))
    }

    /// Whether the plugin was called and didn't answer by its deadline.
    pub(crate) fn is_timed_out(&self) -> bool {
        self.0.fault == Some(FaultKind::TimedOut)
    }

    /// Whether the plugin was not asked: it couldn't be loaded, or there was no worker for it.
    #[inline]
    pub(super) fn is_not_begun(&self) -> bool {
        matches!(self.0.fault, Some(FaultKind::NotBegun | FaultKind::Unavailable))
    }

    /// Whether the plugin said so itself, and not the host in its place.
    pub(crate) fn is_of_plugin(&self) -> bool {
        self.0.is_of_plugin
    }

    #[cold]
    pub(crate) fn about(mut self, asset: &str) -> Self {
        self.0.asset = Some(asset.to_owned());
        self
    }

    /// The hook that was called.
    pub fn hook(&self) -> Hook {
        self.0.hook
    }

    /// The id of the plugin; none if no plugin has the asset's type.
    pub fn plugin(&self) -> Option<&str> {
        self.0.plugin.as_deref()
    }

    /// The handler that stands in the way, if it is one: the plugin was not called then.
    pub fn handler(&self) -> Option<&str> {
        self.0.handler.as_deref()
    }

    /// The id of the asset, if the hook is about one.
    pub fn asset(&self) -> Option<&str> {
        self.0.asset.as_deref()
    }

    /// What kind of refusal or failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence for whoever asked. From the plugin, and so not to be trusted: escape it where it is shown.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The HTTP status that stands for the kind, or for the trouble of the disk.
    pub fn status(&self) -> u16 {
        self.0.disk.map_or_else(|| self.0.kind.status(), DiskTrouble::status)
    }

    /// The trouble of the host's disk that it comes from, if it does.
    pub fn disk_trouble(&self) -> Option<DiskTrouble> {
        self.0.disk
    }

    /// Whether the plugin may have done what it was asked for: it was called, and its answer didn't come back in time or at
    /// all. Find out before it is asked again, where that would do harm.
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// When it makes sense to try again, where the plugin said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { hook, plugin, kind, message, .. } = &*self.0;
        match plugin {
            Some(plugin) => write!(f, "{plugin}: {hook}: {kind}: {message}"),
            None => write!(f, "{hook}: {kind}: {message}"),
        }
    }
}

impl std::error::Error for HookError {}

impl Serialize for HookError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("HookError", 9)?;
        object.serialize_field("kind", self.kind().name())?;
        object.serialize_field("status", &self.status())?;
        object.serialize_field("message", self.message())?;
        object.serialize_field("hook", self.hook().name())?;
        match self.plugin() {
            Some(plugin) => object.serialize_field("plugin", plugin)?,
            None => object.skip_field("plugin")?,
        }
        match self.handler() {
            Some(handler) => object.serialize_field("handler", handler)?,
            None => object.skip_field("handler")?,
        }
        match self.asset() {
            Some(asset) => object.serialize_field("asset", asset)?,
            None => object.skip_field("asset")?,
        }
        match self.retry_after() {
            Some(delay) => object.serialize_field("retry_after_ms", &delay.as_millis())?,
            None => object.skip_field("retry_after_ms")?,
        }
        if self.is_outcome_unknown() {
            object.serialize_field("outcome_unknown", &true)?;
        } else {
            object.skip_field("outcome_unknown")?;
        }
        object.end()
    }
}
