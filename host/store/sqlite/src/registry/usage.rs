//! The usage book: which usage was reported, what became of it, and which usage specifications there are.

use std::{collections::BTreeMap, ops::RangeInclusive};

use billhook_model::Moment;
use billhook_plugin_api::UsageSpec;
use billhook_store::{
    Kept, KnownContract, KnownSpec, LastUsage, MadeSpec, RecordedUsage, ReportCount, ReportedUsage, Result, StoreError,
    StoreErrorKind, UnsentContract, UnsentUsage, UsageBook, UsageContract, UsageEnd, UsageKey, UsageProgress,
    UsageReport, UsageStage,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Registry, count, lock, parse, read_on, to_json};
use crate::failure::Step;

/// The stages of a record, as the table has them.
const RECORDED: i64 = 0;
/// It may have been sent.
const ATTEMPTED: i64 = 1;
/// Its document is guided: there is nothing left to do.
const GUIDED: i64 = 2;

impl Registry {
    fn read_usage<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Step<T>) -> Result<T> {
        read_on(&mut lock(&self.usage), read)
    }

    fn change_usage<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Step<T>) -> Result<T> {
        self.change_quietly(&self.usage, ["before usage commit", "after usage commit"], |transaction| {
            let changed = change(transaction)?;
            self.kept_clock.note(transaction)?;
            Ok(changed)
        })
    }
}

impl UsageBook for Registry {
    fn now(&self) -> Result<Moment> {
        Ok(self.kept_clock.now())
    }

