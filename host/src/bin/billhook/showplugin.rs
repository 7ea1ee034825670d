//! `billhook showplugin ID`

use std::fmt::Write as _;

use billhook::{Host, Isolation, PendingSpec, PluginDetails, RunPolicy, UsageSpecState};

use crate::{global::Global, inputs::PluginId, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    output.answer(&global.host()?.show(&arguments.plugin.id)?, text)
}

fn text(plugin: &PluginDetails) -> String {
    let summary = &plugin.summary;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{label:<14}{}", value.replace('\n', "\n              "));
        }
    };
    let list = |values: &[String]| values.join(", ");
    line("id", &summary.id);
    line("name", &summary.name);
    line("version", &summary.version);
    line("author", &summary.author);
    line("status", &summary.status.to_string());
    line("because", plugin.needs_settings.as_deref().or(plugin.quarantined.as_deref()).unwrap_or_default());
    let older: Vec<String> = plugin.history.iter().rev().skip(1).map(|entry| entry.version.clone()).collect();
    line("older", &list(&older));
    line("used by", &format!("{} asset{}", plugin.assets_in_use, if plugin.assets_in_use == 1 { "" } else { "s" }));
    line("library", &plugin.module.path);
    line("built with", &format!("API {}, {}, for {}", plugin.module.api, plugin.module.compiler, plugin.module.target));
    line("needs", &list(&plugin.module.needs));
    line("hooks", &plugin.module.hooks.join("\n"));
    let units: Vec<String> =
        plugin.usage_specs.iter().map(|spec| format!("{}: {}", spec.name, spec.description)).collect();
    line("accounts for", &units.join("\n"));
    line("usage API", &plugin.usage_api.iter().map(usage_spec).collect::<Vec<_>>().join("\n"));
    if plugin.unsent_usage > 0 {
        line("unsent usage", &format!("{} records", plugin.unsent_usage));
    }
    if plugin.state.values > 0 {
        line("keeps", &plugin.state.to_string());
    }
    line("priority", &plugin.priority.map(|priority| priority.to_string()).unwrap_or_default());
    line("runs", &runs(plugin));
    line("settings", &format!("{:#}", plugin.settings));
    line("package.json", &format!("{:#}", plugin.manifest));
    text.pop();
    text
}

/// Where and how it runs, but for what is as it is unless set.
fn runs(plugin: &PluginDetails) -> String {
    let place = match plugin.runtime.isolation {
        Isolation::Process => "in worker processes",
        _ => "in the process of the host",
    };
    let mut text = place.to_owned();
    if plugin.runtime.isolation == Isolation::Process {
        for lacking in Host::lacking_confinements() {
            let allowed = plugin.runtime.limits.may_lack.contains(&lacking);
            let then = if allowed { "allowed" } else { "its workers don't start" };
            let _ = write!(text, "\nthis kernel lacks {}: {then}", lacking.name());
        }
    }
    let set = serde_json::to_value(&plugin.runtime).unwrap_or_default();
    let unless_set = serde_json::to_value(RunPolicy::default()).unwrap_or_default();
    for (name, value) in set.as_object().into_iter().flatten() {
        if name != "isolation" && unless_set.get(name) != Some(value) {
            let _ = write!(text, "\n{name}: {value}");
        }
    }
    text
}

/// What the usage API has of a unit, and what is pending.
fn usage_spec(spec: &UsageSpecState) -> String {
    let why = spec.failure.as_deref().map(|failure| format!(", because {failure}")).unwrap_or_default();
    match spec.pending {
        None => format!("{} is at {}", spec.name, spec.href.as_deref().unwrap_or_default()),
        Some(PendingSpec::Create) => format!("{} is not there yet{why}", spec.name),
        Some(_) => format!("{} is still to be deleted{why}", spec.name),
    }
}
