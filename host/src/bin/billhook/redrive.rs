//! `billhook redrive NUMBER…`

use billhook::{DeliveryFilter, DeliveryStatus};
use serde_json::json;

use crate::{global::Global, output::Output, search::each};

#[derive(clap::Args)]
#[group(id = "which", required = true, args = ["numbers", "all_dead"])]
pub(crate) struct Arguments {
    /// The deliveries' numbers, as listdeliveries shows them
    #[arg(value_name = "NUMBER")]
    numbers: Vec<i64>,
    /// All dead letters; with --listener those of one listener
    #[arg(long, conflicts_with = "numbers")]
    all_dead: bool,
    /// The handler's name or the plugin's id
    #[arg(long, value_name = "NAME", requires = "all_dead")]
    listener: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let mut numbers = arguments.numbers.clone();
    if arguments.all_dead {
        let listener = arguments.listener.clone();
        let filter = DeliveryFilter { status: Some(DeliveryStatus::Dead), listener, ..DeliveryFilter::default() };
        numbers = host.deliveries(&filter)?.iter().rev().map(|delivery| delivery.number).collect();
    }
    let (numbers, failure) = each(&numbers, |number| host.redrive(number));
    if let Some(error) = failure.as_ref().filter(|_| numbers.is_empty()) {
        tracing::debug!("nothing was changed: {error}");
        return failure.map_or(Ok(()), |error| Err(error.into()));
    }
    output.answer(&json!({ "redriven": numbers }), |_| {
        let count = numbers.len();
        format!("{count} deliver{} will be attempted again, by a running host", if count == 1 { "y" } else { "ies" })
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}
