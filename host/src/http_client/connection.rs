//! Connections of a client: made when none is kept, and watched, so that it is known what of a request went over the wire.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use billhook_model::Clock;
use ureq::{
    Error,
    config::Config,
    http::{Uri, uri::Scheme},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport},
    },
};

use super::names;

/// What became of the request that this thread is sending.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnWire {
    /// Its connection had carried another request before.
    pub(super) is_reused: bool,
    /// Something of it was sent, or perhaps was.
    pub(super) is_sent: bool,
    /// It was too late to send all of it.
    pub(super) is_late: bool,
    /// Something of its answer came.
    pub(super) is_answered: bool,
}

thread_local! {
    static ON_WIRE: Cell<OnWire> =
        const { Cell::new(OnWire { is_reused: false, is_sent: false, is_late: false, is_answered: false }) };
    /// Kept connections are not used by this thread now.
    static WANTS_NEW: Cell<bool> = const { Cell::new(false) };
    /// What tells others that this thread is sending.
    static ANNOUNCED: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    /// The time since the machine's start from which on this thread must not begin to send.
    static SEND_BEFORE: Cell<Duration> = const { Cell::new(Duration::MAX) };
}

/// Begins a request on this thread. What was announced is dropped when it was sent.
pub(super) fn begin(wants_new: bool, send_before: Duration, announced: Option<Box<dyn Any>>) {
    ANNOUNCED.replace(announced);
    ON_WIRE.set(OnWire::default());
    WANTS_NEW.set(wants_new);
    SEND_BEFORE.set(send_before);
}

/// Ends a request on this thread: whether it was sent or not, it is no more.
pub(super) fn end() {
    ANNOUNCED.take();
}

/// Returns what became of the request that this thread began last.
pub(super) fn on_wire() -> OnWire {
    ON_WIRE.get()
}

fn note(change: impl FnOnce(&mut OnWire)) {
    let mut on_wire = ON_WIRE.get();
    change(&mut on_wire);
    ON_WIRE.set(on_wire);
}

/// Looks up nothing: a name is looked up where a connection is made, and not for each request.
#[derive(Debug)]
pub(super) struct NoLookUp;

impl Resolver for NoLookUp {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Makes connections: looks a name up, and connects to one of its addresses.
#[derive(Debug, Default)]
pub(super) struct Connect(TcpConnector);

impl Connector for Connect {
    type Out = <TcpConnector as Connector>::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let authority = details.uri.authority().ok_or_else(|| Error::BadUri("it names no host".to_owned()))?;
        let default = if details.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default);
        let limit = details.timeout.not_zero().map_or(LONGEST, |limit| *limit);
        let found = names::look_up(authority.host(), port, limit).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::Timeout(details.timeout.reason),
            _ => Error::Io(error),
        })?;
        let mut addrs = details.resolver.empty();
        // A client tries no more than that.
        found.into_iter().take(MOST_ADDRESSES).for_each(|address| addrs.push(address));
        let details = ConnectionDetails {
            addrs,
            timeout: details.timeout,
            uri: details.uri,
            resolver: details.resolver,
            config: details.config,
            request_level: details.request_level,
            now: details.now,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.0.connect(&details, None)
    }
}

/// As long as connecting takes at most where no limit is set.
const LONGEST: Duration = Duration::from_secs(30);
/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 16;

/// Watches over the connections that others made.
#[derive(Debug)]
pub(super) struct Watch(pub(super) Arc<dyn Clock>);

impl<In: Transport> Connector<In> for Watch {
    type Out = Watched<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, made: Option<In>) -> Result<Option<Watched<In>>, Error> {
        Ok(made.map(|inner| Watched { inner, has_answered: false, clock: Arc::clone(&self.0) }))
    }
}

/// A connection that notes what goes over it.
pub(super) struct Watched<In> {
    inner: In,
    clock: Arc<dyn Clock>,
    /// It carried an answer before.
    has_answered: bool,
}

impl<In> fmt::Debug for Watched<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl<In: Transport> Transport for Watched<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // Looked at for each piece: a process may stand still between two, and what lacks its end is no request.
        if self.clock.since_boot() >= SEND_BEFORE.get() {
            note(|on_wire| on_wire.is_late = true);
            return Err(Error::Io(io::Error::new(io::ErrorKind::TimedOut, "it was too late to begin")));
        }
        billhook_machine::crash_point::stands_still("before sending");
        if !on_wire().is_sent {
            let is_reused = self.has_answered;
            note(|on_wire| (on_wire.is_sent, on_wire.is_reused) = (true, is_reused));
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // All of it was sent.
        ANNOUNCED.take();
        let is_more = self.inner.await_input(timeout)?;
        if is_more {
            self.has_answered = true;
            note(|on_wire| on_wire.is_answered = true);
        }
        Ok(is_more)
    }

    fn is_open(&mut self) -> bool {
        !WANTS_NEW.get() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
