//! What hosts that share a store agree on.

use std::{any::Any, collections::HashSet, time::Duration};

use crate::Result;

/// Locks among all hosts on a store, and who of them is alive.
///
/// What is held is given back when its guard is dropped, and when its process ends, however it ends.
pub trait Coordination: Send + Sync {
    /// Returns a lock, once nobody else holds it; `None` if somebody still does after `patience`.
    fn lock(&self, name: &LockName<'_>, patience: Duration) -> Result<Option<Guard>>;

    /// Lets a host deliver, under a name of its own: from now on others take it for one that is alive.
    fn join(&self, holder: &str) -> Result<Box<dyn Membership>>;

    /// Returns whether a host is certainly no more: what it held can be taken at once. One of which that can't be told may be
    /// alive.
    fn is_gone(&self, holder: &str) -> bool;

    /// Forgets a host that is no more, and that holds nothing.
    fn forget(&self, holder: &str);

    /// Returns the hosts that joined and were not forgotten.
    fn members(&self) -> Result<Vec<String>>;

    /// Returns the deliveries that another host has announced.
    fn announced_by(&self, holder: &str) -> HashSet<i64>;
}

/// A host that delivers, as long as it is there.
pub trait Membership: Send + Sync {
    /// Announces a delivery that is just being begun, by its number, until what is returned is dropped. It is announced before the
    /// lease is looked at for the last time, so that whoever takes over from a host that stands still between the look and the sending
    /// leaves that delivery alone.
    fn announce(&self, number: i64) -> Result<Guard>;
}

/// What is held until it is dropped.
pub type Guard = Box<dyn Any>;

/// What is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockName<'a> {
    /// The usage specifications in the usage API.
    UsageSpecifications,
    /// The usage of a product of an order.
    Usage {
        /// The order.
        order: &'a str,
        /// The product.
        product: &'a str,
    },
    /// A request for a resource of an add-on, or a resource.
    Resource {
        /// The add-on.
        addon: &'a str,
        /// The request's key, or the resource's id.
        key: &'a str,
    },
}
