//! A refresh of a contract's usage: plugins are asked, their answers checked and recorded, and what is recorded is sent.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use billhook_plugin_api::{
    Hook, PendingAccounting, Timestamp,
    call::{HookCall, HookReply},
    data::{Asset, AssetChanges, Contract, Order, UsageRecord, UsageSpec},
};

use billhook_model::number;
use billhook_store::{
    LastUsage, LockName, NewUsage, RecordedUsage, ReportedUsage, UsageContract, UsageKey, UsageReport,
};

use super::{Accounting, UsageApiError, UsageError, send::Sent};
use crate::{
    dispatch::{Dispatcher, HookError, Target},
    lifecycle::{Catalogue, assets_of_offering},
};

/// What a refresh of a contract's usage came to. Everything that plugins reported is recorded, whatever became of sending it:
/// save the contract's new values in any case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UsageRefreshed {
    /// What became of each asset.
    pub outcomes: Vec<UsageOutcome>,
    /// The contract's new `correlation_number`: save it.
    pub correlation_number: u64,
    /// The contract's new `last_usage`: save it.
    pub last_usage: Option<Timestamp<'static>>,
    /// How many records' documents were guided by this refresh.
    pub sent: u64,
    /// How many records of this order and product have no guided document yet; a later refresh sends them.
    pub unsent: u64,
    /// Why not all were sent.
    pub failure: Option<UsageApiError>,
}

/// What became of one asset.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UsageOutcome {
    /// The asset, as it was before the hook.
    pub asset: Asset,
    /// What its plugin reported, or why nothing of it was recorded.
    pub result: Result<AssetUsage, HookError>,
}

/// What a plugin reported for an asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AssetUsage {
    /// What the hook changed on the asset: save it.
    pub changes: AssetChanges,
    /// How many records are new.
    pub recorded: u64,
    /// How many were reported before.
    pub known: u64,
}

/// A plugin's answer, checked.
struct Answer {
    plugin: String,
    units: Vec<UsageSpec>,
    pending: PendingAccounting,
    changes: AssetChanges,
}

impl Accounting {
    pub(crate) fn refresh(
        &self,
        dispatcher: &Dispatcher,
        order: &Order,
        contract: &Contract,
        catalogue: &dyn Catalogue,
    ) -> Result<UsageRefreshed, UsageError> {
        self.api()?;
        let key = key_of(order, contract)?;
        let assets = assets_of_offering(&contract.offering, catalogue)?;
        let lock = self.lock(&LockName::Usage { order: &key.order, product: &key.product }, self.patience)?;
        let _lock = lock.ok_or(UsageError::Busy(self.patience))?;

        let is_only = assets.len() == 1;
        let mut answers = Vec::with_capacity(assets.len());
        for asset in assets {
            let answer = self.ask(dispatcher, &asset, is_only, contract, order, &key)?;
            answers.push((asset, answer));
        }
        refuse_shared_ids(&mut answers);
        let of_plugins: Vec<(String, String)> = answers
            .iter()
            .filter_map(|(asset, _)| Some((dispatcher.plugin_of(HOOK, &asset.resource_type).ok()?, asset.id.clone())))
            .collect();
        let mut reports = Vec::new();
        for (asset, answer) in &answers {
            if let Ok(answer) = answer {
                reports.push(report(answer, &asset.id));
            }
        }
        let customer = order.customer.username.as_str();
        let recording = UsageContract {
            key: &key,
            item: &contract.item_id,
            customer,
            next: contract.correlation_number,
            assets: &of_plugins,
            last_usage: contract.last_usage.as_ref().map(Timestamp::as_str),
        };
        let RecordedUsage { reports: recorded, next: correlation_number } = self.book.record(&recording, &reports)?;
        for (report, counts) in reports.iter().zip(&recorded) {
            if counts.known > 0 {
                self.warn_of_changes(report, &key, &contract.item_id);
            }
        }
        drop(reports);

        // From here on nothing is an error: the contract's new values have to reach the caller.
        let sent = self.send(&key).unwrap_or_else(|error| {
            let failure = Some(UsageApiError::Unavailable(error.to_string()));
            Sent { sent: 0, unsent: self.book.unsent_usage(&key).unwrap_or(0), failure }
        });
        let mut last_usage = contract.last_usage.clone();
        let mut recorded = recorded.into_iter();
        let outcomes = answers.into_iter().map(|(asset, answer)| {
            let result = answer.map(|answer| {
                last_usage = later(last_usage.take(), answer.pending.last_usage);
                let counts = recorded.next().unwrap_or_default();
                AssetUsage { changes: answer.changes, recorded: counts.new, known: counts.known }
            });
            UsageOutcome { asset, result }
        });
        let outcomes = outcomes.collect();
        let Sent { sent, unsent, failure } = sent;
        Ok(UsageRefreshed { outcomes, correlation_number, last_usage, sent, unsent, failure })
    }

