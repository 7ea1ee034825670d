//! Which names a package's files may have: those that mean the same file to every reader on every system.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use super::{PackageError, archive::Entry};

const DEEPEST: usize = 32;
const LONGEST: usize = 1024;

/// Checks every name on its own and against all others, before anything is written.
pub(super) fn check(entries: &[Entry]) -> Result<(), PackageError> {
    // What a name is to a file system that knows neither case nor normalisation → as it is spelled, and if it is a folder.
    let mut seen: HashMap<String, (&str, bool, bool)> = HashMap::new();
    for entry in entries {
        let bad = |problem: String| PackageError::Entry { name: entry.name.clone(), problem };
        let path = entry.name.strip_suffix('/').unwrap_or(&entry.name);
        check_path(path).map_err(bad)?;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let (part, is_entry) = (&path[..end], end == path.len());
            let is_folder = !is_entry || entry.is_folder;
            match seen.get_mut(&folded(part)) {
                None => {
                    seen.insert(folded(part), (part, is_folder, is_entry));
                }
                Some((other, _, _)) if *other != part => {
                    return Err(bad(format!("{part:?} and {other:?} are one name where case or accents don't count")));
                }
                Some((_, other_is_folder, _)) if *other_is_folder != is_folder => {
                    return Err(bad(format!("{part:?} is a file and a folder")));
                }
                Some((_, _, listed)) if *listed && is_entry => {
                    return Err(bad("there are two entries of this name".to_owned()));
                }
                Some((_, _, listed)) => *listed |= is_entry,
            }
        }
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
