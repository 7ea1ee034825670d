//! What comes in: from where, and where it goes; and what every answer says.

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Once},
    time::Instant,
};

use axum::{
    Router,
    extract::{FromRequestParts, Query, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::Response,
};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use super::{
    auth, body,
    connections::Connection,
    problem::{self, Problem},
    state::App,
};
use billhook_model::text::visible;

/// What isn't written otherwise in a part of an address (RFC 3986, section 2.3).
pub(super) const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The operation that a request was answered by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route(pub(super) &'static str);

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
    let own = connection.map_or(IpAddr::from([0, 0, 0, 0]), |connection| connection.peer.ip());
    let told = if app.options.behind_proxy { forwarded(headers) } else { None };
    told.unwrap_or(own).to_canonical()
}

/// Who asked the proxy, as it tells: the last that the last header names.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    static UNREADABLE: Once = Once::new();
    let value = headers.get_all("x-forwarded-for").iter().next_back()?;
    let value = String::from_utf8_lossy(value.as_bytes());
    let last = value.rsplit(',').map(str::trim).find(|name| !name.is_empty())?;
    let address = address(last);
    if address.is_none() {
        UNREADABLE.call_once(|| {
            let last = visible(last);
            tracing::warn!("the proxy's X-Forwarded-For says {last:?}, which is no address: its clients count as one");
        });
    }
    address
}

/// An address as proxies write it: as it is, with a port, in brackets, with a zone, in quotes.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    let is_port = |text: &str| text.parse::<u16>().is_ok() && text.bytes().all(|byte| byte.is_ascii_digit());
    let bare = if let Some(text) = text.strip_prefix('[') {
        let (bare, rest) = text.split_once(']')?;
        if !rest.is_empty() && !rest.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        bare.split_once('%').map_or(bare, |(bare, _)| bare)
    } else {
        match text.split_once(':') {
            Some((bare, port)) if is_port(port) && bare.contains('.') => bare,
            _ => text.split_once('%').map_or(text, |(bare, _)| bare),
        }
    };
    bare.parse().ok()
}

/// What is asked for again and again.
const QUIET: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/log/rows"];

/// Answers a request: refuses what comes from elsewhere, logs and counts it, and says in its answer what browsers must not do
/// with it.
pub(super) async fn answer(app: App, router: Router, request: Request<Incoming>) -> Response {
    let start = Instant::now();
    let (request, rest) = body::lend(request);
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
        Err(problem) => {
            drop(request);
            problem.at(&app.options.provisioning, uri.path())
        }
    };
    if !rest.read(response.status()).await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(connection) = connection {
        connection.rest();
    }
    let route = response.extensions_mut().remove::<Route>().map(|Route(path)| path);
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // A name of the operator's own; of others, such as this machine's, browsers would ask nothing plainly any more.
    if app.is_secure() && app.options.public_url.is_some() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    let (status, took) = (response.status().as_u16(), start.elapsed());
    app.routes.count(&method, route, status, took);
    // A backend calls hooks all the time, and what became of them is in the execution log.
    let path = visible(uri.path());
    let path = path.as_ref();
    let is_usual = status < 400 && (path.starts_with("/api/v1/hooks/") || QUIET.contains(&path));
    let took_us = took.as_micros() as u64;
    if is_usual {
        tracing::debug!(target: "billhook::requests", %peer, %method, path, status, took_us, "request");
    } else {
        tracing::info!(target: "billhook::requests", %peer, %method, path, status, took_us, "request");
    }
    response
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_however_a_proxy_writes_it() {
        for (text, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:51234", Some("203.0.113.7")),
            ("\"203.0.113.7:51234\"", Some("203.0.113.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:51234", Some("2001:db8::7")),
            ("\"[2001:db8::7]:51234\"", Some("2001:db8::7")),
            ("fe80::7%eth0", Some("fe80::7")),
            ("[fe80::7%25eth0]:80", Some("fe80::7")),
            ("::ffff:203.0.113.7", Some("::ffff:203.0.113.7")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
            ("203.0.113.7:", None),
            ("203.0.113.7:x", None),
            ("203.0.113.7:70000", None),
            ("[2001:db8::7", None),
            ("[2001:db8::7]x", None),
            ("[2001:db8::7]:", None),
            ("203.0.113", None),
        ] {
            assert_eq!(address(text), expected.map(|address| address.parse().expect(address)), "{text:?}");
        }
    }

    #[test]
    fn the_last_that_the_last_header_names_asked_the_proxy() {
        for (values, expected) in [
            (vec!["198.51.100.1, 203.0.113.7:1"], Some("203.0.113.7")),
            (vec!["198.51.100.1", "203.0.113.7"], Some("203.0.113.7")),
            (vec!["203.0.113.7, , "], Some("203.0.113.7")),
            (vec!["203.0.113.7, unknown"], None),
            (vec![" , "], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append("x-forwarded-for", value.parse().expect("a value"));
            }
            assert_eq!(forwarded(&headers), expected.map(|address| address.parse().expect(address)), "{values:?}");
        }
    }
}
