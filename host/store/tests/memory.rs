//! The store in memory keeps the contracts.

use std::sync::Arc;

use billhook_store::{
    MemoryStore,
    conformance::{Subject, TestClock, failed},
};

fn make() -> Subject {
    let clock = Arc::new(TestClock::default());
    let store = MemoryStore::new(Arc::clone(&clock) as _);
    let (failing, reopened) = (Arc::clone(&store), Arc::clone(&store));
    Subject {
        stores: store.stores(),
        clock,
        fail_next: Box::new(move |fault| failing.fail_next(fault)),
        reopen: Box::new(move || reopened.stores()),
        keeps: Box::new(()),
    }
}

#[test]
fn the_store_in_memory_keeps_its_contracts() {
    assert_eq!(failed(&make), [""; 0]);
}
