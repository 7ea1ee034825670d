//! The ABI grows: plugins of an older API in a newer host, and of a newer API in an older host.
//!
//! The old APIs, 1.0 and 1.1, are frozen copies. The newer one is made here from the present one, by what a later minor version would do:
//! one more hook, and one more field of an asset.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    authoring::source,
    support::{BILLHOOK, Home, Package, asset, order, run},
};

/// What the next minor version adds: file, what to look for, what to put in its place.
const ADDITIONS: [(&str, &str, &str); 9] = [
    ("plugin-api/Cargo.toml", "version = \"1.2.0\"", "version = \"1.3.0\""),
    // A hook: one entry.
    (
        "plugin-api/src/hooks.rs",
        "                    AddonSignOnHook(resource: Text, login: Login) -> Location;\n            }\n",
        "                    AddonSignOnHook(resource: Text, login: Login) -> Location;\n            }\n            Plugin since \"1.3\" {\n                /// Renewed.\n                OnProductRenewal, on_product_renewal = on_product_renewal:\n                    OrderHook(asset: Asset, contract: Contract, order: Order) -> Changes;\n            }\n",
    ),
    // A field of an object.
    (
        "plugin-api/src/abi/types.rs",
        "    /// `data::Asset::extra`\n    #[sabi(last_prefix_field)]\n    pub extra: GetText,",
        "    /// `data::Asset::extra`\n    #[sabi(last_prefix_field)]\n    pub extra: GetText,\n    /// `data::Asset::language`\n    pub language: GetText,",
    ),
    (
        "plugin-api/src/abi/tables.rs",
        "    extra: get_text!(Asset, |asset| asset.extra.as_str()),",
        "    extra: get_text!(Asset, |asset| asset.extra.as_str()),\n    language: get_option!(Asset, |asset| asset.language.as_deref()),",
    ),
    (
        "plugin-api/src/abi/tables.rs",
        "    extra: get_text!(Lent, |lent| lent.asset.extra.as_str()),",
        "    extra: get_text!(Lent, |lent| lent.asset.extra.as_str()),\n    language: get_option!(Lent, |lent| lent.asset.language.as_deref()),",
    ),
    (
        "plugin-api/src/data.rs",
        "    /// Where the asset's own description",
        "    /// Its language.\n    #[serde(default)]\n    pub language: Option<String>,\n    /// Where the asset's own description",
    ),
    (
        "plugin-api/src/objects.rs",
        "    /// Whether any user may download",
        "    /// Its language.\n    pub fn language(&self) -> Option<&'a str> {\n        self.0.text(|table| table.language())\n    }\n\n    /// Whether any user may download",
    ),
    // The new host's outputs must not take the place of this one's.
    ("host/Cargo.toml", "name = \"billhook\"\nversion", "name = \"billhook-next\"\nversion"),
    (
        "host/Cargo.toml",
        "[[bin]]\nname = \"billhook\"",
        "[lib]\nname = \"billhook\"\n\n[[bin]]\nname = \"billhook-next\"\npath = \"src/bin/billhook/main.rs\"",
    ),
];

/// A plugin of the new API that uses what was added.
const NEW_PLUGIN: &str = r#"
use billhook_plugin_api::{Asset, Contract, Order, Plugin, PluginError, Services};

struct NewPlugin;

#[billhook_plugin_api::export]
impl Plugin for NewPlugin {
    fn new(_services: Services) -> Result<Self, PluginError> {
        Ok(NewPlugin)
    }

    fn on_product_acquisition(&self, asset: &mut Asset, _: &Contract, _: &Order) -> Result<(), PluginError> {
        let language = asset.language().unwrap_or("no language").to_owned();
        asset.set_meta_info(&language)
    }

    fn on_product_renewal(&self, asset: &mut Asset, _: &Contract, _: &Order) -> Result<(), PluginError> {
        asset.set_meta_info("renewed")
    }
}
"#;

/// Copies a folder without what was built in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() && entry.file_name() != "target" && entry.file_name() != "frozen" {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

fn build(folder: &Path, arguments: &[&str]) {
    let target = std::env::current_exe().expect("a test has a file");
    let target = target.parent().and_then(Path::parent).and_then(Path::parent).expect("it is in target/PROFILE/deps");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet"]).args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", target);
    run(&mut command).succeeded();
}

fn built(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a file");
    let target = here.parent().and_then(Path::parent).and_then(Path::parent).expect("it is in target/PROFILE/deps");
    target.join("debug").join(name)
}

