//! Versions of packages: numbers joined by dots, of any number of parts.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A package's version, such as `1`, `0.1` or `1.2.3.4`; ordered number by number, so that `1`, `1.0` and `1.0.0` are equal.
#[derive(Debug, Clone)]
pub struct Version(String);

impl Version {
    /// Returns the version as its package spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a package's version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version: write numbers joined by dots, without leading zeros, such as \"1.0\"")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && (part.len() == 1 || !part.starts_with('0'))
        };
        if text.split('.').all(number) { Ok(Version(text.to_owned())) } else { Err(VersionError(text.to_owned())) }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right) = (self.0.split('.'), other.0.split('.'));
        loop {
            let (left, right) = match (left.next(), right.next()) {
                (None, None) => return Ordering::Equal,
                (left, right) => (left.unwrap_or("0"), right.unwrap_or("0")),
            };
            // Without leading zeros the longer number is the larger one, however long it is.
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
            if order.is_ne() {
                return order;
            }
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_number_by_number() {
        for (left, right, expected) in [
            ("1", "1.0.0", Ordering::Equal),
            ("1.0", "1.0.1", Ordering::Less),
            ("0.9", "0.10", Ordering::Less),
            ("1.2.3.4", "1.2.3", Ordering::Greater),
            ("2", "1.9.9.9", Ordering::Greater),
            ("99999999999999999999999", "100000000000000000000000", Ordering::Less),
        ] {
            let [left, right] = [left, right].map(|text| text.parse::<Version>().expect(text));
            assert_eq!(left.cmp(&right), expected, "{left} and {right}");
            assert_eq!(right.cmp(&left), expected.reverse(), "{right} and {left}");
        }
    }

    #[test]
    fn a_version_is_numbers_and_dots_and_nothing_else() {
        for wrong in ["", ".", "1.", ".1", "1..2", "01", "1.00", "1.0\n", " 1", "1.0-beta", "v1", "١", "-1", "+1"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?} was accepted");
        }
    }
}
