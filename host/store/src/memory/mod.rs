//! A store in memory: for tests of what stands on a store, and as the second opinion on the contracts.
//!
//! One lock holds everything, so that every function is atomic. A change is made on a copy, which takes the place of the original
//! when it is whole.

mod coordination;
mod executions;
mod handlers;
mod ledger;
mod plugins;
mod resources;
mod store;
mod tables;
mod usage;

pub use store::{Fault, MemoryStore};
