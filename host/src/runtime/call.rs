//! Any hook with its objects as one value, in the one JSON form that they have.

use std::time::Duration;

use billhook_plugin_api::{
    ErrorKind, Hook, Json, PendingAccounting, PluginError, UsageSpec,
    abi::tables::LazyOrder,
    data::{
        AddonConfig, AddonRequest, Asset, AssetChanges, Contract, Credentials, Event, Order, Provisioned, SingleSignOn,
        User,
    },
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use super::Plugin;

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum CallFailure {
    /// The plugin refused, failed or panicked.
    Plugin(PluginError),
    /// The call didn't reach the plugin, or its answer didn't come back.
    Runtime(Box<Fault>),
}

/// What went wrong around a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    /// Whether the plugin may have done what it was asked for.
    pub(crate) outcome_unknown: bool,
    pub(crate) retry_after: Option<Duration>,
}

impl From<PluginError> for CallFailure {
    fn from(error: PluginError) -> Self {
        CallFailure::Plugin(error)
    }
}

impl From<Fault> for CallFailure {
    fn from(fault: Fault) -> Self {
        CallFailure::Runtime(Box::new(fault))
    }
}

impl Fault {
    /// The plugin was not asked: it takes no calls now.
    pub(crate) fn unavailable(message: String, retry_after: Option<Duration>) -> Self {
        Fault { kind: ErrorKind::Unavailable, message, outcome_unknown: false, retry_after }
    }

    /// The plugin was asked, and nobody knows what became of it.
    pub(crate) fn unknown(message: String) -> Self {
        Fault { kind: ErrorKind::Internal, message, outcome_unknown: true, retry_after: None }
    }
}

/// The objects of one call, borrowed: what [`HookObjects`] holds. An order goes without its contracts, of which there may be
/// thousands; they are fetched if the plugin asks for them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Borrowed<'a> {
    pub(crate) provider: Option<&'a User>,
    pub(crate) asset_t: Option<&'a str>,
    pub(crate) media_type: Option<&'a str>,
    pub(crate) url: Option<&'a str>,
    pub(crate) asset: Option<&'a Asset>,
    pub(crate) product_spec: Option<&'a Json<'a>>,
    pub(crate) product_offering: Option<&'a Json<'a>>,
    pub(crate) contract: Option<&'a Contract>,
    pub(crate) order: Option<&'a Order>,
    pub(crate) event: Option<&'a Event>,
    pub(crate) resource: Option<&'a str>,
    pub(crate) addon_request: Option<&'a AddonRequest>,
    pub(crate) login: Option<&'a SingleSignOn>,
}

impl<'a> Borrowed<'a> {
    /// The id of the object that the call is about, if it is about one.
    #[inline]
    pub(crate) fn object(&self) -> Option<&'a str> {
        self.asset.map(|asset| asset.id.as_str()).or(self.resource)
    }

    /// Copies of the objects.
    pub(crate) fn to_owned(self) -> HookObjects {
        let json = |json: &Json<'_>| json.clone().into_owned();
        HookObjects {
            provider: self.provider.cloned(),
            asset_t: self.asset_t.map(str::to_owned),
            media_type: self.media_type.map(str::to_owned),
            url: self.url.map(str::to_owned),
            asset: self.asset.cloned(),
            product_spec: self.product_spec.map(json),
            product_offering: self.product_offering.map(json),
            contract: self.contract.cloned(),
            order: self.order.cloned(),
            event: self.event.cloned(),
            resource: self.resource.map(str::to_owned),
            addon_request: self.addon_request.cloned(),
            login: self.login.cloned(),
        }
    }
}

/// An order without its contracts.
struct Head<'a>(&'a Order);

