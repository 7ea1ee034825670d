//! The page.
mod session;
use axum::Router;
pub(super) use session::Sessions;
use super::state::App;
pub(super) fn router(_app: &App) -> Router<App> { Router::new() }
