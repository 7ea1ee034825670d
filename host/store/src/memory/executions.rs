//! The execution log.

use billhook_model::{Execution, ExecutionFilter, Moment};

use super::{
    store::{MemoryStore, lock},
    tables::ExecutionTable,
};
use crate::{ExecutionLog, ExecutionNote, Kept, Result};

impl ExecutionTable {
    fn write(&mut self, note: &ExecutionNote) {
        self.last += 1;
        let date = note.at.max(Moment::default());
        let mut execution = Execution::new(self.last, date, note.event.as_str(), note.kind, &*note.listener);
        execution.object_id = note.object.clone();
        execution.attempt = note.attempt;
        execution.status = note.status;
        execution.error = note.error.clone();
        execution.response = Some(note.response.clone()).filter(|response| !response.is_empty());
        execution.duration_us = u64::try_from(note.took.as_micros()).unwrap_or(u64::MAX);
        execution.delivery = note.delivery;
        self.rows.insert(self.last, execution);
    }
}

impl ExecutionLog for MemoryStore {
    fn write(&self, notes: &[ExecutionNote], dropped: u64) -> Result<()> {
        let now = self.now();
        self.change_part(Kept::ExecutionLog, &self.executions, |log| {
            notes.iter().for_each(|note| log.write(note));
            let dropped = dropped + std::mem::take(&mut log.lost);
            if dropped > 0 {
                log.dropped.push((now, dropped));
            }
            Ok((true, ()))
        })
    }

    fn lose(&self, count: u64) {
        lock(&self.executions).lost += count;
    }

    fn search(&self, filter: &ExecutionFilter) -> Result<Vec<Execution>> {
        let ExecutionFilter { event, listener, status, object, delivery, since, until, after, before, limit } = filter;
        let is_asked = |row: &&Execution| {
            event.as_ref().is_none_or(|event| row.event == *event)
                && listener.as_ref().is_none_or(|listener| row.listener == *listener)
                && status.is_none_or(|status| row.status == status)
                && object.as_ref().is_none_or(|object| row.object_id == *object)
                && delivery.is_none_or(|delivery| row.delivery == Some(delivery))
                && since.is_none_or(|since| row.date >= since)
                && until.is_none_or(|until| row.date < until)
                && after.is_none_or(|after| row.id > after)
                && before.is_none_or(|before| row.id < before)
        };
        let log = lock(&self.executions);
        let most = limit.unwrap_or(usize::MAX);
        Ok(match after {
            Some(_) => log.rows.values().filter(is_asked).take(most).cloned().collect(),
            None => log.rows.values().rev().filter(is_asked).take(most).cloned().collect(),
        })
    }

    fn dropped(&self) -> Result<u64> {
        Ok(lock(&self.executions).dropped.iter().map(|(_, count)| count).sum())
    }

    fn trim(&self, now: Moment) -> Result<()> {
        let before = now.before(self.retention.age);
        self.change_part(Kept::ExecutionLog, &self.executions, |log| {
            log.rows.retain(|_, row| row.date >= before);
            log.dropped.retain(|(date, _)| *date >= before);
            Ok((true, ()))
        })
    }
}
