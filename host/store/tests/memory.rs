//! The store in memory keeps the contracts.

use std::sync::Arc;

use billhook_store::{
    MemoryStore,
    conformance::{Subject, TestClock, all},
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
    for (name, test) in all() {
        println!("{name}");
        test(&make);
    }
}
