//! Why there is no instance.

use std::error::Error;

use billhook_machine::disk::DiskTrouble;

/// Why a plugin can't be loaded.
#[derive(Debug, Clone)]
pub(crate) struct LoadFailure {
    pub(crate) message: String,
    /// The trouble of the disk that it comes from.
    pub(crate) disk: Option<DiskTrouble>,
}

impl LoadFailure {
    /// Something failed that is told so, or told in the words for trouble of the disk.
    pub(crate) fn of(error: &(dyn Error + 'static), message: String) -> Self {
        let disk = DiskTrouble::of(error);
        LoadFailure { message: disk.map_or(message, |trouble| trouble.to_string()), disk }
    }
}

impl From<String> for LoadFailure {
    fn from(message: String) -> Self {
        LoadFailure { message, disk: None }
    }
}
