//! Installed plugins, their versions, settings, and where calls go.

use std::fmt;

use billhook_model::{
    Handler, ModuleInfo, OwnEvent, PluginDetails, PluginStatus, PluginSummary, PluginUses, RunPolicy,
};
use billhook_plugin_api::UsageSpec;

use crate::{AddonClash, Result, StoreError};

/// What is installed.
///
/// Each function is one atomic operation: after an error whose [`was_done`](StoreError::was_done) is *no*, nothing has
/// changed. Changes are durable on return.
///
/// The *generation* is one number for everything that a running host has to notice: plugins, versions, settings, routes,
/// handlers, events and tokens. Each change of those raises it in the same transaction, and a call that changes nothing,
/// because it is refused or because everything was so already, doesn't. Changes have a total order, that of their generations:
/// whoever sees a generation sees everything of it and of those before it.
pub trait Plugins: Send + Sync {
    /// Returns the generation.
    fn generation(&self) -> Result<i64>;

    /// Returns everything that a host needs to route calls and events, all of one generation.
    fn routes(&self) -> Result<Routes>;

    /// Returns all plugins, ordered by the bytes of their ids.
    fn list(&self) -> Result<Vec<PluginSummary>>;

    /// Returns a plugin as it is listed, or `None` if it isn't installed.
    fn summary(&self, id: &str) -> Result<Option<PluginSummary>>;

    /// Returns everything about a plugin, all of one moment, or `None` if it isn't installed.
    fn details(&self, id: &str) -> Result<Option<PluginDetails>>;

    /// Returns everything about all plugins, all of one moment, ordered by the bytes of their ids.
    fn all_details(&self) -> Result<Vec<PluginDetails>>;

    /// Returns the operator's settings of a plugin, a JSON document, or `None` if it isn't installed.
    fn settings(&self, id: &str) -> Result<Option<String>>;

    /// Returns the settings that a version had when a later one took its place, if one did.
    fn settings_of_version(&self, id: &str, version: &str) -> Result<Option<String>>;

    /// Returns how a plugin is run; the default if it isn't installed.
    fn run_policy(&self, id: &str) -> Result<RunPolicy>;

    /// Returns what is known of a version's package, or `None` if the version isn't in the history.
    fn package(&self, id: &str, version: &str) -> Result<Option<InstalledPackage>>;

    /// Returns the digests of the packages of all versions of all plugins.
    fn digests(&self) -> Result<Vec<String>>;

    /// Installs a plugin or another version of one, and lets calls go to it. What is in the history stays in it.
    ///
    /// # Errors
    /// [`ChangeError::Clash`] where the add-on that the version provides, or doesn't provide any more, stands against it.
    fn install(&self, new: &NewVersion) -> std::result::Result<PluginSummary, ChangeError>;

    /// Goes back to an older version and forgets those that are later in the history; the settings stay unless others are given.
    ///
    /// # Errors
    /// [`ChangeError::Clash`] as for an install; [`ChangeError::NotInstalled`] if the version isn't in the history.
    fn downgrade(
        &self,
        id: &str,
        version: &str,
        settings: Option<&str>,
        tried: &Tried,
    ) -> std::result::Result<PluginSummary, ChangeError>;

    /// Gives a plugin other settings, with which the version in use was tried.
    ///
    /// # Errors
    /// [`ChangeError::NotInstalled`].
    fn set_settings(&self, id: &str, settings: &str, tried: &Tried) -> std::result::Result<PluginSummary, ChangeError>;

    /// Switches a plugin on or off. One that is switched on leaves quarantine.
    ///
    /// # Errors
    /// [`ChangeError::NotInstalled`].
    fn set_enabled(&self, id: &str, enabled: bool) -> std::result::Result<PluginSummary, ChangeError>;

    /// Changes how a plugin is run. It leaves quarantine: it may do better so.
    ///
    /// # Errors
    /// [`ChangeError::NotInstalled`].
    fn set_run_policy(&self, id: &str, policy: &RunPolicy) -> std::result::Result<PluginSummary, ChangeError>;

    /// Gives a plugin its place among the listeners of an event. Returns whether it is installed.
    fn set_priority(&self, id: &str, priority: u32) -> Result<bool>;

    /// Lets calls of a plugin go to several versions of its history, each with a weight; with no weights, to the version in use
    /// alone. Returns whether all of them are in the history; if not, nothing changes.
    fn set_weights(&self, id: &str, weights: &[(String, u32)]) -> Result<bool>;

