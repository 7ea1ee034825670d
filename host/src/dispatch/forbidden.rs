//! What before handlers forbid.

use std::{error::Error, fmt};

use serde::Serialize;

/// What a before handler said, or what stands for it: it must not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Forbidden {
    /// The handler.
    pub handler: String,
    /// Its reason. From the handler, and so not to be trusted: escape it where it is shown.
    pub message: String,
    /// The handler didn't forbid it: it gave no answer that can be used, and its failure policy is *closed*.
    pub by_policy: bool,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forbidden { handler, message, by_policy } = self;
        if *by_policy {
            write!(f, "the handler {handler:?} gave no answer, and nothing goes on without it: {message}")
        } else {
            write!(f, "the handler {handler:?} forbids it: {message}")
        }
    }
}

impl Error for Forbidden {}
