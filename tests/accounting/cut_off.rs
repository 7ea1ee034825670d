//! Whatever is cut off, fails or goes on beside: every record becomes one guided document.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use billhook::{Host, NoBundles, UsageApiError, UsageError, data::Order};
use serde_json::{Value, json};

use super::{Meter, THREE, api, host, order_of, record, refresh, three};
use crate::support::{Fault, Paging, Run, characteristic, options, run, wait_for};

/// Everything that can happen to a call.
const FAULTS: [Fault; 9] = [
    Fault::Answer(500),
    Fault::Answer(503),
    Fault::Answer(422),
    Fault::Answer(401),
    Fault::DropBefore,
    Fault::DropAfter,
    Fault::DropWithin,
    Fault::AnswerAfter(502),
    Fault::Garbage,
];

#[test]
fn a_failure_at_any_call_loses_nothing_and_charges_nothing_twice() {
    let meter = Meter::new();
    meter.report(three());
    let calls_of_a_sound_refresh = 6;
    let mut recoveries = 0;
    for (kind, fault) in FAULTS.into_iter().enumerate() {
        for first in 0..calls_of_a_sound_refresh {
            // And a failure at any call of the recovery, or none.
            for second in (0..8).map(Some).chain([None]) {
                let id = format!("order-{kind}-{first}-{second:?}");
                let order = order_of(&id, &["a"]);
                meter.server.fail(&[(first, fault)]);
                let refreshed = meter.refresh(&order);
                let context = format!("{fault:?} at call {first}, then at {second:?}");
                let garbage_is_enough = fault == Fault::Garbage && first % 2 == 1;
                assert_eq!(refreshed.failure.is_some(), !garbage_is_enough, "{context}");
                assert_eq!(refreshed.correlation_number, 3, "{context}: what is recorded is numbered");
                assert_eq!(refreshed.sent + refreshed.unsent, 3, "{context}");
                if let Some(second) = second {
                    meter.server.fail(&[(second, fault)]);
                    meter.refresh(&order);
                }
                meter.server.fail(&[]);
                let refreshed = meter.refresh(&order);
                assert_eq!((refreshed.unsent, refreshed.failure), (0, None), "{context}");
                meter.check(&id, 0, &THREE, &context);
                recoveries += 1;
            }
        }
    }
    assert_eq!(recoveries, 9 * 6 * 9);
}

#[test]
fn a_call_without_an_answer_in_time_loses_nothing_and_charges_nothing_twice() {
    let meter = Meter::new();
    meter.report(three());
    let impatient = meter.impatient_host(0);
    for fault in [Fault::HangBefore, Fault::HangAfter] {
        for call in 0..6 {
            let id = format!("order-{fault:?}-{call}");
            let order = order_of(&id, &["a"]);
            meter.server.fail(&[(call, fault)]);
            let refreshed = refresh(&impatient, &order);
            assert!(matches!(refreshed.failure, Some(UsageApiError::NoAnswer(_))), "{refreshed:?}");
            meter.server.fail(&[]);
            assert_eq!(meter.refresh(&order).unsent, 0);
            meter.check(&id, 0, &THREE, &format!("{fault:?} at call {call}"));
        }
    }
}

#[test]
fn a_document_that_is_made_after_nobody_waits_any_more_is_not_made_twice() {
    let meter = Meter::new();
    meter.report(three());
    let (host, order) = (meter.impatient_host(4_000), order_of("order-1", &["a"]));
    meter.server.fail(&[(2, Fault::HangThenDo)]);
    assert!(matches!(refresh(&host, &order).failure, Some(UsageApiError::NoAnswer(_))));
    meter.server.fail(&[]);
    // The document isn't there yet; it would be made twice now. Another host knows that too.
    let refreshed = meter.refresh(&order);
    let failure = refreshed.failure.expect("it waits").to_string();
    assert!(failure.contains("gave no answer to record 1 and may still be at work on it"), "{failure}");
    assert_eq!((refreshed.sent, refreshed.unsent), (0, 2));
    wait_for("the time to be over", || meter.refresh(&order).unsent == 0);
    meter.check("order-1", 0, &THREE, "it came late");
}

