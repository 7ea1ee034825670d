//! A file that was put back beside the log of another: SQLite would mix the two, without a word.
//!
//! Each transaction that writes counts itself. What a log holds goes on from the file beside it, or the log isn't its own.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use rusqlite::{Connection, OptionalExtension as _};

use crate::file::{immutable, log_of};

/// The table of the count, for the formats of a file.
pub(crate) const TABLE: &str = "
CREATE TABLE commits (
    -- The one row: how many transactions wrote into this file. Tells whether a log beside it is its own.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO commits VALUES (1, 0);
";

/// Counts a transaction that writes, as a part of it.
pub(crate) fn count(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE commits SET number = number + 1")?.execute(()).map(drop)
}

/// Whether a log lies beside a file that isn't its own. Asked before the file is opened, and only while nobody else has it open.
pub(crate) fn is_beside(path: &Path) -> io::Result<bool> {
    let log = log_of(path);
    let Some(mut frames) = Frames::open(&log)? else { return Ok(false) };
    let Ok(Some((page, count))) = counted(path) else {
        // It has an older format, or isn't there, or can't be read: then opening it tells.
        return Ok(false);
    };
    let (mut first, mut last, mut lowest): (_, _, Option<u32>) = (None, None, None);
    while let Some(number) = frames.next()? {
        lowest = Some(lowest.map_or(number, |lowest| lowest.min(number)));
        if number == page {
            let Some(count) = number_on(&frames.page) else { return Ok(true) };
            last = Some(count);
            first = first.or(last);
        }
    }
    // A billhook that doesn't count wrote the log, or nothing is in it.
    let (Some(first), Some(last), Some(lowest)) = (first, last, lowest) else { return Ok(false) };
    if count == first - 1 && is_newer(path, &log)? {
        // It is as it was when the log began, and yet it was written later: it was put back, unless it was just being brought up
        // to date from the log, which begins with its lowest page.
        return Ok(!Frames::open(&log)?.is_some_and(|frames| frames.hold(path, lowest).unwrap_or(true)));
    }
    Ok(!(first - 1..=last).contains(&count))
}

/// Whether a file was written after its log.
fn is_newer(path: &Path, log: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.modified()? > fs::metadata(log)?.modified()?)
}

/// Which page of a file holds the count, and the count without its log.
fn counted(path: &Path) -> rusqlite::Result<Option<(u32, i64)>> {
    let connection = immutable(path)?;
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'commits' AND type = 'table'";
    let Some(page) = connection.query_row(root, (), |row| row.get(0)).optional()? else { return Ok(None) };
    let number = connection.query_row("SELECT number FROM commits", (), |row| row.get(0)).optional()?;
    Ok(number.map(|number| (page, number)))
}

/// The count on the page that holds it: a leaf of a table with one record of a null and a number (SQLite's file format, sections
/// 1.6 and 2.1). `None` if it is anything else.
fn number_on(page: &[u8]) -> Option<i64> {
    let cells = u16::from_be_bytes(page.get(3..5)?.try_into().ok()?);
    let cell = usize::from(u16::from_be_bytes(page.get(8..10)?.try_into().ok()?));
    if page.first() != Some(&13) || cells != 1 {
        return None;
    }
    // The payload's length, the row's id, the header's length, and the two types: each fits in a byte.
    let [_, 1, 3, 0, kind, ..] = *page.get(cell..)? else { return None };
    let length = match kind {
        8 | 9 => return Some(i64::from(kind - 8)),
        1..=4 => usize::from(kind),
        5 => 6,
        6 => 8,
        _ => return None,
    };
    let bytes = page.get(cell + 5..cell + 5 + length)?;
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
    Some(bytes.iter().fold(sign, |sum, byte| (sum << 8) | i64::from(*byte)))
}

/// The frames of a log: pages, each with what it belongs to (SQLite's file format, section 4.1).
struct Frames {
    log: io::BufReader<File>,
    salts: [u8; 8],
    /// The last page that was read.
    page: Vec<u8>,
}

impl Frames {
    /// None if there is nothing in it.
    fn open(log: &Path) -> io::Result<Option<Self>> {
        let log = match File::open(log) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (mut log, mut head) = (io::BufReader::new(log), [0; 32]);
        if !filled(&mut log, &mut head)? || head[..3] != [0x37, 0x7f, 0x06] {
            return Ok(None);
        }
        let size = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        if !(512..=65_536).contains(&size) {
            return Ok(None);
        }
        let mut salts = [0; 8];
        salts.copy_from_slice(&head[16..24]);
        Ok(Some(Frames { log, salts, page: vec![0; size as usize] }))
    }

