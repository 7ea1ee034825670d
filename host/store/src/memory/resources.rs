//! Add-ons, and the resources that they provisioned.

use billhook_model::{Moment, Resource, ResourceFilter};
use billhook_plugin_api::{
    Json,
    data::{AddonConfig, AddonRequest, ObjectId, Provisioned},
};

use super::{
    store::{Change, MemoryStore},
    tables::{InstalledRow, Registry, ResourceRow, ResourceTable},
};
use crate::{AddonClash, InstalledAddon, Kept, NewResource, NextAddon, Resources, Result, StoreError, StoreErrorKind};

impl ResourceTable {
    pub(super) fn take_over(&mut self, plugin: &str, next: NextAddon<'_>) {
        for row in self.rows.values_mut().filter(|row| row.resource.addon == next.id) {
            plugin.clone_into(&mut row.plugin);
            next.author.clone_into(&mut row.author);
        }
    }

    fn of<'a>(&'a self, addon: &'a str) -> impl Iterator<Item = &'a ResourceRow> {
        self.rows.values().filter(move |row| row.resource.addon == addon)
    }

    fn find(&self, addon: &str, id: &str) -> Option<&ResourceRow> {
        let is_it = |row: &&ResourceRow| row.resource.id.as_ref().map(ObjectId::as_str) == Some(id);
        self.rows.values().filter(|row| row.resource.addon == addon).find(is_it)
    }

    fn add(&mut self, addon: &InstalledAddon, request: &AddonRequest, now: Moment) -> NewResource {
        let AddonRequest { uuid, platform_id, plan, region, .. } = request;
        let same = self.rows.values_mut().find(|row| {
            let other = &row.resource;
            other.addon == addon.id
                && match (uuid, platform_id) {
                    (Some(uuid), _) => other.uuid.as_ref() == Some(uuid),
                    (None, Some(id)) => {
                        let is_same = other.platform_id.as_ref().map(ObjectId::as_str) == Some(id.as_str());
                        is_same && other.uuid.is_none() && other.id.is_none()
                    }
                    (None, None) => false,
                }
        });
        if let Some(row) = same {
            if row.resource.id.is_some() {
                return NewResource::Known(Box::new(row.resource.clone()));
            }
            // What is made now is what is asked for now.
            (row.resource.plan, row.resource.region) = (plan.clone(), region.clone());
            return NewResource::AskedBefore(row.resource.number);
        }
        self.last += 1;
        let mut resource = Resource::new(self.last, &addon.id, now);
        (resource.uuid, resource.platform_id) = (uuid.clone(), platform_id.clone());
        (resource.plan, resource.region) = (plan.clone(), region.clone());
        let row = ResourceRow { plugin: addon.plugin.clone(), author: addon.author.clone(), resource };
        self.rows.insert(self.last, row);
        NewResource::Noted(self.last)
    }

    /// Notes what was made. `None` if it is another customer's.
    fn made(&mut self, number: i64, made: &Provisioned, now: Moment) -> Option<Option<Resource>> {
        let noted = self.rows.get(&number)?.resource.clone();
        let mut into = number;
        if let Some(same) = self.find(&noted.addon, made.id.as_str()).filter(|same| same.resource.number != number) {
            if same.resource.platform_id.is_none() || same.resource.platform_id != noted.platform_id {
                return Some(None);
            }
            into = same.resource.number;
            self.rows.remove(&number);
        }
        let row = self.rows.get_mut(&into)?;
        let resource = row.resource.clone();
        let mut resource = resource.with_config(made.config.clone());
        resource.id = Some(made.id.clone());
        resource.message = made.message.clone();
        resource.uuid = noted.uuid.or(resource.uuid);
        (resource.plan, resource.region, resource.changed) = (noted.plan, noted.region, now);
        row.resource = resource.clone();
        Some(Some(resource))
    }
}

impl Registry {
    fn addons(&self) -> Vec<InstalledAddon> {
        let addon = |plugin: &InstalledRow| {
            let package = plugin.package();
            let manifest = Json::new(package.manifest.as_str()).ok()?;
            let id = manifest.pointer::<String>("/addon/id").ok().flatten()?;
            let config_vars = manifest.pointer("/addon/config_vars").ok().flatten().unwrap_or_default();
            Some(InstalledAddon { id, plugin: package.id.clone(), author: package.author.clone(), config_vars })
        };
        let mut addons: Vec<InstalledAddon> = self.plugins.plugins.values().filter_map(addon).collect();
        addons.sort_by(|left, right| left.id.cmp(&right.id));
        addons
    }

