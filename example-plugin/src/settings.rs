//! What the operator sets: `billhook setplugin test-resource --settings FILE`.

use std::path::PathBuf;

use billhook_plugin_api::PluginError;
use serde::Deserialize;

/// Every setting has a default, so the plugin works without any.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Sellers who may not sell this kind of asset.
    pub(crate) blocked_sellers: Vec<String>,
    /// Where the API's gateway logs the calls; without it there is nothing to account.
    pub(crate) usage_log: Option<PathBuf>,
    /// Hosts that an asset may be at; empty allows all.
    pub(crate) allowed_hosts: Vec<String>,
}

impl Settings {
    pub(crate) fn check_seller(&self, seller: &str) -> Result<(), PluginError> {
        if self.blocked_sellers.iter().any(|blocked| blocked == seller) {
            return Err(PluginError::forbidden(format!("{seller} may not sell this kind of asset")));
        }
        Ok(())
    }

    pub(crate) fn check_url(&self, url: &str) -> Result<(), PluginError> {
        let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#', ':']).next());
        let Some(host) = host.filter(|host| !host.is_empty()) else {
            return Err(PluginError::invalid(format!("{url:?} is no https address")));
        };
        if !self.allowed_hosts.is_empty() && !self.allowed_hosts.iter().any(|allowed| allowed == host) {
            return Err(PluginError::forbidden(format!("assets at {host} are not allowed here")));
        }
        Ok(())
    }
}
