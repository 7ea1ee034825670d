//! What several verbs are given.

use std::{fs, path::Path};

use anyhow::Context as _;
use billhook::HostError;
use clap::Args;

/// An id of a plugin. Ids may begin with a dash, as names may.
#[derive(Args)]
pub(crate) struct PluginId {
    /// The plugin's id, as listplugins shows it
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub(crate) id: String,
}

/// Reads a file that has to be text.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Reads the file of a `--settings` option.
pub(crate) fn read_settings(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    path.map(read_text).transpose()
}

/// Names the file that an error of the host's is about.
pub(crate) fn about(path: &Path) -> impl FnOnce(HostError) -> anyhow::Error {
    move |error| anyhow::Error::new(error).context(format!("{} was not installed", path.display()))
}
