//! The structure of a zip, read strictly: whatever two readers could read differently is refused.
//!
//! The `zip` crate decompresses; this file decides whether there is only one thing that it could decompress. Every byte of
//! the file has to belong to an entry, to the one central directory, or to the end record.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use super::PackageError;

const END_SIGNATURE: u32 = 0x0605_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const DESCRIPTOR_SIGNATURE: u32 = 0x0807_4b50;
const ZIP64_LOCATOR_SIGNATURE: u32 = 0x0706_4b50;
const END_LENGTH: u64 = 22;
const CENTRAL_LENGTH: usize = 46;
const LOCAL_LENGTH: u64 = 30;

/// An entry of the central directory whose name and kind were checked for form, but not for what they say.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_folder: bool,
    /// How many bytes it has in the zip, and how many it has unpacked.
    pub(super) compressed_size: u64,
    pub(super) size: u64,
    pub(super) crc32: u32,
    pub(super) is_deflated: bool,
    local_header: u64,
    flags: u64,
}

/// The flag that an entry's size and checksum stand behind its data.
const DESCRIPTOR: u64 = 0x0008;
/// The flag that an entry's name is UTF-8.
const UTF_8: u64 = 0x0800;

impl Entry {
    /// Its path, without the slash that closes a folder's.
    pub(super) fn path(&self) -> &str {
        self.name.strip_suffix('/').unwrap_or(&self.name)
    }
}

fn refuse(problem: impl Into<String>) -> PackageError {
    PackageError::Structure(problem.into())
}

/// A little-endian number at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(found) = bytes.get(at..at + N) {
        number[..N].copy_from_slice(found);
    }
    u64::from_le_bytes(number)
}

fn read_at(file: &mut File, at: u64, length: usize) -> Result<Vec<u8>, PackageError> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes)).map_err(PackageError::Read)?;
    Ok(bytes)
}

/// Reads the entries of a zip of `length` bytes, at most `most` of them.
pub(super) fn read(file: &mut File, length: u64, most: usize) -> Result<Vec<Entry>, PackageError> {
    let (directory_start, directory_length, count) = end_record(file, length)?;
    if count > most as u64 {
        return Err(PackageError::TooMuch(format!("it has {count} entries; at most {most} are taken")));
    }
    let directory = read_at(file, directory_start, directory_length)?;
    let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    let mut rest = directory.as_slice();
    for _ in 0..count {
        let (entry, length) = central_entry(rest)?;
        entries.push(entry);
        rest = &rest[length..];
    }
    if !rest.is_empty() {
        return Err(refuse("its central directory holds more than its end record says"));
    }
    check_coverage(file, &entries, directory_start)?;
    Ok(entries)
}

/// The start, length and number of entries of the one central directory.
fn end_record(file: &mut File, length: u64) -> Result<(u64, usize, u64), PackageError> {
    if length < END_LENGTH {
        return Err(PackageError::NotAZip);
    }
    // The record is followed by a comment of up to 65,535 bytes; a zip64 locator would be 20 bytes before it.
    let tail_start = length.saturating_sub(END_LENGTH + 0xffff + 20);
    let tail = read_at(file, tail_start, usize::try_from(length - tail_start).unwrap_or_default())?;
    let signature = END_SIGNATURE.to_le_bytes();
    let found: Vec<usize> = tail.windows(4).enumerate().filter(|(_, it)| *it == signature).map(|(at, _)| at).collect();
    // Readers search from the end. An archive that is stored in this one has an end record too, but no reader takes
    // one for this archive's whose comment doesn't reach the end of the file.
    let Some(at) = found.last().copied() else { return Err(PackageError::NotAZip) };
    let reaches_end = |at: usize| (tail_start + at as u64) + END_LENGTH + number::<2>(&tail[at..], 20) == length;
    if !reaches_end(at) {
        return Err(refuse("there is data behind its end record"));
    }
    if found.iter().filter(|at| reaches_end(**at)).count() > 1 {
        return Err(refuse("it has two end records, so that two readers could read two archives"));
    }
    if at >= 20 && number::<4>(&tail, at - 20) == u64::from(ZIP64_LOCATOR_SIGNATURE) {
        return Err(refuse("it is a zip64 archive; a package is small enough without"));
    }
    let record = &tail[at..];
    let end = tail_start + at as u64;
    if number::<2>(record, 4) != 0 || number::<2>(record, 6) != 0 || number::<2>(record, 8) != number::<2>(record, 10) {
        return Err(refuse("it is one part of several"));
    }
    let (count, directory_length, start) = (number::<2>(record, 10), number::<4>(record, 12), number::<4>(record, 16));
    if count == 0xffff || directory_length == 0xffff_ffff || start == 0xffff_ffff {
        return Err(refuse("it is a zip64 archive; a package is small enough without"));
    }
    if start + directory_length != end {
        return Err(refuse(
            "its central directory is not where its end record says, or there is data before the archive",
        ));
    }
    let directory_length = usize::try_from(directory_length).map_err(|_| PackageError::NotAZip)?;
    Ok((start, directory_length, count))
}

