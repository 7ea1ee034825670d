//! Reported usage.

use billhook_model::Moment;
use billhook_plugin_api::UsageSpec;

use super::{
    store::{Change, MemoryStore},
    tables::{ContractRow, Registry, UsageRow, UsageRowStage, UsageTable},
};
use crate::{
    Kept, KnownContract, KnownSpec, LastUsage, MadeSpec, RecordedUsage, ReportCount, ReportedUsage, Result, StoreError,
    StoreErrorKind, UnsentContract, UnsentUsage, UsageBook, UsageContract, UsageEnd, UsageKey, UsageProgress,
    UsageReport, UsageStage,
};

impl ContractRow {
    fn unsent(&self) -> impl Iterator<Item = (&u64, &UsageRow)> {
        self.records.iter().filter(|(_, record)| record.stage != UsageRowStage::Guided)
    }

    fn note(&mut self, progress: &UsageProgress) {
        for (numbers, stage) in
            [(&progress.guided, UsageRowStage::Guided), (&progress.untouched, UsageRowStage::Recorded)]
        {
            for number in numbers {
                if let Some(record) = self.records.get_mut(number) {
                    record.stage = stage;
                }
            }
        }
    }
}

fn spec_key(plugin: &str, name: &str, description: &str) -> [String; 3] {
    [plugin, name, description].map(str::to_owned)
}

fn too_large(number: u64) -> StoreError {
    let message = format!("the correlation number {number} is larger than {}", i64::MAX);
    StoreError::new(Kept::Registry, StoreErrorKind::CorrelationNumber, message)
}

impl UsageTable {
    pub(super) fn count_unsent(&self, plugin: &str) -> u64 {
        let unsent = self.contracts.values().flat_map(ContractRow::unsent);
        unsent.filter(|(_, record)| record.plugin == plugin).count() as u64
    }

    fn needs(&self, spec: &KnownSpec) -> bool {
        let mut unsent = self.contracts.values().flat_map(ContractRow::unsent);
        unsent.any(|(_, record)| record.plugin == spec.plugin && record.unit == spec.name)
    }

    fn find(&self, plugin: &str, order: &str, item: &str, identity: &str) -> Option<&UsageRow> {
        let contracts = self.contracts.iter().filter(|(key, _)| key.order == order);
        let mut records = contracts.flat_map(|(_, contract)| contract.records.values());
        records.find(|record| record.plugin == plugin && record.item == item && record.identity == identity)
    }

    fn record(&mut self, contract: &UsageContract<'_>, reports: &[UsageReport<'_>]) -> Result<RecordedUsage> {
        let UsageContract { key, item, customer, next, assets, last_usage } = *contract;
        let reported_key = |plugin: &str, asset: &str| [plugin, asset, key.order.as_str(), item].map(str::to_owned);
        if let (false, Some(last_usage)) = (self.contracts.contains_key(key), last_usage) {
            for (plugin, asset) in assets {
                self.reported.entry(reported_key(plugin, asset)).or_insert_with(|| last_usage.to_owned());
            }
        }
        let largest = i64::MAX.unsigned_abs();
        if next > largest {
            return Err(too_large(next));
        }
        let mut next = next.max(self.contracts.get(key).map_or(0, |known| known.next));
        let is_all_sent = self.contracts.get(key).is_none_or(|known| known.unsent().next().is_none());
        let mut counts = Vec::with_capacity(reports.len());
        for report in reports {
            let mut count = ReportCount::default();
            for record in &report.records {
                if self.find(report.plugin, &key.order, item, &record.identity).is_some() {
                    count.known += 1;
                    continue;
                }
                let new = UsageRow {
                    plugin: report.plugin.to_owned(),
                    item: item.to_owned(),
                    identity: record.identity.clone(),
                    unit: record.unit.name.clone(),
                    date: record.date.to_owned(),
                    value: record.value.to_owned(),
                    stage: UsageRowStage::Recorded,
                };
                self.contracts.entry(key.clone()).or_default().records.insert(next, new);
                next = Some(next + 1).filter(|next| *next <= largest).ok_or_else(|| too_large(u64::MAX))?;
                count.new += 1;
            }
            for record in report.records.iter().filter(|_| count.new > 0) {
                let UsageSpec { name, description, .. } = record.unit;
                let spec = || KnownSpec::wanted(report.plugin, name, description);
                self.specs.entry(spec_key(report.plugin, name, description)).or_insert_with(spec);
            }
            if let Some(last_usage) = report.last_usage {
                self.reported.insert(reported_key(report.plugin, report.asset), last_usage.to_owned());
            }
            counts.push(count);
        }
        let known = self.contracts.entry(key.clone()).or_default();
        known.next = next;
        // What may have been sent was sent under the name that it had then.
        if is_all_sent {
            customer.clone_into(&mut known.customer);
        }
        Ok(RecordedUsage { reports: counts, next })
    }
}

impl Registry {
    pub(super) fn specs(&self, plugin: Option<&str>) -> Vec<KnownSpec> {
        let mut found = self.usage.specs.clone();
        for spec in found.values_mut() {
            spec.is_wanted = self.usage.needs(spec);
        }
        for (id, installed) in &self.plugins.plugins {
            for UsageSpec { name, description, .. } in &installed.version().usage_specs {
                let new = || KnownSpec::wanted(id, name, description);
                found.entry(spec_key(id, name, description)).or_insert_with(new).is_wanted = true;
            }
        }
        found.into_values().filter(|spec| plugin.is_none_or(|plugin| spec.plugin == plugin)).collect()
    }
}

