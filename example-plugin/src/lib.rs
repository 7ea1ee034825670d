//! "Test Resource": an API that is sold by the call.
//!
//! Sellers say where their API is and how customers authenticate; the plugin checks that on the way in, gives each
//! customer access on acquisition, withdraws it on suspension, and accounts for the calls that the API's gateway logged.
#![forbid(unsafe_code)]

mod offering;
mod settings;
mod usage;

use billhook_plugin_api::{
    Asset, Contract, Json, Order, PendingAccounting, Plugin, PluginError, Services, UsageSpec, User,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use settings::Settings;

/// The one unit that the plugin can account for.
pub(crate) const API_CALL: &str = "API call";

/// The instance: made once, called from many threads. What has to be remembered is in the host's state.
pub struct TestResource {
    services: Services,
    settings: Settings,
}

/// What a seller filled into the form of `package.json`, kept with the asset.
#[derive(Debug, Serialize, Deserialize)]
struct Access {
    #[serde(default = "Access::key")]
    auth_type: String,
    #[serde(default = "Access::required")]
    token_required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth_server: Option<String>,
}

impl Access {
    fn key() -> String {
        "key".to_owned()
    }

    fn required() -> bool {
        true
    }

    fn check(&self) -> Result<(), PluginError> {
        match (self.auth_type.as_str(), self.auth_server.as_deref()) {
            ("key", _) => Ok(()),
            ("oauth2", Some(server)) if server.starts_with("https://") => Ok(()),
            ("oauth2", _) => {
                Err(PluginError::invalid("OAuth2 needs an auth server: fill in \"Auth server\" with an https address"))
            }
            (other, _) => Err(PluginError::bad_value(format!("{other:?} is no auth type; use \"oauth2\" or \"key\""))),
        }
    }
}

/// What a customer was given, kept in the state under [`grant_key`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Grant {
    customer: String,
    url: String,
    active: bool,
}

/// The key of a grant. A contract may have several assets of this plugin, in a bundle: each has a grant of its own. As a JSON list,
/// because ids may hold any character.
fn grant_key(asset: &Asset, contract: &Contract, order: &Order) -> String {
    format!("grant/{}", json!([order.order_id(), contract.item_id(), asset.id()]))
}

impl TestResource {
    /// Finds the grant of an asset, also one that version 1.0 kept, which knew of one asset for each contract.
    fn grant(&self, asset: &Asset, contract: &Contract, order: &Order) -> Result<Option<Grant>, PluginError> {
        let state = self.services.state();
        if let Some(grant) = state.get::<Grant>(&grant_key(asset, contract, order))? {
            return Ok(Some(grant));
        }
        let url = asset.get_url().or(asset.download_link()).unwrap_or_default();
        let old = state.get::<Grant>(&format!("grant/{}/{}", order.order_id(), contract.item_id()))?;
        Ok(old.filter(|grant| grant.url == url))
    }
}

#[billhook_plugin_api::export]
impl Plugin for TestResource {
    fn new(services: Services) -> Result<Self, PluginError> {
        let settings = services.parse_settings()?;
        Ok(TestResource { services, settings })
    }

    fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        _asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), PluginError> {
        self.settings.check_seller(provider.username())?;
        self.settings.check_url(url)?;
        if !["application/json", "application/zip"].iter().any(|known| known.eq_ignore_ascii_case(media_type)) {
            return Err(PluginError::invalid(format!("{media_type:?} is no media type of a Test Resource")));
        }
        Ok(())
    }

    fn on_post_product_spec_validation(&self, _provider: &User, asset: &mut Asset) -> Result<(), PluginError> {
        let access: Access = asset.meta_info().parse()?;
        access.check()?;
        // The form's defaults become part of the asset, so that later versions of the form don't change it.
        asset.set_meta_info(&access)?;
        if asset.content_type().is_none() {
            asset.set_content_type("application/json")?;
        }
        Ok(())
    }

    fn on_pre_product_spec_attachment(
        &self,
        asset: &mut Asset,
        _asset_t: &str,
        product_spec: &Json,
    ) -> Result<(), PluginError> {
        match product_spec.pointer::<String>("/lifecycleStatus")?.as_deref() {
            Some("Retired" | "Obsolete") => {
                Err(PluginError::conflict(format!("asset {} can't be attached to a retired product", asset.id())))
            }
            _ => Ok(()),
        }
    }

    fn on_post_product_spec_attachment(
        &self,
        asset: &mut Asset,
        _asset_t: &str,
        _product_spec: &Json,
    ) -> Result<(), PluginError> {
        let product = asset.product_id().unwrap_or("an unnamed product");
        self.services.log().info(format!("asset {} is sold as {product}", asset.id()));
        Ok(())
    }

    fn on_pre_product_spec_upgrade(
        &self,
        asset: &mut Asset,
        _asset_t: &str,
        _product_spec: &Json,
    ) -> Result<(), PluginError> {
        self.settings.check_url(asset.download_link().unwrap_or_default())
    }

    fn on_post_product_spec_upgrade(
        &self,
        asset: &mut Asset,
        _asset_t: &str,
        _product_spec: &Json,
    ) -> Result<(), PluginError> {
        let version = asset.version().unwrap_or("a new version");
        self.services.log().info(format!("asset {} was upgraded to {version}", asset.id()));
        Ok(())
    }

    fn on_pre_product_offering_validation(&self, _asset: &mut Asset, offering: &Json) -> Result<(), PluginError> {
        offering::check_units(offering)
    }

    fn on_post_product_offering_validation(&self, asset: &mut Asset, offering: &Json) -> Result<(), PluginError> {
        let name = offering.pointer::<String>("/name")?.unwrap_or_default();
        self.services.log().info(format!("asset {} is offered as {name:?}", asset.id()));
        Ok(())
    }

    fn on_product_acquisition(&self, asset: &mut Asset, contract: &Contract, order: &Order) -> Result<(), PluginError> {
        let url = asset.get_url().or(asset.download_link());
        let url = url.ok_or_else(|| PluginError::invalid("the asset has no address to give access to"))?;
        let grant = Grant { customer: order.customer().username().to_owned(), url: url.to_owned(), active: true };
        // Keeping the same grant again changes nothing, so the hook may be repeated.
        self.services.state().keep(&grant_key(asset, contract, order), &grant)?;
        self.services.log().info(format!("{} may call {url}", grant.customer));
        Ok(())
    }

    fn on_product_suspension(&self, asset: &mut Asset, contract: &Contract, order: &Order) -> Result<(), PluginError> {
        let Some(mut grant) = self.grant(asset, contract, order)? else {
            let (asset, item, order) = (asset.id(), contract.item_id(), order.order_id());
            let problem = format!("asset {asset} of item {item} of order {order} was never activated");
            return Err(PluginError::not_found(problem));
        };
        grant.active = false;
        self.services.state().keep(&grant_key(asset, contract, order), &grant)?;
        self.services.log().info(format!("{} may no longer call {}", grant.customer, grant.url));
        Ok(())
    }

    fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, PluginError> {
        Ok(vec![UsageSpec::new(API_CALL, "Number of calls made to the API")])
    }

    fn get_pending_accounting(
        &self,
        asset: &mut Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<PendingAccounting, PluginError> {
        let Some(log) = &self.settings.usage_log else { return Ok(PendingAccounting::default()) };
        usage::pending(log, asset, contract, order)
    }
}

#[cfg(test)]
mod tests;
