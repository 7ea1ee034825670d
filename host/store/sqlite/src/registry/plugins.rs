//! Installed plugins, their versions, settings, and where calls go.

use billhook_model::{
    InstalledVersion, ModuleInfo, Moment, PluginDetails, PluginStatus, PluginSummary, RunPolicy, UsageSpecState,
};
use billhook_plugin_api::json_tree::JsonTree;
use billhook_store::{
    AddonClash, ChangeError, Crashed, InstalledPackage, NewVersion, NextAddon, Plugins, Removal, Result, RoutedPlugin,
    RoutedVersion, Routes, Tried,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Change, Registry, handlers, lock, parse, resources, to_json, usage, uses};
use crate::failure::Step;

/// What a change of a plugin comes to.
type Changed = std::result::Result<PluginSummary, ChangeError>;

impl Registry {
    /// Changes a plugin, unless that is refused.
    fn change_plugin(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Step<std::result::Result<(), ChangeError>>,
        id: &str,
    ) -> Changed {
        self.change(|transaction| {
            if let Err(refusal) = change(transaction)? {
                return Ok(Change::Nothing(Err(refusal)));
            }
            Ok(match find_summary(transaction, id)? {
                Some(summary) => Change::Made(Ok(summary)),
                None => Change::Nothing(Err(ChangeError::NotInstalled)),
            })
        })?
    }
}

impl Plugins for Registry {
    fn generation(&self) -> Result<i64> {
        // Asked several times in a second: one statement, and no transaction of its own.
        super::told(|| {
            let connection = lock(&self.main);
            let mut statement = connection.prepare_cached("SELECT generation FROM registry")?;
            Ok(statement.query_row((), |row| row.get(0))?)
        })
    }

    fn routes(&self) -> Result<Routes> {
        self.read(|transaction| {
            let generation = transaction.query_row("SELECT generation FROM registry", (), |row| row.get(0))?;
            let mut plugins: Vec<RoutedPlugin> = Vec::new();
            // The version in use first.
            let mut statement = transaction.prepare_cached(
                "SELECT p.id, u.name, p.enabled, p.needs_settings, p.quarantined, p.runtime, p.settings_changed, p.priority,
                        v.version, v.digest, v.library_digest, v.module, json_extract(v.manifest, '$.events'),
                        coalesce(r.weight, 1)
                 FROM plugin p JOIN version u ON u.plugin = p.id AND u.position = p.position
                      JOIN version v ON v.plugin = p.id
                      LEFT JOIN route r ON r.plugin = p.id AND r.position = v.position
                 WHERE r.weight IS NOT NULL
                       OR v.position = p.position AND NOT EXISTS (SELECT 1 FROM route WHERE plugin = p.id)
                 ORDER BY p.id, v.position <> p.position, v.position",
            )?;
            let mut rows = statement.query(())?;
            while let Some(row) = rows.next()? {
                let version = routed_version(row)?;
                let id: String = row.get(0)?;
                match plugins.last_mut().filter(|last| last.id == id) {
                    Some(plugin) => plugin.versions.push(version),
                    None => plugins.push(routed_plugin(row, id, version)?),
                }
            }
            let (handlers, events) = (handlers::all(transaction)?, handlers::own_events(transaction)?);
            Ok(Routes { generation, plugins, handlers, events })
        })
    }

    fn list(&self) -> Result<Vec<PluginSummary>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{SUMMARY} ORDER BY p.id"))?;
            let rows = statement.query_map((), summary)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn summary(&self, id: &str) -> Result<Option<PluginSummary>> {
        self.read(|transaction| find_summary(transaction, id))
    }

    fn details(&self, id: &str) -> Result<Option<PluginDetails>> {
        self.read(|transaction| find_summary(transaction, id)?.map(|summary| details(transaction, summary)).transpose())
    }

