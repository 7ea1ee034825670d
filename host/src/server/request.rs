//! What comes in: who sent it, what it took, and its body, which is read within limits.

use std::{
    collections::HashMap,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use metrics::{Counter, Histogram};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::{
    auth,
    connections::Connection,
    operation::Route,
    problem::{self, Problem},
    state::App,
};

/// The address of whoever asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

impl FromRequestParts<App> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Peer(peer(app, &parts.headers, parts.extensions.get())))
    }
}

/// The address of whoever asks: the connection's, or what the proxy tells.
pub(super) fn peer(app: &App, headers: &HeaderMap, connection: Option<&Arc<Connection>>) -> IpAddr {
    let told = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let told = told.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
    let own = connection.map_or(IpAddr::from([0, 0, 0, 0]), |connection| connection.peer.ip());
    told.filter(|_| app.options.behind_proxy).unwrap_or(own).to_canonical()
}

/// What is asked for again and again.
const QUIET: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/log/rows"];

/// The counters of the routes, each looked up once: looking them up costs more than counting.
#[derive(Default)]
pub(super) struct RouteCounters(RwLock<HashMap<Counted, (Counter, Histogram)>>);

/// A method, an operation's path, and the status that was answered.
type Counted = (Method, &'static str, u16);

impl RouteCounters {
    fn count(&self, method: &Method, route: Option<Route>, status: u16, took: Duration) {
        // Operations and not paths, and no methods that nobody has heard of: there are as many as clients can think of.
        let key = (route.map_or(Method::GET, |_| method.clone()), route.map_or("other", |Route(path)| path), status);
        let count = |(counter, histogram): &(Counter, Histogram)| {
            counter.increment(1);
            histogram.record(took.as_secs_f64());
        };
        if let Some(counters) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return count(counters);
        }
        let labels =
            [("method", key.0.as_str().to_owned()), ("route", key.1.to_owned()), ("status", key.2.to_string())];
        let counters = (
            metrics::counter!("billhook_http_requests_total", &labels),
            metrics::histogram!("billhook_http_duration_seconds", &labels[..2]),
        );
        count(&counters);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, counters);
    }
}

/// Answers a request: refuses what comes from elsewhere, logs and counts it, and says in its answer what browsers must not do
/// with it.
pub(super) async fn answer(app: App, router: Router, request: Request) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let uri = request.uri().clone();
    let connection: Option<Arc<Connection>> = request.extensions().get().cloned();
    let peer = peer(&app, request.headers(), connection.as_ref());
    let mut response = match auth::check_origin(&app, &request) {
        // A panic is an answer, too, and never the end of the connection.
        Ok(()) => match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => problem::panicked(&*panic),
        },
        Err(problem) => problem.into_response(),
    };
    if let Some(connection) = connection {
        connection.rest();
    }
    let route = response.extensions_mut().remove::<Route>();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    let (status, took) = (response.status().as_u16(), start.elapsed());
    app.routes.count(&method, route, status, took);
    // A backend calls hooks all the time, and what became of them is in the execution log.
    let path = uri.path();
    let is_usual = status < 400 && (path.starts_with("/api/v1/hooks/") || QUIET.contains(&path));
    let took_us = took.as_micros() as u64;
    if is_usual {
        tracing::debug!(target: "billhook::requests", %peer, %method, path, status, took_us, "request");
    } else {
        tracing::info!(target: "billhook::requests", %peer, %method, path, status, took_us, "request");
    }
    response
}

/// Whether a request's body is of a media type.
pub(super) fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

/// Reads a body: no more bytes and no longer than the options say.
pub(super) async fn read(app: &App, body: Body) -> Result<Bytes, Problem> {
    read_at_most(app, body, app.options.body_kb.saturating_mul(1024)).await
}

/// Reads the form of somebody who is unknown as yet: a few fields, and no room for more.
pub(super) async fn read_form(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if !is_of_type(headers, "application/x-www-form-urlencoded") {
        drain(body).await;
        let detail = "the body has to be declared as Content-Type: application/x-www-form-urlencoded";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    read_at_most(app, body, 64 * 1024).await
}

async fn read_at_most(app: &App, body: Body, most: usize) -> Result<Bytes, Problem> {
    let time = Duration::from_secs(app.options.receive_s);
    let read = timeout(time, Limited::new(body, most).collect()).await;
    match read {
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body has more than {most} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body can't be read: {error}"))),
    }
}

/// Reads a body that nobody wants, as far as that is bearable: who is still sending when the answer comes may never see it.
pub(super) async fn drain(body: Body) {
    const BEARABLE: usize = 16 * 1024 * 1024;
    if body.size_hint().lower() > BEARABLE as u64 {
        return;
    }
    let mut drained = pin!(Limited::new(body, BEARABLE));
    let _ = timeout(Duration::from_secs(10), async { while let Some(Ok(_)) = drained.frame().await {} }).await;
}

/// A body of JSON, whatever it holds, as it was sent.
#[derive(Debug)]
pub(super) struct AnyJsonBody(pub(super) Box<RawValue>);

impl FromRequest<App> for AnyJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        parse(&json(request, app).await?).map(AnyJsonBody)
    }
}

/// A body of JSON: an object.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

/// The bytes of a body that is declared as JSON.
async fn json(request: Request, app: &App) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    if !is_of_type(&parts.headers, "application/json") {
        drain(body).await;
        let detail = "the body has to be declared as Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    read(app, body).await
}

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = json(request, app).await?;
        // A list would be taken for the fields in their order.
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the body has to be an object")),
            _ => parse(&bytes).map(JsonBody),
        }
    }
}

/// Reads JSON.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let status = match error.classify() {
            serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, format!("the body can't be taken: {error}"))
    })
}

/// The parameters of a query.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri).map(|Query(parameters)| Parameters(parameters));
        query.map_err(|error| Problem::bad_request(format!("the query can't be taken: {}", error.body_text())))
    }
}

/// The parts of a path, decoded.
#[derive(Debug)]
pub(super) struct PathPart(pub(super) String);

impl FromRequestParts<App> for PathPart {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, app).await;
        let axum::extract::Path(part) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(PathPart(part))
    }
}
