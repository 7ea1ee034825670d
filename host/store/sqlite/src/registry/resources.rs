//! Add-ons, and the resources that they provisioned.

use billhook_model::{Moment, Resource, ResourceFilter};
use billhook_plugin_api::data::{AddonConfig, AddonRequest, ObjectId, Provisioned};
use billhook_store::{AddonClash, InstalledAddon, NewResource, NextAddon, Resources, Result};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Registry, count, parse, to_json};
use crate::{
    failure::{Failure, Step},
    filter::Filter,
};

const SELECT: &str =
    "SELECT number, addon, id_json, uuid, platform_id_json, plan, region, config, message, created, changed
    FROM resource";

fn resource(row: &Row<'_>) -> rusqlite::Result<(Resource, String)> {
    let id = |json: Option<String>| json.as_deref().and_then(ObjectId::from_json);
    let addon: String = row.get(1)?;
    let mut resource = Resource::new(row.get(0)?, addon, Moment::from_millis(row.get(9)?));
    resource.id = id(row.get(2)?);
    resource.uuid = row.get(3)?;
    resource.platform_id = id(row.get(4)?);
    resource.plan = row.get(5)?;
    resource.region = row.get(6)?;
    resource.message = row.get(8)?;
    resource.changed = Moment::from_millis(row.get(10)?);
    Ok((resource, row.get(7)?))
}

/// A resource with its configuration.
fn whole((resource, config): (Resource, String)) -> Step<Resource> {
    let config: AddonConfig = parse(&resource.addon, &config)?;
    Ok(resource.with_config(config))
}

fn find(connection: &Connection, condition: &str, values: impl rusqlite::Params) -> Step<Option<Resource>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE {condition}"))?;
    statement.query_row(values, resource).optional()?.map(whole).transpose()
}

/// The add-ons of installed plugins, by id.
fn addons(connection: &Connection) -> Step<Vec<InstalledAddon>> {
    let mut statement = connection.prepare_cached(
        "SELECT json_extract(v.manifest, '$.addon.id') AS addon, p.id, v.author,
                json_extract(v.manifest, '$.addon.config_vars')
         FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position
         WHERE json_extract(v.manifest, '$.addon.id') IS NOT NULL ORDER BY addon",
    )?;
    let rows =
        statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Option<String>>(3)?)))?;
    rows.map(|row| {
        let (id, plugin, author, config_vars): (String, String, String, Option<String>) = row?;
        let config_vars = config_vars.map_or_else(|| Ok(Vec::new()), |list| parse(&plugin, &list))?;
        Ok(InstalledAddon { id, plugin, author, config_vars })
    })
    .collect()
}

/// How many resources an add-on has, those of which nobody knows whether they were made among them.
fn count_resources(connection: &Connection, addon: &str) -> Step<u64> {
    Ok(connection.query_row("SELECT count(*) FROM resource WHERE addon = ?1", [addon], count)?)
}

/// What stands against a plugin's having an add-on from now on, or none: its id is no other plugin's, and no resource is left
/// behind or gets into other hands.
pub(super) fn clash(connection: &Connection, plugin: &str, next: Option<NextAddon<'_>>) -> Step<Option<AddonClash>> {
    let present = addons(connection)?;
    let id = next.map(|next| next.id);
    if let Some(other) = present.iter().find(|other| Some(other.id.as_str()) == id && other.plugin != plugin) {
        return Ok(Some(AddonClash::Taken { addon: other.id.clone(), plugin: other.plugin.clone() }));
    }
    let left = present.into_iter().find(|addon| addon.plugin == plugin && Some(addon.id.as_str()) != id);
    if let Some(left) = left {
        let resources = count_resources(connection, &left.id)?;
        if resources > 0 {
            return Ok(Some(AddonClash::LeavesResources { addon: left.id, resources }));
        }
    }
    let Some(NextAddon { id, author }) = next else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT plugin, author FROM resource WHERE addon = ?1 AND (plugin != ?2 OR author != ?3) LIMIT 1",
    )?;
    let others = statement.query_row([id, plugin, author], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(others.map(|(plugin, author)| AddonClash::OthersResources { addon: id.to_owned(), plugin, author }))
}

/// Hands an add-on's resources over to the plugin that provides it now.
pub(super) fn take_over(connection: &Connection, plugin: &str, next: NextAddon<'_>) -> Step<()> {
    let NextAddon { id, author } = next;
    connection.execute("UPDATE resource SET plugin = ?2, author = ?3 WHERE addon = ?1", [id, plugin, author])?;
    Ok(())
}

/// The id of the add-on of a version of a plugin, and its author.
pub(super) fn of_version(connection: &Connection, plugin: &str, version: &str) -> Step<Option<(String, String)>> {
    let mut statement = connection.prepare_cached(
        "SELECT json_extract(manifest, '$.addon.id'), author FROM version WHERE plugin = ?1 AND version = ?2",
    )?;
    let found = statement.query_row([plugin, version], |row| Ok((row.get::<_, Option<String>>(0)?, row.get(1)?)));
    Ok(found.optional()?.and_then(|(id, author)| Some((id?, author))))
}

impl Registry {
    fn change_resources<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Step<T>) -> Result<T> {
        self.change_quietly(&self.main, ["resource before commit", "resource after commit"], change)
    }
}

impl Resources for Registry {
    fn addons(&self) -> Result<Vec<InstalledAddon>> {
        self.read(|transaction| addons(transaction))
    }

