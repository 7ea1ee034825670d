//! Locks, and who is alive.

use std::time::Duration;

use super::subject::{Maker, tests};
use crate::LockName;

tests![
    what_is_locked_is_locked_for_all_until_it_is_given_back,
    what_has_another_name_is_not_locked,
    a_host_is_alive_as_long_as_it_takes_part,
    what_is_announced_is_seen_by_others_until_it_is_given_back,
];

const USAGE: LockName<'_> = LockName::Usage { order: "1", product: "2" };

fn what_is_locked_is_locked_for_all_until_it_is_given_back(make: Maker<'_>) {
    let subject = make();
    let (one, other) = (&subject.stores.coordination, (subject.reopen)().coordination);
    for name in [USAGE, LockName::UsageSpecifications, LockName::Resource { addon: "a", key: "k" }] {
        let held = one.lock(&name, Duration::ZERO).expect("asked").expect("free");
        assert!(other.lock(&name, Duration::ZERO).expect("asked").is_none(), "{name:?}");
        assert!(one.lock(&name, Duration::from_millis(20)).expect("asked").is_none(), "{name:?}, from the same host");
        drop(held);
        assert!(other.lock(&name, Duration::from_secs(20)).expect("asked").is_some(), "{name:?}");
    }
}

fn what_has_another_name_is_not_locked(make: Maker<'_>) {
    let coordination = make().stores.coordination;
    let held = coordination.lock(&USAGE, Duration::ZERO).expect("asked").expect("free");
    // Not "12" and "" either: what is joined has to be told apart.
    for (order, product) in [("1", "3"), ("12", ""), ("", "12")] {
        let name = LockName::Usage { order, product };
        assert!(coordination.lock(&name, Duration::ZERO).expect("asked").is_some(), "{name:?}");
    }
    drop(held);
}

fn a_host_is_alive_as_long_as_it_takes_part(make: Maker<'_>) {
    let subject = make();
    let (one, other) = (&subject.stores.coordination, (subject.reopen)().coordination);
    assert!(other.is_gone("host"), "nobody was ever called so");
    let membership = one.join("host").expect("joined");
    assert!(!other.is_gone("host") && !one.is_gone("host"));
    assert_eq!(other.members().expect("read"), ["host"]);
    drop(membership);
    assert!(other.is_gone("host"));
    other.forget("host");
    assert!(other.members().expect("read").is_empty());
}

fn what_is_announced_is_seen_by_others_until_it_is_given_back(make: Maker<'_>) {
    let subject = make();
    let one = &subject.stores.coordination;
    let membership = one.join("host").expect("joined");
    let other = one.join("other").expect("joined");
    let (first, second) = (membership.announce(7).expect("announced"), membership.announce(8).expect("announced"));
    let third = other.announce(9).expect("announced");
    // Whether a host of the same process sees it is the store's own affair: it doesn't stand still apart from it.
    drop((first, second, third));
    assert!(one.announced_by("host").is_empty() && one.announced_by("nobody").is_empty());
}
