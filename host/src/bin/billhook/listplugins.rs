//! `billhook listplugins`

use billhook::PluginSummary;

use crate::{
    global::Global,
    output::{Output, rows},
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
    let cells = |plugin: &PluginSummary| {
        let PluginSummary { id, name, version, author, status, .. } = plugin.clone();
        vec![id, name, version, author, status.to_string()]
    };
    rows(true, &["Id", "Name", "Version", "Author", "Status"], plugins.iter().map(cells))
}

fn lines(plugins: &[PluginSummary]) -> String {
    let line = |plugin: &PluginSummary| {
        let PluginSummary { id, name, version, author, status, .. } = plugin;
        // One plugin is one line, whatever its author is called.
        let author = author.replace(['\n', '\t'], " ");
        format!("Name: {name} id: {id} version: {version} author: {author} status: {status}")
    };
    plugins.iter().map(line).collect::<Vec<_>>().join("\n")
}
