//! Why a change to what is installed is refused or fails.

use std::{io, path::PathBuf};

use billhook_machine::disk::DiskTrouble;
use billhook_model::PluginUses;
use billhook_store::{AddonClash, ChangeError, StoreError};

use crate::{
    package::{CheckError, CheckErrors, PackageError},
    runtime::TrialError,
};

/// Why the host can't do what it was asked for. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The home can't be used.
    #[error("the home {} can't be used: {source}", path.display())]
    Home {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system doesn't give the threads without which a host can't work.
    #[error(
        "a thread of the host's can't be started: {0}; raise the limit of processes (ulimit -u, TasksMax or pids.max)"
    )]
    Thread(#[source] io::Error),
    /// Its own group can write to it, and nobody said that it may.
    #[error(
        "the home can't be used: others than its user can write to {}, its group {group}, and libraries are loaded from it; run chmod go-w on it",
        path.display()
    )]
    GroupWritable {
        /// The folder or file.
        path: PathBuf,
        /// The group's number, one of this process's.
        group: u32,
    },
    /// What is kept can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing in the home can be changed.
    #[error("the home {} is read-only: what is in it can be shown, and nothing can be changed", path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the home can't be written.
    #[error("{} can't be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The package can't be read: that is not its fault.
    #[error("the package can't be read: {0}")]
    Read(#[source] io::Error),
    /// The package is wrong.
    #[error(transparent)]
    Package(CheckErrors),
    /// The module was tried and failed.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// There is no such plugin.
    #[error("there is no plugin {id:?}")]
    NotInstalled {
        /// The id.
        id: String,
    },
    /// It is needed, or keeps what would be deleted with it: all of that is counted.
    #[error("{id} {uses}")]
    InUse {
        /// The plugin.
        id: String,
        /// What it is needed for, and what it keeps.
        uses: PluginUses,
    },
    /// Another plugin provides the add-on.
    #[error("the add-on {addon:?} is provided by {plugin}")]
    AddonTaken {
        /// The add-on.
        addon: String,
        /// The plugin that has it.
        plugin: String,
    },
    /// It provides an add-on that has resources.
    #[error("{id} provides the add-on {addon:?}, which has {resources} resource{}", if *resources == 1 { "" } else { "s" })]
    HasResources {
        /// The plugin.
        id: String,
        /// The add-on.
        addon: String,
        /// How many resources.
        resources: u64,
    },
    /// It provides an add-on that has resources which somebody else's plugin made.
    #[error("the add-on {addon:?} has resources that {plugin} by {author:?} made")]
    OthersResources {
        /// The add-on.
        addon: String,
        /// The plugin that made them.
        plugin: String,
        /// Its author.
        author: String,
    },
    /// A token can't be called so.
    #[error("a token's name has 1 to 100 bytes, no control characters and no hidden ones")]
    TokenName,
    /// There is no such token.
    #[error("there is no token {id:?}")]
    NoToken {
        /// Its id.
        id: String,
    },
    /// The system has no random numbers.
    #[error("no random numbers can be had: {0}")]
    Random(String),
    /// The same version is installed, with other content; or the package was to bring other settings.
    #[error("version {version} of {id} is already installed, {difference}")]
    SameVersion {
        /// The plugin.
        id: String,
        /// The installed version.
        version: String,
        /// What is different.
        difference: &'static str,
    },
    /// The package is of another plugin than the one that is to be upgraded.
    #[error("this is a package of {found}, not of {id}")]
    OtherPlugin {
        /// The plugin.
        id: String,
        /// The package's.
        found: String,
    },
    /// A newer version is installed.
    #[error("version {installed} of {id} is installed, which is newer than {offered}")]
    NewerInstalled {
        /// The plugin.
        id: String,
        /// The installed version.
        installed: String,
        /// The package's version.
        offered: String,
    },
    /// The package is another author's.
    #[error("{id} was written by {installed:?}, and this package by {offered:?}")]
    OtherAuthor {
        /// The plugin.
        id: String,
        /// The installed author.
        installed: String,
        /// The package's author.
        offered: String,
    },
    /// The package spells the name differently.
    #[error(
        "{id} is installed as {installed:?}, and this package is named {offered:?}: assets find their plugin by its name"
    )]
    OtherSpelling {
        /// The plugin.
        id: String,
        /// The installed name.
        installed: String,
        /// The package's name.
        offered: String,
    },
    /// The version is not in the plugin's history.
    #[error("version {version} of {id} is not in its history ({history})")]
    NotInHistory {
        /// The plugin.
        id: String,
        /// The version.
        version: String,
        /// What is.
        history: String,
    },
    /// There is nothing to go back to.
    #[error("{id} has no older version than {version}")]
    NoOlderVersion {
        /// The plugin.
        id: String,
        /// The installed version.
        version: String,
    },
    /// A version that would take the place of a working one refuses the settings.
    #[error("version {version} of {id} refuses the settings: {message}")]
    SettingsRefused {
        /// The plugin.
        id: String,
        /// The version.
        version: String,
        /// What it said.
        message: String,
    },
    /// The version can't be loaded into this process, which goes on with the older one.
    #[error("version {version} of {id} can't be loaded into this process, which goes on with the older one: {problem}")]
    NotLoadable {
        /// The plugin.
        id: String,
        /// The version.
        version: String,
        /// Why.
        problem: String,
    },
    /// The files of an installed version are not what they were.
    #[error("the library of version {version} of {id} was changed on disk or is gone")]
    Damaged {
        /// The plugin.
        id: String,
        /// The version.
        version: String,
    },
    /// The settings are larger than settings may be.
    #[error("the settings have {size} bytes; at most {most} are taken")]
    SettingsTooLarge {
        /// Their size.
        size: usize,
        /// The most.
        most: usize,
    },
    /// The package to be checked can't be read.
    #[error("{} can't be checked: {source}", path.display())]
    Check {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// How a plugin is to be run makes no sense.
    #[error("it can't be run so: {problem}")]
    RunPolicy {
        /// What is wrong.
        problem: String,
    },
    /// The settings are no JSON.
    #[error("the settings are not JSON: {0}")]
    SettingsNotJson(#[source] serde_json::Error),
}

impl From<CheckErrors> for HostError {
    /// What the system refuses is told apart from what is wrong with the package.
    fn from(CheckErrors(errors): CheckErrors) -> Self {
        let mut wrong = Vec::with_capacity(errors.len());
        for error in errors {
            match error {
                CheckError::Package(PackageError::Write { path, source }) => return HostError::Write { path, source },
                CheckError::Package(PackageError::Read(source)) => return HostError::Read(source),
                other => wrong.push(other),
            }
        }
        HostError::Package(CheckErrors(wrong))
    }
}

impl HostError {
    /// Returns what kind of error it is, in words that don't change: for programs. Trouble of the disk is of one kind wherever it is
    /// met.
    pub fn kind(&self) -> &'static str {
        if let Some(trouble) = DiskTrouble::of(self) {
            return trouble.name();
        }
        match self {
            HostError::Home { .. } | HostError::Write { .. } => "home",
            HostError::GroupWritable { .. } => "group_writable",
            HostError::ReadOnly { .. } => DiskTrouble::ReadOnly.name(),
            HostError::Read(_) => "unreadable",
            HostError::Thread(_) => "thread",
            HostError::Store(_) => "registry",
            HostError::Package(_) => "package",
            HostError::Trial(_) => "trial",
            HostError::NotInstalled { .. } => "not_installed",
            HostError::InUse { uses, .. } => uses.kind(),
            HostError::AddonTaken { .. } => "addon_taken",
            HostError::HasResources { .. } => "has_resources",
            HostError::OthersResources { .. } => "others_resources",
            HostError::TokenName => "token_name",
            HostError::NoToken { .. } => "no_token",
            HostError::Random(_) => "random",
            HostError::SameVersion { .. } => "same_version",
            HostError::OtherPlugin { .. } => "other_plugin",
            HostError::NewerInstalled { .. } => "newer_installed",
            HostError::OtherAuthor { .. } => "other_author",
            HostError::OtherSpelling { .. } => "other_spelling",
            HostError::NotInHistory { .. } => "not_in_history",
            HostError::NoOlderVersion { .. } => "no_older_version",
            HostError::SettingsRefused { .. } => "settings_refused",
            HostError::NotLoadable { .. } => "not_loadable",
            HostError::Damaged { .. } => "damaged",
            HostError::SettingsTooLarge { .. } => "settings_too_large",
            HostError::Check { .. } => "check",
            HostError::RunPolicy { .. } => "runtime_settings",
            HostError::SettingsNotJson(_) => "settings_not_json",
        }
    }

    /// Why a plugin can't be changed.
    pub(super) fn of_change(id: &str, error: ChangeError) -> Self {
        match error {
            ChangeError::NotInstalled => HostError::NotInstalled { id: id.to_owned() },
            ChangeError::Clash(clash) => HostError::of_addon(id, clash),
            ChangeError::Store(error) => error.into(),
        }
    }

    /// Why a plugin can't have the add-on that it was to have, or none.
    pub(super) fn of_addon(id: &str, clash: AddonClash) -> Self {
        match clash {
            AddonClash::Taken { addon, plugin } => HostError::AddonTaken { addon, plugin },
            AddonClash::LeavesResources { addon, resources } => {
                HostError::HasResources { id: id.to_owned(), addon, resources }
            }
            AddonClash::OthersResources { addon, plugin, author } => {
                HostError::OthersResources { addon, plugin, author }
            }
        }
    }
}
