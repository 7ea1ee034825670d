//! `billhook deliver`

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use billhook::{DeliveryFilter, DeliveryStatus, ExecutionFilter, Host};

use crate::{global::Global, log, output::Output, signals, streams};

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
/// How long whoever reads what was delivered may take for the rest of it.
const LAST_PRINT: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = Arc::new(global.host()?);
    let is_asked_to_end = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_asked_to_end);
    signals::watch(move || asked.store(true, Ordering::Relaxed)).context("signals can't be watched")?;
    let shown = Shown::start(&host, *output).context("what is delivered can't be shown")?;
    host.start_deliveries()?;
    output.note("note", "delivering; Ctrl-C ends it");
    while !is_asked_to_end.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let (is_left, waiting) = if arguments.until_done { host.deliveries_left()? } else { (true, Vec::new()) };
        if !is_left {
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
    shown.end();
    let dead = DeliveryFilter { status: Some(DeliveryStatus::Dead), limit: Some(1_000), ..DeliveryFilter::default() };
    let dead = host.deliveries(&dead)?.len();
    if dead > 0 {
        let more = if dead == 1_000 { " or more" } else { "" };
        output.note("note", &format!("{dead}{more} dead letters are in the ledger: listdeliveries --status dead"));
    }
    Ok(())
}

/// Prints what is delivered, on a thread of its own: whoever reads it slowly, or not at all, holds up no delivery and no end.
struct Shown {
    is_last: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Shown {
    /// Begins with what is delivered from now on.
    fn start(host: &Arc<Host>, output: Output) -> io::Result<Self> {
        let newest =
            host.executions(&ExecutionFilter { limit: Some(1), ..ExecutionFilter::default() }).unwrap_or_default();
        let mut after = newest.first().map_or(0, |execution| execution.id);
        let is_last = Arc::new(AtomicBool::new(false));
        let (host, last) = (Arc::clone(host), Arc::clone(&is_last));
        let show = move || {
            loop {
                let is_last = last.load(Ordering::Relaxed);
                // Events are delivered without it.
                if let Err(error) = show(&host, &mut after, &output) {
                    tracing::warn!("what is delivered can't be shown: {error}");
                }
                if is_last || streams::is_unread() {
                    return;
                }
                thread::park_timeout(LOOK);
            }
        };
        let thread = thread::Builder::new().name("billhook-shown".to_owned()).spawn(show)?;
        Ok(Shown { is_last, thread })
    }

    /// Prints the rest, as far as somebody reads it in a time.
    fn end(self) {
        self.is_last.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let deadline = Instant::now() + LAST_PRINT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Prints what was delivered since, one a line.
fn show(host: &Host, after: &mut i64, output: &Output) -> anyhow::Result<()> {
    let filter = ExecutionFilter { after: Some(*after), ..ExecutionFilter::default() };
    for execution in &host.executions(&filter)? {
        *after = execution.id;
        if execution.delivery.is_some() {
            log::print(execution, output)?;
        }
    }
    Ok(())
}