    /// Asks an asset's plugin for its pending usage, and checks the answer: it is taken as a whole or not at all.
    fn ask(
        &self,
        dispatcher: &Dispatcher,
        asset: &Asset,
        is_only: bool,
        contract: &Contract,
        order: &Order,
        key: &UsageKey,
    ) -> Result<Result<Answer, HookError>, UsageError> {
        let hook = HOOK;
        let plugin = match dispatcher.plugin_of(hook, &asset.resource_type) {
            Ok(plugin) => plugin,
            Err(error) => return Ok(Err(error.about(&asset.id))),
        };
        // A contract has one time of its last usage. Where it has several assets, each is asked since its own, or else
        // the usage of one that failed would be skipped because another went on.
        let mut own;
        let mut contract = contract;
        if !is_only && contract.last_usage.is_some() {
            let LastUsage { date, is_contract_known } =
                self.book.last_usage(&plugin, &asset.id, key, &contract.item_id)?;
            // A contract that comes from elsewhere brings its last usage along, for all its assets.
            if is_contract_known {
                let since = date.and_then(|since| Timestamp::new(since).ok());
                own = contract.clone();
                own.last_usage = since.and_then(|since| earlier(since, own.last_usage.take()));
                contract = &own;
            }
        }
        let call = HookCall::GetPendingAccounting { asset, contract, order: order.into() };
        let (pending, changes) = match dispatcher.call(Target::Type(&asset.resource_type), call) {
            Ok(Some(HookReply::GetPendingAccounting(returned))) => (returned.pending_accounting, returned.changes),
            Ok(_) => Default::default(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let units = self.book.declared_units(&plugin)?.unwrap_or_default();
        Ok(match check(&pending, &units) {
            Ok(()) => Ok(Answer { plugin, units, pending, changes }),
            Err(problem) => {
                let problem = format!("nothing of what it reported was recorded: {problem}");
                Err(HookError::invalid(hook, &plugin, problem).about(&asset.id))
            }
        })
    }

    /// A record that comes again is the one that was recorded, also if the plugin changed it: say so, nobody else will.
    fn warn_of_changes(&self, report: &UsageReport<'_>, key: &UsageKey, item: &str) {
        for record in &report.records {
            let Some(id) = record.identity.strip_prefix(WITH_ID) else { continue };
            let ReportedUsage { unit, date, value } =
                match self.book.reported_as(report.plugin, key, item, &record.identity) {
                    Ok(Some(reported)) => reported,
                    Ok(None) => continue,
                    Err(error) => return tracing::warn!("what was reported before can't be read: {error}"),
                };
            let is_same = unit.to_lowercase() == record.unit.name.to_lowercase()
                && moment(&date) == moment(record.date)
                && number::is_equal(&value, record.value);
            if !is_same {
                tracing::warn!(
                    plugin = report.plugin,
                    order = key.order,
                    item,
                    "the usage record {id:?} was reported as {value} {unit} and now as {} {}: the first is charged",
                    record.value,
                    record.unit.name,
                );
            }
        }
    }
}

const HOOK: Hook = Hook::GetPendingAccounting;

/// What the usage of a contract is kept and sent under.
fn key_of(order: &Order, contract: &Contract) -> Result<UsageKey, UsageError> {
    let product = contract.product_id.clone().unwrap_or_default();
    let lacks = match (order.order_id.as_str(), product.as_str(), order.customer.username.as_str()) {
        ("", _, _) => "order id",
        (_, "", _) => "product",
        (_, _, "") => "customer",
        _ => return Ok(UsageKey { order: order.order_id.clone(), product }),
    };
    Err(UsageError::Incomplete { order: order.order_id.clone(), item: contract.item_id.clone(), lacks })
}

/// Refuses an answer that has another record under the id of a record of an earlier asset: one of them would be lost.
fn refuse_shared_ids(answers: &mut [(Asset, Result<Answer, HookError>)]) {
    for later in 1..answers.len() {
        let (earlier, rest) = answers.split_at_mut(later);
        let (asset, result) = &mut rest[0];
        let Ok(answer) = result else { continue };
        let mut known: HashMap<&str, &UsageRecord> = HashMap::new();
        let of_plugin = earlier.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        for record in of_plugin.filter(|other| other.plugin == answer.plugin).flat_map(|other| &other.pending.records) {
            record.id.as_deref().map(|id| known.insert(id, record));
        }
        let is_other = |record: &&UsageRecord| {
            record.id.as_deref().and_then(|id| known.get(id)).is_some_and(|other| !same(other, record))
        };
        let clash = answer.pending.records.iter().find(is_other).and_then(|record| record.id.clone());
        if let Some(id) = clash {
            let problem = format!(
                "nothing of what it reported was recorded: another asset of the contract has another record with the id {id:?}"
            );
            *result = Err(HookError::invalid(HOOK, &answer.plugin, problem).about(&asset.id));
        }
    }
}

/// The most bytes that a record's id may have.
const LONGEST_ID: usize = 1024;

/// What an identity begins with that comes from a record's own id.
const WITH_ID: &str = "id:";

fn unit_of<'a>(units: &'a [UsageSpec], name: &str) -> Option<&'a UsageSpec> {
    let name = name.to_lowercase();
    units.iter().find(|unit| unit.name.to_lowercase() == name)
}

