//! Everything that is wrong with a package, without running any of its code.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use billhook_plugin_api::Hook;
use serde::Serialize;

use super::{
    Digest, Limits, Manifest, ManifestError, ModuleError, ModuleInfo, PackageError, PackageFile, inspect,
    manifest::{self, Draft},
    names, unpack,
};
use billhook_machine::private;

/// One thing that is wrong with a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// With the zip or the folder.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// With its `package.json`.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// With its library.
    #[error(transparent)]
    Module(#[from] ModuleError),
}

/// All that is wrong with a package.
#[derive(Debug, thiserror::Error)]
pub struct CheckErrors(pub Vec<CheckError>);

impl fmt::Display for CheckErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// A package that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) module: Option<ModuleInfo>,
    pub(crate) errors: Vec<CheckError>,
    pub(crate) warnings: Vec<String>,
}

/// A package with which all is right, unpacked in a folder.
pub(crate) struct Sound {
    pub(crate) manifest: Manifest,
    pub(crate) module: ModuleInfo,
    pub(crate) library_digest: Digest,
    pub(crate) digest: Digest,
    pub(crate) warnings: Vec<String>,
}

impl Examined {
    /// Takes the package, if nothing is wrong with it.
    pub(crate) fn into_sound(self, files: &[PackageFile]) -> Result<Sound, CheckErrors> {
        let library = |module: &ModuleInfo| files.iter().find(|file| file.path == module.path).map(|file| file.sha256);
        match (self.manifest, self.module) {
            (Some(manifest), Some(module)) if self.errors.is_empty() => Ok(Sound {
                library_digest: library(&module).unwrap_or(Digest([0; 32])),
                digest: unpack::content_digest(files),
                manifest,
                module,
                warnings: self.warnings,
            }),
            _ => Err(CheckErrors(self.errors)),
        }
    }
}

/// Looks at the files of a package that lie in a folder.
pub(crate) fn examine(folder: &Path, files: &[PackageFile]) -> Examined {
    let mut examined = Examined::default();
    if !files.iter().any(|file| file.path == "package.json") {
        let elsewhere = files.iter().find(|file| file.path.ends_with("/package.json"));
        let hint = elsewhere.map_or_else(String::new, |file| {
            format!("; there is one at {}: pack the content of its folder, not the folder", file.path)
        });
        examined.errors.push(PackageError::NoManifest { hint }.into());
        return examined;
    }
    examined.warnings.extend(names::left_over(files));
    let text = match read_manifest(&folder.join("package.json")) {
        Ok(text) => text,
        Err(error) => {
            examined.errors.push(PackageError::Read(error).into());
            return examined;
        }
    };
    let draft = examine_manifest(&text, &mut examined);
    // A module may be looked at also where another field of the manifest is wrong.
    let Some(name) = draft.module else {
        if examined.manifest.is_some() {
            let (module, hint) = (String::new(), "$.module is empty".to_owned());
            examined.errors.push(ModuleError::Missing { module, hint }.into());
        }
        return examined;
    };
    match find_module(folder, &name, files) {
        Ok(module) => {
            let unknown: Vec<&str> = module.unknown_hooks().take(20).collect();
            if !unknown.is_empty() {
                let (hooks, api) = (unknown.join(", "), &module.api);
                examined.warnings.push(format!(
                    "the module implements {hooks}, which this host doesn't have and never calls; it was built with API {api}"
                ));
            }
            if let Some(Err(error)) = draft.pull_accounting.map(|flag| inspect::check_accounting(flag, &module)) {
                examined.errors.push(error.into());
            }
            if let Some(manifest) = &examined.manifest
                && let Err(error) = inspect::check_addon(manifest.addon.as_ref(), &module)
            {
                examined.errors.push(error.into());
            }
            let lists_events = examined.manifest.as_ref().is_some_and(|manifest| !manifest.events.is_empty());
            match (lists_events, module.implements(Hook::OnEvent)) {
                (true, false) => {
                    let warning =
                        "package.json lists events, and the module doesn't implement on_event: it hears of none";
                    examined.warnings.push(warning.to_owned());
                }
                (false, true) if examined.manifest.is_some() => {
                    let warning = "the module implements on_event, and package.json lists no events: it hears of none";
                    examined.warnings.push(warning.to_owned());
                }
                _ => {}
            }
            examined.module = Some(module);
        }
        Err(error) => examined.errors.push(error),
    }
    examined
}

fn examine_manifest(text: &[u8], examined: &mut Examined) -> Draft {
    let (manifest, draft) = Draft::read(text);
    examined.warnings.extend_from_slice(&draft.warnings);
    match manifest {
        Ok(manifest) => examined.manifest = Some(manifest),
        Err(error) => examined.errors.push(error.into()),
    }
    draft
}

