//! What all HTTP clients of a host have in common.
//!
//! In the steady state a call makes no thread, no look-up of a name and no connection: a name is looked up where a connection is
//! made, on threads that are kept, and connections are kept alive.

mod connection;
mod names;

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use billhook_model::Clock;
use ureq::{
    Agent, Body, Error, Timeout,
    config::{Config, ConfigBuilder},
    http::{Request, Response},
    tls::{RootCerts, TlsConfig},
    typestate::AgentScope,
    unversioned::transport::{Connector, RustlsConnector},
};

/// A client that takes every status for an answer, follows no redirect by itself, takes no proxy from the environment, and checks
/// certificates against those of the system.
pub(crate) struct HttpClient(Agent);

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'a> {
    /// From the beginning to the last byte of the answer.
    pub(crate) whole: Duration,
    /// Until there is a connection.
    pub(crate) connect: Duration,
    /// Until when it may be begun, if that is limited.
    pub(crate) begin: Option<Begin<'a>>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    /// Whether the request may have reached the other side, to its end or nearly so.
    pub(crate) was_sent: bool,
    /// Whether its connection had carried another request, and ended before anything was answered.
    pub(crate) was_on_stale_connection: bool,
}

impl Unanswered {
    /// Whether the answer didn't come in time, and may still come.
    pub(crate) fn is_timed_out(&self) -> bool {
        match &self.error {
            Error::Timeout(which) => self.was_sent || !matches!(which, Timeout::Resolve | Timeout::Connect),
            _ => false,
        }
    }

    /// Whether the request itself can't be sent to anybody.
    pub(crate) fn is_bad_request(&self) -> bool {
        !self.was_sent && matches!(self.error, Error::Http(_) | Error::BadUri(_))
    }
}

/// Until when something may be begun, and how others are told that it is being.
#[derive(Clone, Copy)]
pub(crate) struct Begin<'a> {
    /// It isn't begun from this time on, since the machine's start.
    pub(crate) before: Duration,
    /// Tells others, before the time is looked at, until what is returned is dropped: once it is begun.
    pub(crate) announce: &'a (dyn Fn() -> Option<Box<dyn Any>> + Sync),
}

impl fmt::Debug for Begin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begin").field("before", &self.before).finish_non_exhaustive()
    }
}

/// Whether a request may be sent again by itself where its connection turns out to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The other side does the same once, however often it is sent.
    Safe,
    /// It might be done twice.
    Never,
    /// As before; and no kept connection is used, because the other side closes them.
    OnNewConnection,
}

