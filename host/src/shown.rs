//! Text of others, as it may be shown: on a terminal, on a page, in a log. Nothing in it may hide, or change what stands beside it.

use std::borrow::Cow;

/// Returns whether a character isn't seen and changes what is: a control character, one that turns the direction of writing, or
/// one without a width that no script needs.
///
/// The joiners U+200C and U+200D are letters' own in several scripts, and stay.
pub fn is_hidden(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_nothing = matches!(
        c,
        '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}'
            | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    c.is_control() || turns || is_nothing
}

/// Returns a text whose hidden characters, but for the ends of lines and tabulators, are replacement characters.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\t') || !is_hidden(c);
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if is_kept(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
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
        ] {
            assert_eq!(visible(text), expected, "{text:?}");
        }
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
