//! `billhook packplugin [DIR]`

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use billhook::{
    Host,
    package::{self, Limits, Manifest},
};
use serde::Serialize;
use serde_json::Value;

use crate::{output::Output, streams};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the plugin's crate, with Cargo.toml and package.json
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// The package to write [default: ID-VERSION.zip in the working folder]
    #[arg(long, short, value_name = "ZIP")]
    output: Option<PathBuf>,
    /// Build for this target triple, into a folder of its name; may be given several times
    #[arg(long, value_name = "TRIPLE")]
    target: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct Packed {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) package: PathBuf,
    warnings: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> anyhow::Result<()> {
    let packed = pack(&arguments.folder, arguments.output.as_deref(), &arguments.target, output)?;
    output.answer(&packed, |packed| {
        let package = packed.package.display();
        format!("{package} is packed; install it with: billhook loadplugin {package}")
    })
}

/// Builds a plugin's crate and packs it.
pub(crate) fn pack(
    folder: &Path,
    target: Option<&Path>,
    triples: &[String],
    output: &Output,
) -> anyhow::Result<Packed> {
    let manifest_path = folder.join("package.json");
    let text = fs::read(&manifest_path).with_context(|| {
        format!("{} can't be read; a plugin's crate has one beside its Cargo.toml", manifest_path.display())
    })?;
    let manifest = Manifest::parse(&text).with_context(|| format!("{} is refused", manifest_path.display()))?;
    let cargo = Cargo::of(folder)?;

    let mut files = vec![("package.json".to_owned(), manifest_path)];
    if triples.is_empty() {
        let library = cargo.build(None, &manifest)?;
        files.push((file_name(&library)?, library));
    }
    for triple in triples {
        let library = cargo.build(Some(triple), &manifest)?;
        files.push((format!("{triple}/{}", file_name(&library)?), library));
    }
    for included in cargo.included()? {
        collect(folder, Path::new(&included), &mut files)?;
    }
    let (id, version) = (manifest.id(), manifest.version.to_string());
    let package = target.map_or_else(|| PathBuf::from(format!("{id}-{version}.zip")), Path::to_owned);
    // Checked before it takes the name, so that a package that was packed before stays if this one is wrong.
    let beside = package.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new().prefix(".packplugin-").tempdir_in(beside);
    let scratch = scratch.with_context(|| format!("{} can't be written", package.display()))?;
    let unchecked = scratch.path().join("package.zip");
    package::pack(&unchecked, &files).with_context(|| format!("{} can't be written", package.display()))?;

    let report = Host::check(&unchecked, &Limits::default())?;
    for warning in &report.warnings {
        output.note("warning", warning);
    }
    // A library for other machines only can't be checked on this one; everything else can.
    let elsewhere = |error: &String| !triples.is_empty() && error.contains("it is there for ");
    let errors: Vec<String> = report.errors.into_iter().filter(|error| !elsewhere(error)).collect();
    if !errors.is_empty() {
        bail!("the plugin can't be packed:\n{}", errors.join("\n"));
    }
    fs::rename(&unchecked, &package).with_context(|| format!("{} can't be written", package.display()))?;
    Ok(Packed { id, version, package, warnings: report.warnings })
}

fn file_name(path: &Path) -> anyhow::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).with_context(|| format!("{} has no name in UTF-8", path.display()))
}

/// Adds a file, or all files of a folder, under its path in the crate.
fn collect(folder: &Path, included: &Path, files: &mut Vec<(String, PathBuf)>) -> anyhow::Result<()> {
    let path = folder.join(included);
    let metadata =
        fs::metadata(&path).with_context(|| format!("{}, which is to be included, can't be read", path.display()))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(&path)? {
            collect(folder, &included.join(entry?.file_name()), files)?;
        }
    } else {
        let name = included.to_str().with_context(|| format!("{} is not UTF-8", included.display()))?;
        let name = name.replace(std::path::MAIN_SEPARATOR, "/");
        if !package::is_left_over(&name) {
            files.push((name, path));
        }
    }
    Ok(())
}

/// Cargo, on the crate of a plugin.
struct Cargo {
    program: std::ffi::OsString,
    manifest: PathBuf,
    metadata: Value,
}

