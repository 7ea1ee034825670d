//! JSON documents that cross the boundary as text and are parsed by who reads them.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser::Error as _};
use serde_json::value::RawValue;

use crate::{
    PluginError,
    json_tree::{JsonTree, parse_located},
};

/// A JSON document as text.
///
/// Product specifications, offerings and pricing models are large and mostly not looked at, so they are
/// handed over unparsed; [`Json::parse`] and [`Json::pointer`] parse on demand.
#[derive(Clone, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// Wraps text that is known to be JSON: the host checked it when it came in.
    pub(crate) fn from_checked(text: &'a str) -> Self {
        Json(Cow::Borrowed(text))
    }

    pub(crate) fn from_checked_string(text: String) -> Self {
        Json(Cow::Owned(text))
    }

    /// Checks that `text` is one JSON document and keeps it as it is.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<&RawValue>(&text)?;
        Ok(Json(text))
    }

    /// Writes a value as JSON.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Json<'static>, serde_json::Error> {
        serde_json::to_string(value).map(|text| Json(Cow::Owned(text)))
    }

    /// The document as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the whole document into a type of the caller's.
    ///
    /// A document of another shape is a [bad value](crate::ErrorKind::BadValue), so that `?` in a hook
    /// tells the seller what was wrong with the document.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, PluginError> {
        parse_located(&self.0).map_err(|error| PluginError::bad_value(format!("unexpected JSON: {error}")))
    }

    /// Reads one value by its JSON Pointer (RFC 6901), or `None` where the document has none there. Numbers keep their digits: ask
    /// for a [`Json`] where none may be lost.
    ///
    /// ```
    /// # use billhook_plugin_api::Json;
    /// let meta = Json::new(r#"{"auth": {"type": "oauth2"}}"#).unwrap();
    /// assert_eq!(meta.pointer::<String>("/auth/type").unwrap().as_deref(), Some("oauth2"));
    /// assert_eq!(meta.pointer::<String>("/auth/server").unwrap(), None);
    /// ```
    pub fn pointer<T: DeserializeOwned>(&self, pointer: &str) -> Result<Option<T>, PluginError> {
        let unread = |error| PluginError::bad_value(format!("unexpected JSON: {error}"));
        let tree = JsonTree::read(&self.0).map_err(unread)?;
        let Some(found) = tree.root().at(pointer) else { return Ok(None) };
        found
            .parse()
            .map(Some)
            .map_err(|error| PluginError::bad_value(format!("unexpected JSON at {pointer}: {error}")))
    }

    /// The same document, owning its text.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }
}

impl Default for Json<'_> {
    /// The empty object.
    fn default() -> Self {
        Json(Cow::Borrowed("{}"))
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json<'_> {
    /// The document as it was sent; with `{:#}`, each value on a line of its own and otherwise as it was sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match f.alternate().then(|| JsonTree::read(&self.0)) {
            Some(Ok(tree)) => tree.write_lines(f),
            _ => f.write_str(&self.0),
        }
    }
}

impl From<serde_json::Value> for Json<'static> {
    fn from(value: serde_json::Value) -> Self {
        Json(Cow::Owned(value.to_string()))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Json(Cow::Owned(String::from(Box::<str>::from(raw)))))
    }
}