impl Serialize for Head<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Order { order_id, customer, date, tax_address, contracts: _, extra } = self.0;
        let has_extra = *extra != Json::default();
        let mut order = serializer.serialize_struct("Order", 4 + usize::from(has_extra))?;
        order.serialize_field("order_id", order_id)?;
        order.serialize_field("customer", customer)?;
        order.serialize_field("date", date)?;
        order.serialize_field("tax_address", tax_address)?;
        if has_extra {
            order.serialize_field("extra", extra)?;
        }
        order.end()
    }
}

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut objects = serializer.serialize_struct("HookObjects", 13)?;
        macro_rules! field {
            ($name:ident) => {
                field!($name, self.$name)
            };
            ($name:ident, $value:expr) => {
                match $value {
                    Some(value) => objects.serialize_field(stringify!($name), &value)?,
                    None => objects.skip_field(stringify!($name))?,
                }
            };
        }
        field!(provider);
        field!(asset_t);
        field!(media_type);
        field!(url);
        field!(asset);
        field!(product_spec);
        field!(product_offering);
        field!(contract);
        field!(order, self.order.map(Head));
        field!(event);
        field!(resource);
        field!(addon_request);
        field!(login);
        objects.end()
    }
}

/// The objects that a hook takes, in their JSON form. What a hook doesn't take may be there and is left alone, so that one
/// document serves a whole asset's life.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
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
    #[cfg_attr(feature = "server", schema(value_type = serde_json::Value))]
    pub product_spec: Option<Json<'static>>,
    /// The product offering, as the catalogue has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = serde_json::Value))]
    pub product_offering: Option<Json<'static>>,
    /// The contract; the order's only one if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// The order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The event of `on_event`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub event: Option<Event>,
    /// The add-on's id of a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub resource: Option<String>,
    /// What a platform asks an add-on for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub addon_request: Option<AddonRequest>,
    /// Who wants to see a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub login: Option<SingleSignOn>,
}

impl HookObjects {
    /// The same objects, borrowed.
    pub(crate) fn borrowed(&self) -> Borrowed<'_> {
        Borrowed {
            provider: self.provider.as_ref(),
            asset_t: self.asset_t.as_deref(),
            media_type: self.media_type.as_deref(),
            url: self.url.as_deref(),
            asset: self.asset.as_ref(),
            product_spec: self.product_spec.as_ref(),
            product_offering: self.product_offering.as_ref(),
            contract: self.contract.as_ref(),
            order: self.order.as_ref(),
            event: self.event.as_ref(),
            resource: self.resource.as_deref(),
            addon_request: self.addon_request.as_ref(),
            login: self.login.as_ref(),
        }
    }

    /// Calls a hook with what it takes of these objects. `contracts` fetches an order's contracts, where they were left out.
    pub(crate) fn call(
        &self,
        plugin: &Plugin,
        hook: Hook,
        contracts: Option<&dyn Fn() -> Vec<Contract>>,
    ) -> Result<HookAnswer, CallFailure> {
        let missing =
            |object| PluginError::new(ErrorKind::BadValue, format!("{hook} takes {object:?}, which is missing"));
        let lazy = self.order.as_ref().zip(contracts).map(|(order, fetch)| LazyOrder::new(order, fetch));
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
        let resource = || self.resource.as_deref().ok_or_else(|| missing("resource"));
        let request = || self.addon_request.as_ref().ok_or_else(|| missing("addon_request"));
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
            Hook::OnProductAcquisition => match &lazy {
                Some(order) => plugin.on_product_acquisition(asset()?, contract()?, order).map(HookAnswer::from),
                None => plugin.on_product_acquisition(asset()?, contract()?, order()?).map(HookAnswer::from),
            },
            Hook::OnProductSuspension => match &lazy {
                Some(order) => plugin.on_product_suspension(asset()?, contract()?, order).map(HookAnswer::from),
                None => plugin.on_product_suspension(asset()?, contract()?, order()?).map(HookAnswer::from),
            },
            Hook::GetUsageSpecs => {
                let usage_specs = Some(plugin.get_usage_specs()?);
                Ok(HookAnswer { usage_specs, ..HookAnswer::default() })
            }
            Hook::GetPendingAccounting => {
                let (pending, changes) = match &lazy {
                    Some(order) => plugin.get_pending_accounting(asset()?, contract()?, order)?,
                    None => plugin.get_pending_accounting(asset()?, contract()?, order()?)?,
                };
                Ok(HookAnswer { changes, pending_accounting: Some(pending), ..HookAnswer::default() })
            }
            Hook::OnEvent => {
                plugin.on_event(self.event.as_ref().ok_or_else(|| missing("event"))?)?;
                Ok(HookAnswer::default())
            }
            Hook::AddonCreate => {
                let provisioned = Some(plugin.addon_create(request()?)?);
                Ok(HookAnswer { provisioned, ..HookAnswer::default() })
            }
            Hook::AddonUpdate => {
                let config = plugin.addon_update(resource()?, request()?)?;
                Ok(HookAnswer { config, ..HookAnswer::default() })
            }
            Hook::AddonDelete => {
                plugin.addon_delete(resource()?)?;
                Ok(HookAnswer::default())
            }
            Hook::AddonCredentials => {
                let credentials = Some(plugin.addon_credentials()?);
                Ok(HookAnswer { credentials, ..HookAnswer::default() })
            }
            Hook::AddonSingleSignOn => {
                let login = self.login.as_ref().ok_or_else(|| missing("login"))?;
                let location = Some(plugin.addon_single_sign_on(resource()?, login)?);
                Ok(HookAnswer { location, ..HookAnswer::default() })
            }
            other => Err(PluginError::internal(format!("this host can't call {other}")).into()),
        }
    }
}

