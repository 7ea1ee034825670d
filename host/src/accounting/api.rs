//! What the host needs of a usage API. The one over HTTP is [`HttpUsageApi`](super::HttpUsageApi); a backend may plug its own.

use std::{fmt, time::Duration};

/// A usage API: where usage specifications and usage documents are kept (TMF635, usage management).
///
/// The host calls it from several threads, one at a time for each contract, and blocks as long as a call takes: every
/// function has to give up after a time.
///
/// What an error says decides what happens next, so it has to be right about whether something was done; when in doubt it
/// is [`UsageApiError::Unknown`].
pub trait UsageApi: Send + Sync {
    /// Makes a usage specification.
    fn create_specification(&self, new: &NewSpecification<'_>) -> Result<SpecificationRef, UsageApiError>;

    /// All usage specifications with a name.
    fn specifications(&self, name: &str) -> Result<Vec<FoundSpecification>, UsageApiError>;

    /// Deletes a usage specification. One that isn't there is [`UsageApiError::NotFound`], which is as good as deleted.
    fn delete_specification(&self, specification: &SpecificationRef) -> Result<(), UsageApiError>;

    /// Makes a usage document of type `event` with status `Received`. Answers its id.
    fn create_usage(&self, new: &NewUsageDocument<'_>) -> Result<String, UsageApiError>;

    /// Sets a usage document to `guided`; the host does so only with one that has the status `Received`.
    fn guide_usage(&self, id: &str) -> Result<(), UsageApiError>;

    /// Tells all usage documents of a customer's, whatever their status. A list that may not be whole has to be an error:
    /// what isn't in it is sent again.
    fn customer_usage(&self, customer: &str, each: &mut dyn FnMut(FoundUsageDocument)) -> Result<(), UsageApiError>;

    /// How long a call takes at most, until it is given up with [`UsageApiError::NoAnswer`]. 30 seconds unless a usage API says
    /// otherwise. Where the host ends in the middle of a call, it counts on this time and the next.
    fn call_time(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// How long a call may still be at work after [`UsageApiError::NoAnswer`]: a document that such a call was to make, and
    /// that isn't there yet, is made again only after that time. 30 seconds unless a usage API says otherwise.
    fn settle_time(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// A usage specification that is to be made. Its characteristics are those of [`NewUsageDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSpecification<'a> {
    /// The unit's name, such as `API call`.
    pub name: &'a str,
    /// What is counted.
    pub description: &'a str,
}

/// Where a usage specification is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecificationRef {
    /// The usage API's id of it.
    pub id: String,
    /// Its address.
    pub href: String,
}

/// A usage specification that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSpecification {
    /// Where it is.
    pub at: SpecificationRef,
    /// Its name.
    pub name: String,
    /// What it says is counted.
    pub description: String,
}

/// A usage document that is to be made.
///
/// Order, product and correlation number are its identity: there is never more than one document with the same three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewUsageDocument<'a> {
    /// When the usage was made, as RFC 3339.
    pub date: &'a str,
    /// The specification of the unit.
    pub specification: &'a SpecificationRef,
    /// The characteristic `orderId`.
    pub order_id: &'a str,
    /// The characteristic `productId`.
    pub product_id: &'a str,
    /// The characteristic `correlationNumber`.
    pub correlation_number: u64,
    /// The characteristic `unit`, and the specification's name.
    pub unit: &'a str,
    /// The characteristic `value`: an exact decimal number.
    pub value: &'a str,
    /// Who used it: the related party with the role `customer`.
    pub customer: &'a str,
}

/// A usage document that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundUsageDocument {
    /// The usage API's id of it.
    pub id: String,
    /// Its status, such as `Received` or `guided`.
    pub status: String,
    /// The characteristic `orderId`.
    pub order_id: String,
    /// The characteristic `productId`.
    pub product_id: String,
    /// The characteristic `correlationNumber`; none if it is no whole number.
    pub correlation_number: Option<u64>,
    /// The characteristic `unit`, if it is there.
    pub unit: Option<String>,
    /// The characteristic `value`, if it is there.
    pub value: Option<String>,
}

/// Why a call of the usage API failed, and what that means for what it was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsageApiError {
    /// It won't do this, now or later. Nothing was done.
    Refused(String),
    /// What was named isn't there.
    NotFound(String),
    /// It answered that it can't do this now. Nothing was done.
    Unavailable(String),
    /// It can't be reached. Nothing was done.
    Unreachable(String),
    /// No answer that can be understood: perhaps it was done, perhaps not.
    Unknown(String),
    /// It closed a connection that had been kept, and answered nothing: most probably it didn't see what was sent.
    Closed(String),
    /// No answer in time: perhaps it was done, perhaps not, and perhaps it is still to be done.
    NoAnswer(String),
}

impl UsageApiError {
    /// Whether it may have been done all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, UsageApiError::Unknown(_) | UsageApiError::Closed(_) | UsageApiError::NoAnswer(_))
    }
}

impl fmt::Display for UsageApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageApiError::Refused(message) => write!(f, "the usage API refused: {message}"),
            UsageApiError::NotFound(message) => write!(f, "the usage API doesn't have it: {message}"),
            UsageApiError::Unavailable(message) => write!(f, "the usage API can't do it now: {message}"),
            UsageApiError::Unreachable(message) => write!(f, "the usage API can't be reached: {message}"),
            UsageApiError::Unknown(message) => {
                write!(f, "it isn't known whether the usage API did it: {message}")
            }
            UsageApiError::Closed(message) => {
                write!(f, "the usage API closed the connection before it answered: {message}")
            }
            UsageApiError::NoAnswer(message) => {
                write!(f, "the usage API gave no answer in time, and may still be at work: {message}")
            }
        }
    }
}

impl std::error::Error for UsageApiError {}
