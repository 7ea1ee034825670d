//! The objects as a backend fills them: plain owned data, and the one documented JSON form.
//!
//! A backend builds these and lends them to the host; `billhook callplugin`, workers and HTTP read and write
//! their JSON form. Plugins see them through views such as [`Asset`](crate::Asset) and never copy them.
//!
//! Later minor versions add fields: end what you write with `..Default::default()`.
//!
//! In JSON, every field has the name it has here. Absent optional fields may be left out; unknown fields are refused,
//! because a misspelt one would silently be lost: what else a backend shares goes into `extra`.
//!
//! ```
//! use billhook_plugin_api::data::Asset;
//! let asset: Asset = serde_json::from_str(r#"{
//!     "id": "61004aba5e05acc115f022f0",
//!     "resource_type": "Test Resource",
//!     "provider": {"username": "acme"},
//!     "download_link": "https://acme.example/data",
//!     "meta_info": {"auth_type": "oauth2"}
//! }"#).unwrap();
//! assert_eq!(asset.meta_info.as_str(), r#"{"auth_type": "oauth2"}"#);
//! assert!(serde_json::from_str::<Asset>(r#"{"id": "1", "meta_inf": {}}"#).is_err());
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Decimal, Json, Timestamp};

mod addon;

pub use addon::{AddonConfig, AddonRequest, Credentials, Provisioned, SingleSignOn};

/// A user or, in current backends, an organization: who sells or who buys.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name that identifies the user in the backend.
    pub username: String,
    /// E-mail address; empty where the backend has none.
    #[serde(default)]
    pub email: String,
    /// The name as people write it.
    #[serde(default)]
    pub complete_name: String,
    /// What else the backend shares, such as an organization's identity provider or managers.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub extra: Json<'static>,
}

/// A digital asset: what is sold.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// The backend's own id of the asset.
    pub id: String,
    /// The id of the product specification that includes the asset, once it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
    /// The version of the product specification that includes the asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who created the asset.
    #[serde(default)]
    pub provider: User,
    /// The asset's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Where the asset is, if it is a service on another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_link: Option<String>,
    /// The path of the asset's file, if it was uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_path: Option<String>,
    /// The asset type: the `name` of the plugin that knows it.
    pub resource_type: String,
    /// Whether any user may download the asset without acquiring it.
    #[serde(default)]
    pub is_public: bool,
    /// What the plugin keeps with the asset.
    #[serde(default)]
    pub meta_info: Json<'static>,
    /// Where the asset can be accessed; the answer of `get_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where the asset's own description can be accessed; the answer of `get_uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// What else the backend shares.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub extra: Json<'static>,
}

/// A product offering, as it was acquired.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offering {
    /// The id of the product offering.
    pub off_id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its description.
    #[serde(default)]
    pub description: String,
    /// The asset that is offered; none in an offering that bundles others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<Asset>,
    /// What else the backend shares.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub extra: Json<'static>,
}

/// One charge of a customer.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// When the customer was charged.
    pub date: Timestamp<'static>,
    /// What was charged in all.
    pub cost: Decimal<'static>,
    /// What was charged without taxes.
    pub duty_free: Decimal<'static>,
    /// The currency, as ISO 4217 names it.
    pub currency: String,
    /// What for: `initial`, `renovation` or `usage`.
    #[serde(default)]
    pub concept: String,
    /// The path of the invoice, a PDF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoice: Option<String>,
    /// What else the backend shares.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub extra: Json<'static>,
}

/// One acquired offering of an order.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// The id of the order item that made this contract.
    pub item_id: String,
    /// The acquired offering.
    pub offering: Offering,
    /// The id of the inventory product, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
    /// The pricing model that the customer is charged by.
    #[serde(default)]
    pub pricing_model: Json<'static>,
    /// When the customer was charged last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_charge: Option<Timestamp<'static>>,
    /// The charges so far.
    #[serde(default)]
    pub charges: Vec<Charge>,
    /// The next expected correlation number of usage documents; only for usage pricing.
    #[serde(default)]
    pub correlation_number: u64,
    /// When the last usage document was received; only for usage pricing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_usage: Option<Timestamp<'static>>,
    /// The product class for revenue sharing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revenue_class: Option<String>,
    /// Whether the contract has ended, so that the customer has no longer access.
    #[serde(default)]
    pub terminated: bool,
    /// What else the backend shares.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub extra: Json<'static>,
}

