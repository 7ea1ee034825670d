//! InstalledRow plugins, and what they keep.

use std::collections::BTreeMap;

use billhook_model::{
    InstalledVersion, KeptState, PluginDetails, PluginStatus, PluginSummary, PluginUses, RunPolicy, UsageSpecState,
};
use billhook_plugin_api::Json;

use super::{
    store::{Change, MemoryStore},
    tables::{InstalledRow, Registry, VersionRow},
};
use crate::{
    AddonClash, ChangeError, Crashed, InstalledPackage, Kept, NewVersion, NextAddon, PluginState, Plugins, Removal,
    Result, RoutedPlugin, RoutedVersion, Routes, StoreError, Tried,
};

impl InstalledRow {
    pub(super) fn version(&self) -> &VersionRow {
        &self.history[self.in_use]
    }

    pub(super) fn package(&self) -> &NewVersion {
        &self.version().package
    }

    fn status(&self) -> PluginStatus {
        match (self.is_enabled, &self.needs_settings, &self.quarantined) {
            (false, ..) => PluginStatus::Disabled,
            (true, Some(_), _) => PluginStatus::NeedsSettings,
            (true, None, Some(_)) => PluginStatus::Quarantined,
            (true, None, None) => PluginStatus::Enabled,
        }
    }

    fn summary(&self) -> PluginSummary {
        let package = self.package();
        let mut summary = PluginSummary::new(&package.id, &package.name, &package.author, &package.version);
        summary.status = self.status();
        summary
    }

    fn find(&self, version: &str) -> Option<usize> {
        self.history.iter().position(|known| known.package.version == version)
    }

    fn tried(&mut self, tried: &Tried) {
        let (specs, message) = match tried {
            Tried::Works { usage_specs } => (usage_specs.clone(), None),
            Tried::NeedsSettings { message } => (Vec::new(), Some(message.clone())),
        };
        self.history[self.in_use].usage_specs = specs;
        self.needs_settings = message;
    }

    fn leave_quarantine(&mut self, generation: i64) {
        if self.is_enabled {
            self.quarantined = None;
            self.settings_changed = generation;
        }
    }

    fn routed(&self) -> RoutedPlugin {
        let package = self.package();
        let mut versions: Vec<RoutedVersion> = Vec::new();
        let chosen: Vec<(usize, u32)> = if self.weights.is_empty() {
            vec![(self.in_use, 1)]
        } else {
            self.weights.iter().filter_map(|(version, weight)| Some((self.find(version)?, *weight))).collect()
        };
        let mut chosen = chosen;
        chosen.sort_by_key(|(place, _)| (*place != self.in_use, *place));
        for (place, weight) in chosen {
            versions.push(self.history[place].routed(weight));
        }
        RoutedPlugin {
            id: package.id.clone(),
            name: package.name.clone(),
            status: self.status(),
            needs_settings: self.needs_settings.clone(),
            quarantined: self.quarantined.clone(),
            policy: Ok(self.policy.clone()),
            settings_changed: self.settings_changed,
            priority: self.priority,
            versions,
        }
    }
}

impl VersionRow {
    fn routed(&self, weight: u32) -> RoutedVersion {
        let NewVersion { version, digest, library_digest, module, manifest, .. } = &self.package;
        let events = Json::new(manifest.as_str()).ok().and_then(|manifest| manifest.pointer("/events").ok().flatten());
        RoutedVersion {
            version: version.clone(),
            digest: digest.clone(),
            library_digest: library_digest.clone(),
            module: Ok(module.clone()),
            events: events.unwrap_or_default(),
            weight,
        }
    }
}

impl Registry {
    fn uses(&self, id: &str) -> PluginUses {
        let mut uses = PluginUses::default();
        uses.assets = self.plugins.assets.values().filter(|plugin| *plugin == id).count() as u64;
        uses.unsent_usage = self.usage.count_unsent(id);
        if let Some(AddonClash::LeavesResources { addon, resources }) = self.addon_clash(id, None) {
            uses.resources = Some(billhook_model::AddonResources::new(addon, resources));
        }
        uses.state = self.kept_state(id);
        uses
    }