impl HttpClient {
    /// A client that keeps so many connections, and so many to one host.
    pub(crate) fn new(idle_connections: usize, idle_per_host: usize, clock: Arc<dyn Clock>) -> Self {
        let config: ConfigBuilder<AgentScope> = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_connections(idle_connections)
            .max_idle_connections_per_host(idle_per_host)
            .user_agent(concat!("billhook/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
        let connector =
            connection::Connect::default().chain(RustlsConnector::default()).chain(connection::Watch(clock));
        HttpClient(Agent::with_parts(config.build(), connector, connection::NoLookUp))
    }

    /// Sends a request, with a body that may be empty.
    ///
    /// The other side may close a kept connection at the same moment. Where nothing was answered on it, the request is sent again,
    /// on a new one and within the same time, if repeating it is safe.
    pub(crate) fn send(
        &self,
        request: &Request<&[u8]>,
        limits: Limits<'_>,
        repeat: Repeat,
    ) -> Result<Response<Body>, Unanswered> {
        let deadline = Instant::now() + limits.whole;
        match self.send_once(request, limits, deadline, repeat == Repeat::OnNewConnection) {
            Err(unanswered) if unanswered.was_on_stale_connection && repeat == Repeat::Safe => {
                self.send_once(request, limits, deadline, true)
            }
            answered => answered,
        }
    }

    fn send_once(
        &self,
        request: &Request<&[u8]>,
        limits: Limits<'_>,
        deadline: Instant,
        wants_new: bool,
    ) -> Result<Response<Body>, Unanswered> {
        let send_before = limits.begin.map_or(Duration::MAX, |begin| begin.before);
        connection::begin(wants_new, send_before, limits.begin.and_then(|begin| (begin.announce)()));
        // At least a moment: no time at all would mean no limit.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // A little less, so that it is told which of them it was: before there is a connection, nothing was done.
        let connect = limits.connect.min(left * 9 / 10);
        let mut copy = Request::builder().method(request.method()).uri(request.uri());
        if let Some(headers) = copy.headers_mut() {
            headers.clone_from(request.headers());
        }
        let answered = if request.body().is_empty() {
            copy.body(()).map_err(Error::Http).and_then(|request| self.run(request, left, connect))
        } else {
            copy.body(*request.body()).map_err(Error::Http).and_then(|request| self.run(request, left, connect))
        };
        connection::end();
        answered.map_err(|error| {
            let on_wire = connection::on_wire();
            let is_closed = !matches!(error, Error::Timeout(_));
            Unanswered {
                error,
                was_sent: on_wire.is_sent && !on_wire.is_late,
                was_on_stale_connection: on_wire.is_sent
                    && !on_wire.is_late
                    && on_wire.is_reused
                    && !on_wire.is_answered
                    && is_closed,
            }
        })
    }

    fn run<S: ureq::AsSendBody>(
        &self,
        request: Request<S>,
        whole: Duration,
        connect: Duration,
    ) -> Result<Response<Body>, Error> {
        let request =
            self.0.configure_request(request).timeout_global(Some(whole)).timeout_connect(Some(connect)).build();
        self.0.run(request)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use billhook_machine::MachineClock;

    use super::*;

    /// Answers every request on every connection; tells how many connections there were when it is asked to end.
    fn server() -> (u16, thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serving = thread::spawn(move || {
            for (count, connection) in (1..).zip(listener.incoming().flatten()) {
                let mut text = [0; 4096];
                while let Ok(length @ 1..) = (&connection).read(&mut text) {
                    let _ = (&connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    if text[..length].starts_with(b"DELETE") {
                        return count;
                    }
                }
            }
            0
        });
        (port, serving)
    }

    #[test]
    fn in_the_steady_state_a_call_makes_no_look_up_and_no_connection() {
        let (port, serving) = server();
        let client = HttpClient::new(8, 8, Arc::new(MachineClock));
        let second = Duration::from_secs(20);
        let limits = Limits { whole: second, connect: second, begin: None };
        let send = |method: &str| {
            let request = Request::builder().method(method).uri(format!("http://localhost:{port}/"));
            client.send(&request.body(&b""[..]).expect("a request"), limits, Repeat::Safe).expect("answered");
        };
        send("GET");
        let before = names::look_ups();
        for _ in 0..200 {
            send("GET");
        }
        assert_eq!(names::look_ups(), before, "look-ups of this thread");
        send("DELETE");
        assert_eq!(serving.join().expect("it ends"), 1, "connections");
    }

    #[test]
    fn nothing_is_sent_when_it_is_too_late_to_begin() {
        let (port, serving) = server();
        let client = HttpClient::new(8, 8, Arc::new(MachineClock));
        let second = Duration::from_secs(20);
        let begin = |before| Some(Begin { before, announce: &|| None });
        let mut limits = Limits { whole: second, connect: second, begin: begin(Duration::ZERO) };
        let request = Request::builder().method("DELETE").uri(format!("http://127.0.0.1:{port}/"));
        let request = request.body(&b""[..]).expect("a request");
        let unanswered = client.send(&request, limits, Repeat::Safe).expect_err("it is too late");
        assert!(!unanswered.was_sent, "{unanswered:?}");
        limits.begin = begin(Duration::MAX);
        client.send(&request, limits, Repeat::Safe).expect("answered");
        serving.join().expect("it ends");
    }
}
