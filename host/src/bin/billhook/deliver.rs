//! `billhook deliver`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use billhook::{ExecutionFilter, Host};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Global, log, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End when nothing is left to deliver, not even later
    #[arg(long)]
    until_done: bool,
}

/// How often it is looked what was delivered.
const LOOK: Duration = Duration::from_millis(200);
/// How long deliveries that are under way may take at the end.
const LAST_WAIT: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let is_asked_to_end = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_asked_to_end)).context("signals can't be watched")?;
    }
    let newest = host.executions(&ExecutionFilter { limit: 1, ..ExecutionFilter::default() })?;
    let mut after = newest.first().map_or(0, |execution| execution.id);
    host.start_deliveries()?;
    output.note("note", "delivering; Ctrl-C ends it");
    while !is_asked_to_end.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let (is_left, waiting) = if arguments.until_done { host.deliveries_left()? } else { (true, Vec::new()) };
        let is_done = !is_left;
        show(&host, &mut after, output)?;
        if is_done {
            if !waiting.is_empty() {
                let names = waiting.join(", ");
                output.note("note", &format!("what is left waits for listeners that take nothing now: {names}"));
            }
            break;
        }
    }
    host.stop_deliveries(LAST_WAIT);
    show(&host, &mut after, output)
}

/// Prints what was delivered since, one a line.
fn show(host: &Host, after: &mut i64, output: &Output) -> anyhow::Result<()> {
    let executions = host.executions(&ExecutionFilter { after: Some(*after), ..ExecutionFilter::default() })?;
    for execution in &executions {
        *after = execution.id;
        if execution.delivery.is_some() {
            log::print(execution, output)?;
        }
    }
    Ok(())
}
