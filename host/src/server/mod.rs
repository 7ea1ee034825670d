//! The HTTP server: management, hooks, events and add-on provisioning, and a page to look at.
//!
//! Only this part of the host is asynchronous. Everything that the host does blocks, and so has threads of its own; what waits
//! for a network doesn't. It knows the host by its public functions alone.

mod api;
mod auth;
mod blocking;
mod body;
mod connections;
mod failures;
mod listen;
mod media;
mod metrics;
mod operation;
mod options;
mod page;
mod problem;
mod provisioning;
mod request;
mod sessions;
mod state;
mod upload;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::Response,
};
use tokio::net::TcpListener;

pub use metrics::Metrics;
pub use options::{ProvisioningOptions, ServerOptions, ServerOptionsError, TlsOptions};

use crate::Host;
use blocking::Threads;
use operation::Api;
use problem::Problem;
use state::{App, Shared};

/// A server on a host, bound to its address and not running yet.
///
/// ```no_run
/// use std::sync::Arc;
/// use billhook::{Host, server::{Server, ServerOptions}};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let host = Arc::new(Host::open("/var/lib/billhook")?);
/// let server = Server::bind(host, ServerOptions::default(), None).await?;
/// println!("listening on {}", server.address());
/// server.run(async { let _ = tokio::signal::ctrl_c().await; }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: App,
    tls: Option<listen::Tls>,
}

impl Server {
    /// Checks the options and takes the address. `metrics` is what `/metrics` and the charts show; without it they show nothing.
    pub async fn bind(
        host: Arc<Host>,
        options: ServerOptions,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Self, ServerOptionsError> {
        options.check()?;
        let tls = options.tls.as_ref().map(listen::Tls::load).transpose()?;
        let wrong = |source| ServerOptionsError::Listen { address: options.listen.clone(), source };
        let threads = Threads::start(options.blocking_threads()).map_err(ServerOptionsError::Threads)?;
        let listener = listen::bind(&options.listen, &threads).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        // What it is bound to decides, not what was written: a name may stand for any address.
        if options.insecure_no_auth && !address.ip().is_loopback() {
            return Err(ServerOptionsError::NotLoopback { address });
        }
        let app = App(Arc::new(Shared::new(host, options, metrics, address, tls.is_some(), threads)));
        Ok(Server { listener, address, app, tls })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done; then takes nothing new, and lets what is under way end, at most for the time of the options.
    ///
    /// Starts the host's deliveries, and its reconciler where it has a usage API. Calls have threads of the server's own; where the
    /// system gives no more, a call is answered with 503.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let Server { listener, app, tls, .. } = self;
        let started = app.clone();
        app.block(move || started.start()).await??;
        let keepers = [tokio::spawn(keep(app.clone())), tokio::spawn(watch(app.clone()))];
        listen::serve(listener, tls, app.clone(), router(&app), stop).await;
        keepers.into_iter().for_each(|keeper| keeper.abort());
        Ok(())
    }
}

/// Keeps the house while the server runs: every few seconds, and as soon as something changed.
async fn keep(app: App) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for tick in 0_u64.. {
        ticks.tick().await;
        if tick % 50 == 0 {
            app.keep();
        }
        if app.has_old_tokens() {
            let renewed = app.clone();
            match app.block(move || renewed.renew_tokens()).await {
                // Those that are known stay good.
                Ok(Err(error)) => {
                    tracing::error!("tokens can't be read: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(not_run) => {
                    tracing::error!("tokens can't be read: {not_run}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(Ok(_)) => continue,
            }
        }
    }
}

/// Looks every second whether the server's home can be read.
async fn watch(app: App) {
    loop {
        let looking = app.clone();
        let mut look = std::pin::pin!(app.block(move || looking.look()));
        let looked = match tokio::time::timeout(Duration::from_secs(2), &mut look).await {
            Ok(looked) => looked,
            Err(_) => {
                app.set_readiness(Some("the home doesn't answer in time".to_owned()));
                look.await
            }
        };
        app.set_readiness(match looked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Problem::from(error).detail().to_owned()),
            Err(error) => Some(error.to_string()),
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Everything that is served.
fn router(app: &App) -> Router {
    let mut api = Api::new(app.clone());
    api::add_to(&mut api);
    provisioning::add_to(&mut api);
    let (router, document) = api.finish();
    app.set_document(document);
    let router = router.merge(page::router());
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(app.clone())
}

async fn not_found(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    if let Some(page) = page::nowhere(&app, &headers, uri.path()) {
        return page;
    }
    let problem = Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()));
    problem.at(&app.options.provisioning, uri.path())
}

async fn method_not_allowed(State(app): State<App>, method: Method, uri: Uri) -> Response {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} doesn't take {method}", uri.path()));
    problem.at(&app.options.provisioning, uri.path())
}
