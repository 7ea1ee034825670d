//! No panic crosses the boundary: every entry runs its code in here, inside the plugin's own library.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::OnceLock,
};

use super::{reply::send_refusal, types::ReplyHandle};
use crate::PluginError;

thread_local! {
    /// What the panic hook saw last on this thread: the message, and where it was raised.
    static LAST_PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Takes a line.
type PanicLog = Box<dyn Fn(&str) + Send + Sync>;

/// The log that panics go to, also those of threads that the plugin started itself.
static PANIC_LOG: OnceLock<PanicLog> = OnceLock::new();

/// Sends this library's panics to the host's log in place of standard error, and notes where they were raised.
///
/// A library has its own copy of the standard library, so this touches neither the host's hook nor another plugin's.
pub(crate) fn watch_panics(log: impl Fn(&str) + Send + Sync + 'static) {
    if PANIC_LOG.set(Box::new(log)).is_ok() {
        std::panic::set_hook(Box::new(note_panic));
    }
}

fn note_panic(info: &PanicHookInfo<'_>) {
    let message = message(info.payload());
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    if let Some(log) = PANIC_LOG.get() {
        log(&format!("panicked at {place}: {message}"));
    }
    LAST_PANIC.with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = Some((message, place));
        }
    });
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is no text".to_owned()
    }
}

/// Drops a panic's payload. One that panics when it is dropped is forgotten instead.
pub(crate) fn dispose(payload: Option<Box<dyn Any + Send>>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

/// Runs code of the plugin's. A panic is an internal error with the panic's message and place.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(payload) => Err(panicked(payload)),
    }
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> PluginError {
    let message = message(&*payload);
    let last = LAST_PANIC.with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.take()));
    dispose(Some(payload));
    // A panic that was caught and resumed doesn't pass through the hook again; then the place may be another's.
    PluginError::panicked(match last.filter(|(noted, _)| *noted == message) {
        Some((_, place)) => format!("panicked at {place}: {message}"),
        None => format!("panicked: {message}"),
    })
}

/// Runs a hook and answers its status, having sent a refusal.
pub(crate) fn status(reply: ReplyHandle, run: impl FnOnce() -> Result<(), PluginError>) -> u32 {
    // An error's message is the plugin's own, and dropping it is code of the plugin's library: both stay on this side.
    match guarded(run) {
        Ok(()) => 0,
        Err(error) => send_refusal(reply, &error),
    }
}
