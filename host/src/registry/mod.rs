//! What is installed: plugins, their versions, settings and state. All SQL lives here.
//!
//! One SQLite file in a home that several processes share. Every change is one transaction and raises the generation,
//! by which a running host notices the changes of others.

mod schema;
mod state;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;

use crate::package::{ModuleInfo, Version};
use billhook_plugin_api::UsageSpec;
pub(crate) use state::read_only_state;

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
    /// A statement failed.
    #[error("the registry failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// What it holds can't be read.
    #[error("the registry holds something unreadable for {plugin}: {problem}")]
    Content {
        /// The plugin's id.
        plugin: String,
        /// What is wrong.
        problem: String,
    },
}

/// Whether a plugin takes calls.
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
}

impl Status {
    /// The name in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
            Status::NeedsSettings => "needs settings",
        }
    }
}

/// An installed plugin, as it is listed.
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
#[derive(Debug, Clone, Serialize)]
pub struct PluginDetails {
    /// As it is listed.
    #[serde(flatten)]
    pub summary: PluginSummary,
    /// Why it needs other settings, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_settings: Option<String>,
    /// The operator's settings.
    pub settings: serde_json::Value,
    /// The `package.json` of the version in use.
    pub manifest: serde_json::Value,
    /// What its library says about itself.
    pub module: ModuleInfo,
    /// The units that it can account for; unknown as long as it needs settings.
    pub usage_specs: Vec<UsageSpec>,
    /// How many assets of the backend's use it: as long as there are any, it isn't removed.
    pub assets_in_use: u64,
    /// All installed versions, oldest first; the last one is in use.
    pub history: Vec<InstalledVersion>,
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
    /// The generation in which the settings were last changed.
    pub(crate) settings_changed: i64,
}

/// The outcome of a trial, as it is kept.
#[derive(Debug, Clone)]
pub(crate) enum Tried {
    Works { usage_specs: Vec<UsageSpec> },
    NeedsSettings { message: String },
}

/// The registry of a home.
pub(crate) struct Registry {
    path: PathBuf,
    is_new: bool,
    main: Mutex<Connection>,
    /// The state has a connection of its own, so that plugins that keep things don't hold up anything else.
    state: Mutex<Connection>,
}

