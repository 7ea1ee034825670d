//! JSON that every reader reads alike: UTF-8, no byte-order mark, no key twice in an object.

use std::fmt;

use billhook_plugin_api::json_tree::{JsonKind, JsonNode, JsonTree};
use serde_json::{Map, Number, Value};

/// How many things of a kind are reported about one document: enough to mend it, and bounded.
pub(super) const MOST_REPORTED: usize = 100;
/// So many lists and objects may be in each other.
const DEEPEST: usize = 127;

/// A document that was read.
pub(super) struct Parsed<'a> {
    /// As it is written.
    pub(super) text: &'a str,
    /// What it says; of a key that stands twice, the first. Of a number only that it is one: what it is worth is in the text.
    pub(super) value: Value,
    /// The JSON paths of keys that stand twice.
    pub(super) duplicates: Vec<String>,
}

/// Parses a document.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, String> {
    match bytes {
        [0xef, 0xbb, 0xbf, ..] => return Err("it begins with a byte-order mark; save it as plain UTF-8".to_owned()),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, _, ..] | [_, 0, ..] => {
            return Err("it is UTF-16 or UTF-32; save it as UTF-8".to_owned());
        }
        _ => {}
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let tree = JsonTree::read(text).map_err(|error| error.to_string())?;
    let mut duplicates = Vec::new();
    let value = value(tree.root(), &Path::Root, DEEPEST, &mut duplicates)?;
    Ok(Parsed { text, value, duplicates })
}

/// What a part of a document says.
fn value(node: JsonNode<'_>, path: &Path<'_>, depth: usize, duplicates: &mut Vec<String>) -> Result<Value, String> {
    let deeper = || depth.checked_sub(1).ok_or_else(|| "recursion limit exceeded: it is nested too deep".to_owned());
    let unicode = |node: JsonNode<'_>| {
        let text = node.text().map(|text| text.into_owned());
        text.ok_or_else(|| format!("{path} has half of a surrogate pair, which is no Unicode: {}", node.as_str()))
    };
    Ok(match node.kind() {
        JsonKind::Null => Value::Null,
        JsonKind::Bool => Value::Bool(node.as_str() == "true"),
        JsonKind::Number => Value::Number(node.parse().unwrap_or_else(|_| Number::from(u64::MAX))),
        JsonKind::Text => Value::String(unicode(node)?),
        JsonKind::List => {
            let depth = deeper()?;
            let element = |(index, element)| value(element, &Path::Index(path, index), depth, duplicates);
            Value::Array(node.elements().enumerate().map(element).collect::<Result<_, _>>()?)
        }
        JsonKind::Object => {
            let depth = deeper()?;
            let mut values = Map::new();
            for (key, member) in node.members() {
                let key = unicode(key)?;
                let path = Path::Key(path, &key);
                let value = value(member, &path, depth, duplicates)?;
                if !values.contains_key(&key) {
                    values.insert(key, value);
                } else if duplicates.len() < MOST_REPORTED {
                    duplicates.push(path.to_string());
                }
            }
            Value::Object(values)
        }
    })
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
