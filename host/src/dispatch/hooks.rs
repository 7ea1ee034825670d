//! The hooks as typed functions of the dispatcher, and any hook with its objects as one value.

use billhook_plugin_api::{
    ErrorKind, Hook, Json, PendingAccounting, PluginError, UsageSpec,
    abi::module::PluginInstance,
    data::{Asset, AssetChanges, Contract, Order, User},
};
use serde::{Deserialize, Serialize};

use super::{Dispatcher, HookError};

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
        call: impl FnOnce(&PluginInstance) -> Result<T, PluginError>,
    ) -> Result<T, HookError> {
        match self.by_type(hook, &asset.resource_type, call) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.about(&asset.id)),
        }
    }

    /// Calls `get_usage_specs`.
    pub(crate) fn get_usage_specs(&self, asset_type: &str) -> Result<Vec<UsageSpec>, HookError> {
        self.by_type(Hook::GetUsageSpecs, asset_type, PluginInstance::get_usage_specs)
    }

    /// Calls any hook of a plugin by the plugin's id.
    pub(crate) fn call(&self, plugin: &str, hook: Hook, objects: &HookObjects) -> Result<HookAnswer, HookError> {
        let answer = self.by_id(hook, plugin, |plugin| objects.call(plugin, hook));
        match &objects.asset {
            Some(asset) if hook != Hook::GetUsageSpecs => answer.map_err(|error| error.about(&asset.id)),
            _ => answer,
        }
    }
}

/// The objects that a hook takes, in their JSON form. What a hook doesn't take may be there and is left alone, so that one
/// document serves a whole asset's life.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookObjects {
    /// Who sells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<User>,
    /// The asset type; the asset's own if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asset_t: Option<String>,
    /// The media type that a new asset is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The address that a new asset is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The asset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asset: Option<Asset>,
    /// The product specification, as the catalogue has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_spec: Option<Json<'static>>,
    /// The product offering, as the catalogue has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_offering: Option<Json<'static>>,
    /// The contract; the order's only one if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// The order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

impl HookObjects {
    fn call(&self, plugin: &PluginInstance, hook: Hook) -> Result<HookAnswer, PluginError> {
        let missing =
            |object| PluginError::new(ErrorKind::BadValue, format!("{hook} takes {object:?}, which is missing"));
        let asset = || self.asset.as_ref().ok_or_else(|| missing("asset"));
        let asset_type = || {
            let own = self.asset.as_ref().map(|asset| asset.resource_type.as_str());
            self.asset_t.as_deref().or(own).ok_or_else(|| missing("asset_t"))
        };
        let provider = || {
            let own = self.asset.as_ref().map(|asset| &asset.provider);
            self.provider.as_ref().or(own).ok_or_else(|| missing("provider"))
        };
        let spec = || self.product_spec.as_ref().ok_or_else(|| missing("product_spec"));
        let offering = || self.product_offering.as_ref().ok_or_else(|| missing("product_offering"));
        let order = || self.order.as_ref().ok_or_else(|| missing("order"));
        let contract = || match (&self.contract, order()?.contracts.as_slice()) {
            (Some(contract), _) | (None, [contract]) => Ok(contract),
            _ => Err(missing("contract")),
        };
        match hook {
            Hook::OnPreProductSpecValidation => {
                let media_type = self.media_type.as_deref().ok_or_else(|| missing("media_type"))?;
                let url = self.url.as_deref().ok_or_else(|| missing("url"))?;
                plugin.on_pre_product_spec_validation(provider()?, asset_type()?, media_type, url)?;
                Ok(HookAnswer::default())
            }
            Hook::OnPostProductSpecValidation => {
                plugin.on_post_product_spec_validation(provider()?, asset()?).map(HookAnswer::from)
            }
            Hook::OnPreProductSpecAttachment => {
                plugin.on_pre_product_spec_attachment(asset()?, asset_type()?, spec()?).map(HookAnswer::from)
            }
            Hook::OnPostProductSpecAttachment => {
                plugin.on_post_product_spec_attachment(asset()?, asset_type()?, spec()?).map(HookAnswer::from)
            }
            Hook::OnPreProductSpecUpgrade => {
                plugin.on_pre_product_spec_upgrade(asset()?, asset_type()?, spec()?).map(HookAnswer::from)
            }
            Hook::OnPostProductSpecUpgrade => {
                plugin.on_post_product_spec_upgrade(asset()?, asset_type()?, spec()?).map(HookAnswer::from)
            }
            Hook::OnPreProductOfferingValidation => {
                plugin.on_pre_product_offering_validation(asset()?, offering()?).map(HookAnswer::from)
            }
            Hook::OnPostProductOfferingValidation => {
                plugin.on_post_product_offering_validation(asset()?, offering()?).map(HookAnswer::from)
            }
            Hook::OnProductAcquisition => {
                plugin.on_product_acquisition(asset()?, contract()?, order()?).map(HookAnswer::from)
            }
            Hook::OnProductSuspension => {
                plugin.on_product_suspension(asset()?, contract()?, order()?).map(HookAnswer::from)
            }
            Hook::GetUsageSpecs => {
                let usage_specs = Some(plugin.get_usage_specs()?);
                Ok(HookAnswer { usage_specs, ..HookAnswer::default() })
            }
            Hook::GetPendingAccounting => {
                let (pending, changes) = plugin.get_pending_accounting(asset()?, contract()?, order()?)?;
                Ok(HookAnswer { changes, pending_accounting: Some(pending), ..HookAnswer::default() })
            }
            other => Err(PluginError::internal(format!("this host can't call {other}"))),
        }
    }
}

/// What a hook answered, and what it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HookAnswer {
    /// What it changed on its asset.
    pub changes: AssetChanges,
    /// The answer of `get_usage_specs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_specs: Option<Vec<UsageSpec>>,
    /// The answer of `get_pending_accounting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_accounting: Option<PendingAccounting>,
}

impl From<AssetChanges> for HookAnswer {
    fn from(changes: AssetChanges) -> Self {
        HookAnswer { changes, ..HookAnswer::default() }
    }
}