#[test]
fn a_document_that_somebody_rated_meanwhile_is_left_alone_and_one_that_is_gone_is_made_again() {
    let meter = Meter::new();
    meter.report(three());
    let order = order_of("rated", &["a"]);
    meter.server.fail(&[(3, Fault::DropAfter)]);
    meter.refresh(&order);
    meter.server.change_documents(|document| {
        if characteristic(document, "correlationNumber") == "1" {
            document["status"] = json!("rated");
        }
        true
    });
    meter.server.fail(&[]);
    assert_eq!(meter.refresh(&order).unsent, 0);
    let statuses: Vec<Value> =
        meter.server.documents("rated").iter().map(|document| document["status"].clone()).collect();
    assert_eq!(statuses, ["guided", "rated", "guided"], "it would be charged a second time");

    let order = order_of("gone", &["a"]);
    meter.server.fail(&[(1, Fault::Answer(401))]);
    meter.refresh(&order);
    meter.server.change_documents(|document| characteristic(document, "orderId") != "gone");
    meter.server.fail(&[]);
    assert_eq!(meter.refresh(&order).unsent, 0);
    meter.check("gone", 0, &THREE, "made again");
}

#[test]
fn what_was_sent_is_looked_for_under_the_customer_that_it_was_sent_for() {
    let meter = Meter::new();
    meter.report(three());
    let mut order = order_of("order-1", &["a"]);
    meter.server.fail(&[(2, Fault::DropAfter)]);
    meter.refresh(&order);
    meter.server.fail(&[]);
    order.customer.username = "ada-lovelace".to_owned();
    assert_eq!(meter.refresh(&order).unsent, 0);
    meter.check("order-1", 0, &THREE, "renamed");
}

#[test]
fn many_records_are_sent_in_batches_that_can_be_cut_off() {
    let meter = Meter::new();
    let records: Vec<Value> = (0..2_300).map(|index| {
        json!({"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": index.to_string(), "id": index.to_string()})
    }).collect();
    meter.report(records.into());
    let order = order_of("order-1", &["a"]);
    // In the second batch: a record that is refused, and the answer to a later one is lost.
    meter.server.fail(&[(2 * 1_100, Fault::Answer(422)), (2 * 1_500, Fault::DropAfter)]);
    let refreshed = meter.refresh(&order);
    assert_eq!((refreshed.sent + refreshed.unsent, refreshed.correlation_number), (2_300, 2_300));
    // In the third: the host is killed, before and after a batch is noted.
    meter.server.fail(&[]);
    for step in ["before usage commit#3", "after usage commit#3"] {
        assert_eq!(run(meter.accountant(&order).env("BILLHOOK_KILL_AT", step)).code, None);
    }
    let all_sent = || run(&mut meter.accountant(&order)).succeeded().stdout.ends_with("unsent 0\n");
    wait_for("the others to be sent", all_sent);
    let mut found: Vec<u64> = meter
        .server
        .documents("order-1")
        .iter()
        .map(|document| {
            assert_eq!(document["status"], "guided");
            let number = characteristic(document, "correlationNumber");
            assert_eq!(number, characteristic(document, "value"));
            number.parse().expect("a number")
        })
        .collect();
    found.sort_unstable();
    assert!(found.into_iter().eq(0..2_300), "each once");
}

#[test]
fn a_host_that_is_killed_while_it_makes_specifications_makes_each_once() {
    let meter = Meter::new();
    meter.report(three());
    for kill in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..4 {
            meter.server.always_fail("DELETE", Fault::DropBefore);
            meter.server.lose_specifications();
            meter.host.remove("meter", true).expect("removed");
            meter.server.fail(&[]);
            meter.host.reconcile().expect("it can be reconciled");
            meter.server.always_fail("usageSpecification", Fault::Answer(500));
            meter.install("1.0", &["API call", "Megabyte"]);
            meter.server.fail(&[]);
            let context = format!("{:?} of a specification at call {call}", kill(0));
            let order = order_of(&context, &["a"]);
            killed_and_recovered(&meter, &order, |command| killed_by_server(&meter, command, call, kill), &context);
            meter.host.reconcile().expect("it can be reconciled");
            assert_eq!(meter.server.specifications(), ["API call", "Megabyte"], "{context}");
        }
    }
}

