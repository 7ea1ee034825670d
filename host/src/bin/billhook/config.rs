//! The configuration: what the command is told about its surroundings, in a TOML file.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use billhook::{HostOptions, HttpUsageApi, UsageApiSettings};
use serde::Deserialize;

/// What a configuration file may hold.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    usage_api: Option<UsageApiSettings>,
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

    /// How the host works with this configuration.
    pub(crate) fn options(&self) -> anyhow::Result<HostOptions> {
        let mut options = HostOptions::new();
        if let Some(settings) = &self.usage_api {
            options = options.usage_api(Arc::new(HttpUsageApi::new(settings)?));
        }
        Ok(options)
    }
}
