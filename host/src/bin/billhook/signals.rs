//! Signals that ask a process to end. Each lets what is under way come to its end: not only an interrupt, but every signal that
//! would end the process by default, a closed terminal among them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU},
    flag,
    iterator::Signals,
};

/// Signals of which a second one ends the process at once. The others may come twice by themselves: a shell and the system both
/// tell of a terminal that was closed.
const INSISTENT: [i32; 3] = [SIGINT, SIGTERM, SIGQUIT];
const OTHERS: [i32; 8] = [SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO];
/// Signals that have no name in the standard, by their numbers on Linux: those of the stack and of power, and the real-time ones.
#[cfg(target_os = "linux")]
const UNNAMED: [std::ops::RangeInclusive<i32>; 3] = [16..=16, 30..=30, 34..=64];

/// Returns the signals that end a process by default and can be watched for.
#[cfg(target_os = "linux")]
pub(crate) fn ending() -> Vec<i32> {
    INSISTENT.into_iter().chain(OTHERS).collect()
}

/// Begins to watch for signals. `asked` is called once, on a thread of its own, when the first comes.
pub(crate) fn watch(asked: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let was_asked = Arc::new(AtomicBool::new(false));
    for signal in INSISTENT {
        // The second time, at once: what is under way then is delivered, or called, again.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&was_asked))?;
        flag::register(signal, Arc::clone(&was_asked))?;
    }
    let all: Vec<i32> = INSISTENT.into_iter().chain(OTHERS).collect();
    let mut signals = Signals::new(all)?;
    #[cfg(target_os = "linux")]
    for signal in UNNAMED.into_iter().flatten() {
        // The system's library keeps some of them for itself.
        let _ = signals.add_signal(signal);
    }
    let wait = move || {
        let mut asked = Some(asked);
        for signal in signals.forever() {
            was_asked.store(true, Ordering::Relaxed);
            if let Some(asked) = asked.take() {
                tracing::info!(signal, "asked to end: what is under way comes to its end");
                asked();
            }
        }
    };
    thread::Builder::new().name("billhook-signals".to_owned()).spawn(wait).map(drop)
}
