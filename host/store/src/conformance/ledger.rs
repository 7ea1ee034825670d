//! Events and deliveries: order, holding, and what becomes of each.

use std::{collections::HashSet, time::Duration};

use billhook_model::{DeliveryFilter, DeliveryStatus, Listener, ListenerKind, NewEvent};
use billhook_plugin_api::Json;

use super::subject::{Maker, Subject, tests};
use crate::{EventRecord, HeldDelivery, Intervention, Ledger, Settled, Take, Verdict};

tests![
    an_event_is_recorded_once_with_a_delivery_for_each_listener,
    of_one_object_only_the_first_delivery_may_run,
    deliveries_of_other_objects_and_of_none_do_not_wait,
    what_is_held_is_taken_by_nobody_else_until_its_lease_runs_out,
    what_is_noted_under_an_old_lease_number_changes_nothing,
    settling_hands_on_to_the_next_of_the_object,
    a_delivery_that_failed_waits_and_its_object_with_it,
    what_a_host_is_just_beginning_is_left_alone,
    what_a_host_held_that_is_no_more_is_free,
    a_host_whose_lease_ran_out_learns_what_is_still_its_own,
    dead_letters_are_redriven_in_their_place,
    what_is_given_up_lets_the_next_run,
    what_a_listener_has_left_is_given_up_but_for_what_is_held,
    what_was_done_long_ago_is_forgotten,
    deliveries_are_found_by_everything_that_they_have,
    nobody_who_sets_the_clock_lets_a_lease_run_out,
];

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn listener(name: &str) -> Listener {
    Listener::new(ListenerKind::Handler, name)
}