impl Registry {
    /// Opens the registry of a home, and makes it if there is none.
    pub(crate) fn open(home: &Path) -> Result<Self, RegistryError> {
        let path = home.join("registry.db");
        let (main, is_new) = schema::open(&path)?;
        let state = schema::connect(&path).map_err(|source| RegistryError::Open { path: path.clone(), source })?;
        Ok(Registry { path, is_new, main: Mutex::new(main), state: Mutex::new(state) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether opening it made it.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
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
        crate::crash_point::reached("before commit");
        transaction.commit()?;
        crate::crash_point::reached("after commit");
        Ok(changed)
    }

    /// The generation of the registry.
    pub(crate) fn generation(&self) -> Result<i64, RegistryError> {
        Ok(self.main().query_row("SELECT generation FROM registry", (), |row| row.get(0))?)
    }

    /// All plugins as the dispatch needs them, and the generation that this is of.
    pub(crate) fn dispatch_rows(&self) -> Result<(i64, Vec<DispatchRow>), RegistryError> {
        let mut connection = self.main();
        let transaction = connection.transaction()?;
        let generation = transaction.query_row("SELECT generation FROM registry", (), |row| row.get(0))?;
        let mut statement = transaction.prepare_cached(
            "SELECT p.id, v.name, v.digest, v.library_digest, v.module, p.enabled, p.needs_settings, p.settings_changed
             FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position",
        )?;
        let rows = statement.query_map((), |row| {
            let needs_settings: Option<String> = row.get(6)?;
            Ok(DispatchRow {
                id: row.get(0)?,
                name: row.get(1)?,
                digest: row.get(2)?,
                library_digest: row.get(3)?,
                module: row.get(4)?,
                status: status(row.get(5)?, needs_settings.is_some()),
                needs_settings,
                settings_changed: row.get(7)?,
            })
        })?;
        Ok((generation, rows.collect::<Result<_, _>>()?))
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
        let (needs_settings, settings, manifest, module, usage_specs): (
            Option<String>,
            String,
            String,
            String,
            String,
        ) = transaction.query_row(
            "SELECT p.needs_settings, p.settings, v.manifest, v.module, v.usage_specs
                 FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position WHERE p.id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )?;
        let mut statement = transaction
            .prepare("SELECT version, installed_at, digest FROM version WHERE plugin = ?1 ORDER BY position")?;
        let history = statement
            .query_map([id], |row| {
                Ok(InstalledVersion { version: row.get(0)?, installed_at: row.get(1)?, digest: row.get(2)? })
            })?
            .collect::<Result<_, _>>()?;
        let assets_in_use = "SELECT count(*) FROM asset_in_use WHERE plugin = ?1";
        let assets_in_use = transaction.query_row(assets_in_use, [id], |row| row.get::<_, i64>(0))?.unsigned_abs();
        Ok(Some(PluginDetails {
            assets_in_use,
            summary,
            needs_settings,
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
        tried: &Tried,
    ) -> Result<PluginSummary, RegistryError> {
        let module = to_json(&new.id, &new.module)?;
        let (usage_specs, needs_settings) = split(&new.id, tried)?;
        self.change(|transaction| {
            let position: i64 = transaction.query_row(
                "SELECT coalesce(max(position), 0) + 1 FROM version WHERE plugin = ?1",
                [&new.id],
                |row| row.get(0),
            )?;
            transaction.execute(
                "INSERT INTO plugin (id, position, enabled, settings, settings_changed, needs_settings)
                 VALUES (?1, ?2, 1, coalesce(?3, '{}'), (SELECT generation + 1 FROM registry), ?4)
                 ON CONFLICT (id) DO UPDATE SET position = ?2, settings = coalesce(?3, settings),
                     settings_changed = CASE WHEN ?3 IS NULL THEN settings_changed ELSE excluded.settings_changed END,
                     needs_settings = ?4",
                params![new.id, position, settings, needs_settings],
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
            changed(transaction, &new.id)
        })
    }

    /// Goes back to an older version of the history and forgets the newer ones.
    pub(crate) fn downgrade(
        &self,
        id: &str,
        version: &str,
        settings: Option<&str>,
        tried: &Tried,
    ) -> Result<PluginSummary, RegistryError> {
        let (usage_specs, needs_settings) = split(id, tried)?;
        self.change(|transaction| {
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
                "UPDATE plugin SET position = ?2, needs_settings = ?3 WHERE id = ?1",
                params![id, position, needs_settings],
            )?;
            replace_settings(transaction, id, settings)?;
            changed(transaction, id)
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
            changed(transaction, id)
        })
    }

    /// Records an asset as in use with a plugin, and with no other.
    pub(crate) fn use_asset(&self, plugin: &str, asset: &str) -> Result<(), RegistryError> {
        let connection = self.main();
        connection
            .prepare_cached(
                "INSERT INTO asset_in_use (asset, plugin) VALUES (?1, ?2)
                 ON CONFLICT (asset) DO UPDATE SET plugin = excluded.plugin",
            )?
            .execute([asset, plugin])?;
        Ok(())
    }

    /// Records an asset as no longer in use. Answers whether it was.
    pub(crate) fn release_asset(&self, asset: &str) -> Result<bool, RegistryError> {
        let connection = self.main();
        Ok(connection.prepare_cached("DELETE FROM asset_in_use WHERE asset = ?1")?.execute([asset])? > 0)
    }

    /// Forgets a plugin, its history, settings and state.
    ///
    /// Unless it is forced, only a plugin that no asset uses; answers how many do.
    pub(crate) fn remove(&self, id: &str, force: bool) -> Result<u64, RegistryError> {
        self.change(|transaction| {
            let count = "SELECT count(*) FROM asset_in_use WHERE plugin = ?1";
            let used = transaction.query_row(count, [id], |row| row.get::<_, i64>(0))?.unsigned_abs();
            if used == 0 || force {
                transaction.execute("DELETE FROM plugin WHERE id = ?1", [id])?;
            }
            Ok(used)
        })
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

const SUMMARY: &str = "SELECT p.id, v.name, v.author, v.version, p.enabled, p.needs_settings IS NOT NULL
    FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position";

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
        status: status(row.get(4)?, row.get(5)?),
    })
}

fn status(enabled: bool, needs_settings: bool) -> Status {
    match (enabled, needs_settings) {
        (false, _) => Status::Disabled,
        (true, true) => Status::NeedsSettings,
        (true, false) => Status::Enabled,
    }
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

/// How long a statement waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(20);
