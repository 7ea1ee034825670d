//! Which names a package's files may have: those that mean the same file to every reader on every system.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use super::{PackageError, PackageFile, archive::Entry, strict_json::MOST_REPORTED};

const DEEPEST: usize = 32;
const LONGEST: usize = 1024;

/// A file or folder that was seen: the number of its folder, and its name as a file system sees it that knows neither case
/// nor normalisation.
type Seen = (usize, String);

/// How it was named, what it is, and whether the zip lists it itself.
struct Known<'a> {
    number: usize,
    spelled: &'a str,
    is_folder: bool,
    is_listed: bool,
}

/// Checks every name on its own and against all others, before anything is written. Answers all that is wrong, up to a
/// bound.
pub(super) fn check(entries: &[Entry]) -> Result<(), Vec<PackageError>> {
    let mut seen: HashMap<Seen, Known<'_>> = HashMap::new();
    let mut errors = Vec::new();
    for entry in entries {
        if let Err(problem) = check_path(entry.path()).and_then(|()| remember(&mut seen, entry)) {
            errors.push(PackageError::Entry { name: entry.name.clone(), problem });
        }
        if errors.len() >= MOST_REPORTED {
            break;
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Adds an entry and its folders to what was seen.
fn remember<'a>(seen: &mut HashMap<Seen, Known<'a>>, entry: &'a Entry) -> Result<(), String> {
    let mut folder = 0;
    let mut parts = entry.path().split('/').peekable();
    while let Some(part) = parts.next() {
        let is_listed = parts.peek().is_none();
        let is_folder = !is_listed || entry.is_folder;
        let number = seen.len() + 1;
        let known =
            seen.entry((folder, folded(part))).or_insert(Known { number, spelled: part, is_folder, is_listed: false });
        if known.spelled != part {
            let other = known.spelled;
            return Err(format!("{part:?} and {other:?} are one name where case or accents don't count"));
        }
        if known.is_folder != is_folder {
            return Err(format!("{part:?} is a file and a folder"));
        }
        if known.is_listed && is_listed {
            return Err("there are two entries of this name".to_owned());
        }
        known.is_listed |= is_listed;
        folder = known.number;
    }
    Ok(())
}

/// Checks one path, without a closing slash.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.len() > LONGEST {
        return Err(format!("its name is longer than {LONGEST} bytes"));
    }
    if path.starts_with('/') {
        return Err("its name is an absolute path".to_owned());
    }
    if let Some(character) = path.chars().find(|character| character.is_control() || ['\\', ':'].contains(character)) {
        return Err(format!("its name holds {character:?}"));
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > DEEPEST {
        return Err(format!("it is more than {DEEPEST} folders deep"));
    }
    for part in parts {
        match part {
            "" => return Err("its name has an empty part".to_owned()),
            "." | ".." => return Err(format!("its name has the part {part:?}, which leads elsewhere")),
            _ if part.len() > 255 => return Err("its name has a part of more than 255 bytes".to_owned()),
            _ if part.ends_with(['.', ' ']) => {
                return Err("a part of its name ends in a dot or a space, which some systems drop".to_owned());
            }
            _ if is_device(part) => return Err(format!("its name has the part {part:?}, a device on some systems")),
            _ => {}
        }
    }
    Ok(())
}

/// What file managers, archivers and version control leave beside what their user packs: folders, and files by their names.
const FOLDERS: [&str; 9] =
    ["__MACOSX", ".Trashes", ".Spotlight-V100", ".fseventsd", "$RECYCLE.BIN", ".git", ".svn", ".hg", "__pycache__"];
const FILES: [&str; 5] = [".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".directory"];

/// Whether a file of a package was left there by a program, and is no part of it.
pub fn is_left_over(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let file = parts.next().unwrap_or_default();
    let is = |name: &str, known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let is_backup =
        file.ends_with('~') || (file.starts_with('.') && (file.ends_with(".swp") || file.ends_with(".swo")));
    is(file, &FILES) || file.starts_with("._") || is_backup || parts.any(|folder| is(folder, &FOLDERS))
}

/// Warns of files that are no part of a package.
pub(super) fn left_over(files: &[PackageFile]) -> Option<String> {
    const NAMED: usize = 3;
    let found: Vec<&str> = files.iter().map(|file| file.path.as_str()).filter(|path| is_left_over(path)).collect();
    let named: Vec<String> = found.iter().take(NAMED).map(|path| super::error::shortened(path)).collect();
    let more = match found.len() {
        0 => return None,
        count if count > NAMED => format!(" and {} more", count - NAMED),
        _ => String::new(),
    };
    let names = named.join(", ");
    Some(format!(
        "left over by other programs, and no part of a plugin: {names}{more}; packplugin leaves such files out"
    ))
}

/// The names of devices on Windows, with any extension.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = |prefix| {
        stem.strip_prefix(prefix).is_some_and(|rest: &str| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit())
    };
    ["con", "prn", "aux", "nul"].contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

/// The name as a file system sees it that folds case and normalises Unicode. Upper-casing first makes `ß` and `ss` equal.
fn folded(name: &str) -> String {
    let compatible: String = name.nfkd().collect();
    compatible.to_uppercase().to_lowercase().nfkd().collect()
}
