//! The house: no room of it knows one above, and no two files know each other.
//!
//! What is read is `use` and paths. A name that a file hands on with `use` counts as the file's that it is from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

/// The crates, from the ground up. Each may use those on the floors below, and no other on its own.
const CRATES: &[&[(&str, &str)]] = &[
    &[("billhook-plugin-api-macros", "plugin-api/macros")],
    &[("billhook-plugin-api", "plugin-api")],
    &[("billhook-model", "host/model")],
    &[("billhook-machine", "host/machine")],
    &[("billhook-process", "host/process"), ("billhook-store", "host/store")],
    &[("billhook-store-sqlite", "host/store/sqlite")],
    &[("billhook", "host")],
];

/// The rooms of the library, from the ground up. Each may use those on the floors below, and no other on its own.
const ROOMS: &[&[&str]] = &[
    &["http_client", "moment", "package", "recorder"],
    &["events", "runtime"],
    &["dispatch"],
    &["delivery", "lifecycle", "provisioning"],
    &["accounting"],
    &["host"],
    &["child_process", "server"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The floor of each name.
fn floors<'a>(floors: impl Iterator<Item = Vec<&'a str>>) -> BTreeMap<&'a str, usize> {
    floors.enumerate().flat_map(|(floor, names)| names.into_iter().map(move |name| (name, floor))).collect()
}

#[test]
fn no_crate_uses_one_on_its_own_floor_or_above() {
    let floors = floors(CRATES.iter().map(|floor| floor.iter().map(|(name, _)| *name).collect()));
    for (name, folder) in CRATES.iter().copied().flatten() {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("readable");
        let dependencies = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n"));
        let used = dependencies.unwrap_or_default().lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        for used in used.filter(|used| used.starts_with("billhook")) {
            let floor = floors.get(used).unwrap_or_else(|| panic!("{used} has no floor"));
            assert!(floor < &floors[name], "{name} uses {used}");
        }
    }
}

#[test]
fn no_room_of_the_library_uses_one_on_its_own_floor_or_above() {
    let floors = floors(ROOMS.iter().map(|floor| floor.to_vec()));
    let files = Files::read(&root().join("host/src"));
    for (file, used) in files.arrows() {
        let (Some(from), Some(to)) = (file.first(), used.first()) else { continue };
        let floor = |room: &String| *floors.get(room.as_str()).unwrap_or_else(|| panic!("{room} has no floor"));
        assert!(from == to || floor(from) > floor(to), "{} uses {}", file.join("/"), used.join("/"));
    }
}

#[test]
fn no_two_files_use_each_other_on_whatever_way() {
    let mut circles = Vec::new();
    let sources = CRATES.iter().copied().flatten().map(|(_, folder)| root().join(folder).join("src"));
    for source in sources.chain([root().join("host/src/bin/billhook")]) {
        let files = Files::read(&source);
        assert!(!files.0.is_empty(), "nothing is in {}", source.display());
        let arrows = files.arrows();
        let reached: BTreeMap<&Name, BTreeSet<&Name>> =
            files.0.keys().map(|file| (file, reach(&arrows, file))).collect();
        for (from, to) in &arrows {
            if reached[to].contains(from) {
                circles.push(format!("{}: {} uses {}", source.display(), from.join("/"), to.join("/")));
            }
        }
    }
    assert!(circles.is_empty(), "these go in circles:\n{}", circles.join("\n"));
}

/// What a file leads to.
fn reach<'a>(arrows: &'a BTreeSet<(Name, Name)>, from: &'a Name) -> BTreeSet<&'a Name> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        for (_, to) in arrows.iter().filter(|(from, _)| from == file) {
            if reached.insert(to) {
                left.push(to);
            }
        }
    }
    reached
}

/// A module, by its path within its crate.
type Name = Vec<String>;

/// The files of a crate.
struct Files(BTreeMap<Name, File>);

/// What a file says of others.
#[derive(Default)]
struct File {
    /// Paths of names that it uses.
    uses: Vec<Name>,
    /// Names that it has from elsewhere, by what they are called here.
    has: BTreeMap<String, Name>,
}

