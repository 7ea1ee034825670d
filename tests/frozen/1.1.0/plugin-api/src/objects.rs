//! What a hook sees of the backend's objects: views that borrow and copy nothing.
//!
//! A view is a pointer to the host's object and to the functions that read it. It is as cheap to pass around as a
//! reference, lives as long as the call that it was handed to, and stays on that call's thread; the texts that it
//! answers may go to other threads for as long as the call lasts.

use std::{fmt, ops::Deref};

use serde::Serialize;

use crate::{
    Decimal, Json, PluginError, Timestamp,
    abi::{types::*, views::View},
};

/// Reads a text; a field that an older host doesn't have yet is empty.
macro_rules! text {
    ($self:ident, $field:ident) => {
        $self.0.text(|table| Some(table.$field())).unwrap_or_default()
    };
}

/// Reads a JSON field; the empty object where there is none.
macro_rules! json {
    ($self:ident, $field:ident) => {
        $self.0.text(|table| Some(table.$field())).map(Json::from_checked).unwrap_or_default()
    };
}

/// A user or, in current backends, an organization: who sells or who buys.
#[derive(Clone, Copy)]
pub struct User<'a>(View<'a, UserHandle>);

impl<'a> User<'a> {
    pub(crate) fn from_view(view: View<'a, UserHandle>) -> Self {
        User(view)
    }

    /// The name that identifies the user in the backend.
    pub fn username(&self) -> &'a str {
        text!(self, username)
    }

    /// E-mail address; empty where the backend has none.
    pub fn email(&self) -> &'a str {
        text!(self, email)
    }

    /// The name as people write it.
    pub fn complete_name(&self) -> &'a str {
        text!(self, complete_name)
    }

    /// What else the backend shares, such as an organization's identity provider or managers.
    pub fn extra(&self) -> Json<'a> {
        json!(self, extra)
    }
}

/// A digital asset, to be read.
#[derive(Clone, Copy)]
pub struct AssetRef<'a>(View<'a, AssetHandle>);

impl<'a> AssetRef<'a> {
    /// The backend's own id of the asset.
    pub fn id(&self) -> &'a str {
        text!(self, id)
    }

    /// The id of the product specification that includes the asset, once it is attached.
    pub fn product_id(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.product_id()))
    }

    /// The version of the product specification that includes the asset.
    pub fn version(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.version()))
    }

    /// Who created the asset.
    pub fn provider(&self) -> User<'a> {
        User(self.0.provider())
    }

    /// The asset's media type.
    pub fn content_type(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.content_type()))
    }

    /// Where the asset is, if it is a service on another server.
    pub fn download_link(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.download_link()))
    }

    /// The path of the asset's file, if it was uploaded.
    pub fn resource_path(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.resource_path()))
    }

    /// The asset type, as the plugin's `package.json` names it.
    pub fn resource_type(&self) -> &'a str {
        text!(self, resource_type)
    }

    /// Whether any user may download the asset without acquiring it.
    pub fn is_public(&self) -> bool {
        self.0.is_public()
    }

    /// What the plugin keeps with the asset.
    pub fn meta_info(&self) -> Json<'a> {
        json!(self, meta_info)
    }

    /// Where the asset can be accessed, as the backend tells it.
    pub fn get_url(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.url()))
    }

    /// Where the asset's own description can be accessed, as the backend tells it.
    pub fn get_uri(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.uri()))
    }

    /// What else the backend shares.
    pub fn extra(&self) -> Json<'a> {
        json!(self, extra)
    }
}

/// The asset of a hook's call: to be read as [`AssetRef`], and to be changed.
///
/// A setter records a change; getters answer it from then on. If the hook returns `Ok`, the backend gets the changes and
/// saves them; after a refusal or a panic nobody sees them.
pub struct Asset<'a> {
    asset: AssetRef<'a>,
    changes: View<'a, ChangesHandle>,
}

impl<'a> Asset<'a> {
    pub(crate) fn from_views(asset: View<'a, AssetHandle>, changes: View<'a, ChangesHandle>) -> Self {
        Asset { asset: AssetRef(asset), changes }
    }

