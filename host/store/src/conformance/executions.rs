//! The execution log.

use std::time::Duration;

use billhook_model::{Clock as _, ExecutionFilter, ExecutionStatus, ListenerKind, Moment};

use super::subject::{Maker, tests};
use crate::{CalledName, ExecutionNote};

tests![
    executions_are_found_by_everything_that_they_have,
    executions_are_read_from_either_end,
    what_is_lost_is_told_with_the_next_write,
    what_is_old_is_deleted,
];

fn note(at: Moment, event: &str) -> ExecutionNote {
    ExecutionNote {
        at,
        event: CalledName::Event(event.to_owned()),
        object: "object".to_owned(),
        kind: ListenerKind::Handler,
        listener: "listener".into(),
        attempt: 2,
        status: ExecutionStatus::Failed,
        error: Some("why".to_owned()),
        response: "said".to_owned(),
        took: Duration::from_micros(1_500),
        delivery: Some(9),
    }
}

fn executions_are_found_by_everything_that_they_have(make: Maker<'_>) {
    let subject = make();
    let (log, now) = (&subject.stores.executions, subject.clock.now());
    let all = ExecutionFilter::default();
    assert_eq!(log.search(&all).expect("searched"), []);
    let plugin = ExecutionNote {
        event: CalledName::Hook("get_usage_specs"),
        object: String::new(),
        kind: ListenerKind::Plugin,
        listener: "plugin".into(),
        attempt: 1,
        status: ExecutionStatus::Success,
        error: None,
        response: String::new(),
        delivery: None,
        ..note(now.after(Duration::from_secs(1)), "")
    };
    log.write(&[note(now, "clients.create"), plugin], 0).expect("written");
    let found = log.search(&all).expect("searched");
    assert_eq!(found.len(), 2);
    let (last, first) = (&found[0], &found[1]);
    assert_eq!(
        (first.event.as_str(), first.object_id.as_str(), first.listener.as_str()),
        ("clients.create", "object", "listener")
    );
    assert_eq!((first.kind, first.attempt, first.status), (ListenerKind::Handler, 2, ExecutionStatus::Failed));
    assert_eq!((first.error.as_deref(), first.response.as_deref()), (Some("why"), Some("said")));
    assert_eq!((first.date, first.duration_us, first.delivery), (now, 1_500, Some(9)));
    assert_eq!((last.event.as_str(), last.error.as_ref(), last.response.as_ref()), ("get_usage_specs", None, None));
    let named = |name: &str| Some(name.to_owned());
    for (filter, expected) in [
        (ExecutionFilter { event: named("clients.create"), ..all.clone() }, first),
        (ExecutionFilter { listener: named("plugin"), ..all.clone() }, last),
        (ExecutionFilter { status: Some(ExecutionStatus::Success), ..all.clone() }, last),
        (ExecutionFilter { object: named("object"), ..all.clone() }, first),
        (ExecutionFilter { delivery: Some(9), ..all.clone() }, first),
        (ExecutionFilter { since: Some(last.date), ..all.clone() }, last),
        (ExecutionFilter { until: Some(last.date), ..all.clone() }, first),
        (ExecutionFilter { event: named("clients.create"), object: named("object"), ..all.clone() }, first),
    ] {
        assert_eq!(log.search(&filter).expect("searched"), std::slice::from_ref(expected), "{filter:?}");
    }
    let nothing = ExecutionFilter { event: named("clients.create"), listener: named("plugin"), ..all };
    assert_eq!(log.search(&nothing).expect("searched"), []);
}

fn executions_are_read_from_either_end(make: Maker<'_>) {
    let subject = make();
    let (log, now) = (&subject.stores.executions, subject.clock.now());
    for event in ["a", "b", "c", "d"] {
        log.write(&[note(now, event)], 0).expect("written");
    }
    let events = |filter: &ExecutionFilter| -> Vec<String> {
        log.search(filter).expect("searched").into_iter().map(|execution| execution.event).collect()
    };
    let all = ExecutionFilter::default();
    let ids: Vec<i64> = log.search(&all).expect("searched").iter().map(|execution| execution.id).collect();
    assert!(ids.is_sorted_by(|left, right| left > right), "{ids:?}");
    assert_eq!(events(&ExecutionFilter { limit: Some(2), ..all.clone() }), ["d", "c"]);
    assert_eq!(events(&ExecutionFilter { before: Some(ids[1]), ..all.clone() }), ["b", "a"]);
    assert_eq!(events(&ExecutionFilter { after: Some(ids[3]), limit: Some(2), ..all.clone() }), ["b", "c"]);
    assert_eq!(events(&ExecutionFilter { limit: Some(0), ..all }), Vec::<String>::new());
}

fn what_is_lost_is_told_with_the_next_write(make: Maker<'_>) {
    let subject = make();
    let log = &subject.stores.executions;
    assert_eq!(log.dropped().expect("read"), 0);
    log.lose(3);
    assert_eq!(log.dropped().expect("read"), 0, "not yet");
    log.write(&[], 2).expect("written");
    log.write(&[], 0).expect("written");
    assert_eq!(log.dropped().expect("read"), 5);
}

fn what_is_old_is_deleted(make: Maker<'_>) {
    let subject = make();
    let (log, now) = (&subject.stores.executions, subject.clock.now());
    let day = Duration::from_secs(86_400);
    log.write(&[note(now.before(31 * day), "old"), note(now.before(29 * day), "new")], 0).expect("written");
    log.trim(now).expect("trimmed");
    let left = log.search(&ExecutionFilter::default()).expect("searched");
    assert_eq!(left.iter().map(|execution| execution.event.as_str()).collect::<Vec<_>>(), ["new"]);
    log.trim(now.before(400 * day)).expect("a clock that is behind deletes nothing");
    assert_eq!(log.search(&ExecutionFilter::default()).expect("searched").len(), 1);
}
