//! What the registry holds, as others see it.

use billhook_plugin_api::{Json, UsageSpec};
use serde::Serialize;

use super::{KeptState, NextAddon, SpecRow};
use crate::{
    events::Handler,
    package::{ModuleInfo, Version},
    runtime::RuntimeSettings,
};

/// Whether a plugin takes calls.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It takes calls.
    Enabled,
    /// The operator switched it off: calls are answered as unavailable.
    Disabled,
    /// It refused its settings: calls are answered as unavailable until it gets others.
    NeedsSettings,
    /// It crashed too often: calls are answered as unavailable until it is enabled again.
    Quarantined,
}

impl Status {
    /// The name in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
            Status::NeedsSettings => "needs settings",
            Status::Quarantined => "quarantined",
        }
    }
}

/// An installed plugin, as it is listed.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
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
    pub status: Status,
}

/// A version in a plugin's history.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct InstalledVersion {
    /// The version.
    pub version: String,
    /// When it was installed, in seconds since 1970.
    pub installed_at: i64,
    /// The digest of the package's content, which names its folder.
    pub digest: String,
}

/// Everything about an installed plugin.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
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
    pub runtime: RuntimeSettings,
    /// The operator's settings, as they were given.
    #[cfg_attr(feature = "server", schema(value_type = serde_json::Value))]
    pub settings: Json<'static>,
    /// The `package.json` of the version in use, as it is written.
    #[cfg_attr(feature = "server", schema(value_type = serde_json::Value))]
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

/// A usage specification of a plugin, and the one in the usage API.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UsageSpecState {
    /// The plugin.
    pub plugin: String,
    /// The unit's name.
    pub name: String,
    /// What is to be done.
    pub pending: Option<PendingSpec>,
    /// The usage API's address of it.
    pub href: Option<String>,
    /// Why it was not done yet, if that was tried.
    pub failure: Option<String>,
}

/// What is to be done with a usage specification.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingSpec {
    /// The usage API is to get it.
    Create,
    /// The usage API is to delete it.
    Delete,
}

impl From<SpecRow> for UsageSpecState {
    fn from(row: SpecRow) -> Self {
        let pending = match (row.is_wanted, &row.made) {
            (true, Some(_)) => None,
            (true, None) => Some(PendingSpec::Create),
            (false, _) => Some(PendingSpec::Delete),
        };
        let SpecRow { plugin, name, failure, made, .. } = row;
        UsageSpecState { plugin, name, pending, href: made.map(|(_, href)| href), failure }
    }
}

/// A version to be installed.
pub(crate) struct NewVersion {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) author: String,
    pub(crate) version: Version,
    pub(crate) digest: String,
    pub(crate) library_digest: String,
    pub(crate) manifest: String,
    pub(crate) module: ModuleInfo,
    /// The id of its add-on.
    pub(crate) addon: Option<String>,
}

impl NewVersion {
    pub(crate) fn addon(&self) -> Option<NextAddon<'_>> {
        self.addon.as_deref().map(|id| NextAddon { id, author: &self.author })
    }
}

/// What the dispatch needs of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct DispatchRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) library_digest: String,
    pub(crate) module: String,
    pub(crate) status: Status,
    pub(crate) needs_settings: Option<String>,
    pub(crate) quarantined: Option<String>,
    /// How it is run, a JSON document; none is the default.
    pub(crate) runtime: Option<String>,
    /// The generation in which the settings were last changed.
    pub(crate) settings_changed: i64,
    /// Its place among the listeners of an event; none is the default.
    pub(crate) priority: Option<u32>,
    /// The `events` of its package.json, a JSON document.
    pub(crate) events: Option<String>,
}

/// Everything that the dispatch needs, and the generation that this is of.
pub(crate) struct DispatchRows {
    pub(crate) generation: i64,
    pub(crate) plugins: Vec<DispatchRow>,
    pub(crate) handlers: Vec<Handler>,
    /// The operator's own events, with what they are about.
    pub(crate) events: Vec<(String, String)>,
}

/// The outcome of a trial, as it is kept.
#[derive(Debug, Clone)]
pub(crate) enum Tried {
    Works { usage_specs: Vec<UsageSpec> },
    NeedsSettings { message: String },
}
