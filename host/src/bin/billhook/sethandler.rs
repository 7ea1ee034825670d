//! `billhook sethandler NAME --status STATUS …`

use billhook::Handler;

use crate::{
    global::Global,
    handler_options::{HandlerOptions, task, warning},
    output::Output,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The handler's name, as listhandlers shows it
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    name: String,
    /// Another event
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Another address or script
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// An argument of the new script; may be repeated
    #[arg(long = "arg", value_name = "WORD", allow_hyphen_values = true, requires = "task")]
    arguments: Vec<String>,
    /// Sign calls no longer
    #[arg(long, conflicts_with = "secret_file")]
    no_secret: bool,
    /// Give the script no environment variable but PATH
    #[arg(long, conflicts_with = "env")]
    no_env: bool,
    #[command(flatten)]
    options: HandlerOptions,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let Arguments { name, event, task: new_task, arguments: words, no_secret, no_env, options } = arguments;
    if options.is_empty() && event.is_none() && new_task.is_none() && !no_secret && !no_env {
        anyhow::bail!("nothing is to be changed; sethandler --help shows what can be");
    }
    let secret = options.secret()?;
    let host = global.host()?;
    let set = |handler: &mut Handler, secret: Option<String>| {
        if let Some(event) = event {
            handler.event.clone_from(event);
        }
        if let Some(text) = new_task {
            handler.task = task(text, words);
        }
        if *no_secret {
            handler.secret = None;
        }
        if *no_env {
            handler.environment.clear();
        }
        options.apply(handler, secret);
    };
    let mut changed = host.handler(name)?;
    set(&mut changed, None);
    options.check(&changed, words)?;
    let handler = host.set_handler(name, |handler| set(handler, secret.clone()))?;
    if let Some(warning) = warning(&handler.task).filter(|_| new_task.is_some()) {
        output.note("warning", &warning);
    }
    output.answer(&handler, |handler| format!("{} was changed", handler.name))
}
