//! `billhook setplugin ID --settings FILE`

use std::path::PathBuf;

use billhook::HostError;

use crate::{Global, PluginId, output::Output, progress::Progress, read_text};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
    /// The plugin's settings, a JSON file; they replace those that are there
    #[arg(long, value_name = "FILE")]
    settings: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let settings = read_text(&arguments.settings)?;
    let host = global.host()?;
    let progress = Progress::start(format!("trying the settings of {}", arguments.plugin.id));
    let plugin = host.set_settings(&arguments.plugin.id, &settings);
    drop(progress);
    let plugin = plugin.map_err(|error| match error {
        HostError::SettingsNotJson(_) | HostError::SettingsTooLarge { .. } => {
            anyhow::Error::new(error).context(format!("{} is refused", arguments.settings.display()))
        }
        error => error.into(),
    });
    output.answer(&plugin?, |plugin| format!("{} has the new settings", plugin.id))
}
