//! Times as people write and read them.

use billhook::Moment;

/// Reads a time such as `500ms`, `10s` or `2m`, as milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write it like 500ms, 10s, 5m or 2h".to_owned())?;
    u64::try_from(time.as_millis()).map_err(|_| "it is too long".to_owned())
}

/// Reads how long something lasts, such as `90d`, as milliseconds.
pub(crate) fn lasting(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write it like 12h, 90d or 1y".to_owned())?;
    u64::try_from(time.as_millis()).map_err(|_| "it is too long".to_owned())
}

/// A moment as RFC 3339 has it, to the millisecond.
pub(crate) fn date(moment: Moment) -> String {
    humantime::format_rfc3339_millis(moment.max(Moment::default()).into()).to_string()
}

/// How long something took.
pub(crate) fn took(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.1} s", microseconds as f64 / 1e6),
    }
}
