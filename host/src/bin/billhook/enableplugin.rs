//! `billhook enableplugin ID`

use billhook::PluginStatus;

use crate::{global::Global, inputs::PluginId, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let plugin = global.host()?.set_enabled(&arguments.plugin.id, true)?;
    output.answer(&plugin, |plugin| match plugin.status {
        PluginStatus::NeedsSettings => format!("{} is enabled, and needs settings: setplugin gives it some", plugin.id),
        _ => format!("{} is enabled", plugin.id),
    })
}
