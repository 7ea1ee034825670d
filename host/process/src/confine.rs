//! What keeps a plugin's process from doing harm: limits, Landlock for files, seccomp for system calls.
//!
//! Applied by the process to itself, before it opens the plugin's library, and while it has one thread: all later threads and
//! processes have it too, and nothing takes it off.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use billhook_model::{Confinement, WorkerLimits};

/// What a process is confined to.
#[derive(Debug)]
pub struct Bounds<'a> {
    /// The operator's limits.
    pub limits: &'a WorkerLimits,
    /// What it reads: the package.
    pub package: &'a Path,
    /// What it reads and writes: its own folder.
    pub folder: &'a Path,
}

/// Confines this process, which has to have one thread. Returns what the kernel lacks.
///
/// # Errors
/// The kernel lacks what the operator didn't allow to lack, or a limit can't be set.
pub fn confine(bounds: &Bounds<'_>) -> io::Result<Vec<Confinement>> {
    be_killed_first();
    limit(bounds.limits)?;
    rustix::thread::set_no_new_privs(true)?;
    drop_capabilities()?;
    let mut lacks = Vec::new();
    let mut note = |confinement: Confinement, result: Result<bool, String>| match result {
        Ok(true) => Ok(()),
        Ok(false) if bounds.limits.may_lack.contains(&confinement) => {
            lacks.push(confinement);
            Ok(())
        }
        Ok(false) => Err(io::Error::other(format!(
            "the kernel lacks {name}, which confines workers; update it, or allow {name:?} to be missing in \"may_lack\"",
            name = confinement.name()
        ))),
        Err(problem) => Err(io::Error::other(format!("{} can't be set up: {problem}", confinement.name()))),
    };
    note(Confinement::Landlock, confine_files(bounds).map_err(|error| error.to_string()))?;
    note(Confinement::Seccomp, confine_calls(bounds.limits))?;
    Ok(lacks)
}

/// Returns what the kernel of this machine lacks of what confines processes.
pub fn lacking() -> Vec<Confinement> {
    // SAFETY: both calls are given numbers and a null pointer, with which they only answer what the kernel has.
    let (landlock, seccomp) = unsafe {
        let version = 1;
        (
            libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<()>(), 0, version),
            libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0),
        )
    };
    let mut lacking = Vec::new();
    // From version 3 on, Landlock also keeps files from being cut short.
    if landlock < 3 {
        lacking.push(Confinement::Landlock);
    }
    if seccomp < 0 {
        lacking.push(Confinement::Seccomp);
    }
    lacking
}

/// Makes this process the first that the kernel kills where memory runs out: its host goes on. Nothing that it starts can take
/// that back.
pub fn be_killed_first() {
    // A kernel without it kills whom it likes.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

fn limit(limits: &WorkerLimits) -> io::Result<()> {
    const MIB: u64 = 1024 * 1024;
    let memory = limits.memory_mb.saturating_mul(MIB);
    // Never more than this process has: nobody may raise that.
    let set = |resource: Resource, value: u64| {
        let value = getrlimit(resource).maximum.map_or(value, |most| most.min(value));
        setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
    };
    // What it may write to; and, with room for what libraries map without using it, all that it may map.
    set(Resource::Data, memory)?;
    set(Resource::As, memory.saturating_add(4096 * MIB))?;
    // Files in memory count for nobody else.
    set(Resource::Fsize, memory)?;
    set(Resource::Nofile, limits.open_files)?;
    set(Resource::Core, 0)?;
    set(Resource::Memlock, MIB)?;
    Ok(())
}

/// A plugin needs none, whoever the host runs as.
fn drop_capabilities() -> io::Result<()> {
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// What every program needs to be able to read.
const SYSTEM: [&str; 14] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/nix/store",
    "/sys/fs/cgroup",
];
/// What finding other machines, and trusting them, needs.
const NETWORK: [&str; 16] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    // Not the whole folders, which hold private keys too.
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
/// What can be read without end; and nothing can be done to them.
const DEVICES: [&str; 3] = ["/dev/zero", "/dev/random", "/dev/urandom"];

/// Lets this process read and write certain files and no others. Answers whether the kernel can do that.
fn confine_files(bounds: &Bounds<'_>) -> Result<bool, landlock::RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut read_and_run = read;
    if bounds.limits.processes {
        read_and_run |= AccessFs::Execute;
    }
    // Devices are nothing that a plugin makes.
    let write =
        AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev | AccessFs::Execute);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let mut rules: Vec<(PathBuf, landlock::BitFlags<AccessFs>)> = Vec::new();
    rules.extend(SYSTEM.iter().map(|path| (path.into(), read_and_run)));
    rules.extend(DEVICES.iter().map(|path| (path.into(), AccessFs::ReadFile.into())));
    rules.push(("/dev/null".into(), AccessFs::ReadFile | AccessFs::WriteFile));
    if bounds.limits.processes {
        rules.extend(
            ["/bin", "/usr/bin", "/usr/local/bin", "/usr/share"].iter().map(|path| (path.into(), read_and_run)),
        );
    }
    if bounds.limits.network {
        rules.extend(NETWORK.iter().map(|path| (path.into(), read)));
    }
    rules.push((bounds.package.to_owned(), read_and_run));
    rules.push((bounds.folder.to_owned(), read | write));
    // Its own memory map and the like: the standard library looks at them.
    rules.push((format!("/proc/{}", std::process::id()).into(), read));
    rules.extend(bounds.limits.read.iter().map(|path| (path.clone(), read_and_run)));
    rules.extend(bounds.limits.write.iter().map(|path| (path.clone(), read | write)));
    for (path, access) in rules {
        // What isn't there can't be read either.
        let Ok(opened) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced && !lacking().contains(&Confinement::Landlock))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).map_err(|error| error.to_string())
}

