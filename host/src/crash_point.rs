//! The steps of a change, named so that a test can kill the process at each of them. Only in debug builds.

/// Every step of an install, in order.
#[cfg(debug_assertions)]
pub(crate) fn reached(step: &str) {
    if std::env::var_os("BILLHOOK_KILL_AT").is_some_and(|name| name == step) {
        #[cfg(unix)]
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reached(_step: &str) {}
