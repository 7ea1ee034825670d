//! From a zip to checked files in a folder.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufReader, Read, Write},
    path::Path,
};

use flate2::{Crc, bufread::DeflateDecoder};
use sha2::{Digest as _, Sha256};
use zip::{
    ZipArchive,
    read::{ArchiveOffset, Config},
};

use super::{Digest, PackageError, PackageFile, archive, names};
use billhook_machine::private;

/// How much of a package is taken. What really comes out counts, not what the archive says.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the zip itself.
    pub package_bytes: u64,
    /// Entries in the zip.
    pub entries: usize,
    /// Bytes of one unpacked file.
    pub file_bytes: u64,
    /// Bytes of all unpacked files.
    pub total_bytes: u64,
}

impl Default for Limits {
    /// 512 MiB zipped, 4,096 entries, 512 MiB a file, 1 GiB in all.
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Limits { package_bytes: 512 * MIB, entries: 4096, file_bytes: 512 * MIB, total_bytes: 1024 * MIB }
    }
}

/// Unpacks a zip into an empty folder and tells what is in it, sorted by path. Every file is on disk on return.
pub(crate) fn unpack(package: &Path, into: &Path, limits: &Limits) -> Result<Vec<PackageFile>, Vec<PackageError>> {
    let one = |error: PackageError| vec![error];
    // Asked before it is opened: opening a pipe would wait for its writer.
    let metadata = fs::metadata(package).map_err(PackageError::Read).map_err(one)?;
    if !metadata.is_file() {
        return Err(vec![PackageError::NotAZip]);
    }
    if metadata.len() > limits.package_bytes {
        let (most, length) = (limits.package_bytes, metadata.len());
        return Err(vec![PackageError::TooMuch(format!("it has {length} bytes; at most {most} are taken"))]);
    }
    let mut file = File::open(package).map_err(PackageError::Read).map_err(one)?;
    let entries = archive::read(&mut file, metadata.len(), limits.entries).map_err(one)?;
    names::check(&entries)?;
    write_all(file, &entries, into, limits).map_err(one)
}

fn write_all(
    file: File,
    entries: &[archive::Entry],
    into: &Path,
    limits: &Limits,
) -> Result<Vec<PackageFile>, PackageError> {
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, BufReader::new(file)).map_err(PackageError::Zip)?;
    archive.validate_header_consistency().map_err(PackageError::Zip)?;
    if archive.len() != entries.len() {
        return Err(PackageError::Structure("two readers of it find different numbers of entries".to_owned()));
    }
    let mut files = Vec::new();
    let mut total = 0;
    for (index, entry) in entries.iter().enumerate() {
        let target = into.join(entry.path());
        let write = |source| PackageError::Write { path: target.clone(), source };
        if entry.is_folder {
            private::folder(&target).map_err(write)?;
            continue;
        }
        if let Some(folder) = target.parent() {
            private::folder(folder).map_err(write)?;
        }
        let most = limits.file_bytes.min(limits.total_bytes - total);
        let zipped = archive.by_index_raw(index).map_err(PackageError::Zip)?;
        if zipped.name_raw() != entry.name.as_bytes() {
            return Err(PackageError::Structure("two readers of it find different entries".to_owned()));
        }
        let mut out = private::new_file(&target).map_err(write)?;
        let (size, sha256) = copy(zipped, entry, &mut out, most, write)?;
        out.sync_data().map_err(write)?;
        total += size;
        files.push(PackageFile { path: entry.name.clone(), size, sha256 });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Unpacks at most `most` bytes, hashes them on the way, and checks that they are all that the entry has, and just what it
/// says that it has.
fn copy(
    zipped: impl Read,
    entry: &archive::Entry,
    to: &mut File,
    most: u64,
    write: impl Fn(std::io::Error) -> PackageError,
) -> Result<(u64, Digest), PackageError> {
    let bad = |problem: String| PackageError::Entry { name: entry.name.clone(), problem };
    let mut inflated = DeflateDecoder::new(BufReader::new(zipped));
    let (mut sha256, mut crc32, mut size) = (Sha256::new(), Crc::new(), 0);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let read = if entry.is_deflated { inflated.read(&mut buffer) } else { inflated.get_mut().read(&mut buffer) };
        let count = read.map_err(|error| match error.raw_os_error() {
            // Of the file that holds it, and not of its content.
            Some(_) => PackageError::Read(error),
            None => bad(format!("it can't be unpacked: {error}")),
        })?;
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > most {
            let name = &entry.name;
            return Err(PackageError::TooMuch(format!("{name:?} unpacks to more than the {most} bytes that are left")));
        }
        sha256.update(&buffer[..count]);
        crc32.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(&write)?;
    }
    let taken = if entry.is_deflated { inflated.total_in() } else { size };
    if taken != entry.compressed_size {
        return Err(bad("there is data behind the end of its content".to_owned()));
    }
    if size != entry.size || crc32.sum() != entry.crc32 {
        return Err(bad("its content is not what its headers say".to_owned()));
    }
    Ok((size, Digest(sha256.finalize().into())))
}

/// The digest of a package's content: of every path and every file, and of nothing that a zip adds to them.
pub(crate) fn content_digest(files: &[PackageFile]) -> Digest {
    let mut listing = String::new();
    for file in files {
        // A path holds no control characters, so no other content has this listing.
        let _ = writeln!(listing, "{}\n{}", file.path, file.sha256);
    }
    Digest(Sha256::digest(listing.as_bytes()).into())
}
