//! A plugin that was built with API 1.1.0, and hears of events.

use billhook_plugin_api::{Asset, Contract, Event, Order, Plugin, PluginError, Services};

struct ListeningPlugin(Services);

#[billhook_plugin_api::export]
impl Plugin for ListeningPlugin {
    fn new(services: Services) -> Result<Self, PluginError> {
        Ok(ListeningPlugin(services))
    }

    fn on_event(&self, event: &Event) -> Result<(), PluginError> {
        self.0.state().keep("heard", event.name())
    }

    fn on_product_acquisition(&self, asset: &mut Asset, _: &Contract, _: &Order) -> Result<(), PluginError> {
        let heard: Option<String> = self.0.state().get("heard")?;
        asset.set_meta_info(&heard)
    }
}
