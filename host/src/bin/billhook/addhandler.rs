//! `billhook addhandler NAME --event EVENT --task TASK`

use billhook::{Handler, HandlerStatus};

use crate::{
    global::Global,
    handler_options::{HandlerOptions, task, warning},
    output::Output,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The handler's name, which no other has
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    name: String,
    /// The event, as listevents shows it
    #[arg(long, value_name = "EVENT")]
    event: String,
    /// What is called: an http:// or https:// address, or the absolute path of a script with its arguments
    #[arg(long, value_name = "TASK")]
    task: String,
    /// An argument of the script, behind those of the task; may be repeated
    #[arg(long = "arg", value_name = "WORD", allow_hyphen_values = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    options: HandlerOptions,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let mut handler = Handler::new(&arguments.name, &arguments.event, task(&arguments.task, &arguments.arguments));
    arguments.options.apply(&mut handler, arguments.options.secret()?);
    arguments.options.check(&handler, &arguments.arguments)?;
    let handler = global.new_host()?.add_handler(&handler)?;
    if let Some(warning) = warning(&handler.task) {
        output.note("warning", &warning);
    }
    output.answer(&handler, |handler| {
        let Handler { name, mode, event, status, .. } = handler;
        match status {
            HandlerStatus::Enabled => format!("{name} is called {mode} {event}"),
            status => format!("{name} is added, {status}: enabled, it is called {mode} {event}"),
        }
    })
}
