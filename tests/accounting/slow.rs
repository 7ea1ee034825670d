//! A usage API that is slow, and a host that is killed meanwhile: nobody asks again before it can be done.

use std::{process::Stdio, thread, time::Duration};

use super::{Meter, THREE, order_of, three};
use crate::support::{Fault, Killed, run, wait_for};

/// How often each race is run: more for a long run, as `docs/contributing.md` says.
fn rounds() -> usize {
    std::env::var("BILLHOOK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// Starts a refresh whose call of this number is slow, and kills it in the middle of that call.
fn killed_in_a_slow_call(meter: &Meter, order: &billhook::data::Order, call: usize) {
    meter.server.fail(&[(call, Fault::Slow)]);
    let mut command = meter.accountant(order);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let killed = Killed::start(&mut command);
    wait_for("the slow call", || meter.server.calls().len() == call + 1);
    // It is read, and not answered yet.
    thread::sleep(Duration::from_millis(100));
    drop(killed);
    meter.server.fail(&[]);
}

#[test]
fn a_document_that_is_made_slowly_while_the_host_is_killed_is_made_once() {
    for round in 0..rounds() {
        let meter = Meter::new();
        meter.report(three());
        // The specifications' calls are over before the first document: four, and then a POST for each record.
        for call in [0, 2, 4] {
            let order = order_of(&format!("order-{round}-{call}"), &["a"]);
            killed_in_a_slow_call(&meter, &order, call);
            // At once: the usage API is still at it, and its list has nothing yet.
            let said = run(&mut meter.accountant(&order)).succeeded().stdout;
            assert!(!said.ends_with("unsent 0\n"), "call {call}: it may still be made: {said}");
            wait_for("all to be guided", || {
                run(&mut meter.accountant(&order)).succeeded().stdout.ends_with("unsent 0\n")
            });
            // Longer than anything that is still under way may take.
            thread::sleep(Duration::from_millis(500));
            meter.check(&order.order_id, 0, &THREE, &format!("call {call}"));
        }
    }
}

#[test]
fn a_specification_that_is_made_slowly_while_the_host_is_killed_is_made_once() {
    for _ in 0..rounds() {
        let meter = Meter::new();
        meter.report(three());
        meter.server.always_fail("DELETE", Fault::DropBefore);
        meter.server.lose_specifications();
        meter.host.remove("meter", true).expect("removed");
        meter.server.fail(&[]);
        meter.host.reconcile().expect("it can be reconciled");
        meter.server.always_fail("usageSpecification", Fault::Answer(500));
        meter.install("1.0", &["API call", "Megabyte"]);
        meter.server.fail(&[]);
        let order = order_of("order-1", &["a"]);
        // The list, and then the POST of the first specification.
        killed_in_a_slow_call(&meter, &order, 1);
        let said = run(&mut meter.accountant(&order)).succeeded().stdout;
        assert!(!said.ends_with("unsent 0\n"), "{said}");
        wait_for("all to be guided", || run(&mut meter.accountant(&order)).succeeded().stdout.ends_with("unsent 0\n"));
        meter.host.reconcile().expect("it can be reconciled");
        assert_eq!(meter.server.specifications(), ["API call", "Megabyte"]);
        meter.check("order-1", 0, &THREE, "slow specification");
    }
}

#[test]
fn a_usage_api_that_closes_its_connections_gets_each_document_once_and_none_waits() {
    let meter = Meter::new();
    meter.report(three());
    // Each connection is closed without a word at its second request, or at its third: done, or not.
    for (number, fault) in [Fault::CloseBefore, Fault::CloseAfter].into_iter().enumerate() {
        for kept in 1..4 {
            meter.server.close_after(kept, fault);
            for time in 0..3 {
                let id = format!("order-{number}-{kept}-{time}");
                let refreshed = meter.refresh(&order_of(&id, &["a"]));
                assert_eq!((refreshed.failure, refreshed.unsent), (None, 0), "{fault:?} after {kept}");
                meter.check(&id, 0, &THREE, &format!("{fault:?} after {kept}"));
            }
        }
    }
}
