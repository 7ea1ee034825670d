//! The open connections: how many there are, and which one gives way where there are enough.
//!
//! Whoever opens connections and asks nothing on them keeps nobody out: a new one takes the place of the one that has been quiet
//! longest, and those of clients that have proven who they are come last. One with work under way never gives way, because its
//! client would not hear what became of that, and one that was just opened or answered not yet.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Extensions, StatusCode};
use tokio::{sync::Notify, time::timeout};

use super::problem::Problem;

/// So many milliseconds a connection stays at least before anybody has proven on it who they are: their request may be on its way.
/// Not longer, because as long others wait.
const ARRIVING: u64 = 1000;
/// So many it stays after an answer was made, which has to leave.
const LEAVING: u64 = 1000;

/// Nobody has looked yet what came on it.
const NEW: u8 = 0;
/// Nothing is under way on it for anybody who has proven who they are.
const QUIET: u8 = 1;
const WORKING: u8 = 2;
/// It gave way, and is being closed.
const GONE: u8 = 3;

/// A connection, as those see it who answer what comes on it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Who is at its other end.
    pub(super) peer: SocketAddr,
    number: u64,
    state: AtomicU8,
    /// Whether somebody has proven on it who they are.
    is_known: AtomicBool,
    /// When it was first looked at or the last answer was made, in milliseconds since the server began.
    quiet_since: AtomicU64,
    gives_way: Notify,
    begin: Instant,
}

impl Connection {
    fn new(peer: SocketAddr, number: u64, begin: Instant) -> Self {
        Connection {
            peer,
            number,
            state: AtomicU8::new(NEW),
            is_known: AtomicBool::new(false),
            quiet_since: AtomicU64::new(begin.elapsed().as_millis() as u64),
            gives_way: Notify::new(),
            begin,
        }
    }

    /// Notes that it is looked from here on what comes on it.
    pub(super) fn listen(&self) {
        self.quiet_since.store(self.begin.elapsed().as_millis() as u64, Ordering::Release);
        self.state.store(QUIET, Ordering::Release);
    }

    /// Waits until it has to give way.
    pub(super) async fn gave_way(&self) {
        self.gives_way.notified().await;
    }

    /// Notes that a client has proven who they are, and that work of theirs begins. Whether it still may: it may not on a
    /// connection that just gave way.
    fn work(&self) -> bool {
        self.is_known.store(true, Ordering::Relaxed);
        self.state.compare_exchange(QUIET, WORKING, Ordering::AcqRel, Ordering::Acquire) != Err(GONE)
    }

    /// Notes that the answer is made.
    pub(super) fn rest(&self) {
        if self.state.load(Ordering::Acquire) == WORKING {
            self.quiet_since.store(self.begin.elapsed().as_millis() as u64, Ordering::Release);
            self.state.store(QUIET, Ordering::Release);
        }
    }

    /// Its place among those that may give way, the lowest one first, and when it may; none while work is under way.
    fn turn(&self) -> Option<(bool, u64)> {
        if self.state.load(Ordering::Acquire) != QUIET {
            return None;
        }
        let (is_known, since) = (self.is_known.load(Ordering::Relaxed), self.quiet_since.load(Ordering::Acquire));
        Some((is_known, since + if is_known { LEAVING } else { ARRIVING }))
    }

    fn give_way(&self) -> bool {
        let gave = self.state.compare_exchange(QUIET, GONE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if gave {
            self.gives_way.notify_one();
        }
        gave
    }
}

/// Notes that the client of a request has proven who they are: from here on its connection stays until it is answered.
pub(super) fn keep(extensions: &Extensions) -> Result<(), Problem> {
    match extensions.get::<Arc<Connection>>() {
        Some(connection) if !connection.work() => {
            Err(Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "too many connections are open", 1))
        }
        _ => Ok(()),
    }
}

/// All connections that are open.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    most_of_peer: usize,
    begin: Instant,
    open: Mutex<Open>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    all: HashMap<u64, Arc<Connection>>,
    /// How many each peer has, whose connections are counted.
    of_peers: HashMap<IpAddr, usize>,
}

/// A place among the open connections, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(self.connection.number);
        self.connections.ended.notify_waiters();
    }
}

/// Why there is no place.
enum NoPlace {
    /// The peer has enough.
    OfPeer,
    /// All are at work, or have just been opened or answered: one may give way after so long.
    Yet(Duration),
}

impl Open {
    fn remove(&mut self, number: u64) {
        let Some(connection) = self.all.remove(&number) else { return };
        let peer = counted(connection.peer);
        if let Some(count) = self.of_peers.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peers.remove(&peer);
            }
        }
    }

    /// Closes the connection that has been quiet longest; or tells how long it will take until one may give way.
    fn make_room(&mut self, now: u64) -> Result<(), Duration> {
        loop {
            let quiet = self.all.values().filter_map(|connection| Some((connection.turn()?, connection)));
            let Some(((_, at), connection)) = quiet.min_by_key(|(turn, _)| *turn) else {
                return Err(Duration::from_millis(LEAVING));
            };
            if at > now {
                return Err(Duration::from_millis(at - now));
            }
            let number = connection.number;
            // Or a request of its began just now: then it is another's turn.
            if connection.give_way() {
                count("room");
                self.remove(number);
                return Ok(());
            }
        }
    }
}

