//! The way in: listening, encryption, how long a connection may take, and how all end.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{Router, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
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

use super::{
    blocking::Threads,
    connections::{Connection, Connections},
    options::{ServerOptionsError, TlsOptions},
    request,
    state::App,
};

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
pub(super) async fn bind(address: &str, threads: &Threads) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "it is no address");
    let name = address.to_owned();
    let addresses: Vec<SocketAddr> = match address.parse() {
        Ok(address) => vec![address],
        Err(_) => threads.run(move || name.to_socket_addrs().map(Iterator::collect)).await??,
    };
    for address in addresses {
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

/// Serves connections until `stop` is done, and then those that are open until they end, at most for the time of the options.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    app: App,
    router: Router,
    stop: impl Future<Output = ()> + Send,
) {
    let connections = Connections::new(app.options.connections, app.options.connections_per_peer);
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
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
        // As long as this one waits for a place, the others wait in the kernel, and cost nothing here.
        let place = tokio::select! {
            () = &mut stop => break,
            place = connections.place(peer, is_shared) => place,
        };
        let Some(place) = place else {
            tracing::debug!(%peer, "the peer has enough connections");
            continue;
        };
        let (app, router, tls, watcher) = (app.clone(), router.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            place.connection.listen();
            let ended = tokio::select! {
                ended = serve_one(connection, Arc::clone(&place.connection), tls, app, router, watcher) => ended,
                () = place.connection.gave_way() => Err("it gave way to another".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, "a connection ended: {error}");
            }
        });
    }
    drop(listener);
    tracing::info!("stopping: what is under way may end");
    let drain = Duration::from_secs(app.options.drain_s);
    // Requests and deliveries at the same time, so that it doesn't take twice as long. What isn't delivered then is by whoever
    // runs next.
    let host = Arc::clone(&app.host);
    let deliveries = app.block(move || host.stop_deliveries(drain));
    let (requests, _) = tokio::join!(timeout(drain, graceful.shutdown()), deliveries);
    if requests.is_err() {
        tracing::warn!("some requests didn't end in time and are cut off");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve_one(
    stream: TcpStream,
    connection: Arc<Connection>,
    tls: Option<Tls>,
    app: App,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Failure> {
    let _ = stream.set_nodelay(true);
    let head = Duration::from_secs(app.options.receive_s);
    match tls {
        None => speak(stream, connection, app, router, watcher).await,
        Some(Tls(acceptor)) => {
            let encrypted = timeout(head, acceptor.accept(stream));
            let encrypted = encrypted.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            speak(encrypted, connection, app, router, watcher).await
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Arc<Connection>,
    app: App,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Failure> {
    let head = Duration::from_secs(app.options.receive_s);
    // A client that reads or sends nothing for so long is gone, or wants to keep others out.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(head));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        let answer = request::answer(app.clone(), router.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        // Who has sent all that they want to say may still want to hear the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        // Also the longest that a connection is kept that asks for nothing.
        .header_read_timeout(head)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    Ok(watcher.watch(served).await?)
}
