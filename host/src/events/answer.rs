//! What a handler answers, over whatever way.

use std::time::Duration;

use billhook_plugin_api::{
    Json,
    json_tree::{JsonKind, JsonTree},
};

use billhook_model::text::visible_line;

/// How a call of a handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It went through; a before handler may have answered other data.
    Passed { data: Option<Json<'static>> },
    /// It forbade, or refused for good.
    Forbidden(String),
    /// It failed for good.
    Failed(String),
    /// It was not called, because it was too late to begin.
    NotBegun,
    /// It failed, and may be tried again: after the time that it named, if it did.
    Again { problem: String, after: Option<Duration> },
    /// It was called and its answer didn't come: nobody knows what it did. It may be tried again.
    TimedOut(String),
    /// As above, but for another reason than time.
    Unknown(String),
}

/// A call of a handler: how it ended, and the beginning of what it answered.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) answer: Answer,
    /// Text, cut after [`KEPT_RESPONSE`] bytes.
    pub(crate) response: String,
}

/// So much of an answer is kept for the execution log.
pub(crate) const KEPT_RESPONSE: usize = 4 * 1024;
/// So much of an answer is read.
pub(crate) const LARGEST_ANSWER: usize = 1024 * 1024;
/// So much of a message is kept.
const LONGEST_MESSAGE: usize = 1024;

/// What an answer may hold, over HTTP and from a script alike. Everything else in it is left alone.
#[derive(Default)]
pub(super) struct Body {
    pub(super) data: Option<Json<'static>>,
    message: Option<String>,
}

impl Body {
    /// Reads an answer, which may be empty.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Body::default());
        }
        let unread = |problem: String| format!("its answer is no JSON object: {problem}");
        let text = std::str::from_utf8(bytes).map_err(|error| unread(error.to_string()))?;
        let answer = JsonTree::read(text).map_err(|error| unread(error.to_string()))?;
        let answer = answer.root();
        // PHP's empty array: nothing is said, as with an empty object.
        if answer.kind() == JsonKind::List && answer.is_empty() {
            return Ok(Body::default());
        }
        if answer.kind() != JsonKind::Object {
            return Err(unread(format!("it is {}", answer.kind().name())));
        }
        let field = |name: &str| -> Result<_, String> {
            let field = answer.only(name).map_err(|problem| format!("its answer can't be taken: {problem}"))?;
            Ok(field.filter(|value| value.kind() != JsonKind::Null))
        };
        let data = field("data")?.map(|data| data.parse()).transpose();
        Ok(Body {
            data: data.map_err(|error| unread(error.to_string()))?,
            message: field("message")?.map(|message| match message.text() {
                Some(text) => text.into_owned(),
                None => message.as_str().to_owned(),
            }),
        })
    }

    /// The message, or else the answer itself where it is short text.
    pub(super) fn message(bytes: &[u8], otherwise: &str) -> String {
        let named = Self::parse(bytes).ok().and_then(|body| body.message);
        let message = named.unwrap_or_else(|| String::from_utf8_lossy(bytes).trim().to_owned());
        // One line: what a handler says must not look like something else that was said.
        let message = visible_line(&message);
        let message = message.trim();
        if message.is_empty() { otherwise.to_owned() } else { beginning(message, LONGEST_MESSAGE) }
    }
}

/// The beginning of a text, cut at a character.
pub(super) fn beginning(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The beginning of an answer as text.
pub(super) fn response(bytes: &[u8]) -> String {
    beginning(&String::from_utf8_lossy(&bytes[..bytes.len().min(KEPT_RESPONSE)]), KEPT_RESPONSE)
}
