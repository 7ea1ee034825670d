//! Add-ons, and the resources that they provisioned.

use std::fmt;

use billhook_plugin_api::data::{AddonConfig, ObjectId};
use serde::Serialize;

use crate::Moment;

/// A resource that an add-on provisioned.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Resource {
    /// Its number in the registry.
    pub number: i64,
    /// The add-on.
    pub addon: String,
    /// The add-on's own id of it. None as long as the add-on was asked for it and nobody knows what became of that: the
    /// platform asks again.
    pub id: Option<ObjectId>,
    /// The platform's key for the request that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The platform's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_id: Option<ObjectId>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Where the customer's application runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its configuration: secrets, mostly, and so never shown.
    #[serde(skip)]
    pub config: AddonConfig,
    /// The names of the variables in its configuration.
    pub config_vars: Vec<String>,
    /// The sentence for the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was asked for; in JSON, in milliseconds since 1970.
    #[cfg_attr(feature = "schema", schema(value_type = i64))]
    pub created: Moment,
    /// When it was last changed; in JSON, in milliseconds since 1970.
    #[cfg_attr(feature = "schema", schema(value_type = i64))]
    pub changed: Moment,
}

impl Resource {
    /// Returns a resource that an add-on was asked for at a point in time.
    pub fn new(number: i64, addon: impl Into<String>, created: Moment) -> Self {
        Resource {
            number,
            addon: addon.into(),
            id: None,
            uuid: None,
            platform_id: None,
            plan: None,
            region: None,
            config: AddonConfig::new(),
            config_vars: Vec::new(),
            message: None,
            created,
            changed: created,
        }
    }

    /// Returns the same resource with a configuration.
    #[must_use]
    pub fn with_config(mut self, config: AddonConfig) -> Self {
        self.config_vars = config.keys().cloned().collect();
        self.config = config;
        self
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("number", &self.number)
            .field("addon", &self.addon)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Which resources are asked for; what is `None` doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct ResourceFilter {
    /// The add-on.
    pub addon: Option<String>,
    /// The add-on's own id of it, as text.
    pub id: Option<String>,
    /// Those with lower numbers than this.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<usize>,
}