    fn addon_clash(&self, plugin: &str, next: Option<NextAddon<'_>>) -> Result<Option<AddonClash>> {
        self.read(|transaction| clash(transaction, plugin, next))
    }

    fn resources(&self, asked: &ResourceFilter) -> Result<Vec<Resource>> {
        self.read(|transaction| {
            let ResourceFilter { addon, id, before, limit: most } = asked;
            let mut filter = Filter::default();
            filter.when(addon, "addon =");
            filter.when(id, "id =");
            filter.when(before, "number <");
            let most = filter.limit(*most);
            let text = format!("{SELECT}{} ORDER BY number DESC LIMIT {most}", filter.text());
            let mut statement = transaction.prepare_cached(&text)?;
            let rows = statement.query_map(filter.values(), resource)?;
            rows.map(|row| whole(row?)).collect()
        })
    }

    fn resource(&self, addon: &str, id: &str) -> Result<Option<Resource>> {
        self.read(|transaction| find(transaction, "addon = ?1 AND id = ?2", [addon, id]))
    }

    fn owners(&self, id: &str) -> Result<Vec<String>> {
        self.read(|transaction| {
            let mut statement =
                transaction.prepare_cached("SELECT addon FROM resource WHERE id = ?1 ORDER BY addon")?;
            let rows = statement.query_map([id], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn note_resource(&self, addon: &str, request: &AddonRequest) -> Result<NewResource> {
        let AddonRequest { uuid, platform_id, plan, region, .. } = request;
        let now = self.clock.now().millis();
        self.change_resources(|transaction| {
            // Whoever asked looked before; the plugin may have been removed since.
            let Some(InstalledAddon { plugin, author, .. }) =
                addons(transaction)?.into_iter().find(|row| row.id == addon)
            else {
                return Ok(NewResource::NoAddon);
            };
            let platform = platform_id.as_ref().map(ObjectId::as_str);
            let known = match (uuid, platform) {
                (Some(uuid), _) => find(transaction, "addon = ?1 AND uuid = ?2", [addon, uuid])?,
                // Without a key only what was asked for in vain is taken for the same request.
                (None, Some(platform)) => {
                    let condition = "addon = ?1 AND platform_id = ?2 AND uuid IS NULL AND id IS NULL LIMIT 1";
                    find(transaction, condition, [addon, platform])?
                }
                (None, None) => None,
            };
            if let Some(known) = known {
                if known.id.is_some() {
                    return Ok(NewResource::Known(Box::new(known)));
                }
                // What is made now is what is asked for now.
                transaction.execute(
                    "UPDATE resource SET plan = ?2, region = ?3 WHERE number = ?1",
                    params![known.number, plan, region],
                )?;
                return Ok(NewResource::AskedBefore(known.number));
            }
            let platform_json = platform_id.as_ref().map(|id| to_json(addon, id)).transpose()?;
            transaction.execute(
                "INSERT INTO resource (addon, plugin, author, uuid, platform_id, platform_id_json, plan, region, config,
                                       created, changed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '{}', ?9, ?9)",
                params![addon, plugin, author, uuid, platform, platform_json, plan, region, now],
            )?;
            Ok(NewResource::Noted(transaction.last_insert_rowid()))
        })
    }

    fn made_resource(&self, number: i64, made: &Provisioned) -> Result<Option<Resource>> {
        let now = self.clock.now().millis();
        self.change_resources(|transaction| {
            let Some(noted) = find(transaction, "number = ?1", [number])? else {
                return Err(Failure::from(rusqlite::Error::QueryReturnedNoRows));
            };
            let addon = &noted.addon;
            let same = find(transaction, "addon = ?1 AND id = ?2", [addon.as_str(), made.id.as_str()])?;
            let mut into = number;
            // Its own, where this is noted again.
            if let Some(same) = same.filter(|same| same.number != number) {
                if same.platform_id.is_none() || same.platform_id != noted.platform_id {
                    return Ok(None);
                }
                into = same.number;
                transaction.execute("DELETE FROM resource WHERE number = ?1", [number])?;
            }
            let (id_json, config) = (to_json(addon, &made.id)?, to_json(addon, &made.config)?);
            transaction.execute(
                "UPDATE resource SET id = ?2, id_json = ?3, config = ?4, message = ?5, uuid = coalesce(?6, uuid), plan = ?7,
                     region = ?8, changed = ?9 WHERE number = ?1",
                params![
                    into,
                    made.id.as_str(),
                    id_json,
                    config,
                    made.message,
                    noted.uuid,
                    noted.plan,
                    noted.region,
                    now
                ],
            )?;
            find(transaction, "number = ?1", [into])
        })
    }

    fn change_resource(&self, number: i64, plan: Option<&str>, config: Option<&AddonConfig>) -> Result<()> {
        let now = self.clock.now().millis();
        self.change_resources(|transaction| {
            let config = config.map(|config| to_json("an add-on", config)).transpose()?;
            transaction.execute(
                "UPDATE resource SET plan = coalesce(?2, plan), config = coalesce(?3, config), changed = ?4
                 WHERE number = ?1",
                params![number, plan, config, now],
            )?;
            Ok(())
        })
    }

    fn forget_resource(&self, number: i64) -> Result<()> {
        self.change_resources(|transaction| {
            transaction.execute("DELETE FROM resource WHERE number = ?1", [number])?;
            Ok(())
        })
    }
}
