//! The ledger of pull accounting: which usage was reported, what became of it, and which usage specifications there are.
//!
//! A record is durable before anything is sent, and stays for good: by it a report that comes again is told from new
//! usage. Nothing here goes away with a plugin.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{Registry, RegistryError, parse};
use crate::{crash_point, database::foreign_log};
use billhook_plugin_api::UsageSpec;

/// How far a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was sent.
    Recorded,
    /// It may have been sent.
    Attempted,
}

/// The stage of a record that may have been sent.
const ATTEMPTED: i64 = 1;
/// The stage of a record whose document is guided: there is nothing left to do.
const GUIDED: i64 = 2;

/// What correlation numbers run along: a product of an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UsageKey {
    pub(crate) order: String,
    pub(crate) product: String,
}

/// A contract whose usage is recorded.
#[derive(Clone, Copy)]
pub(crate) struct UsageContract<'a> {
    pub(crate) key: &'a UsageKey,
    pub(crate) item: &'a str,
    pub(crate) customer: &'a str,
    /// The correlation number that the contract has.
    pub(crate) next: u64,
    /// The plugins and assets that the contract is about, and its last usage: where they begin, if the contract wasn't known
    /// before.
    pub(crate) assets: &'a [(String, String)],
    pub(crate) last_usage: Option<&'a str>,
}

/// How a try to send a contract's records ended.
pub(crate) enum Ended {
    /// Everything was sent.
    Whole,
    /// Something failed; the usage API may still be at work until then, in seconds since 1970.
    Failed { settles_at: i64 },
}

/// A contract with records whose documents aren't guided yet.
pub(crate) struct UnsentContract {
    pub(crate) key: UsageKey,
    pub(crate) retry_at: i64,
}

/// What a plugin reported for an asset.
pub(crate) struct UsageReport<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) asset: &'a str,
    pub(crate) records: Vec<NewUsage<'a>>,
    pub(crate) last_usage: Option<&'a str>,
}

/// A reported record, checked.
pub(crate) struct NewUsage<'a> {
    /// What tells it from all others of its plugin, order and item.
    pub(crate) identity: String,
    pub(crate) unit: &'a UsageSpec,
    pub(crate) date: &'a str,
    pub(crate) value: &'a str,
}

/// What became of a report's records.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Recorded {
    pub(crate) new: u64,
    pub(crate) known: u64,
}

/// A record whose document isn't guided yet.
#[derive(Debug)]
pub(crate) struct UnsentUsage {
    pub(crate) number: u64,
    pub(crate) plugin: String,
    pub(crate) unit: String,
    pub(crate) date: String,
    pub(crate) value: String,
    /// How far it was before it was taken.
    pub(crate) stage: Stage,
}

/// What became of records since it was noted last.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) guided: Vec<u64>,
    /// Those that certainly have no document.
    pub(crate) untouched: Vec<u64>,
}

/// A usage specification: declared by a plugin, or known to the usage API, or both.
#[derive(Debug, Clone)]
pub(crate) struct SpecRow {
    pub(crate) plugin: String,
    pub(crate) name: String,
    pub(crate) description: String,
    /// Whether there has to be one.
    pub(crate) is_wanted: bool,
    /// The usage API's id and address of it.
    pub(crate) made: Option<(String, String)>,
    /// The ids that its name had in the usage API before one was made, if that was tried.
    pub(crate) before: Option<Vec<String>>,
    pub(crate) tries: u32,
    pub(crate) retry_at: i64,
    pub(crate) failure: Option<String>,
    /// Until when the usage API may still be at work on making it.
    pub(crate) settles_at: i64,
}

impl SpecRow {
    /// Whether there is something to do.
    pub(crate) fn is_pending(&self) -> bool {
        !self.is_wanted || self.made.is_none()
    }
}

