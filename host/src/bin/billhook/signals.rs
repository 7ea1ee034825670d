//! Signals that ask a process to end. Each lets what is under way come to its end: not only an interrupt, but every signal that
//! would end the process by default, a closed terminal among them.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use anyhow::Context as _;
use signal_hook::{
    consts::{
        SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
        SIGXFSZ,
    },
    flag,
    iterator::Signals,
};

use crate::streams::NO_THREAD;

/// Signals of which a second one ends the process at once. The others may come twice by themselves: a shell and the system both
/// tell of a terminal that was closed.
const INSISTENT: [i32; 3] = [SIGINT, SIGTERM, SIGQUIT];
const OTHERS: [i32; 8] = [SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO];
/// Signals that have no name in the standard, by their numbers on Linux: those of the stack and of power, and the real-time ones.
const UNNAMED: [std::ops::RangeInclusive<i32>; 3] = [16..=16, 30..=30, 34..=64];

/// Takes the signals that must not end any verb, nor take something from it.
pub(crate) fn begin() {
    // A file that may not grow is an error of writing to it. Where the ends of children are ignored, which whoever started this
    // process may have done, the system tells nobody how they ended.
    for signal in [SIGXFSZ, SIGCHLD] {
        let _ = flag::register(signal, Arc::default());
    }
}

/// Returns the signals that end a process by default and can be watched for. A closed terminal isn't among them where it is to be
/// ignored, as `nohup` wants it.
pub(crate) fn ending() -> io::Result<Signals> {
    let is_kept = |signal: &i32| *signal != SIGHUP || !is_hangup_ignored();
    let signals = Signals::new(INSISTENT.into_iter().chain(OTHERS).filter(is_kept).collect::<Vec<i32>>())?;
    for signal in UNNAMED.into_iter().flatten() {
        // The system's library keeps some of them for itself.
        let _ = signals.add_signal(signal);
    }
    Ok(signals)
}

/// Whether this process was started so that a closed terminal is nothing to it.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Begins to watch for signals. `asked` is called once, on a thread of its own, when the first comes.
pub(crate) fn watch(asked: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let mut signals = ending()?;
    let is_insisted = Arc::new(AtomicBool::new(false));
    for signal in INSISTENT {
        // The second time, at once: what is under way then is delivered, or called, again.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&is_insisted))?;
        flag::register(signal, Arc::clone(&is_insisted))?;
    }
    let wait = move || {
        let mut asked = Some(asked);
        for signal in signals.forever() {
            if let Some(asked) = asked.take() {
                tracing::info!(signal, "asked to end: what is under way comes to its end");
                asked();
            }
        }
    };
    thread::Builder::new().name("billhook-signals".to_owned()).spawn(wait).context(NO_THREAD)?;
    Ok(())
}
