//! `billhook showdelivery NUMBER`

use std::fmt::Write as _;

use billhook::{Delivery, DeliveryStatus, Execution, data::Event};
use serde::Serialize;

use crate::{
    global::Global,
    output::Output,
    times::{date, took},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The delivery's number, as listdeliveries shows it
    #[arg(value_name = "NUMBER")]
    number: i64,
}

#[derive(Serialize)]
struct Shown {
    delivery: Delivery,
    envelope: Event,
    executions: Vec<Execution>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let (delivery, envelope, executions) = global.host()?.delivery(arguments.number)?;
    output.answer(&Shown { delivery, envelope, executions }, text)
}

fn text(shown: &Shown) -> String {
    let Shown { delivery, envelope, executions } = shown;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{label:<14}{}", value.replace('\n', "\n              "));
        }
    };
    line("delivery", &delivery.number.to_string());
    line("event", &format!("{} ({})", delivery.event, delivery.event_id));
    line("date", envelope.date.as_str());
    line("object", &delivery.object_id.as_ref().map(ToString::to_string).unwrap_or_default());
    line("listener", &format!("{} {}", delivery.kind.name(), delivery.listener));
    line("status", &delivery.status.to_string());
    line("attempts", &delivery.attempts.to_string());
    if delivery.status == DeliveryStatus::Waiting {
        line("due", &date(delivery.due));
        let before = delivery.waits_for.map(|number| format!("delivery {number}, of the same listener and object"));
        line("waits for", &before.unwrap_or_default());
    }
    line("problem", delivery.problem.as_deref().unwrap_or_default());
    for execution in executions {
        let error = execution.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        let (when, long) = (date(execution.date), took(execution.duration_us));
        let attempt = format!("{when} {} after {long}{error}", execution.status);
        line(&format!("attempt {}", execution.attempt), &attempt);
        line("  answered", execution.response.as_deref().unwrap_or_default());
    }
    line("data", envelope.data.as_str());
    text.pop();
    text
}
