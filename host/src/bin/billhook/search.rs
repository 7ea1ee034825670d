//! What verbs share that search deliveries and the log, or go through them.

use billhook::{EventError, Host};

/// Why there may be nothing of a listener.
pub(crate) fn unheard(host: &Host, listener: &str) -> anyhow::Result<String> {
    let is_known = host.handler(listener).is_ok() || host.list()?.iter().any(|plugin| plugin.id == listener);
    Ok(if is_known {
        format!("there is nothing of {listener} like that")
    } else {
        format!("no handler and no plugin is called {listener:?}; listhandlers and listplugins show what there is")
    })
}

/// How many are asked for, where 0 stands for all.
pub(crate) fn at_most(limit: usize) -> Option<usize> {
    Some(limit).filter(|limit| *limit > 0)
}

/// The name that an event has, of whatever spelling.
pub(crate) fn named(host: &Host, event: &str) -> anyhow::Result<String> {
    Ok(host.event(event)?.name)
}

/// Does something with each of several deliveries, whatever becomes of the others. Answers those with which it went through, and the
/// first failure.
pub(crate) fn each(numbers: &[i64], run: impl Fn(i64) -> Result<(), EventError>) -> (Vec<i64>, Option<EventError>) {
    let (mut done, mut failure) = (Vec::new(), None);
    for number in numbers {
        match run(*number) {
            Ok(()) => done.push(*number),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    (done, failure)
}
