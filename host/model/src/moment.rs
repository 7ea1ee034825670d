//! Points in time, and the clock that tells them.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use billhook_plugin_api::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, to the millisecond.
///
/// It displays as RFC 3339, in UTC. Its JSON form is a whole number of milliseconds since 1970; where a document has had
/// seconds from the beginning, [`as_seconds`] writes those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// Returns the point in time so many milliseconds after 1970-01-01T00:00:00Z; before it, if the number is negative.
    pub const fn from_millis(milliseconds: i64) -> Self {
        Moment(milliseconds)
    }

    /// Returns the point in time so many seconds after 1970-01-01T00:00:00Z; before it, if the number is negative.
    pub const fn from_seconds(seconds: i64) -> Self {
        Moment(seconds.saturating_mul(1_000))
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Returns the whole seconds since 1970-01-01T00:00:00Z.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns a later point in time; the last one that there is, if it would lie beyond.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Moment(self.0.saturating_add(in_millis(time)))
    }

    /// Returns an earlier point in time; the first one that there is, if it would lie before.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Moment(self.0.saturating_sub(in_millis(time)))
    }

    /// Returns how long after an earlier point in time it is; no time, if it isn't later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A time as milliseconds.
fn in_millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Moment(in_millis(after)),
            Err(before) => Moment(-in_millis(before.duration())),
        }
    }
}

impl From<Moment> for SystemTime {
    fn from(moment: Moment) -> Self {
        let apart = Duration::from_millis(moment.0.unsigned_abs());
        let time = if moment.0 < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(apart)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(apart)
        };
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl From<Moment> for Timestamp<'static> {
    fn from(moment: Moment) -> Self {
        SystemTime::from(moment).into()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Timestamp::from(*self).as_str())
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(Moment)
    }
}

/// Writes a point in time as whole seconds since 1970.
pub mod as_seconds {
    use serde::Serializer;

    use super::Moment;

    /// Writes it.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    pub fn serialize<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(moment.seconds())
    }

    /// The same where there may be none.
    pub mod option {
        use serde::{Serialize as _, Serializer};

        use super::Moment;

        /// Writes it.
        #[allow(clippy::ref_option, reason = "serde passes it so")]
        pub fn serialize<S: Serializer>(moment: &Option<Moment>, serializer: S) -> Result<S::Ok, S::Error> {
            moment.map(Moment::seconds).serialize(serializer)
        }
    }
}

/// What tells the time. A host asks no other; a test passes in one of its own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the time of day, as the machine has it: whoever administers it can set it.
    fn now(&self) -> Moment;

    /// Returns the time since the machine was started, the same in all of its processes. Nobody can set it, and it goes on while
    /// the machine sleeps.
    fn since_boot(&self) -> Duration;

    /// Returns what tells this start of the machine from all others.
    fn boot(&self) -> String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_as_people_of_all_programs_read_it() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (-1_000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment::from_millis(millis).to_string(), expected);
            assert_eq!(Moment::from(SystemTime::from(Moment::from_millis(millis))).millis(), millis);
        }
        assert_eq!(Moment::from_millis(-1).seconds(), -1);
    }

    #[test]
    fn what_lies_beyond_all_time_is_its_end() {
        let last = Moment::from_millis(i64::MAX);
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(Moment::from_millis(i64::MIN).before(Duration::from_secs(1)), Moment::from_millis(i64::MIN));
        assert_eq!(Moment::default().since(last), Duration::ZERO);
        assert!(!last.to_string().is_empty());
    }
}
