//! What every verb takes, and the home that it leads to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use billhook::{Host, HostOptions};
use clap::{ArgAction, Args};

use crate::config;

/// What every verb takes.
#[derive(Args)]
pub(crate) struct Global {
    /// The folder that holds the installed plugins [env: BILLHOOK_HOME] [default: billhook in the platform's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// The configuration, a TOML file [env: BILLHOOK_CONFIG] [default: config.toml in the home, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The group of the home may write to it, as on a volume of Kubernetes [env: BILLHOOK_GROUP_WRITABLE=1]
    #[arg(long, global = true)]
    pub(crate) group_writable: bool,
    /// Answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log to standard error what happens; twice for details, thrice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// The home that was asked for.
    pub(crate) fn home(&self) -> anyhow::Result<PathBuf> {
        // Not read by clap, whose messages would then show `--home` as if it were required.
        let named = self.home.clone().or_else(|| std::env::var_os("BILLHOOK_HOME").map(PathBuf::from));
        if let Some(home) = named.filter(|home| !home.as_os_str().is_empty()) {
            return Ok(home);
        }
        let folders = directories::ProjectDirs::from("", "", "billhook");
        let folders = folders.context("this system has no data folder; name one with --home DIR or BILLHOOK_HOME")?;
        Ok(folders.data_dir().to_owned())
    }

    /// Opens the home, and makes it if there is none.
    pub(crate) fn new_host(&self) -> anyhow::Result<Host> {
        self.open(self.home()?)
    }

    pub(crate) fn open(&self, home: PathBuf) -> anyhow::Result<Host> {
        let config = self.config(&home)?;
        Ok(Host::open_with(home, self.options(&config)?)?)
    }

    /// How the host works.
    pub(crate) fn options(&self, config: &config::Config) -> anyhow::Result<HostOptions> {
        Ok(config.options()?.group_writable(self.is_group_writable()))
    }

    /// Whether the operator said that the home's group may write to it. Never by a file in the home: whoever can write to that could
    /// say it for themselves.
    pub(crate) fn is_group_writable(&self) -> bool {
        let said = std::env::var_os("BILLHOOK_GROUP_WRITABLE").unwrap_or_default();
        self.group_writable || ["1", "true", "yes"].iter().any(|word| said.eq_ignore_ascii_case(word))
    }

    /// The configuration for a home.
    pub(crate) fn config(&self, home: &Path) -> anyhow::Result<config::Config> {
        let named = self.config.clone().or_else(|| std::env::var_os("BILLHOOK_CONFIG").map(PathBuf::from));
        config::Config::read(named.filter(|path| !path.as_os_str().is_empty()), home)
    }

    /// Opens the home, if there is one: only installing makes one, so that a misspelt name is noticed.
    pub(crate) fn existing_host(&self) -> anyhow::Result<Option<Host>> {
        let home = self.home()?;
        // Also in a folder that is there: one without a registry is no home yet.
        // What has folders as a home does, and isn't one, is told of where it is opened.
        let is_missing = |name: &str| match fs::metadata(home.join(name)) {
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            Ok(_) => false,
        };
        if ["registry.db", "packages", "staging"].into_iter().all(is_missing) {
            return Ok(None);
        }
        Ok(Some(self.open(home)?))
    }

    /// Opens the home, which has to be there.
    pub(crate) fn host(&self) -> anyhow::Result<Host> {
        let home = self.home()?;
        let none = || {
            format!(
                "there is no home at {}; loadplugin makes one, as addhandler does, and --home DIR names another",
                home.display()
            )
        };
        self.existing_host()?.with_context(none)
    }
}