    fn all_details(&self) -> Result<Vec<PluginDetails>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{SUMMARY} ORDER BY p.id"))?;
            let summaries = statement.query_map((), summary)?.collect::<rusqlite::Result<Vec<_>>>()?;
            summaries.into_iter().map(|summary| details(transaction, summary)).collect()
        })
    }

    fn settings(&self, id: &str) -> Result<Option<String>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT settings FROM plugin WHERE id = ?1")?;
            Ok(statement.query_row([id], |row| row.get(0)).optional()?)
        })
    }

    fn settings_of_version(&self, id: &str, version: &str) -> Result<Option<String>> {
        self.read(|transaction| {
            let mut statement =
                transaction.prepare_cached("SELECT settings FROM version WHERE plugin = ?1 AND version = ?2")?;
            Ok(statement.query_row([id, version], |row| row.get(0)).optional()?.flatten())
        })
    }

    fn run_policy(&self, id: &str) -> Result<RunPolicy> {
        self.read(|transaction| policy(transaction, id))
    }

    fn package(&self, id: &str, version: &str) -> Result<Option<InstalledPackage>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT digest, library_digest, module FROM version WHERE plugin = ?1 AND version = ?2",
            )?;
            let found = statement.query_row([id, version], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            let Some((digest, library_digest, module)) = found.optional()? else { return Ok(None) };
            let module: String = module;
            Ok(Some(InstalledPackage { digest, library_digest, module: parse(id, &module)? }))
        })
    }

    fn digests(&self) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut statement = transaction.prepare("SELECT DISTINCT digest FROM version")?;
            let rows = statement.query_map((), |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn install(&self, new: &NewVersion) -> Changed {
        let install = |transaction: &Transaction<'_>| {
            let next = new.addon.as_deref().map(|id| NextAddon { id, author: &new.author });
            // Resources may have been asked for while it was tried.
            match resources::clash(transaction, &new.id, next)? {
                Some(AddonClash::OthersResources { .. }) if new.takes_over => {}
                Some(clash) => return Ok(Err(ChangeError::Clash(clash))),
                None => {}
            }
            if let Some(next) = next {
                resources::take_over(transaction, &new.id, next)?;
            }
            insert_version(transaction, new, self.clock.now())?;
            Ok(Ok(()))
        };
        self.change_plugin(install, &new.id)
    }

    fn downgrade(&self, id: &str, version: &str, settings: Option<&str>, tried: &Tried) -> Changed {
        let downgrade = |transaction: &Transaction<'_>| {
            let position: Option<i64> = transaction
                .query_row("SELECT position FROM version WHERE plugin = ?1 AND version = ?2", [id, version], |row| {
                    row.get(0)
                })
                .optional()?;
            let Some(position) = position else { return Ok(Err(ChangeError::NotInstalled)) };
            let addon = resources::of_version(transaction, id, version)?;
            let addon = addon.as_ref().map(|(addon, author)| NextAddon { id: addon, author });
            match resources::clash(transaction, id, addon)? {
                // It goes back to what its own operator had.
                Some(AddonClash::OthersResources { plugin, .. }) if plugin == id => {}
                Some(clash) => return Ok(Err(ChangeError::Clash(clash))),
                None => {}
            }
            if let Some(addon) = addon {
                resources::take_over(transaction, id, addon)?;
            }
            let (usage_specs, needs_settings) = split(id, tried)?;
            transaction.execute("DELETE FROM route WHERE plugin = ?1", [id])?;
            transaction.execute("DELETE FROM version WHERE plugin = ?1 AND position > ?2", params![id, position])?;
            transaction.execute(
                "UPDATE version SET usage_specs = ?3 WHERE plugin = ?1 AND position = ?2",
                params![id, position, usage_specs],
            )?;
            transaction.execute(
                "UPDATE plugin SET position = ?2, needs_settings = ?3, quarantined = NULL WHERE id = ?1",
                params![id, position, needs_settings],
            )?;
            replace_settings(transaction, id, settings)?;
            Ok(Ok(()))
        };
        self.change_plugin(downgrade, id)
    }

    fn set_settings(&self, id: &str, settings: &str, tried: &Tried) -> Changed {
        let set = |transaction: &Transaction<'_>| {
            let (usage_specs, needs_settings) = split(id, tried)?;
            transaction.execute(
                "UPDATE version SET usage_specs = ?2 WHERE plugin = ?1
                 AND position = (SELECT position FROM plugin WHERE id = ?1)",
                params![id, usage_specs],
            )?;
            transaction.execute("UPDATE plugin SET needs_settings = ?2 WHERE id = ?1", params![id, needs_settings])?;
            replace_settings(transaction, id, Some(settings))?;
            Ok(Ok(()))
        };
        self.change_plugin(set, id)
    }

    fn set_enabled(&self, id: &str, enabled: bool) -> Changed {
        let set = |transaction: &Transaction<'_>| {
            transaction.execute("UPDATE plugin SET enabled = ?2 WHERE id = ?1", params![id, enabled])?;
            if enabled {
                leave_quarantine(transaction, id)?;
            }
            Ok(Ok(()))
        };
        self.change_plugin(set, id)
    }

    fn set_run_policy(&self, id: &str, policy: &RunPolicy) -> Changed {
        let set = |transaction: &Transaction<'_>| {
            leave_quarantine(transaction, id)?;
            transaction.execute("UPDATE plugin SET runtime = ?2 WHERE id = ?1", [id, &to_json(id, policy)?])?;
            Ok(Ok(()))
        };
        self.change_plugin(set, id)
    }

    fn set_priority(&self, id: &str, priority: u32) -> Result<bool> {
        self.change(|transaction| {
            let set = "UPDATE plugin SET priority = ?2 WHERE id = ?1";
            let changed = transaction.execute(set, params![id, priority])?;
            Ok(if changed > 0 { Change::Made(true) } else { Change::Nothing(false) })
        })
    }

    fn set_weights(&self, id: &str, weights: &[(String, u32)]) -> Result<bool> {
        self.change(|transaction| {
            if find_summary(transaction, id)?.is_none() {
                return Ok(Change::Nothing(false));
            }
            let mut positions = Vec::with_capacity(weights.len());
            for (version, weight) in weights {
                let position: Option<i64> = transaction
                    .prepare_cached("SELECT position FROM version WHERE plugin = ?1 AND version = ?2")?
                    .query_row([id, version], |row| row.get(0))
                    .optional()?;
                match position.filter(|_| *weight > 0) {
                    Some(position) => positions.push((position, weight)),
                    None => return Ok(Change::Nothing(false)),
                }
            }
            transaction.execute("DELETE FROM route WHERE plugin = ?1", [id])?;
            for (position, weight) in positions {
                let insert = "INSERT OR REPLACE INTO route (plugin, position, weight) VALUES (?1, ?2, ?3)";
                transaction.execute(insert, params![id, position, weight])?;
            }
            Ok(Change::Made(true))
        })
    }

    fn quarantine(&self, crashed: &Crashed<'_>, reason: &str) -> Result<()> {
        self.change(|transaction| {
            let changed = transaction.execute(
                "UPDATE plugin SET quarantined = ?2 WHERE id = ?1 AND settings_changed = ?3 AND quarantined IS NOT ?2
                 AND EXISTS (SELECT 1 FROM version v WHERE v.plugin = ?1 AND v.position = plugin.position AND v.digest = ?4)",
                params![crashed.id, reason, crashed.settings_changed, crashed.digest],
            )?;
            Ok(if changed > 0 { Change::Made(()) } else { Change::Nothing(()) })
        })
    }

    fn repaired(&self) -> Result<()> {
        self.change(|_| Ok(Change::Made(())))
    }

    fn use_asset(&self, plugin: &str, asset: &str) -> Result<bool> {
        self.change_quietly(&self.main, [""; 2], |transaction| {
            let insert = "INSERT INTO asset_in_use (asset, plugin) SELECT ?1, id FROM plugin WHERE id = ?2
                          ON CONFLICT (asset) DO UPDATE SET plugin = excluded.plugin";
            Ok(transaction.prepare_cached(insert)?.execute([asset, plugin])? > 0)
        })
    }

    fn release_asset(&self, asset: &str) -> Result<bool> {
        self.change_quietly(&self.main, [""; 2], |transaction| {
            Ok(transaction.prepare_cached("DELETE FROM asset_in_use WHERE asset = ?1")?.execute([asset])? > 0)
        })
    }

    fn remove(&self, id: &str, force: bool) -> Result<Removal> {
        self.change(|transaction| {
            if !force {
                let uses = uses::of(transaction, id)?;
                if !uses.is_empty() {
                    return Ok(Change::Nothing(Removal::InUse(uses)));
                }
            }
            let removed = transaction.execute("DELETE FROM plugin WHERE id = ?1", [id])?;
            Ok(if removed > 0 { Change::Made(Removal::Done) } else { Change::Nothing(Removal::NotInstalled) })
        })
    }
}

