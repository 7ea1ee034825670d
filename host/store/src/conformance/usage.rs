//! Reported usage.

use std::time::Duration;

use billhook_model::{Clock as _, Moment};
use billhook_plugin_api::UsageSpec;

use super::subject::{Maker, tests, version, works};
use crate::{
    KnownSpec, MadeSpec, NewUsage, NewVersion, RecordedUsage, Removal, ReportCount, StoreErrorKind, Stores,
    UsageContract, UsageEnd, UsageKey, UsageProgress, UsageReport, UsageStage,
};

tests![
    a_record_gets_the_next_number_and_is_recorded_once,
    numbers_that_are_used_up_are_refused_and_nothing_is_recorded,
    what_a_contract_was_used_for_last_is_known_for_each_asset,
    records_are_taken_as_perhaps_sent_and_noted_when_they_are,
    a_try_that_failed_is_made_again_later,
    specifications_follow_what_is_declared_and_what_records_need,
    usage_outlives_its_plugin,
];

pub(super) fn key() -> UsageKey {
    UsageKey { order: "7".to_owned(), product: "9".to_owned() }
}

/// Records usage of a plugin under identities.
pub(super) fn record(stores: &Stores, plugin: &str, identities: &[&str], next: u64) -> crate::Result<RecordedUsage> {
    let unit = UsageSpec::new("call", "calls are counted");
    let new = |identity: &&str| NewUsage {
        identity: (*identity).to_owned(),
        unit: &unit,
        date: "2026-01-31T12:00:00Z",
        value: "1.10",
    };
    let records = identities.iter().map(new).collect();
    let report = UsageReport { plugin, asset: "asset", records, last_usage: Some("2026-02-01T00:00:00Z") };
    let key = key();
    let assets = [(plugin.to_owned(), "asset".to_owned()), (plugin.to_owned(), "other".to_owned())];
    let contract = UsageContract {
        key: &key,
        item: "1",
        customer: "ada",
        next,
        assets: &assets,
        last_usage: Some("2025-01-01T00:00:00Z"),
    };
    stores.usage.record(&contract, &[report])
}

fn a_record_gets_the_next_number_and_is_recorded_once(make: Maker<'_>) {
    let subject = make();
    let stores = &subject.stores;
    assert_eq!(stores.usage.contract(&key()).expect("read"), None);
    let recorded = record(stores, "a", &["one", "two"], 5).expect("recorded");
    assert_eq!(recorded, RecordedUsage { reports: vec![ReportCount { new: 2, known: 0 }], next: 7 });
    let again = record(stores, "a", &["two", "three"], 5).expect("recorded");
    assert_eq!(again, RecordedUsage { reports: vec![ReportCount { new: 1, known: 1 }], next: 8 });
    // Another plugin's are others.
    assert_eq!(record(stores, "b", &["one"], 20).expect("recorded").next, 21);
    let reopened = (subject.reopen)();
    assert_eq!(reopened.usage.unsent_usage(&key()).expect("read"), 4, "it is durable");
    let reported = stores.usage.reported_as("a", &key(), "1", "one").expect("read").expect("reported");
    assert_eq!((reported.unit.as_str(), reported.value.as_str()), ("call", "1.10"), "to the letter");
    assert_eq!(stores.usage.reported_as("a", &key(), "2", "one").expect("read"), None);
}

fn numbers_that_are_used_up_are_refused_and_nothing_is_recorded(make: Maker<'_>) {
    let subject = make();
    let stores = &subject.stores;
    let last = i64::MAX.unsigned_abs();
    for next in [last + 1, u64::MAX, last] {
        let error = record(stores, "a", &["one", "two"], next).expect_err("refused");
        assert_eq!(error.kind(), StoreErrorKind::CorrelationNumber, "{next}");
        assert_eq!(stores.usage.unsent_usage(&key()).expect("read"), 0, "{next}");
        assert!(stores.usage.specs(None).expect("read").is_empty());
    }
    assert_eq!(record(stores, "a", &["one"], last - 1).expect("recorded").next, last);
}

