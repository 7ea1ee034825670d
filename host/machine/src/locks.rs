//! Locks that hold across processes.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::private;

/// Held as long as it lives; the system takes it back when the process ends, however it ends.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// The lock of something that two texts name, among what a kind has. `None` if somebody else still holds it after a time.
    ///
    /// Each kind has 65,536 of them, so that files stay few: two things that share one take turns.
    pub fn of(folder: &Path, kind: &str, key: [&str; 2], patience: Duration) -> io::Result<Option<Self>> {
        // Every build of every process has to come to the same number.
        let mut digest = Sha256::new();
        digest.update((key[0].len() as u64).to_be_bytes());
        digest.update(key[0]);
        digest.update(key[1]);
        let digest = digest.finalize();
        Self::named(folder, &format!("{kind}-{:02x}{:02x}", digest[0], digest[1]), patience)
    }

    /// A lock by its name. `None` if somebody else still holds it after a time.
    pub fn named(folder: &Path, name: &str, patience: Duration) -> io::Result<Option<Self>> {
        let path = folder.join(name);
        let file = match private::file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private::folder(folder)?;
                private::file(&path)?
            }
            opened => opened?,
        };
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
                Err(TryLockError::WouldBlock) => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(25));
                }
            }
        }
    }
}
