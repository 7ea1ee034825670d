//! The steps of a change, named so that a test can kill the process at each of them. Only in debug builds.

/// Ends the process if `BILLHOOK_KILL_AT` names this step; `STEP#3` is the third time that it is reached.
#[cfg(debug_assertions)]
pub fn reached(step: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let Some(named) = std::env::var_os("BILLHOOK_KILL_AT") else { return };
    let Some(named) = named.to_str() else { return };
    let (name, time) = named.split_once('#').unwrap_or((named, "1"));
    if name == step && time.parse() == Ok(TIMES.fetch_add(1, Ordering::Relaxed) + 1) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub fn reached(_step: &str) {}

/// Lets the process stand still if `BILLHOOK_STOP_AT` names this step, the first time that it is reached.
#[cfg(debug_assertions)]
pub fn stands_still(_step: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static WAS_REACHED: AtomicBool = AtomicBool::new(false);
    if std::env::var_os("BILLHOOK_STOP_AT").is_some_and(|named| named == _step)
        && !WAS_REACHED.swap(true, Ordering::Relaxed)
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        // Another thread may be the one that is told: this one must not go on until all are stopped.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[cfg(not(debug_assertions))]
pub fn stands_still(_step: &str) {}

/// Returns a number that a test sets in the environment, such as another clock or another lease. Nothing in release builds.
pub fn number(_name: &str) -> Option<i64> {
    #[cfg(debug_assertions)]
    return std::env::var(_name).ok()?.parse().ok();
    #[cfg(not(debug_assertions))]
    None
}
