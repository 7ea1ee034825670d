//! Times as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads a time such as `500ms`, `10s` or `2m`, as milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write it like 500ms, 10s, 5m or 2h".to_owned())?;
    u64::try_from(time.as_millis()).map_err(|_| "it is too long".to_owned())
}

/// Reads a moment: a date as RFC 3339 has it, or how long ago it was, such as `15m`. In milliseconds since 1970.
pub(crate) fn moment(text: &str) -> Result<i64, String> {
    let day = (text.len() == 10).then(|| format!("{text}T00:00:00Z"));
    let moment = match humantime::parse_rfc3339_weak(day.as_deref().unwrap_or(text)) {
        Ok(moment) => moment,
        Err(_) => match billhook::Timestamp::new(text) {
            Ok(date) => date.to_system_time().map_err(|error| error.to_string())?,
            Err(_) => {
                let ago = humantime::parse_duration(text).map_err(|_| {
                    "write a date like 2026-01-31 or 2026-01-31T12:00:00Z, or how long ago, like 15m or 2d".to_owned()
                })?;
                SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)
            }
        },
    };
    let since = moment.duration_since(UNIX_EPOCH).map_err(|_| "it lies before 1970".to_owned())?;
    i64::try_from(since.as_millis()).map_err(|_| "it lies too far ahead".to_owned())
}

/// A moment in milliseconds since 1970, as RFC 3339 has it.
pub(crate) fn date(moment: i64) -> String {
    let moment = UNIX_EPOCH + Duration::from_millis(moment.unsigned_abs());
    humantime::format_rfc3339_millis(moment).to_string()
}

/// How long something took.
pub(crate) fn took(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.1} s", microseconds as f64 / 1e6),
    }
}