/// Counts a connection that is closed before its time, and why: to make room, or because its peer has enough.
fn count(reason: &'static str) {
    metrics::counter!("billhook_http_connections_closed_total", "reason" => reason).increment(1);
}

/// A peer as it is counted.
fn counted(peer: SocketAddr) -> IpAddr {
    network(peer.ip())
}

/// The network that somebody has if they have an address: of version 6, they have the others of the last 64 bits, too.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

impl Connections {
    /// So many at once, and so many of one peer.
    pub(super) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        let (begin, open, ended) = (Instant::now(), Mutex::default(), Notify::new());
        Arc::new(Connections { most, most_of_peer, begin, open, ended })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection, as soon as there is one; none if the peer has enough of them.
    pub(super) async fn place(self: &Arc<Self>, peer: SocketAddr, is_shared: bool) -> Option<Place> {
        loop {
            // Asked for before it is looked, so that none that ends meanwhile is missed.
            let ended = self.ended.notified();
            match self.place_at(peer, is_shared, self.begin.elapsed().as_millis() as u64) {
                Ok(place) => return Some(place),
                Err(NoPlace::OfPeer) => return None,
                Err(NoPlace::Yet(wait)) => drop(timeout(wait, ended).await),
            }
        }
    }

    fn place_at(self: &Arc<Self>, peer: SocketAddr, is_shared: bool, now: u64) -> Result<Place, NoPlace> {
        let mut open = self.open();
        if !is_shared && open.of_peers.get(&counted(peer)).is_some_and(|count| *count >= self.most_of_peer) {
            count("peer");
            return Err(NoPlace::OfPeer);
        }
        if open.all.len() >= self.most {
            open.make_room(now).map_err(NoPlace::Yet)?;
        }
        open.last += 1;
        let connection = Arc::new(Connection::new(peer, open.last, self.begin));
        open.all.insert(connection.number, Arc::clone(&connection));
        *open.of_peers.entry(counted(peer)).or_default() += 1;
        drop(open);
        Ok(Place { connections: Arc::clone(self), connection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    /// A place for a connection of a peer, which then has been quiet for so many milliseconds.
    fn place(connections: &Arc<Connections>, last: u8, quiet: u64) -> Option<Place> {
        let place = connections.place_at(SocketAddr::from(([10, 0, 0, last], 1)), false, NOW).ok()?;
        place.connection.listen();
        place.connection.quiet_since.store(NOW - quiet, Ordering::Relaxed);
        Some(place)
    }

    fn is_closed(place: &Place) -> bool {
        place.connection.state.load(Ordering::Relaxed) == GONE
    }

    #[test]
    fn where_there_are_enough_the_quietest_gives_way_and_one_at_work_never() {
        let connections = Connections::new(3, 10);
        let [working, first, second] = [9000, 2000, 1000].map(|quiet| place(&connections, 1, quiet).expect("room"));
        assert!(working.connection.work());
        let third = place(&connections, 1, 0).expect("room was made");
        assert!(is_closed(&first) && ![&working, &second, &third].into_iter().any(is_closed));
        assert!(!first.connection.work(), "nothing begins on what is being closed");
        assert!(second.connection.work() && third.connection.work());
        assert!(place(&connections, 1, 0).is_none(), "all are at work");
        drop(second);
        let fourth = place(&connections, 1, 0).expect("one ended");
        assert_eq!((connections.open().all.len(), is_closed(&fourth)), (3, false));
    }

    #[test]
    fn who_has_proven_who_they_are_gives_way_last() {
        let connections = Connections::new(2, 10);
        let known = place(&connections, 1, 0).expect("room");
        assert!(known.connection.work());
        known.connection.rest();
        known.connection.quiet_since.store(0, Ordering::Relaxed);
        let unknown = place(&connections, 1, ARRIVING - 1).expect("room");
        assert!(place(&connections, 1, 0).is_none() && !is_closed(&known), "the unknown one may soon");
        unknown.connection.quiet_since.store(NOW - ARRIVING, Ordering::Relaxed);
        let second = place(&connections, 1, 0).expect("room was made");
        assert!(is_closed(&unknown) && !is_closed(&known));
        assert!(second.connection.work());
        known.connection.quiet_since.store(NOW - LEAVING + 1, Ordering::Relaxed);
        assert!(place(&connections, 1, 0).is_none(), "its answer is leaving");
        known.connection.quiet_since.store(NOW - LEAVING, Ordering::Relaxed);
        assert!(place(&connections, 1, 0).is_some() && is_closed(&known));
    }

    #[test]
    fn a_peer_has_so_many_and_a_proxy_as_many_as_there_are() {
        let connections = Connections::new(10, 2);
        let [first, second] = [1, 1].map(|last| place(&connections, last, 0).expect("room"));
        assert!(place(&connections, 1, 0).is_none() && place(&connections, 2, 0).is_some());
        assert!(connections.place_at(SocketAddr::from(([10, 0, 0, 1], 1)), true, 0).is_ok());
        drop(first);
        assert!(place(&connections, 1, 0).is_some());
        drop(second);
        assert_eq!(connections.open().of_peers.len(), 0);
    }
}