/// Reads a `package.json`, and no more of one that is too long than is needed to tell.
fn read_manifest(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(manifest::LARGEST as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn find_module(folder: &Path, name: &str, files: &[PackageFile]) -> Result<ModuleInfo, CheckError> {
    let path = inspect::locate(name, files)?;
    let library = fs::read(folder.join(&path)).map_err(PackageError::Read)?;
    Ok(inspect::inspect(&path, &library)?)
}

/// What a check of a package reports.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    /// The id that the plugin would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What its library says about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleInfo>,
    /// All that is wrong.
    pub errors: Vec<String>,
    /// What is odd, and accepted.
    pub warnings: Vec<String>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

impl From<&Examined> for CheckReport {
    fn from(examined: &Examined) -> Self {
        let manifest = examined.manifest.as_ref();
        CheckReport {
            id: manifest.map(Manifest::id),
            name: manifest.map(|manifest| manifest.name.clone()),
            version: manifest.map(|manifest| manifest.version.to_string()),
            module: examined.module.clone(),
            errors: examined.errors.iter().map(ToString::to_string).collect(),
            warnings: examined.warnings.clone(),
        }
    }
}

/// A package that may be tried: the folder that it lies in, which is deleted when this is dropped if it was unpacked.
pub(crate) struct Checked {
    pub(crate) folder: PathBuf,
    pub(crate) examined: Examined,
    pub(crate) unpacked: Option<tempfile::TempDir>,
}

/// Checks a package: a zip, the folder of an unpacked one, or a `package.json` alone. Runs none of its code.
pub(crate) fn check(path: &Path, limits: &Limits) -> io::Result<Checked> {
    let metadata = fs::metadata(path)?;
    let mut checked = Checked { folder: path.to_owned(), examined: Examined::default(), unpacked: None };
    if metadata.is_dir() {
        match list(path, limits) {
            Ok(files) => checked.examined = examine(path, &files),
            Err(error) => checked.examined.errors.push(error.into()),
        }
    } else if !metadata.is_file() {
        return Err(io::Error::other("it is neither a file nor a folder"));
    } else if !is_zip(path)? {
        examine_manifest(&read_manifest(path)?, &mut checked.examined);
    } else {
        let folder = private::scratch("billhook-check-")?;
        match unpack(path, folder.path(), limits) {
            Ok(files) => checked.examined = examine(folder.path(), &files),
            Err(errors) => {
                for error in errors {
                    match error {
                        // What the system refuses is not the package's fault.
                        PackageError::Write { source, .. } | PackageError::Read(source) => return Err(source),
                        wrong => checked.examined.errors.push(wrong.into()),
                    }
                }
            }
        }
        checked.folder = folder.path().to_owned();
        checked.unpacked = Some(folder);
    }
    Ok(checked)
}

/// Whether a file is meant to be a zip; anything else is taken for a `package.json`.
fn is_zip(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(path)?.take(2).read_to_end(&mut start)?;
    Ok(start == b"PK" || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip")))
}

/// The files of a folder, as if they had been unpacked.
/// Returns whether a folder holds the files of a package with this content, and no others.
pub(crate) fn is_whole(folder: &Path, digest: Digest, limits: &Limits) -> bool {
    list(folder, limits).is_ok_and(|files| unpack::content_digest(&files) == digest)
}

fn list(folder: &Path, limits: &Limits) -> Result<Vec<PackageFile>, PackageError> {
    let (mut files, mut open, mut total) = (Vec::new(), vec![PathBuf::new()], 0);
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(folder.join(&relative)).map_err(PackageError::Read)? {
            let entry = entry.map_err(PackageError::Read)?;
            let metadata = entry.metadata().map_err(PackageError::Read)?;
            let relative = relative.join(entry.file_name());
            let name = relative.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
            let bad = |problem: String| PackageError::Entry { name: name.clone(), problem };
            names::check_path(&name).map_err(bad)?;
            if metadata.is_dir() {
                open.push(relative);
            } else if metadata.is_file() {
                total += metadata.len();
                if files.len() >= limits.entries || total > limits.total_bytes {
                    return Err(PackageError::TooMuch("the folder holds more than a package may".to_owned()));
                }
                let file = fs::File::open(entry.path());
                let sha256 = file.and_then(|mut file| Digest::of(&mut file)).map_err(PackageError::Read)?;
                files.push(PackageFile { path: name, size: metadata.len(), sha256 });
            } else {
                return Err(bad("it is neither a file nor a folder".to_owned()));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
