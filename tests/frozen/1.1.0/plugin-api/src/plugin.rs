//! The trait that a plugin implements.

use crate::{
    Asset, Contract, Event, Json, Order, PluginError, Services, User,
    data::{PendingAccounting, UsageSpec},
};

/// What a charging backend does for one kind of asset.
///
/// Implement the hooks that the kind needs and mark the `impl` with [`export`](crate::export). A hook that isn't
/// implemented does nothing, and the host doesn't even call it.
///
/// One instance serves many calls, from many threads at once and for a long time; in worker processes there may be
/// several instances. So keep nothing in memory that has to be remembered: that is what
/// [`Services::state`](crate::Services::state) is for.
///
/// A hook refuses with a [`PluginError`]; what it changed on its asset is then discarded. Do outside work last, or make it
/// safe to repeat: a hook that was cut off, by a time-out or a crash, may be called again.
///
/// Parameters and order of the calls are those of the Business API Ecosystem's programmer guide.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Makes the instance. Called when the plugin is installed (in a process of its own, whose state is thrown
    /// away), when the first call needs it, and again for new settings.
    ///
    /// An error says that the settings don't do; the plugin is then installed as *needs settings*. Don't do
    /// anything here that must not happen twice, and don't wait long.
    fn new(services: Services) -> Result<Self, PluginError>;

    /// A product specification with an asset of this type is about to be validated; the asset isn't saved yet.
    /// Check the asset's format, or whether the seller may sell it.
    fn on_pre_product_spec_validation(
        &self,
        provider: &User<'_>,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), PluginError> {
        let _ = (provider, asset_t, media_type, url);
        Ok(())
    }

    /// The product specification was validated and the asset saved.
    fn on_post_product_spec_validation(&self, provider: &User<'_>, asset: &mut Asset<'_>) -> Result<(), PluginError> {
        let _ = (provider, asset);
        Ok(())
    }

    /// The catalogue has the product specification; its id is about to be written onto the asset.
    fn on_pre_product_spec_attachment(
        &self,
        asset: &mut Asset<'_>,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, asset_t, product_spec);
        Ok(())
    }

    /// The product specification's id was written onto the asset.
    fn on_post_product_spec_attachment(
        &self,
        asset: &mut Asset<'_>,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, asset_t, product_spec);
        Ok(())
    }

    /// A new version of the asset was provided and is about to be saved.
    fn on_pre_product_spec_upgrade(
        &self,
        asset: &mut Asset<'_>,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, asset_t, product_spec);
        Ok(())
    }

    /// A new version of the asset was saved.
    fn on_post_product_spec_upgrade(
        &self,
        asset: &mut Asset<'_>,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, asset_t, product_spec);
        Ok(())
    }

    /// An offering with the asset is about to be validated. Check its pricing model, for example whether the plugin
    /// can account for its units.
    fn on_pre_product_offering_validation(
        &self,
        asset: &mut Asset<'_>,
        product_offering: &Json<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, product_offering);
        Ok(())
    }

    /// An offering with the asset was validated.
    fn on_post_product_offering_validation(
        &self,
        asset: &mut Asset<'_>,
        product_offering: &Json<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, product_offering);
        Ok(())
    }

    /// A customer acquired a product with the asset: activate the service and give access.
    fn on_product_acquisition(
        &self,
        asset: &mut Asset<'_>,
        contract: &Contract<'_>,
        order: &Order<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, contract, order);
        Ok(())
    }

    /// A customer's product was suspended, for example for want of payment: withdraw access.
    fn on_product_suspension(
        &self,
        asset: &mut Asset<'_>,
        contract: &Contract<'_>,
        order: &Order<'_>,
    ) -> Result<(), PluginError> {
        let _ = (asset, contract, order);
        Ok(())
    }

    /// The units that the plugin can account for, each with a name and a description. Implement it if and only if
    /// `package.json` says `"pull_accounting": true`.
    fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, PluginError> {
        Ok(Vec::new())
    }

    /// Usage of a contract since its `last_usage`, read from the service. Implement it if and only if
    /// `package.json` says `"pull_accounting": true`.
    fn get_pending_accounting(
        &self,
        asset: &mut Asset<'_>,
        contract: &Contract<'_>,
        order: &Order<'_>,
    ) -> Result<PendingAccounting, PluginError> {
        let _ = (asset, contract, order);
        Ok(PendingAccounting::default())
    }

    /// An event happened that `package.json` lists under `events`. It is delivered at least once, and in the order of its
    /// object's events: [`Event::id`](crate::Event::id) tells a repetition. *Unavailable* and *internal* errors ask
    /// for another attempt, after the time that the error names; any other error is final. Since API 1.1.
    fn on_event(&self, event: &Event<'_>) -> Result<(), PluginError> {
        let _ = event;
        Ok(())
    }
}