/// An event by its id, about an object.
pub(super) fn event(id: &str, object: Option<i64>) -> NewEvent {
    let mut event = NewEvent::new("clients.create").with_data(Json::new(r#"{"amount": 1.10}"#).expect("JSON"));
    id.clone_into(&mut event.id);
    event.date = billhook_plugin_api::Timestamp::new("2026-01-31T12:00:00+00:00").expect("a date");
    match object {
        Some(object) => event.about(object),
        None => event,
    }
}

/// Records an event for a listener. Returns the number of the delivery.
pub(super) fn emit(ledger: &dyn Ledger, id: &str, object: Option<i64>) -> i64 {
    let record = EventRecord::new(event(id, object), vec![listener("l")]);
    ledger.emit(vec![record]).expect("recorded")[0].deliveries[0]
}

fn nothing(_: &str) -> HashSet<i64> {
    HashSet::new()
}

pub(super) fn take(ledger: &dyn Ledger, holder: &str) -> Vec<HeldDelivery> {
    let listener = listener("l");
    let take = Take { listener: &listener, holder, hold_for: MINUTE, most: 100 };
    ledger.take(&take, &nothing).expect("taken")
}

fn numbers(held: &[HeldDelivery]) -> Vec<i64> {
    held.iter().map(|held| held.number).collect()
}

pub(super) fn settled(held: &HeldDelivery, verdict: Verdict) -> [Settled; 1] {
    [Settled { held: held.clone(), verdict }]
}

fn status(ledger: &dyn Ledger, number: i64) -> DeliveryStatus {
    ledger.show(number).expect("read").expect("there").0.status
}

fn an_event_is_recorded_once_with_a_delivery_for_each_listener(make: Maker<'_>) {
    let subject = make();
    let ledger = &subject.stores.ledger;
    assert!(!ledger.exists());
    let plugin = Listener::new(ListenerKind::Plugin, "p");
    let record = EventRecord::new(event("one", Some(1)), vec![listener("l"), plugin]);
    let emitted =
        ledger.emit(vec![record.clone(), EventRecord::new(event("two", None), Vec::new())]).expect("recorded");
    assert!(ledger.exists());
    assert_eq!((emitted[0].deliveries.len(), emitted[1].deliveries.len()), (2, 0));
    assert!(!emitted[0].is_repeated && emitted[0].id == "one");
    let mut again = record.clone();
    again.listeners.push(listener("another"));
    let again = ledger.emit(vec![again]).expect("recorded");
    assert_eq!((again[0].is_repeated, &again[0].deliveries), (true, &emitted[0].deliveries));
    let (recorded, as_it_was) = (subject.reopen)().ledger.recorded("one").expect("read").expect("it is durable");
    assert_eq!((recorded.is_repeated, recorded.deliveries), (true, emitted[0].deliveries.clone()));
    assert_eq!(as_it_was, record.event.to_event(0), "to the letter");
    assert_eq!(ledger.recorded("three").expect("read"), None);
    // The same twice in one call, too.
    let both = ledger.emit(vec![EventRecord::new(event("four", None), vec![listener("l")]); 2]).expect("recorded");
    assert_eq!((both[0].is_repeated, both[1].is_repeated), (false, true));
}

fn of_one_object_only_the_first_delivery_may_run(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second, third] = ["a", "b", "c"].map(|id| emit(ledger, id, Some(1)));
    assert_eq!(ledger.ready_listeners().expect("read"), [listener("l")]);
    assert_eq!(numbers(&take(ledger, "host")), [first]);
    assert_eq!(ledger.show(third).expect("read").expect("there").0.waits_for, Some(first));
    assert_eq!(ledger.show(first).expect("read").expect("there").0.waits_for, None);
    assert!(take(ledger, "host").is_empty() && take(ledger, "other").is_empty());
    assert_eq!((status(ledger, first), status(ledger, second)), (DeliveryStatus::Running, DeliveryStatus::Waiting));
    assert_eq!(ledger.open_deliveries(&listener("l")).expect("read"), 3);
}

fn deliveries_of_other_objects_and_of_none_do_not_wait(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let all = [("a", Some(1)), ("b", Some(2)), ("c", None), ("d", None)].map(|(id, object)| emit(ledger, id, object));
    assert_eq!(numbers(&take(ledger, "host")), all);
    // The same object of another listener is another row.
    let record = EventRecord::new(event("e", Some(1)), vec![listener("m")]);
    ledger.emit(vec![record]).expect("recorded");
    let other = listener("m");
    let wanted = Take { listener: &other, holder: "host", hold_for: MINUTE, most: 1 };
    assert_eq!(ledger.take(&wanted, &nothing).expect("taken").len(), 1);
}

fn what_is_held_is_taken_by_nobody_else_until_its_lease_runs_out(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let first = emit(ledger, "a", Some(1));
    let held = take(ledger, "host");
    assert_eq!((held[0].taken, held[0].lease, held[0].attempts), (1, 1, 0));
    assert_eq!(held[0].object.as_deref(), Some("1"));
    assert!(!ledger.is_due(&listener("l")).expect("read"));
    subject.clock.pass(MINUTE - Duration::from_secs(1));
    ledger.renew("host", MINUTE).expect("renewed");
    subject.clock.pass(MINUTE - Duration::from_secs(1));
    assert!(take(ledger, "other").is_empty(), "it was renewed");
    subject.clock.pass(Duration::from_secs(1));
    assert!(ledger.is_due(&listener("l")).expect("read"));
    let held = take(ledger, "other");
    assert_eq!((numbers(&held), held[0].taken, held[0].lease), (vec![first], 2, 2));
    assert_eq!(ledger.holders().expect("read"), ["other"]);
}

fn what_is_noted_under_an_old_lease_number_changes_nothing(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let number = emit(ledger, "a", Some(1));
    let old = take(ledger, "host").remove(0);
    subject.clock.pass(MINUTE);
    let new = take(ledger, "other").remove(0);
    subject.clock.pass(MINUTE);
    // The first host has it again, under another number.
    let third = take(ledger, "host").remove(0);
    assert!(old.lease < new.lease && new.lease < third.lease);
    for (holder, stale) in [("host", &old), ("other", &new), ("other", &third)] {
        ledger.settle(holder, None, &settled(stale, Verdict::Done)).expect("asked");
        assert_eq!(ledger.begin(holder, stale).expect("asked"), None);
        assert_eq!(status(ledger, number), DeliveryStatus::Running);
    }
    assert_eq!(ledger.begin("host", &third).expect("begun"), Some(1));
    assert_eq!(ledger.begin("host", &third).expect("begun"), Some(2));
    ledger.settle("host", None, &settled(&third, Verdict::Done)).expect("settled");
    assert_eq!(status(ledger, number), DeliveryStatus::Done);
    // Its number never falls.
    ledger.settle("host", None, &settled(&third, Verdict::Dead("again".to_owned()))).expect("asked");
    assert_eq!(status(ledger, number), DeliveryStatus::Done);
}

fn settling_hands_on_to_the_next_of_the_object(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [_, second, third] = ["a", "b", "c"].map(|id| emit(ledger, id, Some(1)));
    let held = take(ledger, "host").remove(0);
    let next = ledger.settle("host", Some(MINUTE), &settled(&held, Verdict::Done)).expect("settled");
    assert_eq!((numbers(&next), next[0].lease, next[0].taken), (vec![second], 1, 1));
    assert!(take(ledger, "other").is_empty(), "the host has the next one");
    // Without a time, anybody may go on.
    assert_eq!(ledger.settle("host", None, &settled(&next[0], Verdict::Dead("x".to_owned()))).expect("settled"), []);
    assert_eq!(status(ledger, second), DeliveryStatus::Dead);
    assert_eq!(numbers(&take(ledger, "other")), [third]);
    assert_eq!(ledger.open_deliveries(&listener("l")).expect("read"), 1);
}

fn a_delivery_that_failed_waits_and_its_object_with_it(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second] = ["a", "b"].map(|id| emit(ledger, id, Some(1)));
    let held = take(ledger, "host").remove(0);
    let again = Verdict::Again { pause: Duration::from_secs(10), problem: "503".to_owned() };
    assert_eq!(ledger.settle("host", Some(MINUTE), &settled(&held, again)).expect("settled"), []);
    let (delivery, event) = ledger.show(first).expect("read").expect("there");
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Waiting, 1));
    assert_eq!((delivery.problem.as_deref(), event.attempt), (Some("503"), 1));
    assert!(take(ledger, "host").is_empty() && !ledger.is_due(&listener("l")).expect("read"));
    subject.clock.pass(Duration::from_secs(10));
    let held = take(ledger, "host").remove(0);
    assert_eq!((held.number, held.attempts, held.taken), (first, 1, 1));
    // What is given back uses up nothing.
    ledger.settle("host", Some(MINUTE), &settled(&held, Verdict::Released)).expect("settled");
    let held = take(ledger, "other").remove(0);
    assert_eq!((held.number, held.attempts, held.taken), (first, 1, 1));
    assert_eq!(status(ledger, second), DeliveryStatus::Waiting);
    assert_eq!(ledger.event(held.event, 2).expect("read").expect("there").attempt, 2);
}

