//! Usage that plugins report, and the usage specifications that the usage API has of it.

use serde::Serialize;

use crate::named::named;

named! {
    /// What is to be done with a usage specification.
    pub enum PendingSpec: "pending change" {
        /// The usage API is to get it.
        Create = 0, "create";
        /// The usage API is to delete it.
        Delete = 1, "delete";
    }
}

/// A usage specification of a plugin, and the one in the usage API.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UsageSpecState {
    /// The plugin.
    pub plugin: String,
    /// The unit's name.
    pub name: String,
    /// What is to be done.
    pub pending: Option<PendingSpec>,
    /// The usage API's address of it.
    pub href: Option<String>,
    /// Why it was not done yet, if that was tried.
    pub failure: Option<String>,
}

impl UsageSpecState {
    /// Returns a usage specification that the usage API doesn't have, and isn't to get.
    pub fn new(plugin: impl Into<String>, name: impl Into<String>) -> Self {
        UsageSpecState { plugin: plugin.into(), name: name.into(), pending: None, href: None, failure: None }
    }
}
