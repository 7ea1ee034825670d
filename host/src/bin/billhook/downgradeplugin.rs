//! `billhook downgradeplugin ID [VERSION]`

use std::path::PathBuf;

use billhook::Downgrade;

use crate::{global::Global, inputs::PluginId, inputs::read_settings, output::Output, progress::Progress};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
    /// The version to go back to [default: the one before]
    #[arg(value_name = "VERSION")]
    version: Option<String>,
    /// Settings for the older version, a JSON file
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let settings = read_settings(arguments.settings.as_deref())?;
    let downgrade = Downgrade { version: arguments.version.as_deref(), settings: settings.as_deref() };
    let host = global.host()?;
    let progress = Progress::start(format!("downgrading {}", arguments.plugin.id));
    let plugin = host.downgrade(&arguments.plugin.id, &downgrade);
    drop(progress);
    output.answer(&plugin?, |plugin| format!("{} was downgraded to {}", plugin.id, plugin.version))
}
