//! Who may ask for what: tokens and their scopes, and where a request may come from.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

use super::{problem::Problem, state::App};
use crate::{Host, Scope, Token};

/// How a client proves who it is.
const BEARER: &str = "Bearer realm=\"billhook\"";

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// What it may do.
    pub(super) scope: Scope,
    /// The token; none where nobody has to prove anything.
    pub(super) token: Option<Arc<Token>>,
}

impl Client {
    /// Everybody, where the operator said so.
    pub(super) fn anybody() -> Self {
        Client { scope: Scope::Manage, token: None }
    }
}

/// Finds out who asks, and refuses whoever may not. `None` where the registry has to be asked first: see [`authorize`].
pub(super) fn authorize_now(
    app: &App,
    headers: &HeaderMap,
    peer: IpAddr,
    scope: Scope,
) -> Option<Result<Client, Problem>> {
    if app.options.insecure_no_auth {
        return Some(Ok(Client::anybody()));
    }
    match bearer(headers) {
        Ok(token) => by_known_token(app, token, peer).map(|client| client.and_then(|client| client.with(scope))),
        Err(problem) => Some(Err(problem)),
    }
}

/// Finds out who asks, and refuses whoever may not; also by a token that was made just now.
pub(super) async fn authorize(app: &App, headers: &HeaderMap, peer: IpAddr, scope: Scope) -> Result<Client, Problem> {
    by_token(app, bearer(headers)?, peer).await?.with(scope)
}

/// The token that a request carries.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    token.ok_or_else(|| Problem::unauthorized("this needs a token: Authorization: Bearer …", BEARER))
}

impl Client {
    /// The same, if it may do what a scope allows.
    fn with(self, scope: Scope) -> Result<Self, Problem> {
        if self.scope >= scope {
            return Ok(self);
        }
        let (needed, own) = (scope.name(), self.scope.name());
        let detail = format!("this needs a token with the scope {needed:?}; this one has {own:?}");
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

/// The client that has a token. Its registry is read where the token is not known here: it may have been made just now.
pub(super) async fn by_token(app: &App, text: &str, peer: IpAddr) -> Result<Client, Problem> {
    if let Some(client) = by_known_token(app, text, peer) {
        return client;
    }
    must_not_wait(app, peer, UNKNOWN)?;
    app.look_for_stranger().await?;
    by_known_token(app, text, peer).unwrap_or_else(|| Err(wrong(app, peer, UNKNOWN)))
}

/// The client that has a token whose id is known here.
///
/// Guesses are counted for each token: whoever guesses at one that doesn't exist keeps nobody out who has one, also where both come
/// from one address.
fn by_known_token(app: &App, text: &str, peer: IpAddr) -> Option<Result<Client, Problem>> {
    let token = app.token(Host::token_id(text)?)?;
    let guessed = format!("token {}", token.id);
    Some(must_not_wait(app, peer, &guessed).and_then(|()| match app.host.is_token(&token, text) {
        true => Ok(Client { scope: token.scope, token: Some(token) }),
        false => Err(wrong(app, peer, &guessed)),
    }))
}

/// What is guessed at by whoever has no token.
const UNKNOWN: &str = "a token";

fn must_not_wait(app: &App, peer: IpAddr, guessed: &str) -> Result<(), Problem> {
    match app.failures.must_wait(peer, guessed) {
        None => Ok(()),
        Some(seconds) => {
            Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens came from there", seconds))
        }
    }
}

fn wrong(app: &App, peer: IpAddr, guessed: &str) -> Problem {
    app.failures.note(peer, guessed, None);
    Problem::unauthorized("the token is none that counts", BEARER)
}

/// Refuses requests for another host, and those that another site's page makes: who has rebound a name to this address, or
/// makes somebody's browser ask, gets nothing.
pub(super) fn check_origin(app: &App, request: &Request) -> Result<(), Problem> {
    match is_foreign(app, request) {
        Some(detail) => Err(Problem::new(StatusCode::FORBIDDEN, detail)),
        None => Ok(()),
    }
}

/// What tells nothing, and is asked by address: whether the server lives.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

fn is_foreign(app: &App, request: &Request) -> Option<&'static str> {
    let (method, headers, uri) = (request.method(), request.headers(), request.uri());
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let mut hosts = headers.get_all(header::HOST).iter().map(text);
    let named = hosts.next();
    if hosts.next().is_some() {
        return Some("the request names several hosts");
    }
    let authority = uri.authority().map(|authority| authority.as_str());
    // A request target with a host of its own takes the place of the header, and must not say something else.
    let usual = |host: &str| host.strip_suffix(":80").unwrap_or(host).to_ascii_lowercase();
    if authority.is_some_and(|authority| named.as_ref().is_some_and(|named| usual(named) != usual(authority))) {
        return Some("the request names two hosts");
    }
    let host = named.as_deref().or(authority).unwrap_or_default();
    if !is_ours(app, host) && !PROBES.contains(&uri.path()) {
        return Some("the request is for another host; the server's option hosts names those that are taken");
    }
    // A platform's page sends people here, with a token that only the platform can make.
    if uri.path().trim_end_matches('/') == app.options.provisioning.sign_on_path {
        return None;
    }
    // A page of another site can make a browser send what changes something, and can't hide where it comes from. It may have a
    // link that leads here.
    let is_cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let is_link = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && (method == Method::GET || method == Method::HEAD);
    let is_foreign_page = is_cross_site && !is_link;
    let has_foreign_origin =
        headers.get_all(header::ORIGIN).iter().any(|origin| !is_same_origin(app, &text(origin), host));
    (is_foreign_page || has_foreign_origin).then_some("the request comes from a page of another site")
}

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    }
}

/// Whether a request for a host is for this server.
fn is_ours(app: &App, host: &str) -> bool {
    let options = &app.options;
    let is_listed = |name: &String| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(bare(host));
    if options.hosts.iter().any(is_listed) {
        return true;
    }
    if !options.hosts.is_empty() {
        return false;
    }
    // Where a token is needed, a name that somebody else chose gives them nothing.
    if !options.insecure_no_auth {
        return true;
    }
    let is_port = match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse() == Ok(app.address.port()),
        _ => app.address.port() == 80,
    };
    let bare = bare(host);
    let is_loopback = bare.eq_ignore_ascii_case("localhost")
        || bare.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_loopback && is_port
}

/// Whether a page's origin is this server's own.
fn is_same_origin(app: &App, origin: &str, host: &str) -> bool {
    let Some((scheme, named)) = origin.split_once("://") else { return false };
    // Without its path, if it has one.
    let public = app.options.public_url.as_deref().and_then(|url| url.split_once("://"));
    if public.is_some_and(|(its, rest)| {
        its.eq_ignore_ascii_case(scheme) && rest.split('/').next().is_some_and(|its| its.eq_ignore_ascii_case(named))
    }) {
        return true;
    }
    // A proxy may speak TLS for this server.
    let is_scheme = scheme == "https" || (scheme == "http" && !app.is_secure());
    is_scheme && named.eq_ignore_ascii_case(host)
}
