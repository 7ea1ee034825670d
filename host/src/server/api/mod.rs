//! The API under `/api/v1`, and the two views of asset types that the Business API Ecosystem has.

mod catalogue;
mod deliveries;
mod events;
mod handlers;
mod health;
mod hooks;
mod paging;
mod plugins;

use axum::{
    extract::State,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};

pub(super) use plugins::hide_reason;

use super::{
    operation::{Api, operation},
    state::App,
};

pub(super) fn add_to(api: &mut Api) {
    plugins::add_to(api);
    hooks::add_to(api);
    events::add_to(api);
    handlers::add_to(api);
    deliveries::add_to(api);
    catalogue::add_to(api);
    health::add_to(api);
    api.add(
        operation(Method::GET, "/api/v1/openapi.json", None, "server", "This document")
            .answers_plain(200, "an OpenAPI document"),
        document,
    );
}

async fn document(State(app): State<App>) -> Response {
    let text = app.document().map(|document| document.text.clone()).unwrap_or_default();
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}
