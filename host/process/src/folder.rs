//! The folders of workers: each has one, and goes on to hold whatever its plugin puts there.
//!
//! A plugin may leave anything in its folder, and as much as the disk takes. So a folder that is done with is only moved aside, by
//! one rename. A thread that nobody waits for deletes what was moved aside, a little at a time, and under no lock.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use uuid::Uuid;

use billhook_machine::private;

/// What folders in use are called, ones that are being made, and the one that holds what was moved aside.
const WORKER: &str = "worker-";
const BEGUN: &str = "begun-";
const ASIDE: &str = "aside";

/// So many entries are deleted before others get their turn.
const AT_ONCE: usize = 500;
/// How long others have their turn.
const PAUSE: Duration = Duration::from_millis(2);
/// A folder that was begun so long ago is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// A folder of a worker's own. Its lock tells that it is in use, also after this process was killed.
#[derive(Debug)]
pub struct OwnFolder {
    path: PathBuf,
    _lock: File,
}

impl OwnFolder {
    /// Makes a folder within another, which is made if it isn't there.
    ///
    /// # Errors
    /// It can't be made, or it can't be locked.
    pub fn make(folders: &Path) -> io::Result<Self> {
        private::folder(folders)?;
        // Locked before it has its name: one of that name which isn't locked is of a host that is gone.
        let id = Uuid::now_v7();
        let begun = folders.join(format!("{BEGUN}{id}"));
        private::new_folder(&begun)?;
        let lock = File::open(&begun)?;
        lock.lock()?;
        let path = folders.join(format!("{WORKER}{id}"));
        fs::rename(&begun, &path)?;
        Ok(OwnFolder { path, _lock: lock })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder up: moves it aside, to be deleted later. What can't be moved now is at a later start.
    pub fn give_up(&self) {
        let Some(folders) = self.path.parent() else { return };
        match move_aside(folders, &self.path) {
            Ok(()) => tidy(folders),
            Err(error) => {
                tracing::warn!(folder = %self.path.display(), "a worker's folder can't be moved aside: {error}");
            }
        }
    }
}

fn move_aside(folders: &Path, folder: &Path) -> io::Result<()> {
    let aside = folders.join(ASIDE);
    let to = aside.join(Uuid::now_v7().to_string());
    loop {
        private::folder(&aside)?;
        match fs::rename(folder, &to) {
            // Whoever tidies took the empty folder away just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.exists() => {}
            moved => return moved,
        }
    }
}

/// The folders that a thread of this process tidies now, and whether it is to look once more.
static TIDIED: Mutex<BTreeMap<PathBuf, bool>> = Mutex::new(BTreeMap::new());

/// Begins to delete what was moved aside, and folders of workers whose host is gone. Nobody waits for it.
pub fn tidy(folders: &Path) {
    if !folders.exists() {
        return;
    }
    let mut tidied = TIDIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(again) = tidied.get_mut(folders) {
        *again = true;
        return;
    }
    tidied.insert(folders.to_owned(), false);
    let own = folders.to_owned();
    let run = move || {
        loop {
            while let Ok(true) = tidy_some(&own) {
                thread::sleep(PAUSE);
            }
            let mut tidied = TIDIED.lock().unwrap_or_else(PoisonError::into_inner);
            match tidied.get_mut(&own) {
                Some(again) if *again => *again = false,
                _ => {
                    tidied.remove(&own);
                    return;
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("billhook-tidy".to_owned()).spawn(run) {
        tracing::warn!("what workers left is deleted later: no thread can be started: {error}");
        tidied.remove(folders);
    }
}

/// Deletes some of what is left. Returns whether there is more.
fn tidy_some(folders: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folders)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_str().unwrap_or_default();
        let is_old = || {
            let made = entry.metadata().and_then(|metadata| metadata.modified());
            made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > FORGOTTEN))
        };
        // Its plugin may have closed it.
        let is_open = || fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).is_ok();
        let is_unlocked = || is_open() && File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok());
        if (name.starts_with(WORKER) && is_unlocked()) || (name.starts_with(BEGUN) && is_old()) {
            // Somebody else may do the same.
            let _ = move_aside(folders, &path);
        }
    }
    let aside = folders.join(ASIDE);
    let mut budget = AT_ONCE;
    for entry in fs::read_dir(&aside).into_iter().flatten().flatten() {
        match remove_some(&entry.path(), &mut budget) {
            Ok(()) if budget == 0 => return Ok(true),
            Ok(()) => {}
            // Another process may delete it, too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(folder = %entry.path().display(), "it can't be deleted: {error}"),
        }
    }
    // If nothing is left in it.
    let _ = fs::remove_dir(&aside);
    Ok(false)
}