/// What no plugin may do: look into other processes, change who may read files, change the system, or get round these rules.
const NEVER: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    // Those of others can be found by counting.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    // Nor are these queues files that Landlock knows of; and they outlive who made them.
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Where the memory of the user's other processes lies.
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_process_mrelease,
    // All files of the machine, at once: everybody waits for that.
    libc::SYS_sync,
    libc::SYS_syncfs,
    // Memory that is a file counts for no process.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    // Nor do pages that a pipe holds.
    libc::SYS_vmsplice,
    libc::SYS_splice,
    libc::SYS_tee,
    // The times of files, which Landlock doesn't know of; and what becomes of files that it may not read.
    libc::SYS_utimensat,
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    // fchmodat2, setxattrat, removexattrat and file_setattr, which the library doesn't name yet.
    452,
    463,
    466,
    469,
];

/// Lets this process make certain system calls and no others. Answers whether the kernel can do that.
fn confine_calls(limits: &WorkerLimits) -> Result<bool, String> {
    if lacking().contains(&Confinement::Seccomp) {
        return Ok(false);
    }
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let own = u64::from(std::process::id());
    let to_others = |index| Ok::<_, String>(vec![rule(vec![argument(index, Ne, own)?])?]);
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    // Signals to itself only; and its death with its host stays.
    refused.insert(libc::SYS_kill, to_others(0)?);
    refused.insert(libc::SYS_tgkill, to_others(0)?);
    refused.insert(libc::SYS_rt_sigqueueinfo, to_others(0)?);
    refused.insert(libc::SYS_rt_tgsigqueueinfo, to_others(0)?);
    refused.insert(libc::SYS_tkill, Vec::new());
    // Nor signals by way of a file's owner; a pipe holds what pipes hold by default; and a lease on a file of the package would hold up
    // who opens it, as a mark would change it for everybody.
    let commands: [i32; 6] =
        [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX, libc::F_SETPIPE_SZ, libc::F_SETLEASE, libc::F_NOTIFY];
    refused.insert(libc::SYS_fcntl, any(1, commands.iter().map(|command| u64::from(command.unsigned_abs())))?);
    refused.insert(libc::SYS_ioctl, any(1, REQUESTS.into_iter())?);
    refused.insert(libc::SYS_sched_setaffinity, vec![rule(vec![argument(0, Ne, 0)?])?]);
    // Memory that is shared counts for no process either.
    let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
    refused.insert(libc::SYS_mmap, vec![rule(vec![argument(3, MaskedEq(shared), shared)?])?]);
    // A pair of sockets that keep messages apart can send them to sockets with names too.
    let kinds = [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET];
    let kinds: Result<Vec<_>, String> =
        kinds.iter().map(|kind| rule(vec![argument(1, MaskedEq(0xf), *kind as u64)?])).collect();
    refused.insert(libc::SYS_socketpair, kinds?);
    // A socket that lingers, handed over, holds up whoever closes it; and what larger buffers hold counts for no process.
    let options =
        [libc::SO_LINGER, libc::SO_SNDBUF, libc::SO_RCVBUF, libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE].into_iter();
    let of_socket =
        |option: i32| rule(vec![argument(1, Eq, libc::SOL_SOCKET as u64)?, argument(2, Eq, option as u64)?]);
    refused.insert(libc::SYS_setsockopt, options.map(of_socket).collect::<Result<_, String>>()?);
    // Nobody connects to a plugin: it would fill the buffers of both ends itself.
    refused.insert(libc::SYS_listen, Vec::new());
    refuse_marked_files(&mut refused)?;
    refused.insert(libc::SYS_prctl, vec![rule(vec![argument(0, Eq, libc::PR_SET_PDEATHSIG as u64)?])?]);
    // Limits of its own only: 0 is this process.
    refused.insert(libc::SYS_prlimit64, vec![rule(vec![argument(0, Ne, 0)?, argument(0, Ne, own)?])?]);
    if limits.network {
        // Nobody on this machine but through the network: sockets with names lead to the system's own services.
        let allowed = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
        let conditions: Result<_, String> = allowed.iter().map(|family| argument(0, Ne, *family as u64)).collect();
        refused.insert(libc::SYS_socket, vec![rule(conditions?)?]);
    } else {
        refused.insert(libc::SYS_socket, Vec::new());
    }
    // Their flags are in memory, where a filter can't look; as if they were not there, the C library takes `clone` and `openat`.
    let absent: BTreeMap<i64, Vec<SeccompRule>> =
        [(libc::SYS_clone3, Vec::new()), (libc::SYS_openat2, Vec::new())].into();
    let spaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let has_flag = |flag: &i32| rule(vec![argument(0, MaskedEq(*flag as u64), *flag as u64)?]);
    let mut clones: Vec<SeccompRule> = spaces.iter().map(has_flag).collect::<Result<_, String>>()?;
    if !limits.processes {
        let thread = libc::CLONE_THREAD as u64;
        clones.push(rule(vec![argument(0, MaskedEq(thread), 0)?])?);
        refused.insert(libc::SYS_execve, Vec::new());
        refused.insert(libc::SYS_execveat, Vec::new());
        #[cfg(target_arch = "x86_64")]
        {
            refused.insert(libc::SYS_fork, Vec::new());
            refused.insert(libc::SYS_vfork, Vec::new());
        }
    }
    refused.insert(libc::SYS_clone, clones);
    #[cfg(target_arch = "x86_64")]
    refuse_x32()?;
    for (calls, error) in [(refused, libc::EPERM), (absent, libc::ENOSYS)] {
        if !calls.is_empty() {
            apply(calls, error.unsigned_abs())?;
        }
    }
    Ok(true)
}

