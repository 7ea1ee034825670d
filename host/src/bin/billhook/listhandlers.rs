//! `billhook listhandlers`

use billhook::{Handler, HandlerFilter, HandlerStatus, TaskKind};

use crate::{
    choice::choice,
    global::Global,
    output::{Output, rows},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A part of the name, in whatever case
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// The event
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// The handler's type
    #[arg(long = "type", value_name = "TYPE", value_parser = choice::<TaskKind>())]
    kind: Option<TaskKind>,
    /// The status; left out: enabled and disabled ones
    #[arg(long, value_name = "STATUS", value_parser = choice::<HandlerStatus>())]
    status: Option<HandlerStatus>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let Some(host) = global.existing_host()? else {
        let home = global.home()?;
        output.note("warning", &format!("there is no home at {} yet; addhandler makes one", home.display()));
        return output.answer(&Vec::<Handler>::new(), |_| String::new());
    };
    let filter = HandlerFilter {
        name: arguments.name.clone(),
        event: arguments.event.clone(),
        kind: arguments.kind,
        status: arguments.status,
    };
    let handlers = host.handlers(&filter)?;
    let terminal = output.is_terminal();
    if terminal && handlers.is_empty() {
        return output.text("no handler is like that; addhandler NAME --event EVENT --task TASK adds one");
    }
    output.answer(&handlers, |handlers| {
        let cells = |handler: &Handler| {
            let Handler { name, event, mode, status, priority, task, .. } = handler;
            let (kind, task) = (task.kind().to_string(), task.to_string());
            vec![name.clone(), event.clone(), mode.to_string(), status.to_string(), priority.to_string(), kind, task]
        };
        let titles = ["Name", "Event", "Mode", "Status", "Priority", "Type", "Task"];
        rows(terminal, &titles, handlers.iter().map(cells))
    })
}
