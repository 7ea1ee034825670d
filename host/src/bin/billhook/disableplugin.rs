//! `billhook disableplugin ID`

use crate::{global::Global, inputs::PluginId, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let plugin = global.host()?.set_enabled(&arguments.plugin.id, false)?;
    output.answer(&plugin, |plugin| format!("{} is disabled: its calls are answered as unavailable", plugin.id))
}
