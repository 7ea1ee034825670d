//! The tables, format by format.

use billhook_store::Kept;

use crate::{clock, file::FileSpec, foreign_log};

/// The file of plugins, handlers, usage, resources and tokens.
pub(crate) const REGISTRY: FileSpec = FileSpec {
    kept: Kept::Registry,
    name: "the registry",
    formats: &[
        FORMAT_1_0,
        FORMAT_1_1,
        FORMAT_1_2,
        FORMAT_1_3,
        FORMAT_1_4,
        FORMAT_1_5,
        clock::TABLE,
        foreign_log::TABLE,
        FORMAT_1_8,
    ],
    // An older billhook that runs on it might not know what is added.
    grows_alone: true,
};

const FORMAT_1_0: &str = "
CREATE TABLE registry (
    -- One row. Raised by every change to plugins and versions: by what a running host has to notice.
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO registry VALUES (1);

CREATE TABLE plugin (
    id TEXT PRIMARY KEY,
    -- The version in use; always the last one of the history.
    position INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    settings TEXT NOT NULL,
    settings_changed INTEGER NOT NULL,
    -- Why the plugin refused its settings, if it did.
    needs_settings TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE version (
    plugin TEXT NOT NULL REFERENCES plugin (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    version TEXT NOT NULL,
    name TEXT NOT NULL,
    author TEXT NOT NULL,
    digest TEXT NOT NULL,
    library_digest TEXT NOT NULL,
    manifest TEXT NOT NULL,
    module TEXT NOT NULL,
    usage_specs TEXT NOT NULL,
    installed_at INTEGER NOT NULL,
    PRIMARY KEY (plugin, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE asset_in_use (
    -- The backend's id of an asset that is attached to a product: its plugin can't be removed.
    asset TEXT PRIMARY KEY,
    plugin TEXT NOT NULL REFERENCES plugin (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE state (
    plugin TEXT NOT NULL REFERENCES plugin (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (plugin, key)
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_1: &str = "
CREATE TABLE usage_spec (
    -- A usage specification that the usage API has, or that it may have, or that a record needs.
    plugin TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- The usage API's id and address of it, once it is known to be there.
    id TEXT,
    href TEXT,
    -- The ids that the name had before the usage API was asked to make it; tells ours from others if the answer is lost.
    before TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER NOT NULL DEFAULT 0,
    failure TEXT,
    PRIMARY KEY (plugin, name, description)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_contract (
    order_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    customer TEXT NOT NULL,
    -- The next correlation number.
    next INTEGER NOT NULL,
    -- No record below has anything left to do; nothing is left at all where it is null.
    unsent_from INTEGER,
    tries INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER NOT NULL DEFAULT 0,
    -- Until then the usage API may still be at work on what it gave no answer to.
    settles_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, product_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_contract_unsent ON usage_contract (retry_at) WHERE unsent_from IS NOT NULL;

CREATE TABLE usage_reported (
    -- The last usage that was reported: a contract has several assets, and each its own last usage.
    plugin TEXT NOT NULL,
    asset TEXT NOT NULL,
    order_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    last_usage TEXT NOT NULL,
    PRIMARY KEY (plugin, asset, order_id, item_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_record (
    order_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    -- The correlation number; with order and product the identity of the document in the usage API.
    number INTEGER NOT NULL,
    plugin TEXT NOT NULL,
    item_id TEXT NOT NULL,
    identity TEXT NOT NULL,
    asset TEXT NOT NULL,
    unit TEXT NOT NULL,
    date TEXT NOT NULL,
    value TEXT NOT NULL,
    -- 0 recorded, 1 may have been sent, 2 the document is guided.
    stage INTEGER NOT NULL,
    PRIMARY KEY (order_id, product_id, number),
    UNIQUE (plugin, order_id, item_id, identity)
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_2: &str = "
-- How the plugin is run: a JSON document; null is the default.
ALTER TABLE plugin ADD COLUMN runtime TEXT;
-- Why the plugin takes no calls until it is enabled again, if it crashed too often.
ALTER TABLE plugin ADD COLUMN quarantined TEXT;
";

const FORMAT_1_3: &str = "
-- The plugin's place among the listeners of an event; null is the default.
ALTER TABLE plugin ADD COLUMN priority INTEGER;

CREATE TABLE event (
    -- An event that the operator added.
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE handler (
    name TEXT PRIMARY KEY,
    -- Everything else about it but the secret: a JSON document.
    definition TEXT NOT NULL,
    secret TEXT
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_4: &str = "
CREATE TABLE resource (
    -- A resource of an add-on. It outlives the plugin: one that is installed again finds its resources.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    addon TEXT NOT NULL,
    -- Who made it: another plugin, or another author's, gets it only if the operator says so.
    plugin TEXT NOT NULL,
    author TEXT NOT NULL,
    -- The add-on's id of it as text, and as JSON; null as long as the add-on was asked for it and nobody knows what it answered.
    id TEXT,
    id_json TEXT,
    uuid TEXT,
    platform_id TEXT,
    platform_id_json TEXT,
    plan TEXT,
    region TEXT,
    -- A JSON object.
    config TEXT NOT NULL,
    message TEXT,
    -- In milliseconds since 1970.
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    UNIQUE (addon, id),
    UNIQUE (addon, uuid)
) STRICT;
CREATE INDEX resource_id ON resource (id);
CREATE INDEX resource_addon ON resource (addon, number);

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    -- SHA-256 of its secret.
    hash BLOB NOT NULL,
    -- In seconds since 1970.
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_5: &str = "
-- Until when the usage API may still be at work on making it, in seconds of the registry's clock.
ALTER TABLE usage_spec ADD COLUMN settles_at INTEGER NOT NULL DEFAULT 0;
-- The settings that a version had when a later one took its place.
ALTER TABLE version ADD COLUMN settings TEXT;
";

const FORMAT_1_8: &str = "
CREATE TABLE route (
    -- A version that calls go to. Of a plugin that has none here, all go to the version in use.
    plugin TEXT NOT NULL,
    position INTEGER NOT NULL,
    weight INTEGER NOT NULL,
    PRIMARY KEY (plugin, position),
    FOREIGN KEY (plugin, position) REFERENCES version (plugin, position) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::file::Durability;

    #[test]
    fn a_registry_of_an_older_format_is_brought_to_this_one_and_loses_nothing() {
        let schema = |connection: &Connection| -> Vec<(String, String)> {
            let mut all =
                connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").expect("read");
            let rows = all.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
            rows.map(|row| row.expect("read")).collect()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let newest = REGISTRY.open(&folder.path().join("newest.db"), Durability::Full).expect("made").connection;
        for formats in 1..REGISTRY.formats.len() {
            let path = folder.path().join(format!("{formats}.db"));
            let older = FileSpec { formats: &REGISTRY.formats[..formats], ..REGISTRY };
            let made = older.open(&path, Durability::Full).expect("made").connection;
            let plugin =
                "INSERT INTO plugin (id, position, enabled, settings, settings_changed) VALUES ('x', 1, 1, '{}', 1)";
            made.execute(plugin, ()).expect("written");
            drop(made);
            let grown = REGISTRY.open(&path, Durability::Full).expect("grown");
            let plugins: i64 =
                grown.connection.query_row("SELECT count(*) FROM plugin", (), |row| row.get(0)).expect("counted");
            assert_eq!((plugins, grown.is_new), (1, false), "{formats}");
            assert_eq!(schema(&grown.connection), schema(&newest), "{formats}");
        }
    }
}
