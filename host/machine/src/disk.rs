//! Trouble of the disk, told by the numbers of errors and never by their texts: it is nobody's fault who asks, and is told in one
//! way wherever it is met.

use std::{error::Error, fmt, fs::File, io, io::Write as _, path::Path, sync::Arc};

/// What is wrong with the disk that something was to be kept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskTrouble {
    /// It is full, a quota is used up, or a file may not grow any more.
    Full,
    /// It may not be written to.
    ReadOnly,
    /// It doesn't read, write or keep what it was told to.
    Failing,
}

impl DiskTrouble {
    /// Returns the trouble of the disk that an error comes from; `None` if it comes from something else.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let trouble = match error.downcast_ref::<DiskError>() {
                Some(disk) => Some(disk.trouble),
                None => error.downcast_ref::<io::Error>().and_then(Self::of_io),
            };
            if trouble.is_some() {
                return trouble;
            }
            next = error.source();
        }
        None
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        if let Some(inner) = error.get_ref()
            && let Some(trouble) = Self::of(inner)
        {
            return Some(trouble);
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ => error.raw_os_error().filter(|number| FAILURES.contains(number)).map(|_| Self::Failing),
        }
    }

    /// Returns it in a word that doesn't change: for programs.
    pub fn name(self) -> &'static str {
        match self {
            DiskTrouble::Full => "disk_full",
            DiskTrouble::ReadOnly => "disk_read_only",
            DiskTrouble::Failing => "disk_failing",
        }
    }

    /// Returns the HTTP status that stands for it: 507 where there is no room, and 503.
    pub fn status(self) -> u16 {
        match self {
            DiskTrouble::Full => 507,
            DiskTrouble::ReadOnly | DiskTrouble::Failing => 503,
        }
    }
}

impl fmt::Display for DiskTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskTrouble::Full => "the host's disk is full, or its quota is used up",
            DiskTrouble::ReadOnly => "the host's disk is read-only",
            DiskTrouble::Failing => "the host's disk fails",
        })
    }
}

/// What the system says of a disk that fails: it can't read or write, or what is on it is damaged.
const FAILURES: [i32; 2] = [rustix::io::Errno::IO.raw_os_error(), rustix::io::Errno::UCLEAN.raw_os_error()];

/// Something that failed because of the disk, as somebody tells it who knows: a database.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{trouble}")]
pub struct DiskError {
    trouble: DiskTrouble,
    source: Arc<dyn Error + Send + Sync>,
}

impl DiskError {
    /// Returns an error that comes from trouble of the disk.
    ///
    /// Of a disk that fails, the system's last error may tell more: call it right after what failed, on its thread.
    pub fn new(trouble: DiskTrouble, source: impl Error + Send + Sync + 'static) -> Self {
        let last = DiskTrouble::of_io(&io::Error::last_os_error());
        let refined = last.filter(|_| trouble == DiskTrouble::Failing);
        DiskError { trouble: refined.unwrap_or(trouble), source: Arc::new(source) }
    }

    /// Returns what is wrong with the disk.
    pub fn trouble(&self) -> DiskTrouble {
        self.trouble
    }
}

/// Whether nothing in a folder, or at a path, can be run or loaded as code, because its file system is mounted so.
pub fn is_noexec(path: &Path) -> bool {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    statvfs(path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Returns why a program couldn't be started, where the system's answer blames the program for how its file system is mounted.
pub fn not_run(program: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::PermissionDenied && is_noexec(program) {
        return io::Error::other("its file system is mounted noexec, so that nothing on it can be run");
    }
    error
}

/// Finds out whether a folder can be written to, by doing so: for where somebody else failed in it who couldn't tell why.
pub fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_data());
    std::fs::remove_file(&path)?;
    written
}

/// Returns what an error comes from that happened in a folder and may have lost its number on the way: if the disk is in trouble,
/// that.
pub fn found_out(folder: &Path, error: io::Error) -> io::Error {
    let is_told = DiskTrouble::of(&error).is_some() || error.raw_os_error().is_some();
    if is_told {
        return error;
    }
    probe(folder).err().filter(|probed| DiskTrouble::of(probed).is_some()).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_the_disk_is_told_by_its_number_however_deep_it_lies() {
        use rustix::io::Errno;
        for (errno, expected) in [
            (Errno::NOSPC, Some(DiskTrouble::Full)),
            (Errno::DQUOT, Some(DiskTrouble::Full)),
            (Errno::FBIG, Some(DiskTrouble::Full)),
            (Errno::ROFS, Some(DiskTrouble::ReadOnly)),
            (Errno::IO, Some(DiskTrouble::Failing)),
            (Errno::UCLEAN, Some(DiskTrouble::Failing)),
            (Errno::ACCESS, None),
            (Errno::NOENT, None),
            (Errno::MFILE, None),
            (Errno::CONNREFUSED, None),
        ] {
            let bare = || io::Error::from(errno);
            assert_eq!(DiskTrouble::of(&bare()), expected, "{errno}");
            assert_eq!(DiskTrouble::of(&io::Error::other(bare())), expected, "{errno}, in another");
        }
        // The words say nothing.
        assert_eq!(DiskTrouble::of(&io::Error::other("No space left on device (os error 28)")), None);
    }
}
