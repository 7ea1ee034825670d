//! Resources that add-ons provisioned.

use askama::Template;
use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use serde::Deserialize;

use super::{
    frame::{Failure, Frame, show},
    viewer::Viewer,
};
use crate::{
    Resource, ResourceFilter,
    server::{request::Parameters, state::App},
};

/// So many are on a page.
const ON_PAGE: usize = 50;

pub(super) fn router() -> Router<App> {
    Router::new().route("/resources", get(resources))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Search {
    cursor: String,
}

#[derive(Template)]
#[template(path = "resources.html")]
struct ResourcesPage {
    frame: Frame,
    resources: Vec<Resource>,
    next: Option<String>,
}

async fn resources(
    State(app): State<App>,
    viewer: Viewer,
    Parameters(search): Parameters<Search>,
) -> Result<Response, Failure> {
    let filter =
        ResourceFilter { before: search.cursor.parse().ok(), limit: Some(ON_PAGE + 1), ..ResourceFilter::default() };
    let found = app.manage(move |host| host.resources(&filter)).await;
    let found = found.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let mut resources = found.map_err(|error| Failure::of(&app, &viewer, error))?;
    let is_more = resources.len() > ON_PAGE;
    resources.truncate(ON_PAGE);
    let next = resources.last().filter(|_| is_more).map(|last| format!("/resources?cursor={}", last.number));
    let frame = Frame::new(&app, "Provisioned resources", "resources", viewer);
    Ok(show(StatusCode::OK, &ResourcesPage { frame, resources, next }))
}
