//! A JSON document, read without changing it: where each value stands in the text, and nothing parsed that isn't asked for.
//!
//! Numbers stay digits, texts stay as they are escaped, objects keep their order and what stands twice in them. Neither reading nor
//! walking recurses, so that no depth is too deep; both take time in proportion to the text.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use serde::de::{DeserializeOwned, Deserializer as _, Error as _, Visitor};
use serde_json::value::RawValue;
use serde_path_to_error::Segment;

/// A document and where its values are.
#[derive(Debug)]
pub struct JsonTree<'a> {
    text: &'a str,
    nodes: Vec<Span>,
}

/// Where a value is. Those inside of it come directly behind it, before the node `next`.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
    next: u32,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// Digits.
    Number,
    /// A text; also the key of a member.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

impl JsonKind {
    /// The kind as a message names it, with its article.
    pub fn name(self) -> &'static str {
        match self {
            JsonKind::Null => "null",
            JsonKind::Bool => "true or false",
            JsonKind::Number => "a number",
            JsonKind::Text => "a text",
            JsonKind::List => "a list",
            JsonKind::Object => "an object",
        }
    }
}

impl<'a> JsonTree<'a> {
    /// Reads a document; an error says where the text is no JSON.
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text)?;
        if u32::try_from(text.len()).is_err() {
            return Err(serde_json::Error::custom("it has 4 GiB or more"));
        }
        Ok(JsonTree { text, nodes: outline(text.as_bytes()) })
    }

    /// The document itself.
    pub fn root(&self) -> JsonNode<'_> {
        JsonNode { tree: self, index: 0 }
    }

    /// How many values there are, the keys of members included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the document itself is a value.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The value at a place between 0 and [`len`](Self::len). Each comes before those inside of it.
    pub fn node(&self, index: usize) -> JsonNode<'_> {
        JsonNode { tree: self, index }
    }

    /// Where a value stands, for people: a JSON Pointer (RFC 6901) in which what is too long is cut. Empty for the document itself;
    /// of a key, that of its object.
    pub fn pointer_to(&self, node: JsonNode<'_>) -> String {
        let mut pointer = String::new();
        let mut at = self.root();
        while at.index != node.index {
            let holds = |child: &JsonNode<'_>| (child.index..child.next()).contains(&node.index);
            let member =
                || at.members().find(|(_, value)| holds(value)).map(|(key, value)| (shown_step(&key.bytes()), value));
            let element = || at.elements().enumerate().find(|(_, value)| holds(value));
            let inner = member().or_else(|| element().map(|(place, value)| (place.to_string(), value)));
            let Some((step, inner)) = inner else { break };
            if !push_step(&mut pointer, &step) {
                break;
            }
            at = inner;
        }
        pointer
    }

    /// Writes the document with each value on a line of its own, and each as it is. Serves [`Json`](crate::Json)'s `{:#}`.
    pub(crate) fn write_lines(&self, out: &mut impl Write) -> fmt::Result {
        // The lists and objects that the next value is in: where each ends, whether it is an object, and how much of it is written.
        let mut open: Vec<(usize, bool, usize)> = Vec::new();
        for index in 0..=self.nodes.len() {
            while let Some((end, is_object, written)) = open.last().copied()
                && end == index
            {
                open.pop();
                if written > 0 {
                    write_new_line(out, open.len())?;
                }
                out.write_char(if is_object { '}' } else { ']' })?;
            }
            let Some(span) = self.nodes.get(index) else { break };
            let depth = open.len();
            if let Some((_, is_object, written)) = open.last_mut() {
                let is_value_of_key = *is_object && *written % 2 == 1;
                if is_value_of_key {
                    out.write_str(": ")?;
                } else {
                    out.write_str(if *written > 0 { "," } else { "" })?;
                    write_new_line(out, depth)?;
                }
                *written += 1;
            }
            let node = self.node(index);
            match node.kind() {
                JsonKind::Object => {
                    out.write_char('{')?;
                    open.push((span.next as usize, true, 0));
                }
                JsonKind::List => {
                    out.write_char('[')?;
                    open.push((span.next as usize, false, 0));
                }
                _ => out.write_str(node.as_str())?,
            }
        }
        Ok(())
    }
}

/// The longest pointer or problem that is shown, and the longest key in one, in bytes.
const LONGEST_POINTER: usize = 500;
const LONGEST_KEY: usize = 100;

/// A key as a step of a pointer.
fn shown_step(key: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&key[..key.len().min(LONGEST_KEY)]).replace('~', "~0").replace('/', "~1");
    if key.len() > LONGEST_KEY { format!("{}…", shown.trim_end_matches(char::REPLACEMENT_CHARACTER)) } else { shown }
}

