//! What stands against the removal of a plugin, counted all at once: whoever removes it by force has seen all of it.

use std::fmt;

use rusqlite::Connection;
use serde::Serialize;

use super::{AddonClash, RegistryError, addons, usage};

/// How much a plugin keeps with its `state()`.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeptState {
    /// How many values.
    pub values: u64,
    /// The bytes of all keys and values.
    pub bytes: u64,
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
    /// Counts what a plugin is needed for.
    pub(super) fn of(connection: &Connection, plugin: &str) -> Result<Self, RegistryError> {
        let resources = match addons::clash(connection, plugin, None)? {
            Some(AddonClash::LeavesResources { addon, resources }) => Some(AddonResources { addon, count: resources }),
            _ => None,
        };
        Ok(PluginUses {
            assets: assets(connection, plugin)?,
            unsent_usage: usage::count_unsent(connection, plugin)?,
            resources,
            state: kept(connection, plugin)?,
        })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the first of them in a word that doesn't change: for programs.
    pub(crate) fn kind(&self) -> &'static str {
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

/// How many assets use a plugin.
pub(super) fn assets(connection: &Connection, plugin: &str) -> Result<u64, RegistryError> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM asset_in_use WHERE plugin = ?1")?;
    Ok(statement.query_row([plugin], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// How much a plugin keeps.
pub(super) fn kept(connection: &Connection, plugin: &str) -> Result<KeptState, RegistryError> {
    let counted = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM state WHERE plugin = ?1",
        )?
        .query_row([plugin], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    Ok(KeptState { values: counted.0.unsigned_abs(), bytes: counted.1.unsigned_abs() })
}