/// A product order.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The id of the order.
    pub order_id: String,
    /// Who ordered.
    pub customer: User,
    /// When the order was made.
    pub date: Timestamp<'static>,
    /// The billing address.
    #[serde(default)]
    pub tax_address: Json<'static>,
    /// One contract for each acquired offering.
    #[serde(default)]
    pub contracts: Vec<Contract>,
    /// What else the backend shares, such as the organization that owns the order.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub extra: Json<'static>,
}

/// The id of an object of the backend's: any number that JSON can write, or a text. It stays as it is written, so that `1` and `1.0`
/// are two ids. Two ids with the same text are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectId {
    text: String,
    is_number: bool,
}

impl ObjectId {
    /// The id as text; a number as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Reads an id as its JSON form shows it; `None` for what is neither a number nor a text.
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Reads an id as somebody types it: a whole number of any length is a number, and everything else a text.
    pub fn typed(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty();
        let is_written_so = !digits.starts_with('0') || text == "0";
        ObjectId { text: text.to_owned(), is_number: is_whole && is_written_so }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for ObjectId {
    fn from(text: &str) -> Self {
        ObjectId { text: text.to_owned(), is_number: false }
    }
}

impl From<String> for ObjectId {
    fn from(text: String) -> Self {
        ObjectId { text, is_number: false }
    }
}

impl From<i64> for ObjectId {
    fn from(number: i64) -> Self {
        ObjectId { text: number.to_string(), is_number: true }
    }
}

impl Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(&self.text) {
            Ok(number) if self.is_number => number.serialize(serializer),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let written = json.as_str();
        let other = match written.as_bytes().first() {
            Some(b'0'..=b'9' | b'-') => return Ok(ObjectId { text: written.to_owned(), is_number: true }),
            Some(b'"') => match serde_json::from_str(written) {
                Ok(text) => return Ok(ObjectId { text, is_number: false }),
                Err(_) => "a text with half of a surrogate pair, which is no Unicode",
            },
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'n') => "null",
            _ => "true or false",
        };
        Err(serde::de::Error::custom(format!("an object's id is a number or a text, and this is {other}")))
    }
}

/// Something that happened. Its JSON form is what handlers get:
///
/// ```
/// # use billhook_plugin_api::data::Event;
/// let event: Event = serde_json::from_str(r#"{
///     "event": {"dt": "2000-01-01T00:00:00+00:00", "events_id": "clients.create", "object_id": 12,
///               "id": "019352ab-7a00-7000-8000-000000000000", "attempt": 1},
///     "data": {"id": 12, "name": "My name"}
/// }"#).unwrap();
/// assert_eq!((event.name.as_str(), event.object_id.unwrap().as_str()), ("clients.create", "12"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Envelope", into = "Envelope")]
pub struct Event {
    /// The event's own id, a UUID.
    pub id: String,
    /// What happened, such as `clients.create`.
    pub name: String,
    /// The object that it happened to.
    pub object_id: Option<ObjectId>,
    /// When it happened.
    pub date: Timestamp<'static>,
    /// Which attempt at delivering it this is, from 1 on.
    pub attempt: u64,
    /// What is known about the object.
    pub data: Json<'static>,
}

/// The JSON form of an event.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    event: Head,
    #[serde(default)]
    data: Json<'static>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    dt: Timestamp<'static>,
    events_id: String,
    #[serde(default)]
    object_id: Option<ObjectId>,
    id: String,
    #[serde(default)]
    attempt: u64,
}

impl From<Envelope> for Event {
    fn from(envelope: Envelope) -> Self {
        let Envelope { event: Head { dt, events_id, object_id, id, attempt }, data } = envelope;
        Event { id, name: events_id, object_id, date: dt, attempt, data }
    }
}

impl From<Event> for Envelope {
    fn from(event: Event) -> Self {
        let Event { id, name, object_id, date, attempt, data } = event;
        Envelope { event: Head { dt: date, events_id: name, object_id, id, attempt }, data }
    }
}

