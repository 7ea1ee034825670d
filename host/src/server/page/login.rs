//! Logging in and out, and what forms have to carry.

use askama::Template;
use axum::{
    Router,
    body::Body,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    frame::{Failure, Frame, go_to, part_of_path, show},
    viewer::{LIVE, Viewer, cookie_name, session_of},
};
use crate::server::{
    auth,
    body::{read_form, read_small_form},
    connections,
    problem::Problem,
    request::Peer,
    state::App,
};

impl FromRequestParts<App> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let to_login = || {
            // What was posted isn't there to be looked at.
            let path = parts.uri.path_and_query().filter(|_| parts.method == Method::GET);
            let path = path.map_or("/", |path| path.as_str());
            go_to(&format!("/login?next={}", part_of_path(path)))
        };
        let viewer = session_of(app, &parts.headers, parts.uri.path() != LIVE).ok_or_else(to_login)?;
        connections::keep(&parts.extensions).map_err(IntoResponse::into_response)?;
        Ok(viewer)
    }
}

/// A form of a viewer's own page.
pub(super) struct OwnForm<T> {
    pub(super) viewer: Viewer,
    pub(super) form: T,
}

/// The mark that every form carries.
#[derive(Deserialize)]
struct Mark {
    #[serde(default)]
    csrf: String,
}

impl<T: DeserializeOwned> FromRequest<App> for OwnForm<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let Some(viewer) = session_of(app, &parts.headers, true) else {
            return Err(go_to("/login"));
        };
        connections::keep(&parts.extensions).map_err(IntoResponse::into_response)?;
        let form = parse(app, &viewer, &parts.headers, body).await;
        form.map(|form| OwnForm { viewer: viewer.clone(), form })
            .map_err(|problem| Failure::of(app, &viewer, problem).into_response())
    }
}

async fn parse<T: DeserializeOwned>(app: &App, viewer: &Viewer, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = read_form(app, headers, body).await?;
    let mark: Mark = serde_urlencoded::from_bytes(&bytes).map_err(|error| Problem::bad_request(error.to_string()))?;
    check_mark(app, viewer, &mark.csrf)?;
    serde_urlencoded::from_bytes(&bytes).map_err(|error| Problem::bad_request(error.to_string()))
}

/// Refuses a form that isn't one of the viewer's own.
pub(super) fn check_mark(app: &App, viewer: &Viewer, csrf: &str) -> Result<(), Problem> {
    let session = viewer.session.as_deref().and_then(|name| app.sessions.find(name, true));
    if session.is_some_and(|session| session.is_own_form(csrf)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "This form is none of this page, or too old: go back, and load the page again.",
    ))
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    next: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Next {
    next: String,
}

#[derive(Deserialize)]
struct Login {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) fn router() -> Router<App> {
    Router::new().route("/login", get(login_page).post(login)).route("/logout", post(logout))
}

/// An address of this page; anything else leads to its beginning.
fn own_path(next: &str) -> &str {
    let is_own = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\n', '\r']);
    if is_own && next.bytes().all(|byte| (33..127).contains(&byte)) { next } else { "/" }
}

async fn login_page(State(app): State<App>, headers: HeaderMap, request: Request) -> Response {
    let Next { next } = serde_urlencoded::from_str(request.uri().query().unwrap_or_default()).unwrap_or_default();
    let next = own_path(&next).to_owned();
    if session_of(&app, &headers, true).is_some() {
        return go_to(own_path(&next));
    }
    if app.options.insecure_no_auth {
        return begin(&app, None, &next);
    }
    let frame = Frame::new(&app, "Log in", "login", Viewer::default());
    show(StatusCode::OK, &LoginPage { frame, next })
}

async fn login(State(app): State<App>, peer: Peer, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = match read_small_form(&app, &parts.headers, body).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let Ok(Login { token, next }) = serde_urlencoded::from_bytes(&bytes) else {
        return Problem::bad_request("the form lacks a token").into_response();
    };
    match auth::by_token(&app, token.trim(), peer.0).await {
        Ok(client) => begin(&app, client.token.map(|token| token.id.clone()), &next),
        Err(problem) => {
            let frame = Frame::new(&app, "Log in", "login", Viewer::default());
            let text = match problem.status() {
                StatusCode::UNAUTHORIZED => "This token is wrong, or was removed, or has expired.".to_owned(),
                _ => problem.detail().to_owned(),
            };
            show(problem.status(), &LoginPage { frame: frame.with_error(text), next: own_path(&next).to_owned() })
        }
    }
}

fn begin(app: &App, token: Option<String>, next: &str) -> Response {
    let Some(name) = app.sessions.begin(token) else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no session can be begun").into_response();
    };
    let mut response = go_to(own_path(next));
    set_cookie(app, &mut response, &name, "");
    response
}

fn set_cookie(app: &App, response: &mut Response, value: &str, more: &str) {
    let secure = if app.is_secure() { "; Secure" } else { "" };
    let cookie = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}", cookie_name(app));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

#[derive(Deserialize)]
struct Nothing {}

async fn logout(State(app): State<App>, OwnForm { viewer, form: Nothing {} }: OwnForm<Nothing>) -> Response {
    if let Some(session) = &viewer.session {
        app.sessions.end(session);
    }
    let mut response = go_to("/login");
    set_cookie(&app, &mut response, "", "; Max-Age=0");
    response
}
