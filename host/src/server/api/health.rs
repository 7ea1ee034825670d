//! How the server is: whether it lives, whether it takes requests, and what it counts.

use axum::{
    extract::State,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    Scope,
    server::{
        operation::{Api, operation},
        problem::Problem,
        state::App,
    },
};

pub(super) fn add_to(api: &mut Api) {
    api.add(
        operation(Method::GET, "/healthz", None, "server", "Whether the server lives").answers_plain(200, "it does"),
        || async { "ok\n" },
    );
    api.add(
        operation(Method::GET, "/readyz", None, "server", "Whether the server takes requests")
            .answers_plain(200, "it does")
            .answers_plain(503, "it is stopping, or its home can't be read"),
        ready,
    );
    api.add(
        operation(Method::GET, "/metrics", Scope::Read, "server", "What the server counts, for Prometheus")
            .answers_plain(200, "metrics in Prometheus's text format")
            .fails(&[]),
        show,
    );
}

async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    match app.readiness() {
        None => Ok("ready\n"),
        Some(problem) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem)),
    }
}

async fn show(State(app): State<App>) -> Response {
    let (loaded, workers) = (app.host.loaded(), app.host.workers());
    metrics::gauge!("billhook_plugins_loaded").set(loaded as f64);
    metrics::gauge!("billhook_workers_alive").set(workers as f64);
    let text = app.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default();
    let text_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text_type)], text).into_response()
}
