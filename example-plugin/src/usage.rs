//! Pull accounting: the calls that the API's gateway logged.

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind},
    path::Path,
};

use billhook_plugin_api::{Asset, Contract, Decimal, Order, PendingAccounting, PluginError, Timestamp, UsageRecord};
use serde::Deserialize;

use crate::API_CALL;

/// A line of the gateway's log.
#[derive(Deserialize)]
struct Line {
    id: String,
    date: Timestamp<'static>,
    order: String,
    item: String,
    /// Where a contract has several assets, the one that was called.
    asset: Option<String>,
    calls: u64,
}

/// The calls of an asset of a contract since its last usage. Each keeps the gateway's own id, so that none is charged twice.
pub(crate) fn pending(
    log: &Path,
    asset: &Asset,
    contract: &Contract,
    order: &Order,
) -> Result<PendingAccounting, PluginError> {
    let since = contract.last_usage().map(|date| date.to_system_time()).transpose()?;
    let file = match File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(PendingAccounting::default()),
        Err(error) => return Err(PluginError::unavailable(format!("the usage log can't be read: {error}"))),
    };
    let mut found = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line: Line = serde_json::from_str(&line?).map_err(|error| {
            PluginError::internal(format!("line {} of the usage log is wrong: {error}", number + 1))
        })?;
        let moment = line.date.to_system_time()?;
        let is_its_own = line.order == order.order_id()
            && line.item == contract.item_id()
            && line.asset.as_deref().is_none_or(|called| called == asset.id());
        if is_its_own && since.is_none_or(|since| moment > since) {
            found.push((moment, line));
        }
    }
    found.sort_by_key(|(moment, _)| *moment);
    let last_usage = found.last().map(|(_, line)| line.date.clone());
    let record = |line: Line| UsageRecord::new(line.date, API_CALL, Decimal::from(line.calls)).with_id(line.id);
    Ok(PendingAccounting::new(found.into_iter().map(|(_, line)| record(line)).collect(), last_usage))
}
