//! Connections: how many there are, how long they may take, and how they end.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::{ServerOptionsError, TlsOptions, request, state::App};

/// A certificate that connections are encrypted with.
#[derive(Clone)]
pub(super) struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    pub(super) fn load(options: &TlsOptions) -> Result<Self, ServerOptionsError> {
        let TlsOptions { certificate, key } = options;
        let wrong = |path: &std::path::Path, problem: String| ServerOptionsError::Certificate {
            path: path.to_owned(),
            problem,
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(wrong(certificate, "it holds no certificate".to_owned()));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| wrong(certificate, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Listens on an address, or the first of those that a name stands for. As many connections wait in the kernel as it lets.
pub(super) async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "it is no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let bound = socket.and_then(|socket| {
            // A server that was just stopped leaves connections behind that would keep the address.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(4096)
        });
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The connections of each peer.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// A connection of a peer's, for as long as it lives.
struct PeerTurn(Arc<Peers>, IpAddr);

impl Peers {
    /// A connection more; none if the peer has enough.
    fn turn(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<PeerTurn> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(PeerTurn(Arc::clone(self), peer))
    }
}

impl Drop for PeerTurn {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// Serves connections until `stop` is done, and then those that are open until they end, at most for the time of the options.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    app: App,
    router: Router,
    stop: impl Future<Output = ()> + Send,
) {
    let open = Arc::new(Semaphore::new(app.options.connections));
    let graceful = GracefulShutdown::new();
    let peers = Arc::new(Peers::default());
    let mut stop = pin!(stop);
    loop {
        // A turn before a connection: those that wait for one wait in the kernel, and cost nothing here.
        let turn = tokio::select! {
            () = &mut stop => break,
            turn = Arc::clone(&open).acquire_owned() => turn,
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: some may be free in a moment.
                tracing::warn!("a connection can't be accepted: {error}");
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // A proxy's connections are everybody's, and so are those of this machine's own programs.
        let is_shared = app.options.behind_proxy || peer.ip().to_canonical().is_loopback();
        let most = if is_shared { usize::MAX } else { app.options.connections_per_peer };
        let Some(peer_turn) = peers.turn(peer.ip().to_canonical(), most) else {
            tracing::debug!(%peer, "the peer has enough connections");
            continue;
        };
        let (app, router, tls, watcher) = (app.clone(), router.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _turns = (turn, peer_turn);
            if let Err(error) = serve_one(connection, peer, tls, app, router, watcher).await {
                tracing::debug!(%peer, "a connection ended: {error}");
            }
        });
    }
    drop(listener);
    app.drain();
    tracing::info!("stopping: what is under way may end");
    if timeout(Duration::from_secs(app.options.drain_s), graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests didn't end in time and are cut off");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve_one(
    connection: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    app: App,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Failure> {
    let _ = connection.set_nodelay(true);
    let head = Duration::from_secs(app.options.receive_s);
    match tls {
        None => speak(connection, peer, app, router, watcher).await,
        Some(Tls(acceptor)) => {
            let encrypted = timeout(head, acceptor.accept(connection));
            let encrypted = encrypted.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            speak(encrypted, peer, app, router, watcher).await
        }
    }
}

async fn speak(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    app: App,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Failure> {
    let head = Duration::from_secs(app.options.receive_s);
    // A client that reads or sends nothing for so long is gone, or wants to keep others out.
    let mut connection = TimeoutStream::new(connection);
    connection.set_write_timeout(Some(head));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = request::answer(app.clone(), router.clone(), request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Also the longest that a connection is kept that asks for nothing.
        .header_read_timeout(head)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Box::pin(connection)), service);
    Ok(watcher.watch(connection).await?)
}