fn what_a_host_is_just_beginning_is_left_alone(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second] = [emit(ledger, "a", Some(1)), emit(ledger, "b", Some(2))];
    assert_eq!(numbers(&take(ledger, "host")), [first, second]);
    let listener = listener("l");
    let wanted = Take { listener: &listener, holder: "other", hold_for: MINUTE, most: 100 };
    let asked = std::cell::RefCell::new(Vec::new());
    let announced = |holder: &str| {
        asked.borrow_mut().push(holder.to_owned());
        HashSet::from([first])
    };
    assert!(ledger.take(&wanted, &announced).expect("taken").is_empty());
    assert!(asked.borrow().is_empty(), "as long as a lease lasts nobody is asked about");
    subject.clock.pass(MINUTE);
    assert_eq!(numbers(&ledger.take(&wanted, &announced).expect("taken")), [second]);
    assert_eq!(*asked.borrow(), ["host"]);
    assert_eq!(numbers(&ledger.take(&wanted, &nothing).expect("taken")), [first]);
}

fn what_a_host_held_that_is_no_more_is_free(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second] = [emit(ledger, "a", Some(1)), emit(ledger, "b", Some(2))];
    let held = take(ledger, "host");
    assert_eq!(ledger.holders().expect("read"), ["host"]);
    let mut freed = numbers(&ledger.recover("host").expect("freed"));
    freed.sort_unstable();
    assert_eq!(freed, [first, second]);
    assert!(ledger.holders().expect("read").is_empty() && ledger.recover("host").expect("asked").is_empty());
    ledger.settle("host", None, &settled(&held[0], Verdict::Done)).expect("asked");
    assert_eq!(status(ledger, first), DeliveryStatus::Waiting, "it doesn't hold it any more");
    assert_eq!(numbers(&take(ledger, "other")), [first, second]);
}