impl Registry {
    fn usage(&self) -> MutexGuard<'_, Connection> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_usage<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut connection = self.usage();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(&transaction)?;
        self.clock.note(&transaction)?;
        foreign_log::count(&transaction)?;
        crash_point::reached("before usage commit");
        transaction.commit()?;
        crash_point::reached("after usage commit");
        Ok(changed)
    }

    /// The units that the version in use of a plugin declared; `None` if there is no such plugin.
    pub(crate) fn declared_units(&self, plugin: &str) -> Result<Option<Vec<UsageSpec>>, RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached(
            "SELECT v.usage_specs FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position
             WHERE p.id = ?1",
        )?;
        let specs: Option<String> = statement.query_row([plugin], |row| row.get(0)).optional()?;
        specs.map(|specs| parse(plugin, &specs)).transpose()
    }

    /// The last usage that a plugin reported for an asset of a contract, and whether the contract is known at all.
    pub(crate) fn last_usage(
        &self,
        plugin: &str,
        asset: &str,
        key: &UsageKey,
        item: &str,
    ) -> Result<(Option<String>, bool), RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached(
            "SELECT last_usage FROM usage_reported WHERE plugin = ?1 AND asset = ?2 AND order_id = ?3 AND item_id = ?4",
        )?;
        let last_usage = statement.query_row([plugin, asset, &key.order, item], |row| row.get(0)).optional()?;
        let mut statement =
            connection.prepare_cached("SELECT 1 FROM usage_contract WHERE order_id = ?1 AND product_id = ?2")?;
        Ok((last_usage, statement.exists([&key.order, &key.product])?))
    }

    /// Records what plugins reported, and gives each new record its correlation number. Durable on return. Answers what
    /// became of each report, and the next correlation number.
    pub(crate) fn record_usage(
        &self,
        contract: &UsageContract<'_>,
        reports: &[UsageReport<'_>],
    ) -> Result<(Vec<Recorded>, u64), RegistryError> {
        let UsageContract { key, item, customer, next, assets, last_usage } = *contract;
        self.change_usage(|transaction| {
            let known: Option<i64> = transaction
                .prepare_cached("SELECT next FROM usage_contract WHERE order_id = ?1 AND product_id = ?2")?
                .query_row([&key.order, &key.product], |row| row.get(0))
                .optional()?;
            if let (None, Some(last_usage)) = (known, last_usage) {
                for (plugin, asset) in assets {
                    transaction.execute(
                        "INSERT OR IGNORE INTO usage_reported (plugin, asset, order_id, item_id, last_usage)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                        [plugin, asset, &key.order, item, last_usage],
                    )?;
                }
            }
            let first = number(next)?.max(known.unwrap_or(0));
            let mut next = first;
            let mut recorded = Vec::with_capacity(reports.len());
            let mut insert = transaction.prepare_cached(
                "INSERT INTO usage_record (order_id, product_id, number, plugin, item_id, identity, asset, unit, date,
                                           value, stage)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0)
                 ON CONFLICT (plugin, order_id, item_id, identity) DO NOTHING",
            )?;
            for report in reports {
                let mut counts = Recorded::default();
                for record in &report.records {
                    let is_new = insert.execute(params![
                        key.order,
                        key.product,
                        next,
                        report.plugin,
                        item,
                        record.identity,
                        report.asset,
                        record.unit.name,
                        record.date,
                        record.value
                    ])? > 0;
                    if is_new {
                        next = next.checked_add(1).ok_or(RegistryError::CorrelationNumber { number: u64::MAX })?;
                        counts.new += 1;
                    } else {
                        counts.known += 1;
                    }
                }
                if counts.new > 0 {
                    need_units(transaction, report)?;
                }
                if let Some(last_usage) = report.last_usage {
                    transaction.execute(
                        "INSERT INTO usage_reported (plugin, asset, order_id, item_id, last_usage)
                         VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET last_usage = excluded.last_usage",
                        [report.plugin, report.asset, &key.order, item, last_usage],
                    )?;
                }
                recorded.push(counts);
            }
            drop(insert);
            transaction.execute(
                "INSERT INTO usage_contract (order_id, product_id, customer, next, unsent_from)
                 VALUES (?1, ?2, ?3, ?4, iif(?4 > ?5, ?5, NULL))
                 ON CONFLICT DO UPDATE SET next = ?4,
                     -- What may have been sent was sent under the name that it had then.
                     customer = iif(unsent_from IS NULL, ?3, customer),
                     unsent_from = coalesce(unsent_from, excluded.unsent_from)",
                params![key.order, key.product, customer, next, first],
            )?;
            Ok((recorded, next.unsigned_abs()))
        })
    }

    /// What a plugin reported under an identity: unit, date and value.
    pub(crate) fn reported_as(
        &self,
        plugin: &str,
        key: &UsageKey,
        item: &str,
        identity: &str,
    ) -> Result<Option<(String, String, String)>, RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached(
            "SELECT unit, date, value FROM usage_record
             WHERE plugin = ?1 AND order_id = ?2 AND item_id = ?3 AND identity = ?4",
        )?;
        let found = statement
            .query_row([plugin, &key.order, item, identity], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        Ok(found.optional()?)
    }

    /// Notes progress, and takes the next records whose documents aren't guided, at most `most`: from now on they may have
    /// been sent, and until `settles_at` the usage API may be at work on them. Durable on return.
    pub(crate) fn next_usage(
        &self,
        key: &UsageKey,
        after: Option<u64>,
        most: usize,
        progress: &Progress,
        settles_at: i64,
    ) -> Result<Vec<UnsentUsage>, RegistryError> {
        self.change_usage(|transaction| {
            note(transaction, key, progress)?;
            let from: Option<i64> = transaction
                .prepare_cached("SELECT unsent_from FROM usage_contract WHERE order_id = ?1 AND product_id = ?2")?
                .query_row([&key.order, &key.product], |row| row.get(0))
                .optional()?
                .flatten();
            let Some(from) = from else { return Ok(Vec::new()) };
            let from = after.map_or(Ok(from), |after| number(after).map(|after| from.max(after + 1)))?;
            let mut statement = transaction.prepare_cached(
                "SELECT number, plugin, unit, date, value, stage FROM usage_record
                 WHERE order_id = ?1 AND product_id = ?2 AND number >= ?3 AND stage < 2 ORDER BY number LIMIT ?4",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![key.order, key.product, from, most], unsent)?;
            let taken: Vec<UnsentUsage> = rows.collect::<Result<_, _>>()?;
            let fresh = taken.iter().filter(|record| record.stage == Stage::Recorded).map(|record| record.number);
            set_stage(transaction, key, fresh, ATTEMPTED)?;
            if !taken.is_empty() {
                note_settling(transaction, key, settles_at)?;
            }
            Ok(taken)
        })
    }

    /// Notes until when the usage API may be at work on what is sent of an order and product. Durable on return.
    pub(crate) fn note_settling(&self, key: &UsageKey, settles_at: i64) -> Result<(), RegistryError> {
        self.change_usage(|transaction| note_settling(transaction, key, settles_at))
    }

    /// Who used what is recorded for an order and product, and until when the usage API may still be at work on it.
    pub(crate) fn unsent_contract(&self, key: &UsageKey) -> Result<Option<(String, i64)>, RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached(
            "SELECT customer, settles_at FROM usage_contract WHERE order_id = ?1 AND product_id = ?2",
        )?;
        Ok(statement.query_row([&key.order, &key.product], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    /// Notes progress and how it ended: `retry_pause` tells after how many seconds to try again after so many failures in a row.
    /// Durable on return. Answers how many records' documents aren't guided yet.
    pub(crate) fn note_usage(
        &self,
        key: &UsageKey,
        progress: &Progress,
        ended: &Ended,
        retry_pause: fn(u32) -> i64,
    ) -> Result<u64, RegistryError> {
        self.change_usage(|transaction| {
            note(transaction, key, progress)?;
            let tries: Option<u32> = transaction
                .prepare_cached("SELECT tries FROM usage_contract WHERE order_id = ?1 AND product_id = ?2")?
                .query_row([&key.order, &key.product], |row| row.get(0))
                .optional()?;
            let tries = tries.unwrap_or(0).saturating_add(1);
            let (tries, retry_at, settles_at) = match *ended {
                Ended::Whole => (0, 0, 0),
                Ended::Failed { settles_at } => {
                    (tries, (self.now_s() + retry_pause(tries)).max(settles_at), settles_at)
                }
            };
            transaction.execute(
                "UPDATE usage_contract SET unsent_from = (
                     SELECT r.number FROM usage_record r
                     WHERE r.order_id = ?1 AND r.product_id = ?2 AND r.number >= unsent_from AND r.stage < 2
                     ORDER BY r.number LIMIT 1), tries = ?3, retry_at = ?4, settles_at = ?5
                 WHERE order_id = ?1 AND product_id = ?2",
                params![key.order, key.product, tries, retry_at, settles_at],
            )?;
            let left: i64 = transaction.query_row(
                "SELECT count(*) FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
                 WHERE order_id = ?1 AND product_id = ?2 AND number >= c.unsent_from AND stage < 2",
                [&key.order, &key.product],
                |row| row.get(0),
            )?;
            Ok(left.unsigned_abs())
        })
    }

    /// The contracts with records whose documents aren't guided yet, those that are due first at the front.
    pub(crate) fn unsent_contracts(&self) -> Result<Vec<UnsentContract>, RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached(
            "SELECT order_id, product_id, retry_at FROM usage_contract WHERE unsent_from IS NOT NULL ORDER BY retry_at",
        )?;
        let rows = statement.query_map((), |row| {
            let key = UsageKey { order: row.get(0)?, product: row.get(1)? };
            Ok(UnsentContract { key, retry_at: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many records of an order and product have no guided document yet.
    pub(crate) fn unsent_usage(&self, key: &UsageKey) -> Result<u64, RegistryError> {
        let count: i64 = self.usage().query_row(
            "SELECT count(*) FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
             WHERE order_id = ?1 AND product_id = ?2 AND number >= c.unsent_from AND stage < 2",
            [&key.order, &key.product],
            |row| row.get(0),
        )?;
        Ok(count.unsigned_abs())
    }

    /// All usage specifications that there are or have to be: of one plugin, or of all.
    pub(crate) fn specs(&self, plugin: Option<&str>) -> Result<Vec<SpecRow>, RegistryError> {
        let mut connection = self.usage();
        // One transaction, so that no other process's change comes in between.
        let transaction = connection.transaction()?;
        let mut found = BTreeMap::new();
        let mut statement = transaction.prepare_cached(
            "SELECT s.plugin, s.name, s.description, s.id, s.href, s.before, s.tries, s.retry_at, s.failure, s.settles_at,
                    EXISTS (SELECT 1 FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
                            WHERE c.unsent_from IS NOT NULL AND r.number >= c.unsent_from AND r.stage < 2
                              AND r.plugin = s.plugin AND r.unit = s.name)
             FROM usage_spec s WHERE ?1 IS NULL OR s.plugin = ?1",
        )?;
        let mut rows = statement.query([plugin])?;
        while let Some(row) = rows.next()? {
            let row = spec(row)?;
            found.insert((row.plugin.clone(), row.name.clone(), row.description.clone()), row);
        }
        let mut statement = transaction.prepare_cached(
            "SELECT p.id, v.usage_specs FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position
             WHERE ?1 IS NULL OR p.id = ?1",
        )?;
        let mut rows = statement.query([plugin])?;
        while let Some(row) = rows.next()? {
            let plugin: String = row.get(0)?;
            for declared in parse::<Vec<UsageSpec>>(&plugin, &row.get::<_, String>(1)?)? {
                let key = (plugin.clone(), declared.name.clone(), declared.description.clone());
                let row = found.entry(key).or_insert_with(|| SpecRow {
                    plugin: plugin.clone(),
                    name: declared.name,
                    description: declared.description,
                    is_wanted: true,
                    made: None,
                    before: None,
                    tries: 0,
                    retry_at: 0,
                    failure: None,
                    settles_at: 0,
                });
                row.is_wanted = true;
            }
        }
        Ok(found.into_values().collect())
    }

    /// The usage API's id and address of a unit of a plugin's.
    pub(crate) fn made_spec(&self, plugin: &str, unit: &str) -> Result<Option<(String, String)>, RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached(
            "SELECT id, href FROM usage_spec WHERE plugin = ?1 AND name = ?2 AND id IS NOT NULL LIMIT 1",
        )?;
        Ok(statement.query_row([plugin, unit], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    /// The ids in the usage API of all usage specifications that are known to be ours.
    pub(crate) fn made_spec_ids(&self) -> Result<Vec<String>, RegistryError> {
        let connection = self.usage();
        let mut statement = connection.prepare_cached("SELECT id FROM usage_spec WHERE id IS NOT NULL")?;
        let rows = statement.query_map((), |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes what is known of a usage specification. Durable on return.
    pub(crate) fn note_spec(&self, spec: &SpecRow) -> Result<(), RegistryError> {
        let before = spec.before.as_ref().map(|ids| super::to_json(&spec.plugin, ids)).transpose()?;
        let (id, href) = spec.made.as_ref().map(|(id, href)| (id, href)).unzip();
        self.change_usage(|transaction| {
            transaction.execute(
                "INSERT INTO usage_spec (plugin, name, description, id, href, before, tries, retry_at, failure, settles_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT DO UPDATE SET id = ?4, href = ?5, before = ?6, tries = ?7, retry_at = ?8, failure = ?9,
                     settles_at = ?10",
                params![
                    spec.plugin,
                    spec.name,
                    spec.description,
                    id,
                    href,
                    before,
                    spec.tries,
                    spec.retry_at,
                    spec.failure,
                    spec.settles_at
                ],
            )?;
            Ok(())
        })
    }

    /// Forgets a usage specification that the usage API doesn't have any more. One that records came to need meanwhile is to be
    /// made again. Durable on return.
    pub(crate) fn forget_spec(&self, spec: &SpecRow) -> Result<(), RegistryError> {
        self.change_usage(|transaction| {
            transaction.execute(
                "UPDATE usage_spec SET id = NULL, href = NULL, before = NULL, tries = 0, retry_at = 0, failure = NULL,
                     settles_at = 0
                 WHERE plugin = ?1 AND name = ?2 AND description = ?3",
                [&spec.plugin, &spec.name, &spec.description],
            )?;
            transaction.execute(
                "DELETE FROM usage_spec WHERE plugin = ?1 AND name = ?2 AND description = ?3 AND NOT EXISTS (
                     SELECT 1 FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
                     WHERE c.unsent_from IS NOT NULL AND r.number >= c.unsent_from AND r.stage < 2
                       AND r.plugin = ?1 AND r.unit = ?2)",
                [&spec.plugin, &spec.name, &spec.description],
            )?;
            Ok(())
        })
    }
}

pub(super) fn count_unsent(connection: &Connection, plugin: &str) -> Result<u64, RegistryError> {
    // Joined in this order: there are few contracts with something left, and very many records.
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
         WHERE c.unsent_from IS NOT NULL AND r.number >= c.unsent_from AND r.stage < 2 AND r.plugin = ?1",
    )?;
    Ok(statement.query_row([plugin], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// Keeps the units of records that were reported, so that their documents can be made whatever becomes of the plugin.
fn need_units(transaction: &Transaction<'_>, report: &UsageReport<'_>) -> Result<(), RegistryError> {
    let units: BTreeMap<&str, &str> =
        report.records.iter().map(|record| (record.unit.name.as_str(), record.unit.description.as_str())).collect();
    for (name, description) in units {
        transaction.execute(
            "INSERT OR IGNORE INTO usage_spec (plugin, name, description) VALUES (?1, ?2, ?3)",
            [report.plugin, name, description],
        )?;
    }
    Ok(())
}

fn note(transaction: &Transaction<'_>, key: &UsageKey, progress: &Progress) -> Result<(), RegistryError> {
    set_stage(transaction, key, progress.guided.iter().copied(), GUIDED)?;
    set_stage(transaction, key, progress.untouched.iter().copied(), 0)?;
    Ok(())
}

fn note_settling(transaction: &Transaction<'_>, key: &UsageKey, settles_at: i64) -> Result<(), RegistryError> {
    transaction
        .prepare_cached("UPDATE usage_contract SET settles_at = ?3 WHERE order_id = ?1 AND product_id = ?2")?
        .execute(params![key.order, key.product, settles_at])?;
    Ok(())
}

fn set_stage(
    transaction: &Transaction<'_>,
    key: &UsageKey,
    numbers: impl Iterator<Item = u64>,
    stage: i64,
) -> Result<(), RegistryError> {
    let mut statement = transaction.prepare_cached(
        "UPDATE usage_record SET stage = ?5
         WHERE order_id = ?1 AND product_id = ?2 AND number BETWEEN ?3 AND ?4",
    )?;
    for range in ranges(numbers) {
        let (first, last) = (number(*range.start())?, number(*range.end())?);
        statement.execute(params![key.order, key.product, first, last, stage])?;
    }
    Ok(())
}

/// Ascending numbers as ranges without gaps.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<RangeInclusive<u64>> {
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == number => *last = *last.start()..=number,
            _ => ranges.push(number..=number),
        }
    }
    ranges
}

fn unsent(row: &Row<'_>) -> rusqlite::Result<UnsentUsage> {
    Ok(UnsentUsage {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        plugin: row.get(1)?,
        unit: row.get(2)?,
        date: row.get(3)?,
        value: row.get(4)?,
        stage: if row.get::<_, i64>(5)? == ATTEMPTED { Stage::Attempted } else { Stage::Recorded },
    })
}

fn spec(row: &Row<'_>) -> Result<SpecRow, RegistryError> {
    let plugin: String = row.get(0)?;
    let (id, href): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
    let before: Option<String> = row.get(5)?;
    Ok(SpecRow {
        name: row.get(1)?,
        description: row.get(2)?,
        settles_at: row.get(9)?,
        is_wanted: row.get(10)?,
        made: id.zip(href),
        before: before.map(|before| parse(&plugin, &before)).transpose()?,
        tries: row.get(6)?,
        retry_at: row.get(7)?,
        failure: row.get(8)?,
        plugin,
    })
}

/// Correlation numbers are kept as SQLite's integers.
fn number(number: u64) -> Result<i64, RegistryError> {
    i64::try_from(number).map_err(|_| RegistryError::CorrelationNumber { number })
}
