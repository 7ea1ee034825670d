//! `billhook callplugin ID HOOK --objects FILE`

use std::path::PathBuf;

use anyhow::anyhow;
use billhook::{ErrorKind, Hook, HookAnswer, HookObjects, parse_located};
use serde::Serialize;

use crate::{global::Global, inputs::PluginId, inputs::read_text, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    plugin: PluginId,
    /// The hook, such as on_product_acquisition
    #[arg(value_name = "HOOK", value_parser = hook_names())]
    hook: String,
    /// The objects that the hook takes, a JSON file
    #[arg(long, value_name = "FILE")]
    objects: Option<PathBuf>,
}

/// What is printed.
#[derive(Serialize)]
struct Outcome {
    outcome: &'static str,
    #[serde(flatten)]
    answer: HookAnswer,
}

fn hook_names() -> clap::builder::PossibleValuesParser {
    Hook::ALL.iter().map(|hook| hook.name()).collect::<Vec<_>>().into()
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let hook: Hook = arguments.hook.parse()?;
    let objects: HookObjects = match &arguments.objects {
        None => HookObjects::default(),
        Some(path) => parse_located(&read_text(path)?)
            .map_err(|problem| anyhow!("{} doesn't hold the objects of a hook: {problem}", path.display()))?,
    };
    let host = global.host()?;
    let id = &arguments.plugin.id;
    // A plugin that isn't there is the operator's mistake, not the hook's refusal.
    host.show(id)?;
    match host.call(id, hook, objects) {
        Ok(reply) => {
            let outcome = if reply.is_some() { "ok" } else { "not implemented" };
            output.json(&Outcome { outcome, answer: HookAnswer(reply) })
        }
        Err(error) => {
            if arguments.objects.is_none() && error.kind() == ErrorKind::BadValue {
                output.note("hint", "name the objects that the hook takes with --objects FILE.json");
            }
            output.json(&serde_json::json!({ "outcome": "refused", "refusal": error }))?;
            Err(error.into())
        }
    }
}
