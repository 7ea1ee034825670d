//! `billhook log`

use std::{thread, time::Duration};

use billhook::{Execution, ExecutionFilter, ExecutionStatus, Host, parse_moment};
use clap::ValueEnum;

use crate::{
    Global, listdeliveries,
    output::{Output, rows},
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
    #[arg(long, value_enum, value_name = "STATUS")]
    status: Option<StatusArgument>,
    /// The object's id
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// Not before this: a date, or how long ago, such as 15m
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    since: Option<i64>,
    /// Before this: a date, or how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<i64>,
    /// At most so many, the newest; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Go on with what comes, one a line
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum StatusArgument {
    Success,
    Forbidden,
    Failed,
    TimedOut,
    Unknown,
}

/// How often it is looked whether something came.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let filter = ExecutionFilter {
        event: arguments.event.as_deref().map(|event| listdeliveries::named(&host, event)).transpose()?,
        listener: arguments.listener.clone(),
        object: arguments.object.clone(),
        since: arguments.since,
        until: arguments.until,
        limit: arguments.limit,
        status: arguments.status.map(|status| match status {
            StatusArgument::Success => ExecutionStatus::Success,
            StatusArgument::Forbidden => ExecutionStatus::Forbidden,
            StatusArgument::Failed => ExecutionStatus::Failed,
            StatusArgument::TimedOut => ExecutionStatus::TimedOut,
            StatusArgument::Unknown => ExecutionStatus::Unknown,
        }),
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
    let newest = host.executions(&ExecutionFilter { limit: 1, ..ExecutionFilter::default() })?;
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
        executions = host.executions(&ExecutionFilter { after: Some(after), limit: 0, ..filter.clone() })?;
    }
}

/// Why there may be nothing of a listener.
pub(crate) fn unheard(host: &Host, listener: &str) -> anyhow::Result<String> {
    let is_known = host.handler(listener).is_ok() || host.list()?.iter().any(|plugin| plugin.id == listener);
    Ok(if is_known {
        format!("there is nothing of {listener} like that")
    } else {
        format!("no handler and no plugin is called {listener:?}; listhandlers and listplugins show what there is")
    })
}

fn cells(execution: &Execution) -> Vec<String> {
    vec![
        execution.id.to_string(),
        date(execution.date),
        execution.event.clone(),
        execution.object_id.clone(),
        execution.listener.clone(),
        execution.attempt.to_string(),
        execution.status.name().to_owned(),
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
