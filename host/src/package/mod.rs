//! Packages: from a zip, through checked files, to a manifest and a module that may be loaded.
//!
//! Nothing in here runs code of a package.

mod archive;
mod check;
mod digest;
mod elf;
mod error;
pub(crate) mod form;
mod inspect;
mod manifest;
mod names;
mod pack;
mod python;
mod strict_json;
mod unpack;

pub use billhook_model::{ModuleInfo, Version};
pub use check::{CheckError, CheckErrors, CheckReport};
pub(crate) use check::{Sound, check, examine, is_whole};
pub use digest::{Digest, PackageFile};
pub use error::PackageError;
pub use inspect::ModuleError;
pub(crate) use inspect::is_newer_than_host;
pub use manifest::{Addon, FieldKind, FormField, Format, Manifest, ManifestError, SelectOption, Violation};
pub use names::is_left_over;
pub use pack::pack;
pub use unpack::Limits;
pub(crate) use unpack::unpack;
