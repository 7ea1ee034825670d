//! What the log looks like: text for people, one JSON object a line for whatever collects logs.

use std::fmt;

use billhook::visible_line;
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt as _,
    fmt::format::{Writer, debug_fn},
};

use crate::streams;

/// Starts the log. `verbose` counts how much more than usual is logged; a server says what it does, and when.
pub(crate) fn start(verbose: u8, is_server: bool) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3)).max(usize::from(is_server))];
    let filter = EnvFilter::try_from_env("BILLHOOK_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A span for each call is nothing that is logged, and costs as much as the call.
    let quiet = "billhook::dispatch::observe=warn".parse().ok().filter(|_| is_server && verbose < 2);
    let filter = quiet.into_iter().fold(filter, EnvFilter::add_directive);
    let colour = streams::errors_are_seen();
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    if is_server && !colour {
        return log.with_writer(streams::JsonLine::default).json().flatten_event(true).init();
    }
    let log = log.with_writer(streams::Line::default).with_ansi(colour).fmt_fields(debug_fn(field).delimited(" "));
    if is_server { log.init() } else { log.without_time().init() }
}

/// Writes a field of a line: what others say in it is shown, and ends no line.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    writer.write_str(&visible_line(&text))
}