    /// Sets what the plugin keeps with the asset, replacing all of it.
    pub fn set_meta_info<T: Serialize + ?Sized>(&mut self, meta_info: &T) -> Result<(), PluginError> {
        let json = Json::from_value(meta_info)?;
        self.changes.set(|table| table.meta_info(), json.as_str())
    }

    /// Sets the media type.
    pub fn set_content_type(&mut self, content_type: &str) -> Result<(), PluginError> {
        self.changes.set(|table| table.content_type(), content_type)
    }

    /// Sets where the asset is.
    pub fn set_download_link(&mut self, download_link: &str) -> Result<(), PluginError> {
        self.changes.set(|table| table.download_link(), download_link)
    }
}

impl<'a> Deref for Asset<'a> {
    type Target = AssetRef<'a>;

    fn deref(&self) -> &Self::Target {
        &self.asset
    }
}

/// A product offering, as it was acquired.
#[derive(Clone, Copy)]
pub struct Offering<'a>(View<'a, OfferingHandle>);

impl<'a> Offering<'a> {
    /// The id of the product offering.
    pub fn off_id(&self) -> &'a str {
        text!(self, off_id)
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        text!(self, name)
    }

    /// Its version.
    pub fn version(&self) -> &'a str {
        text!(self, version)
    }

    /// Its description.
    pub fn description(&self) -> &'a str {
        text!(self, description)
    }

    /// The asset that is offered; none in an offering that bundles others.
    pub fn asset(&self) -> Option<AssetRef<'a>> {
        self.0.asset().map(AssetRef)
    }

    /// What else the backend shares.
    pub fn extra(&self) -> Json<'a> {
        json!(self, extra)
    }
}

/// One charge of a customer.
#[derive(Clone, Copy)]
pub struct Charge<'a>(View<'a, ChargeHandle>);

impl<'a> Charge<'a> {
    /// When the customer was charged.
    pub fn date(&self) -> Timestamp<'a> {
        Timestamp::from_checked(text!(self, date))
    }

    /// What was charged in all.
    pub fn cost(&self) -> Decimal<'a> {
        Decimal::from_checked(text!(self, cost))
    }

    /// What was charged without taxes.
    pub fn duty_free(&self) -> Decimal<'a> {
        Decimal::from_checked(text!(self, duty_free))
    }

    /// The currency, as ISO 4217 names it.
    pub fn currency(&self) -> &'a str {
        text!(self, currency)
    }

    /// What for: `initial`, `renovation` or `usage`.
    pub fn concept(&self) -> &'a str {
        text!(self, concept)
    }

    /// The path of the invoice, a PDF file.
    pub fn invoice(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.invoice()))
    }

    /// What else the backend shares.
    pub fn extra(&self) -> Json<'a> {
        json!(self, extra)
    }
}

/// One acquired offering of an order.
#[derive(Clone, Copy)]
pub struct Contract<'a>(View<'a, ContractHandle>);

impl<'a> Contract<'a> {
    pub(crate) fn from_view(view: View<'a, ContractHandle>) -> Self {
        Contract(view)
    }

    /// The id of the order item that made this contract.
    pub fn item_id(&self) -> &'a str {
        text!(self, item_id)
    }

    /// The acquired offering.
    pub fn offering(&self) -> Offering<'a> {
        Offering(self.0.offering())
    }

    /// The id of the inventory product, once there is one.
    pub fn product_id(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.product_id()))
    }

    /// The pricing model that the customer is charged by.
    pub fn pricing_model(&self) -> Json<'a> {
        json!(self, pricing_model)
    }

    /// When the customer was charged last.
    pub fn last_charge(&self) -> Option<Timestamp<'a>> {
        self.0.text(|table| Some(table.last_charge())).map(Timestamp::from_checked)
    }

    /// The charges so far.
    pub fn charges(&self) -> impl Iterator<Item = Charge<'a>> + use<'a> {
        let view = self.0;
        (0..view.number(|table| table.charges())).filter_map(move |index| view.charge(index)).map(Charge)
    }

    /// The next expected correlation number of usage documents; only for usage pricing.
    pub fn correlation_number(&self) -> u64 {
        self.0.number(|table| table.correlation_number())
    }

    /// When the last usage document was received; only for usage pricing.
    pub fn last_usage(&self) -> Option<Timestamp<'a>> {
        self.0.text(|table| Some(table.last_usage())).map(Timestamp::from_checked)
    }

    /// The product class for revenue sharing.
    pub fn revenue_class(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.revenue_class()))
    }

    /// Whether the contract has ended, so that the customer has no longer access.
    pub fn terminated(&self) -> bool {
        self.0.terminated()
    }

    /// What else the backend shares.
    pub fn extra(&self) -> Json<'a> {
        json!(self, extra)
    }
}