/// What a plugin reported, ready to be recorded.
fn report<'a>(answer: &'a Answer, asset: &'a str) -> UsageReport<'a> {
    let mut equals: HashMap<(String, Option<SystemTime>, String), u64> = HashMap::new();
    let mut ids = HashSet::new();
    let mut records = Vec::with_capacity(answer.pending.records.len());
    for record in &answer.pending.records {
        let Some(unit) = unit_of(&answer.units, &record.unit) else { continue };
        let identity = match &record.id {
            // The same record twice in one answer is one record.
            Some(id) if !ids.insert(id.as_str()) => continue,
            Some(id) => format!("{WITH_ID}{id}"),
            None => {
                let (date, value) = (moment(record.date.as_str()), exact(record.value.as_str()));
                let ordinal = equals.entry((unit.name.to_lowercase(), date, value.clone())).or_default();
                *ordinal += 1;
                let date = date.map_or_else(|| record.date.to_string(), |date| Timestamp::from(date).to_string());
                serde_json::json!([asset, unit.name.to_lowercase(), date, value, *ordinal]).to_string()
            }
        };
        records.push(NewUsage { identity, unit, date: record.date.as_str(), value: record.value.as_str() });
    }
    let last_usage = answer.pending.last_usage.as_ref().map(Timestamp::as_str);
    UsageReport { plugin: &answer.plugin, asset, records, last_usage }
}

/// Checks a report: every record's date, value, unit and id.
fn check(pending: &PendingAccounting, units: &[UsageSpec]) -> Result<(), String> {
    let mut ids: HashMap<&str, &UsageRecord> = HashMap::new();
    if let Some(last_usage) = &pending.last_usage {
        Timestamp::new(last_usage.as_str()).map_err(|error| format!("its last usage: {error}"))?;
    }
    for (index, record) in pending.records.iter().enumerate() {
        let number = index + 1;
        // A worker or a plugin built otherwise might send what the types here rule out.
        Timestamp::new(record.date.as_str()).map_err(|error| format!("the date of record {number}: {error}"))?;
        billhook_plugin_api::Decimal::new(record.value.as_str())
            .map_err(|error| format!("the value of record {number}: {error}"))?;
        if unit_of(units, &record.unit).is_none() {
            let known: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let unit = &record.unit;
            return Err(format!("record {number} has the unit {unit:?}, which was not declared (declared: {known})"));
        }
        if let Some(id) = record.id.as_deref() {
            if id.is_empty() {
                return Err(format!("record {number} has an empty id"));
            }
            if id.len() > LONGEST_ID {
                return Err(format!("record {number} has an id of {} bytes; at most {LONGEST_ID} are taken", id.len()));
            }
            if let Some(other) = ids.insert(id, record)
                && !same(other, record)
            {
                return Err(format!("two different records have the id {id:?}"));
            }
        }
    }
    Ok(())
}

fn same(left: &UsageRecord, right: &UsageRecord) -> bool {
    left.unit.to_lowercase() == right.unit.to_lowercase()
        && moment(left.date.as_str()) == moment(right.date.as_str())
        && number::is_equal(left.value.as_str(), right.value.as_str())
}

/// The moment that a date names, whatever its offset.
fn moment(date: &str) -> Option<SystemTime> {
    Timestamp::new(date).and_then(|date| date.to_system_time()).ok()
}

/// A decimal number in its shortest form: `1`, `01` and `1.0` are one number.
fn exact(value: &str) -> String {
    let (sign, digits) = value.strip_prefix('-').map_or(("", value), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{}.{fraction}", if whole.is_empty() { "0" } else { whole }),
    }
}

/// The later of two dates.
fn later(left: Option<Timestamp<'static>>, right: Option<Timestamp<'static>>) -> Option<Timestamp<'static>> {
    match (left, right) {
        (Some(left), Some(right)) => Some(if moment(right.as_str()) > moment(left.as_str()) { right } else { left }),
        (left, right) => left.or(right),
    }
}

/// The earlier of two dates; none is before all others.
fn earlier(left: Timestamp<'static>, right: Option<Timestamp<'static>>) -> Option<Timestamp<'static>> {
    let right = right?;
    Some(if moment(right.as_str()) < moment(left.as_str()) { right } else { left })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        for (written, shortest) in [
            ("1", "1"),
            ("01", "1"),
            ("1.0", "1"),
            ("1.50", "1.5"),
            ("0.5", "0.5"),
            ("00.50", "0.5"),
            ("-0.0", "0"),
            ("-01.10", "-1.1"),
            ("0", "0"),
            ("100", "100"),
        ] {
            assert_eq!(exact(written), shortest, "{written}");
        }
    }

    #[test]
    fn the_retry_doubles_up_to_its_bound() {
        let delays = [1, 2, 3, 9, 30, 1_000_000].map(|failures| super::super::retry_pause(failures).as_secs());
        assert_eq!(delays, [1, 2, 4, 256, 300, 300]);
    }
}
