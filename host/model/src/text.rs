//! Text of others, as it may be shown: on a terminal, on a page, in a log. Nothing in it may hide, or change what stands beside it.

use std::{borrow::Cow, error::Error};

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Returns whether a character isn't seen and changes what is: a control character, one that turns the direction of writing, one
/// that ends a line, or one without a width that no script needs.
///
/// The joiners U+200C and U+200D are letters' own in several scripts, and stay; so do the signs that stand around numbers.
pub fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let is_needed = matches!(
        c,
        '\u{200c}' | '\u{200d}' | '\u{600}'
            ..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{110bd}' | '\u{110cd}'
    );
    // Letters and marks that nobody sees; whole texts can be written in the last row.
    let is_empty = matches!(
        c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2065}' | '\u{3164}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}'
    );
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    let category = c.general_category();
    is_empty || !is_needed && matches!(category, Control | Format | LineSeparator | ParagraphSeparator)
}

/// Returns the beginning of a text, at most so many bytes of it, cut between two characters.
pub fn beginning(text: &str, most: usize) -> &str {
    // `str::floor_char_boundary` came with Rust 1.91.
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns a text as a message shows it: the beginning of one that is too long for what it should be, and a sign that more
/// follows.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match beginning(text, most) {
        all if all.len() == text.len() => Cow::Borrowed(text),
        some => Cow::Owned(format!("{some}…")),
    }
}

/// Returns an error with its causes, each behind a colon, as one line of a log shows it.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let shown = cause.to_string();
        // Some show their cause themselves.
        if !text.ends_with(&shown) {
            text += ": ";
            text += &shown;
        }
        next = cause.source();
    }
    text
}

/// Returns bytes as hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
    bytes.iter().flat_map(digits).collect()
}

/// Returns a text whose hidden characters, but for the ends of lines and tabulators, are replacement characters.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\t') || !is_hidden(c);
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if is_kept(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Returns a text as one line: the ends of lines and tabulators in it are spaces, other hidden characters replacement characters.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_hidden(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// Returns a JSON document that means the same and in which nothing is hidden: what would be is written as an escape.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\t' | '\r') || !is_hidden(c);
    if json.chars().all(is_kept) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_kept(c) {
            shown.push(c);
        } else {
            // Outside of texts JSON has no such character, so that each stands in one.
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_hidden_and_what_scripts_need_stays() {
        for (text, expected) in [
            ("plain é 日本\n\tnext", "plain é 日本\n\tnext"),
            ("\u{1b}[31mred", "\u{fffd}[31mred"),
            ("a\u{202e}b\u{2066}c\u{61c}d\u{200f}e", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e"),
            ("a\u{200b}b\u{feff}c\u{ad}d\u{2028}e\u{e0041}f", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f"),
            ("\r\u{7f}\u{85}\0", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("क\u{94d}\u{200d}ष", "क\u{94d}\u{200d}ष"),
            ("\u{600}1 \u{1f469}\u{200d}\u{1f469}\u{fe0f}", "\u{600}1 \u{1f469}\u{200d}\u{1f469}\u{fe0f}"),
            ("a\u{3164}b\u{34f}c\u{e0100}d\u{1d173}e", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e"),
        ] {
            assert_eq!(visible(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, most, expected) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("aé", 2, "a"),
            ("é", 1, ""),
            ("é", 0, ""),
            ("日本", 4, "日"),
            ("", 9, ""),
        ] {
            assert_eq!(beginning(text, most), expected, "{text} {most}");
        }
        assert_eq!((shortened("日本", 4), shortened("日本", 6)), ("日…".into(), "日本".into()));
    }

    #[test]
    fn bytes_are_digits_in_lower_case() {
        assert_eq!(hex(&[0, 15, 160, 255]), "000fa0ff");
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(visible_line("a\r\nb\tc\u{2028}d\u{1b}"), "a  b c\u{fffd}d\u{fffd}");
        assert_eq!(visible_line("plain"), "plain");
    }

    #[test]
    fn json_means_the_same_when_it_is_shown() {
        let value = serde_json::json!({"a\u{202e}": ["\u{e0041}", "\u{1b}", "é\n"]});
        let text = serde_json::to_string_pretty(&value).expect("written");
        let shown = visible_json(&text);
        assert!(shown.chars().all(|c| c == '\n' || !is_hidden(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}
