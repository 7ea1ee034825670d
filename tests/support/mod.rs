//! Packages of fixtures, homes that are thrown away, and runs of the command.

mod browser;
mod disk;
mod handler_server;
mod raw_zip;
mod server;
mod terminal;
mod usage_api;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use billhook::{
    Host, HostOptions,
    data::{Asset, Contract, Offering, Order, User},
    package,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use browser::Browser;
pub(crate) use disk::{SmallDisk, skip};
pub(crate) use handler_server::{Call, HandlerServer, Reply};
pub(crate) use raw_zip::{Entry, RawZip};
pub(crate) use server::{Answer, Server, token};
pub(crate) use terminal::{run_on_terminal, terminal};
pub(crate) use usage_api::{Fault, Paging, UsageServer, characteristic};

/// The command.
pub(crate) const BILLHOOK: &str = env!("CARGO_BIN_EXE_billhook");

/// The library of a fixture, which cargo builds beside this binary.
pub(crate) fn library(fixture: &str) -> PathBuf {
    let name = format!("{}{fixture}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let here = std::env::current_exe().expect("a test has a file");
    let folder = here.parent().and_then(Path::parent).expect("it is in target/PROFILE/deps");
    let library = folder.join("examples").join(name);
    assert!(
        library.exists(),
        "{} is missing; run `cargo test` once without --test and without a filter",
        library.display()
    );
    library
}

/// A package: of the fixture `healthy` and version 1.0, unless said otherwise.
#[derive(Clone)]
pub(crate) struct Package {
    manifest: Value,
    library: Vec<u8>,
    library_name: String,
    extra: Vec<(String, Vec<u8>)>,
    /// What stands in package.json as it is written, for a field's name: its value.
    written: Vec<(String, String)>,
}

impl Package {
    pub(crate) fn new(name: &str) -> Self {
        let manifest =
            json!({"name": name, "author": "acme", "version": "1.0", "module": "fixture", "formats": ["URL"]});
        let library_name = format!("{}fixture{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        Package { manifest, library: Vec::new(), library_name, extra: Vec::new(), written: Vec::new() }.of("healthy")
    }

    /// Takes the library of another fixture.
    pub(crate) fn of(mut self, fixture: &str) -> Self {
        self.library = fs::read(library(fixture)).expect("readable");
        self
    }

    pub(crate) fn version(self, version: &str) -> Self {
        self.field("version", json!(version))
    }

    /// Sets a field of package.json.
    pub(crate) fn field(mut self, key: &str, value: Value) -> Self {
        self.manifest[key] = value;
        self
    }

    /// Sets a field of package.json to what is written here, which may be more than a value can hold.
    pub(crate) fn written(mut self, key: &str, text: &str) -> Self {
        self.written.push((key.to_owned(), text.to_owned()));
        self
    }

    /// Puts the library elsewhere.
    pub(crate) fn library_at(mut self, path: &str) -> Self {
        self.library_name = path.to_owned();
        self
    }

    /// Changes the bytes of the library.
    pub(crate) fn patched(mut self, patch: impl FnOnce(&mut Vec<u8>)) -> Self {
        patch(&mut self.library);
        self
    }

    /// Adds a file.
    pub(crate) fn with(mut self, path: &str, content: &[u8]) -> Self {
        self.extra.push((path.to_owned(), content.to_vec()));
        self
    }

    /// Writes the package into a folder.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let files = tempfile::tempdir().expect("a folder");
        let mut packed = Vec::new();
        let mut manifest = self.manifest.to_string();
        for (key, text) in &self.written {
            manifest = manifest.replacen('{', &format!("{{\n  {key:?}: {text},"), 1);
        }
        let content =
            [("package.json".to_owned(), manifest.into_bytes()), (self.library_name.clone(), self.library.clone())];
        for (index, (name, bytes)) in content.iter().chain(&self.extra).enumerate() {
            let path = files.path().join(index.to_string());
            fs::write(&path, bytes).expect("written");
            packed.push((name.clone(), path));
        }
        let (name, version) = (&self.manifest["name"], &self.manifest["version"]);
        let target = folder.join(format!("{}-{}.zip", name.as_str().unwrap_or("x"), version.as_str().unwrap_or("x")));
        package::pack(&target, &packed).expect("packed");
        target
    }
}

/// Replaces bytes that stand once in a library.
pub(crate) fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let found: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
    assert!(!found.is_empty(), "{:?} is not in the library", String::from_utf8_lossy(from));
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}

/// How a run of the command ended.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// It failed, as a refusal or failure does, and said so on standard error.
    #[track_caller]
    pub(crate) fn failed_with(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A home that is deleted with the test.
pub(crate) struct Home {
    folder: TempDir,
    /// A disk of its own, where it has one.
    disk: Option<SmallDisk>,
    /// What programs on it are run with beside.
    environment: Vec<(&'static str, PathBuf)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Home { folder: tempfile::tempdir().expect("a folder"), disk: None, environment: Vec::new() }
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A run of the command on this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.disk {
            Some(disk) => disk.command(BILLHOOK),
            None => Command::new(BILLHOOK),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(arguments).env("BILLHOOK_HOME", self.path()).current_dir(self.folder()).stdin(Stdio::null());
        heeding_hang_ups(&mut command);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// Writes a package and loads it with the command.
    pub(crate) fn load(&self, package: &Package) -> Run {
        let package = package.write(self.folder());
        self.run(&["loadplugin", package.to_str().expect("UTF-8")])
    }

    /// A host on this home, in this process.
    pub(crate) fn host(&self) -> Host {
        Host::open_with(self.path(), options()).expect("the home opens")
    }

    /// Writes a file and answers its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder().join(name);
        fs::write(&path, content).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Every file and folder of the home, without SQLite's own.
    pub(crate) fn content(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.path()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("readable").path();
                let name = path.strip_prefix(self.path()).expect("inside").to_str().expect("UTF-8").to_owned();
                if path.is_dir() {
                    open.push(path);
                }
                if !name.starts_with("registry.db-") {
                    found.push(name);
                }
            }
        }
        found.sort();
        found
    }
}

/// Options for a host in this process, which isn't a child process itself.
pub(crate) fn options() -> HostOptions {
    HostOptions::new().child_program(BILLHOOK)
}

pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().expect("the command starts");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// An asset of a type.
pub(crate) fn asset(asset_type: &str) -> Asset {
    Asset {
        id: "asset-1".to_owned(),
        resource_type: asset_type.to_owned(),
        provider: User { username: "acme".to_owned(), ..User::default() },
        ..Asset::default()
    }
}

/// An order with one contract.
pub(crate) fn order() -> Order {
    Order {
        order_id: "order-1".to_owned(),
        customer: User { username: "ada".to_owned(), ..User::default() },
        date: "2026-01-31T12:00:00Z".to_owned().try_into().expect("a date"),
        tax_address: Default::default(),
        contracts: vec![Contract {
            item_id: "item-1".to_owned(),
            offering: Offering { off_id: "offering-1".to_owned(), ..Offering::default() },
            ..Contract::default()
        }],
        extra: Default::default(),
    }
}

/// Calls `on_product_acquisition` for an asset, with an order of one contract.
pub(crate) fn acquire(host: &Host, asset: &Asset) -> Result<billhook::data::AssetChanges, billhook::HookError> {
    let order = order();
    host.on_product_acquisition(asset, &order.contracts[0], &order)
}

/// What the hook wrote into `meta_info`.
pub(crate) fn acquired(host: &Host, asset_type: &str) -> Result<String, billhook::HookError> {
    let changes = acquire(host, &asset(asset_type))?;
    Ok(changes.meta_info.map(|json| json.as_str().to_owned()).unwrap_or_default())
}

/// Waits until something holds; a minute is enough on any machine.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited in vain for {what}");
}

/// Lets a test have a process of its own, where it counts what the process holds. False in the process that started it.
#[track_caller]
pub(crate) fn alone(test: &str) -> bool {
    const MARK: &str = "BILLHOOK_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().expect("a test has a file"));
    command.args(["--exact", test, "--nocapture"]).env(MARK, "1");
    let output = command.output().expect("it starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Lets a command heed SIGHUP, also where whoever runs the tests ignores it, as `nohup` does.
fn heeding_hang_ups(command: &mut Command) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    if ignored & 1 == 1 {
        // SAFETY: between fork and exec it makes one system call, which is safe there.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, || {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
    }
}

/// A process that is killed when it is not needed any more, however that comes.
pub(crate) struct Killed(pub(crate) std::process::Child);

impl Killed {
    pub(crate) fn start(command: &mut Command) -> Self {
        Killed(command.spawn().expect("started"))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal by its number: also one without a name.
#[track_caller]
pub(crate) fn signal(process: u32, number: i32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{number} {process}")]).status().expect("a shell");
    assert!(sent.success(), "signal {number} to {process}");
}

/// A home with the plugin `rogue`, which does what its asset says.
pub(crate) fn home_with_rogue() -> Home {
    let home = Home::new();
    home.load(&Package::new("Rogue").of("rogue")).succeeded();
    home
}

/// The objects of a call that has `rogue` do something.
pub(crate) fn deed(what: &str, how: &str) -> Value {
    let mut asset = json!(asset("Rogue"));
    asset["meta_info"] = json!({ "do": what, "what": how });
    json!({ "asset": asset, "order": order() })
}
