//! The folders of workers: each has one, and goes on to hold whatever its plugin puts there.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Makes a folder for a worker. The lock tells that it is in use, also after this process was killed.
pub(super) fn make(folders: &Path) -> io::Result<(PathBuf, File)> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folders)?;
    // Nobody clears it away before it is locked.
    let all = File::open(folders)?;
    all.lock()?;
    let folder = tempfile::Builder::new().prefix("worker-").tempdir_in(folders)?.keep();
    let lock = File::open(&folder)?;
    lock.lock()?;
    Ok((folder, lock))
}

/// Deletes the folders of workers whose host is gone.
pub(crate) fn sweep(folders: &Path) {
    let Ok(all) = File::open(folders) else { return };
    if all.lock().is_err() {
        return;
    }
    for entry in fs::read_dir(folders).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_worker = entry.file_name().to_str().is_some_and(|name| name.starts_with("worker-"));
        if is_worker && File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok()) {
            remove(&path);
        }
    }
}

/// Deletes a folder with all that is in it, however deep a plugin made it: neither the stack nor open files grow with the
/// depth. What can't be deleted now is at a later start.
pub(super) fn remove(folder: &Path) {
    if let Err(error) = try_remove(folder) {
        tracing::warn!(folder = %folder.display(), "a worker's folder can't be deleted: {error}");
    }
}

fn try_remove(folder: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for entry in entries(folder)? {
            is_empty = false;
            if !is_folder(&entry) {
                fs::remove_file(&entry)?;
                continue;
            }
            // What is in it comes up beside it, so that no path grows long.
            for inner in entries(&entry)? {
                if is_folder(&inner) {
                    fs::set_permissions(&inner, fs::Permissions::from_mode(0o700))?;
                    let free =
                        (moved..).map(|number| folder.join(format!("moved-{number}"))).find(|path| !path.exists());
                    moved += 1;
                    fs::rename(&inner, free.unwrap_or_default())?;
                } else {
                    fs::remove_file(&inner)?;
                }
            }
            fs::remove_dir(&entry)?;
        }
        if is_empty {
            return fs::remove_dir(folder);
        }
    }
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// What is in a folder, which its owner may have closed.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
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
        remove(&root);
        assert!(!root.exists());
        assert_eq!(fs::read_to_string(outside).expect("there"), "kept", "a link is deleted, not what it leads to");
    }
}
