//! `billhook discard NUMBER…`

use serde_json::json;

use crate::{global::Global, output::Output, search::each};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The deliveries' numbers, as listdeliveries shows them
    #[arg(value_name = "NUMBER", required = true)]
    numbers: Vec<i64>,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let host = global.host()?;
    let (numbers, failure) = each(&arguments.numbers, |number| host.discard(number));
    if let Some(error) = failure.as_ref().filter(|_| numbers.is_empty()) {
        tracing::debug!("nothing was changed: {error}");
        return failure.map_or(Ok(()), |error| Err(error.into()));
    }
    output.answer(&json!({ "discarded": numbers }), |_| {
        let count = numbers.len();
        format!("{count} deliver{} will not be attempted again", if count == 1 { "y" } else { "ies" })
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}
