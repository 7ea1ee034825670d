//! Locks, and who is alive.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{
    store::{MemoryStore, lock},
    tables::{LockTable, Locks, Member},
};
use crate::{Coordination, Guard, LockName, Membership, Result};

/// Gives something back when it is dropped.
struct Held<F: FnMut(&mut LockTable) + 'static> {
    locks: Arc<Locks>,
    give_back: F,
}

impl<F: FnMut(&mut LockTable)> Drop for Held<F> {
    fn drop(&mut self) {
        (self.give_back)(&mut lock(&self.locks.table));
        self.locks.freed.notify_all();
    }
}

struct Joined {
    locks: Arc<Locks>,
    holder: String,
}

impl Membership for Joined {
    fn announce(&self, number: i64) -> Result<Guard> {
        if let Some(member) = lock(&self.locks.table).members.get_mut(&self.holder) {
            member.announced.insert(number);
        }
        let holder = self.holder.clone();
        let give_back = move |table: &mut LockTable| {
            if let Some(member) = table.members.get_mut(&holder) {
                member.announced.remove(&number);
            }
        };
        Ok(Box::new(Held { locks: Arc::clone(&self.locks), give_back }))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(member) = lock(&self.locks.table).members.get_mut(&self.holder) {
            member.is_gone = true;
        }
    }
}

impl Coordination for MemoryStore {
    fn lock(&self, name: &LockName<'_>, patience: Duration) -> Result<Option<Guard>> {
        let name = format!("{name:?}");
        let deadline = Instant::now() + patience;
        let mut table = lock(&self.locks.table);
        while table.locked.contains(&name) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            table = self.locks.freed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        table.locked.insert(name.clone());
        let give_back = move |table: &mut LockTable| {
            table.locked.remove(&name);
        };
        Ok(Some(Box::new(Held { locks: Arc::clone(&self.locks), give_back })))
    }

    fn join(&self, holder: &str) -> Result<Box<dyn Membership>> {
        lock(&self.locks.table).members.insert(holder.to_owned(), Member::default());
        Ok(Box::new(Joined { locks: Arc::clone(&self.locks), holder: holder.to_owned() }))
    }

    fn is_gone(&self, holder: &str) -> bool {
        lock(&self.locks.table).members.get(holder).is_none_or(|member| member.is_gone)
    }

    fn forget(&self, holder: &str) {
        lock(&self.locks.table).members.remove(holder);
    }

    fn members(&self) -> Result<Vec<String>> {
        Ok(lock(&self.locks.table).members.keys().cloned().collect())
    }

    fn announced_by(&self, holder: &str) -> HashSet<i64> {
        lock(&self.locks.table).members.get(holder).map(|member| member.announced.clone()).unwrap_or_default()
    }
}