    fn declared_units(&self, plugin: &str) -> Result<Option<Vec<UsageSpec>>> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT v.usage_specs FROM plugin p JOIN version v ON v.plugin = p.id AND v.position = p.position
                 WHERE p.id = ?1",
            )?;
            let specs: Option<String> = statement.query_row([plugin], |row| row.get(0)).optional()?;
            specs.map(|specs| parse(plugin, &specs)).transpose()
        })
    }

    fn last_usage(&self, plugin: &str, asset: &str, key: &UsageKey, item: &str) -> Result<LastUsage> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT last_usage FROM usage_reported
                 WHERE plugin = ?1 AND asset = ?2 AND order_id = ?3 AND item_id = ?4",
            )?;
            let date = statement.query_row([plugin, asset, &key.order, item], |row| row.get(0)).optional()?;
            let mut statement =
                transaction.prepare_cached("SELECT 1 FROM usage_contract WHERE order_id = ?1 AND product_id = ?2")?;
            Ok(LastUsage { date, is_contract_known: statement.exists([&key.order, &key.product])? })
        })
    }

    fn record(&self, contract: &UsageContract<'_>, reports: &[UsageReport<'_>]) -> Result<RecordedUsage> {
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
                let mut counts = ReportCount::default();
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
                        next = next.checked_add(1).ok_or_else(|| too_large(u64::MAX))?;
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
            Ok(RecordedUsage { reports: recorded, next: next.unsigned_abs() })
        })
    }

    fn reported_as(&self, plugin: &str, key: &UsageKey, item: &str, identity: &str) -> Result<Option<ReportedUsage>> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT unit, date, value FROM usage_record
                 WHERE plugin = ?1 AND order_id = ?2 AND item_id = ?3 AND identity = ?4",
            )?;
            let reported =
                |row: &Row<'_>| Ok(ReportedUsage { unit: row.get(0)?, date: row.get(1)?, value: row.get(2)? });
            Ok(statement.query_row([plugin, &key.order, item, identity], reported).optional()?)
        })
    }

    fn next_usage(
        &self,
        key: &UsageKey,
        after: Option<u64>,
        most: usize,
        progress: &UsageProgress,
        settles_at: Moment,
    ) -> Result<Vec<UnsentUsage>> {
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
                 WHERE order_id = ?1 AND product_id = ?2 AND number >= ?3 AND stage < ?5 ORDER BY number LIMIT ?4",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![key.order, key.product, from, most, GUIDED], unsent)?;
            let taken: Vec<UnsentUsage> = rows.collect::<rusqlite::Result<_>>()?;
            let fresh = taken.iter().filter(|record| record.stage == UsageStage::Recorded).map(|record| record.number);
            set_stage(transaction, key, fresh, ATTEMPTED)?;
            if !taken.is_empty() {
                note_settling(transaction, key, settles_at)?;
            }
            Ok(taken)
        })
    }

    fn note_settling(&self, key: &UsageKey, settles_at: Moment) -> Result<()> {
        self.change_usage(|transaction| note_settling(transaction, key, settles_at))
    }

    fn contract(&self, key: &UsageKey) -> Result<Option<KnownContract>> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT customer, settles_at FROM usage_contract WHERE order_id = ?1 AND product_id = ?2",
            )?;
            let known = |row: &Row<'_>| {
                Ok(KnownContract { customer: row.get(0)?, settles_at: Moment::from_seconds(row.get(1)?) })
            };
            Ok(statement.query_row([&key.order, &key.product], known).optional()?)
        })
    }

    fn note_usage(&self, key: &UsageKey, progress: &UsageProgress, ended: &UsageEnd) -> Result<u64> {
        self.change_usage(|transaction| {
            note(transaction, key, progress)?;
            let tries: Option<u32> = transaction
                .prepare_cached("SELECT tries FROM usage_contract WHERE order_id = ?1 AND product_id = ?2")?
                .query_row([&key.order, &key.product], |row| row.get(0))
                .optional()?;
            let tries = tries.unwrap_or(0).saturating_add(1);
            let (tries, retry_at, settles_at) = match *ended {
                UsageEnd::Whole => (0, Moment::default(), Moment::default()),
                UsageEnd::Failed { settles_at, retry_pause } => {
                    (tries, self.kept_clock.now().after(retry_pause(tries)).max(settles_at), settles_at)
                }
            };
            transaction.execute(
                "UPDATE usage_contract SET unsent_from = (
                     SELECT r.number FROM usage_record r
                     WHERE r.order_id = ?1 AND r.product_id = ?2 AND r.number >= unsent_from AND r.stage < ?6
                     ORDER BY r.number LIMIT 1), tries = ?3, retry_at = ?4, settles_at = ?5
                 WHERE order_id = ?1 AND product_id = ?2",
                params![key.order, key.product, tries, seconds(retry_at), seconds(settles_at), GUIDED],
            )?;
            unsent_of(transaction, key)
        })
    }

    fn unsent_contracts(&self) -> Result<Vec<UnsentContract>> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT order_id, product_id, retry_at FROM usage_contract WHERE unsent_from IS NOT NULL
                 ORDER BY retry_at",
            )?;
            let rows = statement.query_map((), |row| {
                let key = UsageKey { order: row.get(0)?, product: row.get(1)? };
                Ok(UnsentContract { key, retry_at: Moment::from_seconds(row.get(2)?) })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn unsent_usage(&self, key: &UsageKey) -> Result<u64> {
        self.read_usage(|transaction| unsent_of(transaction, key))
    }

    fn specs(&self, plugin: Option<&str>) -> Result<Vec<KnownSpec>> {
        self.read_usage(|transaction| specs(transaction, plugin))
    }

    fn made_spec(&self, plugin: &str, unit: &str) -> Result<Option<MadeSpec>> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT id, href FROM usage_spec WHERE plugin = ?1 AND name = ?2 AND id IS NOT NULL LIMIT 1",
            )?;
            let made = |row: &Row<'_>| Ok(MadeSpec { id: row.get(0)?, href: row.get(1)? });
            Ok(statement.query_row([plugin, unit], made).optional()?)
        })
    }

    fn made_spec_ids(&self) -> Result<Vec<String>> {
        self.read_usage(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT id FROM usage_spec WHERE id IS NOT NULL")?;
            let rows = statement.query_map((), |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn note_spec(&self, spec: &KnownSpec) -> Result<()> {
        self.change_usage(|transaction| {
            let before = spec.before.as_ref().map(|ids| to_json(&spec.plugin, ids)).transpose()?;
            let (id, href) = spec.made.as_ref().map(|made| (&made.id, &made.href)).unzip();
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
                    seconds(spec.retry_at),
                    spec.failure,
                    seconds(spec.settles_at)
                ],
            )?;
            Ok(())
        })
    }

    fn forget_spec(&self, spec: &KnownSpec) -> Result<()> {
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

/// How many records of an order and product have no guided document.
fn unsent_of(connection: &Connection, key: &UsageKey) -> Step<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
         WHERE order_id = ?1 AND product_id = ?2 AND number >= c.unsent_from AND stage < 2",
    )?;
    Ok(statement.query_row([&key.order, &key.product], count)?)
}

