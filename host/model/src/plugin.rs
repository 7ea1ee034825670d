//! Installed plugins.

use std::fmt;

use billhook_plugin_api::{Hook, Json, UsageSpec};
use serde::{Deserialize, Serialize};

use crate::{Moment, RunPolicy, UsageSpecState, moment::as_seconds, named::named};

named! {
    /// Whether a plugin takes calls.
    pub enum PluginStatus: "plugin status" in schemas "Status" {
        /// It takes calls.
        Enabled = 0, "enabled";
        /// The operator switched it off: calls are answered as unavailable.
        Disabled = 1, "disabled";
        /// It refused its settings: calls are answered as unavailable until it gets others.
        NeedsSettings = 2, "needs_settings";
        /// It crashed too often: calls are answered as unavailable until it is enabled again.
        Quarantined = 3, "quarantined";
    }
}

/// An installed plugin, as it is listed.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PluginSummary {
    /// The id: the name in lower case, with `-` for spaces.
    pub id: String,
    /// The asset type, as sellers see it.
    pub name: String,
    /// Who wrote it.
    pub author: String,
    /// The version in use.
    pub version: String,
    /// Whether it takes calls.
    pub status: PluginStatus,
}

impl PluginSummary {
    /// Returns a plugin that takes calls.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        author: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        PluginSummary {
            id: id.into(),
            name: name.into(),
            author: author.into(),
            version: version.into(),
            status: PluginStatus::Enabled,
        }
    }
}

/// A version in a plugin's history.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InstalledVersion {
    /// The version.
    pub version: String,
    /// When it was installed; in JSON, in seconds since 1970.
    #[serde(with = "as_seconds")]
    #[cfg_attr(feature = "schema", schema(value_type = i64))]
    pub installed_at: Moment,
    /// The digest of the package's content, which names its folder.
    pub digest: String,
}

impl InstalledVersion {
    /// Returns a version with when it was installed and the digest of its package's content.
    pub fn new(version: impl Into<String>, installed_at: Moment, digest: impl Into<String>) -> Self {
        InstalledVersion { version: version.into(), installed_at, digest: digest.into() }
    }
}

/// What a library says about itself.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModuleInfo {
    /// The library's path in the package.
    pub path: String,
    /// The version of the API that it was built with.
    pub api: String,
    /// The compiler that built it.
    pub compiler: String,
    /// The target triple that it was built for.
    pub target: String,
    /// The hooks that it implements, by their names.
    pub hooks: Vec<String>,
    /// The libraries of the system that it needs.
    pub needs: Vec<String>,
}

impl ModuleInfo {
    /// Returns whether a hook is implemented.
    pub fn implements(&self, hook: Hook) -> bool {
        self.hooks.iter().any(|name| name == hook.name())
    }

    /// Returns the hooks that it implements and this host doesn't have: they are never called.
    pub fn unknown_hooks(&self) -> impl Iterator<Item = &str> {
        self.hooks.iter().map(String::as_str).filter(|name| name.parse::<Hook>().is_err())
    }
}

/// Everything about an installed plugin.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PluginDetails {
    /// As it is listed.
    #[serde(flatten)]
    pub summary: PluginSummary,
    /// Why it needs other settings, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_settings: Option<String>,
    /// Why it is in quarantine, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
    /// Its place among the listeners of an event, if it was given one: lower ones come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// How it is run.
    pub runtime: RunPolicy,
    /// The operator's settings, as they were given.
    #[cfg_attr(feature = "schema", schema(value_type = serde_json::Value))]
    pub settings: Json<'static>,
    /// The `package.json` of the version in use, as it is written.
    #[cfg_attr(feature = "schema", schema(value_type = serde_json::Value))]
    pub manifest: Json<'static>,
    /// What its library says about itself.
    pub module: ModuleInfo,
    /// The units that it can account for; unknown as long as it needs settings.
    pub usage_specs: Vec<UsageSpec>,
    /// Its usage specifications in the usage API: those that are there, and those that are to be made or deleted.
    pub usage_api: Vec<UsageSpecState>,
    /// How many usage records it reported that the usage API doesn't have yet.
    pub unsent_usage: u64,
    /// How many assets of the backend's use it: as long as there are any, it isn't removed.
    pub assets_in_use: u64,
    /// What it keeps: as long as there is anything, it isn't removed, because that would delete it.
    pub state: KeptState,
    /// All installed versions, oldest first; the last one is in use.
    pub history: Vec<InstalledVersion>,
}

impl PluginDetails {
    /// Returns a plugin of which nothing else is known.
    pub fn new(summary: PluginSummary) -> Self {
        PluginDetails {
            summary,
            needs_settings: None,
            quarantined: None,
            priority: None,
            runtime: RunPolicy::default(),
            settings: Json::default(),
            manifest: Json::default(),
            module: ModuleInfo::default(),
            usage_specs: Vec::new(),
            usage_api: Vec::new(),
            unsent_usage: 0,
            assets_in_use: 0,
            state: KeptState::default(),
            history: Vec::new(),
        }
    }
}

/// How much a plugin keeps with its `state()`.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptState {
    /// How many values.
    pub values: u64,
    /// The bytes of all keys and values.
    pub bytes: u64,
}

impl KeptState {
    /// Returns so many values, of so many bytes with their keys.
    pub const fn new(values: u64, bytes: u64) -> Self {
        KeptState { values, bytes }
    }
}

impl fmt::Display for KeptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} value{} ({} bytes)", self.values, plural(self.values), self.bytes)
    }
}

/// The resources of an add-on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AddonResources {
    /// The add-on's id.
    pub addon: String,
    /// How many there are, those among them of which nobody knows whether they were made.
    pub count: u64,
}

impl AddonResources {
    /// Returns so many resources of an add-on.
    pub fn new(addon: impl Into<String>, count: u64) -> Self {
        AddonResources { addon: addon.into(), count }
    }
}

/// What a plugin is needed for, and what it keeps. As long as there is anything, the plugin is removed only by force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PluginUses {
    /// How many assets of the backend use it.
    pub assets: u64,
    /// How many usage records it reported that the usage API doesn't have yet.
    pub unsent_usage: u64,
    /// The resources of the add-on that it provides, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<AddonResources>,
    /// What it keeps, which is deleted with it.
    pub state: KeptState,
}

impl PluginUses {
    /// Returns whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the first of them in a word that doesn't change: for programs.
    pub fn kind(&self) -> &'static str {
        if self.assets > 0 {
            "in_use"
        } else if self.unsent_usage > 0 {
            "usage_unsent"
        } else if self.resources.is_some() {
            "has_resources"
        } else {
            "keeps_state"
        }
    }
}

impl fmt::Display for PluginUses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.assets > 0 {
            parts.push(format!("is used by {} asset{}", self.assets, plural(self.assets)));
        }
        if self.unsent_usage > 0 {
            let (count, s) = (self.unsent_usage, plural(self.unsent_usage));
            parts.push(format!("reported {count} usage record{s} that the usage API doesn't have yet"));
        }
        if let Some(AddonResources { addon, count }) = &self.resources {
            parts.push(format!("provides the add-on {addon:?}, which has {count} resource{}", plural(*count)));
        }
        if self.state.values > 0 {
            parts.push(format!("keeps {}, which would be deleted with it", self.state));
        }
        f.write_str(&parts.join("; it "))
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
