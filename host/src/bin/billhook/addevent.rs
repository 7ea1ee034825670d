//! `billhook addevent NAME --description TEXT`

use serde_json::json;

use crate::{global::Global, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The event's name: parts with dots between them, such as tickets.create
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is about
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    global.new_host()?.add_event(&arguments.name, &arguments.description)?;
    output.answer(&json!({ "added": arguments.name }), |_| format!("{} can be emitted and listened to", arguments.name))
}
