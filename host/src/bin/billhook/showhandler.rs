//! `billhook showhandler NAME`

use std::fmt::Write as _;

use billhook::{Handler, Mode, Task};
use serde_json::json;

use crate::{global::Global, output::Output};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The handler's name, as listhandlers shows it
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    name: String,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let handler = global.host()?.handler(&arguments.name)?;
    if !output.is_json() {
        return output.text(&text(&handler));
    }
    let mut value = serde_json::to_value(&handler)?;
    value["is_signed"] = json!(handler.secret.is_some());
    output.json(&value)
}

fn text(handler: &Handler) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<14}{value}");
    };
    let time = |ms: u64| humantime::format_duration(std::time::Duration::from_millis(ms)).to_string();
    line("name", handler.name.clone());
    line("event", handler.event.clone());
    line("mode", handler.mode.to_string());
    line("status", handler.status.to_string());
    line("priority", handler.priority.to_string());
    line("type", handler.task.kind().to_string());
    line("task", handler.task.to_string());
    line("deadline", time(handler.deadline_ms));
    if handler.mode == Mode::Before {
        line("on failure", handler.on_failure.to_string());
    } else {
        let retry = handler.retry;
        let pauses = format!("{} at first, {} at most", time(retry.first_ms), time(retry.longest_ms));
        line("attempts", format!("{}, with pauses of {pauses}", retry.attempts));
    }
    match handler.task {
        Task::Script(_) => {
            let names: Vec<&str> = ["PATH"].into_iter().chain(handler.environment.iter().map(String::as_str)).collect();
            line("environment", names.join(", "));
        }
        _ => line("signed", if handler.secret.is_some() { "yes" } else { "no" }.to_owned()),
    }
    text.pop();
    text
}