/// A product order.
#[derive(Clone, Copy)]
pub struct Order<'a>(View<'a, OrderHandle>);

impl<'a> Order<'a> {
    pub(crate) fn from_view(view: View<'a, OrderHandle>) -> Self {
        Order(view)
    }

    /// The id of the order.
    pub fn order_id(&self) -> &'a str {
        text!(self, order_id)
    }

    /// Who ordered.
    pub fn customer(&self) -> User<'a> {
        User(self.0.customer())
    }

    /// When the order was made.
    pub fn date(&self) -> Timestamp<'a> {
        Timestamp::from_checked(text!(self, date))
    }

    /// The billing address.
    pub fn tax_address(&self) -> Json<'a> {
        json!(self, tax_address)
    }

    /// One contract for each acquired offering.
    pub fn contracts(&self) -> impl Iterator<Item = Contract<'a>> + use<'a> {
        let view = self.0;
        (0..view.contract_count()).filter_map(move |index| view.contract(index)).map(Contract)
    }

    /// The contract that an order item made.
    pub fn get_item_contract(&self, item_id: &str) -> Option<Contract<'a>> {
        self.0.find(|table| table.item_contract(), item_id).map(Contract)
    }

    /// The contract that an inventory product belongs to.
    pub fn get_product_contract(&self, product_id: &str) -> Option<Contract<'a>> {
        self.0.find(|table| table.product_contract(), product_id).map(Contract)
    }

    /// What else the backend shares, such as the organization that owns the order.
    pub fn extra(&self) -> Json<'a> {
        json!(self, extra)
    }
}

/// Something that happened, as a listening plugin gets it.
#[derive(Clone, Copy)]
pub struct Event<'a>(View<'a, EventHandle>);

impl<'a> Event<'a> {
    pub(crate) fn from_view(view: View<'a, EventHandle>) -> Self {
        Event(view)
    }

    /// The event's own id, a UUID: the same at every attempt, and the same for every listener.
    pub fn id(&self) -> &'a str {
        text!(self, id)
    }

    /// What happened, such as `clients.create`.
    pub fn name(&self) -> &'a str {
        text!(self, name)
    }

    /// The backend's id of the object that it happened to; a number as its digits.
    pub fn object_id(&self) -> Option<&'a str> {
        self.0.text(|table| Some(table.object_id()))
    }

    /// When it happened.
    pub fn date(&self) -> Timestamp<'a> {
        Timestamp::from_checked(text!(self, date))
    }

    /// Which attempt at delivering it this is: 1 is the first.
    pub fn attempt(&self) -> u64 {
        self.0.attempt()
    }

    /// What is known about the object; empty for events that tell no more.
    pub fn data(&self) -> Json<'a> {
        json!(self, data)
    }
}

/// Shows an object by what identifies it; the rest may be large.
macro_rules! debug {
    ($($name:ident($field:ident);)*) => {$(
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field(stringify!($field), &self.$field()).finish_non_exhaustive()
            }
        }
    )*};
}

debug! {
    User(username);
    Asset(id);
    AssetRef(id);
    Offering(off_id);
    Charge(date);
    Contract(item_id);
    Order(order_id);
    Event(id);
}
