//! What is installed: plugins, their versions, settings and state. All SQL lives here.
//!
//! One SQLite file in a home that several processes share. Every change is one transaction and raises the generation,
//! by which a running host notices the changes of others.

mod addons;
mod handlers;
mod rows;
mod schema;
mod state;
mod tokens;
mod usage;
mod uses;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;

use crate::{
    database::{self, KeptClock, foreign_log},
    disk::DiskError,
    package::ModuleInfo,
    runtime::RuntimeSettings,
};
pub(crate) use addons::{AddonClash, AddonRow, NewResource, NextAddon};
pub use addons::{Resource, ResourceFilter};
pub(crate) use rows::{DispatchRow, DispatchRows, NewVersion, Tried};
pub use rows::{InstalledVersion, PendingSpec, PluginDetails, PluginSummary, Status, UsageSpecState};
use schema::Presence;
pub(crate) use state::read_only_state;
pub use tokens::{Scope, Token};
pub(crate) use usage::{
    Ended, NewUsage, Progress, SpecRow, Stage, UnsentContract, UnsentUsage, UsageContract, UsageKey, UsageReport,
};
pub use uses::{AddonResources, KeptState, PluginUses};

/// Why the registry can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The file can't be opened.
    #[error("the registry {} can't be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A later billhook made it, or another program.
    #[error("the registry {} has format {found}, which this billhook doesn't know (it knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The newest known format.
        known: String,
    },
    /// The disk failed a statement.
    #[error("the registry failed: {0}")]
    Disk(#[source] DiskError),
    /// A statement failed.
    #[error("the registry failed: {0}")]
    Sql(#[source] rusqlite::Error),
    /// What it holds can't be read.
    #[error("the registry holds something unreadable for {plugin}: {problem}")]
    Content {
        /// The plugin's id.
        plugin: String,
        /// What is wrong.
        problem: String,
    },
    /// A correlation number is too large to be kept.
    #[error("the correlation number {number} is larger than {}", i64::MAX)]
    CorrelationNumber {
        /// The number.
        number: u64,
    },
    /// It was put back beside the log of another file.
    #[error(
        "{} was put back beside a log that isn't its own: {}. To go on with what was put back, delete the log and {}; to go on \
         with what was there before, put that file back. Of a home that was copied as a whole, `touch` the log",
        path.display(),
        database::foreign_log::log_of(path).display(),
        path.with_extension("db-shm").display()
    )]
    ForeignLog {
        /// The file: the registry, or the ledger.
        path: PathBuf,
    },
    /// It has an older format, and can't be written to.
    #[error(
        "the registry {} has format {found}, and is read-only: it can't be brought to format {known}, by which it can be read",
        path.display()
    )]
    OlderReadOnly {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The format that it is to get.
        known: String,
    },
    /// It has an older format, and another process works on it that may not know the new one.
    #[error(
        "the registry {} has format {found}, and another billhook is running on it: it can't be brought to format {known} now",
        path.display()
    )]
    OlderInUse {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The format that it is to get.
        known: String,
    },
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        DiskError::take(error).map_or_else(RegistryError::Sql, RegistryError::Disk)
    }
}

/// The registry of a home.
pub(crate) struct Registry {
    path: PathBuf,
    is_new: bool,
    main: Mutex<Connection>,
    /// The state has a connection of its own, so that plugins that keep things don't hold up anything else.
    state: Mutex<Connection>,
    /// So has the ledger of pull accounting.
    usage: Mutex<Connection>,
    /// Held as long as this process works on the registry.
    clock: KeptClock,
    _presence: Option<Presence>,
}

/// Changes what no running host has to notice, in one transaction. Durable on return.
fn counted<T>(
    connection: &mut Connection,
    change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let changed = change(&transaction)?;
    foreign_log::count(&transaction)?;
    transaction.commit()?;
    Ok(changed)
}

impl Registry {
    /// Refuses files of a home that were put back beside the logs of others, before any is opened.
    pub(crate) fn refuse_foreign_logs(home: &Path, files: &[&str]) -> Result<(), RegistryError> {
        schema::refuse_foreign_logs(home, files)
    }