fn what_a_contract_was_used_for_last_is_known_for_each_asset(make: Maker<'_>) {
    let subject = make();
    let stores = &subject.stores;
    let last = |asset: &str| stores.usage.last_usage("a", asset, &key(), "1").expect("read");
    assert!(!last("asset").is_contract_known && last("asset").date.is_none());
    record(stores, "a", &[], 0).expect("recorded");
    assert!(last("asset").is_contract_known);
    assert_eq!(last("asset").date.as_deref(), Some("2026-02-01T00:00:00Z"));
    assert_eq!(last("other").date.as_deref(), Some("2025-01-01T00:00:00Z"), "what the contract brought along");
    assert_eq!(last("third").date, None);
}

fn records_are_taken_as_perhaps_sent_and_noted_when_they_are(make: Maker<'_>) {
    let subject = make();
    let (stores, book) = (&subject.stores, &subject.stores.usage);
    let later = subject.clock.now().after(Duration::from_secs(60));
    assert_eq!(book.next_usage(&key(), None, 10, &UsageProgress::default(), later).expect("taken"), []);
    record(stores, "a", &["one", "two", "three"], 1).expect("recorded");
    let taken = book.next_usage(&key(), None, 2, &UsageProgress::default(), later).expect("taken");
    let of = |taken: &[crate::UnsentUsage]| -> Vec<(u64, UsageStage)> {
        taken.iter().map(|record| (record.number, record.stage)).collect()
    };
    assert_eq!(of(&taken), [(1, UsageStage::Recorded), (2, UsageStage::Recorded)]);
    let contract = book.contract(&key()).expect("read").expect("known");
    assert!(contract.customer == "ada" && contract.settles_at >= later, "{contract:?}");
    let progress = UsageProgress { guided: vec![1], untouched: vec![2] };
    let taken = book.next_usage(&key(), Some(2), 10, &progress, later).expect("taken");
    assert_eq!(of(&taken), [(3, UsageStage::Recorded)]);
    // Cut off here, another host looks again.
    let again = (subject.reopen)().usage.next_usage(&key(), None, 10, &UsageProgress::default(), later).expect("taken");
    assert_eq!(of(&again), [(2, UsageStage::Recorded), (3, UsageStage::Attempted)]);
    let left = book.note_usage(&key(), &UsageProgress { guided: vec![2, 3], untouched: vec![] }, &UsageEnd::Whole);
    assert_eq!(left.expect("noted"), 0);
    assert!(book.unsent_contracts().expect("read").is_empty());
    assert_eq!(book.contract(&key()).expect("read").expect("known").settles_at, Moment::default());
    // The next ones go on behind them.
    assert_eq!(record(stores, "a", &["four"], 1).expect("recorded").next, 5);
    assert_eq!(book.unsent_usage(&key()).expect("read"), 1);
}

fn a_try_that_failed_is_made_again_later(make: Maker<'_>) {
    let subject = make();
    let (stores, book) = (&subject.stores, &subject.stores.usage);
    record(stores, "a", &["one"], 1).expect("recorded");
    let pause = |failures: u32| Duration::from_secs(u64::from(failures) * 100);
    let retry = || book.unsent_contracts().expect("read")[0].retry_at;
    let failed = |settles_at| UsageEnd::Failed { settles_at, retry_pause: pause };
    let now = book.now().expect("told");
    for failures in 1..=2 {
        assert_eq!(book.note_usage(&key(), &UsageProgress::default(), &failed(Moment::default())).expect("noted"), 1);
        let at = now.after(pause(failures));
        assert!(retry() >= at && retry() <= at.after(Duration::from_secs(1)), "{} and {at}", retry());
    }
    // It is left alone for as long as the usage API may be at work.
    let settles_at = now.after(Duration::from_secs(9_000));
    book.note_usage(&key(), &UsageProgress::default(), &failed(settles_at)).expect("noted");
    assert!(retry() >= settles_at);
    book.note_settling(&key(), settles_at.after(Duration::from_secs(5))).expect("noted");
    assert!(book.contract(&key()).expect("read").expect("known").settles_at > settles_at);
    book.note_usage(&key(), &UsageProgress::default(), &UsageEnd::Whole).expect("noted");
    assert_eq!(retry(), Moment::default());
}

