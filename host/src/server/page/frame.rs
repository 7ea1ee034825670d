//! What all pages have around them, and what stands where a page can't.

use askama::Template;
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::viewer::Viewer;
use crate::{
    Scope,
    server::{problem::Problem, request::UNRESERVED, sessions::Notice, state::App},
};

/// What a page may load and do: its own files, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// What all pages have around them.
pub(super) struct Frame {
    pub(super) title: String,
    /// The part of the page that this is, as the navigation names it.
    pub(super) part: &'static str,
    pub(super) viewer: Viewer,
    pub(super) notice: Option<Notice>,
}

impl Frame {
    /// The frame of a page, with what is to be told of what the viewer did before.
    pub(super) fn new(app: &App, title: impl Into<String>, part: &'static str, viewer: Viewer) -> Self {
        let notice = viewer.session.as_deref().and_then(|name| app.sessions.take_notice(name));
        Frame { title: title.into(), part, viewer, notice }
    }

    /// The same with an error of this very request.
    pub(super) fn with_error(self, text: impl Into<String>) -> Self {
        Frame { notice: Some(Notice { is_error: true, text: text.into() }), ..self }
    }
}

/// Renders a page.
pub(super) fn show(status: StatusCode, page: &impl Template) -> Response {
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
pub(super) fn said(error: impl std::fmt::Display + Into<Problem>) -> String {
    let text = error.to_string();
    let problem: Problem = error.into();
    if problem.status().is_server_error() { problem.detail().to_owned() } else { text }
}

/// Sends the viewer on, after something was done.
pub(super) fn go_to(path: &str) -> Response {
    let to = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// A name as a part of an address.
pub(super) fn part_of_path(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, UNRESERVED).to_string()
}

/// A page that tells why there is none.
#[derive(Template)]
#[template(path = "failure.html")]
pub(super) struct FailurePage {
    frame: Frame,
    status: u16,
    detail: String,
}

/// Something went wrong on a page: told as a page.
pub(super) struct Failure(Box<FailurePage>);

impl Failure {
    pub(super) fn of(app: &App, viewer: &Viewer, problem: impl Into<Problem>) -> Self {
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

impl Viewer {
    /// Refuses what their token doesn't allow.
    pub(super) fn demand(&self, app: &App, scope: Scope) -> Result<(), Failure> {
        if self.scope >= Some(scope) {
            return Ok(());
        }
        let detail = format!("This needs a token with the scope {:?}.", scope.name());
        Err(Failure::of(app, self, Problem::new(StatusCode::FORBIDDEN, detail)))
    }
}