/// Adds a step to a pointer; false if it is long enough.
fn push_step(pointer: &mut String, step: &str) -> bool {
    let fits = pointer.len() + step.len() <= LONGEST_POINTER;
    pointer.push('/');
    pointer.push_str(if fits { step } else { "…" });
    fits
}

/// Begins a line. What is very deep isn't moved to the right any more: the text grows with the document, and not with its square.
fn write_new_line(out: &mut impl Write, depth: usize) -> fmt::Result {
    write!(out, "\n{:width$}", "", width = 2 * depth.min(40))
}

/// Where the values of a document are that is known to be right.
fn outline(bytes: &[u8]) -> Vec<Span> {
    let (mut nodes, mut open) = (Vec::<Span>::new(), Vec::<usize>::new());
    let mut at = 0;
    // Checked by the only caller: a text is shorter than that.
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => {
                at += 1;
                continue;
            }
            b'{' | b'[' => {
                open.push(nodes.len());
                nodes.push(Span { start: place(at), end: 0, next: 0 });
                at += 1;
                continue;
            }
            b'}' | b']' => {
                at += 1;
                let next = place(nodes.len());
                if let Some(span) = open.pop().and_then(|index| nodes.get_mut(index)) {
                    (span.end, span.next) = (place(at), next);
                }
                continue;
            }
            b'"' => end_of_text(bytes, at),
            _ => {
                let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']');
                bytes[at..].iter().position(is_end).map_or(bytes.len(), |length| at + length)
            }
        };
        nodes.push(Span { start: place(at), end: place(end), next: place(nodes.len() + 1) });
        at = end;
    }
    nodes
}

fn end_of_text(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

/// A value of a document.
#[derive(Debug, Clone, Copy)]
pub struct JsonNode<'t> {
    tree: &'t JsonTree<'t>,
    index: usize,
}

impl<'t> JsonNode<'t> {
    fn span(self) -> Span {
        self.tree.nodes[self.index]
    }

    /// Its place among all values of the document.
    pub fn index(self) -> usize {
        self.index
    }

    /// The place of the first value behind it and all that is in it.
    pub fn next(self) -> usize {
        self.span().next as usize
    }

    /// Where its text is in that of the document.
    pub fn range(self) -> std::ops::Range<usize> {
        let Span { start, end, .. } = self.span();
        start as usize..end as usize
    }

    /// Its text.
    pub fn as_str(self) -> &'t str {
        &self.tree.text[self.range()]
    }

    /// What it is.
    pub fn kind(self) -> JsonKind {
        match self.as_str().as_bytes().first() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::List,
            Some(b'"') => JsonKind::Text,
            Some(b't' | b'f') => JsonKind::Bool,
            Some(b'n') => JsonKind::Null,
            _ => JsonKind::Number,
        }
    }

    /// Whether nothing is in it, if it is a list or an object.
    pub fn is_empty(self) -> bool {
        self.next() == self.index + 1
    }

    /// Keys and values, or elements.
    fn children(self) -> impl Iterator<Item = JsonNode<'t>> {
        let (mut at, end) = (self.index + 1, self.next());
        std::iter::from_fn(move || {
            let child = (at < end).then_some(JsonNode { tree: self.tree, index: at })?;
            at = child.next();
            Some(child)
        })
    }

    /// The elements of a list; those of anything else are none.
    pub fn elements(self) -> impl Iterator<Item = JsonNode<'t>> {
        let is_list = self.kind() == JsonKind::List;
        self.children().take_while(move |_| is_list)
    }

    /// The members of an object in their order, what stands twice included; those of anything else are none.
    pub fn members(self) -> impl Iterator<Item = (JsonNode<'t>, JsonNode<'t>)> {
        let is_object = self.kind() == JsonKind::Object;
        let mut children = self.children().take_while(move |_| is_object);
        std::iter::from_fn(move || Some((children.next()?, children.next()?)))
    }

    /// The member of a name. Of several the last, which is what nearly all readers take.
    pub fn get(self, name: &str) -> Option<JsonNode<'t>> {
        self.members().filter(|(key, _)| key.is_text(name)).last().map(|(_, value)| value)
    }

    /// The member of a name, where a second one would be a mistake.
    pub fn only(self, name: &str) -> Result<Option<JsonNode<'t>>, String> {
        let mut named = self.members().filter(|(key, _)| key.is_text(name));
        match (named.next(), named.next()) {
            (_, Some(_)) => Err(format!("{name:?} is there twice")),
            (found, None) => Ok(found.map(|(_, value)| value)),
        }
    }

    /// The value that a JSON Pointer (RFC 6901) leads to from here.
    pub fn at(self, pointer: &str) -> Option<JsonNode<'t>> {
        if pointer.is_empty() {
            return Some(self);
        }
        let mut steps = pointer.strip_prefix('/')?.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
        steps.try_fold(self, |at, step| match at.kind() {
            JsonKind::Object => at.get(&step),
            JsonKind::List => {
                let is_place = step == "0" || (!step.starts_with(['0', '+']) && !step.is_empty());
                step.parse().ok().filter(|_| is_place).and_then(|index| at.elements().nth(index))
            }
            _ => None,
        })
    }

    /// The text that a text stands for, as UTF-8; half of a surrogate pair, which no text has and JSON allows, as if it had a code in
    /// UTF-8. Empty for anything else.
    pub fn bytes(self) -> Cow<'t, [u8]> {
        let raw = self.as_str();
        match raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) if !text.contains('\\') => Cow::Borrowed(text.as_bytes()),
            _ => Cow::Owned(serde_json::Deserializer::from_str(raw).deserialize_bytes(Bytes).unwrap_or_default()),
        }
    }

    /// Whether it is a text that stands for this one.
    pub fn is_text(self, text: &str) -> bool {
        self.kind() == JsonKind::Text && *self.bytes() == *text.as_bytes()
    }

    /// The text that a text stands for; `None` for anything else, and for what isn't Unicode.
    pub fn text(self) -> Option<Cow<'t, str>> {
        if self.kind() != JsonKind::Text {
            return None;
        }
        match self.bytes() {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    /// The value as a type of the caller's.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// Reads a document as a type of the caller's. The error names the field that doesn't fit, as a JSON Pointer.
pub fn parse_located<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| {
        let mut problem = error.to_string();
        // It may quote what is wrong, whose length whoever wrote it chose.
        if let Some((end, _)) = problem.char_indices().nth(LONGEST_POINTER) {
            problem.truncate(end);
            problem.push_str(&format!("… at line {} column {}", error.line(), error.column()));
        }
        match field_of::<T>(text) {
            Some(field) => format!("{field}: {problem}"),
            None => problem,
        }
    })
}

