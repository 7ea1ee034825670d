//! Several hosts on one store, at the same time.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use billhook_model::DeliveryFilter;

use super::{
    ledger,
    subject::{Maker, tests, version},
    usage,
};
use crate::{EventRecord, HeldDelivery, Settled, Take, Verdict};

tests![
    events_of_one_object_are_told_in_order_whoever_emits_and_whoever_delivers,
    an_event_that_several_emit_is_recorded_once,
    each_change_has_a_generation_of_its_own,
    usage_that_several_report_is_numbered_without_gaps_and_twice,
];

const HOSTS: usize = 4;
const EVENTS: usize = 60;
const OBJECTS: i64 = 3;
const MINUTE: Duration = Duration::from_secs(60);

/// Several hosts emit and deliver at once. Each object's events are told in the order of their numbers, one at a time, and each
/// once.
fn events_of_one_object_are_told_in_order_whoever_emits_and_whoever_delivers(make: Maker<'_>) {
    let subject = make();
    let (left, told) = (AtomicUsize::new(HOSTS * EVENTS), Mutex::new(HashMap::<String, Vec<i64>>::new()));
    let underway = Mutex::new(HashMap::<String, usize>::new());
    let (reopen, left, told, underway) = (&subject.reopen, &left, &told, &underway);
    thread::scope(|scope| {
        for host in 0..HOSTS {
            scope.spawn(move || {
                let ledger = reopen().ledger;
                for number in 0..EVENTS {
                    let object = (number as i64) % OBJECTS;
                    let record = ledger::event(&format!("{host} {number}"), Some(object));
                    let record = EventRecord::new(record, vec![ledger::listener("l")]);
                    ledger.emit(vec![record]).expect("recorded");
                }
            });
            scope.spawn(move || {
                let (ledger, holder, listener) = (reopen().ledger, format!("host {host}"), ledger::listener("l"));
                let take = Take { listener: &listener, holder: &holder, hold_for: MINUTE, most: 5 };
                let mut queue: Vec<HeldDelivery> = Vec::new();
                while left.load(Ordering::SeqCst) > 0 {
                    if queue.is_empty() && ledger.exists() {
                        queue = ledger.take(&take, &|_| Default::default()).expect("taken");
                    }
                    let Some(held) = queue.pop() else {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let object = held.object.clone().expect("it is about one");
                    let others = underway.lock().expect("sound").entry(object.clone()).or_default().to_owned();
                    assert_eq!(others, 0, "two at once of {object}");
                    *underway.lock().expect("sound").entry(object.clone()).or_default() += 1;
                    told.lock().expect("sound").entry(object.clone()).or_default().push(held.number);
                    *underway.lock().expect("sound").entry(object).or_default() -= 1;
                    // Now and then it is given back, and somebody else goes on.
                    let goes_on = held.number % 7 != 0;
                    let settled = Settled { held, verdict: Verdict::Done };
                    let next = ledger.settle(&holder, goes_on.then_some(MINUTE), &[settled]).expect("settled");
                    queue.extend(next);
                    left.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let told = told.lock().expect("sound");
    let all: usize = told.values().map(Vec::len).sum();
    assert_eq!(all, HOSTS * EVENTS);
    for (object, numbers) in &*told {
        assert!(numbers.is_sorted_by(|left, right| left < right), "{object}: {numbers:?}");
    }
    let open = subject.stores.ledger.open_deliveries(&ledger::listener("l")).expect("read");
    assert_eq!(open, 0, "nothing is blocked behind nothing");
}

fn an_event_that_several_emit_is_recorded_once(make: Maker<'_>) {
    let subject = make();
    let firsts = AtomicUsize::new(0);
    let (reopen, firsts) = (&subject.reopen, &firsts);
    thread::scope(|scope| {
        for _ in 0..HOSTS {
            scope.spawn(move || {
                let ledger = reopen().ledger;
                for number in 0..EVENTS {
                    let record =
                        EventRecord::new(ledger::event(&number.to_string(), Some(1)), vec![ledger::listener("l")]);
                    let emitted = ledger.emit(vec![record]).expect("recorded").remove(0);
                    assert_eq!(emitted.deliveries.len(), 1);
                    firsts.fetch_add(usize::from(!emitted.is_repeated), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(firsts.load(Ordering::SeqCst), EVENTS);
    assert_eq!(subject.stores.ledger.list(&DeliveryFilter::default()).expect("read").len(), EVENTS);
}

fn each_change_has_a_generation_of_its_own(make: Maker<'_>) {
    let subject = make();
    let before = subject.stores.plugins.generation().expect("read");
    let reopen = &subject.reopen;
    thread::scope(|scope| {
        for host in 0..HOSTS {
            scope.spawn(move || {
                let plugins = reopen().plugins;
                for number in 0..10 {
                    plugins.install(&version(&format!("p{host}"), &format!("1.{number}"))).expect("installed");
                }
            });
        }
    });
    let after = subject.stores.plugins.generation().expect("read");
    assert_eq!(after - before, 10 * HOSTS as i64);
    for plugin in subject.stores.plugins.all_details().expect("read") {
        assert_eq!(plugin.history.len(), 10);
    }
}

fn usage_that_several_report_is_numbered_without_gaps_and_twice(make: Maker<'_>) {
    let subject = make();
    let reopen = &subject.reopen;
    thread::scope(|scope| {
        for host in 0..HOSTS {
            scope.spawn(move || {
                let stores = reopen();
                for number in 0..10 {
                    let (own, shared) = (format!("{host} {number}"), format!("shared {number}"));
                    usage::record(&stores, "a", &[&own, &shared], 1).expect("recorded");
                }
            });
        }
    });
    let unsent = subject.stores.usage.unsent_usage(&usage::key()).expect("read");
    assert_eq!(unsent, 10 * HOSTS as u64 + 10);
    let next = usage::record(&subject.stores, "a", &[], 1).expect("recorded").next;
    assert_eq!(next, unsent + 1, "no number was skipped");
}
