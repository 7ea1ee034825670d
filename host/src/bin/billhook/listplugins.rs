//! `billhook listplugins`

use billhook::PluginSummary;
use comfy_table::{ContentArrangement, Table, presets};

use crate::{
    Global,
    output::{Output, plain},
};

pub(crate) fn run(global: &Global, output: &Output) -> anyhow::Result<()> {
    let Some(host) = global.existing_host()? else {
        let home = global.home()?;
        output.note("warning", &format!("there is no home at {} yet; loadplugin ZIP makes one", home.display()));
        return output.answer(&Vec::<PluginSummary>::new(), |_| String::new());
    };
    let plugins = host.list()?;
    if output.is_terminal() && plugins.is_empty() {
        return output.text("no plugins are installed; loadplugin ZIP installs one");
    }
    let terminal = output.is_terminal();
    output.answer(&plugins, |plugins| if terminal { table(plugins) } else { lines(plugins) })
}

pub(crate) fn table(plugins: &[PluginSummary]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["Id", "Name", "Version", "Author", "Status"]);
    for plugin in plugins {
        let cells = [&plugin.id, &plugin.name, &plugin.version, &plugin.author].map(|cell| plain(cell));
        table.add_row(cells.into_iter().chain([plugin.status.name().to_owned()]));
    }
    table.to_string()
}

fn lines(plugins: &[PluginSummary]) -> String {
    let line = |plugin: &PluginSummary| {
        let PluginSummary { id, name, version, author, status, .. } = plugin;
        // One plugin is one line, whatever its author is called.
        let author = author.replace(['\n', '\t'], " ");
        format!("Name: {name} id: {id} version: {version} author: {author} status: {}", status.name())
    };
    plugins.iter().map(line).collect::<Vec<_>>().join("\n")
}
