//! `billhook removeevent NAME`

use serde_json::json;

use crate::{global::Global, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The name of an event that was added
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    global.host()?.remove_event(&arguments.name)?;
    output.answer(&json!({ "removed": arguments.name }), |_| format!("{} was removed", arguments.name))
}