    /// Opens the registry of a home, and makes it if there is none.
    pub(crate) fn open(home: &Path) -> Result<Self, RegistryError> {
        let path = home.join("registry.db");
        let opened = |source| RegistryError::Open { path: path.clone(), source };
        let (main, is_new, presence) = schema::open(&path)?;
        let state = schema::connect(&path).map_err(opened)?;
        let usage = schema::connect(&path).map_err(opened)?;
        let mut usage = usage;
        let clock = KeptClock::open(&mut usage)?;
        let (main, state, usage) = (Mutex::new(main), Mutex::new(state), Mutex::new(usage));
        Ok(Registry { path, is_new, clock, main, state, usage, _presence: presence })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether opening it made it.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns the time by which usage is tried again, in whole seconds since 1970: nobody who sets the machine's clock moves it.
    pub(crate) fn now_s(&self) -> i64 {
        self.clock.now() / 1000
    }

    fn main(&self) -> MutexGuard<'_, Connection> {
        // A panic between two statements leaves a transaction that is rolled back: the connection stays good.
        self.main.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the registry in one transaction and raises its generation. Durable on return.
    fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let mut connection = self.main();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(&transaction)?;
        transaction.execute("UPDATE registry SET generation = generation + 1", ())?;
        foreign_log::count(&transaction)?;
        crate::crash_point::reached("before commit");
        transaction.commit()?;
        crate::crash_point::reached("after commit");
        Ok(changed)
    }

    /// The generation of the registry.
    pub(crate) fn generation(&self) -> Result<i64, RegistryError> {
        Ok(self.main().query_row("SELECT generation FROM registry", (), |row| row.get(0))?)
    }

    /// Everything as the dispatch needs it.
    pub(crate) fn dispatch_rows(&self) -> Result<DispatchRows, RegistryError> {
        let mut connection = self.main();
        let transaction = connection.transaction()?;
        let generation = transaction.query_row("SELECT generation FROM registry", (), |row| row.get(0))?;
        let mut statement = transaction.prepare_cached(
            "SELECT p.id, v.name, v.digest, v.library_digest, v.module, p.enabled, p.needs_settings, p.settings_changed,
                    p.quarantined, p.runtime, p.priority, json_extract(v.manifest, '$.events')
             FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position",
        )?;
        let rows = statement.query_map((), |row| {
            let (needs_settings, quarantined): (Option<String>, Option<String>) = (row.get(6)?, row.get(8)?);
            Ok(DispatchRow {
                id: row.get(0)?,
                name: row.get(1)?,
                digest: row.get(2)?,
                library_digest: row.get(3)?,
                module: row.get(4)?,
                status: status(row.get(5)?, needs_settings.is_some(), quarantined.is_some()),
                needs_settings,
                quarantined,
                runtime: row.get(9)?,
                settings_changed: row.get(7)?,
                priority: row.get(10)?,
                events: row.get(11)?,
            })
        })?;
        let plugins = rows.collect::<Result<_, _>>()?;
        let (handlers, events) = (handlers::all(&transaction)?, handlers::own_events(&transaction)?);
        Ok(DispatchRows { generation, plugins, handlers, events })
    }

    /// All plugins, ordered by id.
    pub(crate) fn list(&self) -> Result<Vec<PluginSummary>, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare_cached(&format!("{SUMMARY} ORDER BY p.id"))?;
        let rows = statement.query_map((), summary)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A plugin as it is listed.
    pub(crate) fn summary(&self, id: &str) -> Result<Option<PluginSummary>, RegistryError> {
        find_summary(&self.main(), id)
    }

