//! The page: what an operator looks at. Made on the server; the one script only adds to it.
//!
//! Whoever looks has logged in with a token, which became a session; what the token allows, the page allows. Every form carries
//! the session's own mark, and the whole page a policy that lets nothing but its own files in.

mod charts;
mod escape;
mod events;
mod handlers;
mod plugins;
mod reference;
mod resources;
mod viewer;

use askama::Template;
use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};

use viewer::Viewer;

use super::{problem::Problem, request::UNRESERVED, sessions::Notice, state::App};
use crate::Moment;

/// What a page may load and do: its own files, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

pub(super) fn router() -> Router<App> {
    Router::new()
        .merge(viewer::router())
        .merge(plugins::router())
        .merge(handlers::router())
        .merge(events::router())
        .merge(reference::router())
        .merge(resources::router())
        .route("/assets/page.css", get(|| async { file("text/css; charset=utf-8", include_str!("static/page.css")) }))
        .route(
            "/assets/page.js",
            get(|| async { file("text/javascript; charset=utf-8", include_str!("static/page.js")) }),
        )
        .route("/assets/icon.svg", get(|| async { file("image/svg+xml", include_str!("static/icon.svg")) }))
}

fn file(kind: &'static str, content: &'static str) -> Response {
    // Asked for again at each start of a page: a new version of the server has other files.
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, content).into_response()
}

/// What all pages have around them.
struct Frame {
    title: String,
    /// The part of the page that this is, as the navigation names it.
    part: &'static str,
    viewer: Viewer,
    notice: Option<Notice>,
}

impl Frame {
    /// The frame of a page, with what is to be told of what the viewer did before.
    fn new(app: &App, title: impl Into<String>, part: &'static str, viewer: Viewer) -> Self {
        let notice = viewer.session.as_deref().and_then(|name| app.sessions.take_notice(name));
        Frame { title: title.into(), part, viewer, notice }
    }

    /// The same with an error of this very request.
    fn with_error(self, text: impl Into<String>) -> Self {
        Frame { notice: Some(Notice { is_error: true, text: text.into() }), ..self }
    }
}

/// Renders a page.
fn show(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => {
            let policy = [
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            ];
            (status, policy, Html(html)).into_response()
        }
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the page can't be made: {error}")).into_response()
        }
    }
}

/// What a viewer reads of an error: of the server's own troubles what they are, and not where.
fn said(error: impl std::fmt::Display + Into<Problem>) -> String {
    let text = error.to_string();
    let problem: Problem = error.into();
    if problem.status().is_server_error() { problem.detail().to_owned() } else { text }
}

/// Sends the viewer on, after something was done.
fn go_to(path: &str) -> Response {
    let to = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// A name as a part of an address.
fn part_of_path(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, UNRESERVED).to_string()
}

/// A page that tells why there is none.
#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage {
    frame: Frame,
    status: u16,
    detail: String,
}

/// Something went wrong on a page: told as a page.
struct Failure(Box<FailurePage>);

impl Failure {
    fn of(app: &App, viewer: &Viewer, problem: impl Into<Problem>) -> Self {
        let problem = problem.into();
        let frame = Frame::new(app, "That didn't work", "", viewer.clone());
        Failure(Box::new(FailurePage { frame, status: problem.status().as_u16(), detail: problem.detail().to_owned() }))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        show(StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &*self.0)
    }
}

/// Whoever follows a link that leads nowhere sees a page.
pub(super) fn nowhere(app: &App, headers: &HeaderMap, path: &str) -> Option<Response> {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_page = accepted.contains("text/html") && !path.starts_with("/api/") && !path.starts_with("/charging/");
    let viewer = viewer::session_of(app, headers, true).unwrap_or_default();
    is_page.then(|| {
        Failure::of(app, &viewer, Problem::new(StatusCode::NOT_FOUND, "There is nothing here.")).into_response()
    })
}

/// What a field of a search asks for; nothing if it is empty.
fn asked(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The seconds of a date as RFC 3339 has it.
fn seconds_of(date: &str) -> String {
    date.split(['.', 'Z', '+']).next().unwrap_or_default().replace('T', " ")
}

/// A moment, for people: seconds are enough.
fn moment(moment: Moment) -> String {
    seconds_of(&moment.to_string())
}

/// How long something took.
fn took(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.1} s", microseconds as f64 / 1e6),
    }
}
