//! Writing packages: the same files give the same bytes.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Writes a package from files, each with its path in the package. Order, dates and modes don't depend on the machine.
pub fn pack(target: &Path, files: &[(String, PathBuf)]) -> io::Result<()> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort();
    // The default date is 1980-01-01, the first that a zip can hold.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(0o644)
        .last_modified_time(zip::DateTime::default());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any new file: the user's mask decides who may read it.
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let out = builder.tempfile_in(folder)?;
    let mut zip = ZipWriter::new(BufWriter::new(out));
    for (name, path) in files {
        zip.start_file(name.as_str(), options)?;
        io::copy(&mut File::open(path)?, &mut zip)?;
    }
    let mut out = zip.finish()?;
    out.flush()?;
    // Nobody sees half a package: the finished file takes the name in one step.
    out.into_inner().map_err(io::IntoInnerError::into_error)?.persist(target)?;
    Ok(())
}