    /// Everything about a plugin.
    pub(crate) fn details(&self, id: &str) -> Result<Option<PluginDetails>, RegistryError> {
        let mut connection = self.main();
        // One transaction, so that no other process's change comes in between.
        let transaction = connection.transaction()?;
        let Some(summary) = find_summary(&transaction, id)? else { return Ok(None) };
        let (needs_settings, quarantined, priority, runtime): (
            Option<String>,
            Option<String>,
            Option<u32>,
            Option<String>,
        ) = transaction.query_row(
            "SELECT needs_settings, quarantined, priority, runtime FROM plugin WHERE id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let (settings, manifest, module, usage_specs): (String, String, String, String) = transaction.query_row(
            "SELECT p.settings, v.manifest, v.module, v.usage_specs
                 FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position WHERE p.id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let mut statement = transaction
            .prepare("SELECT version, installed_at, digest FROM version WHERE plugin = ?1 ORDER BY position")?;
        let history = statement
            .query_map([id], |row| {
                Ok(InstalledVersion { version: row.get(0)?, installed_at: row.get(1)?, digest: row.get(2)? })
            })?
            .collect::<Result<_, _>>()?;
        let assets_in_use = uses::assets(&transaction, id)?;
        drop(statement);
        let unsent_usage = usage::count_unsent(&transaction, id)?;
        let state = uses::kept(&transaction, id)?;
        drop(transaction);
        drop(connection);
        let usage_api = self.specs(Some(id))?.into_iter().map(UsageSpecState::from).collect();
        Ok(Some(PluginDetails {
            usage_api,
            unsent_usage,
            assets_in_use,
            state,
            summary,
            needs_settings,
            quarantined,
            priority,
            runtime: runtime.map_or_else(|| Ok(RuntimeSettings::default()), |runtime| parse(id, &runtime))?,
            settings: parse(id, &settings)?,
            manifest: parse(id, &manifest)?,
            module: parse(id, &module)?,
            usage_specs: parse(id, &usage_specs)?,
            history,
        }))
    }

    /// The operator's settings of a plugin, a JSON document.
    pub(crate) fn settings(&self, id: &str) -> Result<Option<String>, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare_cached("SELECT settings FROM plugin WHERE id = ?1")?;
        Ok(statement.query_row([id], |row| row.get(0)).optional()?)
    }