/// Reads one entry of the central directory and tells how long it is.
fn central_entry(bytes: &[u8]) -> Result<(Entry, usize), PackageError> {
    if bytes.len() < CENTRAL_LENGTH || number::<4>(bytes, 0) != u64::from(CENTRAL_SIGNATURE) {
        return Err(refuse("its central directory is cut off"));
    }
    let name_length = number::<2>(bytes, 28) as usize;
    let extra_length = number::<2>(bytes, 30) as usize;
    let comment_length = number::<2>(bytes, 32) as usize;
    let length = CENTRAL_LENGTH + name_length + extra_length + comment_length;
    if bytes.len() < length {
        return Err(refuse("its central directory is cut off"));
    }
    let raw_name = &bytes[CENTRAL_LENGTH..CENTRAL_LENGTH + name_length];
    let extra = &bytes[CENTRAL_LENGTH + name_length..CENTRAL_LENGTH + name_length + extra_length];
    let shown = String::from_utf8_lossy(raw_name).into_owned();
    let bad = |problem: &str| PackageError::Entry { name: shown.clone(), problem: problem.to_owned() };

    let flags = number::<2>(bytes, 8);
    if flags & 0x2041 != 0 {
        return Err(bad("it is encrypted"));
    }
    if ![0, 8].contains(&number::<2>(bytes, 10)) {
        return Err(bad("it is compressed by a method other than deflate"));
    }
    let name = match std::str::from_utf8(raw_name) {
        Ok(name) if name.is_ascii() || flags & UTF_8 != 0 => name.to_owned(),
        _ => return Err(bad("its name is not marked as UTF-8; pack it with a tool that writes UTF-8 names")),
    };
    check_extra(raw_name, extra).map_err(bad)?;
    if comment_length > 0 {
        // No tool that packs files writes one, and another directory could hide in it.
        return Err(bad("it has a comment of its own"));
    }
    let (compressed_size, size) = (number::<4>(bytes, 20), number::<4>(bytes, 24));
    let local_header = number::<4>(bytes, 42);
    if [compressed_size, size, local_header].contains(&0xffff_ffff) {
        return Err(bad("it uses zip64; a package is small enough without"));
    }
    let is_folder = name.ends_with('/');
    check_kind(number::<4>(bytes, 38), is_folder, size).map_err(bad)?;
    let is_deflated = number::<2>(bytes, 10) == 8;
    if is_folder && (compressed_size > 2 || number::<4>(bytes, 16) != 0) {
        return Err(bad("it is a folder and holds data"));
    }
    if !is_deflated && compressed_size != size {
        return Err(bad("its sizes contradict each other"));
    }
    if !is_deflated && flags & DESCRIPTOR != 0 && size > 0 {
        return Err(bad("it is stored with its size behind it, so that a reader can't tell where it ends"));
    }
    let crc32 = u32::try_from(number::<4>(bytes, 16)).unwrap_or_default();
    Ok((Entry { name, is_folder, compressed_size, size, crc32, is_deflated, local_header, flags }, length))
}