/// Deletes a folder with what is in it, as far as the budget goes: an entry costs one.
///
/// Folders within it come up into it, each once, under names that nobody else can have chosen. So no path grows long, and neither
/// the stack nor the time of an entry depends on how deep or how many they are.
fn remove_some(folder: &Path, budget: &mut usize) -> io::Result<()> {
    let token = Uuid::now_v7();
    let mut moved = 0_u64;
    loop {
        let batch = entries(folder, *budget)?;
        if batch.is_empty() {
            return if *budget == 0 { Ok(()) } else { fs::remove_dir(folder) };
        }
        for (path, is_folder) in batch {
            if *budget == 0 {
                return Ok(());
            }
            if !is_folder {
                *budget -= 1;
                fs::remove_file(&path)?;
                continue;
            }
            for (inner, is_folder) in entries(&path, *budget)? {
                *budget -= 1;
                if is_folder {
                    // Its owner may have closed it, and then it can't be moved.
                    fs::set_permissions(&inner, fs::Permissions::from_mode(0o700))?;
                    fs::rename(&inner, folder.join(format!("{token}-{moved}")))?;
                    moved += 1;
                } else {
                    fs::remove_file(&inner)?;
                }
            }
            if *budget > 0 {
                *budget -= 1;
                fs::remove_dir(&path)?;
            }
        }
    }
}

/// Some of what is in a folder, which its owner may have closed; and whether each is a folder itself, and no link to one.
fn entries(folder: &Path, most: usize) -> io::Result<Vec<(PathBuf, bool)>> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    let with_type = |entry: fs::DirEntry| entry.file_type().map(|kind| (entry.path(), kind.is_dir()));
    fs::read_dir(folder)?.take(most).map(|entry| entry.and_then(with_type)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_deleted_however_deep_and_closed_it_is() {
        let scratch = tempfile::tempdir().expect("a folder");
        let root = scratch.path().join("root");
        fs::create_dir(&root).expect("made");
        let outside = scratch.path().join("outside");
        fs::write(&outside, "kept").expect("written");
        // Deeper than a path can be long.
        let mut inner = root.clone();
        for index in 0..3000 {
            if index % 100 == 99 {
                // One deep tree at a time, put below the next.
                let next = scratch.path().join(format!("next-{index}"));
                fs::create_dir(&next).expect("made");
                fs::rename(&root, next.join("below")).expect("moved");
                fs::rename(&next, &root).expect("moved");
                inner = root.clone();
            }
            inner = inner.join(format!("d{index}"));
            fs::create_dir(&inner).expect("made");
        }
        std::os::unix::fs::symlink(&outside, root.join("link")).expect("linked");
        fs::create_dir(root.join("closed")).expect("made");
        fs::write(root.join("closed/file"), "x").expect("written");
        fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o000)).expect("closed");
        removed(&root);
        assert_eq!(fs::read_to_string(outside).expect("there"), "kept", "a link is deleted, not what it leads to");
    }

    /// Deletes a folder, and returns how many entries that cost.
    fn removed(folder: &Path) -> usize {
        let mut cost = 0;
        while folder.exists() {
            let mut budget = AT_ONCE;
            remove_some(folder, &mut budget).expect("it can be deleted");
            cost += AT_ONCE - budget;
        }
        cost
    }

    #[test]
    fn what_is_deleted_costs_no_more_than_there_is_whatever_its_names_are() {
        let scratch = tempfile::tempdir().expect("a folder");
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("a")).expect("made");
        for number in 0..2_000 {
            fs::create_dir(root.join(format!("a/{number}"))).expect("made");
            // Names that a host might choose, of files and of links that lead nowhere.
            fs::write(root.join(format!("moved-{number}")), "x").expect("written");
            std::os::unix::fs::symlink("nowhere", root.join(format!("{number}"))).expect("linked");
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::RUSR).expect("made");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("made");
        let entries = 1 + 3 * 2_000 + 2;
        let cost = removed(&root);
        // A folder within another costs twice: it comes up, and goes.
        assert!((entries..=entries + 2_000).contains(&cost), "{cost} for {entries}");
    }

    #[test]
    fn a_folder_in_use_stays_and_one_of_a_host_that_is_gone_is_moved_aside() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folders = scratch.path().join("workers");
        let used = OwnFolder::make(&folders).expect("made");
        let left = OwnFolder::make(&folders).expect("made").path().to_owned();
        let begun = folders.join(format!("{BEGUN}x"));
        fs::create_dir(&begun).expect("made");
        while tidy_some(&folders).expect("tidied") {}
        assert!(used.path().exists() && begun.exists() && !left.exists());
        assert!(!folders.join(ASIDE).exists(), "what was moved aside is deleted");
    }
}
