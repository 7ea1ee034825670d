//! Events and deliveries.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use billhook_model::{Delivery, DeliveryFilter, DeliveryStatus, Emitted, Listener, Moment};
use billhook_plugin_api::data::{Event, ObjectId};

use super::{
    store::{MemoryStore, lock},
    tables::{DeliveryRow, DeliveryState, EventRow, Hold, LedgerTable},
};
use crate::{EventRecord, HeldDelivery, Intervention, Kept, Result, Settled, Take, Verdict};

impl DeliveryRow {
    fn is_open(&self) -> bool {
        matches!(self.state, DeliveryState::Ready | DeliveryState::Blocked)
    }

    fn is_held(&self, at: Duration) -> bool {
        self.held.as_ref().is_some_and(|hold| hold.until > at)
    }

    fn is_held_by(&self, holder: &str) -> bool {
        self.held.as_ref().is_some_and(|hold| hold.holder == holder)
    }

    fn is_beside(&self, other: &DeliveryRow) -> bool {
        self.listener == other.listener && self.object.is_some() && self.object == other.object
    }

    fn end(&mut self, state: DeliveryState, at: Moment) {
        (self.state, self.settled, self.held) = (state, Some(at), None);
    }
}

impl LedgerTable {
    fn number_of(&self, id: &str) -> Option<i64> {
        self.events.iter().find(|(_, event)| event.record.event.id == id).map(|(number, _)| *number)
    }

    fn deliveries_of(&self, event: i64) -> Vec<i64> {
        self.deliveries.iter().filter(|(_, row)| row.event == event).map(|(number, _)| *number).collect()
    }

    /// The deliveries that are left of the same listener and object, the first at the front.
    fn row_of<'a>(&'a self, of: &'a DeliveryRow) -> impl Iterator<Item = (&'a i64, &'a DeliveryRow)> {
        self.deliveries.iter().filter(move |(_, row)| row.is_open() && row.is_beside(of))
    }

    fn record(&mut self, record: EventRecord, now: Moment) -> Emitted {
        self.was_used = true;
        let id = record.event.id.clone();
        if let Some(known) = self.number_of(&id) {
            return Emitted::new(id, self.deliveries_of(known)).repeated();
        }
        self.last += 1;
        let event = self.last;
        let mut numbers = Vec::with_capacity(record.listeners.len());
        for listener in &record.listeners {
            self.last += 1;
            let mut row = DeliveryRow {
                event,
                listener: listener.clone(),
                object: record.event.object_id.as_ref().map(|id| id.as_str().to_owned()),
                state: DeliveryState::Ready,
                attempts: 0,
                taken: 0,
                begun: 0,
                lease: 0,
                due: now,
                settled: None,
                held: None,
                problem: None,
            };
            if self.row_of(&row).next().is_some() {
                row.state = DeliveryState::Blocked;
            }
            self.deliveries.insert(self.last, row);
            numbers.push(self.last);
        }
        self.events.insert(event, EventRow { record, recorded: now });
        Emitted::new(id, numbers)
    }

    /// Lets the next delivery of the same listener and object run. Returns its number.
    fn promote(&mut self, of: &DeliveryRow, now: Moment, hold: Option<&Hold>) -> Option<i64> {
        let number = self.row_of(of).next().map(|(number, _)| *number)?;
        let row = self.deliveries.get_mut(&number)?;
        (row.state, row.due, row.held) = (DeliveryState::Ready, now, hold.cloned());
        if hold.is_some() {
            row.taken += 1;
            row.lease += 1;
        }
        Some(number)
    }

    fn held(&self, number: i64) -> Option<HeldDelivery> {
        let DeliveryRow { event, listener, object, attempts, taken, lease, .. } = self.deliveries.get(&number)?.clone();
        Some(HeldDelivery { number, event, listener, object, attempts, taken, lease })
    }

    fn shown(&self, number: i64, row: &DeliveryRow, at: Duration) -> Option<Delivery> {
        let event = &self.events.get(&row.event)?.record.event;
        let mut delivery = Delivery::new(number, &event.id, &event.name, row.listener.kind, &row.listener.name);
        delivery.date = event.date.clone();
        delivery.object_id = event.object_id.clone();
        delivery.status = match row.state {
            DeliveryState::Done => DeliveryStatus::Done,
            DeliveryState::Dead => DeliveryStatus::Dead,
            DeliveryState::Discarded => DeliveryStatus::Discarded,
            _ if row.is_held(at) => DeliveryStatus::Running,
            _ => DeliveryStatus::Waiting,
        };
        delivery.attempts = row.attempts;
        delivery.due = row.due;
        delivery.problem = row.problem.clone();
        Some(delivery)
    }

    fn settle(&mut self, holder: &str, hold: Option<&Hold>, settled: &Settled, now: Moment) -> Option<HeldDelivery> {
        let Settled { held, verdict } = settled;
        let row = self.deliveries.get_mut(&held.number)?;
        if row.lease != held.lease || row.state != DeliveryState::Ready || !row.is_held_by(holder) {
            return None;
        }
        row.problem = match verdict {
            Verdict::Again { problem, .. } | Verdict::Dead(problem) => Some(problem.clone()),
            Verdict::Done | Verdict::Released => None,
        };
        if *verdict == Verdict::Released {
            row.taken = row.taken.saturating_sub(1);
        } else {
            row.attempts += 1;
            (row.taken, row.begun) = (0, 0);
        }
        match verdict {
            Verdict::Done => row.end(DeliveryState::Done, now),
            Verdict::Dead(_) => row.end(DeliveryState::Dead, now),
            Verdict::Again { pause, .. } => (row.due, row.held) = (now.after(*pause), None),
            Verdict::Released => row.held = None,
        }
        if row.is_open() {
            return None;
        }
        let row = row.clone();
        let next = self.promote(&row, now, hold)?;
        hold.and_then(|_| self.held(next))
    }
}

