//! What a platform and an add-on say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ObjectId, is_empty};
use crate::Json;

/// The configuration of a resource: what the platform sets in the environment of the customer's application. Its keys are
/// among the `addon.config_vars` of the plugin's `package.json`.
pub type AddonConfig = BTreeMap<String, String>;

/// What a platform asks an add-on for: a new resource, or another plan for one.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddonRequest {
    /// The platform's key for this request: the same when it is made again after a time-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The platform's id of the resource or its application: `cloudcontrol_id` or `heroku_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_id: Option<ObjectId>,
    /// The plan that the customer chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Where the customer's application runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where the platform can be asked about the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// What the customer asked for besides.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub options: Json<'static>,
    /// The whole body of the request, with what isn't told above.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub body: Json<'static>,
}

/// A resource that an add-on made.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioned {
    /// The add-on's own id of it. Each resource of an add-on has another.
    pub id: ObjectId,
    /// Its configuration.
    #[serde(default)]
    pub config: AddonConfig,
    /// A sentence for the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Provisioned {
    /// A resource with an id, and no configuration yet.
    pub fn new(id: impl Into<ObjectId>) -> Self {
        Provisioned { id: id.into(), config: AddonConfig::new(), message: None }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, variable: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(variable.into(), value.into());
        self
    }

    /// The same with a sentence for the customer.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
}

/// What a platform proves itself with.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The password of each request; its user is the add-on's id.
    pub password: String,
    /// What single sign-on is signed with; without one, nobody signs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sso_salt: Option<String>,
}

impl Credentials {
    /// A password, and no single sign-on.
    pub fn new(password: impl Into<String>) -> Self {
        Credentials { password: password.into(), sso_salt: None }
    }

    /// The same with a salt for single sign-on.
    #[must_use]
    pub fn with_sso_salt(mut self, salt: impl Into<String>) -> Self {
        self.sso_salt = Some(salt.into());
        self
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Somebody whom the platform vouches for, and who wants to see their resource.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleSignOn {
    /// Their e-mail address; empty where the platform told none.
    #[serde(default)]
    pub email: String,
    /// The application that they come from; empty where the platform told none.
    #[serde(default)]
    pub app: String,
    /// What the platform wants to find in the cookie `heroku-nav-data`.
    #[serde(default)]
    pub nav_data: String,
}
