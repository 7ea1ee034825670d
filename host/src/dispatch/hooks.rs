//! The hooks as typed functions of the dispatcher.

use billhook_plugin_api::{
    Hook, UsageSpec,
    data::{Asset, User},
};

use super::{Dispatcher, HookError};
use crate::runtime::{CallFailure, HookAnswer, HookObjects, Plugin};

impl Dispatcher {
    /// Calls `on_pre_product_spec_validation`, which has no asset yet.
    pub(crate) fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), HookError> {
        self.by_type(Hook::OnPreProductSpecValidation, asset_t, |plugin| {
            plugin.on_pre_product_spec_validation(provider, asset_t, media_type, url)
        })
    }

    /// Calls a hook about an asset, of the plugin of the asset's type.
    #[inline]
    pub(crate) fn about<T: Default>(
        &self,
        hook: Hook,
        asset: &Asset,
        call: impl FnOnce(&Plugin) -> Result<T, CallFailure>,
    ) -> Result<T, HookError> {
        match self.by_type(hook, &asset.resource_type, call) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.about(&asset.id)),
        }
    }

    /// Calls `get_usage_specs`.
    pub(crate) fn get_usage_specs(&self, asset_type: &str) -> Result<Vec<UsageSpec>, HookError> {
        self.by_type(Hook::GetUsageSpecs, asset_type, Plugin::get_usage_specs)
    }

    /// Calls any hook of a plugin by the plugin's id.
    pub(crate) fn call(&self, plugin: &str, hook: Hook, objects: &HookObjects) -> Result<HookAnswer, HookError> {
        let answer = self.by_id(hook, plugin, |plugin| objects.call(plugin, hook, None));
        match &objects.asset {
            Some(asset) if hook != Hook::GetUsageSpecs => answer.map_err(|error| error.about(&asset.id)),
            _ => answer,
        }
    }
}
