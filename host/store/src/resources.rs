//! Add-ons, and the resources that they provisioned.

use std::fmt;

use billhook_model::{Resource, ResourceFilter};
use billhook_plugin_api::data::{AddonConfig, AddonRequest, Provisioned};

use crate::Result;

/// The add-ons of installed plugins, and their resources, which outlive them. Each function is one atomic operation, and durable
/// on return. No host has to notice these changes: they don't raise the generation.
pub trait Resources: Send + Sync {
    /// Returns the add-ons of installed plugins, by the bytes of their ids.
    fn addons(&self) -> Result<Vec<InstalledAddon>>;

    /// Returns what stands against a plugin's having an add-on from now on, or none.
    fn addon_clash(&self, plugin: &str, next: Option<NextAddon<'_>>) -> Result<Option<AddonClash>>;

    /// Returns resources, the newest first.
    fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>>;

    /// Returns a resource by the add-on's id of it, if there is one.
    fn resource(&self, addon: &str, id: &str) -> Result<Option<Resource>>;

    /// Returns the add-ons that have a resource of an id, by the bytes of their ids.
    fn owners(&self, id: &str) -> Result<Vec<String>>;

    /// Notes that an add-on is to be asked for a resource, unless it was: from here on its plugin isn't removed unless by force.
    ///
    /// A request with a key is the same as an earlier one of the add-on with that key. One without a key is the same as an
    /// earlier one without a key for the same resource of the platform's of which nobody knows what became; whoever calls sees to
    /// it that two such requests take turns.
    fn note_resource(&self, addon: &str, request: &AddonRequest) -> Result<NewResource>;

    /// Records what an add-on answered to a noted request. If the id is one of a resource that the same customer of the platform's
    /// has, the two become one. Returns the resource, or `None` if the id is another customer's resource's: then nothing changes.
    fn made_resource(&self, number: i64, made: &Provisioned) -> Result<Option<Resource>>;

    /// Records another plan, if there is one, and another configuration, if there is one.
    fn change_resource(&self, number: i64, plan: Option<&str>, config: Option<&AddonConfig>) -> Result<()>;

    /// Forgets a resource, if it is there.
    fn forget_resource(&self, number: i64) -> Result<()>;
}

/// An add-on of an installed plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledAddon {
    /// Its id.
    pub id: String,
    /// The plugin that provides it.
    pub plugin: String,
    /// Who wrote the plugin.
    pub author: String,
    /// The variables that its resources' configurations may have.
    pub config_vars: Vec<String>,
}

/// An add-on as a version of a plugin has it.
#[derive(Debug, Clone, Copy)]
pub struct NextAddon<'a> {
    /// Its id.
    pub id: &'a str,
    /// Who wrote the plugin.
    pub author: &'a str,
}

/// What stands against a plugin's having an add-on from now on, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonClash {
    /// Another plugin provides it.
    Taken {
        /// The add-on.
        addon: String,
        /// The other plugin.
        plugin: String,
    },
    /// The one that it has now has resources, which nobody would answer for any more.
    LeavesResources {
        /// The add-on.
        addon: String,
        /// How many resources.
        resources: u64,
    },
    /// It has resources that another plugin made, or the same one as another author had it.
    OthersResources {
        /// The add-on.
        addon: String,
        /// The plugin that made them.
        plugin: String,
        /// Its author.
        author: String,
    },
}

impl fmt::Display for AddonClash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddonClash::Taken { addon, plugin } => write!(f, "the add-on {addon:?} is provided by {plugin}"),
            AddonClash::LeavesResources { addon, resources } => {
                write!(f, "it provides the add-on {addon:?}, which has {resources} resources")
            }
            AddonClash::OthersResources { addon, plugin, author } => {
                write!(f, "the add-on {addon:?} has resources that {plugin} by {author:?} made")
            }
        }
    }
}

/// What became of asking for a new resource, before the add-on is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewResource {
    /// No plugin provides the add-on any more.
    NoAddon,
    /// It is there already.
    Known(Box<Resource>),
    /// It was asked for before, and nobody knows what became of that; its number.
    AskedBefore(i64),
    /// It is noted as asked for; its number.
    Noted(i64),
}
