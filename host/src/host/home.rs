//! The home: the folder that a host's processes share.
//!
//! `registry.db` (SQLite), `packages/DIGEST/` (unpacked packages, each under the digest of its content), `staging/`
//! (installs under way), `lock` (held by whoever changes what is installed), `in-use` (held by whoever has the registry
//! open), `locks/` (held by whoever accounts usage).

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::HostError;
use crate::registry::Registry;

pub(super) struct Home {
    path: PathBuf,
}

/// The file of the registry.
pub(super) const REGISTRY: &str = "registry.db";
/// What names in `staging/` begin with.
pub(super) const STAGED: &str = "change-";

/// The right to change what is installed; whoever holds it is the only one, in all processes.
///
/// The lock lasts as long as the file is open; the system takes it back when the process ends, however it ends.
pub(super) struct ChangeLock {
    _file: File,
}

impl Home {
    pub(super) fn open(path: &Path) -> Result<Self, HostError> {
        let wrong = |source| HostError::Home { path: path.to_owned(), source };
        create_private(path).map_err(wrong)?;
        check_content(path).map_err(wrong)?;
        // Absolute, because libraries are opened by absolute paths only, and the working folder may change.
        let path = path.canonicalize().map_err(wrong)?;
        if path.to_str().is_none() {
            return Err(HostError::Home { path, source: io::Error::other("its path is not UTF-8") });
        }
        let home = Home { path };
        for folder in [home.path.clone(), home.packages(), home.staging()] {
            let wrong = |source| HostError::Home { path: folder.clone(), source };
            create_private(&folder).and_then(|()| check_private(&folder)).map_err(wrong)?;
        }
        // Settings and state may be secrets. SQLite gives its other files the mode of this one.
        private(OpenOptions::new().create(true).append(true))
            .open(home.path.join(REGISTRY))
            .map_err(wrong_at(&home.path))?;
        Ok(home)
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
        private(File::options().create(true).truncate(false).read(true).write(true)).open(self.path.join("lock"))
    }

    /// Waits until nobody else changes what is installed.
    pub(super) fn lock(&self) -> Result<ChangeLock, HostError> {
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
    pub(super) fn sweep(&self, registry: &Registry) -> Result<(), HostError> {
        let wrong = |source| HostError::Home { path: self.path.clone(), source };
        let file = self.lock_file().map_err(wrong)?;
        if file.try_lock().is_err() {
            return Ok(());
        }
        for entry in fs::read_dir(self.staging()).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(STAGED)) {
                delete(&entry.path());
            }
        }
        self.delete_unused_packages(registry, &ChangeLock { _file: file })
    }

    /// Deletes the folders of packages that the registry doesn't have. What isn't named as a package is not ours.
    pub(super) fn delete_unused_packages(&self, registry: &Registry, _lock: &ChangeLock) -> Result<(), HostError> {
        let used: HashSet<String> = registry.digests()?.into_iter().collect();
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
        let is_ours = |name: &str| if folder == "packages" { is_package(name) } else { name.starts_with(STAGED) };
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

/// Refuses a folder that others can write to: libraries are loaded from it.
#[cfg(unix)]
fn check_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    if metadata.mode() & 0o022 != 0 {
        let problem = "others than its user can write to it, and libraries are loaded from it; run chmod go-w on it";
        return Err(io::Error::other(problem));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        tracing::warn!(path = %path.display(), "the home belongs to another user, who can change what is loaded from it");
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_private(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Files that only their user can read.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn wrong_at(path: &Path) -> impl FnOnce(io::Error) -> HostError {
    move |source| HostError::Home { path: path.to_owned(), source }
}

/// Creates a folder that only its user can enter.
fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    // Folders can't be opened as files on Windows, where the file system journals names itself.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
