//! Brings the usage API up to date: the usage specifications that installed plugins declare, and records left unsent.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use billhook_model::{Moment, UsageSpecState};
use billhook_store::{KnownSpec, LockName, MadeSpec, UnsentContract};
use serde::Serialize;

use super::{
    Accounting, MARGIN, UsageError,
    api::{NewSpecification, SpecificationRef, UsageApi, UsageApiError},
    longest_work, retry_pause, seconds,
};

/// What bringing the usage API up to date came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Reconciled {
    /// How many usage specifications were made.
    pub created: u64,
    /// How many were deleted, or were gone already.
    pub deleted: u64,
    /// Those that are still to be made or deleted.
    pub pending: Vec<UsageSpecState>,
    /// How many usage records left from before were sent.
    pub sent: u64,
    /// How many could not be sent.
    pub unsent: u64,
    /// Why not, the first time.
    pub failure: Option<String>,
}

/// What a pass of the reconciler looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// One plugin's specifications, at once.
    Plugin(&'a str),
    /// Everything whose time to be tried again has come.
    Due,
    /// Everything.
    All,
}

/// Whether the time has come to try again what is to be tried again at a time.
type IsDue<'a> = &'a dyn Fn(Moment) -> Result<bool, UsageError>;

fn made_of(reference: SpecificationRef) -> MadeSpec {
    MadeSpec { id: reference.id, href: reference.href }
}

fn reference_to(made: MadeSpec) -> SpecificationRef {
    SpecificationRef { id: made.id, href: made.href }
}

/// What one specification came to.
enum Done {
    Created,
    Deleted,
    Nothing,
}

impl Accounting {
    /// Makes and deletes what is pending. One failure doesn't stop the others.
    pub(crate) fn reconcile(&self, scope: Scope<'_>) -> Result<Reconciled, UsageError> {
        let api = self.api()?;
        let mut reconciled = Reconciled::default();
        let is_due = |retry_at| Ok(!matches!(scope, Scope::Due) || self.is_due(retry_at)?);
        let plugin = match scope {
            Scope::Plugin(plugin) => Some(plugin),
            Scope::Due | Scope::All => None,
        };
        for spec in self.book.specs(plugin)? {
            if spec.is_pending() && is_due(spec.retry_at)? {
                self.reconcile_specs(api, plugin, &is_due, &mut reconciled)?;
                break;
            }
        }
        if plugin.is_none() {
            self.send_what_is_left(&is_due, &mut reconciled)?;
        }
        Ok(reconciled)
    }

    fn reconcile_specs(
        &self,
        api: &dyn UsageApi,
        plugin: Option<&str>,
        is_due: IsDue<'_>,
        reconciled: &mut Reconciled,
    ) -> Result<HashMap<(String, String), UsageApiError>, UsageError> {
        let lock = self.lock(&LockName::UsageSpecifications, self.patience)?;
        let _lock = lock.ok_or(UsageError::Busy(self.patience))?;
        let (mut unreachable, mut failures) = (None, HashMap::new());
        for row in self.book.specs(plugin)?.into_iter().filter(KnownSpec::is_pending) {
            if unreachable.is_none() && is_due(row.retry_at)? {
                let outcome = self.reconcile_spec(api, row.clone())?;
                match outcome {
                    Ok(Done::Created) => reconciled.created += 1,
                    Ok(Done::Deleted) => reconciled.deleted += 1,
                    Ok(Done::Nothing) => {}
                    Err((row, error)) => {
                        tracing::warn!(plugin = row.plugin, unit = row.name, "its usage specification waits: {error}");
                        if matches!(error, UsageApiError::Unreachable(_)) {
                            unreachable = Some(error.clone());
                        }
                        reconciled.failure.get_or_insert_with(|| error.to_string());
                        let row = self.note_failure(row, &error)?;
                        failures.insert((row.plugin.clone(), row.name.clone()), error);
                        reconciled.pending.push(row.into());
                    }
                }
            } else if let Some(error) = &unreachable {
                // Nobody is there: no need to try each.
                let row = self.note_failure(row, error)?;
                failures.insert((row.plugin.clone(), row.name.clone()), error.clone());
                reconciled.pending.push(row.into());
            } else {
                reconciled.pending.push(row.into());
            }
        }
        Ok(failures)
    }

    fn note_failure(&self, mut row: KnownSpec, error: &UsageApiError) -> Result<KnownSpec, UsageError> {
        row.tries = row.tries.saturating_add(1);
        row.retry_at = self.now()?.after(retry_pause(row.tries)).max(row.settles_at);
        row.failure = Some(error.to_string());
        self.book.note_spec(&row)?;
        Ok(row)
    }

