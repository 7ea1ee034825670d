//! Printing: answers to standard output, errors to standard error, colour and tables only on a terminal.

use std::io::{self, IsTerminal, Write};

use billhook::{EventError, HookError, HostError};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::hints;

/// Where and how answers go.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Output { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at the answers.
    pub(crate) fn is_terminal(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Prints a value as JSON, or else what `text` makes of it.
    pub(crate) fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { self.text(&text(value)) }
    }

    /// Prints a value as JSON.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        let mut line = serde_json::to_string_pretty(value)?;
        line.push('\n');
        write(&line)
    }

    /// Prints a value as one line of JSON.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        write(&format!("{}\n", serde_json::to_string(value)?))
    }

    /// Prints text; what isn't meant for a terminal is taken out of it.
    pub(crate) fn text(&self, text: &str) -> anyhow::Result<()> {
        if text.is_empty() { Ok(()) } else { write(&format!("{}\n", plain(text))) }
    }

    /// Says something beside the answer. A JSON answer holds it itself.
    pub(crate) fn note(&self, label: &str, text: &str) {
        if self.json {
            return;
        }
        let colour = if label == "warning" { YELLOW } else { CYAN };
        self.complain(colour, label, text);
    }

    /// Warns of what the answer doesn't hold, on standard error, as JSON where answers are.
    pub(crate) fn warning(&self, text: &str) {
        if self.json {
            let _ = writeln!(io::stderr(), "{}", serde_json::json!({ "warning": text }));
        } else {
            self.note("warning", text);
        }
    }

    /// Prints what went wrong, where, and what to do next.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        let host = error.chain().find_map(|cause| cause.downcast_ref::<HostError>());
        let event = error.chain().find_map(|cause| cause.downcast_ref::<EventError>());
        let hint = event.and_then(hints::event_hint).or_else(|| host.and_then(hints::hint));
        if self.json {
            let hook = error.chain().find_map(|cause| cause.downcast_ref::<HookError>());
            let value = serde_json::json!({ "error": chain.join(": "), "hint": hint, "refusal": hook });
            // Standard output is for answers, also where an error is one.
            let _ = writeln!(io::stderr(), "{value}");
            return;
        }
        // An error that wraps another without adding anything says it once.
        let mut said: Vec<&String> = Vec::new();
        for text in &chain {
            if !said.last().is_some_and(|last| last.ends_with(text.as_str())) {
                said.push(text);
            }
        }
        let said: Vec<&str> = said.into_iter().map(String::as_str).collect();
        self.complain(RED, "error", &said.join(": "));
        if let Some(hint) = hint {
            self.note("hint", &hint);
        }
    }

    fn complain(&self, colour: &str, label: &str, text: &str) {
        let mut stderr = io::stderr().lock();
        // There is nobody left to tell if standard error is closed.
        let _ = if stderr.is_terminal() {
            writeln!(stderr, "{colour}{label}:{RESET} {}", plain(text))
        } else {
            writeln!(stderr, "{label}: {}", plain(text))
        };
    }
}

const RED: &str = "\u{1b}[1;31m";
const YELLOW: &str = "\u{1b}[1;33m";
const CYAN: &str = "\u{1b}[1;36m";
const RESET: &str = "\u{1b}[0m";

fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Text of a package or a plugin's without what would move the cursor or change colours.
pub(crate) fn plain(text: &str) -> String {
    let is_bad = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || (c.is_control() && c != '\n' && c != '\t')
    };
    text.chars().map(|c| if is_bad(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether the reader of the answer went away.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Rows: a table on a terminal, else one a line with tabs between the cells, for other programs.
pub(crate) fn rows(terminal: bool, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    if terminal {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(titles);
        // A terminal that tells no width is not taken for one of a few columns.
        if table.width().is_none_or(|width| width < 40) {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| plain(cell)));
        }
        return table.to_string();
    }
    let line = |row: Vec<String>| {
        // One row is one line, whatever its cells hold.
        let cells: Vec<String> = row.iter().map(|cell| cell.replace(['\n', '\t', '\r'], " ")).collect();
        cells.join("\t").trim_end_matches('\t').to_owned()
    };
    rows.map(line).collect::<Vec<_>>().join("\n")
}
