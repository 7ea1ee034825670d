//! Changes to what is installed. Each is one transaction of the registry; what comes before it can be cut off anywhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use billhook_machine::{
    crash_point,
    disk::{self, DiskTrouble},
    private,
};
use billhook_model::{
    Isolation, ModuleInfo, PluginDetails, PluginStatus, PluginSummary, RunPolicy, Version, text::with_causes,
};
use billhook_plugin_api::Json;
use billhook_store::{AddonClash, InstalledPackage, NewVersion, NextAddon, Removal, Tried};
use serde::Serialize;
use tempfile::TempDir;

use super::{
    Host, HostError,
    home::{ChangeLock, STAGED, sync_folder},
    plugin_state::kept_state,
};
use crate::{
    accounting::Scope,
    package::{self, CheckErrors, CheckReport, Digest, Sound},
    runtime::{PluginServices, ThrowAwayState, TrialError, TrialOutcome, WorkerConfig, try_module},
};

/// How a package is installed.
#[derive(Debug, Clone, Default)]
pub struct Install<'a> {
    /// The operator's settings, a JSON document; an upgrade keeps those that are there if it is given none.
    pub settings: Option<&'a str>,
    /// Upgrade also if the package is another author's, or spells its name differently; and take over the resources of an
    /// add-on that another plugin made.
    pub force: bool,
    /// Where the plugin runs; an upgrade keeps how it is run if this isn't given, and a first install runs it in this process.
    pub isolation: Option<Isolation>,
    /// The plugin that it has to be a version of; any unless set.
    pub plugin: Option<&'a str>,
}

/// How a plugin goes back to an older version.
#[derive(Debug, Clone, Default)]
pub struct Downgrade<'a> {
    /// The version; the one before if it is not given.
    pub version: Option<&'a str>,
    /// Settings for the older version; if they are not given, those that it had when a later one took its place.
    pub settings: Option<&'a str>,
}