#[test]
fn refreshes_and_reconcilers_beside_each_other_send_each_record_once() {
    let meter = Meter::new();
    meter.report(three());
    let other = host(&meter.home, &meter.server.url());
    let orders: Vec<Order> = (0..8).map(|index| order_of(&format!("order-{index}"), &["a"])).collect();
    meter.server.always_fail("POST /usageManagement/v2/usage", Fault::DropAfter);
    for order in &orders {
        assert!(meter.refresh(order).failure.is_some());
    }
    meter.server.fail(&[]);
    thread::scope(|scope| {
        scope.spawn(|| other.reconcile().expect("it can be reconciled"));
        scope.spawn(|| meter.host.reconcile().expect("it can be reconciled"));
        for order in &orders {
            meter.refresh(order);
        }
    });
    for order in &orders {
        meter.refresh(order);
        meter.check(&order.order_id, 0, &THREE, "beside each other");
    }
}

/// Runs the program that is killed somewhere, and then one that isn't.
#[track_caller]
fn killed_and_recovered(meter: &Meter, order: &Order, kill: impl FnOnce(&mut Command) -> Run, context: &str) {
    let killed = kill(&mut meter.accountant(order));
    assert_eq!(killed.code, None, "{context}: {killed:#?}");
    meter.server.fail(&[]);
    // What the usage API may still be at work on is waited for.
    let mut said = String::new();
    wait_for("everything to be sent", || {
        said = run(&mut meter.accountant(order)).succeeded().stdout;
        said.ends_with("unsent 0\n")
    });
    assert!(said.starts_with("next 3 "), "{said}");
    meter.check(&order.order_id, 0, &THREE, context);
}

/// Runs a program that the server kills at one of its calls.
fn killed_by_server(meter: &Meter, command: &mut Command, call: usize, kill: fn(u32) -> Fault) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    meter.server.fail(&[(call, kill(child.id()))]);
    // It waits until its input ends: the server has to know whom to kill.
    drop(child.stdin.take());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_host_that_is_killed_at_any_call_loses_nothing_and_charges_nothing_twice() {
    let meter = Meter::new();
    meter.report(three());
    for kill in [Fault::KillBefore, Fault::KillAfter] {
        for call in 0..6 {
            let context = format!("{:?} at call {call}", kill(0));
            let order = order_of(&context, &["a"]);
            killed_and_recovered(&meter, &order, |command| killed_by_server(&meter, command, call, kill), &context);
        }
    }
}

#[test]
fn a_host_that_is_killed_at_any_commit_loses_nothing_and_charges_nothing_twice() {
    let meter = Meter::new();
    meter.report(three());
    for step in ["before usage commit", "after usage commit"] {
        // What was reported, the batch that is to be sent, the next batch, and how it ended.
        for time in 1..=4 {
            let context = format!("{step}#{time}");
            let order = order_of(&context, &["a"]);
            let run_and_kill = |command: &mut Command| run(command.env("BILLHOOK_KILL_AT", &context));
            killed_and_recovered(&meter, &order, run_and_kill, &context);
        }
    }
}

#[test]
fn what_was_cut_off_is_found_however_the_usage_api_answers_lists() {
    let meter = Meter::new();
    for (index, paging) in [
        Paging::default(),
        Paging { tells_total: true, ..Paging::default() },
        Paging { page: Some(2), ..Paging::default() },
        Paging { page: Some(2), tells_total: true, ..Paging::default() },
        Paging { page: Some(2), refuses_behind: Some(416), ..Paging::default() },
        Paging { page: Some(2), refuses_behind: Some(404), ..Paging::default() },
        Paging { page: Some(2), tells_part: true, ..Paging::default() },
        Paging { ignores_offset: true, ..Paging::default() },
        Paging { ignores_offset: true, tells_total: true, ..Paging::default() },
    ]
    .into_iter()
    .enumerate()
    {
        meter.server.page(paging);
        meter.report(three());
        let id = format!("order-{index}");
        let order = order_of(&id, &["a"]);
        // The documents of the customer's other orders come first in the list.
        meter.server.fail(&[(4, Fault::DropAfter)]);
        assert!(meter.refresh(&order).failure.is_some());
        meter.server.fail(&[]);
        meter.refresh(&order);
        meter.check(&id, 0, &THREE, &format!("{paging:?}"));
    }
    // A list that can't be read whole is no list: better to wait than to charge twice.
    let order = order_of("order-x", &["a"]);
    meter.server.fail(&[(4, Fault::DropAfter)]);
    meter.refresh(&order);
    let cut_off = Paging { page: Some(2), ignores_offset: true, ..Paging::default() };
    for (paging, faults) in [
        (Paging { tells_total: true, ..cut_off }, [].as_slice()),
        (Paging { tells_part: true, ..cut_off }, &[]),
        // A page that can't be had is not the end of the list.
        (Paging { page: Some(2), tells_total: true, ..Paging::default() }, &[(1, Fault::Answer(404))]),
        (Paging { page: Some(2), ..Paging::default() }, &[(1, Fault::Answer(404)), (2, Fault::Answer(404))]),
        (Paging { page: Some(2), ..Paging::default() }, &[(3, Fault::Answer(500))]),
    ] {
        meter.server.page(paging);
        meter.server.fail(faults);
        let refreshed = meter.refresh(&order);
        assert!(refreshed.failure.is_some(), "{paging:?}");
        assert_eq!(refreshed.unsent, 1, "{paging:?}");
    }
    meter.server.fail(&[]);
    meter.server.page(Paging::default());
    meter.refresh(&order);
    meter.check("order-x", 0, &THREE, "once the list is whole");
}