impl MemoryStore {
    fn change_ledger<T>(&self, change: impl FnOnce(&mut LedgerTable) -> T) -> Result<T> {
        self.change_part(Kept::Ledger, &self.ledger, |ledger| Ok((true, change(ledger))))
    }

    fn intervene(
        &self,
        number: i64,
        change: impl FnOnce(&mut LedgerTable, DeliveryRow) -> bool,
    ) -> Result<Intervention> {
        self.change_part(Kept::Ledger, &self.ledger, |ledger| {
            let Some(row) = ledger.deliveries.get(&number).cloned() else { return Ok((false, Intervention::Missing)) };
            let is_done = change(ledger, row);
            Ok((is_done, if is_done { Intervention::Done } else { Intervention::NotPossible }))
        })
    }
}

impl crate::Ledger for MemoryStore {
    fn exists(&self) -> bool {
        lock(&self.ledger).was_used
    }

    fn now(&self) -> Result<Moment> {
        Ok(self.clock.now())
    }

    fn emit(&self, records: Vec<EventRecord>) -> Result<Vec<Emitted>> {
        let now = self.clock.now();
        self.change_ledger(|ledger| records.into_iter().map(|record| ledger.record(record, now)).collect())
    }

    fn event(&self, number: i64, attempt: u64) -> Result<Option<Event>> {
        Ok(lock(&self.ledger).events.get(&number).map(|event| event.record.event.to_event(attempt)))
    }

    fn recorded(&self, id: &str) -> Result<Option<(Emitted, Event)>> {
        let ledger = lock(&self.ledger);
        Ok(ledger.number_of(id).map(|number| {
            let emitted = Emitted::new(id, ledger.deliveries_of(number)).repeated();
            (emitted, ledger.events[&number].record.event.to_event(0))
        }))
    }

    fn show(&self, number: i64) -> Result<Option<(Delivery, Event)>> {
        let (ledger, at) = (lock(&self.ledger), self.clock.since_boot());
        let Some(row) = ledger.deliveries.get(&number) else { return Ok(None) };
        let Some(mut delivery) = ledger.shown(number, row, at) else { return Ok(None) };
        if row.state == DeliveryState::Blocked {
            let first = ledger.row_of(row).find(|(_, row)| row.state == DeliveryState::Ready);
            delivery.waits_for = first.map(|(number, _)| *number);
        }
        let event = ledger.events[&row.event].record.event.to_event(u64::from(row.attempts));
        Ok(Some((delivery, event)))
    }

