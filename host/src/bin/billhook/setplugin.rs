//! `billhook setplugin ID --settings FILE --isolation WHERE --runtime FILE`

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use billhook::{Host, HostError, Isolation, RunPolicy, parse_located};

use crate::{
    choice::explained_choice, global::Global, inputs::PluginId, inputs::read_text, output::Output, progress::Progress,
};

#[derive(clap::Args)]
#[group(id = "change", required = true, multiple = true, args = ["settings", "isolation", "runtime", "priority"])]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
    /// The plugin's settings, a JSON file; they replace those that are there
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Where the plugin runs
    #[arg(long, value_name = "WHERE", value_parser = explained_choice::<Isolation>())]
    isolation: Option<Isolation>,
    /// How the plugin is run: a JSON file of deadlines, workers and limits, which replaces what was set before
    #[arg(long, value_name = "FILE")]
    runtime: Option<PathBuf>,
    /// The plugin's place among the listeners of an event: lower ones come first; 100 unless set
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let id = &arguments.plugin.id;
    let settings = arguments.settings.as_deref().map(read_text).transpose()?;
    let host = global.host()?;
    let runtime = runtime(arguments, &host)?;
    let mut said = Vec::new();
    let mut plugin = None;
    // First how it is run, because the settings are tried so.
    if let Some(runtime) = &runtime {
        let progress = Progress::start(format!("trying to run {id} so"));
        let changed = host.set_runtime(id, runtime);
        drop(progress);
        plugin = Some(changed?);
        said.push(format!("{id} is run {}", where_it_runs(runtime)));
    }
    if let Some((settings, path)) = settings.zip(arguments.settings.as_deref()) {
        let progress = Progress::start(format!("trying the settings of {id}"));
        let changed = host.set_settings(id, &settings);
        drop(progress);
        plugin = Some(changed.map_err(|error| named(error, path))?);
        said.push(format!("{id} has the new settings"));
    }
    if let Some(priority) = arguments.priority {
        host.set_priority(id, priority)?;
        said.push(format!("{id} listens with priority {priority}"));
    }
    let plugin = match plugin {
        Some(plugin) => plugin,
        None => host.show(id)?.summary,
    };
    output.answer(&plugin, |_| said.join("\n"))
}

/// How the plugin is to be run, if that is to change.
fn runtime(arguments: &Arguments, host: &Host) -> anyhow::Result<Option<RunPolicy>> {
    if arguments.runtime.is_none() && arguments.isolation.is_none() {
        return Ok(None);
    }
    let present = host.show(&arguments.plugin.id)?.runtime;
    let mut runtime = present.clone();
    if let Some(path) = &arguments.runtime {
        let text = read_text(path)?;
        let refused = |problem: String| anyhow!("{} is refused: {problem}", path.display());
        let fields: serde_json::Map<String, serde_json::Value> = parse_located(&text).map_err(refused)?;
        runtime = parse_located(&text).map_err(refused)?;
        // A file of limits doesn't take a plugin out of its worker by leaving out where it runs.
        if !fields.contains_key("isolation") {
            runtime.isolation = present.isolation;
        }
    }
    if let Some(isolation) = arguments.isolation {
        runtime.isolation = isolation;
    }
    Ok(Some(runtime))
}

fn where_it_runs(runtime: &RunPolicy) -> &'static str {
    match runtime.isolation {
        Isolation::Process => "in worker processes",
        _ => "in the process of the host",
    }
}

fn named(error: HostError, path: &Path) -> anyhow::Error {
    match error {
        HostError::SettingsNotJson(_) | HostError::SettingsTooLarge { .. } => {
            anyhow::Error::new(error).context(format!("{} is refused", path.display()))
        }
        error => error.into(),
    }
}
