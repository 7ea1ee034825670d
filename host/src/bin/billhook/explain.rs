//! `billhook explain EVENT --asset-type TYPE`

use billhook::Step;

use crate::{
    global::Global,
    output::{Output, rows},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The event or hook
    #[arg(value_name = "EVENT")]
    event: String,
    /// The type of the asset that a hook is about
    #[arg(long, value_name = "TYPE", allow_hyphen_values = true)]
    asset_type: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let steps = global.host()?.explain(&arguments.event, arguments.asset_type.as_deref())?;
    let terminal = output.is_terminal();
    output.answer(&steps, |steps| {
        let cells = |(index, step): (usize, &Step)| {
            let priority = step.priority.map(|priority| priority.to_string()).unwrap_or_default();
            let number = (index + 1).to_string();
            vec![number, step.phase.to_owned(), priority, step.kind.to_owned(), step.who.clone(), step.what.clone()]
        };
        rows(terminal, &["", "Phase", "Priority", "Kind", "Who", "What"], steps.iter().enumerate().map(cells))
    })
}
