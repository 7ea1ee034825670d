//! What stands against the removal of a plugin, counted all at once: whoever removes it by force has seen all of it.

use billhook_model::{AddonResources, KeptState, PluginUses};
use billhook_store::AddonClash;
use rusqlite::Connection;

use super::{count, resources, usage};
use crate::failure::Step;

/// Counts what a plugin is needed for, and what it keeps.
pub(super) fn of(connection: &Connection, plugin: &str) -> Step<PluginUses> {
    let mut uses = PluginUses::default();
    if let Some(AddonClash::LeavesResources { addon, resources }) = resources::clash(connection, plugin, None)? {
        uses.resources = Some(AddonResources::new(addon, resources));
    }
    uses.assets = assets(connection, plugin)?;
    uses.unsent_usage = usage::count_unsent(connection, plugin)?;
    uses.state = kept(connection, plugin)?;
    Ok(uses)
}

/// How many assets use a plugin.
pub(super) fn assets(connection: &Connection, plugin: &str) -> Step<u64> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM asset_in_use WHERE plugin = ?1")?;
    Ok(statement.query_row([plugin], count)?)
}

/// How much a plugin keeps.
pub(super) fn kept(connection: &Connection, plugin: &str) -> Step<KeptState> {
    let (values, bytes): (i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM state WHERE plugin = ?1",
        )?
        .query_row([plugin], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(KeptState::new(values.unsigned_abs(), bytes.unsigned_abs()))
}
