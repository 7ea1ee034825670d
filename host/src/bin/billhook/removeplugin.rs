//! `billhook removeplugin ID`

use crate::{global::Global, inputs::PluginId, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
    /// Remove it also if something needs it or it keeps anything: deletes what it keeps for good; assets that use it have nothing
    /// that answers for them any more; unsent usage and resources of its add-on stay listed
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let removed = global.host()?.remove(&arguments.plugin.id, arguments.force)?;
    output.answer(&removed, |removed| format!("{} was removed", removed.id))
}