/// Refuses extra fields that name another file: a second name, or the target of a link.
fn check_extra(name: &[u8], mut extra: &[u8]) -> Result<(), &'static str> {
    while !extra.is_empty() {
        let (id, length) = (number::<2>(extra, 0), number::<2>(extra, 2) as usize);
        let Some(content) = extra.get(4..4 + length) else { return Err("its extra field is cut off") };
        match id {
            0x0001 => return Err("it uses zip64; a package is small enough without"),
            0x7075 if content.get(5..) != Some(name) => return Err("it has a second name in its extra field"),
            0x000d if length > 12 => return Err("it is a link or a device"),
            0x756e if length > 14 => return Err("it is a link or a device"),
            _ => extra = &extra[4 + length..],
        }
    }
    Ok(())
}

/// Refuses everything but plain files and folders.
fn check_kind(attributes: u64, is_folder: bool, size: u64) -> Result<(), &'static str> {
    let (kind, marked_as_folder) = ((attributes >> 16) & 0o170_000, attributes & 0x10 != 0);
    match kind {
        0o120_000 => Err("it is a symbolic link"),
        0 | 0o100_000 | 0o040_000 if !is_folder && (kind == 0o040_000 || marked_as_folder) => {
            Err("it is marked as a folder and named as a file")
        }
        0 | 0o040_000 if is_folder && size == 0 => Ok(()),
        0 | 0o100_000 if !is_folder => Ok(()),
        0 | 0o040_000 | 0o100_000 => Err("it is named as a folder and is none"),
        _ => Err("it is a device, a pipe or a socket"),
    }
}

/// Checks that the entries lie one behind the other and fill the file up to the central directory.
fn check_coverage(file: &mut File, entries: &[Entry], directory_start: u64) -> Result<(), PackageError> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| entry.local_header);
    let mut expected = 0;
    for (index, entry) in sorted.iter().enumerate() {
        let bad = |problem: &str| PackageError::Entry { name: entry.name.clone(), problem: problem.to_owned() };
        if entry.local_header != expected {
            return Err(bad("it overlaps another entry, or there is data before it that no entry has"));
        }
        let next = sorted.get(index + 1).map_or(directory_start, |next| next.local_header);
        if entry.local_header + LOCAL_LENGTH > directory_start {
            return Err(bad("it lies outside the archive"));
        }
        let header = read_at(file, entry.local_header, LOCAL_LENGTH as usize)?;
        if number::<4>(&header, 0) != u64::from(LOCAL_SIGNATURE) {
            return Err(bad("it has no header"));
        }
        let (name, extra) = (number::<2>(&header, 26), number::<2>(&header, 28));
        if (number::<2>(&header, 6) ^ entry.flags) & (DESCRIPTOR | UTF_8) != 0 {
            return Err(bad("its two headers contradict each other"));
        }
        let extra_start = entry.local_header + LOCAL_LENGTH + name;
        if extra_start + extra > directory_start {
            return Err(bad("it lies outside the archive"));
        }
        check_extra(entry.name.as_bytes(), &read_at(file, extra_start, extra as usize)?).map_err(bad)?;
        let data = extra_start + extra;
        let end = data + entry.compressed_size;
        let gap = next.checked_sub(end).ok_or_else(|| bad("it overlaps another entry"))?;
        let covered = match (entry.flags & DESCRIPTOR != 0, gap) {
            (false, 0) => true,
            (true, 12 | 16) => {
                let descriptor = read_at(file, end, gap as usize)?;
                let fields = &descriptor[descriptor.len() - 12..];
                let told = [u64::from(entry.crc32), entry.compressed_size, entry.size];
                (gap == 12 || number::<4>(&descriptor, 0) == u64::from(DESCRIPTOR_SIGNATURE))
                    && [0, 4, 8].map(|at| number::<4>(fields, at)) == told
            }
            _ => false,
        };
        if !covered {
            return Err(bad("there is data behind it that no entry has"));
        }
        expected = next;
    }
    if expected != directory_start {
        return Err(refuse("there is data that no entry has"));
    }
    Ok(())
}