/// All usage specifications that there are or have to be, by plugin, name and description.
pub(super) fn specs(transaction: &Transaction<'_>, plugin: Option<&str>) -> Step<Vec<KnownSpec>> {
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
            let new = || KnownSpec::wanted(&plugin, &declared.name, &declared.description);
            found.entry(key).or_insert_with(new).is_wanted = true;
        }
    }
    Ok(found.into_values().collect())
}

pub(super) fn count_unsent(connection: &Connection, plugin: &str) -> Step<u64> {
    // Joined in this order: there are few contracts with something left, and very many records.
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM usage_contract c CROSS JOIN usage_record r USING (order_id, product_id)
         WHERE c.unsent_from IS NOT NULL AND r.number >= c.unsent_from AND r.stage < 2 AND r.plugin = ?1",
    )?;
    Ok(statement.query_row([plugin], count)?)
}

/// Keeps the units of records that were reported, so that their documents can be made whatever becomes of the plugin.
fn need_units(transaction: &Transaction<'_>, report: &UsageReport<'_>) -> Step<()> {
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

fn note(transaction: &Transaction<'_>, key: &UsageKey, progress: &UsageProgress) -> Step<()> {
    set_stage(transaction, key, progress.guided.iter().copied(), GUIDED)?;
    set_stage(transaction, key, progress.untouched.iter().copied(), RECORDED)?;
    Ok(())
}

fn note_settling(transaction: &Transaction<'_>, key: &UsageKey, settles_at: Moment) -> Step<()> {
    transaction
        .prepare_cached("UPDATE usage_contract SET settles_at = ?3 WHERE order_id = ?1 AND product_id = ?2")?
        .execute(params![key.order, key.product, seconds(settles_at)])?;
    Ok(())
}

fn set_stage(
    transaction: &Transaction<'_>,
    key: &UsageKey,
    numbers: impl Iterator<Item = u64>,
    stage: i64,
) -> Step<()> {
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
        stage: if row.get::<_, i64>(5)? == ATTEMPTED { UsageStage::Attempted } else { UsageStage::Recorded },
    })
}

fn spec(row: &Row<'_>) -> Step<KnownSpec> {
    let plugin: String = row.get(0)?;
    let (id, href): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
    let before: Option<String> = row.get(5)?;
    Ok(KnownSpec {
        name: row.get(1)?,
        description: row.get(2)?,
        settles_at: Moment::from_seconds(row.get(9)?),
        is_wanted: row.get(10)?,
        made: id.zip(href).map(|(id, href)| MadeSpec { id, href }),
        before: before.map(|before| parse(&plugin, &before)).transpose()?,
        tries: row.get(6)?,
        retry_at: Moment::from_seconds(row.get(7)?),
        failure: row.get(8)?,
        plugin,
    })
}

/// Whole seconds, rounded up: nothing is tried again too soon.
fn seconds(moment: Moment) -> i64 {
    moment.after(std::time::Duration::from_millis(999)).seconds()
}

/// Correlation numbers are kept as SQLite's integers.
fn number(number: u64) -> Step<i64> {
    i64::try_from(number).map_err(|_| too_large(number).into())
}

fn too_large(number: u64) -> StoreError {
    let message = format!("the correlation number {number} is larger than {}", i64::MAX);
    StoreError::new(Kept::Registry, StoreErrorKind::CorrelationNumber, message)
}
