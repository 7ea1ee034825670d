//! The library of a package, read and not run: which one it is, and whether this host may load it.

use std::cmp::Ordering;

use billhook_model::ModuleInfo;
use billhook_plugin_api::{
    Hook,
    abi::{
        PLUGIN_ENTRY,
        record::{API_VERSION, PLUGIN_SECTION, Record, TARGET},
    },
};
use object::{Architecture, BinaryFormat, Object, ObjectKind, ObjectSection, read::NameOrOrdinal};
use semver::Version as ApiVersion;

use super::{Addon, PackageFile, elf};

/// Why a package's module can't be loaded here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The manifest names a library that the package doesn't have.
    #[error("the module {module:?} is not in the package: {hint}")]
    Missing {
        /// As the manifest names it.
        module: String,
        /// What was looked for, or what is there instead.
        hint: String,
    },
    /// It is no library, or none for this machine.
    #[error("{path} can't be loaded here: {problem}")]
    Machine {
        /// The library's path in the package.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// It is a library, but not a plugin that this host can call.
    #[error("{path} is no plugin for this host: {problem}")]
    Plugin {
        /// The library's path in the package.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// What it implements contradicts the manifest.
    #[error("$.pull_accounting in package.json and the module disagree: {0}")]
    Accounting(String),
    /// The add-on that it provides, or doesn't, contradicts the manifest.
    #[error("$.addon in package.json and the module disagree: {0}")]
    Addon(&'static str),
}

/// Whether a library was built with a later version of the API than this host's.
pub(crate) fn is_newer_than_host(module: &ModuleInfo) -> bool {
    let [theirs, ours] = [&module.api, API_VERSION].map(ApiVersion::parse);
    matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs.cmp_precedence(&ours) == Ordering::Greater)
}

/// Finds the library that a manifest names: for this machine in a folder named by its target triple, or in the root.
pub(crate) fn locate(module: &str, files: &[PackageFile]) -> Result<String, ModuleError> {
    let missing = |hint| ModuleError::Missing { module: module.to_owned(), hint };
    let has = |path: &str| files.iter().any(|file| file.path == path);
    let decorated = format!("{}{module}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let candidates = [format!("{TARGET}/{decorated}"), format!("{TARGET}/{module}"), decorated, module.to_owned()];
    if super::names::check_path(module).is_ok()
        && let Some(found) = candidates.iter().find(|candidate| has(candidate))
    {
        return Ok(found.clone());
    }
    if super::python::is_class(module) || files.iter().any(|file| file.path.ends_with(".py")) {
        return Err(missing(super::python::hint(module)));
    }
    let elsewhere: Vec<&str> = files
        .iter()
        .filter_map(|file| file.path.split_once('/'))
        .filter(|(folder, file)| {
            folder.contains('-')
                && ["so", "dylib", "dll"].iter().any(|suffix| {
                    [format!("lib{module}.{suffix}"), format!("{module}.{suffix}"), module.to_owned()]
                        .iter()
                        .any(|name| name == file)
                })
        })
        .map(|(folder, _)| folder)
        .collect();
    if elsewhere.is_empty() {
        Err(missing(format!("looked for {}", candidates.join(", "))))
    } else {
        Err(missing(format!("it is there for {}, and this host is {TARGET}", elsewhere.join(", "))))
    }
}

/// Reads a library and decides whether this host may load it.
pub(crate) fn inspect(path: &str, library: &[u8]) -> Result<ModuleInfo, ModuleError> {
    let machine = |problem: String| ModuleError::Machine { path: path.to_owned(), problem };
    let plugin = |problem: String| ModuleError::Plugin { path: path.to_owned(), problem };

    let file = object::File::parse(library).map_err(|_| machine("it is not a library".to_owned()))?;
    check_machine(&file).map_err(machine)?;
    match &file {
        object::File::Elf64(file) => elf::check(file, library).map_err(machine)?,
        object::File::Elf32(file) => elf::check(file, library).map_err(machine)?,
        _ => {}
    }

    let exports_entry = file.exports().is_ok_and(|exports| {
        exports.filter_map(Result::ok).any(|export| export.name() == NameOrOrdinal::Name(PLUGIN_ENTRY.as_bytes()))
    });
    let section = match file.format() {
        BinaryFormat::MachO => PLUGIN_SECTION.mach_o,
        BinaryFormat::Pe => PLUGIN_SECTION.pe,
        _ => PLUGIN_SECTION.elf,
    };
    let section = file.section_by_name(section).and_then(|section| section.data().ok());
    let Some(section) = section else {
        return Err(plugin(if exports_entry {
            "it has an entry, and no record of what it is".to_owned()
        } else {
            "it exports no billhook plugin; put #[billhook_plugin_api::export] on `impl Plugin for …`".to_owned()
        }));
    };
    if section.len() > LARGEST_RECORD {
        return Err(plugin(format!("its record has {} bytes; at most {LARGEST_RECORD} are taken", section.len())));
    }
    let record = Record::parse(section).map_err(plugin)?;
    check_record(&record).map_err(plugin)?;
    if !exports_entry {
        return Err(plugin(format!("it lacks the entry symbol {PLUGIN_ENTRY}")));
    }
    let mut needs = Vec::new();
    for library in file.import_libraries().map_err(|_| machine("its list of needed libraries is broken".to_owned()))? {
        let library = library.map_err(|_| machine("its list of needed libraries is broken".to_owned()))?;
        let name = String::from_utf8_lossy(library.name()).into_owned();
        // A path in it would load whatever lies there, checked by nobody. Mach-O names all libraries by their paths.
        if file.format() == BinaryFormat::Elf && name.contains('/') {
            return Err(machine(format!("it needs the library {name:?} by its path")));
        }
        needs.push(name);
    }
    let mut module = ModuleInfo::default();
    module.path = path.to_owned();
    module.api = record.api;
    module.compiler = record.compiler;
    module.target = record.target;
    module.hooks = record.hooks;
    module.needs = needs;
    Ok(module)
}

/// A record names what a library was built with, and its hooks.
const LARGEST_RECORD: usize = 64 * 1024;

fn check_machine(file: &object::File<'_>) -> Result<(), String> {
    if file.format() != BinaryFormat::Elf {
        return Err(format!("it is a {:?} file, and this host loads {:?}", file.format(), BinaryFormat::Elf));
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "x86" => Architecture::I386,
        "aarch64" => Architecture::Aarch64,
        "arm" => Architecture::Arm,
        "riscv64" => Architecture::Riscv64,
        "powerpc64" => Architecture::PowerPc64,
        "s390x" => Architecture::S390x,
        "loongarch64" => Architecture::LoongArch64,
        // The record's target triple decides for the rest.
        _ => file.architecture(),
    };
    if file.architecture() != architecture {
        return Err(format!("it was built for {:?}, and this machine is {architecture:?}", file.architecture()));
    }
    if file.is_little_endian() != cfg!(target_endian = "little") {
        return Err("it was built for the other byte order".to_owned());
    }
    if file.kind() != ObjectKind::Dynamic {
        return Err(format!("it is not a shared library ({:?}); build it with crate-type = [\"cdylib\"]", file.kind()));
    }
    Ok(())
}

fn check_record(record: &Record) -> Result<(), String> {
    if record.exported != "plugin" {
        return Err(format!("it exports {:?}, which this host doesn't know", record.exported));
    }
    let ours = ApiVersion::parse(API_VERSION).map_err(|error| error.to_string())?;
    let theirs = ApiVersion::parse(&record.api)
        .map_err(|_| format!("its record says that it was built with API version {:?}", record.api))?;
    if theirs.major != ours.major {
        return Err(format!(
            "it was built with API {theirs}, and this host has API {ours}; rebuild it with billhook-plugin-api {}",
            ours.major
        ));
    }
    if record.panic != "unwind" {
        return Err(format!(
            "it was built with panic = {:?}, so that its first panic would end the host; build it with panic = \"unwind\"",
            record.panic
        ));
    }
    if record.target != TARGET {
        return Err(format!("it was built for {}, and this host is {TARGET}", record.target));
    }
    Ok(())
}

/// Checks the accounting flag against the hooks: with the flag both, without it none.
pub(crate) fn check_accounting(pull_accounting: bool, module: &ModuleInfo) -> Result<(), ModuleError> {
    let hooks = [Hook::GetUsageSpecs, Hook::GetPendingAccounting];
    let wrong = hooks.iter().find(|hook| module.implements(**hook) != pull_accounting);
    let Some(hook) = wrong else { return Ok(()) };
    Err(ModuleError::Accounting(if pull_accounting {
        format!("it is true, and the module doesn't implement {hook}")
    } else {
        format!("it is not true, and the module implements {hook}")
    }))
}

/// Checks the manifest's add-on against the module: both have one, or neither.
pub(crate) fn check_addon(addon: Option<&Addon>, module: &ModuleInfo) -> Result<(), ModuleError> {
    match (addon, module.implements(Hook::AddonCreate)) {
        (Some(_), false) => Err(ModuleError::Addon(
            "it names an add-on, and the module doesn't implement AddonProvisioning for its plugin",
        )),
        (None, true) => Err(ModuleError::Addon(
            "the module implements AddonProvisioning, and it names no add-on: {\"id\": …, \"config_vars\": […]}",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Digest;

    fn find(module: &str, paths: &[&str]) -> Result<String, String> {
        let file = |path: &&str| PackageFile { path: (*path).to_owned(), size: 0, sha256: Digest([0; 32]) };
        let files: Vec<_> = paths.iter().map(file).collect();
        locate(module, &files).map_err(|error| error.to_string())
    }

    #[test]
    fn a_module_is_found_undecorated_by_target_or_by_its_exact_name() {
        let decorated = format!("{}my{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let for_target = format!("{TARGET}/{decorated}");
        for (module, paths, expected) in [
            ("my", vec![decorated.as_str()], decorated.as_str()),
            ("my", vec![&decorated, &for_target, "other-triple/libmy.so"], &for_target),
            (&decorated, vec![&decorated], &decorated),
            ("lib/exact.so", vec!["lib/exact.so"], "lib/exact.so"),
        ] {
            assert_eq!(find(module, &paths).as_deref(), Ok(expected), "{module} in {paths:?}");
        }
    }

    #[test]
    fn a_module_that_is_not_there_is_answered_with_what_is() {
        for (module, paths, expected) in [
            ("my", vec!["libother.so"], "looked for"),
            ("my", vec!["aarch64-unknown-none/libmy.so"], "it is there for aarch64-unknown-none, and this host is"),
            ("plugin.TestPlugin", vec!["plugin.py"], "Python class"),
            ("plugin", vec!["plugin.py"], "native libraries"),
            ("../my", vec!["../my"], "looked for"),
        ] {
            let error = find(module, &paths).expect_err(module);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_library_is_refused_and_crashes_nothing() {
        let elf = std::fs::read(std::env::current_exe().expect("a test has a file")).expect("readable");
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("text", b"#!/bin/sh\nexit 0\n".to_vec()),
            ("the head of a library", elf[..64].to_vec()),
            ("an ELF header and zeros", [&elf[..64], &[0; 4096]].concat()),
            ("an executable", elf),
        ] {
            assert!(inspect("x", &bytes).is_err(), "{what} was accepted");
        }
    }
}
