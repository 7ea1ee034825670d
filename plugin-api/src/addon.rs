//! The trait of plugins that provide an add-on to a platform.

use crate::{
    AddonRequest, Plugin, PluginError,
    data::{AddonConfig, Credentials, Provisioned, SingleSignOn},
};

/// What a provider does for a platform's customers: makes a resource for each who adds the add-on, and takes it away again.
///
/// Implement it for the type whose `impl Plugin` carries [`export`](crate::export), which finds it by itself, and name the
/// add-on in `package.json`: `"addon": {"id": "my-addon", "config_vars": ["MY_ADDON_URL"]}`. The host speaks the platform's
/// protocol (cloudControl's, which is Heroku's), checks who asks, and remembers which resources there are. Since API 1.2.
///
/// Refuse with [`PluginError::invalid`] what can't be provided, which the platform shows to its customer (422), and with
/// [`PluginError::unavailable`] what can't be now (503).
///
/// ```
/// use billhook_plugin_api::{
///     AddonProvisioning, AddonRequest, Plugin, PluginError, Services,
///     data::{Credentials, Provisioned},
/// };
///
/// struct Buckets(Services);
///
/// #[billhook_plugin_api::export]
/// impl Plugin for Buckets {
///     fn new(services: Services) -> Result<Self, PluginError> {
///         Ok(Buckets(services))
///     }
/// }
///
/// impl AddonProvisioning for Buckets {
///     fn create(&self, request: &AddonRequest) -> Result<Provisioned, PluginError> {
///         if request.plan() == Some("gold") {
///             return Err(PluginError::invalid("there is no plan named gold"));
///         }
///         Ok(Provisioned::new("bucket-7").with("BUCKETS_URL", "https://buckets.example/7"))
///     }
///
///     fn delete(&self, _resource: &str) -> Result<(), PluginError> {
///         Ok(())
///     }
///
///     fn credentials(&self) -> Result<Credentials, PluginError> {
///         Ok(Credentials::new("the password that the platform has"))
///     }
/// }
/// # fn main() {}
/// ```
pub trait AddonProvisioning: Plugin {
    /// A customer added the add-on: make a resource.
    ///
    /// A request whose [`uuid`](AddonRequest::uuid) was seen before is only passed on if the host doesn't know what became of
    /// the first: answer it with the same resource.
    fn create(&self, request: &AddonRequest<'_>) -> Result<Provisioned, PluginError>;

    /// The customer chose another plan. The answer is the resource's new configuration; none keeps the one that it has, and
    /// that is all that an add-on with one plan needs.
    fn update(&self, resource: &str, request: &AddonRequest<'_>) -> Result<Option<AddonConfig>, PluginError> {
        let _ = (resource, request);
        Ok(None)
    }

    /// The customer removed the add-on: the resource goes. That it isn't there any more
    /// ([`PluginError::not_found`]) is as good as done.
    fn delete(&self, resource: &str) -> Result<(), PluginError>;

    /// What the platform proves itself with. Asked for again after a few seconds, and after every change of settings.
    fn credentials(&self) -> Result<Credentials, PluginError>;

    /// Somebody wants to see their resource; the host has checked that the platform sent them. The answer is the address to
    /// send them to.
    fn single_sign_on(&self, resource: &str, login: &SingleSignOn) -> Result<String, PluginError> {
        let _ = (resource, login);
        Err(PluginError::forbidden("this add-on has no single sign-on"))
    }
}