/// What was installed.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize)]
pub struct Installed {
    /// The plugin.
    #[serde(flatten)]
    pub plugin: PluginSummary,
    /// The version that was in use before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Why it needs other settings, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs_settings: Option<String>,
    /// The same package was installed before: nothing changed, but for files that were put back.
    #[serde(skip_serializing_if = "is_false")]
    pub unchanged: bool,
    /// Files of the package were gone or damaged, and were put back.
    #[serde(skip_serializing_if = "is_false")]
    pub repaired: bool,
    /// What is odd about the package, and accepted.
    pub warnings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Host {
    /// Installs a package, or upgrades the plugin that it is a higher version of.
    ///
    /// The package is unpacked and checked without running it; its module is then tried in a child process. A first install
    /// whose constructor returns an error stays as *needs settings*; an upgrade that refuses the settings is refused itself,
    /// so that a working version is never replaced by one that doesn't work.
    pub fn install(&self, package: impl AsRef<Path>, how: &Install<'_>) -> Result<Installed, HostError> {
        check_json(how.settings)?;
        let home = &self.shared.home;
        let lock = home.lock()?;
        // Where it is to stay, so that its last step is one rename, wherever that folder is.
        let arriving = stage_in(&home.packages())?;
        let unpacked = arriving.path().to_owned();
        let written = |source| HostError::Write { path: unpacked.clone(), source };
        let files = package::unpack(package.as_ref(), &unpacked, &self.options.limits)
            .map_err(|errors| CheckErrors(errors.into_iter().map(Into::into).collect()))?;
        crash_point::reached("unpacked");
        let sound = package::examine(&unpacked, &files).into_sound(&files)?;
        let id = sound.manifest.id();
        if let Some(expected) = how.plugin.filter(|expected| *expected != id) {
            return Err(HostError::OtherPlugin { id: expected.to_owned(), found: id });
        }
        let installed = self.shared.stores.plugins.summary(&id)?;
        if let Some(installed) = &installed {
            if how.settings.is_none()
                && let Some(unchanged) = self.repair(installed, &sound, &unpacked)?
            {
                return Ok(unchanged);
            }
            may_upgrade(installed, &sound, how)?;
        }
        let addon = sound.manifest.addon.as_ref().map(|addon| addon.id.clone());
        let next = addon.as_deref().map(|id| NextAddon { id, author: &sound.manifest.author });
        // As early as can be; the transaction looks again.
        match self.shared.stores.resources.addon_clash(&id, next)? {
            Some(AddonClash::OthersResources { .. }) if how.force => {}
            clash => refuse(&id, clash)?,
        }

        let current = self.shared.stores.plugins.settings(&id)?;
        let settings = how.settings.or(current.as_deref()).unwrap_or("{}");
        let mut runtime = self.shared.stores.plugins.run_policy(&id)?;
        runtime.isolation = how.isolation.unwrap_or(runtime.isolation);
        let tried = self.try_version(&id, &unpacked, &sound.module, settings, &runtime)?;
        let works = installed.as_ref().is_some_and(|installed| installed.status != PluginStatus::NeedsSettings);
        if let (true, Tried::NeedsSettings { message }) = (works, &tried) {
            let (version, message) = (sound.manifest.version.to_string(), message.clone());
            return Err(HostError::SettingsRefused { id, version, message });
        }
        crash_point::reached("tried");

        let target = home.packages().join(sound.digest.to_string());
        // Left behind by an install that was cut off, or by a removal: no version has it.
        if target.exists() && !self.shared.stores.plugins.digests()?.contains(&sound.digest.to_string()) {
            fs::remove_dir_all(&target).map_err(written)?;
        }
        sync_tree(&unpacked).map_err(written)?;
        crash_point::reached("before rename");
        if !target.exists() {
            fs::rename(&unpacked, &target).map_err(written)?;
        }
        crash_point::reached("renamed");
        sync_folder(&home.packages()).map_err(written)?;

        let needs_settings = match &tried {
            Tried::NeedsSettings { message } => Some(message.clone()),
            Tried::Works { .. } => None,
        };
        let new = NewVersion {
            id,
            name: sound.manifest.name,
            author: sound.manifest.author,
            version: sound.manifest.version.to_string(),
            digest: sound.digest.to_string(),
            library_digest: sound.library_digest.to_string(),
            manifest: sound.manifest.json,
            module: sound.module,
            addon,
            settings: how.settings.map(str::to_owned),
            policy: runtime,
            tried,
            takes_over: how.force,
        };
        let preloaded = self.shared.dispatcher.preload(&new);
        preloaded.map_err(|problem| HostError::NotLoadable {
            id: new.id.clone(),
            version: new.version.clone(),
            problem,
        })?;
        let installing = self.shared.stores.plugins.install(&new);
        let plugin = installing.map_err(|error| HostError::of_change(&new.id, error))?;
        drop(lock);
        self.after_change();
        self.reconcile_plugin(&plugin.id);
        Ok(Installed {
            plugin,
            previous: installed.map(|installed| installed.version),
            needs_settings,
            unchanged: false,
            repaired: false,
            warnings: sound.warnings,
        })
    }

    /// Takes a package of a version that is installed: puts its files back, if they are gone or damaged. Returns `None` if no
    /// installed version has its content, or if it is an older version and whole.
    fn repair(
        &self,
        installed: &PluginSummary,
        sound: &Sound,
        unpacked: &Path,
    ) -> Result<Option<Installed>, HostError> {
        let details = self.show(&installed.id)?;
        let digest = sound.digest.to_string();
        let Some(found) = details.history.iter().rev().find(|version| version.digest == digest) else {
            return Ok(None);
        };
        let packages = self.shared.home.packages();
        let target = packages.join(&digest);
        let is_whole = package::is_whole(&target, sound.digest, &self.options.limits);
        if is_whole && found.version != installed.version {
            return Ok(None);
        }
        if !is_whole {
            let wrong = |source| HostError::Home { path: target.clone(), source };
            let damaged = stage_in(&packages)?;
            sync_tree(unpacked).map_err(wrong)?;
            if target.exists() {
                // Deleted when this is done.
                fs::rename(&target, damaged.path().join("damaged")).map_err(wrong)?;
            }
            fs::rename(unpacked, &target).map_err(wrong)?;
            sync_folder(&packages).map_err(wrong)?;
            self.shared.stores.plugins.repaired()?;
            tracing::info!(plugin = installed.id, version = found.version, "the files of the package were put back");
            self.shared.dispatcher.try_again(&installed.id);
            self.after_change();
        }
        Ok(Some(Installed {
            plugin: installed.clone(),
            previous: None,
            needs_settings: details.needs_settings,
            unchanged: true,
            repaired: !is_whole,
            warnings: sound.warnings.clone(),
        }))
    }

    /// An empty file for a package that is to come in piece by piece. It is deleted when it is dropped, or when a later host
    /// opens the home.
    pub fn upload_file(&self) -> Result<tempfile::NamedTempFile, HostError> {
        let staging = self.shared.home.staging();
        // Locked as long as it is open: others that open the home see that it is in use.
        private::scratch_file(&staging, STAGED, ".zip")
            .and_then(|file| file.as_file().lock().map(|()| file))
            .map_err(|error| HostError::Home { source: disk::found_out(&staging, error), path: staging })
    }

    /// The most bytes that a package may have.
    pub fn package_limit(&self) -> u64 {
        self.options.limits.package_bytes
    }

    /// Goes back to an older version and forgets the newer ones.
    pub fn downgrade(&self, id: &str, how: &Downgrade<'_>) -> Result<PluginSummary, HostError> {
        check_json(how.settings)?;
        let lock = self.shared.home.lock()?;
        let details = self.show(id)?;
        let version = older_version(&details, how.version)?;
        let (folder, module) = self.installed_version(id, &version)?;
        // Unless others are given, those that it had.
        let own = self.shared.stores.plugins.settings_of_version(id, &version)?;
        let given = how.settings.or(own.as_deref());
        let current = details.settings.to_string();
        let settings = given.unwrap_or(&current);
        let tried = self.try_version(id, &folder, &module, settings, &details.runtime)?;
        if let Tried::NeedsSettings { message } = tried {
            return Err(HostError::SettingsRefused { id: id.to_owned(), version, message });
        }
        let downgrading = self.shared.stores.plugins.downgrade(id, &version, given, &tried);
        let plugin = downgrading.map_err(|error| HostError::of_change(id, error))?;
        self.after_change();
        self.clear_away(&lock);
        drop(lock);
        self.reconcile_plugin(id);
        Ok(plugin)
    }

    /// Removes a plugin with its history, its settings and its state. Returns what was removed.
    ///
    /// A plugin that assets, unsent usage or resources need, or that keeps anything, is removed only by force: nothing would
    /// answer for those any more, and what it keeps would be gone. [`HostError::InUse`] counts all of it.
    pub fn remove(&self, id: &str, force: bool) -> Result<PluginSummary, HostError> {
        let lock = self.shared.home.lock()?;
        let summary = self.summary(id)?;
        match self.shared.stores.plugins.remove(id, force)? {
            Removal::Done => {}
            Removal::NotInstalled => return Err(HostError::NotInstalled { id: id.to_owned() }),
            Removal::InUse(uses) => return Err(HostError::InUse { id: id.to_owned(), uses }),
        }
        self.after_change();
        self.clear_away(&lock);
        drop(lock);
        self.reconcile_plugin(id);
        Ok(summary)
    }

    /// Switches a plugin on or off. One that is off answers every call as unavailable.
    pub fn set_enabled(&self, id: &str, enabled: bool) -> Result<PluginSummary, HostError> {
        let lock = self.shared.home.lock()?;
        self.summary(id)?;
        let changing = self.shared.stores.plugins.set_enabled(id, enabled);
        let plugin = changing.map_err(|error| HostError::of_change(id, error))?;
        self.after_change();
        drop(lock);
        self.reconcile_plugin(id);
        Ok(plugin)
    }

    /// Gives a plugin other settings, if it takes them: a JSON document. If it refuses them, the old ones stay.
    pub fn set_settings(&self, id: &str, settings: &str) -> Result<PluginSummary, HostError> {
        check_json(Some(settings))?;
        let lock = self.shared.home.lock()?;
        let details = self.show(id)?;
        let version = details.summary.version;
        let (folder, module) = self.installed_version(id, &version)?;
        let tried = self.try_version(id, &folder, &module, settings, &details.runtime)?;
        if let Tried::NeedsSettings { message } = tried {
            return Err(HostError::SettingsRefused { id: id.to_owned(), version, message });
        }
        let changing = self.shared.stores.plugins.set_settings(id, settings, &tried);
        let plugin = changing.map_err(|error| HostError::of_change(id, error))?;
        self.after_change();
        drop(lock);
        self.reconcile_plugin(id);
        Ok(plugin)
    }

    /// Changes how a plugin is run. A plugin that is to run elsewhere than it did is tried there first.
    pub fn set_runtime(&self, id: &str, runtime: &RunPolicy) -> Result<PluginSummary, HostError> {
        if let Some(problem) = runtime.problem() {
            return Err(HostError::RunPolicy { problem });
        }
        let lock = self.shared.home.lock()?;
        let details = self.show(id)?;
        let version = &details.summary.version;
        let is_process = runtime.isolation == Isolation::Process;
        let has_other_limits = is_process && details.runtime.limits != runtime.limits;
        if details.runtime.isolation != runtime.isolation || has_other_limits {
            let (folder, module) = self.installed_version(id, version)?;
            let settings = details.settings.to_string();
            let tried = self.try_version(id, &folder, &module, &settings, runtime)?;
            if let (Tried::NeedsSettings { message }, None) = (tried, &details.needs_settings) {
                return Err(HostError::SettingsRefused { id: id.to_owned(), version: version.clone(), message });
            }
        }
        let changing = self.shared.stores.plugins.set_run_policy(id, runtime);
        let plugin = changing.map_err(|error| HostError::of_change(id, error))?;
        self.after_change();
        drop(lock);
        Ok(plugin)
    }

    /// Checks a package as [`Host::check`] does, and, if nothing is wrong so far, runs it: loads and constructs it in a child
    /// process with settings, as an install would.
    pub fn check_and_try(
        path: impl AsRef<Path>,
        settings: Option<&str>,
        options: &super::HostOptions,
    ) -> Result<CheckReport, HostError> {
        check_json(settings)?;
        let path = path.as_ref();
        let wrong = |source| HostError::Check { path: path.to_owned(), source };
        let checked = package::check(path, &options.limits).map_err(wrong)?;
        let mut report = CheckReport::from(&checked.examined);
        let Some(module) = report.module.clone().filter(|_| report.is_valid()) else {
            if report.is_valid() {
                report.warnings.push("there is no library beside a package.json alone: nothing was tried".to_owned());
            }
            return Ok(report);
        };
        let services = PluginServices {
            plugin: report.id.clone().unwrap_or_default(),
            settings: settings.unwrap_or("{}").to_owned(),
            folder: checked.folder.to_string_lossy().into_owned(),
            state: Arc::new(ThrowAwayState::default()),
        };
        let config = WorkerConfig {
            program: options.child_program.clone(),
            folders: None,
            library: checked.folder.join(&module.path).canonicalize().map_err(wrong)?,
            module,
            services: Arc::new(services),
            runtime: RunPolicy::default(),
            start_limit: options.trial_limit,
        };
        match try_module(&config) {
            Ok(TrialOutcome::Works { .. }) => {}
            Ok(TrialOutcome::NeedsSettings { message }) => {
                report.warnings.push(format!("it would be installed as \"needs settings\": {message}"));
            }
            // That it couldn't be tried says nothing of it.
            Err(error @ (TrialError::Start(_) | TrialError::Noexec { .. })) => return Err(error.into()),
            Err(error) => report.errors.push(error.to_string()),
        }
        Ok(report)
    }

    /// The folder and the module of an installed version, whose library is still the one that was installed.
    fn installed_version(&self, id: &str, version: &str) -> Result<(PathBuf, ModuleInfo), HostError> {
        let package = self.shared.stores.plugins.package(id, version)?;
        let InstalledPackage { digest, library_digest, module } =
            package.ok_or_else(|| HostError::NotInstalled { id: id.to_owned() })?;
        let folder = self.shared.home.packages().join(digest);
        let library = fs::File::open(folder.join(&module.path)).and_then(|mut file| Digest::of(&mut file));
        match library {
            Ok(found) if found.to_string() == library_digest => return Ok((folder, module)),
            Err(source) if DiskTrouble::of(&source).is_some() => return Err(HostError::Home { path: folder, source }),
            _ => {}
        }
        Err(HostError::Damaged { id: id.to_owned(), version: version.to_owned() })
    }

    /// Makes a committed change known to this host. It is done, so nothing that fails here makes it an error: the host's
    /// own thread tries again.
    fn after_change(&self) {
        if let Err(error) = self.shared.dispatcher.refresh_and_wait(self.options.trial_limit) {
            tracing::warn!("the change is not noticed yet: {}", with_causes(&error));
        }
    }

    /// Tells the usage API of a committed change. What can't be told now stays pending.
    fn reconcile_plugin(&self, id: &str) {
        if self.options.usage_api.is_none() {
            return;
        }
        if let Err(error) = self.shared.accounting.reconcile(Scope::Plugin(id)) {
            tracing::warn!(plugin = id, "the usage API doesn't know of the change yet: {error}");
        }
    }

    /// Deletes what a committed change left without use; what can't be deleted now is at a later open.
    fn clear_away(&self, lock: &ChangeLock) {
        if let Err(error) = self.shared.home.delete_unused_packages(&*self.shared.stores.plugins, lock) {
            tracing::warn!("packages that nobody uses stay on the disk for now: {error}");
        }
    }

    fn summary(&self, id: &str) -> Result<PluginSummary, HostError> {
        self.shared.stores.plugins.summary(id)?.ok_or_else(|| HostError::NotInstalled { id: id.to_owned() })
    }

    /// A folder of its own for a change, which is deleted when the change is done.
    fn try_version(
        &self,
        id: &str,
        folder: &Path,
        module: &ModuleInfo,
        settings: &str,
        runtime: &RunPolicy,
    ) -> Result<Tried, HostError> {
        // Confined as its workers will be, where it is to run in workers: it may be one that isn't trusted.
        let folders = (runtime.isolation == Isolation::Process).then(|| self.shared.home.workers());
        let services = PluginServices {
            plugin: id.to_owned(),
            settings: settings.to_owned(),
            folder: folder.to_string_lossy().into_owned(),
            state: Arc::new(ThrowAwayState::over(kept_state(&self.shared.stores.state))),
        };
        let outcome = try_module(&WorkerConfig {
            program: self.options.child_program.clone(),
            folders,
            library: folder.join(&module.path),
            module: module.clone(),
            services: Arc::new(services),
            runtime: runtime.clone(),
            start_limit: self.options.trial_limit,
        })?;
        Ok(match outcome {
            TrialOutcome::Works { usage_specs } => Tried::Works { usage_specs },
            TrialOutcome::NeedsSettings { message } => Tried::NeedsSettings { message },
        })
    }
}

/// The most that settings may take.
const LARGEST_SETTINGS: usize = 1024 * 1024;

/// Settings have to be JSON: whatever its grammar allows. What the plugin can't read of it, the plugin refuses.
fn check_json(settings: Option<&str>) -> Result<(), HostError> {
    let Some(settings) = settings else { return Ok(()) };
    if settings.len() > LARGEST_SETTINGS {
        return Err(HostError::SettingsTooLarge { size: settings.len(), most: LARGEST_SETTINGS });
    }
    Json::new(settings).map(drop).map_err(HostError::SettingsNotJson)
}

/// Refuses what an add-on stands against.
fn refuse(id: &str, clash: Option<AddonClash>) -> Result<(), HostError> {
    clash.map_or(Ok(()), |clash| Err(HostError::of_addon(id, clash)))
}

/// Whether a package may take the place of what is installed under its id.
fn may_upgrade(installed: &PluginSummary, sound: &Sound, how: &Install<'_>) -> Result<(), HostError> {
    let force = how.force;
    let (id, offered) = (installed.id.clone(), &sound.manifest);
    if !force && installed.name != offered.name {
        let (installed, offered) = (installed.name.clone(), offered.name.clone());
        return Err(HostError::OtherSpelling { id, installed, offered });
    }
    if !force && installed.author != offered.author {
        let (installed, offered) = (installed.author.clone(), offered.author.clone());
        return Err(HostError::OtherAuthor { id, installed, offered });
    }
    let in_use: Result<Version, _> = installed.version.parse();
    match in_use.map(|in_use| in_use.cmp(&offered.version)) {
        Ok(std::cmp::Ordering::Equal) => {
            let difference = match how.settings {
                Some(_) => "and other settings are given to it by setplugin",
                None => "with other content",
            };
            Err(HostError::SameVersion { id, version: installed.version.clone(), difference })
        }
        Ok(std::cmp::Ordering::Greater) => {
            let (installed, offered) = (installed.version.clone(), offered.version.to_string());
            Err(HostError::NewerInstalled { id, installed, offered })
        }
        _ => Ok(()),
    }
}

/// The version of the history to go back to, as the history spells it.
fn older_version(details: &PluginDetails, wanted: Option<&str>) -> Result<String, HostError> {
    let (id, current) = (&details.summary.id, &details.summary.version);
    let older: Vec<&str> = details.history.iter().rev().skip(1).map(|entry| entry.version.as_str()).collect();
    let Some(wanted) = wanted else {
        let none = || HostError::NoOlderVersion { id: id.clone(), version: current.clone() };
        return older.first().map(|version| (*version).to_owned()).ok_or_else(none);
    };
    // `1` and `1.0` are one version.
    let same = |version: &&&str| match (version.parse::<Version>(), wanted.parse::<Version>()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    };
    older.iter().find(same).map(|version| (*version).to_owned()).ok_or_else(|| HostError::NotInHistory {
        id: id.clone(),
        version: wanted.to_owned(),
        history: if older.is_empty() {
            "there is no older one".to_owned()
        } else {
            format!("older ones are {}", older.join(", "))
        },
    })
}

/// A folder of its own for a change, within another, which is deleted when the change is done.
fn stage_in(folder: &Path) -> Result<TempDir, HostError> {
    private::scratch_in(folder, STAGED)
        .map_err(|error| HostError::Home { source: disk::found_out(folder, error), path: folder.to_owned() })
}

/// Makes the names of all files in a tree durable; their content already is.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_folder(folder)
}
