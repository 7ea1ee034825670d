//! The objects of a call by their names, as a document has them.

use serde::{Deserialize, Serialize};

use super::MissingObject;
use crate::{
    Hook, Json,
    data::{AddonRequest, Asset, Contract, Event, Order, SingleSignOn, User},
};

/// The objects that a hook takes, in their JSON form. What a hook doesn't take may be there and is left alone, so that one
/// document serves a whole asset's life.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
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
    #[cfg_attr(feature = "schema", schema(value_type = serde_json::Value))]
    pub product_spec: Option<Json<'static>>,
    /// The product offering, as the catalogue has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = serde_json::Value))]
    pub product_offering: Option<Json<'static>>,
    /// The contract; the order's only one if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// The order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The event of `on_event`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(ignore))]
    pub event: Option<Event>,
    /// The add-on's id of a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(ignore))]
    pub resource: Option<String>,
    /// What a platform asks an add-on for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(ignore))]
    pub addon_request: Option<AddonRequest>,
    /// Who wants to see a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(ignore))]
    pub login: Option<SingleSignOn>,
}

impl HookObjects {
    /// Adds what a hook takes and another object tells: the asset's own type and provider, and the order's only contract.
    pub(super) fn completed(mut self, hook: Hook) -> Self {
        let is_missed = |object: &str, is_there: bool| !is_there && hook.objects().contains(&object);
        if let Some(asset) = &self.asset {
            if is_missed("asset_t", self.asset_t.is_some()) {
                self.asset_t = Some(asset.resource_type.clone());
            }
            if is_missed("provider", self.provider.is_some()) {
                self.provider = Some(asset.provider.clone());
            }
        }
        if let Some([contract]) = self.order.as_ref().map(|order| order.contracts.as_slice())
            && is_missed("contract", self.contract.is_some())
        {
            self.contract = Some(contract.clone());
        }
        self
    }

    /// Names what is missing. Without an order there is no contract either.
    pub(super) fn missing(&self, hook: Hook, object: &'static str) -> MissingObject {
        let is_without_order = object == "contract" && self.order.is_none() && hook.objects().contains(&"order");
        MissingObject { hook, object: if is_without_order { "order" } else { object } }
    }
}