    /// Reads the next page, and answers its number.
    fn next(&mut self) -> io::Result<Option<u32>> {
        let mut head = [0; 24];
        if !filled(&mut self.log, &mut head)? || head[8..16] != self.salts || !filled(&mut self.log, &mut self.page)? {
            return Ok(None);
        }
        Ok(Some(u32::from_be_bytes([head[0], head[1], head[2], head[3]])))
    }

    /// Whether a page of a file is as the log has it, now or earlier.
    fn hold(mut self, path: &Path, number: u32) -> io::Result<bool> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(u64::from(number.saturating_sub(1)) * self.page.len() as u64))?;
        let mut page = vec![0; self.page.len()];
        file.read_exact(&mut page)?;
        while let Some(found) = self.next()? {
            if found == number && self.page == page {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads as many bytes as there is room for; false if there are fewer.
fn filled(log: &mut impl io::Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use billhook_store::Kept;

    use super::*;
    use crate::file::{Durability, FileSpec};

    const SPEC: FileSpec = FileSpec {
        kept: Kept::Ledger,
        name: "the file",
        formats: &["CREATE TABLE kept (x)", TABLE],
        grows_alone: false,
    };

    /// Writes a page more, and counts it.
    fn write(connection: &Connection, text: &str) {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begun");
        connection.execute("INSERT INTO kept VALUES (?1)", [text]).expect("written");
        count(connection).expect("counted");
        connection.execute_batch("COMMIT").expect("committed");
    }

    /// What a killed process would leave of a file at each moment: the file, and its log if there is one.
    fn left(path: &Path) -> (Vec<u8>, Option<Vec<u8>>) {
        (fs::read(path).expect("readable"), fs::read(log_of(path)).ok())
    }

    #[test]
    fn a_file_goes_with_its_own_log_at_any_moment_and_with_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let connection = SPEC.open(&path, Durability::Process).expect("made").connection;
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("done");
        // So many that the log is begun anew twice. A number takes one byte, and later two.
        let mut moments = Vec::new();
        for round in 0..3 {
            for step in 0..60 {
                write(&connection, &format!("{round} {step}"));
                if step % 20 == 7 {
                    moments.push(left(&path));
                }
            }
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("done");
        }
        drop(connection);
        let copy = folder.path().join("copy.db");
        let placed = |file: &[u8], log: &Option<Vec<u8>>| {
            fs::write(&copy, file).expect("written");
            let log = log.as_deref().unwrap_or_default();
            fs::write(log_of(&copy), log).expect("written");
            is_beside(&copy).expect("read")
        };
        for (at, (file, log)) in moments.iter().enumerate() {
            for (other, (_, others_log)) in moments.iter().enumerate() {
                let is_foreign = placed(file, others_log);
                // Three moments were taken of each round, in which the file is as it was.
                assert_eq!(is_foreign, at / 3 != other / 3, "the file of {at} beside the log of {other}");
            }
            assert!(!placed(file, &Some(Vec::new())) && !placed(file, &log.clone().map(|log| log[..40].to_vec())));
        }
    }

    #[test]
    fn a_file_that_was_just_brought_up_to_date_goes_with_its_log_and_one_that_was_put_back_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let connection = SPEC.open(&path, Durability::Process).expect("made").connection;
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("done");
        let backup = fs::read(&path).expect("readable");
        for step in 0..500 {
            write(&connection, &format!("{step} {}", "x".repeat(500)));
        }
        let (_, log) = left(&path);
        connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("done");
        let (whole, _) = left(&path);
        drop(connection);
        let log = log.expect("a log");
        fs::write(log_of(&path), &log).expect("written");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, &backup).expect("put back");
        assert!(is_beside(&path).expect("read"), "it is as the log began with it, and newer");
        // Killed after so many pages.
        for pages in [1, 2, 3, 40] {
            let end = pages * 4096;
            let part = [&whole[..end], backup.get(end..).unwrap_or_default()].concat();
            fs::write(&path, part).expect("written");
            assert!(!is_beside(&path).expect("read"), "{pages} pages");
        }
    }

    #[test]
    fn what_is_no_log_or_no_file_of_ours_is_left_to_whoever_opens_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        for bytes in [&b""[..], b"x", &[0x37, 0x7f, 0x06, 0x82], &[0xff; 100]] {
            fs::write(log_of(&path), bytes).expect("written");
            assert!(!is_beside(&path).expect("read"), "{bytes:?} without a file");
            fs::write(&path, b"no database").expect("written");
            assert!(!is_beside(&path).expect("read"), "{bytes:?}");
        }
        for page in
            [&b""[..], &[13], &[13, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff], &[13, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0, 1, 3, 0, 6]]
        {
            assert_eq!(number_on(page), None, "{page:?}");
        }
    }
}