/// What a hook changed on its asset. The backend, not the plugin, saves it.
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetChanges {
    /// The new `meta_info`, if the hook set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = serde_json::Value))]
    pub meta_info: Option<Json<'static>>,
    /// The new `content_type`, if the hook set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The new `download_link`, if the hook set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_link: Option<String>,
}

impl AssetChanges {
    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self == &AssetChanges::default()
    }

    /// Adds later changes: where both have a field, the later one stays.
    pub fn add(&mut self, later: AssetChanges) {
        let AssetChanges { meta_info, content_type, download_link } = later;
        self.meta_info = meta_info.or(self.meta_info.take());
        self.content_type = content_type.or(self.content_type.take());
        self.download_link = download_link.or(self.download_link.take());
    }

    /// Writes the changes onto an asset.
    pub fn apply(self, asset: &mut Asset) {
        if let Some(meta_info) = self.meta_info {
            asset.meta_info = meta_info;
        }
        if let Some(content_type) = self.content_type {
            asset.content_type = Some(content_type);
        }
        if let Some(download_link) = self.download_link {
            asset.download_link = Some(download_link);
        }
    }
}

/// A unit that a plugin can account for.
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageSpec {
    /// The unit's name, such as `API call`.
    pub name: String,
    /// What is counted.
    pub description: String,
}

impl UsageSpec {
    /// A unit and what is counted; both are required to be non-empty.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        UsageSpec { name: name.into(), description: description.into() }
    }
}

/// Usage that a customer made and that was not yet accounted.
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageRecord {
    /// When the usage was made.
    pub date: Timestamp<'static>,
    /// The unit: the name of one of the plugin's usage specifications.
    pub unit: String,
    /// How much.
    pub value: Decimal<'static>,
    /// The record's own identity in the metered service, among all records of the same order and item. A record that is
    /// reported again under the same id is charged once, also if it changed. Without an id, a record is told from others by its
    /// asset, date, unit, value and its place among equals in the same report: one that equals a record of an earlier report
    /// is taken for that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl UsageRecord {
    /// A record without an id.
    pub fn new(date: Timestamp<'static>, unit: impl Into<String>, value: impl Into<Decimal<'static>>) -> Self {
        UsageRecord { date, unit: unit.into(), value: value.into(), id: None }
    }

    /// The same record with the metered service's own id of it.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// The answer of `get_pending_accounting`.
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingAccounting {
    /// The records, oldest first.
    pub records: Vec<UsageRecord>,
    /// When the last of this usage was made; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_usage: Option<Timestamp<'static>>,
}

impl PendingAccounting {
    /// Records, oldest first, and when the last of that usage was made.
    pub fn new(records: Vec<UsageRecord>, last_usage: Option<Timestamp<'static>>) -> Self {
        PendingAccounting { records, last_usage }
    }
}

fn is_empty(json: &Json<'static>) -> bool {
    *json == Json::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_keeps_raw_documents_byte_for_byte() {
        let text = r#"{"item_id":"1","offering":{"off_id":"9","name":"","version":"","description":""},"pricing_model":{"b": 1.10,  "a":1e2},"charges":[],"correlation_number":18446744073709551615,"terminated":false}"#;
        let contract: Contract = serde_json::from_str(text).unwrap();
        assert_eq!(contract.pricing_model.as_str(), r#"{"b": 1.10,  "a":1e2}"#);
        assert_eq!(serde_json::to_string(&contract).unwrap(), text);
    }

    #[test]
    fn a_misspelt_or_missing_field_is_refused_by_name() {
        for (text, expected) in [
            (r#"{"username": "a", "e-mail": "x"}"#, "unknown field `e-mail`"),
            (r#"{"email": "x"}"#, "missing field `username`"),
        ] {
            let error = serde_json::from_str::<User>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn changes_are_written_onto_the_asset_and_leave_the_rest() {
        let mut asset = Asset { id: "1".into(), content_type: Some("text/csv".into()), ..Asset::default() };
        let changes = AssetChanges { download_link: Some("https://a.example".into()), ..AssetChanges::default() };
        assert!(!changes.is_empty());
        changes.apply(&mut asset);
        assert_eq!(asset.content_type.as_deref(), Some("text/csv"));
        assert_eq!(asset.download_link.as_deref(), Some("https://a.example"));
    }
}