    fn kept_state(&self, id: &str) -> KeptState {
        let Some(plugin) = self.plugins.plugins.get(id) else { return KeptState::default() };
        let bytes = plugin.state.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        KeptState::new(plugin.state.len() as u64, bytes)
    }

    fn details(&self, plugin: &InstalledRow) -> Result<PluginDetails> {
        let package = plugin.package();
        let id = &package.id;
        let unreadable = |error| StoreError::unreadable(Kept::Registry, id, error);
        let mut details = PluginDetails::new(plugin.summary());
        details.needs_settings = plugin.needs_settings.clone();
        details.quarantined = plugin.quarantined.clone();
        details.priority = plugin.priority;
        details.runtime = plugin.policy.clone();
        details.settings = Json::new(plugin.settings.clone()).map_err(unreadable)?;
        details.manifest = Json::new(package.manifest.clone()).map_err(unreadable)?;
        details.module = package.module.clone();
        details.usage_specs = plugin.version().usage_specs.clone();
        details.usage_api = self.specs(Some(id)).into_iter().map(UsageSpecState::from).collect();
        details.unsent_usage = self.usage.count_unsent(id);
        details.assets_in_use = self.uses(id).assets;
        details.state = self.kept_state(id);
        let version = |version: &VersionRow| {
            InstalledVersion::new(&version.package.version, version.installed_at, &version.package.digest)
        };
        details.history = plugin.history.iter().map(version).collect();
        Ok(details)
    }
}

impl MemoryStore {
    /// Changes a plugin that is installed. The closure gets it with the generation that its change will have.
    fn change_plugin(
        &self,
        id: &str,
        change: impl FnOnce(&mut InstalledRow, i64),
    ) -> std::result::Result<PluginSummary, ChangeError> {
        self.change(|registry| {
            let generation = registry.generation + 1;
            let Some(plugin) = registry.plugins.plugins.get_mut(id) else {
                return Ok(Change::Nothing(Err(ChangeError::NotInstalled)));
            };
            change(plugin, generation);
            Ok(Change::Made(Ok(plugin.summary())))
        })?
    }

    /// Refuses a version whose add-on stands against it, and hands its resources over.
    fn take_addon(
        registry: &mut Registry,
        id: &str,
        addon: Option<NextAddon<'_>>,
        may_take: impl Fn(&str) -> bool,
    ) -> std::result::Result<(), ChangeError> {
        match registry.addon_clash(id, addon) {
            Some(AddonClash::OthersResources { plugin, .. }) if may_take(&plugin) => {}
            Some(clash) => return Err(ChangeError::Clash(clash)),
            None => {}
        }
        if let Some(addon) = addon {
            registry.resources.take_over(id, addon);
        }
        Ok(())
    }
}

impl Plugins for MemoryStore {
    fn generation(&self) -> Result<i64> {
        self.read(|registry| registry.generation)
    }

    fn routes(&self) -> Result<Routes> {
        self.read(|registry| Routes {
            generation: registry.generation,
            plugins: registry.plugins.plugins.values().map(InstalledRow::routed).collect(),
            handlers: registry.handlers.handlers(),
            events: registry.handlers.events(),
        })
    }

    fn list(&self) -> Result<Vec<PluginSummary>> {
        self.read(|registry| registry.plugins.plugins.values().map(InstalledRow::summary).collect())
    }

    fn summary(&self, id: &str) -> Result<Option<PluginSummary>> {
        self.read(|registry| registry.plugins.plugins.get(id).map(InstalledRow::summary))
    }

    fn details(&self, id: &str) -> Result<Option<PluginDetails>> {
        self.read(|registry| registry.plugins.plugins.get(id).map(|plugin| registry.details(plugin)).transpose())?
    }

    fn all_details(&self) -> Result<Vec<PluginDetails>> {
        self.read(|registry| registry.plugins.plugins.values().map(|plugin| registry.details(plugin)).collect())?
    }

    fn settings(&self, id: &str) -> Result<Option<String>> {
        self.read(|registry| registry.plugins.plugins.get(id).map(|plugin| plugin.settings.clone()))
    }

