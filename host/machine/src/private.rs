//! Files and folders that only their user can use: made so whatever the process's mask takes away, also in a folder that hands on
//! its group.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use tempfile::{NamedTempFile, TempDir};

const FILE: u32 = 0o600;
const FOLDER: u32 = 0o700;

/// Opens a file to read and write, and makes it if there is none.
pub fn file(path: &Path) -> io::Result<File> {
    loop {
        match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match new_file(path) {
            // Somebody else made it just now.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
}

/// Makes a file unless there is one. One that is there isn't opened: closing it again would give up the locks that this process has
/// on it.
pub fn ensure_file(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    match new_file(path) {
        // Somebody else made it just now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Whether a file is there that this process can read and may not write to: it lies on a disk that is read-only, or is another
/// user's.
pub fn is_read_only(path: &Path) -> bool {
    use rustix::{fs::Access, io::Errno};
    let may = |access| rustix::fs::access(path, access);
    may(Access::READ_OK).is_ok()
        && may(Access::WRITE_OK).is_err_and(|error| matches!(error, Errno::ROFS | Errno::ACCESS))
}

/// Makes a file that isn't there yet.
pub fn new_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE);
    let file = options.open(path)?;
    if mode(&file.metadata()?) != FILE {
        file.set_permissions(permissions(FILE))?;
    }
    Ok(file)
}

/// Makes a folder, and those that it is in, unless it is there.
pub fn folder(path: &Path) -> io::Result<()> {
    match new_folder(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folder(path.parent().ok_or(error)?)?;
            // Somebody else may have made it just now.
            new_folder(path).or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
        }
        made => made,
    }
}

/// Makes a folder that isn't there yet.
pub fn new_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, FOLDER);
    builder.create(path)?;
    close(path)
}

/// A folder for what is needed for a while, in the system's place for such things.
pub fn scratch(prefix: &str) -> io::Result<TempDir> {
    scratch_in(&std::env::temp_dir(), prefix)
}

/// A folder for what is needed for a while, within another.
pub fn scratch_in(folder: &Path, prefix: &str) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    builder.permissions(permissions(FOLDER));
    let scratch = builder.tempdir_in(folder)?;
    close(scratch.path())?;
    Ok(scratch)
}

/// A file for what is needed for a while, within a folder.
pub fn scratch_file(folder: &Path, prefix: &str, suffix: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(suffix);
    builder.permissions(permissions(FILE));
    let file = builder.tempfile_in(folder)?;
    file.as_file().set_permissions(permissions(FILE))?;
    Ok(file)
}

/// Gives a folder of ours the mode that it is to have, and no mark that it has from the folder that it is in.
fn close(path: &Path) -> io::Result<()> {
    if mode(&fs::symlink_metadata(path)?) != FOLDER {
        fs::set_permissions(path, permissions(FOLDER))?;
    }
    Ok(())
}

fn permissions(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777
}

/// Takes from everybody but its user what they may do with a file or folder of ours.
pub fn mend(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    fs::set_permissions(path, permissions(if metadata.is_dir() { FOLDER } else { FILE }))
}
