//! The tokens of a server's clients.

use std::fmt;

use serde::Serialize;

use crate::{Moment, moment::as_seconds, named::named};

named! {
    /// What a token allows. Each allows what those before it do.
    pub enum Scope: "scope" {
        /// To look at everything.
        Read = 0, "read";
        /// Also to do what a backend does: call hooks, notify, emit events, tell which assets are in use.
        Emit = 1, "emit";
        /// Also to change what is installed and set.
        Manage = 2, "manage";
    }
}

/// A token of a client's, without its secret, which nobody has but the client.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Token {
    /// Its id, which its text begins with.
    pub id: String,
    /// What the operator calls it.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// When it was made; in JSON, in seconds since 1970.
    #[serde(with = "as_seconds")]
    #[cfg_attr(feature = "schema", schema(value_type = i64))]
    pub created: Moment,
    /// From when on it allows nothing; in JSON, in seconds since 1970.
    #[serde(with = "as_seconds::option", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<i64>))]
    pub expires: Option<Moment>,
    /// SHA-256 of its secret. Never shown.
    #[serde(skip)]
    pub hash: Vec<u8>,
}

impl Token {
    /// Returns a token that doesn't expire, with the SHA-256 of its secret.
    pub fn new(id: impl Into<String>, name: impl Into<String>, scope: Scope, created: Moment, hash: Vec<u8>) -> Self {
        Token { id: id.into(), name: name.into(), scope, created, expires: None, hash }
    }

    /// Returns whether it allows nothing any more at a point in time.
    pub fn is_expired(&self, now: Moment) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("scope", &self.scope).finish_non_exhaustive()
    }
}
