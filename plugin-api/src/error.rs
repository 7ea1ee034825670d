//! How a hook refuses, and how it fails.

use std::{error::Error, fmt, time::Duration};

/// What kind of refusal or failure a [`PluginError`] is.
///
/// The number beside each is the HTTP status that a backend's own API answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value has the wrong form (400).
    BadValue,
    /// The request is well formed, and refused by the rules of this kind of asset (422).
    Invalid,
    /// The user may not do this (403).
    Forbidden,
    /// Something that was named doesn't exist (404).
    NotFound,
    /// It contradicts what is already there (409).
    Conflict,
    /// A service that is needed doesn't answer now (503).
    Unavailable,
    /// The plugin failed: a fault of its own, or a panic (500).
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of the numbers that cross the boundary.
    // Append only.
    pub const ALL: &'static [ErrorKind] = &[
        ErrorKind::BadValue,
        ErrorKind::Invalid,
        ErrorKind::Forbidden,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Unavailable,
        ErrorKind::Internal,
    ];

    /// The HTTP status that stands for this kind.
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::BadValue => 400,
            ErrorKind::Invalid => 422,
            ErrorKind::Forbidden => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::Conflict => 409,
            ErrorKind::Unavailable => 503,
            ErrorKind::Internal => 500,
        }
    }

    /// The name in the JSON form and in messages.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::BadValue => "bad value",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::NotFound => "not found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Internal => "internal",
        }
    }

    /// The number that crosses the boundary for a panic: an internal error, told from one that was returned.
    pub(crate) const PANICKED: u32 = 100;

    /// The number that crosses the boundary; never 0, which means that all went well.
    pub(crate) fn code(self) -> u32 {
        Self::ALL.iter().position(|kind| *kind == self).map_or(u32::MAX, |index| index as u32 + 1)
    }

    /// A number that this version doesn't know is an internal error, whatever a later version means by it.
    pub(crate) fn from_code(code: u32) -> Self {
        let index = usize::try_from(code).ok().and_then(|code| code.checked_sub(1));
        index.and_then(|index| Self::ALL.get(index)).copied().unwrap_or(ErrorKind::Internal)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a kind of error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownErrorKind(String);

impl fmt::Display for UnknownErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no kind of error {:?}", self.0)
    }
}

impl Error for UnknownErrorKind {}

impl std::str::FromStr for ErrorKind {
    type Err = UnknownErrorKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let kind = ErrorKind::ALL.iter().find(|kind| kind.name() == name);
        kind.copied().ok_or_else(|| UnknownErrorKind(name.to_owned()))
    }
}

/// A refusal or a failure, with a sentence for whoever asked.
///
/// `?` turns any [`std::error::Error`] into an [internal](ErrorKind::Internal) one that keeps the whole
/// chain of causes. For that reason `PluginError` is not itself a `std::error::Error`.
///
/// ```
/// # use billhook_plugin_api::{ErrorKind, PluginError};
/// fn port(text: &str) -> Result<u16, PluginError> {
///     if text.is_empty() {
///         return Err(PluginError::bad_value("the port is missing"));
///     }
///     Ok(text.parse::<u16>()?)
/// }
/// assert_eq!(port("").unwrap_err().kind(), ErrorKind::BadValue);
/// assert_eq!(port("many").unwrap_err().kind(), ErrorKind::Internal);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    panicked: bool,
}

impl PluginError {
    /// An error of a kind; the functions named after the kinds read better.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        PluginError { kind, message: message.into(), retry_after: None, panicked: false }
    }

    /// A value has the wrong form (400).
    pub fn bad_value(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadValue, message)
    }

    /// Refused by the rules of this kind of asset (422).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The user may not do this (403).
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// Something that was named doesn't exist (404).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// It contradicts what is already there (409).
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// A service that is needed doesn't answer now (503); see [`PluginError::with_retry_after`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The plugin failed (500).
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Says when it makes sense to try again; whole milliseconds cross the boundary.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// An error for a panic that was caught.
    pub(crate) fn panicked(message: impl Into<String>) -> Self {
        PluginError { panicked: true, ..Self::internal(message) }
    }

    /// Whether the plugin panicked; its kind is then [internal](ErrorKind::Internal).
    pub fn is_panic(&self) -> bool {
        self.panicked
    }

    /// Which kind it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence for whoever asked.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When it makes sense to try again, where the plugin said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl<E: Error> From<E> for PluginError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        PluginError::internal(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_crosses_as_its_own_number_and_unknown_ones_are_internal() {
        for kind in ErrorKind::ALL {
            assert_ne!(kind.code(), 0);
            assert_eq!(ErrorKind::from_code(kind.code()), *kind);
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        for unknown in [0, 8, 1_000, u32::MAX] {
            assert_eq!(ErrorKind::from_code(unknown), ErrorKind::Internal);
        }
    }

    #[test]
    fn the_question_mark_keeps_the_chain_of_causes() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no port")
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = PluginError::from(Outer("many".parse::<u16>().unwrap_err()));
        assert_eq!(error.message(), "no port: invalid digit found in string");
    }
}
