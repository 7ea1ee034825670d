//! Printing: answers to standard output, errors to standard error, colour and tables only on a terminal.

use billhook::{DiskTrouble, EventError, HookError, HostError, visible, visible_json};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{hints, streams};

/// Where and how answers go.
#[derive(Clone, Copy)]
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
        !self.json && streams::answers_are_seen()
    }

    /// Prints a value as JSON, or else what `text` makes of it.
    pub(crate) fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { self.text(&text(value)) }
    }

    /// Prints a value as JSON.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        let mut line = serde_json::to_string_pretty(value)?;
        line.push('\n');
        streams::answer(&visible_json(&line));
        Ok(())
    }

    /// Prints a value as one line of JSON.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        streams::answer(&visible_json(&format!("{}\n", serde_json::to_string(value)?)));
        Ok(())
    }

    /// Prints text; what isn't meant for a terminal is taken out of it.
    pub(crate) fn text(&self, text: &str) -> anyhow::Result<()> {
        if !text.is_empty() {
            streams::answer(&format!("{}\n", visible(text)));
        }
        Ok(())
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
            let warning = format!("{}\n", serde_json::json!({ "warning": text }));
            streams::log(visible_json(&warning).into_owned().into_bytes());
        } else {
            self.note("warning", text);
        }
    }

    /// Prints what went wrong, where, and what to do next.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        let host = error.chain().find_map(|cause| cause.downcast_ref::<HostError>());
        let event = error.chain().find_map(|cause| cause.downcast_ref::<EventError>());
        // An error of an event's that is one of the host's is no link of the chain.
        let host = host.or(match event {
            Some(EventError::Host(host)) => Some(host),
            _ => None,
        });
        let hook = error.chain().find_map(|cause| cause.downcast_ref::<HookError>());
        let trouble = DiskTrouble::of(error.as_ref()).or_else(|| hook.and_then(HookError::disk_trouble));
        let hint = trouble.map(hints::disk_hint);
        let hint = hint.or_else(|| event.and_then(hints::event_hint)).or_else(|| host.and_then(hints::hint));
        // An error that wraps another without adding anything says it once.
        let mut said: Vec<&str> = Vec::new();
        for text in &chain {
            if !said.last().is_some_and(|last| last.ends_with(text.as_str())) {
                said.push(text);
            }
        }
        let said = said.join(": ");
        if self.json {
            let kind = trouble.map(DiskTrouble::name).or_else(|| host.map(HostError::kind));
            let mut value = serde_json::json!({ "error": said, "kind": kind, "hint": hint, "refusal": hook });
            if let Some(HostError::InUse { uses, .. }) = host {
                value["uses"] = serde_json::to_value(uses).unwrap_or_default();
            }
            // Standard output is for answers, also where an error is one.
            streams::log(visible_json(&format!("{value}\n")).into_owned().into_bytes());
            return;
        }
        self.complain(RED, "error", &said);
        if let Some(hint) = hint {
            self.note("hint", &hint);
        }
    }

    fn complain(&self, colour: &str, label: &str, text: &str) {
        let line = if streams::errors_are_seen() {
            format!("{colour}{label}:{RESET} {}\n", visible(text))
        } else {
            format!("{label}: {}\n", visible(text))
        };
        streams::log(line.into_bytes());
    }
}

const RED: &str = "\u{1b}[1;31m";
const YELLOW: &str = "\u{1b}[1;33m";
const CYAN: &str = "\u{1b}[1;36m";
const RESET: &str = "\u{1b}[0m";

/// Rows: a table on a terminal, else one a line with tabs between the cells, for other programs.
pub(crate) fn rows(terminal: bool, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    if terminal {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(titles);
        match streams::width() {
            Some(width) if width >= 40 => drop(table.set_width(width)),
            // A terminal that tells no width is not taken for one of a few columns.
            _ => drop(table.set_content_arrangement(ContentArrangement::Disabled)),
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| visible(cell)));
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
