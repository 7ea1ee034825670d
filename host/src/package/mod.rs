//! Packages: from a zip, through checked files, to a manifest and a module that may be loaded.
//!
//! Nothing in here runs code of a package.

mod archive;
mod check;
mod elf;
pub(crate) mod form;
mod inspect;
mod manifest;
mod names;
mod pack;
mod strict_json;
mod unpack;

use std::{fmt, io, path::PathBuf};

use sha2::{Digest as _, Sha256};

pub use billhook_model::{ModuleInfo, Version};
pub use check::{CheckError, CheckErrors, CheckReport};
pub(crate) use check::{Sound, check, examine, is_whole};
pub use inspect::ModuleError;
pub(crate) use inspect::is_newer_than_host;
pub use manifest::{Addon, FieldKind, FormField, Format, Manifest, ManifestError, SelectOption, Violation};
pub use names::is_left_over;
pub use pack::pack;
pub use unpack::Limits;
use unpack::content_digest;
pub(crate) use unpack::unpack;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of everything that a reader reads.
    pub fn of(reader: &mut impl io::Read) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Digest(hash.finalize().into())),
                count => hash.update(&buffer[..count]),
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file of an unpacked package.
#[derive(Debug, Clone)]
pub struct PackageFile {
    /// Its path in the package, with `/` between the parts.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its content.
    pub sha256: Digest,
}

/// A name as an error shows it: whoever wrote the zip chose its length.
fn shortened(name: &str) -> String {
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
