//! The page: what an operator looks at. Made on the server; the one script only adds to it.
//!
//! Whoever looks has logged in with a token, which became a session; what the token allows, the page allows. Every form carries
//! the session's own mark, and the whole page a policy that lets nothing but its own files in.

mod charts;
mod escape;
mod events;
mod frame;
mod handlers;
mod login;
mod plugins;
mod reference;
mod resources;
mod texts;
mod viewer;

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{problem::Problem, state::App};
use frame::Failure;

pub(super) fn router() -> Router<App> {
    Router::new()
        .merge(login::router())
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

/// Whoever follows a link that leads nowhere sees a page.
pub(super) fn nowhere(app: &App, headers: &HeaderMap, path: &str) -> Option<Response> {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_page = accepted.contains("text/html") && !path.starts_with("/api/") && !path.starts_with("/charging/");
    let viewer = viewer::session_of(app, headers, true).unwrap_or_default();
    is_page.then(|| {
        Failure::of(app, &viewer, Problem::new(StatusCode::NOT_FOUND, "There is nothing here.")).into_response()
    })
}
