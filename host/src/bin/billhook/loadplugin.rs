//! `billhook loadplugin ZIP`

use std::path::PathBuf;

use billhook::{Install, Isolation};

use crate::{
    choice::explained_choice, global::Global, inputs::about, inputs::read_settings, output::Output, progress::Progress,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The package
    #[arg(value_name = "ZIP")]
    package: PathBuf,
    /// The plugin's settings, a JSON file; an upgrade keeps those that are there
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where the plugin runs; an upgrade leaves it where it is
    #[arg(long, value_name = "WHERE", value_parser = explained_choice::<Isolation>())]
    isolation: Option<Isolation>,
    /// Upgrade also if the package is by another author, or spells its name differently; and take over an add-on's
    /// resources that another plugin made
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let settings = read_settings(arguments.settings.as_deref())?;
    let host = global.new_host()?;
    let progress = Progress::start(format!("installing {}", arguments.package.display()));
    let install =
        Install { plugin: None, settings: settings.as_deref(), force: arguments.force, isolation: arguments.isolation };
    let installed = host.install(&arguments.package, &install).map_err(about(&arguments.package));
    drop(progress);
    let installed = installed?;

    for warning in &installed.warnings {
        output.note("warning", warning);
    }
    output.answer(&installed, |installed| {
        let plugin = &installed.plugin;
        match &installed.previous {
            _ if installed.repaired => format!("{} {} was there: its files were put back", plugin.id, plugin.version),
            _ if installed.unchanged => {
                format!("{} {} is installed already: nothing changed", plugin.id, plugin.version)
            }
            Some(previous) => format!("{} was upgraded from {previous} to {}", plugin.id, plugin.version),
            None => format!("{} was installed, version {}; listplugins lists all", plugin.id, plugin.version),
        }
    })?;
    if let Some(message) = &installed.needs_settings {
        output.note("warning", &format!("it needs settings and takes no calls before it has them: {message}"));
        output.note("hint", &format!("billhook setplugin {} --settings FILE.json", installed.plugin.id));
    }
    Ok(())
}
