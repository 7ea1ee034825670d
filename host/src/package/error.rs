//! Why a zip isn't taken.

use std::{io, path::PathBuf};

/// A name as an error shows it: whoever wrote the zip chose its length.
pub(super) fn shortened(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Why a zip can't be taken as a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The file isn't there or can't be read.
    #[error("the package can't be read: {0}")]
    Read(#[source] io::Error),
    /// It isn't a zip at all.
    #[error("it is not a zip file")]
    NotAZip,
    /// Two readers could read two things from it.
    #[error("the zip is refused: {0}")]
    Structure(String),
    /// The zip itself is broken.
    #[error("the zip is broken: {0}")]
    Zip(#[source] zip::result::ZipError),
    /// One entry is refused.
    #[error("the zip's entry {:?} is refused: {problem}", shortened(name))]
    Entry {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It goes over a limit.
    #[error("the package is too large: {0}")]
    TooMuch(String),
    /// The disk refused a file.
    #[error("{} can't be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no `package.json` in the root.
    #[error("there is no package.json in the root of the zip{hint}")]
    NoManifest {
        /// Where there is one instead.
        hint: String,
    },
}