    fn settings_of_version(&self, id: &str, version: &str) -> Result<Option<String>> {
        self.read(|registry| {
            let plugin = registry.plugins.plugins.get(id)?;
            plugin.history[plugin.find(version)?].settings.clone()
        })
    }

    fn run_policy(&self, id: &str) -> Result<RunPolicy> {
        self.read(|registry| registry.plugins.plugins.get(id).map(|plugin| plugin.policy.clone()).unwrap_or_default())
    }

    fn package(&self, id: &str, version: &str) -> Result<Option<InstalledPackage>> {
        self.read(|registry| {
            let plugin = registry.plugins.plugins.get(id)?;
            let NewVersion { digest, library_digest, module, .. } =
                plugin.history[plugin.find(version)?].package.clone();
            Some(InstalledPackage { digest, library_digest, module })
        })
    }

    fn digests(&self) -> Result<Vec<String>> {
        self.read(|registry| {
            let versions = registry.plugins.plugins.values().flat_map(|plugin| &plugin.history);
            let mut digests: Vec<String> = versions.map(|version| version.package.digest.clone()).collect();
            digests.sort_unstable();
            digests.dedup();
            digests
        })
    }

    fn install(&self, new: &NewVersion) -> std::result::Result<PluginSummary, ChangeError> {
        let now = self.now();
        self.change(|registry| {
            let addon = new.addon.as_deref().map(|id| NextAddon { id, author: &new.author });
            if let Err(refusal) = Self::take_addon(registry, &new.id, addon, |_| new.takes_over) {
                return Ok(Change::Nothing(Err(refusal)));
            }
            let generation = registry.generation + 1;
            let version =
                VersionRow { package: new.clone(), installed_at: now, usage_specs: Vec::new(), settings: None };
            let plugin = registry.plugins.plugins.entry(new.id.clone()).or_insert_with(|| InstalledRow {
                in_use: 0,
                history: Vec::new(),
                weights: Vec::new(),
                is_enabled: true,
                settings: "{}".to_owned(),
                settings_changed: generation,
                needs_settings: None,
                quarantined: None,
                policy: RunPolicy::default(),
                priority: None,
                state: BTreeMap::new(),
            });
            if let Some(present) = plugin.history.get_mut(plugin.in_use) {
                present.settings = Some(plugin.settings.clone());
            }
            plugin.history.push(version);
            plugin.in_use = plugin.history.len() - 1;
            plugin.weights.clear();
            plugin.quarantined = None;
            plugin.policy = new.policy.clone();
            if let Some(settings) = &new.settings {
                plugin.settings.clone_from(settings);
                plugin.settings_changed = generation;
            }
            plugin.tried(&new.tried);
            Ok(Change::Made(Ok(plugin.summary())))
        })?
    }

    fn downgrade(
        &self,
        id: &str,
        version: &str,
        settings: Option<&str>,
        tried: &Tried,
    ) -> std::result::Result<PluginSummary, ChangeError> {
        self.change(|registry| {
            let found =
                registry.plugins.plugins.get(id).and_then(|plugin| Some((plugin.clone(), plugin.find(version)?)));
            let Some((mut plugin, place)) = found else {
                return Ok(Change::Nothing(Err(ChangeError::NotInstalled)));
            };
            let NewVersion { addon, author, .. } = plugin.history[place].package.clone();
            let addon = addon.as_deref().map(|id| NextAddon { id, author: &author });
            // It goes back to what its own operator had.
            if let Err(refusal) = Self::take_addon(registry, id, addon, |other| other == id) {
                return Ok(Change::Nothing(Err(refusal)));
            }
            plugin.history.truncate(place + 1);
            plugin.in_use = place;
            plugin.weights.clear();
            plugin.quarantined = None;
            if let Some(settings) = settings {
                settings.clone_into(&mut plugin.settings);
                plugin.settings_changed = registry.generation + 1;
            }
            plugin.tried(tried);
            let summary = plugin.summary();
            registry.plugins.plugins.insert(id.to_owned(), plugin);
            Ok(Change::Made(Ok(summary)))
        })?
    }