#[test]
fn a_document_of_somebody_elses_with_the_same_number_is_not_taken_for_ours() {
    let meter = Meter::new();
    meter.report(json!([record(1, "1")]));
    meter.server.fail(&[(0, Fault::DropBefore)]);
    let order = order_of("order-1", &["a"]);
    meter.refresh(&order);
    let characteristics = json!([
        {"name": "OrderId", "value": "order-1"}, {"name": "productId", "value": "product-1"},
        {"name": "correlationNumber", "value": 0}, {"name": "unit", "value": "API call"}, {"name": "value", "value": "99"},
    ]);
    meter.server.put_document(json!({"usageCharacteristic": characteristics, "relatedParty": [{"id": "ada"}]}));
    meter.server.fail(&[]);
    let refreshed = meter.refresh(&order);
    let failure = refreshed.failure.expect("it can't be sent").to_string();
    assert!(failure.contains("has the correlation number 0 of another record, 1 API call"), "{failure}");
    assert_eq!(refreshed.unsent, 1);
}

#[test]
fn a_contract_is_refreshed_by_one_at_a_time_in_all_processes() {
    let meter = Meter::new();
    let records: Vec<Value> = (1..=20).map(|day| record(day, &day.to_string())).collect();
    meter.report(records.into());
    let order = order_of("order-1", &["a"]);
    let runs: Vec<Run> = thread::scope(|scope| {
        let processes: Vec<_> = (0..4).map(|_| scope.spawn(|| run(&mut meter.accountant(&order)))).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| meter.refresh(&order))).collect();
        for refreshed in threads {
            let refreshed = refreshed.join().expect("no panic");
            assert_eq!((refreshed.correlation_number, refreshed.unsent, refreshed.failure), (20, 0, None));
        }
        processes.into_iter().map(|run| run.join().expect("no panic")).collect()
    });
    for run in runs {
        assert!(run.succeeded().stdout.starts_with("next 20 "));
    }
    let expected: Vec<(&str, String)> = (1..=20).map(|value| ("API call", value.to_string())).collect();
    let expected: Vec<(&str, &str)> = expected.iter().map(|(unit, value)| (*unit, value.as_str())).collect();
    meter.check("order-1", 0, &expected, "eight at once");
    let creations =
        meter.server.calls().iter().filter(|call| call.starts_with("POST /usageManagement/v2/usage")).count();
    assert_eq!(creations, 20 + 2, "no document and no usage specification was even tried twice");

    // Whoever has to wait too long is told so, and nothing is lost.
    let impatient = options().usage_api(api(&meter.server.url())).refresh_patience(Duration::from_millis(30));
    let impatient = Host::open_with(meter.home.path(), impatient).expect("the home opens");
    meter.report(json!([record(21, "21")]));
    // Two seconds are enough to look at it.
    meter.server.fail(&[(0, Fault::HangBefore)]);
    thread::scope(|scope| {
        scope.spawn(|| meter.refresh(&order));
        wait_for("the call that hangs", || !meter.server.calls().is_empty());
        let error = impatient.usage_refreshed(&order, &order.contracts[0], &NoBundles).expect_err("it is busy");
        assert!(matches!(error, UsageError::Busy(_)), "{error}");
    });
    assert_eq!(meter.refresh(&order).unsent, 0);
    assert_eq!(meter.server.documents("order-1").len(), 21);
}