fn a_host_whose_lease_ran_out_learns_what_is_still_its_own(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second] = [emit(ledger, "a", Some(1)), emit(ledger, "b", Some(2))];
    take(ledger, "host");
    subject.clock.pass(MINUTE);
    let listener = listener("l");
    let one = Take { listener: &listener, holder: "other", hold_for: MINUTE, most: 1 };
    assert_eq!(numbers(&ledger.take(&one, &nothing).expect("taken")), [first]);
    let kept = ledger.renew_lapsed("host", MINUTE).expect("renewed");
    assert_eq!(kept, [(second, 1)].into());
    assert!(take(ledger, "other").is_empty());
}

fn dead_letters_are_redriven_in_their_place(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second, third] = ["a", "b", "c"].map(|id| emit(ledger, id, Some(1)));
    let held = take(ledger, "host").remove(0);
    let next = ledger.settle("host", Some(MINUTE), &settled(&held, Verdict::Dead("x".to_owned()))).expect("settled");
    assert_eq!(numbers(&next), [second]);
    assert_eq!(ledger.redrive(first).expect("redriven"), Intervention::Done);
    let (delivery, _) = ledger.show(first).expect("read").expect("there");
    assert_eq!((delivery.status, delivery.attempts, delivery.problem), (DeliveryStatus::Waiting, 0, None));
    assert_eq!(delivery.waits_for, Some(second), "one is on its way");
    // Then it comes before those that wait.
    let next = ledger.settle("host", Some(MINUTE), &settled(&next[0], Verdict::Done)).expect("settled");
    assert_eq!(numbers(&next), [first]);
    let next = ledger.settle("host", Some(MINUTE), &settled(&next[0], Verdict::Done)).expect("settled");
    assert_eq!(numbers(&next), [third]);
    assert_eq!(ledger.redrive(second).expect("asked"), Intervention::NotPossible, "it is done");
    assert_eq!(ledger.redrive(third).expect("asked"), Intervention::NotPossible, "it is running");
    assert_eq!(ledger.redrive(999).expect("asked"), Intervention::Missing);
    let later = Verdict::Again { pause: MINUTE, problem: "503".to_owned() };
    ledger.settle("host", None, &settled(&next[0], later)).expect("settled");
    assert_eq!(ledger.redrive(third).expect("brought forward"), Intervention::Done);
    assert_eq!(numbers(&take(ledger, "host")), [third]);
}

fn what_is_given_up_lets_the_next_run(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second, third] = ["a", "b", "c"].map(|id| emit(ledger, id, Some(1)));
    assert_eq!(ledger.discard(second).expect("discarded"), Intervention::Done);
    assert_eq!(ledger.discard(second).expect("asked"), Intervention::NotPossible);
    assert_eq!(ledger.discard(first).expect("discarded"), Intervention::Done);
    assert_eq!(status(ledger, first), DeliveryStatus::Discarded);
    assert_eq!(numbers(&take(ledger, "host")), [third]);
    assert_eq!(ledger.discard(third).expect("asked"), Intervention::NotPossible, "it is running");
    assert_eq!(ledger.discard(999).expect("asked"), Intervention::Missing);
}

