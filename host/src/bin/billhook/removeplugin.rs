//! `billhook removeplugin ID`

use crate::{Global, PluginId, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
    /// Remove it also if assets use it, for which nothing will answer any more, or if its usage is not all sent
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let removed = global.host()?.remove(&arguments.plugin.id, arguments.force)?;
    output.answer(&removed, |removed| format!("{} was removed", removed.id))
}
