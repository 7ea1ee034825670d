//! How values get into a page. What plugins, packages and clients say is hostile: it must neither be read as HTML nor hide
//! or turn round what stands beside it.

use std::fmt;

use askama::filters::Escaper;

use billhook_model::text::is_hidden;

/// Writes text so that HTML reads it as text, and that control characters, and those that turn the direction of writing,
/// can be seen.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::server) struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: fmt::Write>(&self, mut to: W, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_escaped_char(&mut to, c))
    }

    fn write_escaped_char<W: fmt::Write>(&self, mut to: W, c: char) -> fmt::Result {
        match c {
            '<' => to.write_str("&lt;"),
            '>' => to.write_str("&gt;"),
            '&' => to.write_str("&amp;"),
            '"' => to.write_str("&quot;"),
            '\'' => to.write_str("&#39;"),
            '\n' | '\t' => to.write_char(c),
            c if is_hidden(c) => to.write_char(char::REPLACEMENT_CHARACTER),
            c => to.write_char(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_as_html_and_nothing_is_hidden() {
        let mut shown = String::new();
        let hostile = "<b a='1'>\"&\u{1b}[31m\u{202e}txt\u{7}\n\u{85}é\u{200b}\u{e0041}";
        Visible.write_escaped_str(&mut shown, hostile).expect("written");
        assert_eq!(
            shown,
            "&lt;b a=&#39;1&#39;&gt;&quot;&amp;\u{fffd}[31m\u{fffd}txt\u{fffd}\n\u{fffd}é\u{fffd}\u{fffd}"
        );
    }
}