    /// Installs a plugin or the next version of one. `settings` replaces those that are there.
    pub(crate) fn install(
        &self,
        new: &NewVersion,
        settings: Option<&str>,
        runtime: &RuntimeSettings,
        tried: &Tried,
        force: bool,
    ) -> Result<Result<PluginSummary, AddonClash>, RegistryError> {
        let runtime = to_json(&new.id, runtime)?;
        let module = to_json(&new.id, &new.module)?;
        let (usage_specs, needs_settings) = split(&new.id, tried)?;
        self.change(|transaction| {
            // Resources may have been asked for while it was tried.
            match addons::clash(transaction, &new.id, new.addon())? {
                Some(AddonClash::OthersResources { .. }) if force => {}
                Some(clash) => return Ok(Err(clash)),
                None => {}
            }
            if let Some(addon) = new.addon() {
                addons::take_over(transaction, &new.id, addon)?;
            }
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
                params![new.id, position, settings, needs_settings, runtime],
            )?;
            transaction.execute(
                "INSERT INTO version (plugin, position, version, name, author, digest, library_digest, manifest, module,
                                      usage_specs, installed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, unixepoch())",
                params![
                    new.id,
                    position,
                    new.version.as_str(),
                    new.name,
                    new.author,
                    new.digest,
                    new.library_digest,
                    new.manifest,
                    module,
                    usage_specs
                ],
            )?;
            changed(transaction, &new.id).map(Ok)
        })
    }

    /// Goes back to an older version of the history and forgets the newer ones.
    pub(crate) fn downgrade(
        &self,
        id: &str,
        version: &str,
        settings: Option<&str>,
        tried: &Tried,
    ) -> Result<Result<PluginSummary, AddonClash>, RegistryError> {
        let (usage_specs, needs_settings) = split(id, tried)?;
        self.change(|transaction| {
            let addon = addons::of_version(transaction, id, version)?;
            let addon = addon.as_ref().map(|(addon, author)| NextAddon { id: addon, author });
            match addons::clash(transaction, id, addon)? {
                // It goes back to what its own operator had.
                Some(AddonClash::OthersResources { plugin, .. }) if plugin == id => {}
                Some(clash) => return Ok(Err(clash)),
                None => {}
            }
            if let Some(addon) = addon {
                addons::take_over(transaction, id, addon)?;
            }
            let position: i64 = transaction.query_row(
                "SELECT position FROM version WHERE plugin = ?1 AND version = ?2",
                [id, version],
                |row| row.get(0),
            )?;
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
            changed(transaction, id).map(Ok)
        })
    }

    /// Gives a plugin other settings, which it was tried with.
    pub(crate) fn set_settings(&self, id: &str, settings: &str, tried: &Tried) -> Result<PluginSummary, RegistryError> {
        let (usage_specs, needs_settings) = split(id, tried)?;
        self.change(|transaction| {
            transaction.execute(
                "UPDATE version SET usage_specs = ?2 WHERE plugin = ?1
                 AND position = (SELECT position FROM plugin WHERE id = ?1)",
                params![id, usage_specs],
            )?;
            transaction.execute("UPDATE plugin SET needs_settings = ?2 WHERE id = ?1", params![id, needs_settings])?;
            replace_settings(transaction, id, Some(settings))?;
            changed(transaction, id)
        })
    }

    /// Switches a plugin on or off.
    pub(crate) fn set_enabled(&self, id: &str, enabled: bool) -> Result<PluginSummary, RegistryError> {
        self.change(|transaction| {
            transaction.execute("UPDATE plugin SET enabled = ?2 WHERE id = ?1", params![id, enabled])?;
            if enabled {
                leave_quarantine(transaction, id)?;
            }
            changed(transaction, id)
        })
    }

    /// Changes how a plugin is run. It leaves quarantine: it may do better so.
    pub(crate) fn set_runtime(&self, id: &str, runtime: &RuntimeSettings) -> Result<PluginSummary, RegistryError> {
        let runtime = to_json(id, runtime)?;
        self.change(|transaction| {
            leave_quarantine(transaction, id)?;
            transaction.execute("UPDATE plugin SET runtime = ?2 WHERE id = ?1", [id, &runtime])?;
            changed(transaction, id)
        })
    }

    /// How a plugin is run; the default if there is no such plugin.
    pub(crate) fn runtime(&self, id: &str) -> Result<RuntimeSettings, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare_cached("SELECT runtime FROM plugin WHERE id = ?1")?;
        let runtime: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?.flatten();
        runtime.map_or_else(|| Ok(RuntimeSettings::default()), |runtime| parse(id, &runtime))
    }

    /// Keeps a plugin from taking calls until it is enabled again.
    ///
    /// Only if it is still the one that crashed: another version, or the same with other settings, may do better.
    pub(crate) fn quarantine(&self, row: &DispatchRow, reason: &str) -> Result<(), RegistryError> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE plugin SET quarantined = ?2 WHERE id = ?1 AND settings_changed = ?3 AND runtime IS ?4
                 AND EXISTS (SELECT 1 FROM version v WHERE v.plugin = ?1 AND v.position = plugin.position AND v.digest = ?5)",
                params![row.id, reason, row.settings_changed, row.runtime, row.digest],
            )?;
            Ok(())
        })
    }

    /// Records an asset as in use with a plugin, and with no other.
    pub(crate) fn use_asset(&self, plugin: &str, asset: &str) -> Result<(), RegistryError> {
        counted(&mut self.main(), |transaction| {
            let insert = "INSERT INTO asset_in_use (asset, plugin) VALUES (?1, ?2)
                          ON CONFLICT (asset) DO UPDATE SET plugin = excluded.plugin";
            transaction.prepare_cached(insert)?.execute([asset, plugin]).map(drop)
        })
        .map_err(RegistryError::from)
    }

    /// Records an asset as no longer in use. Answers whether it was.
    pub(crate) fn release_asset(&self, asset: &str) -> Result<bool, RegistryError> {
        let delete = "DELETE FROM asset_in_use WHERE asset = ?1";
        let deleted = counted(&mut self.main(), |transaction| transaction.prepare_cached(delete)?.execute([asset]));
        Ok(deleted? > 0)
    }

    /// Forgets a plugin, its history, settings and state; its usage stays.
    ///
    /// Unless it is forced, only a plugin that nothing needs and that keeps nothing; otherwise returns all that stands against it.
    pub(crate) fn remove(&self, id: &str, force: bool) -> Result<Result<(), PluginUses>, RegistryError> {
        self.change(|transaction| {
            if !force {
                let uses = PluginUses::of(transaction, id)?;
                if !uses.is_empty() {
                    return Ok(Err(uses));
                }
            }
            transaction.execute("DELETE FROM plugin WHERE id = ?1", [id])?;
            Ok(Ok(()))
        })
    }

    /// Raises the generation: files of a package were put back, and what failed for want of them is tried again.
    pub(crate) fn repaired(&self) -> Result<(), RegistryError> {
        self.change(|_| Ok(()))
    }

    /// Returns the settings that a version had when a later one took its place.
    pub(crate) fn settings_of_version(&self, id: &str, version: &str) -> Result<Option<String>, RegistryError> {
        let connection = self.main();
        let mut statement =
            connection.prepare_cached("SELECT settings FROM version WHERE plugin = ?1 AND version = ?2")?;
        Ok(statement.query_row([id, version], |row| row.get(0)).optional()?.flatten())
    }

    /// The folders of all versions of all plugins.
    pub(crate) fn digests(&self) -> Result<Vec<String>, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare("SELECT DISTINCT digest FROM version")?;
        let rows = statement.query_map((), |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The library of a version: its folder, the digest that it has to have, and what it says about itself.
    pub(crate) fn library(&self, id: &str, version: &str) -> Result<(String, String, ModuleInfo), RegistryError> {
        let (digest, library_digest, module): (String, String, String) = self.main().query_row(
            "SELECT digest, library_digest, module FROM version WHERE plugin = ?1 AND version = ?2",
            [id, version],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        Ok((digest, library_digest, parse(id, &module)?))
    }
}

const SUMMARY: &str = "SELECT p.id, v.name, v.author, v.version, p.enabled, p.needs_settings IS NOT NULL,
    p.quarantined IS NOT NULL FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position";

fn find_summary(connection: &Connection, id: &str) -> Result<Option<PluginSummary>, RegistryError> {
    let mut statement = connection.prepare_cached(&format!("{SUMMARY} WHERE p.id = ?1"))?;
    Ok(statement.query_row([id], summary).optional()?)
}

/// The plugin as a change leaves it.
fn changed(transaction: &Transaction<'_>, id: &str) -> Result<PluginSummary, RegistryError> {
    find_summary(transaction, id)?.ok_or_else(|| RegistryError::Sql(rusqlite::Error::QueryReturnedNoRows))
}

fn summary(row: &Row<'_>) -> rusqlite::Result<PluginSummary> {
    Ok(PluginSummary {
        id: row.get(0)?,
        name: row.get(1)?,
        author: row.get(2)?,
        version: row.get(3)?,
        status: status(row.get(4)?, row.get(5)?, row.get(6)?),
    })
}

fn status(enabled: bool, needs_settings: bool, quarantined: bool) -> Status {
    match (enabled, needs_settings, quarantined) {
        (false, ..) => Status::Disabled,
        (true, true, _) => Status::NeedsSettings,
        (true, false, true) => Status::Quarantined,
        (true, false, false) => Status::Enabled,
    }
}

/// Ends the quarantine of a plugin. As if it had got new settings, also if nothing is noted here: a host that didn't notice the
/// quarantine before it ended, or couldn't note it, has to begin anew too.
fn leave_quarantine(transaction: &Transaction<'_>, id: &str) -> Result<(), RegistryError> {
    transaction.execute(
        "UPDATE plugin SET quarantined = NULL, settings_changed = (SELECT generation + 1 FROM registry)
         WHERE id = ?1 AND enabled",
        [id],
    )?;
    Ok(())
}

fn replace_settings(transaction: &Transaction<'_>, id: &str, settings: Option<&str>) -> Result<(), RegistryError> {
    if let Some(settings) = settings {
        transaction.execute(
            "UPDATE plugin SET settings = ?2, settings_changed = (SELECT generation + 1 FROM registry) WHERE id = ?1",
            [id, settings],
        )?;
    }
    Ok(())
}

/// The two columns that a trial fills.
fn split<'a>(id: &str, tried: &'a Tried) -> Result<(String, Option<&'a str>), RegistryError> {
    match tried {
        Tried::Works { usage_specs } => Ok((to_json(id, usage_specs)?, None)),
        Tried::NeedsSettings { message } => Ok(("[]".to_owned(), Some(message))),
    }
}

fn to_json<T: Serialize>(plugin: &str, value: &T) -> Result<String, RegistryError> {
    serde_json::to_string(value)
        .map_err(|error| RegistryError::Content { plugin: plugin.to_owned(), problem: error.to_string() })
}

fn parse<T: serde::de::DeserializeOwned>(plugin: &str, text: &str) -> Result<T, RegistryError> {
    serde_json::from_str(text)
        .map_err(|error| RegistryError::Content { plugin: plugin.to_owned(), problem: error.to_string() })
}
