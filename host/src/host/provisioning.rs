//! Add-ons and their resources.

use billhook_model::{Resource, ResourceFilter};
use billhook_plugin_api::data::AddonRequest;

use super::{Host, HostError};
use crate::{
    package::Addon,
    provisioning::{CreatedResource, Provisioning, ProvisioningError, SignOnRequest, SignedOn},
};

/// Add-on provisioning. Whoever speaks a platform's protocol calls these; each blocks as long as the add-on takes.
impl Host {
    fn provisioning(&self) -> Provisioning<'_> {
        let shared = &self.shared;
        Provisioning {
            resources: &*shared.stores.resources,
            dispatcher: &shared.dispatcher,
            coordination: &*shared.stores.coordination,
            clock: &*self.options.clock,
            known: &shared.known_addons,
        }
    }

    /// Whether a password is the one that an add-on's platform has.
    pub fn check_addon_password(&self, addon: &str, password: &str) -> Result<bool, ProvisioningError> {
        self.provisioning().check_password(addon, password)
    }

    /// A customer of a platform's added an add-on. The same request again, by its `uuid`, is answered with the same resource.
    pub fn create_resource(&self, addon: &str, request: &AddonRequest) -> Result<CreatedResource, ProvisioningError> {
        self.provisioning().create(addon, request)
    }

    /// A customer of a platform's chose another plan. Answers the resource with its new configuration.
    pub fn update_resource(
        &self,
        addon: &str,
        id: &str,
        request: &AddonRequest,
    ) -> Result<Resource, ProvisioningError> {
        self.provisioning().update(addon, id, request)
    }

    /// A customer of a platform's removed an add-on.
    pub fn delete_resource(&self, addon: &str, id: &str) -> Result<(), ProvisioningError> {
        self.provisioning().delete(addon, id)
    }

    /// A platform sends somebody to see their resource. `None` if nobody vouches for them.
    pub fn sign_on(&self, request: &SignOnRequest) -> Result<Option<SignedOn>, ProvisioningError> {
        self.provisioning().sign_on(request)
    }

    /// The add-ons that have a resource of an id.
    pub fn resource_owners(&self, id: &str) -> Result<Vec<String>, ProvisioningError> {
        Ok(self.shared.stores.resources.owners(id)?)
    }

    /// Resources that add-ons provisioned, the newest first.
    pub fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>, HostError> {
        Ok(self.shared.stores.resources.resources(filter)?)
    }

    /// The plugin that provides an add-on, as far as that is known without looking into the registry.
    pub fn plugin_of_addon(&self, addon: &str) -> Option<String> {
        self.shared.known_addons.plugin(addon)
    }

    /// The add-on of an installed plugin.
    pub fn addon(&self, plugin: &str) -> Result<Option<Addon>, HostError> {
        let addons = self.shared.stores.resources.addons()?;
        let found = addons.into_iter().find(|addon| addon.plugin == plugin);
        Ok(found.map(|addon| Addon { id: addon.id, config_vars: addon.config_vars }))
    }
}
