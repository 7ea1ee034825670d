//! Recorded usage becomes documents: each once, whatever is cut off.

use std::{collections::HashMap, time::Duration};

use billhook_model::{Moment, number};
use billhook_store::{KnownContract, UnsentUsage, UsageEnd, UsageKey, UsageProgress, UsageStage};

use super::{
    Accounting, MARGIN, UsageError,
    api::{FoundUsageDocument, NewUsageDocument, SpecificationRef, UsageApi, UsageApiError},
    longest_work, retry_pause, seconds,
};
/// How many records are noted as attempted at once, and at most looked for again after a cut.
const BATCH: usize = 1000;

/// What sending came to.
pub(super) struct Sent {
    pub(super) sent: u64,
    pub(super) unsent: u64,
    pub(super) failure: Option<UsageApiError>,
}

/// What became of one record.
enum Step {
    Guided,
    /// It certainly has no document.
    Untouched(UsageApiError),
    /// It may have a document, or has one that isn't guided.
    Attempted(UsageApiError),
    /// Nothing can be told or done now, about this one and the others.
    Stuck(UsageApiError),
}

/// Sends one order's and product's records; whoever has one holds the lock.
struct Sender<'a> {
    accounting: &'a Accounting,
    api: &'a dyn UsageApi,
    key: &'a UsageKey,
    customer: String,
    /// Until then the usage API may still be at work on what was sent before.
    settles_at: Moment,
    /// Until then it is noted to be at work on what is sent now: whoever goes on after a cut waits for that.
    noted_until: Moment,
    specifications: HashMap<(String, String), SpecificationRef>,
    /// The customer's documents of this order and product, once they were asked for.
    found: Option<Found>,
}

/// The documents of an order and product.
#[derive(Default)]
struct Found {
    by_number: HashMap<u64, FoundUsageDocument>,
    /// One whose number can't be read, and so may be anybody's.
    unreadable: Option<String>,
}

impl Accounting {
    /// Sends what is recorded for an order and product and has no guided document. To be called with its lock held.
    pub(super) fn send(&self, key: &UsageKey) -> Result<Sent, UsageError> {
        let api = self.api()?;
        let Some(KnownContract { customer, settles_at }) = self.book.contract(key)? else {
            return Ok(Sent { sent: 0, unsent: 0, failure: None });
        };
        let specifications = HashMap::new();
        let window = longest_work(api);
        // No longer than a call may be at work at all.
        let settles_at = settles_at.min(self.now()?.after(window + slack(window)));
        let noted_until = Moment::default();
        let mut sender =
            Sender { accounting: self, api, key, customer, settles_at, noted_until, specifications, found: None };
        let (mut sent, mut failure) = (0, None);
        let (mut progress, mut after) = (UsageProgress::default(), None);
        'batches: loop {
            sender.noted_until = self.now()?.after(window + slack(window)).max(settles_at);
            let batch = self.book.next_usage(key, after, BATCH, &progress, sender.noted_until)?;
            progress = UsageProgress::default();
            let Some(last) = batch.last() else { break };
            after = Some(last.number);
            let mut batch = batch.into_iter();
            while let Some(record) = batch.next() {
                let number = record.number;
                let is_fresh = record.stage == UsageStage::Recorded;
                let (error, goes_on) = match sender.step(&record)? {
                    Step::Guided => {
                        sent += 1;
                        progress.guided.push(number);
                        continue;
                    }
                    Step::Untouched(error) => {
                        progress.untouched.push(number);
                        let goes_on = matches!(error, UsageApiError::Refused(_));
                        (error, goes_on)
                    }
                    Step::Attempted(error) => {
                        let goes_on = matches!(error, UsageApiError::Refused(_));
                        (error, goes_on)
                    }
                    Step::Stuck(error) => {
                        progress.untouched.extend(is_fresh.then_some(number));
                        (error, false)
                    }
                };
                if matches!(error, UsageApiError::NoAnswer(_)) {
                    sender.settles_at = sender.settled_after(api.settle_time())?;
                }
                failure.get_or_insert(error);
                if !goes_on {
                    // The others of the batch were not sent now; those that may have been before still may have been.
                    let fresh = batch.filter(|record| record.stage == UsageStage::Recorded);
                    progress.untouched.extend(fresh.map(|record| record.number));
                    break 'batches;
                }
            }
        }
        progress.untouched.sort_unstable();
        let ended = match &failure {
            None => UsageEnd::Whole,
            Some(_) => UsageEnd::Failed { settles_at: sender.settles_at, retry_pause },
        };
        let unsent = self.book.note_usage(key, &progress, &ended)?;
        if let Some(failure) = &failure {
            tracing::warn!(order = key.order, product = key.product, unsent, "usage was not sent: {failure}");
        }
        Ok(Sent { sent, unsent, failure })
    }
}

