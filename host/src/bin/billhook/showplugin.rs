//! `billhook showplugin ID`

use std::fmt::Write as _;

use billhook::PluginDetails;

use crate::{Global, PluginId, output::Output};

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
    line("status", summary.status.name());
    line("because", plugin.needs_settings.as_deref().unwrap_or_default());
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
    line("settings", &format!("{:#}", plugin.settings));
    line("package.json", &format!("{:#}", plugin.manifest));
    text.pop();
    text
}