    /// Keeps a plugin from taking calls until it is enabled again, unless it is another one by now than the one that crashed:
    /// another version or one with other settings may do better.
    fn quarantine(&self, crashed: &Crashed<'_>, reason: &str) -> Result<()>;

    /// Raises the generation: files of a package were put back, and what failed for want of them is tried again.
    fn repaired(&self) -> Result<()>;

    /// Records an asset as in use with a plugin, and with no other. Returns whether the plugin is installed.
    fn use_asset(&self, plugin: &str, asset: &str) -> Result<bool>;

    /// Records an asset as no longer in use. Returns whether it was.
    fn release_asset(&self, asset: &str) -> Result<bool>;

    /// Forgets a plugin, its history, settings and state; its usage and its add-on's resources stay. Unless it is forced, only
    /// one that nothing needs and that keeps nothing.
    fn remove(&self, id: &str, force: bool) -> Result<Removal>;
}

/// Everything that a host needs to route calls and events.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// The generation that this is of.
    pub generation: i64,
    /// The plugins.
    pub plugins: Vec<RoutedPlugin>,
    /// The handlers, by the bytes of their names.
    pub handlers: Vec<Handler>,
    /// The operator's own events, by the bytes of their names.
    pub events: Vec<OwnEvent>,
}

/// An installed plugin, as calls are routed to it.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutedPlugin {
    /// Its id.
    pub id: String,
    /// The asset type, as the version in use spells it.
    pub name: String,
    /// Whether it takes calls.
    pub status: PluginStatus,
    /// Why it needs other settings, if it does.
    pub needs_settings: Option<String>,
    /// Why it is in quarantine, if it is.
    pub quarantined: Option<String>,
    /// How it is run, or why that can't be read.
    pub policy: std::result::Result<RunPolicy, String>,
    /// The generation in which the settings were last changed.
    pub settings_changed: i64,
    /// Its place among the listeners of an event, if it was given one.
    pub priority: Option<u32>,
    /// The versions that calls go to: the one in use first. There is always one.
    pub versions: Vec<RoutedVersion>,
}

/// A version that calls go to.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutedVersion {
    /// The version, as its package spells it.
    pub version: String,
    /// The digest of its package, which names the folder.
    pub digest: String,
    /// The digest of its library.
    pub library_digest: String,
    /// What its library says about itself, or why that can't be read.
    pub module: std::result::Result<ModuleInfo, String>,
    /// The events that its `package.json` lists.
    pub events: Vec<String>,
    /// How many of all calls go to it, in proportion to the others' weights; never 0.
    pub weight: u32,
}

/// What is known of the package of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// The digest of its content, which names the folder.
    pub digest: String,
    /// The digest of its library.
    pub library_digest: String,
    /// What its library says about itself.
    pub module: ModuleInfo,
}

/// A version to be installed.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// The id of the plugin.
    pub id: String,
    /// The asset type.
    pub name: String,
    /// Who wrote it.
    pub author: String,
    /// The version, as its package spells it.
    pub version: String,
    /// The digest of the package's content.
    pub digest: String,
    /// The digest of its library.
    pub library_digest: String,
    /// Its `package.json`.
    pub manifest: String,
    /// What its library says about itself.
    pub module: ModuleInfo,
    /// The id of the add-on that it provides, if it provides one.
    pub addon: Option<String>,
    /// Settings in place of those that are there.
    pub settings: Option<String>,
    /// How it is to be run.
    pub policy: RunPolicy,
    /// What its trial came to.
    pub tried: Tried,
    /// Whether it gets the resources of its add-on that another plugin, or another author's, made.
    pub takes_over: bool,
}

/// What a trial came to, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It works, and declares units.
    Works {
        /// The units that it can account for.
        usage_specs: Vec<UsageSpec>,
    },
    /// It refuses its settings.
    NeedsSettings {
        /// What it said.
        message: String,
    },
}

/// A plugin as it was installed and set when it crashed.
#[derive(Debug, Clone, Copy)]
pub struct Crashed<'a> {
    /// Its id.
    pub id: &'a str,
    /// The digest of the version's package.
    pub digest: &'a str,
    /// The generation in which the settings had been changed last.
    pub settings_changed: i64,
}

/// What became of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Removal {
    /// It was removed.
    Done,
    /// It wasn't installed.
    NotInstalled,
    /// It is needed, or keeps something: all of that is counted.
    InUse(PluginUses),
}

/// Why a plugin can't be changed.
#[derive(Debug, Clone)]
pub enum ChangeError {
    /// The plugin, or the version, isn't installed.
    NotInstalled,
    /// An add-on stands against it.
    Clash(AddonClash),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        ChangeError::Store(error)
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::NotInstalled => f.write_str("the plugin isn't installed any more"),
            ChangeError::Clash(clash) => clash.fmt(f),
            ChangeError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ChangeError::Store(error) => error.source(),
            _ => None,
        }
    }
}