    /// Makes or deletes one specification. A failure comes with what is known of it then.
    fn reconcile_spec(
        &self,
        api: &dyn UsageApi,
        mut row: KnownSpec,
    ) -> Result<Result<Done, (KnownSpec, UsageApiError)>, UsageError> {
        // The answer to an earlier try may have been lost.
        if row.made.is_none()
            && let Some(before) = &row.before
        {
            match self.find_spec(api, &row, before)? {
                Ok(found) => row.made = found.map(made_of),
                Err(error) => return Ok(Err((row, error))),
            }
            let now = self.now()?;
            if row.made.is_none() && row.settles_at > now {
                let left = seconds(row.settles_at.since(now));
                // No longer than a call may be at work at all.
                row.settles_at = row.settles_at.min(now.after(longest_work(api)));
                let problem = format!("it may still be at work on making it; in {left} s that is tried again");
                return Ok(Err((row, UsageApiError::Unavailable(problem))));
            }
        }
        if !row.is_wanted {
            let deleted = match &row.made {
                Some(made) => api.delete_specification(&reference_to(made.clone())),
                None => Ok(()),
            };
            return match deleted {
                Ok(()) | Err(UsageApiError::NotFound(_)) => {
                    let was_made = row.made.is_some();
                    self.book.forget_spec(&row)?;
                    Ok(Ok(if was_made { Done::Deleted } else { Done::Nothing }))
                }
                Err(error) => Ok(Err((row, error))),
            };
        }
        if row.made.is_none() {
            match api.specifications(&row.name) {
                Ok(found) => row.before = Some(found.into_iter().map(|found| found.at.id).collect()),
                Err(error) => return Ok(Err((row, error))),
            }
            // Before it is asked: this host may end in the middle of the call.
            row.settles_at = self.now()?.after(longest_work(api));
            self.book.note_spec(&row)?;
            let new = NewSpecification { name: &row.name, description: &row.description };
            let mut made = api.create_specification(&new);
            if matches!(made, Err(UsageApiError::Closed(_))) {
                made = match self.find_spec(api, &row, row.before.as_deref().unwrap_or_default())? {
                    Ok(Some(found)) => Ok(found),
                    Ok(None) => api.create_specification(&new),
                    Err(error) => Err(error),
                };
            }
            match made {
                Ok(made) => row.made = Some(made_of(made)),
                Err(error) => {
                    if !error.is_unknown() {
                        row.before = None;
                    }
                    row.settles_at = match error {
                        UsageApiError::NoAnswer(_) => self.now()?.after(api.settle_time() + MARGIN),
                        _ => Moment::default(),
                    };
                    return Ok(Err((row, error)));
                }
            }
        }
        (row.before, row.tries, row.failure) = (None, 0, None);
        (row.retry_at, row.settles_at) = (Moment::default(), Moment::default());
        self.book.note_spec(&row)?;
        Ok(Ok(Done::Created))
    }

    /// The specification that an earlier try made: it has our name and description, was not there before, and is nobody's.
    fn find_spec(
        &self,
        api: &dyn UsageApi,
        row: &KnownSpec,
        before: &[String],
    ) -> Result<Result<Option<SpecificationRef>, UsageApiError>, UsageError> {
        let ours = self.book.made_spec_ids()?;
        Ok(api.specifications(&row.name).map(|found| {
            let is_it = |id: &String, description: &str| {
                description == row.description && !before.contains(id) && !ours.contains(id)
            };
            found.into_iter().find(|found| is_it(&found.at.id, &found.description)).map(|found| found.at)
        }))
    }

    /// The specification of a plugin's unit in the usage API; makes it if it is still to be made.
    pub(super) fn specification(
        &self,
        plugin: &str,
        unit: &str,
    ) -> Result<Result<SpecificationRef, UsageApiError>, UsageError> {
        if let Some(made) = self.book.made_spec(plugin, unit)? {
            return Ok(Ok(reference_to(made)));
        }
        let mut failures =
            self.reconcile_specs(self.api()?, Some(plugin), &|_| Ok(true), &mut Reconciled::default())?;
        if let Some(made) = self.book.made_spec(plugin, unit)? {
            return Ok(Ok(reference_to(made)));
        }
        let because = |reason: String| format!("it has no usage specification for {unit:?} of {plugin}: {reason}");
        // What a specification came to is not what the document came to: that was not even tried.
        Ok(Err(match failures.remove(&(plugin.to_owned(), unit.to_owned())) {
            Some(UsageApiError::Refused(message)) => UsageApiError::Refused(because(message)),
            Some(UsageApiError::Unreachable(message)) => UsageApiError::Unreachable(because(message)),
            Some(error) => UsageApiError::Unavailable(because(error.to_string())),
            None => UsageApiError::Unavailable(because("it was not made".to_owned())),
        }))
    }

    fn send_what_is_left(&self, is_due: IsDue<'_>, reconciled: &mut Reconciled) -> Result<(), UsageError> {
        for UnsentContract { key, retry_at } in self.book.unsent_contracts()? {
            if self.is_ended.load(Ordering::Relaxed) {
                break;
            }
            if !is_due(retry_at)? {
                continue;
            }
            // Whoever holds the lock sends it.
            let name = LockName::Usage { order: &key.order, product: &key.product };
            let lock = self.lock(&name, Duration::ZERO)?;
            let Some(_lock) = lock else {
                reconciled.unsent += self.book.unsent_usage(&key)?;
                reconciled.failure.get_or_insert_with(|| UsageError::Busy(Duration::ZERO).to_string());
                continue;
            };
            tracing::debug!(order = key.order, product = key.product, "sending usage that was left");
            let sent = match self.send(&key) {
                Ok(sent) => sent,
                Err(error) => {
                    reconciled.failure.get_or_insert_with(|| error.to_string());
                    reconciled.unsent += self.book.unsent_usage(&key)?;
                    continue;
                }
            };
            reconciled.sent += sent.sent;
            reconciled.unsent += sent.unsent;
            if let Some(failure) = sent.failure {
                reconciled.failure.get_or_insert_with(|| failure.to_string());
                if matches!(failure, UsageApiError::Unreachable(_)) {
                    break;
                }
            }
        }
        Ok(())
    }
}
