//! Dates and money: text with a checked form, so that nothing is rounded or shifted on its way.

use std::{borrow::Cow, fmt, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Why a text is no [`Timestamp`] or no [`Decimal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

/// A date and time as RFC 3339 text, such as `2026-11-21T22:49:40Z`; the offset is kept as it was sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Timestamp<'a>(Cow<'a, str>);

impl<'a> Timestamp<'a> {
    pub(crate) fn from_checked(text: &'a str) -> Self {
        Timestamp(Cow::Borrowed(text))
    }

    /// Checks that `text` is RFC 3339.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, ValueError> {
        let text = text.into();
        parse_date(&text)?;
        Ok(Timestamp(text))
    }

    /// This moment, in UTC.
    #[expect(clippy::disallowed_methods, reason = "a plugin has no other clock")]
    pub fn now() -> Timestamp<'static> {
        SystemTime::now().into()
    }

    /// The text as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The moment that the text names; use it to compare two dates.
    pub fn to_system_time(&self) -> Result<SystemTime, ValueError> {
        parse_date(&self.0).map(SystemTime::from)
    }

    /// Whole seconds since 1970-01-01T00:00:00Z; negative before.
    pub fn unix_seconds(&self) -> Result<i64, ValueError> {
        parse_date(&self.0).map(OffsetDateTime::unix_timestamp)
    }

    /// The same date, owning its text.
    pub fn into_owned(self) -> Timestamp<'static> {
        Timestamp(Cow::Owned(self.0.into_owned()))
    }
}

fn parse_date(text: &str) -> Result<OffsetDateTime, ValueError> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339);
    parse(text).map_err(|_| {
        // What many languages write unless told otherwise, such as Python's isoformat() of a date without a time zone.
        let is_naive = text.len() < 100 && parse(&format!("{text}Z")).is_ok();
        let problem = if is_naive { ": it has no offset from UTC, such as Z" } else { "" };
        ValueError(format!(
            "{} is no RFC 3339 date{problem}; write it like 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+01:00",
            quoted(text)
        ))
    })
}

/// A text as a message shows it: not all of one that is too long for what it should be.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl From<SystemTime> for Timestamp<'static> {
    /// Years outside 0 to 9999 have no RFC 3339 form; they become the nearest that has one.
    fn from(time: SystemTime) -> Self {
        // Seconds from 1970 to the first and from 1970 to the last moment that can be written.
        const FIRST: u64 = 62_167_219_200;
        const LAST: u64 = 253_402_300_799;
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) if after.as_secs() > LAST => return Timestamp(Cow::Borrowed("9999-12-31T23:59:59Z")),
            Err(before) if before.duration().as_secs() >= FIRST => {
                return Timestamp(Cow::Borrowed("0000-01-01T00:00:00Z"));
            }
            _ => {}
        }
        Timestamp(OffsetDateTime::from(time).format(&Rfc3339).map_or_else(|_| Timestamp::default().0, Cow::Owned))
    }
}

impl Default for Timestamp<'_> {
    /// 1970-01-01T00:00:00Z.
    fn default() -> Self {
        Timestamp(Cow::Borrowed("1970-01-01T00:00:00Z"))
    }
}

/// An exact decimal number as text, such as `12.50`: an optional `-`, digits, and at most one point between digits.
///
/// Money and usage never pass through floating point. Parse it with the decimal type of your choice.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Decimal<'a>(Cow<'a, str>);

impl<'a> Decimal<'a> {
    pub(crate) fn from_checked(text: &'a str) -> Self {
        Decimal(Cow::Borrowed(text))
    }

    /// Checks that `text` is a decimal number.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, ValueError> {
        let text = text.into();
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        let right = match unsigned.split_once('.') {
            Some((whole, fraction)) => digits(whole) && digits(fraction),
            None => digits(unsigned),
        };
        if right {
            Ok(Decimal(text))
        } else {
            Err(ValueError(format!("{} is no decimal number; write it like \"12.50\"", quoted(&text))))
        }
    }

    /// The text as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same number, owning its text.
    pub fn into_owned(self) -> Decimal<'static> {
        Decimal(Cow::Owned(self.0.into_owned()))
    }
}

impl Default for Decimal<'_> {
    /// Zero.
    fn default() -> Self {
        Decimal(Cow::Borrowed("0"))
    }
}

impl From<u64> for Decimal<'static> {
    fn from(number: u64) -> Self {
        Decimal(Cow::Owned(number.to_string()))
    }
}

/// What both kinds of text have in common: shown as they are, JSON strings outside.
macro_rules! checked_text {
    ($name:ident, $expected:literal) => {
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name<'static> {
            type Error = ValueError;

            fn try_from(text: String) -> Result<Self, ValueError> {
                $name::new(text)
            }
        }

        impl Serialize for $name<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name<'static> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name<'static>;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        $name::new(text.to_owned()).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor).map_err(D::Error::custom)
            }
        }
    };
}

checked_text!(Timestamp, "an RFC 3339 date as text");
checked_text!(Decimal, "a decimal number as text, such as \"12.50\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_with_at_most_one_point_between_them() {
        for right in ["0", "12", "-3", "12.50", "-0.001", "99999999999999999999999999.9"] {
            assert_eq!(Decimal::new(right).expect(right).as_str(), right);
        }
        for wrong in ["", "-", ".5", "5.", "1.2.3", "1e3", "+1", " 1", "1\n", "١", "0x10", "NaN", "1,5"] {
            assert!(Decimal::new(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn decimals_refuse_json_numbers_because_those_may_have_been_rounded() {
        let error = serde_json::from_str::<Decimal>("0.1").unwrap_err().to_string();
        assert!(error.contains("a decimal number as text"), "{error}");
    }

    #[test]
    fn dates_keep_their_offset_and_compare_by_moment() {
        let local = Timestamp::new("2013-04-19T16:42:23-04:00").unwrap();
        let utc = Timestamp::new("2013-04-19T20:42:23Z").unwrap();
        assert_eq!(local.as_str(), "2013-04-19T16:42:23-04:00");
        assert_eq!(local.to_system_time(), utc.to_system_time());
        for wrong in ["", "2013-04-19", "2013-04-19T16:42:23", "yesterday", "2013-13-19T16:42:23Z"] {
            assert!(Timestamp::new(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_date_that_is_refused_says_what_it_lacks() {
        for (wrong, expected) in [
            ("2026-01-31T12:00:00", "no offset from UTC"),
            ("2026-01-31T12:00:00.123456", "no offset from UTC"),
            ("2026-01-31 12:00:00", "no offset from UTC"),
            ("2026-01-31", "is no RFC 3339 date; write it like 2026-01-31T12:00:00Z"),
            ("2026-02-30T12:00:00", "is no RFC 3339 date; write it like"),
        ] {
            let problem = Timestamp::new(wrong).expect_err(wrong).to_string();
            assert!(problem.contains(expected) && problem.contains(wrong), "{problem}");
        }
        let long = Timestamp::new("9".repeat(100_000)).expect_err("no date").to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn dates_come_from_the_system_clock() {
        let moment = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        assert_eq!(Timestamp::from(moment).as_str(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::from(moment).unix_seconds(), Ok(1_700_000_000));
        let seconds = std::time::Duration::from_secs;
        for (moment, expected) in [
            (SystemTime::UNIX_EPOCH + seconds(253_402_300_799), "9999-12-31T23:59:59Z"),
            (SystemTime::UNIX_EPOCH + seconds(999_999_999_999_999), "9999-12-31T23:59:59Z"),
            (SystemTime::UNIX_EPOCH - seconds(62_167_219_200), "0000-01-01T00:00:00Z"),
            (SystemTime::UNIX_EPOCH - seconds(999_999_999_999_999), "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::from(moment).as_str(), expected);
        }
    }
}
