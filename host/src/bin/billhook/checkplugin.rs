//! `billhook checkplugin PATH`

use std::path::PathBuf;

use anyhow::{Context, bail};
use billhook::{Host, HostOptions, package::Limits};

use crate::{inputs::read_settings, output::Output, progress::Progress};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A package, the folder of an unpacked one, or a package.json
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Also load and construct it, in a process of its own: this runs the package's code
    #[arg(long = "try")]
    try_it: bool,
    /// Settings to try it with, a JSON file
    #[arg(long, value_name = "FILE", requires = "try_it")]
    settings: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> anyhow::Result<()> {
    let path = &arguments.path;
    let settings = read_settings(arguments.settings.as_deref())?;
    let progress = Progress::start(format!("checking {}", path.display()));
    let report = if arguments.try_it {
        Host::check_and_try(path, settings.as_deref(), &HostOptions::default())?
    } else {
        Host::check(path, &Limits::default()).with_context(|| format!("{} can't be checked", path.display()))?
    };
    drop(progress);
    if output.is_json() {
        output.json(&report)?;
    }
    for warning in &report.warnings {
        output.note("warning", warning);
    }
    if !report.is_valid() {
        bail!("{} is wrong:\n{}", path.display(), report.errors.join("\n"));
    }
    if !output.is_json() {
        let name = report.name.as_deref().unwrap_or_default();
        let (id, version) = (report.id.as_deref().unwrap_or_default(), report.version.as_deref().unwrap_or_default());
        output.text(&format!("{} is right: {name:?}, version {version}, id {id}", path.display()))?;
    }
    Ok(())
}
