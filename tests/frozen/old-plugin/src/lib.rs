//! A plugin that was built with API 1.0.0.

use billhook_plugin_api::{Asset, Contract, Order, Plugin, PluginError, Services};

struct OldPlugin(Services);

#[billhook_plugin_api::export]
impl Plugin for OldPlugin {
    fn new(services: Services) -> Result<Self, PluginError> {
        Ok(OldPlugin(services))
    }

    fn on_product_acquisition(
        &self,
        asset: &mut Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<(), PluginError> {
        self.0.state().keep("customer", order.customer().username())?;
        let kept: Option<String> = self.0.state().get("customer")?;
        asset.set_meta_info(&(asset.id(), contract.item_id(), kept))
    }

    fn on_product_suspension(
        &self,
        _asset: &mut Asset,
        _contract: &Contract,
        _order: &Order,
    ) -> Result<(), PluginError> {
        Err(PluginError::forbidden("not by an old plugin"))
    }
}
