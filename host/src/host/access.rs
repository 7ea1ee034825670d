//! Who may write to a home: its user; and its group, where the operator said so. Libraries are loaded from it.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::process::{getegid, geteuid, getgroups};

use billhook_machine::private;

/// Why a home can't be trusted.
pub(super) enum Open {
    /// Everybody can write to something of it, or a group that isn't this process's.
    ToOthers(io::Error),
    /// This process's own group can.
    ToGroup(u32),
}

/// What a home consists of beside its folders; what names begin with.
const FILES: [&str; 5] = ["registry.db", "ledger.db", "executions.db", "lock", "in-use"];
const FOLDERS: [&str; 4] = ["packages", "staging", "locks", "workers"];

const EXECUTE: u32 = 0o011;
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

/// Refuses a home of which others than its user can write to anything.
///
/// With the operator's word, its own group may write to the folder itself, and what the platform opened within it is closed again.
/// So is what others could write to if they could get there.
pub(super) fn check(home: &Path, group_may_write: bool) -> Result<(), (std::path::PathBuf, Open)> {
    let looked = |path: &Path| fs::metadata(path).map_err(|error| (path.to_owned(), Open::ToOthers(error)));
    let whole = looked(home)?;
    if let Some(open) = open_to(&whole)
        && !(group_may_write && matches!(open, Open::ToGroup(_)))
    {
        return Err((home.to_owned(), open));
    }
    // Root may do everything as it is.
    if whole.uid() != geteuid().as_raw() && whole.uid() != 0 {
        tracing::warn!(path = %home.display(), "the home belongs to another user, who can change what is loaded from it");
    }
    let is_reachable = whole.mode() & EXECUTE != 0;
    let entries = fs::read_dir(home).map_err(|error| (home.to_owned(), Open::ToOthers(error)))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !FOLDERS.contains(&name) && !FILES.iter().any(|file| name.starts_with(file)) {
            continue;
        }
        let path = entry.path();
        // Gone again, such as a file of SQLite's.
        let Ok(within) = fs::metadata(&path) else { continue };
        let Some(open) = open_to(&within) else { continue };
        let is_elsewhere = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let is_said = group_may_write && matches!(open, Open::ToGroup(_));
        if !is_said && (is_reachable || is_elsewhere) {
            return Err((path, open));
        }
        tracing::warn!(path = %path.display(), "others than its user could write to it: it is closed again");
        if let Err(error) = private::mend(&path, &within) {
            tracing::warn!(path = %path.display(), "it can't be closed: {error}");
        }
    }
    Ok(())
}

/// Who can write to a file or folder beside its user.
fn open_to(metadata: &Metadata) -> Option<Open> {
    let mode = metadata.mode();
    if mode & OTHERS != 0 {
        let problem = "others than its user can write to it, and libraries are loaded from it; run chmod go-w on it";
        return Some(Open::ToOthers(io::Error::other(problem)));
    }
    if mode & GROUP == 0 {
        return None;
    }
    let group = metadata.gid();
    let own = getgroups().unwrap_or_default();
    if getegid().as_raw() == group || own.iter().any(|own| own.as_raw() == group) {
        return Some(Open::ToGroup(group));
    }
    let problem = format!(
        "others than its user can write to it, its group {group}, which isn't this process's, and libraries are loaded from it; run chmod go-w on it"
    );
    Some(Open::ToOthers(io::Error::other(problem)))
}
