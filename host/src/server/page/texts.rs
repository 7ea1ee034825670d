//! What people type, and what they read.

use crate::Moment;

/// What a field of a search asks for; nothing if it is empty.
pub(super) fn asked(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The seconds of a date as RFC 3339 has it.
pub(super) fn seconds_of(date: &str) -> String {
    date.split(['.', 'Z', '+']).next().unwrap_or_default().replace('T', " ")
}

/// A moment, for people: seconds are enough.
pub(super) fn moment(moment: Moment) -> String {
    seconds_of(&moment.to_string())
}

/// How long something took.
pub(super) fn took(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.1} s", microseconds as f64 / 1e6),
    }
}