    fn set_settings(&self, id: &str, settings: &str, tried: &Tried) -> std::result::Result<PluginSummary, ChangeError> {
        self.change_plugin(id, |plugin, generation| {
            plugin.tried(tried);
            settings.clone_into(&mut plugin.settings);
            plugin.settings_changed = generation;
        })
    }

    fn set_enabled(&self, id: &str, enabled: bool) -> std::result::Result<PluginSummary, ChangeError> {
        self.change_plugin(id, |plugin, generation| {
            plugin.is_enabled = enabled;
            plugin.leave_quarantine(generation);
        })
    }

    fn set_run_policy(&self, id: &str, policy: &RunPolicy) -> std::result::Result<PluginSummary, ChangeError> {
        self.change_plugin(id, |plugin, generation| {
            plugin.leave_quarantine(generation);
            plugin.policy = policy.clone();
        })
    }

    fn set_priority(&self, id: &str, priority: u32) -> Result<bool> {
        match self.change_plugin(id, |plugin, _| plugin.priority = Some(priority)) {
            Ok(_) => Ok(true),
            Err(ChangeError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn set_weights(&self, id: &str, weights: &[(String, u32)]) -> Result<bool> {
        self.change(|registry| {
            let Some(plugin) = registry.plugins.plugins.get_mut(id) else { return Ok(Change::Nothing(false)) };
            let are_known = weights.iter().all(|(version, weight)| *weight > 0 && plugin.find(version).is_some());
            if !are_known {
                return Ok(Change::Nothing(false));
            }
            plugin.weights = weights.to_vec();
            Ok(Change::Made(true))
        })
    }

    fn quarantine(&self, crashed: &Crashed<'_>, reason: &str) -> Result<()> {
        self.change(|registry| {
            let plugin = registry.plugins.plugins.get_mut(crashed.id);
            let is_it = |plugin: &&mut InstalledRow| {
                plugin.settings_changed == crashed.settings_changed
                    && plugin.package().digest == crashed.digest
                    && plugin.quarantined.as_deref() != Some(reason)
            };
            let Some(plugin) = plugin.filter(is_it) else { return Ok(Change::Nothing(())) };
            plugin.quarantined = Some(reason.to_owned());
            Ok(Change::Made(()))
        })
    }

    fn repaired(&self) -> Result<()> {
        self.change(|_| Ok(Change::Made(())))
    }

    fn use_asset(&self, plugin: &str, asset: &str) -> Result<bool> {
        self.change(|registry| {
            if !registry.plugins.plugins.contains_key(plugin) {
                return Ok(Change::Nothing(false));
            }
            registry.plugins.assets.insert(asset.to_owned(), plugin.to_owned());
            Ok(Change::Quiet(true))
        })
    }

    fn release_asset(&self, asset: &str) -> Result<bool> {
        self.change(|registry| Ok(Change::Quiet(registry.plugins.assets.remove(asset).is_some())))
    }

    fn remove(&self, id: &str, force: bool) -> Result<Removal> {
        self.change(|registry| {
            let uses = registry.uses(id);
            if !force && !uses.is_empty() {
                return Ok(Change::Nothing(Removal::InUse(uses)));
            }
            if registry.plugins.plugins.remove(id).is_none() {
                return Ok(Change::Nothing(Removal::NotInstalled));
            }
            registry.plugins.assets.retain(|_, plugin| plugin != id);
            Ok(Change::Made(Removal::Done))
        })
    }
}

impl PluginState for MemoryStore {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>> {
        self.read(|registry| {
            let value = registry.plugins.plugins.get(plugin)?.state.get(key)?;
            Some(value.clone().into_bytes())
        })
    }

    fn keep(&self, plugin: &str, key: &str, value: &str) -> Result<bool> {
        self.change(|registry| {
            let Some(plugin) = registry.plugins.plugins.get_mut(plugin) else { return Ok(Change::Nothing(false)) };
            plugin.state.insert(key.to_owned(), value.to_owned());
            Ok(Change::Quiet(true))
        })
    }

    fn delete(&self, plugin: &str, key: &str) -> Result<()> {
        self.change(|registry| {
            if let Some(plugin) = registry.plugins.plugins.get_mut(plugin) {
                plugin.state.remove(key);
            }
            Ok(Change::Quiet(()))
        })
    }
}
