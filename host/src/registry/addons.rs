//! Add-ons, and the resources that they provisioned.

use billhook_plugin_api::data::{AddonConfig, AddonRequest, ObjectId, Provisioned};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::{Registry, RegistryError, parse, to_json};
use crate::database::now_ms;

/// An add-on of an installed plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddonRow {
    pub(crate) id: String,
    pub(crate) plugin: String,
    /// Of the plugin.
    pub(crate) author: String,
    pub(crate) config_vars: Vec<String>,
}

/// A resource that an add-on provisioned.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Resource {
    /// Its number in the registry.
    pub number: i64,
    /// The add-on.
    pub addon: String,
    /// The add-on's own id of it. None as long as the add-on was asked for it and nobody knows what became of that: the
    /// platform asks again.
    pub id: Option<ObjectId>,
    /// The platform's key for the request that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The platform's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_id: Option<ObjectId>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Where the customer's application runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its configuration: secrets, mostly, and so never shown.
    #[serde(skip)]
    pub config: AddonConfig,
    /// The names of the variables in its configuration.
    pub config_vars: Vec<String>,
    /// The sentence for the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was asked for, in milliseconds since 1970.
    pub created: i64,
    /// When it was last changed, in milliseconds since 1970.
    pub changed: i64,
}

/// What stands against a plugin's having an add-on from now on, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AddonClash {
    /// Another plugin provides it.
    Taken { addon: String, plugin: String },
    /// The one that it has now has resources, which nobody would answer for any more.
    LeavesResources { addon: String, resources: u64 },
    /// It has resources that another plugin made, or the same one as another author had it.
    OthersResources { addon: String, plugin: String, author: String },
}

/// An add-on as a version of a plugin has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextAddon<'a> {
    pub(crate) id: &'a str,
    pub(crate) author: &'a str,
}

/// Which resources are asked for; what is `None` doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct ResourceFilter {
    /// The add-on.
    pub addon: Option<String>,
    /// The add-on's own id of it, as text.
    pub id: Option<String>,
    /// Those with lower numbers than this.
    pub before: Option<i64>,
    /// At most so many; all if it is 0.
    pub limit: usize,
}

/// What became of asking for a new resource, before the add-on is.
pub(crate) enum NewResource {
    /// No plugin provides the add-on any more.
    NoAddon,
    /// It is there already.
    Known(Box<Resource>),
    /// It was asked for before, and nobody knows what became of that.
    AskedBefore(i64),
    /// It is noted as asked for.
    Noted(i64),
}

const SELECT: &str =
    "SELECT number, addon, id_json, uuid, platform_id_json, plan, region, config, message, created, changed
    FROM resource";

fn resource(row: &Row<'_>) -> rusqlite::Result<(Resource, String)> {
    let id = |json: Option<String>| json.as_deref().and_then(ObjectId::from_json);
    let resource = Resource {
        number: row.get(0)?,
        addon: row.get(1)?,
        id: id(row.get(2)?),
        uuid: row.get(3)?,
        platform_id: id(row.get(4)?),
        plan: row.get(5)?,
        region: row.get(6)?,
        config: AddonConfig::new(),
        config_vars: Vec::new(),
        message: row.get(8)?,
        created: row.get(9)?,
        changed: row.get(10)?,
    };
    Ok((resource, row.get(7)?))
}

/// A resource with its configuration.
fn whole((resource, config): (Resource, String)) -> Result<Resource, RegistryError> {
    let config: AddonConfig = parse(&resource.addon, &config)?;
    let config_vars = config.keys().cloned().collect();
    Ok(Resource { config, config_vars, ..resource })
}

fn find(
    connection: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Option<Resource>, RegistryError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE {condition}"))?;
    statement.query_row(values, resource).optional()?.map(whole).transpose()
}

/// The add-ons of installed plugins, by id.
fn addons(connection: &Connection) -> Result<Vec<AddonRow>, RegistryError> {
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
        Ok(AddonRow { id, plugin, author, config_vars })
    })
    .collect()
}