impl MemoryStore {
    fn change_contract<T: Default>(&self, key: &UsageKey, change: impl FnOnce(&mut ContractRow) -> T) -> Result<T> {
        self.change(|registry| {
            let changed = registry.usage.contracts.get_mut(key).map(change);
            Ok(Change::Quiet(changed.unwrap_or_default()))
        })
    }
}

impl UsageBook for MemoryStore {
    fn now(&self) -> Result<Moment> {
        Ok(self.clock.now())
    }

    fn declared_units(&self, plugin: &str) -> Result<Option<Vec<UsageSpec>>> {
        self.read(|registry| registry.plugins.plugins.get(plugin).map(|plugin| plugin.version().usage_specs.clone()))
    }

    fn last_usage(&self, plugin: &str, asset: &str, key: &UsageKey, item: &str) -> Result<LastUsage> {
        self.read(|registry| LastUsage {
            date: registry.usage.reported.get(&[plugin, asset, &key.order, item].map(str::to_owned)).cloned(),
            is_contract_known: registry.usage.contracts.contains_key(key),
        })
    }

    fn record(&self, contract: &UsageContract<'_>, reports: &[UsageReport<'_>]) -> Result<RecordedUsage> {
        self.change(|registry| Ok(Change::Quiet(registry.usage.record(contract, reports)?)))
    }

    fn reported_as(&self, plugin: &str, key: &UsageKey, item: &str, identity: &str) -> Result<Option<ReportedUsage>> {
        self.read(|registry| {
            let UsageRow { unit, date, value, .. } = registry.usage.find(plugin, &key.order, item, identity)?.clone();
            Some(ReportedUsage { unit, date, value })
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
        self.change_contract(key, |contract| {
            contract.note(progress);
            let is_next = |number: &u64| after.is_none_or(|after| *number > after);
            let numbers: Vec<u64> = contract.unsent().map(|(number, _)| *number).filter(is_next).take(most).collect();
            let mut taken = Vec::with_capacity(numbers.len());
            for number in numbers {
                let Some(record) = contract.records.get_mut(&number) else { continue };
                let stage = match record.stage {
                    UsageRowStage::Recorded => UsageStage::Recorded,
                    _ => UsageStage::Attempted,
                };
                record.stage = UsageRowStage::Attempted;
                let UsageRow { plugin, unit, date, value, .. } = record.clone();
                taken.push(UnsentUsage { number, plugin, unit, date, value, stage });
            }
            if !taken.is_empty() {
                contract.settles_at = settles_at;
            }
            taken
        })
    }

    fn note_settling(&self, key: &UsageKey, settles_at: Moment) -> Result<()> {
        self.change_contract(key, |contract| contract.settles_at = settles_at)
    }

    fn note_usage(&self, key: &UsageKey, progress: &UsageProgress, ended: &UsageEnd) -> Result<u64> {
        let now = self.clock.now();
        self.change_contract(key, |contract| {
            contract.note(progress);
            (contract.tries, contract.retry_at, contract.settles_at) = match *ended {
                UsageEnd::Whole => (0, Moment::default(), Moment::default()),
                UsageEnd::Failed { settles_at, retry_pause } => {
                    let tries = contract.tries.saturating_add(1);
                    (tries, now.after(retry_pause(tries)).max(settles_at), settles_at)
                }
            };
            contract.unsent().count() as u64
        })
    }

    fn contract(&self, key: &UsageKey) -> Result<Option<KnownContract>> {
        self.read(|registry| {
            let ContractRow { customer, settles_at, .. } = registry.usage.contracts.get(key)?.clone();
            Some(KnownContract { customer, settles_at })
        })
    }

    fn unsent_contracts(&self) -> Result<Vec<UnsentContract>> {
        self.read(|registry| {
            let contracts = registry.usage.contracts.iter().filter(|(_, contract)| contract.unsent().next().is_some());
            let unsent =
                contracts.map(|(key, contract)| UnsentContract { key: key.clone(), retry_at: contract.retry_at });
            let mut unsent: Vec<UnsentContract> = unsent.collect();
            unsent.sort_by_key(|contract| contract.retry_at);
            unsent
        })
    }

    fn unsent_usage(&self, key: &UsageKey) -> Result<u64> {
        self.read(|registry| registry.usage.contracts.get(key).map_or(0, |contract| contract.unsent().count() as u64))
    }

    fn specs(&self, plugin: Option<&str>) -> Result<Vec<KnownSpec>> {
        self.read(|registry| registry.specs(plugin))
    }

    fn made_spec(&self, plugin: &str, unit: &str) -> Result<Option<MadeSpec>> {
        self.read(|registry| {
            let mut specs = registry.usage.specs.values();
            let of_unit = |spec: &&KnownSpec| spec.plugin == plugin && spec.name == unit && spec.made.is_some();
            specs.find(of_unit).and_then(|spec| spec.made.clone())
        })
    }

    fn made_spec_ids(&self) -> Result<Vec<String>> {
        self.read(|registry| {
            registry.usage.specs.values().filter_map(|spec| spec.made.as_ref().map(|made| made.id.clone())).collect()
        })
    }

    fn note_spec(&self, spec: &KnownSpec) -> Result<()> {
        self.change(|registry| {
            let key = spec_key(&spec.plugin, &spec.name, &spec.description);
            registry.usage.specs.insert(key, spec.clone());
            Ok(Change::Quiet(()))
        })
    }

    fn forget_spec(&self, spec: &KnownSpec) -> Result<()> {
        self.change(|registry| {
            let key = spec_key(&spec.plugin, &spec.name, &spec.description);
            if registry.usage.needs(spec) {
                let new = KnownSpec::wanted(&spec.plugin, &spec.name, &spec.description);
                registry.usage.specs.insert(key, new);
            } else {
                registry.usage.specs.remove(&key);
            }
            Ok(Change::Quiet(()))
        })
    }
}