/// The field that doesn't fit, where it is one and not the document as such: found by reading again.
fn field_of<T: DeserializeOwned>(text: &str) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, T>(&mut deserializer).err()?;
    let mut pointer = String::new();
    for segment in error.path() {
        let step = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => shown_step(key.as_bytes()),
            Segment::Enum { variant } => shown_step(variant.as_bytes()),
            Segment::Unknown => break,
        };
        if !push_step(&mut pointer, &step) {
            break;
        }
    }
    (!pointer.is_empty()).then_some(pointer)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::data::Order;

    #[test]
    fn values_stand_where_they_stand_in_the_text() {
        let text = r#" {"a" : [1.10, {"b":{}} , "]}\"\\" ], "c":-0,"a":1E+2 , "d": [ ]} "#;
        let tree = JsonTree::read(text).expect("JSON");
        let root = tree.root();
        assert_eq!(root.as_str(), text.trim());
        let members: Vec<_> = root.members().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            members,
            [(r#""a""#, r#"[1.10, {"b":{}} , "]}\"\\" ]"#), (r#""c""#, "-0"), (r#""a""#, "1E+2"), (r#""d""#, "[ ]")]
        );
        assert_eq!(root.get("a").expect("there").as_str(), "1E+2", "the last of several");
        let list = root.members().next().expect("there").1;
        let elements: Vec<_> = list.elements().map(|element| (element.kind(), element.as_str())).collect();
        assert_eq!(
            elements,
            [(JsonKind::Number, "1.10"), (JsonKind::Object, r#"{"b":{}}"#), (JsonKind::Text, r#""]}\"\\""#)]
        );
        assert_eq!(list.elements().last().and_then(JsonNode::text).as_deref(), Some("]}\"\\"));
        assert!(root.get("d").expect("there").is_empty() && !list.is_empty());
        assert_eq!(
            (list.members().count(), root.elements().count(), root.get("c").expect("there").elements().count()),
            (0, 0, 0)
        );
    }

    #[test]
    fn whatever_the_grammar_allows_is_read_and_nothing_else() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let digits = "9".repeat(100_000);
        for right in [
            "null",
            "0",
            "-0",
            "1e999999999",
            "1E+2",
            "\"\\ud800\"",
            "{\"a\":1,\"a\":2}",
            "\"\\u0000\"",
            &deep,
            &digits,
        ] {
            let tree = JsonTree::read(right).expect("JSON");
            assert_eq!(tree.root().as_str(), right);
        }
        for wrong in
            ["", "01", "+1", ".5", "5.", "1e", "NaN", "[1,]", "{\"a\":}", "\"\u{1}\"", "\"\\x\"", "1 2", "{'a':1}"]
        {
            assert!(JsonTree::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_are_equal_however_they_are_escaped_and_half_a_pair_is_like_no_other() {
        let tree = JsonTree::read(r#"["\u00e9", "é", "\ud83d\ude00", "😀", "\ud800", "\udc00", "\ud800x", "\/"]"#)
            .expect("JSON");
        let bytes: Vec<_> = tree.root().elements().map(JsonNode::bytes).collect();
        assert_eq!((&bytes[0], &bytes[2]), (&bytes[1], &bytes[3]));
        assert_ne!(bytes[4], bytes[5]);
        assert_ne!(bytes[4], bytes[6]);
        assert_eq!(*bytes[7], *b"/");
        assert_eq!(tree.root().elements().nth(4).and_then(JsonNode::text), None);
    }

    #[test]
    fn pointers_lead_to_values_and_back() {
        let tree = JsonTree::read(r#"{"a/b": {"~": [0, [true]]}, "": 1, "0": 2}"#).expect("JSON");
        for (pointer, expected) in
            [("", None), ("/a~1b/~0/1/0", Some("true")), ("/a~1b/~0/0", Some("0")), ("/", Some("1")), ("/0", Some("2"))]
        {
            let found = tree.root().at(pointer).expect(pointer);
            assert!(expected.is_none_or(|expected| expected == found.as_str()), "{pointer}: {}", found.as_str());
            assert_eq!(tree.pointer_to(found), pointer);
        }
        for nowhere in ["a", "/a", "/a~1b/~0/01", "/a~1b/~0/2", "/a~1b/~0/-1", "/a~1b/~0/+1", "/a~1b/~0/", "/0/0"] {
            assert!(tree.root().at(nowhere).is_none(), "{nowhere}");
        }
    }

    #[test]
    fn what_is_shown_in_lines_is_the_same_document_however_deep() {
        let text = r#"{"a":[1.10,{}, [ ]],"b":{"c":1e999,"a":"\ud800"},"b":[]}"#;
        let lines = crate::Json::new(text).map(|json| format!("{json:#}")).expect("JSON");
        let expected = r#"{
  "a": [
    1.10,
    {},
    []
  ],
  "b": {
    "c": 1e999,
    "a": "\ud800"
  },
  "b": []
}"#;
        assert_eq!(lines, expected);
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        let lines = crate::Json::new(deep.as_str()).map(|json| format!("{json:#}")).expect("JSON");
        assert_eq!(lines.split_whitespace().collect::<String>(), deep);
        assert!(lines.len() < 100 * deep.len());
    }

    #[test]
    fn an_error_names_the_field_that_does_not_fit() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            #[expect(dead_code, reason = "only its reading matters")]
            order: Order,
        }
        let order =
            |more: &str| format!(r#"{{"order": {{"order_id": "1", "customer": {{"username": "a"}}, {more}}}}}"#);
        let good = r#""date": "2026-01-31T12:00:00Z""#;
        let charge = r#"{"date": "2026-01-31", "cost": "1", "duty_free": "1", "currency": "EUR"}"#;
        for (text, expected) in [
            (order(r#""date": "2026-01-31T12:00:00" "#), "/order/date: "),
            (order("\n\n\"date\":\n 5\n"), "/order/date: "),
            (order(r#""date": {}"#), "/order/date: "),
            (order(r#""date":[]"#), "/order/date: "),
            (order(&format!(r#"{good}, "contracts": [ [] ]"#)), "/order/contracts/0: "),
            (
                order(&format!(
                    r#"{good}, "contracts": [{{"item_id": "1", "offering": {{"off_id": "1"}}, "charges": [{charge}]}}]"#
                )),
                "/order/contracts/0/charges/0/date: ",
            ),
            (
                order(&format!(
                    r#"{good}, "contracts": [{{"item_id": "1", "offering": {{"off_id": "1"}}, "correlation_number": -1}}]"#
                )),
                "/order/contracts/0/correlation_number: ",
            ),
            (
                order(&format!(r#"{good}, "contracts": [{{"offering": {{}}}}]"#)),
                "/order/contracts/0/offering: missing field `off_id`",
            ),
            (order(&format!(r#"{good}, "misspelt": 1"#)), "/order/misspelt: unknown field `misspelt`"),
            (r#"{"older": 1}"#.to_owned(), "/older: unknown field `older`"),
            ("{}".to_owned(), "missing field `order`"),
            (r#"{"order": "#.to_owned(), "/order: EOF"),
            (format!(r#"{{"{}": 1}}"#, "x".repeat(100_000)), "/xxx"),
        ] {
            let error = parse_located::<Body>(&text).expect_err(&text);
            assert!(error.starts_with(expected) && error.len() < 1_200, "{text}: {error}");
        }
    }
}
