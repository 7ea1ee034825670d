//! Looking up names with a time limit.
//!
//! The system's look-up can't be broken off, so it runs on threads of its own, which are kept and are at most a few. Whoever waits
//! goes when the time is over; the thread is used again when the system has answered it.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// So many names are looked up at once.
const MOST_THREADS: usize = 16;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(60);

struct LookUp {
    host: String,
    port: u16,
    answer: mpsc::SyncSender<io::Result<Vec<SocketAddr>>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<LookUp>,
    threads: usize,
    idle: usize,
}

static STATE: Mutex<State> = Mutex::new(State { waiting: VecDeque::new(), threads: 0, idle: 0 });
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
thread_local! {
    static LOOK_UPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Returns how many names this thread looked up.
#[cfg(test)]
pub(super) fn look_ups() -> usize {
    LOOK_UPS.get()
}

/// Returns the addresses of a host. One that is an address itself is not looked up.
pub(super) fn look_up(host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    #[cfg(test)]
    LOOK_UPS.set(LOOK_UPS.get() + 1);
    let (answer, answered) = mpsc::sync_channel(1);
    let mut state = state();
    state.waiting.push_back(LookUp { host: bare.to_owned(), port, answer });
    if state.waiting.len() > state.idle && state.threads < MOST_THREADS {
        match thread::Builder::new().name("billhook-names".to_owned()).spawn(work) {
            Ok(_) => state.threads += 1,
            // The others do it.
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                state.waiting.pop_back();
                return Err(io::Error::new(
                    error.kind(),
                    format!("no thread can be started to look up {host}: {error}"),
                ));
            }
        }
    } else {
        CHANGED.notify_one();
    }
    drop(state);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{host} was not found in time"));
    answered.recv_timeout(limit).map_err(late)?
}

fn work() {
    let mut state = state();
    loop {
        if let Some(LookUp { host, port, answer }) = state.waiting.pop_front() {
            drop(state);
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            let found = match found {
                Ok(found) if found.is_empty() => {
                    Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")))
                }
                Ok(found) => Ok(found),
                Err(error) => Err(io::Error::new(error.kind(), format!("{host} can't be found: {error}"))),
            };
            // Nobody may wait any more.
            let _ = answer.send(found);
            state = self::state();
            continue;
        }
        state.idle += 1;
        let waited = CHANGED.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = waited.0;
        state.idle -= 1;
        if waited.1.timed_out() && state.waiting.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn an_address_is_itself_and_is_looked_up_by_nobody() {
        for (host, expected) in
            [("127.0.0.1", "127.0.0.1:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80"), ("0.0.0.0", "0.0.0.0:80")]
        {
            // No time at all: nothing may be waited for.
            let found = look_up(host, 80, Duration::ZERO).expect(host);
            assert_eq!(found, vec![expected.parse().expect("an address")], "{host}");
        }
    }

    #[test]
    fn names_are_looked_up_by_few_threads_and_an_unknown_one_is_named() {
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| look_up("localhost", 80, LIMIT).expect("known everywhere"));
            }
        });
        assert!(state().threads <= MOST_THREADS);
        let error = look_up("no-such-host.invalid", 80, LIMIT).expect_err("reserved");
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