/// Commands and requests that the library doesn't name.
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const REQUESTS: [u64; 12] = [
    // FIOSETOWN and SIOCSPGRP: whom a file sends signals; TIOCSTI and TIOCLINUX: what is typed at a terminal.
    0x8901,
    0x8902,
    0x5412,
    0x541c,
    // FS_IOC_SETFLAGS in two sizes, FS_IOC_FSSETXATTR and FS_IOC_SETVERSION in two sizes: marks of a file that may only be read.
    0x4008_6602,
    0x4004_6602,
    0x401c_5820,
    0x4008_7602,
    0x4004_7602,
    // FS_IOC_SET_ENCRYPTION_POLICY, FS_IOC_ENABLE_VERITY and FIDEDUPERANGE: what a file is kept as.
    0x800c_6613,
    0x4080_6685,
    0xc018_9436,
];

/// Refuses to make files and folders that run as their owner or group whoever starts them, or in which nobody deletes what is
/// another's.
fn refuse_marked_files(refused: &mut BTreeMap<i64, Vec<SeccompRule>>) -> Result<(), String> {
    use SeccompCmpOp::MaskedEq;
    const MARKS: [u64; 3] = [0o4000, 0o2000, 0o1000];
    let creates = libc::O_CREAT as u64;
    let temporary = libc::O_TMPFILE as u64;
    // The mode of a call that opens counts only where it makes a file.
    let opens = |flags: u8, mode: u8| {
        let one = |made: u64, mark: u64| {
            rule(vec![argument(flags, MaskedEq(made), made)?, argument(mode, MaskedEq(mark), mark)?])
        };
        MARKS.iter().flat_map(|mark| [one(creates, *mark), one(temporary, *mark)]).collect::<Result<Vec<_>, String>>()
    };
    let makes = |mode: u8| {
        MARKS.iter().map(|mark| rule(vec![argument(mode, MaskedEq(*mark), *mark)?])).collect::<Result<Vec<_>, String>>()
    };
    refused.insert(libc::SYS_openat, opens(2, 3)?);
    refused.insert(libc::SYS_mkdirat, makes(2)?);
    refused.insert(libc::SYS_mknodat, makes(2)?);
    #[cfg(target_arch = "x86_64")]
    {
        refused.insert(libc::SYS_open, opens(1, 2)?);
        refused.insert(libc::SYS_creat, makes(1)?);
        refused.insert(libc::SYS_mkdir, makes(1)?);
        refused.insert(libc::SYS_mknod, makes(1)?);
    }
    Ok(())
}

/// A rule for each of some values of an argument.
fn any(index: u8, values: impl Iterator<Item = u64>) -> Result<Vec<SeccompRule>, String> {
    values.map(|value| rule(vec![argument(index, SeccompCmpOp::Eq, value)?])).collect()
}

/// Refuses the second set of numbers that calls have on this machine, by which they would pass the lists.
#[cfg(target_arch = "x86_64")]
fn refuse_x32() -> Result<(), String> {
    const X32: u32 = 0x4000_0000;
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let program = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

fn apply(refused: BTreeMap<i64, Vec<SeccompRule>>, error: u32) -> Result<(), String> {
    let here: TargetArch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, SeccompAction::Errno(error), here);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}