const SUMMARY: &str = "SELECT p.id, v.name, v.author, v.version, p.enabled, p.needs_settings IS NOT NULL,
    p.quarantined IS NOT NULL FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position";

fn find_summary(connection: &Connection, id: &str) -> Step<Option<PluginSummary>> {
    let mut statement = connection.prepare_cached(&format!("{SUMMARY} WHERE p.id = ?1"))?;
    Ok(statement.query_row([id], summary).optional()?)
}

fn summary(row: &Row<'_>) -> rusqlite::Result<PluginSummary> {
    let (id, name, author, version): (String, String, String, String) =
        (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let mut summary = PluginSummary::new(id, name, author, version);
    summary.status = status(row.get(4)?, row.get(5)?, row.get(6)?);
    Ok(summary)
}

fn status(enabled: bool, needs_settings: bool, quarantined: bool) -> PluginStatus {
    match (enabled, needs_settings, quarantined) {
        (false, ..) => PluginStatus::Disabled,
        (true, true, _) => PluginStatus::NeedsSettings,
        (true, false, true) => PluginStatus::Quarantined,
        (true, false, false) => PluginStatus::Enabled,
    }
}

fn routed_plugin(row: &Row<'_>, id: String, version: RoutedVersion) -> Step<RoutedPlugin> {
    let (needs_settings, quarantined): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
    let policy: Option<String> = row.get(5)?;
    let policy = policy.map_or_else(
        || Ok(RunPolicy::default()),
        |policy| serde_json::from_str(&policy).map_err(|error| format!("how it is to be run can't be read: {error}")),
    );
    Ok(RoutedPlugin {
        id,
        name: row.get(1)?,
        status: status(row.get(2)?, needs_settings.is_some(), quarantined.is_some()),
        needs_settings,
        quarantined,
        policy,
        settings_changed: row.get(6)?,
        priority: row.get(7)?,
        versions: vec![version],
    })
}

fn routed_version(row: &Row<'_>) -> Step<RoutedVersion> {
    let module: String = row.get(11)?;
    let events: Option<String> = row.get(12)?;
    // What is no text was warned of when the package was loaded.
    let events = events.and_then(|events| {
        let events = JsonTree::read(&events).ok()?;
        Some(events.root().elements().filter_map(|event| Some(event.text()?.into_owned())).collect())
    });
    Ok(RoutedVersion {
        version: row.get(8)?,
        digest: row.get(9)?,
        library_digest: row.get(10)?,
        module: serde_json::from_str::<ModuleInfo>(&module)
            .map_err(|error| format!("its record is unreadable: {error}")),
        events: events.unwrap_or_default(),
        weight: row.get(13)?,
    })
}

fn policy(connection: &Connection, id: &str) -> Step<RunPolicy> {
    let mut statement = connection.prepare_cached("SELECT runtime FROM plugin WHERE id = ?1")?;
    let policy: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?.flatten();
    policy.map_or_else(|| Ok(RunPolicy::default()), |policy| parse(id, &policy))
}

fn details(transaction: &Transaction<'_>, summary: PluginSummary) -> Step<PluginDetails> {
    let id = summary.id.clone();
    let mut details = PluginDetails::new(summary);
    let (settings, manifest, module, usage_specs): (String, String, String, String) = transaction
        .prepare_cached(
            "SELECT p.needs_settings, p.quarantined, p.priority, p.settings, v.manifest, v.module, v.usage_specs
             FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position WHERE p.id = ?1",
        )?
        .query_row([&id], |row| {
            details.needs_settings = row.get(0)?;
            details.quarantined = row.get(1)?;
            details.priority = row.get(2)?;
            Ok((row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        })?;
    details.runtime = policy(transaction, &id)?;
    details.settings = parse(&id, &settings)?;
    details.manifest = parse(&id, &manifest)?;
    details.module = parse(&id, &module)?;
    details.usage_specs = parse(&id, &usage_specs)?;
    details.history = transaction
        .prepare_cached("SELECT version, installed_at, digest FROM version WHERE plugin = ?1 ORDER BY position")?
        .query_map([&id], |row| {
            let (version, digest): (String, String) = (row.get(0)?, row.get(2)?);
            Ok(InstalledVersion::new(version, Moment::from_seconds(row.get(1)?), digest))
        })?
        .collect::<rusqlite::Result<_>>()?;
    details.assets_in_use = uses::assets(transaction, &id)?;
    details.unsent_usage = usage::count_unsent(transaction, &id)?;
    details.state = uses::kept(transaction, &id)?;
    details.usage_api = usage::specs(transaction, Some(&id))?.into_iter().map(UsageSpecState::from).collect();
    Ok(details)
}

/// Adds a version to the history, and lets all calls go to it.
fn insert_version(transaction: &Transaction<'_>, new: &NewVersion, now: Moment) -> Step<()> {
    let (usage_specs, needs_settings) = split(&new.id, &new.tried)?;
    // What it goes back to has the settings that it had.
    transaction.execute(
        "UPDATE version SET settings = (SELECT settings FROM plugin WHERE id = ?1)
         WHERE plugin = ?1 AND position = (SELECT position FROM plugin WHERE id = ?1)",
        [&new.id],
    )?;
    let position: i64 = transaction.query_row(
        "SELECT coalesce(max(position), 0) + 1 FROM version WHERE plugin = ?1",
        [&new.id],
        |row| row.get(0),
    )?;
    transaction.execute(
        "INSERT INTO plugin (id, position, enabled, settings, settings_changed, needs_settings, runtime)
         VALUES (?1, ?2, 1, coalesce(?3, '{}'), (SELECT generation + 1 FROM registry), ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET position = ?2, settings = coalesce(?3, settings), runtime = ?5,
             quarantined = NULL,
             settings_changed = CASE WHEN ?3 IS NULL THEN settings_changed ELSE excluded.settings_changed END,
             needs_settings = ?4",
        params![new.id, position, new.settings, needs_settings, to_json(&new.id, &new.policy)?],
    )?;
    transaction.execute(
        "INSERT INTO version (plugin, position, version, name, author, digest, library_digest, manifest, module,
                              usage_specs, installed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            new.id,
            position,
            new.version,
            new.name,
            new.author,
            new.digest,
            new.library_digest,
            new.manifest,
            to_json(&new.id, &new.module)?,
            usage_specs,
            now.seconds()
        ],
    )?;
    transaction.execute("DELETE FROM route WHERE plugin = ?1", [&new.id])?;
    Ok(())
}

/// Ends the quarantine of a plugin. As if it had got new settings, also if nothing is noted here: a host that didn't notice the
/// quarantine before it ended, or couldn't note it, has to begin anew too.
fn leave_quarantine(transaction: &Transaction<'_>, id: &str) -> Step<()> {
    transaction.execute(
        "UPDATE plugin SET quarantined = NULL, settings_changed = (SELECT generation + 1 FROM registry)
         WHERE id = ?1 AND enabled",
        [id],
    )?;
    Ok(())
}

fn replace_settings(transaction: &Transaction<'_>, id: &str, settings: Option<&str>) -> Step<()> {
    if let Some(settings) = settings {
        transaction.execute(
            "UPDATE plugin SET settings = ?2, settings_changed = (SELECT generation + 1 FROM registry) WHERE id = ?1",
            [id, settings],
        )?;
    }
    Ok(())
}

/// The two columns that a trial fills.
fn split<'a>(id: &str, tried: &'a Tried) -> Step<(String, Option<&'a str>)> {
    match tried {
        Tried::Works { usage_specs } => Ok((to_json(id, usage_specs)?, None)),
        Tried::NeedsSettings { message } => Ok(("[]".to_owned(), Some(message))),
    }
}