/// How many resources an add-on has, those of which nobody knows whether they were made among them.
fn count_resources(connection: &Connection, addon: &str) -> Result<u64, RegistryError> {
    let count = "SELECT count(*) FROM resource WHERE addon = ?1";
    Ok(connection.query_row(count, [addon], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// What stands against a plugin's having an add-on from now on, or none: its id is no other plugin's, and no resource is left
/// behind or gets into other hands.
pub(super) fn clash(
    connection: &Connection,
    plugin: &str,
    next: Option<NextAddon<'_>>,
) -> Result<Option<AddonClash>, RegistryError> {
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
pub(super) fn take_over(connection: &Connection, plugin: &str, next: NextAddon<'_>) -> Result<(), RegistryError> {
    let NextAddon { id, author } = next;
    connection.execute("UPDATE resource SET plugin = ?2, author = ?3 WHERE addon = ?1", [id, plugin, author])?;
    Ok(())
}

/// The id of the add-on of a version of a plugin, and its author.
pub(super) fn of_version(
    connection: &Connection,
    plugin: &str,
    version: &str,
) -> Result<Option<(String, String)>, RegistryError> {
    let mut statement = connection.prepare_cached(
        "SELECT json_extract(manifest, '$.addon.id'), author FROM version WHERE plugin = ?1 AND version = ?2",
    )?;
    let found = statement.query_row([plugin, version], |row| Ok((row.get::<_, Option<String>>(0)?, row.get(1)?)));
    Ok(found.optional()?.and_then(|(id, author)| Some((id?, author))))
}

impl Registry {
    /// The add-ons of installed plugins, by id.
    pub(crate) fn addons(&self) -> Result<Vec<AddonRow>, RegistryError> {
        addons(&self.main())
    }

    /// What stands against a plugin's having an add-on from now on, or none.
    pub(crate) fn addon_clash(
        &self,
        plugin: &str,
        next: Option<NextAddon<'_>>,
    ) -> Result<Option<AddonClash>, RegistryError> {
        clash(&self.main(), plugin, next)
    }

    /// Resources, the newest first.
    pub(crate) fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>, RegistryError> {
        let connection = self.main();
        let limit = if filter.limit == 0 { -1 } else { i64::try_from(filter.limit).unwrap_or(i64::MAX) };
        // Only the conditions that are asked for, so that an index can serve them.
        let of_addon = if filter.addon.is_some() { " AND addon = ?1" } else { "" };
        let of_id = if filter.id.is_some() { " AND id = ?2" } else { "" };
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT} WHERE ?1 IS ?1 AND ?2 IS ?2 AND number < ?3{of_addon}{of_id} ORDER BY number DESC LIMIT ?4"
        ))?;
        let before = filter.before.unwrap_or(i64::MAX);
        let rows = statement.query_map(params![filter.addon, filter.id, before, limit], resource)?;
        rows.map(|row| whole(row?)).collect()
    }

    /// A resource by the add-on's id of it.
    pub(crate) fn resource(&self, addon: &str, id: &str) -> Result<Option<Resource>, RegistryError> {
        find(&self.main(), "addon = ?1 AND id = ?2", [addon, id])
    }

    /// The add-ons that have a resource of an id.
    pub(crate) fn owners(&self, id: &str) -> Result<Vec<String>, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare_cached("SELECT addon FROM resource WHERE id = ?1 ORDER BY addon")?;
        let rows = statement.query_map([id], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes that an add-on is to be asked for a resource, unless it was. Durable on return: from here on its plugin isn't
    /// removed unless by force.
    pub(crate) fn note_resource(&self, addon: &str, request: &AddonRequest) -> Result<NewResource, RegistryError> {
        let AddonRequest { uuid, platform_id, plan, region, .. } = request;
        self.resource_change(|transaction| {
            // Whoever asked looked before; the plugin may have been removed since.
            let Some(AddonRow { plugin, author, .. }) = addons(transaction)?.into_iter().find(|row| row.id == addon)
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
                params![addon, plugin, author, uuid, platform, platform_json, plan, region, now_ms()],
            )?;
            Ok(NewResource::Noted(transaction.last_insert_rowid()))
        })
    }

    /// Records what an add-on answered. If the id is one of a resource that the same customer of the platform's has, it is that
    /// one; `None` if it is another's.
    pub(crate) fn made_resource(&self, number: i64, made: &Provisioned) -> Result<Option<Resource>, RegistryError> {
        self.resource_change(|transaction| {
            let Some(noted) = find(transaction, "number = ?1", [number])? else {
                return Err(RegistryError::Sql(rusqlite::Error::QueryReturnedNoRows));
            };
            let addon = &noted.addon;
            let same = find(transaction, "addon = ?1 AND id = ?2", [addon.as_str(), made.id.as_str()])?;
            let mut into = number;
            if let Some(same) = same {
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
                    now_ms()
                ],
            )?;
            find(transaction, "number = ?1", [into])
        })
    }

    /// Records another plan, and another configuration if there is one.
    pub(crate) fn change_resource(
        &self,
        number: i64,
        plan: Option<&str>,
        config: Option<&AddonConfig>,
    ) -> Result<(), RegistryError> {
        let config = config.map(|config| to_json("an add-on", config)).transpose()?;
        self.resource_change(|transaction| {
            transaction.execute(
                "UPDATE resource SET plan = coalesce(?2, plan), config = coalesce(?3, config), changed = ?4
                 WHERE number = ?1",
                params![number, plan, config, now_ms()],
            )?;
            Ok(())
        })
    }

    /// Forgets a resource.
    pub(crate) fn forget_resource(&self, number: i64) -> Result<(), RegistryError> {
        self.resource_change(|transaction| {
            transaction.execute("DELETE FROM resource WHERE number = ?1", [number])?;
            Ok(())
        })
    }

    /// A change that no running host has to notice. Durable on return.
    fn resource_change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut connection = self.main();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(&transaction)?;
        crate::database::foreign_log::count(&transaction)?;
        crate::crash_point::reached("resource before commit");
        transaction.commit()?;
        Ok(changed)
    }
}
