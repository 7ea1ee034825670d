//! Who looks.

use axum::http::{HeaderMap, header};

use crate::{
    Scope,
    server::{sessions::Notice, state::App},
};

/// Where the log's page asks by itself for what came since: that is no use of a session.
pub(super) const LIVE: &str = "/log/rows";

/// Who looks.
#[derive(Debug, Clone, Default)]
pub(super) struct Viewer {
    /// What they may do; nothing as long as they didn't log in.
    pub(super) scope: Option<Scope>,
    /// The name of their session.
    pub(super) session: Option<String>,
    /// What their forms carry.
    pub(super) csrf: String,
    /// Nobody has to log in here.
    pub(super) is_open: bool,
}

impl Viewer {
    pub(super) fn may_manage(&self) -> bool {
        self.scope >= Some(Scope::Manage)
    }

    pub(super) fn may_emit(&self) -> bool {
        self.scope >= Some(Scope::Emit)
    }

    /// Leaves word for the next page of theirs.
    pub(super) fn tell(&self, app: &App, text: impl Into<String>, is_error: bool) {
        if let Some(session) = &self.session {
            app.sessions.leave_notice(session, Notice { is_error, text: text.into() });
        }
    }
}

/// The cookie's name. Where there is TLS, browsers see to it that nobody else sets one of this name.
pub(super) fn cookie_name(app: &App) -> &'static str {
    if app.is_secure() { "__Host-billhook" } else { "billhook" }
}

/// Whoever looks, by their cookie. A request that a page makes by itself is no use of the session.
pub(super) fn session_of(app: &App, headers: &HeaderMap, is_use: bool) -> Option<Viewer> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    for (_, name) in pairs.filter(|(key, _)| *key == cookie_name(app)) {
        let Some(session) = app.sessions.find(name, is_use) else { continue };
        let is_open = app.options.insecure_no_auth;
        let scope = match &session.token {
            // A token that was removed, or has expired, ends what was begun with it.
            Some(token) => app.token_by_id(token).map(|token| token.scope),
            None => is_open.then_some(Scope::Manage),
        };
        if scope.is_some() {
            return Some(Viewer { scope, session: Some(name.to_owned()), csrf: session.csrf, is_open });
        }
    }
    None
}
