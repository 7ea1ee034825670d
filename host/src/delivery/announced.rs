//! What is just being begun, told to other hosts by locks: a process holds them as long as it is there, whether it runs or stands
//! still.
//!
//! A host looks at its lease and then sends. Where it stands still between the two, it would send when others have told what comes
//! later. So it announces the delivery before it looks, and whoever takes over what it held leaves alone what is announced.

use std::{
    any::Any,
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::{Flock, FlockType, fcntl_getlk},
};

use crate::private;

/// What the names of the files begin with, among the other locks.
const SENDING: &str = "sending-";

/// The announcements of a host: a file for each that it makes at the same time.
pub(super) struct Announcements {
    folder: PathBuf,
    /// What the names of its files begin with.
    prefix: String,
    free: Mutex<Vec<File>>,
    made: Mutex<Vec<PathBuf>>,
}

/// An announcement, until it is dropped.
struct Announced {
    all: Arc<Announcements>,
    file: Option<File>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(file) = self.file.take()
            && fcntl_lock(&file, FlockOperation::Unlock).is_ok()
        {
            self.all.free.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        }
    }
}

impl Announcements {
    pub(super) fn new(locks: &Path, holder: &str) -> Arc<Self> {
        let prefix = own_prefix(holder);
        Arc::new(Announcements { folder: locks.to_owned(), prefix, free: Mutex::default(), made: Mutex::default() })
    }

    /// Announces a delivery, by its number, until what is returned is dropped.
    pub(super) fn announce(self: &Arc<Self>, number: i64) -> io::Result<Box<dyn Any>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let file = match free {
            Some(file) => file,
            None => self.make()?,
        };
        file.write_all_at(&number.to_be_bytes(), 0)?;
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(Announced { all: Arc::clone(self), file: Some(file) }))
    }

    fn make(&self) -> io::Result<File> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        private::folder(&self.folder)?;
        let path = self.folder.join(format!("{}{}", self.prefix, made.len()));
        let file = private::new_file(&path)?;
        made.push(path);
        Ok(file)
    }
}

impl Drop for Announcements {
    fn drop(&mut self) {
        for path in self.made.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = fs::remove_file(path);
        }
    }
}

/// What the names of a host's files in this process begin with.
fn own_prefix(holder: &str) -> String {
    format!("{SENDING}{holder}-{}-", std::process::id())
}

/// The files of a host that are there, but for those of hosts in this process: closing one would give up its lock, and a host of this
/// process doesn't stand still apart from it.
fn files_of(locks: &Path, holder: &str) -> Vec<PathBuf> {
    let own = own_prefix(holder);
    let prefix = format!("{SENDING}{holder}-");
    let is_its = |name: &str| name.starts_with(&prefix) && !name.starts_with(&own);
    let entries = fs::read_dir(locks).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_its)).map(|entry| entry.path()).collect()
}

/// The numbers of the deliveries that another host has announced.
pub(super) fn announced_by(locks: &Path, holder: &str) -> HashSet<i64> {
    let announced = |path: PathBuf| {
        let file = File::options().read(true).write(true).open(path).ok()?;
        // Asked and not locked: a host doesn't wait for others to announce what it sends.
        fcntl_getlk(&file, &Flock::from(FlockType::WriteLock)).ok()??;
        let mut number = [0; 8];
        file.read_exact_at(&mut number, 0).ok()?;
        Some(i64::from_be_bytes(number))
    };
    files_of(locks, holder).into_iter().filter_map(announced).collect()
}

/// Deletes the files of a host that is no more.
pub(super) fn forget(locks: &Path, holder: &str) {
    for path in files_of(locks, holder) {
        let _ = fs::remove_file(path);
    }
}