/// Builds the next minor version of the API, a host of it, and a plugin of it.
fn build_next(folder: &Path) {
    // Cargo tells crates apart by their paths in the workspace: in another folder they are others than the present ones.
    let next = folder.join("next");
    for part in ["plugin-api", "host", "tests", "example-plugin"] {
        copy(&source().join(part), &next.join(part));
    }
    for (file, folder) in [("README.md", &*next), ("Cargo.toml", folder), ("Cargo.lock", folder)] {
        fs::copy(source().join(file), folder.join(file)).expect("copied");
    }
    let replace = |file: &str, from: &str, to: &str| {
        let path = folder.join(file);
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(text.matches(from).count(), 1, "{from:?} stands once in {file}");
        fs::write(path, text.replace(from, to)).expect("written");
    };
    for (file, from, to) in ADDITIONS {
        replace(&format!("next/{file}"), from, to);
    }
    // Every crate of the host and of the API is the next one's.
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).expect("there");
    let text =
        ["\"plugin-api", "\"host"].iter().fold(text, |text, part| text.replace(part, &part.replace('"', "\"next/")));
    let text = text.replace("\"example-plugin\", \"example-plugin/addon\"", "\"new-plugin\"");
    fs::write(manifest, text).expect("written");
    replace("Cargo.toml", "billhook-plugin-api = { version = \"1.2.0\"", "billhook-plugin-api = { version = \"1.3.0\"");
    fs::create_dir_all(folder.join("new-plugin/src")).expect("made");
    fs::write(
        folder.join("new-plugin/Cargo.toml"),
        "[package]\nname = \"new-plugin\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nbillhook-plugin-api.workspace = true\n",
    )
    .expect("written");
    fs::write(folder.join("new-plugin/src/lib.rs"), NEW_PLUGIN).expect("written");
    build(folder, &["-p", "billhook-next", "--lib", "--bin", "billhook-next", "-p", "new-plugin"]);
}

/// Loads a plugin into a host of either version and calls it.
struct Host {
    home: Home,
    program: PathBuf,
}

impl Host {
    fn of(program: &Path) -> Self {
        Host { home: Home::new(), program: program.to_owned() }
    }

    fn run(&self, arguments: &[&str]) -> crate::support::Run {
        run(Command::new(&self.program).args(arguments).env("BILLHOOK_HOME", self.home.path()))
    }

    fn load(&self, library: &str) -> String {
        self.load_with(library, &[])
    }

    fn load_with(&self, library: &str, events: &[&str]) -> String {
        let library = fs::read(built(library)).expect("built");
        let package = Package::new("Grown").patched(|bytes| *bytes = library);
        // What hears of events has to list them.
        let package = if events.is_empty() { package } else { package.field("events", json!(events)) };
        let package = package.write(self.home.folder());
        self.run(&["loadplugin", package.to_str().expect("UTF-8")]).succeeded().stderr
    }

    fn call(&self, hook: &str, objects: &Value) -> crate::support::Run {
        let objects = self.home.file("objects.json", &objects.to_string());
        self.run(&["callplugin", "grown", hook, "--objects", &objects])
    }
}

#[test]
fn plugins_and_hosts_of_different_minor_versions_work_together() {
    let folder = tempfile::tempdir().expect("a folder");
    build_next(folder.path());
    build(&source().join("tests/frozen"), &["-p", "old-plugin"]);
    build(&source().join("tests/frozen/1.1.0"), &["-p", "listening-plugin"]);
    let (present, next) = (Path::new(BILLHOOK), built("billhook-next"));

    let objects = json!({"asset": asset("Grown"), "order": order()});
    let mut with_language = objects.clone();
    with_language["asset"]["language"] = json!("fi");

    for program in [present, &next] {
        let host = Host::of(program);
        assert_eq!(host.load("libold_plugin.so"), "", "an old plugin is nothing to warn of");
        let answer = host.call("on_product_acquisition", &objects).succeeded().json();
        assert_eq!(answer["changes"]["meta_info"], json!(["asset-1", "item-1", "ada"]));
        host.call("on_product_suspension", &objects).failed_with(&["forbidden: not by an old plugin"]);

        let host = Host::of(program);
        assert_eq!(host.load_with("liblistening_plugin.so", &["clients.create"]), "");
        host.run(&["emit", "clients.create"]).succeeded();
        let answer = host.call("on_product_acquisition", &objects).succeeded().json();
        assert_eq!(answer["changes"]["meta_info"], "clients.create");
    }
    let old_in_new = Host::of(&next);
    old_in_new.load("libold_plugin.so");
    assert_eq!(old_in_new.call("on_product_renewal", &with_language).succeeded().json()["outcome"], "not implemented");

    let new_in_new = Host::of(&next);
    assert_eq!(new_in_new.load("libnew_plugin.so"), "");
    let answer = new_in_new.call("on_product_acquisition", &with_language).succeeded().json();
    assert_eq!(answer["changes"]["meta_info"], "fi");
    let answer = new_in_new.call("on_product_renewal", &with_language).succeeded().json();
    assert_eq!(answer["changes"]["meta_info"], "renewed");

    let new_in_old = Host::of(present);
    let warned = new_in_old.load("libnew_plugin.so");
    assert!(warned.contains("implements on_product_renewal, which this host doesn't have and never calls"), "{warned}");
    assert!(warned.contains("built with API 1.3.0"), "{warned}");
    let answer = new_in_old.call("on_product_acquisition", &objects).succeeded().json();
    assert_eq!(answer["changes"]["meta_info"], "no language");
}
