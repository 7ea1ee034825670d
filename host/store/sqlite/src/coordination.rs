//! What hosts that share a home agree on, by locks on files of its folder `locks`: a process holds them as long as it is there,
//! whether it runs or stands still.
//!
//! `delivers-HOLDER` is locked as long as a host delivers: by it others tell that it is no more. `sending-HOLDER-PID-N` is locked
//! while a delivery is just being begun, whose number is in it. What two texts name has one of 65,536 files of its kind.
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
    time::Duration,
};

use billhook_machine::{locks::Lock, private};
use billhook_store::{Coordination, Guard, Kept, LockName, Membership, Result, StoreError};
use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::{Flock, FlockType, fcntl_getlk},
};

/// Locks in a folder.
pub(crate) struct FileLocks {
    folder: PathBuf,
}

/// What names of the files begin with by which hosts are told to be alive.
const ALIVE: &str = "delivers-";

fn failed(error: io::Error) -> StoreError {
    StoreError::failed(Kept::Coordination, error).with_message("the home's locks can't be used")
}

impl FileLocks {
    pub(crate) fn new(folder: PathBuf) -> Self {
        FileLocks { folder }
    }

    fn alive(&self, holder: &str) -> PathBuf {
        self.folder.join(format!("{ALIVE}{holder}"))
    }
}

impl Coordination for FileLocks {
    fn lock(&self, name: &LockName<'_>, patience: Duration) -> Result<Option<Guard>> {
        let lock = match *name {
            LockName::Usage { order, product } => Lock::of(&self.folder, "usage", [order, product], patience),
            LockName::Resource { addon, key } => Lock::of(&self.folder, "resource", [addon, key], patience),
            // Of the usage specifications there is one.
            _ => Lock::named(&self.folder, "usage-specifications", patience),
        };
        Ok(lock.map_err(failed)?.map(|lock| Box::new(lock) as Guard))
    }

    fn join(&self, holder: &str) -> Result<Box<dyn Membership>> {
        let join = || -> io::Result<Member> {
            private::folder(&self.folder)?;
            // Locked before it has its name: a file of that name that is not locked is one of a host that is no more.
            let (unnamed, path) = (self.folder.join(format!("begins-{holder}")), self.alive(holder));
            let file = private::new_file(&unnamed)?;
            file.lock()?;
            fs::rename(&unnamed, &path)?;
            let announcements = Announcements::new(&self.folder, holder);
            Ok(Member { path, _file: file, announcements })
        };
        Ok(Box::new(join().map_err(failed)?))
    }

    fn is_gone(&self, holder: &str) -> bool {
        if holder.contains(['/', '.']) {
            return false;
        }
        match File::options().read(true).write(true).open(self.alive(holder)) {
            // Locked as long as its host lives.
            Ok(file) => file.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn forget(&self, holder: &str) {
        let _ = fs::remove_file(self.alive(holder));
        for path in files_of(&self.folder, holder) {
            let _ = fs::remove_file(path);
        }
    }

    fn members(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let holder = |name: &str| name.strip_prefix(ALIVE).map(str::to_owned);
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str().and_then(holder)).collect())
    }

    fn announced_by(&self, holder: &str) -> HashSet<i64> {
        announced_by(&self.folder, holder)
    }
}

/// A host that delivers.
struct Member {
    path: PathBuf,
    /// Locked as long as it does.
    _file: File,
    announcements: Arc<Announcements>,
}

impl Membership for Member {
    fn announce(&self, number: i64) -> Result<Guard> {
        self.announcements.announce(number).map_err(failed)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Others take at once what it may still hold.
        let _ = fs::remove_file(&self.path);
    }
}

/// What the names of the files begin with, among the other locks.
const SENDING: &str = "sending-";

/// The announcements of a host: a file for each that it makes at the same time.
struct Announcements {
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
    fn new(locks: &Path, holder: &str) -> Arc<Self> {
        let prefix = own_prefix(holder);
        Arc::new(Announcements { folder: locks.to_owned(), prefix, free: Mutex::default(), made: Mutex::default() })
    }

    /// Announces a delivery, by its number, until what is returned is dropped.
    fn announce(self: &Arc<Self>, number: i64) -> io::Result<Box<dyn Any>> {
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
fn announced_by(locks: &Path, holder: &str) -> HashSet<i64> {
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