impl Sender<'_> {
    /// Brings a record as far as it goes.
    fn step(&mut self, record: &UnsentUsage) -> Result<Step, UsageError> {
        let mut document = None;
        if record.stage == UsageStage::Attempted {
            if let Err(error) = self.look() {
                return Ok(Step::Stuck(error));
            }
            match self.find(record) {
                // Somebody went on with it already: rated or billed, it must not go back.
                Ok(Some(found)) if !is_received(found) => return Ok(Step::Guided),
                Ok(found) => document = found.map(|found| found.id.clone()),
                Err(error) => return Ok(Step::Attempted(error)),
            }
            let now = self.accounting.now()?;
            if document.is_none() && self.settles_at > now {
                let left = seconds(self.settles_at.since(now));
                return Ok(Step::Stuck(UsageApiError::Unavailable(format!(
                    "it gave no answer to record {} and may still be at work on it; in {left} s it is sent again",
                    record.number
                ))));
            }
        }
        let id = match document {
            Some(id) => id,
            None => match self.create(record)? {
                Ok(id) => id,
                // It was closed before anything came of it, as far as can be told: what is there says the rest.
                Err(UsageApiError::Closed(_)) => match self.create_after_look(record)? {
                    Ok(id) => id,
                    Err(step) => return Ok(step),
                },
                Err(error) if error.is_unknown() => return Ok(Step::Attempted(error)),
                Err(error) => return Ok(Step::Untouched(error)),
            },
        };
        // Also where nothing was done: next time the document is looked at before it is touched.
        Ok(self.api.guide_usage(&id).map_or_else(Step::Attempted, |()| Step::Guided))
    }

    /// Makes the document of a record that was sent over a connection which was closed, unless it is there.
    fn create_after_look(&mut self, record: &UnsentUsage) -> Result<Result<String, Step>, UsageError> {
        self.found = None;
        if let Err(error) = self.look() {
            return Ok(Err(Step::Attempted(error)));
        }
        match self.find(record) {
            Ok(Some(found)) if !is_received(found) => return Ok(Err(Step::Guided)),
            Ok(Some(found)) => return Ok(Ok(found.id.clone())),
            Ok(None) => {}
            Err(error) => return Ok(Err(Step::Attempted(error))),
        }
        Ok(self.create(record)?.map_err(|error| match error.is_unknown() {
            true => Step::Attempted(error),
            false => Step::Untouched(error),
        }))
    }

    /// Makes the document of a record. Answers its id.
    fn create(&mut self, record: &UnsentUsage) -> Result<Result<String, UsageApiError>, UsageError> {
        let unit = (record.plugin.clone(), record.unit.clone());
        if !self.specifications.contains_key(&unit) {
            match self.accounting.specification(&unit.0, &unit.1) {
                Ok(Ok(specification)) => self.specifications.insert(unit.clone(), specification),
                Ok(Err(error)) => return Ok(Err(error)),
                Err(error) => return Ok(Err(UsageApiError::Unavailable(error.to_string()))),
            };
        }
        // Noted before it is sent: this host may end in the middle of the call.
        let (now, window) = (self.accounting.now()?, longest_work(self.api));
        if self.noted_until < now.after(window) {
            self.noted_until = now.after(window + slack(window));
            self.accounting.book.note_settling(self.key, self.noted_until)?;
        }
        Ok(self.api.create_usage(&NewUsageDocument {
            date: &record.date,
            specification: &self.specifications[&unit],
            order_id: &self.key.order,
            product_id: &self.key.product,
            correlation_number: record.number,
            unit: &record.unit,
            value: &record.value,
            customer: &self.customer,
        }))
    }

    /// The time from now on at which the usage API is certainly done.
    fn settled_after(&self, time: Duration) -> Result<Moment, UsageError> {
        if time.is_zero() { Ok(Moment::default()) } else { Ok(self.accounting.now()?.after(time + MARGIN)) }
    }

    /// Asks for the customer's documents, unless it did.
    fn look(&mut self) -> Result<(), UsageApiError> {
        if self.found.is_some() {
            return Ok(());
        }
        let mut found = Found::default();
        self.api.customer_usage(&self.customer, &mut |document| {
            if document.order_id != self.key.order || document.product_id != self.key.product {
                return;
            }
            match document.correlation_number {
                None => found.unreadable = Some(document.id),
                // If there are two all the same, the one that is further on counts.
                Some(number) => match found.by_number.get(&number) {
                    Some(known) if !is_received(known) => {}
                    _ => drop(found.by_number.insert(number, document)),
                },
            }
        })?;
        self.found = Some(found);
        Ok(())
    }

    /// The document of a record that may have been sent before, among those that were asked for.
    fn find(&self, record: &UnsentUsage) -> Result<Option<&FoundUsageDocument>, UsageApiError> {
        let Some(found) = &self.found else { return Ok(None) };
        let number = record.number;
        let Some(document) = found.by_number.get(&number) else {
            return match &found.unreadable {
                Some(id) => Err(UsageApiError::Refused(format!(
                    "document {id} of this order and product has no readable correlation number, so it may be that of \
                     record {number}; it has to be corrected by hand"
                ))),
                None => Ok(None),
            };
        };
        let is_its_own = document.unit.as_ref().is_none_or(|unit| unit.to_lowercase() == record.unit.to_lowercase())
            && document.value.as_ref().is_none_or(|value| number::is_equal(value, &record.value));
        if is_its_own {
            return Ok(Some(document));
        }
        Err(UsageApiError::Refused(format!(
            "document {} has the correlation number {number} of another record, {} {}; it has to be corrected by hand",
            document.id, record.value, record.unit
        )))
    }
}

/// How much longer than a call may take its end is noted, so that it needn't be noted again for each call.
fn slack(window: Duration) -> Duration {
    window / 4 + MARGIN
}

/// Whether a document is as it was made.
fn is_received(document: &FoundUsageDocument) -> bool {
    document.status.eq_ignore_ascii_case("received")
}