    pub(super) fn addon_clash(&self, plugin: &str, next: Option<NextAddon<'_>>) -> Option<AddonClash> {
        let present = self.addons();
        let id = next.map(|next| next.id);
        if let Some(other) = present.iter().find(|other| Some(other.id.as_str()) == id && other.plugin != plugin) {
            return Some(AddonClash::Taken { addon: other.id.clone(), plugin: other.plugin.clone() });
        }
        let left = present.iter().find(|addon| addon.plugin == plugin && Some(addon.id.as_str()) != id);
        if let Some(left) = left {
            let resources = self.resources.of(&left.id).count() as u64;
            if resources > 0 {
                return Some(AddonClash::LeavesResources { addon: left.id.clone(), resources });
            }
        }
        let NextAddon { id, author } = next?;
        let others = self.resources.of(id).find(|row| row.plugin != plugin || row.author != author)?;
        let (plugin, author) = (others.plugin.clone(), others.author.clone());
        Some(AddonClash::OthersResources { addon: id.to_owned(), plugin, author })
    }
}

impl Resources for MemoryStore {
    fn addons(&self) -> Result<Vec<InstalledAddon>> {
        self.read(Registry::addons)
    }

    fn addon_clash(&self, plugin: &str, next: Option<NextAddon<'_>>) -> Result<Option<AddonClash>> {
        self.read(|registry| registry.addon_clash(plugin, next))
    }

    fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>> {
        let ResourceFilter { addon, id, before, limit } = filter;
        let is_asked = |resource: &&Resource| {
            addon.as_ref().is_none_or(|addon| resource.addon == *addon)
                && id.as_ref().is_none_or(|id| resource.id.as_ref().is_some_and(|own| own.as_str() == id))
                && before.is_none_or(|before| resource.number < before)
        };
        self.read(|registry| {
            let rows = registry.resources.rows.values().rev().map(|row| &row.resource);
            rows.filter(is_asked).take(limit.unwrap_or(usize::MAX)).cloned().collect()
        })
    }

    fn resource(&self, addon: &str, id: &str) -> Result<Option<Resource>> {
        self.read(|registry| registry.resources.find(addon, id).map(|row| row.resource.clone()))
    }

    fn owners(&self, id: &str) -> Result<Vec<String>> {
        self.read(|registry| {
            let rows = registry.resources.rows.values().map(|row| &row.resource);
            let owned = rows.filter(|row| row.id.as_ref().is_some_and(|own| own.as_str() == id));
            let mut owners: Vec<String> = owned.map(|row| row.addon.clone()).collect();
            owners.sort_unstable();
            owners
        })
    }

    fn note_resource(&self, addon: &str, request: &AddonRequest) -> Result<NewResource> {
        let now = self.now();
        self.change(|registry| {
            let Some(addon) = registry.addons().into_iter().find(|known| known.id == addon) else {
                return Ok(Change::Nothing(NewResource::NoAddon));
            };
            Ok(Change::Quiet(registry.resources.add(&addon, request, now)))
        })
    }

    fn made_resource(&self, number: i64, made: &Provisioned) -> Result<Option<Resource>> {
        let now = self.now();
        self.change(|registry| match registry.resources.made(number, made, now) {
            Some(None) => Ok(Change::Nothing(None)),
            Some(made) => Ok(Change::Quiet(made)),
            None => {
                let message = format!("there is no resource {number}");
                Err(StoreError::new(Kept::Registry, StoreErrorKind::Failed, message))
            }
        })
    }

    fn change_resource(&self, number: i64, plan: Option<&str>, config: Option<&AddonConfig>) -> Result<()> {
        let now = self.now();
        self.change(|registry| {
            if let Some(row) = registry.resources.rows.get_mut(&number) {
                let mut resource = row.resource.clone();
                if let Some(config) = config {
                    resource = resource.with_config(config.clone());
                }
                resource.plan = plan.map(str::to_owned).or(resource.plan);
                resource.changed = now;
                row.resource = resource;
            }
            Ok(Change::Quiet(()))
        })
    }

    fn forget_resource(&self, number: i64) -> Result<()> {
        self.change(|registry| {
            registry.resources.rows.remove(&number);
            Ok(Change::Quiet(()))
        })
    }
}
