//! Moments as people write them.

use std::time::SystemTime;

use billhook_model::Moment;
use billhook_plugin_api::Timestamp;

/// Reads a moment: a date as RFC 3339 has it, a day, milliseconds since 1970, or how long ago it was, such as `15m`.
///
/// # Errors
/// It is none of these, or lies before 1970; the text says what is wrong.
pub fn parse_moment(text: &str, now: Moment) -> Result<Moment, String> {
    // Seconds of now would be taken for a moment in 1970, and everything for later than that.
    if let Ok(milliseconds) = text.parse::<i64>() {
        let is_seconds = (1_000_000_000..100_000_000_000).contains(&milliseconds);
        let problem = || format!("{text} looks like seconds since 1970, and has to be milliseconds");
        return (!is_seconds).then_some(Moment::from_millis(milliseconds)).ok_or_else(problem);
    }
    let day = (text.len() == 10).then(|| format!("{text}T00:00:00Z"));
    let moment = match humantime::parse_rfc3339_weak(day.as_deref().unwrap_or(text)) {
        Ok(moment) => moment,
        Err(_) => match Timestamp::new(text) {
            Ok(date) => date.to_system_time().map_err(|error| error.to_string())?,
            Err(_) => {
                let ago = humantime::parse_duration(text).map_err(|_| {
                    "write a date like 2026-01-31 or 2026-01-31T12:00:00Z, or how long ago, like 15m or 2d".to_owned()
                })?;
                return Ok(now.before(ago).max(Moment::default()));
            }
        },
    };
    moment.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "it lies before 1970".to_owned())?;
    Ok(moment.into())
}
