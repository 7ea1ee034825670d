//! A control group for each worker, where the system gave the host a place for them: its memory is counted and bounded whole, pipes
//! and sockets with it, and where it takes too much, it is ended and nobody else.
//!
//! The place is the parent of the host's own group (cgroup v2), where that was delegated to the host and holds no process itself: so
//! systemd makes it with `Delegate=memory` and `DelegateSubgroup=`. Nothing is looked for elsewhere, because a group that is not the
//! host's is somebody else's to arrange.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

use uuid::Uuid;

/// Where systemd and containers have the one hierarchy.
const ROOT: &str = "/sys/fs/cgroup";
/// What workers' groups are called.
const WORKER: &str = "billhook-worker-";
/// What a worker's group may hold beside the memory that the plugin may have: the program, and the kernel's part.
const BESIDE_MB: u64 = 64;

/// The group of one worker. Dropping it ends what is left in it.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    memory_mb: u64,
}

impl Cgroup {
    /// Makes a group for a process and what it will start. `None` where there is no place for one.
    pub fn make(memory_mb: u64) -> Option<Self> {
        static PLACE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let place = PLACE.get_or_init(|| {
            let own = fs::read_to_string("/proc/self/cgroup").ok()?;
            let found = place(Path::new(ROOT), &own);
            match &found {
                Some(place) => {
                    tracing::debug!(place = %place.display(), "each worker gets a control group");
                    sweep(place);
                }
                None => tracing::debug!("workers get no control groups: the system delegated no place for them"),
            }
            found
        });
        let made = Self::make_in(place.as_deref()?, memory_mb);
        made.map_err(|error| tracing::warn!("a worker gets no control group: {error}")).ok()
    }

    fn make_in(place: &Path, memory_mb: u64) -> io::Result<Self> {
        let folder = place.join(format!("{WORKER}{}", Uuid::now_v7()));
        fs::create_dir(&folder)?;
        let group = Cgroup { folder, memory_mb };
        let bytes = (memory_mb + BESIDE_MB).saturating_mul(1024 * 1024);
        group.write("memory.max", &bytes.to_string())?;
        // Where the kernel has no swap, it has no such file.
        let _ = group.write("memory.swap.max", "0");
        group.write("memory.oom.group", "1")?;
        Ok(group)
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.folder.join(name), value)
    }

    /// Puts a process into the group, with what it will start.
    pub fn add(&self, process: u32) {
        if let Err(error) = self.write("cgroup.procs", &process.to_string()) {
            tracing::warn!(process, "a worker can't be put into its control group: {error}");
        }
    }

    /// Returns what to say of a worker that took too much memory.
    pub fn problem(&self) -> Option<String> {
        let events = fs::read_to_string(self.folder.join("memory.events")).ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        (kills.trim() != "0").then(|| format!("it took more than {} MiB of memory in all", self.memory_mb + BESIDE_MB))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.write("cgroup.kill", "1");
        // What was killed is gone in a moment; a group that is left is deleted by a later host.
        for _ in 0..50 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(2)),
                _ => return,
            }
        }
    }
}

/// The place for workers' groups, by what `/proc/self/cgroup` says.
fn place(root: &Path, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = root.join(own.strip_prefix('/')?);
    let place = own.parent().filter(|place| place.starts_with(root) && *place != root)?;
    // Where a process is in it, its controllers can't be given on.
    if !fs::read_to_string(place.join("cgroup.procs")).ok()?.trim().is_empty() || !is_delegated(place) {
        return None;
    }
    let gives = |controllers: &str| controllers.split_whitespace().any(|controller| controller == "memory");
    let control = place.join("cgroup.subtree_control");
    if !gives(&fs::read_to_string(&control).ok()?) {
        fs::write(&control, "+memory").ok()?;
    }
    Some(place.to_owned())
}

/// Whether systemd marked a group as one whose arrangement is left to the service in it.
fn is_delegated(place: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(place, name, &mut value[..]).is_ok_and(|length| &value[..length] == b"1")
    })
}

/// Deletes groups that hosts left which were killed. One with a process in it stays.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(WORKER)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    /// A folder that looks like a hierarchy, with a service whose process is in a group of its own.
    fn hierarchy(is_delegated: bool, procs: &str, controllers: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let service = root.path().join("system.slice/billhook.service");
        fs::create_dir_all(service.join("host")).expect("made");
        fs::write(service.join("cgroup.procs"), procs).expect("written");
        fs::write(service.join("cgroup.subtree_control"), controllers).expect("written");
        if is_delegated {
            rustix::fs::setxattr(&service, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).expect("set");
        }
        root
    }

    #[test]
    fn a_place_is_where_systemd_left_the_arrangement_to_the_service() {
        const OWN: &str = "0::/system.slice/billhook.service/host\n";
        let cases = [
            ("delegated", true, "", "", OWN, true),
            ("memory is given on already", true, "", "cpu memory pids", OWN, true),
            ("not delegated", false, "", "memory", OWN, false),
            ("with a process in it", true, "4711\n", "memory", OWN, false),
            (
                "the host is in the service's own group",
                true,
                "",
                "memory",
                "0::/system.slice/billhook.service\n",
                false,
            ),
            ("the host is in the root", true, "", "memory", "0::/\n", false),
            ("above the root of the name space", true, "", "memory", "0::/../../other/host\n", false),
            ("two hierarchies", true, "", "memory", "4:memory:/system.slice/billhook.service/host\n", false),
        ];
        for (what, is_delegated, procs, controllers, own, is_place) in cases {
            let root = hierarchy(is_delegated, procs, controllers);
            let service = root.path().join("system.slice/billhook.service");
            let found = place(root.path(), own);
            assert_eq!(found.as_ref(), is_place.then_some(&service), "{what}");
            let control = fs::read_to_string(service.join("cgroup.subtree_control")).expect("there");
            assert!(control.contains("memory") || !is_place, "{what}: {control:?}");
        }
    }

    #[test]
    fn a_group_bounds_all_memory_and_tells_what_was_ended_for_it() {
        let place = tempfile::tempdir().expect("a folder");
        let group = Cgroup::make_in(place.path(), 512).expect("made");
        let read = |name: &str| fs::read_to_string(group.folder.join(name)).expect("there");
        group.add(4711);
        let written = ["memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs"].map(read);
        assert_eq!(written, ["603979776", "0", "1", "4711"]);
        for (events, expected) in [
            ("low 0\noom 1\noom_kill 0\noom_group_kill 0\n", None),
            ("low 0\noom 1\noom_kill 2\n", Some("it took more than 576 MiB of memory in all")),
        ] {
            fs::write(group.folder.join("memory.events"), events).expect("written");
            assert_eq!(group.problem().as_deref(), expected);
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "it says what it skips")]
    fn what_is_left_in_a_group_ends_with_it() {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = root.and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let folder = Path::new(root).join(format!("{WORKER}{}", Uuid::now_v7()));
        if root.is_empty() || fs::create_dir(&folder).is_err() {
            eprintln!("skipped: no control group can be made here, so none is ended");
            return;
        }
        let group = Cgroup { folder: folder.clone(), memory_mb: 1 };
        let mut child = Command::new("sleep").arg("600").spawn().expect("started");
        group.add(child.id());
        let processes = fs::read_to_string(folder.join("cgroup.procs")).expect("there");
        assert_eq!(processes.trim(), child.id().to_string());
        drop(group);
        assert_eq!(child.wait().expect("it ended").signal(), Some(9));
        assert!(!folder.exists());
    }
}
