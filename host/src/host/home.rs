//! The home: the folder that a host's processes share.
//!
//! `registry.db` (SQLite), `packages/DIGEST/` (unpacked packages, each under the digest of its content; and beside them, what is
//! being unpacked), `staging/` (what else a change needs for a while), `lock` (held by whoever changes what is installed), `in-use` (held by whoever has the registry
//! open), `locks/` (held by whoever accounts usage).

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::HostError;
use super::access;
use billhook_machine::private;
use billhook_store::Plugins;
pub(super) use billhook_store_sqlite::REGISTRY_FILE as REGISTRY;

pub(super) struct Home {
    path: PathBuf,
    is_read_only: bool,
}

/// What names begin with in `staging/`, and in `packages/` of what isn't a package yet.
pub(super) const STAGED: &str = "change-";

/// The right to change what is installed; whoever holds it is the only one, in all processes.
///
/// The lock lasts as long as the file is open; the system takes it back when the process ends, however it ends.
pub(super) struct ChangeLock {
    _file: File,
}

impl Home {
    /// Opens a home, and makes it if there is none. Its group may write to it where the operator said so.
    pub(super) fn open(path: &Path, group_may_write: bool) -> Result<Self, HostError> {
        let wrong = |source| HostError::Home { path: path.to_owned(), source };
        private::folder(path).map_err(wrong)?;
        check_content(path).map_err(wrong)?;
        // Absolute, because libraries are opened by absolute paths only, and the working folder may change.
        let path = path.canonicalize().map_err(wrong)?;
        if path.to_str().is_none() {
            return Err(HostError::Home { path, source: io::Error::other("its path is not UTF-8") });
        }
        let is_read_only = private::is_read_only(&path.join(REGISTRY));
        let home = Home { path, is_read_only };
        check_access(&home.path, group_may_write)?;
        if is_read_only {
            tracing::info!(path = %home.path.display(), "the home is read-only");
            return Ok(home);
        }
        for folder in [home.packages(), home.staging()] {
            private::folder(&folder).map_err(|source| HostError::Home { path: folder, source })?;
        }
        // Settings and state may be secrets. SQLite gives its other files the mode of this one.
        let registry = private::ensure_file(&home.path.join(REGISTRY));
        registry.map_err(|source| HostError::Home { path: home.path.clone(), source })?;
        Ok(home)
    }

    /// Whether nothing in it can be changed: it lies on a disk that is read-only, or is another user's.
    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn packages(&self) -> PathBuf {
        self.path.join("packages")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// The folder of the locks of pull accounting.
    pub(super) fn locks(&self) -> PathBuf {
        self.path.join("locks")
    }

    /// The folder in which workers have theirs.
    pub(super) fn workers(&self) -> PathBuf {
        self.path.join("workers")
    }

    fn lock_file(&self) -> io::Result<File> {
        private::file(&self.path.join("lock"))
    }

    /// Refuses to change anything where nothing can be changed.
    pub(super) fn must_be_writable(&self) -> Result<(), HostError> {
        if self.is_read_only { Err(HostError::ReadOnly { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Waits until nobody else changes what is installed.
    pub(super) fn lock(&self) -> Result<ChangeLock, HostError> {
        self.must_be_writable()?;
        let wrong = |source| HostError::Home { path: self.path.clone(), source };
        let file = self.lock_file().map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!("waiting for another process that changes what is installed");
                file.lock().map_err(wrong)?;
            }
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
        }
        Ok(ChangeLock { _file: file })
    }

    /// Clears away what a change that was cut off left behind. If a change is under way, that is left for later.
    pub(super) fn sweep(&self, plugins: &dyn Plugins) -> Result<(), HostError> {
        let wrong = |source| HostError::Home { path: self.path.clone(), source };
        let file = self.lock_file().map_err(wrong)?;
        if file.try_lock().is_err() {
            return Ok(());
        }
        for folder in [self.staging(), self.packages()] {
            for entry in fs::read_dir(folder).map_err(wrong)? {
                let entry = entry.map_err(wrong)?;
                let is_staged = entry.file_name().to_str().is_some_and(|name| name.starts_with(STAGED));
                if is_staged && !is_held(&entry.path()) {
                    delete(&entry.path());
                }
            }
        }
        self.delete_unused_packages(plugins, &ChangeLock { _file: file })
    }

    /// Deletes the folders of packages that the registry doesn't have. What isn't named as a package is not ours.
    pub(super) fn delete_unused_packages(&self, plugins: &dyn Plugins, _lock: &ChangeLock) -> Result<(), HostError> {
        let used: HashSet<String> = plugins.digests()?.into_iter().collect();
        let wrong = |source| HostError::Home { path: self.packages(), source };
        for entry in fs::read_dir(self.packages()).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if is_package(name) && !used.contains(name) {
                delete(&entry.path());
            }
        }
        Ok(())
    }
}

/// Whether a file is one that somebody writes: a package that is coming in.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    file.metadata().is_ok_and(|metadata| metadata.is_file()) && file.try_lock().is_err()
}

/// Deletes a file or a folder. What can't be deleted now is deleted at a later open.
fn delete(path: &Path) {
    let deleted = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = deleted {
        tracing::warn!(path = %path.display(), "a left-over can't be deleted: {error}");
    }
}

/// Whether a name in `packages/` is one that the host gave.
fn is_package(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses a folder in which the host's own folders are somebody else's: nobody's files are taken for ours. Other files
/// beside them are left alone.
fn check_content(path: &Path) -> io::Result<()> {
    if path.join(REGISTRY).exists() {
        return Ok(());
    }
    for folder in ["packages", "staging"] {
        let is_ours = |name: &str| name.starts_with(STAGED) || (folder == "packages" && is_package(name));
        let entries = match fs::read_dir(path.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            if !name.to_str().is_some_and(is_ours) {
                let name = name.to_string_lossy();
                let problem = format!("it is no home: its folder {folder:?} holds {name:?}; name another folder");
                return Err(io::Error::other(problem));
            }
        }
    }
    Ok(())
}

fn check_access(path: &Path, group_may_write: bool) -> Result<(), HostError> {
    access::check(path, group_may_write).map_err(|(path, open)| match open {
        access::Open::ToOthers(source) => HostError::Home { path, source },
        access::Open::ToGroup(group) => HostError::GroupWritable { path, group },
    })
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
