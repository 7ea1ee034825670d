//! Disks in trouble: a small one of its own for a home, and one whose calls fail with a number.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Home, Killed, library};

/// A disk in memory that only programs see that are run on it.
pub(crate) struct SmallDisk {
    /// What keeps the disk there.
    keeper: Killed,
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts a disk at a folder, with options of `tmpfs`; `None` where this user can't.
    fn at(folder: &Path, options: &str) -> Option<Self> {
        let script = "mount -t tmpfs -o \"$1\" disk \"$2\" && echo there && exec cat";
        let mut command = Command::new("unshare");
        // As nobody special, in a namespace of users of its own.
        let spaces: &[&str] =
            if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
        command.args(spaces).args(["sh", "-c", script, "sh", options]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = Killed::start(&mut command);
        let mut said = String::new();
        BufReader::new(keeper.0.stdout.take()?).read_line(&mut said).ok()?;
        (said == "there\n").then(|| SmallDisk { keeper, folder: folder.to_owned() })
    }

    /// A program that sees the disk.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let spaces: &[&str] = if rustix::process::geteuid().is_root() {
            &["--mount"]
        } else {
            &["--user", "--preserve-credentials", "--mount"]
        };
        command.arg(format!("--target={}", self.keeper.0.id())).args(spaces).args(["--", program]);
        command
    }

    /// Where this process finds a file of the disk.
    fn seen(&self, name: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").expect("absolute");
        Path::new(&format!("/proc/{}/root", self.keeper.0.id())).join(folder).join(name)
    }

    /// Mounts it anew, with other options.
    pub(crate) fn remount(&self, options: &str) {
        let mut command = self.command("mount");
        command.args(["-o", &format!("remount,{options}")]).arg(&self.folder);
        assert!(command.status().expect("it starts").success(), "{options}");
    }

    /// Writes a file that may be run.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.seen(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    }

    /// Takes all room that is left.
    pub(crate) fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.seen("filler")).expect("made");
        for size in [1024 * 1024, 4096] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Makes files until there can be no more.
    pub(crate) fn fill_files(&self) {
        fs::create_dir(self.seen("filler")).expect("made");
        let mut names = 0..;
        while File::create(self.seen("filler").join(names.next().unwrap_or(0).to_string())).is_ok() {}
    }

    /// Gives the room back.
    pub(crate) fn empty(&self) {
        let filler = self.seen("filler");
        if filler.is_dir() { fs::remove_dir_all(filler) } else { fs::remove_file(filler) }.expect("removed");
    }
}

/// Tells what a test can't try here.
#[expect(clippy::print_stderr, reason = "it is told to whoever runs the tests")]
pub(crate) fn skip(what: &str) {
    eprintln!("skipped: {what}");
}

impl Home {
    /// A home on a small disk of its own; `None`, told on standard error, where this user can make none.
    pub(crate) fn on_small_disk(options: &str) -> Option<Self> {
        Self::with_disk_at("", options)
    }

    /// A home with a disk at one of its folders.
    pub(crate) fn with_disk_at(folder: &str, options: &str) -> Option<Self> {
        let mut home = Home::new();
        let folder = home.path().join(folder);
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&folder).expect("made");
        home.disk = SmallDisk::at(&folder, &format!("mode=700,{options}"));
        if home.disk.is_none() {
            skip("this user can mount no disk");
        }
        home.disk.is_some().then_some(home)
    }

    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it has a disk of its own")
    }

    /// A home on a disk that can be let fail; see [`Home::fail`].
    pub(crate) fn on_failing_disk() -> Self {
        let mut home = Home::new();
        let rules = home.folder().join("rules");
        home.environment = vec![("LD_PRELOAD", library("failing_disk")), ("BILLHOOK_DISK_RULES", rules)];
        home
    }

    /// Lets calls on files of the home fail with a number, in all programs that run on it: `write`, `sync` or `make`. Without
    /// calls, none fails any more.
    pub(crate) fn fail(&self, calls: &[&str], number: i32) {
        let rules = self.folder().join("rules");
        if calls.is_empty() {
            return fs::remove_file(rules).expect("removed");
        }
        let mut text = format!("{}\n", self.path().display());
        calls.iter().for_each(|call| text += &format!("{call} {number}\n"));
        // At once, as whoever reads them sees all or nothing.
        let begun = self.folder().join("rules-begun");
        fs::write(&begun, text).expect("written");
        fs::rename(begun, rules).expect("moved");
    }
}