/// What a hook answered, and what it changed.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookAnswer {
    /// What it changed on its asset.
    pub changes: AssetChanges,
    /// The answer of `get_usage_specs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_specs: Option<Vec<UsageSpec>>,
    /// The answer of `get_pending_accounting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_accounting: Option<PendingAccounting>,
    /// The answer of `addon_create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub provisioned: Option<Provisioned>,
    /// The answer of `addon_update`, if it is another configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub config: Option<AddonConfig>,
    /// The answer of `addon_credentials`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub credentials: Option<Credentials>,
    /// The answer of `addon_single_sign_on`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(ignore))]
    pub location: Option<String>,
}

impl From<AssetChanges> for HookAnswer {
    fn from(changes: AssetChanges) -> Self {
        HookAnswer { changes, ..HookAnswer::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrowed_objects_are_read_back_as_they_were_but_for_the_contracts_of_the_order() {
        let user = User { username: "ada".into(), extra: Json::new("{\"a\": 1.0}").unwrap(), ..User::default() };
        let asset = Asset { id: "1".into(), resource_type: "X".into(), provider: user.clone(), ..Asset::default() };
        let contract = Contract { item_id: "i".into(), ..Contract::default() };
        let extra = Json::new("{\"owner\": [1]}").unwrap();
        let order = Order {
            order_id: "o".into(),
            customer: user.clone(),
            contracts: vec![contract.clone(); 3],
            extra,
            ..Order::default()
        };
        let spec = Json::new("{\"b\": 1e2,  \"a\": null}").unwrap();
        let borrowed = Borrowed {
            provider: Some(&user),
            asset_t: Some("X"),
            media_type: Some("text/csv"),
            url: Some("https://a.example"),
            asset: Some(&asset),
            product_spec: Some(&spec),
            product_offering: Some(&spec),
            contract: Some(&contract),
            order: Some(&order),
            ..Borrowed::default()
        };
        let mut expected = borrowed.to_owned();
        let text = serde_json::to_string(&borrowed).unwrap();
        let read: HookObjects = serde_json::from_str(&text).unwrap();
        expected.order.as_mut().unwrap().contracts.clear();
        assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&expected).unwrap());
        assert_eq!(read.product_spec.unwrap().as_str(), spec.as_str(), "documents stay as they are, byte for byte");
        assert_eq!(serde_json::to_string(&Borrowed::default()).unwrap(), "{}");
    }
}