impl Cargo {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} is no crate: it has no Cargo.toml; newplugin makes a new one", folder.display());
        }
        let manifest = manifest.canonicalize()?;
        let asked = Command::new(&program)
            .args(["metadata", "--format-version", "1", "--manifest-path"])
            .arg(&manifest)
            .stderr(streams::errors_of_others())
            .output()
            .context("cargo can't be started; install Rust from https://rustup.rs")?;
        if !asked.status.success() {
            bail!("cargo doesn't accept {}", manifest.display());
        }
        Ok(Cargo { program, manifest, metadata: serde_json::from_slice(&asked.stdout)? })
    }

    /// The crate itself, among those of its workspace.
    fn package(&self) -> Option<&Value> {
        let is_it = |package: &&Value| package["manifest_path"].as_str().map(Path::new) == Some(&self.manifest);
        self.metadata["packages"].as_array()?.iter().find(is_it)
    }

    /// What else goes into the package: `include` under `[package.metadata.billhook]`.
    fn included(&self) -> anyhow::Result<Vec<String>> {
        let include = self.package().map_or(&Value::Null, |package| &package["metadata"]["billhook"]["include"]);
        if include.is_null() {
            return Ok(Vec::new());
        }
        serde_json::from_value(include.clone())
            .context("`include` under [package.metadata.billhook] has to be a list of paths")
    }

    /// Builds the library and answers where it is.
    fn build(&self, triple: Option<&str>, manifest: &Manifest) -> anyhow::Result<PathBuf> {
        let mut command = Command::new(&self.program);
        command.args(["build", "--release", "--lib", "--message-format=json-render-diagnostics", "--manifest-path"]);
        command.arg(&self.manifest).args(["--config", "profile.release.strip=true"]);
        // Paths of this machine would make the bytes depend on it. Cargo takes flags from one place only: where the user
        // set some in the environment, ours go there too.
        let ours = self.remapped_paths();
        if let Some(theirs) = std::env::var("CARGO_ENCODED_RUSTFLAGS").ok().filter(|flags| !flags.is_empty()) {
            command.env("CARGO_ENCODED_RUSTFLAGS", [vec![theirs], ours].concat().join("\u{1f}"));
        } else if let Some(theirs) = std::env::var("RUSTFLAGS").ok().filter(|flags| !flags.trim().is_empty()) {
            let theirs = theirs.split_whitespace().map(str::to_owned).collect();
            command.env("CARGO_ENCODED_RUSTFLAGS", [theirs, ours].concat().join("\u{1f}"));
        } else {
            command.arg("--config").arg(format!("target.'cfg(all())'.rustflags={}", Value::from(ours)));
        }
        command.env("CARGO_INCREMENTAL", "0");
        if let Some(triple) = triple {
            command.args(["--target", triple]);
        }
        let mut cargo = command
            .stdout(Stdio::piped())
            .stderr(streams::errors_of_others())
            .spawn()
            .context("cargo can't be started")?;
        let mut libraries = Vec::new();
        for line in cargo.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
            if message["reason"] == "compiler-artifact"
                && message["manifest_path"].as_str().map(Path::new) == Some(&self.manifest)
            {
                let names = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
                libraries.extend(names.filter(|name| is_library(name)).map(PathBuf::from));
            }
        }
        if !cargo.wait()?.success() {
            bail!("cargo can't build {}", self.manifest.display());
        }
        let Some(library) = libraries.pop() else {
            bail!("{} builds no dynamic library; set crate-type = [\"cdylib\"] under [lib]", self.manifest.display());
        };
        let (name, module) = (file_name(&library)?, manifest.module.as_str());
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        if name != module && stem != module && stem.strip_prefix("lib") != Some(module) {
            bail!("$.module in package.json is {module:?}, and the crate builds {name}; make them fit");
        }
        Ok(library)
    }

    /// Compiler flags that replace this machine's paths in the library.
    ///
    /// Cargo names the crates of a workspace by relative paths; what is left are the registry's crates and those that
    /// the plugin names by a path elsewhere. The plugin's own folder is not in the flags, so that plugins in different
    /// folders share what cargo built of their dependencies.
    fn remapped_paths(&self) -> Vec<String> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
        let mut remapped = Vec::new();
        let mut remap = |path: &Path, name: &str| {
            remapped.extend(path.to_str().map(|path| format!("--remap-path-prefix={path}={name}")));
        };
        if let Some(home) = &home {
            remap(home, "/cargo");
        }
        if let Some(target) = self.metadata["target_directory"].as_str() {
            remap(Path::new(target), "/target");
        }
        let workspace = self.metadata["workspace_root"].as_str().map(Path::new);
        for package in self.metadata["packages"].as_array().into_iter().flatten() {
            let folder = package["manifest_path"].as_str().map(Path::new).and_then(Path::parent);
            if let (Some(folder), Some(name), true) = (folder, package["name"].as_str(), package["source"].is_null())
                && workspace.is_none_or(|workspace| !folder.starts_with(workspace))
            {
                remap(folder, &format!("/{name}"));
            }
        }
        remapped
    }
}

fn is_library(name: &str) -> bool {
    [".so", ".dylib", ".dll"].iter().any(|suffix| name.ends_with(suffix))
}