fn what_a_listener_has_left_is_given_up_but_for_what_is_held(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second] = ["a", "b"].map(|id| emit(ledger, id, Some(1)));
    let held = take(ledger, "host").remove(0);
    let third = emit(ledger, "c", Some(2));
    assert_eq!(ledger.waiting_listeners().expect("read"), [listener("l")]);
    ledger.give_up(&listener("l"), "it is gone").expect("given up");
    ledger.give_up(&listener("nobody"), "it is gone").expect("nothing to give up");
    for number in [second, third] {
        let (delivery, _) = ledger.show(number).expect("read").expect("there");
        assert_eq!((delivery.status, delivery.problem.as_deref()), (DeliveryStatus::Dead, Some("it is gone")));
    }
    assert_eq!(status(ledger, first), DeliveryStatus::Running);
    ledger.settle("host", None, &settled(&held, Verdict::Done)).expect("settled");
    assert!(ledger.waiting_listeners().expect("read").is_empty());
}

fn what_was_done_long_ago_is_forgotten(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let [first, second] = ["a", "b"].map(|id| emit(ledger, id, Some(1)));
    ledger.emit(vec![EventRecord::new(event("unheard", None), Vec::new())]).expect("recorded");
    let held = take(ledger, "host").remove(0);
    ledger.settle("host", None, &settled(&held, Verdict::Done)).expect("settled");
    ledger.forget(MINUTE).expect("looked");
    assert!(ledger.recorded("a").expect("read").is_some(), "not long ago");
    subject.clock.pass(2 * MINUTE);
    while ledger.forget(MINUTE).expect("forgotten") {}
    assert_eq!((ledger.show(first).expect("read"), ledger.recorded("a").expect("read")), (None, None));
    assert_eq!(ledger.recorded("unheard").expect("read"), None);
    assert!(ledger.show(second).expect("read").is_some(), "it is still to be delivered");
}

fn deliveries_are_found_by_everything_that_they_have(make: Maker<'_>) {
    let subject = make();
    let ledger = &*subject.stores.ledger;
    let mut other = event("b", Some(2));
    other.name = "clients.update".to_owned();
    let first = emit(ledger, "a", Some(1));
    let second = ledger.emit(vec![EventRecord::new(other, vec![listener("m")])]).expect("recorded")[0].deliveries[0];
    take(ledger, "host");
    let all = DeliveryFilter::default();
    let found = |filter: &DeliveryFilter| -> Vec<i64> {
        ledger.list(filter).expect("searched").into_iter().map(|delivery| delivery.number).collect()
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(found(&all), [second, first]);
    for (filter, expected) in [
        (DeliveryFilter { status: Some(DeliveryStatus::Running), ..all.clone() }, first),
        (DeliveryFilter { status: Some(DeliveryStatus::Waiting), ..all.clone() }, second),
        (DeliveryFilter { event: named("clients.create"), ..all.clone() }, first),
        (DeliveryFilter { event_id: named("b"), ..all.clone() }, second),
        (DeliveryFilter { listener: named("m"), ..all.clone() }, second),
        (DeliveryFilter { object: named("1"), ..all.clone() }, first),
        (DeliveryFilter { before: Some(second), ..all.clone() }, first),
        (DeliveryFilter { limit: Some(1), ..all.clone() }, second),
    ] {
        assert_eq!(found(&filter), [expected], "{filter:?}");
    }
    assert!(found(&DeliveryFilter { event_id: named("nope"), ..all.clone() }).is_empty());
    for status in [DeliveryStatus::Done, DeliveryStatus::Dead, DeliveryStatus::Discarded] {
        assert!(found(&DeliveryFilter { status: Some(status), ..all.clone() }).is_empty());
    }
}

fn nobody_who_sets_the_clock_lets_a_lease_run_out(make: Maker<'_>) {
    let subject: Subject = make();
    let ledger = &*subject.stores.ledger;
    emit(ledger, "a", Some(1));
    take(ledger, "host");
    let now = billhook_model::Clock::now(&*subject.clock);
    for set in [now.after(400 * 24 * 60 * MINUTE), now.before(400 * 24 * 60 * MINUTE)] {
        subject.clock.set(set);
        assert!(take(ledger, "other").is_empty(), "it was set to {set}");
    }
}
