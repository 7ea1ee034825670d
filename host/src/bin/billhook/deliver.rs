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
use billhook::{DeliveryFilter, DeliveryStatus, EventError, ExecutionFilter, Host};

use crate::{Global, log, output::Output, signals};

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
    let asked = Arc::clone(&is_asked_to_end);
    signals::watch(move || asked.store(true, Ordering::Relaxed)).context("signals can't be watched")?;
    let newest = host.executions(&ExecutionFilter { limit: 1, ..ExecutionFilter::default() }).unwrap_or_default();
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
    if is_asked_to_end.load(Ordering::Relaxed) {
        output.note("note", "ending after the calls that are under way; Ctrl-C again ends at once");
    }
    host.stop_deliveries(LAST_WAIT);
    show(&host, &mut after, output)?;
    let dead = DeliveryFilter { status: Some(DeliveryStatus::Dead), limit: 1_000, ..DeliveryFilter::default() };
    let dead = host.deliveries(&dead)?.len();
    if dead > 0 {
        let more = if dead == 1_000 { " or more" } else { "" };
        output.note("note", &format!("{dead}{more} dead letters are in the ledger: listdeliveries --status dead"));
    }
    Ok(())
}

/// Prints what was delivered since, one a line.
fn show(host: &Host, after: &mut i64, output: &Output) -> anyhow::Result<()> {
    let executions = match host.executions(&ExecutionFilter { after: Some(*after), ..ExecutionFilter::default() }) {
        Ok(executions) => executions,
        // Events are delivered without it.
        Err(EventError::Log(error)) => {
            tracing::warn!("what is delivered can't be shown: {error}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    for execution in &executions {
        *after = execution.id;
        if execution.delivery.is_some() {
            log::print(execution, output)?;
        }
    }
    Ok(())
}