impl Files {
    fn read(source: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![source.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                // Each program is a crate of its own.
                if path.is_dir() && !path.ends_with("src/bin") {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let relative = path.strip_prefix(source).expect("within").with_extension("");
                    let mut name: Name = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                    if matches!(name.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                        name.pop();
                    }
                    let text = fs::read_to_string(&path).expect("text");
                    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    let mut reader = Reader::default();
                    if !parsed.attrs.iter().any(is_for_tests) {
                        reader.visit_file(&parsed);
                    }
                    files.insert(name, reader.0);
                }
            }
        }
        Files(files)
    }

    /// All arrows from a file to another.
    fn arrows(&self) -> BTreeSet<(Name, Name)> {
        let mut arrows = BTreeSet::new();
        for (file, said) in &self.0 {
            for path in &said.uses {
                if let Some(to) = self.find(file, path).filter(|to| to != file) {
                    arrows.insert((file.clone(), to));
                }
            }
        }
        arrows
    }

    /// Whether a path that a file uses leads to its own crate.
    fn is_within(&self, file: &Name, path: &[String]) -> bool {
        path.first().is_some_and(|first| {
            let is_child = || self.0.contains_key(&[file.as_slice(), std::slice::from_ref(first)].concat());
            matches!(first.as_str(), "crate" | "self" | "super") || is_child()
        })
    }

    /// The file that a name is from which another uses.
    fn find(&self, file: &Name, path: &[String]) -> Option<Name> {
        let (mut module, mut path) = (file.clone(), path.to_vec());
        // A name may be handed on often, and never in a circle.
        for _ in 0..10 {
            let mut rest = path.as_slice();
            match rest.first()?.as_str() {
                "crate" => {
                    module.clear();
                    rest = &rest[1..];
                }
                "self" => rest = &rest[1..],
                "super" => {
                    while let Some((first, others)) = rest.split_first()
                        && first == "super"
                    {
                        module.pop();
                        rest = others;
                    }
                }
                _ if self.is_within(&module, rest) => {}
                _ => return None,
            }
            while let Some((first, others)) = rest.split_first() {
                let within = [module.as_slice(), std::slice::from_ref(first)].concat();
                if !self.0.contains_key(&within) {
                    break;
                }
                (module, rest) = (within, others);
            }
            match rest.first().and_then(|name| self.0[&module].has.get(name)) {
                // What is from another crate is the file's that hands it on.
                Some(from) if self.is_within(&module, from) => path = from.clone(),
                _ => break,
            }
        }
        Some(module)
    }
}

/// Reads what a file uses.
#[derive(Default)]
struct Reader(File);

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|flag| flag == "test")
}

impl<'a> Visit<'a> for Reader {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !item.attrs.iter().any(is_for_tests) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if item.attrs.iter().any(is_for_tests) {
            return;
        }
        let mut all = Vec::new();
        flatten(&item.tree, &[], &mut all);
        for (called, path) in all {
            if matches!(item.vis, Visibility::Inherited) {
                self.0.uses.push(path.clone());
            }
            self.0.has.insert(called, path);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            self.0.uses.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    // `pub(in …)` says who may use something, and uses nothing.
    fn visit_visibility(&mut self, _: &'a Visibility) {}

    fn visit_attribute(&mut self, _: &'a Attribute) {}
}

/// What a `use` brings in: how it is called, and its path.
fn flatten(tree: &UseTree, before: &[String], all: &mut Vec<(String, Name)>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), all),
        UseTree::Name(name) if name.ident == "self" => {
            all.push((before.last().cloned().unwrap_or_default(), before.to_vec()));
        }
        UseTree::Name(name) => all.push((name.ident.to_string(), with(&name.ident))),
        UseTree::Rename(name) => all.push((name.rename.to_string(), with(&name.ident))),
        UseTree::Glob(_) => all.push(("*".to_owned(), before.to_vec())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, all)),
    }
}

/// The reader finds what it is to find.
#[test]
fn arrows_are_found_however_they_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in [
        ("lib.rs", "mod a; mod b; pub use b::Thing;"),
        ("a.rs", "use crate::{Thing, b::{self, Other as Mine}}; fn f() { b::g(); }"),
        ("b.rs", "pub struct Thing; pub struct Other; pub fn g() { let _: crate::c::Deep; }"),
        ("c/mod.rs", "mod d; pub(crate) use d::Deep;"),
        ("c/d.rs", "#[cfg(test)] mod tests { use super::super::super::a; } pub struct Deep(super::super::a::A);"),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    let arrows = Files::read(folder.path()).arrows();
    let arrows: Vec<String> = arrows.iter().map(|(from, to)| format!("{} {}", from.join("/"), to.join("/"))).collect();
    assert_eq!(arrows, ["a b", "b c/d", "c/d a"]);
}
