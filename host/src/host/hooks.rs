//! One function a hook.

use billhook_plugin_api::{
    Json, PendingAccounting, UsageSpec,
    call::{HookCall, HookReply, PendingUsage},
    data::{Asset, AssetChanges, Contract, Order, User},
};

use super::Host;
use crate::dispatch::{HookError, Target};

/// The hooks. Each finds the plugin by the asset's type and calls it on the thread of the caller.
///
/// The answer is what the hook changed on the asset; saving it is the backend's business. A hook that the plugin doesn't
/// implement changes nothing. An asset of a type that no plugin has is refused as invalid.
///
/// Each is an event of its own name, too: before handlers are asked first, and may change what the hook may or forbid; after
/// listeners are told from the ledger when the hook went through.
impl Host {
    /// A product specification with an asset of this type is about to be validated.
    pub fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), HookError> {
        let call = HookCall::OnPreProductSpecValidation { provider, asset_t, media_type, url };
        self.shared.dispatcher.call(Target::Type(asset_t), call).map(drop)
    }

    /// The product specification was validated and the asset saved.
    pub fn on_post_product_spec_validation(&self, provider: &User, asset: &Asset) -> Result<AssetChanges, HookError> {
        self.change(asset, HookCall::OnPostProductSpecValidation { provider, asset })
    }

    /// The product specification's id is about to be written onto the asset.
    pub fn on_pre_product_spec_attachment(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let asset_t = &asset.resource_type;
        self.change(asset, HookCall::OnPreProductSpecAttachment { asset, asset_t, product_spec })
    }

    /// The product specification's id was written onto the asset.
    pub fn on_post_product_spec_attachment(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let asset_t = &asset.resource_type;
        self.change(asset, HookCall::OnPostProductSpecAttachment { asset, asset_t, product_spec })
    }

    /// A new version of the asset is about to be saved.
    pub fn on_pre_product_spec_upgrade(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let asset_t = &asset.resource_type;
        self.change(asset, HookCall::OnPreProductSpecUpgrade { asset, asset_t, product_spec })
    }

    /// A new version of the asset was saved.
    pub fn on_post_product_spec_upgrade(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let asset_t = &asset.resource_type;
        self.change(asset, HookCall::OnPostProductSpecUpgrade { asset, asset_t, product_spec })
    }

    /// An offering with the asset is about to be validated.
    pub fn on_pre_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.change(asset, HookCall::OnPreProductOfferingValidation { asset, product_offering })
    }

    /// An offering with the asset was validated.
    pub fn on_post_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.change(asset, HookCall::OnPostProductOfferingValidation { asset, product_offering })
    }

    /// A customer acquired a product with the asset.
    pub fn on_product_acquisition(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<AssetChanges, HookError> {
        self.change(asset, HookCall::OnProductAcquisition { asset, contract, order: order.into() })
    }

    /// A customer's product was suspended.
    pub fn on_product_suspension(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<AssetChanges, HookError> {
        self.change(asset, HookCall::OnProductSuspension { asset, contract, order: order.into() })
    }

    /// The units that the plugin of an asset type can account for.
    pub fn get_usage_specs(&self, asset_type: &str) -> Result<Vec<UsageSpec>, HookError> {
        match self.shared.dispatcher.call(Target::Type(asset_type), HookCall::GetUsageSpecs {})? {
            Some(HookReply::GetUsageSpecs(specifications)) => Ok(specifications),
            _ => Ok(Vec::new()),
        }
    }

    /// Usage of a contract that was not yet accounted, and what the hook changed on the asset.
    pub fn get_pending_accounting(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<(PendingAccounting, AssetChanges), HookError> {
        let call = HookCall::GetPendingAccounting { asset, contract, order: order.into() };
        match self.shared.dispatcher.call(Target::Type(&asset.resource_type), call)? {
            Some(HookReply::GetPendingAccounting(PendingUsage { pending_accounting, changes })) => {
                Ok((pending_accounting, changes))
            }
            _ => Ok(Default::default()),
        }
    }

    #[inline]
    fn change(&self, asset: &Asset, call: HookCall<'_>) -> Result<AssetChanges, HookError> {
        let reply = self.shared.dispatcher.call(Target::Type(&asset.resource_type), call)?;
        Ok(reply.map(HookReply::into_changes).unwrap_or_default())
    }
}
