//! One function a hook.

use billhook_plugin_api::{
    Hook, Json, PendingAccounting, UsageSpec,
    data::{Asset, AssetChanges, Contract, Order, User},
};

use super::Host;
use crate::{dispatch::HookError, runtime::Borrowed};

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
        let dispatcher = &self.shared.dispatcher;
        let ((), records) = dispatcher.on_pre_product_spec_validation(provider, asset_t, media_type, url)?;
        dispatcher.tell(Hook::OnPreProductSpecValidation, records)
    }

    /// The product specification was validated and the asset saved.
    pub fn on_post_product_spec_validation(&self, provider: &User, asset: &Asset) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnPostProductSpecValidation;
        let objects = Borrowed { provider: Some(provider), ..Borrowed::default() };
        self.shared
            .dispatcher
            .about(hook, asset, objects, |plugin| plugin.on_post_product_spec_validation(provider, asset))
    }

    /// The product specification's id is about to be written onto the asset.
    pub fn on_pre_product_spec_attachment(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let objects = Borrowed { product_spec: Some(product_spec), ..Borrowed::default() };
        self.shared.dispatcher.about(Hook::OnPreProductSpecAttachment, asset, objects, |plugin| {
            plugin.on_pre_product_spec_attachment(asset, &asset.resource_type, product_spec)
        })
    }

    /// The product specification's id was written onto the asset.
    pub fn on_post_product_spec_attachment(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let objects = Borrowed { product_spec: Some(product_spec), ..Borrowed::default() };
        self.shared.dispatcher.about(Hook::OnPostProductSpecAttachment, asset, objects, |plugin| {
            plugin.on_post_product_spec_attachment(asset, &asset.resource_type, product_spec)
        })
    }

    /// A new version of the asset is about to be saved.
    pub fn on_pre_product_spec_upgrade(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let objects = Borrowed { product_spec: Some(product_spec), ..Borrowed::default() };
        self.shared.dispatcher.about(Hook::OnPreProductSpecUpgrade, asset, objects, |plugin| {
            plugin.on_pre_product_spec_upgrade(asset, &asset.resource_type, product_spec)
        })
    }

    /// A new version of the asset was saved.
    pub fn on_post_product_spec_upgrade(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let objects = Borrowed { product_spec: Some(product_spec), ..Borrowed::default() };
        self.shared.dispatcher.about(Hook::OnPostProductSpecUpgrade, asset, objects, |plugin| {
            plugin.on_post_product_spec_upgrade(asset, &asset.resource_type, product_spec)
        })
    }

    /// An offering with the asset is about to be validated.
    pub fn on_pre_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let objects = Borrowed { product_offering: Some(product_offering), ..Borrowed::default() };
        self.shared.dispatcher.about(Hook::OnPreProductOfferingValidation, asset, objects, |plugin| {
            plugin.on_pre_product_offering_validation(asset, product_offering)
        })
    }

    /// An offering with the asset was validated.
    pub fn on_post_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        let objects = Borrowed { product_offering: Some(product_offering), ..Borrowed::default() };
        self.shared.dispatcher.about(Hook::OnPostProductOfferingValidation, asset, objects, |plugin| {
            plugin.on_post_product_offering_validation(asset, product_offering)
        })
    }

    /// A customer acquired a product with the asset.
    pub fn on_product_acquisition(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnProductAcquisition;
        let objects = Borrowed { contract: Some(contract), order: Some(order), ..Borrowed::default() };
        self.shared
            .dispatcher
            .about(hook, asset, objects, |plugin| plugin.on_product_acquisition(asset, contract, order))
    }

    /// A customer's product was suspended.
    pub fn on_product_suspension(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnProductSuspension;
        let objects = Borrowed { contract: Some(contract), order: Some(order), ..Borrowed::default() };
        self.shared
            .dispatcher
            .about(hook, asset, objects, |plugin| plugin.on_product_suspension(asset, contract, order))
    }

    /// The units that the plugin of an asset type can account for.
    pub fn get_usage_specs(&self, asset_type: &str) -> Result<Vec<UsageSpec>, HookError> {
        self.shared.dispatcher.get_usage_specs(asset_type)
    }

    /// Usage of a contract that was not yet accounted, and what the hook changed on the asset.
    pub fn get_pending_accounting(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<(PendingAccounting, AssetChanges), HookError> {
        let hook = Hook::GetPendingAccounting;
        let objects = Borrowed { contract: Some(contract), order: Some(order), ..Borrowed::default() };
        self.shared
            .dispatcher
            .about(hook, asset, objects, |plugin| plugin.get_pending_accounting(asset, contract, order))
    }
}
