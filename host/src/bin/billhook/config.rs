//! The configuration: what the command is told about its surroundings, in a TOML file.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use billhook::{HostOptions, HttpUsageApi, UsageApiSettings};
use serde::Deserialize;

/// What a configuration file may hold.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    usage_api: Option<UsageApiSettings>,
    handlers: Handlers,
    log: Log,
    #[cfg(feature = "server")]
    server: billhook::server::ServerOptions,
    /// Left alone by a command that was built without the server.
    #[cfg(not(feature = "server"))]
    server: toml::Table,
}

/// What is allowed to handlers.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Handlers {
    /// The hosts that may be called; all if it is left out.
    allowed_hosts: Option<Vec<String>>,
}

/// The execution log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    /// Whether calls of hooks are in it.
    hooks: bool,
    /// For how many days executions are kept.
    keep_days: u64,
    /// How large the log may grow, in MiB.
    keep_mb: u64,
}

impl Default for Log {
    fn default() -> Self {
        Log { hooks: true, keep_days: 30, keep_mb: 1024 }
    }
}

/// The name of the file in a home.
const IN_HOME: &str = "config.toml";

impl Config {
    /// Reads the file that was named, or else the one in the home, if there is one.
    pub(crate) fn read(named: Option<PathBuf>, home: &Path) -> anyhow::Result<Self> {
        let (path, has_to_exist) = match named {
            Some(path) => (path, true),
            None => (home.join(IN_HOME), false),
        };
        let text = match std::fs::read_to_string(&path) {
            // Whether the home can be used at all is told when it is opened.
            Err(error) if !has_to_exist && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            read => read.with_context(|| format!("the configuration {} can't be read", path.display()))?,
        };
        // Not the whole error: it shows the line, which may hold a secret.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            // A value of the wrong kind is quoted in the message, and may be a secret.
            let is_about_value = error.message().starts_with("invalid");
            let message = if is_about_value { "a value of the wrong kind" } else { error.message() };
            anyhow::anyhow!("the configuration {} is wrong: {line}{message}", path.display())
        })
    }

    /// How the server works with this configuration.
    #[cfg(feature = "server")]
    pub(crate) fn server(&self) -> billhook::server::ServerOptions {
        self.server.clone()
    }

    /// How the host works with this configuration.
    pub(crate) fn options(&self) -> anyhow::Result<HostOptions> {
        let Log { hooks, keep_days, keep_mb } = self.log;
        let age = Duration::from_secs(keep_days.saturating_mul(86_400));
        let mut options = HostOptions::new().record(hooks).keep_executions(age, keep_mb.saturating_mul(1024 * 1024));
        if let Some(hosts) = &self.handlers.allowed_hosts {
            options = options.allowed_hosts(hosts.iter().cloned());
        }
        if let Some(settings) = &self.usage_api {
            options = options.usage_api(Arc::new(HttpUsageApi::new(settings)?));
        }
        Ok(options)
    }
}
