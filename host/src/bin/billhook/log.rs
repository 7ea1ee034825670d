//! `billhook log`

use std::{thread, time::Duration};

use billhook::{Clock, Execution, ExecutionFilter, ExecutionStatus, MachineClock, Moment, parse_moment};

use crate::{
    choice::choice,
    global::Global,
    output::{Output, rows},
    search::{at_most, named, unheard},
    streams,
    times::{date, took},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The event's or hook's name
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// The handler's name or the plugin's id
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// How it ended
    #[arg(long, value_name = "STATUS", value_parser = choice::<ExecutionStatus>())]
    status: Option<ExecutionStatus>,
    /// The object's id
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// Not before this: a date, or how long ago, such as 15m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Before this: a date, or how long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// At most so many, the newest; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Go on with what comes, one a line
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
}

fn moment(text: &str) -> Result<Moment, String> {
    parse_moment(text, MachineClock.now())
}

/// How often it is looked whether something came.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let filter = ExecutionFilter {
        event: arguments.event.as_deref().map(|event| named(&host, event)).transpose()?,
        listener: arguments.listener.clone(),
        object: arguments.object.clone(),
        since: arguments.since,
        until: arguments.until,
        limit: at_most(arguments.limit),
        status: arguments.status,
        ..ExecutionFilter::default()
    };
    let mut executions = host.executions(&filter)?;
    executions.reverse();
    let dropped = host.dropped_executions()?;
    if dropped > 0 {
        output.warning(&format!(
            "{dropped} calls are not in the log: there were too many at once, or it could not be written"
        ));
    }
    if let Some(listener) = arguments.listener.as_deref().filter(|_| executions.is_empty()) {
        output.note("note", &unheard(&host, listener)?);
    }
    if !arguments.follow {
        let terminal = output.is_terminal();
        return output.answer(&executions, |executions| {
            let titles = ["Id", "Date", "Event", "Object", "Listener", "Attempt", "Status", "Took", "Error"];
            rows(terminal, &titles, executions.iter().map(cells))
        });
    }
    // Where nothing was found, later ones may still be.
    let newest = host.executions(&ExecutionFilter { limit: Some(1), ..ExecutionFilter::default() })?;
    let mut after = newest.first().map_or(0, |execution| execution.id);
    loop {
        for execution in &executions {
            after = after.max(execution.id);
            print(execution, output)?;
        }
        if streams::is_unread() {
            return Ok(());
        }
        thread::sleep(LOOK);
        executions = host.executions(&ExecutionFilter { after: Some(after), limit: None, ..filter.clone() })?;
    }
}

fn cells(execution: &Execution) -> Vec<String> {
    vec![
        execution.id.to_string(),
        date(execution.date),
        execution.event.clone(),
        execution.object_id.clone(),
        execution.listener.clone(),
        execution.attempt.to_string(),
        execution.status.to_string(),
        took(execution.duration_us),
        execution.error.clone().unwrap_or_default(),
    ]
}

/// Prints an execution as one line.
pub(crate) fn print(execution: &Execution, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json_line(execution);
    }
    output.text(&rows(false, &[], [cells(execution)].into_iter()))
}