fn specifications_follow_what_is_declared_and_what_records_need(make: Maker<'_>) {
    let subject = make();
    let (stores, book) = (&subject.stores, &subject.stores.usage);
    let wanted = || {
        let specs = book.specs(None).expect("read");
        specs.into_iter().map(|spec| (spec.plugin, spec.name, spec.is_wanted)).collect::<Vec<_>>()
    };
    let row = |plugin: &str, name: &str, is_wanted| (plugin.to_owned(), name.to_owned(), is_wanted);
    stores.plugins.install(&NewVersion { tried: works(&["gigabyte"]), ..version("b", "1.0") }).expect("installed");
    record(stores, "a", &["one"], 1).expect("recorded");
    assert_eq!(wanted(), [row("a", "call", true), row("b", "gigabyte", true)]);
    assert_eq!(book.declared_units("b").expect("read").map(|units| units.len()), Some(1));
    assert_eq!(book.declared_units("a").expect("read"), None, "it isn't installed");
    let mut spec = book.specs(Some("b")).expect("read").remove(0);
    assert!(spec.is_pending() && spec.made.is_none());
    spec.before = Some(vec!["other".to_owned()]);
    (spec.tries, spec.failure) = (3, Some("refused".to_owned()));
    book.note_spec(&spec).expect("noted");
    assert_eq!(book.specs(Some("b")).expect("read"), [spec.clone()], "all of it");
    let made = MadeSpec { id: "5".to_owned(), href: "https://a.example/5".to_owned() };
    let spec = KnownSpec { made: Some(made.clone()), before: None, tries: 0, failure: None, ..spec };
    book.note_spec(&spec).expect("noted");
    assert_eq!(book.made_spec("b", "gigabyte").expect("read"), Some(made));
    assert_eq!(book.made_spec("b", "call").expect("read"), None);
    assert_eq!(book.made_spec_ids().expect("read"), ["5"]);
    assert_eq!(stores.plugins.remove("b", true).expect("removed"), Removal::Done);
    assert_eq!(wanted(), [row("a", "call", true), row("b", "gigabyte", false)], "it is still there to be deleted");
    book.forget_spec(&spec).expect("forgotten");
    assert_eq!(wanted(), [row("a", "call", true)]);
    // One that a record needs is to be made again.
    let needed = book.specs(Some("a")).expect("read").remove(0);
    book.forget_spec(&needed).expect("asked");
    assert_eq!(wanted(), [row("a", "call", true)]);
    let whole = UsageProgress { guided: vec![1], untouched: vec![] };
    book.note_usage(&key(), &whole, &UsageEnd::Whole).expect("noted");
    assert_eq!(wanted(), [row("a", "call", false)]);
}

fn usage_outlives_its_plugin(make: Maker<'_>) {
    let subject = make();
    let stores = &subject.stores;
    stores.plugins.install(&NewVersion { tried: works(&["call"]), ..version("a", "1.0") }).expect("installed");
    record(stores, "a", &["one"], 1).expect("recorded");
    let details = stores.plugins.details("a").expect("read").expect("installed");
    assert_eq!((details.unsent_usage, details.usage_api.len()), (1, 1));
    let Removal::InUse(uses) = stores.plugins.remove("a", false).expect("asked") else { panic!("it was removed") };
    assert_eq!(uses.unsent_usage, 1);
    assert_eq!(stores.plugins.remove("a", true).expect("removed"), Removal::Done);
    stores.plugins.install(&version("a", "1.0")).expect("installed");
    assert_eq!(record(stores, "a", &["one"], 1).expect("recorded").reports[0], ReportCount { new: 0, known: 1 });
    assert_eq!(stores.usage.unsent_usage(&key()).expect("read"), 1);
}
