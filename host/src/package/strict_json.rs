//! JSON that every reader reads alike: UTF-8, no byte-order mark, no key twice in an object.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many things of a kind are reported about one document: enough to mend it, and bounded.
pub(super) const MOST_REPORTED: usize = 100;

/// Parses a document. The second part are the JSON paths of keys that stand twice; the first value of each was kept.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => return Err("it begins with a byte-order mark; save it as plain UTF-8".to_owned()),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, _, ..] | [_, 0, ..] => {
            return Err("it is UTF-16 or UTF-32; save it as UTF-8".to_owned());
        }
        _ => {}
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let duplicates = RefCell::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = Node { path: Path::Root, duplicates: &duplicates };
    let value = node.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map(|value| (value, duplicates.into_inner())).map_err(|error| error.to_string())
}

/// Where a value stands. A link to the one above, so that nothing is written down unless something is wrong.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("$"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => {
                // Whoever wrote the document chose the length of its keys.
                let key = match key.char_indices().nth(60) {
                    Some((end, _)) => &format!("{}…", &key[..end]),
                    None => *key,
                };
                let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
                if plain { write!(f, "{parent}.{key}") } else { write!(f, "{parent}[{key:?}]") }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    path: Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) =
            access.next_element_seed(Node { path: Path::Index(&self.path, values.len()), ..self })?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = Path::Key(&self.path, &key);
            let value = access.next_value_seed(Node { path, ..self })?;
            if values.contains_key(&key) {
                let mut duplicates = self.duplicates.borrow_mut();
                if duplicates.len() < MOST_REPORTED {
                    duplicates.push(path.to_string());
                }
            } else {
                values.insert(key, value);
            }
        }
        Ok(Value::Object(values))
    }
}