    fn list(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>> {
        let DeliveryFilter { status, event, event_id, listener, object, before, limit } = filter;
        let (ledger, at) = (lock(&self.ledger), self.clock.since_boot());
        let is_asked = |delivery: &Delivery| {
            status.is_none_or(|status| delivery.status == status)
                && event.as_ref().is_none_or(|event| delivery.event == *event)
                && event_id.as_ref().is_none_or(|id| delivery.event_id == *id)
                && listener.as_ref().is_none_or(|listener| delivery.listener == *listener)
                && object.as_deref().is_none_or(|id| delivery.object_id.as_ref().map(ObjectId::as_str) == Some(id))
                && before.is_none_or(|before| delivery.number < before)
        };
        let all = ledger.deliveries.iter().rev().filter_map(|(number, row)| ledger.shown(*number, row, at));
        Ok(all.filter(is_asked).take(limit.unwrap_or(usize::MAX)).collect())
    }

    fn open_deliveries(&self, listener: &Listener) -> Result<u64> {
        let ledger = lock(&self.ledger);
        Ok(ledger.deliveries.values().filter(|row| row.is_open() && row.listener == *listener).count() as u64)
    }

    fn waiting_listeners(&self) -> Result<Vec<Listener>> {
        Ok(listeners(lock(&self.ledger).deliveries.values().filter(|row| row.is_open())))
    }

    fn redrive(&self, number: i64) -> Result<Intervention> {
        let (now, at) = (self.clock.now(), self.clock.since_boot());
        self.intervene(number, |ledger, of| {
            let is_held = of.is_held(at) || ledger.row_of(&of).any(|(_, row)| row.is_held(at));
            let has_ready =
                ledger.row_of(&of).any(|(other, row)| *other != number && row.state == DeliveryState::Ready);
            let Some(row) = ledger.deliveries.get_mut(&number) else { return false };
            match row.state {
                DeliveryState::Ready if !is_held => row.due = row.due.min(now),
                DeliveryState::Dead | DeliveryState::Discarded => {
                    // Behind one that may run now, and before those that wait: it is older than they.
                    row.state = if has_ready { DeliveryState::Blocked } else { DeliveryState::Ready };
                    (row.attempts, row.taken, row.begun) = (0, 0, 0);
                    (row.due, row.problem, row.settled) = (now, None, None);
                }
                _ => return false,
            }
            true
        })
    }

    fn discard(&self, number: i64) -> Result<Intervention> {
        let (now, at) = (self.clock.now(), self.clock.since_boot());
        self.intervene(number, |ledger, of| {
            let is_held = of.is_held(at) || ledger.row_of(&of).any(|(_, row)| row.is_held(at));
            if matches!(of.state, DeliveryState::Done | DeliveryState::Discarded) || (of.is_open() && is_held) {
                return false;
            }
            let Some(row) = ledger.deliveries.get_mut(&number) else { return false };
            row.end(DeliveryState::Discarded, now);
            if of.state == DeliveryState::Ready {
                ledger.promote(&of, now, None);
            }
            true
        })
    }

    fn give_up(&self, listener: &Listener, problem: &str) -> Result<()> {
        let (now, at) = (self.clock.now(), self.clock.since_boot());
        self.change_ledger(|ledger| {
            let rows = ledger.deliveries.values_mut();
            for row in rows.filter(|row| row.is_open() && row.listener == *listener && !row.is_held(at)) {
                row.end(DeliveryState::Dead, now);
                row.problem = Some(problem.to_owned());
            }
        })
    }

    fn forget(&self, kept: Duration) -> Result<bool> {
        let before = self.clock.now().before(kept);
        self.change_ledger(|ledger| {
            let is_old = |row: &DeliveryRow| {
                matches!(row.state, DeliveryState::Done | DeliveryState::Discarded)
                    && row.settled.is_some_and(|at| at < before)
            };
            ledger.deliveries.retain(|_, row| !is_old(row));
            let heard: HashSet<i64> = ledger.deliveries.values().map(|row| row.event).collect();
            ledger.events.retain(|number, event| {
                heard.contains(number) || (event.record.listeners.is_empty() && event.recorded >= before)
            });
            false
        })
    }

    fn ready_listeners(&self) -> Result<Vec<Listener>> {
        Ok(listeners(lock(&self.ledger).deliveries.values().filter(|row| row.state == DeliveryState::Ready)))
    }

    fn is_due(&self, listener: &Listener) -> Result<bool> {
        let (now, at) = (self.clock.now(), self.clock.since_boot());
        let is_due = |row: &DeliveryRow| {
            row.state == DeliveryState::Ready && row.listener == *listener && row.due <= now && !row.is_held(at)
        };
        Ok(lock(&self.ledger).deliveries.values().any(is_due))
    }

    fn take(&self, take: &Take<'_>, announced: &dyn Fn(&str) -> HashSet<i64>) -> Result<Vec<HeldDelivery>> {
        let (now, at) = (self.clock.now(), self.clock.since_boot());
        let hold = Hold { holder: take.holder.to_owned(), until: at + take.hold_for };
        self.change_ledger(|ledger| {
            let mut begun: HashMap<String, HashSet<i64>> = HashMap::new();
            let mut due: Vec<(Moment, i64)> = Vec::new();
            for (number, row) in &ledger.deliveries {
                let is_its = row.state == DeliveryState::Ready && row.listener == *take.listener && row.due <= now;
                if !is_its || row.is_held(at) || row.is_held_by(take.holder) {
                    continue;
                }
                // It was held by one whose lease ran out.
                if let Some(other) = &row.held {
                    let of_other = begun.entry(other.holder.clone()).or_insert_with(|| announced(&other.holder));
                    if of_other.contains(number) {
                        continue;
                    }
                }
                due.push((row.due, *number));
            }
            due.sort_unstable();
            due.truncate(take.most);
            let mut numbers: Vec<i64> = due.into_iter().map(|(_, number)| number).collect();
            numbers.sort_unstable();
            for number in &numbers {
                if let Some(row) = ledger.deliveries.get_mut(number) {
                    row.held = Some(hold.clone());
                    row.taken += 1;
                    row.lease += 1;
                }
            }
            numbers.into_iter().filter_map(|number| ledger.held(number)).collect()
        })
    }

    fn begin(&self, holder: &str, held: &HeldDelivery) -> Result<Option<u32>> {
        self.change_ledger(|ledger| {
            let row = ledger.deliveries.get_mut(&held.number)?;
            if row.lease != held.lease || row.state != DeliveryState::Ready || !row.is_held_by(holder) {
                return None;
            }
            row.begun += 1;
            Some(row.begun)
        })
    }

    fn renew(&self, holder: &str, hold_for: Duration) -> Result<()> {
        crate::Ledger::renew_lapsed(self, holder, hold_for).map(drop)
    }

    fn renew_lapsed(&self, holder: &str, hold_for: Duration) -> Result<HashMap<i64, i64>> {
        let until = self.clock.since_boot() + hold_for;
        self.change_ledger(|ledger| {
            let mut kept = HashMap::new();
            for (number, row) in &mut ledger.deliveries {
                if row.state == DeliveryState::Ready && row.is_held_by(holder) {
                    row.held = Some(Hold { holder: holder.to_owned(), until });
                    kept.insert(*number, row.lease);
                }
            }
            kept
        })
    }

    fn settle(&self, holder: &str, hold_for: Option<Duration>, all: &[Settled]) -> Result<Vec<HeldDelivery>> {
        let (now, at) = (self.clock.now(), self.clock.since_boot());
        let hold = hold_for.map(|time| Hold { holder: holder.to_owned(), until: at + time });
        self.change_ledger(|ledger| {
            all.iter().filter_map(|settled| ledger.settle(holder, hold.as_ref(), settled, now)).collect()
        })
    }

    fn holders(&self) -> Result<Vec<String>> {
        let ledger = lock(&self.ledger);
        let mut holders: Vec<String> =
            ledger.deliveries.values().filter_map(|row| row.held.as_ref().map(|hold| hold.holder.clone())).collect();
        holders.sort_unstable();
        holders.dedup();
        Ok(holders)
    }

    fn recover(&self, holder: &str) -> Result<Vec<HeldDelivery>> {
        self.change_ledger(|ledger| {
            let held = ledger.deliveries.iter_mut().filter(|(_, row)| row.is_held_by(holder));
            let numbers: Vec<i64> = held
                .map(|(number, row)| {
                    row.held = None;
                    *number
                })
                .collect();
            numbers.into_iter().filter_map(|number| ledger.held(number)).collect()
        })
    }
}

/// The listeners of rows, each once, by the bytes of their kinds' names and then of their names.
fn listeners<'a>(rows: impl Iterator<Item = &'a DeliveryRow>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = rows.map(|row| row.listener.clone()).collect();
    listeners.sort_unstable_by(|left, right| (left.kind.name(), &left.name).cmp(&(right.kind.name(), &right.name)));
    listeners.dedup();
    listeners
}
