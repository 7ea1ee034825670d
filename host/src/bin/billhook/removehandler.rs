//! `billhook removehandler NAME`

use serde_json::json;

use crate::{global::Global, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The handler's name, as listhandlers shows it
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    name: String,
    /// Also if it has deliveries left: they become dead letters
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    global.host()?.remove_handler(&arguments.name, arguments.force)?;
    output.answer(&json!({ "removed": arguments.name }), |_| format!("{} was removed", arguments.name))
}
