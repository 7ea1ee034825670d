//! Installing a package of 5 MB against unzipping, hashing and syncing the same bytes once.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod support;

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use billhook::{Host, Install};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 15;

/// What nobody can do without: unzip, hash, write, and sync once.
fn floor(package: &Path, folder: &Path) {
    let mut archive = zip::ZipArchive::new(File::open(package).expect("there")).expect("a zip");
    let mut hash = Sha256::new();
    let mut all = Vec::new();
    for index in 0..archive.len() {
        archive.by_index(index).expect("there").read_to_end(&mut all).expect("sound");
    }
    hash.update(&all);
    std::hint::black_box(hash.finalize());
    let file = folder.join("floor");
    fs::write(&file, &all).expect("written");
    File::open(&file).expect("there").sync_all().expect("synced");
    fs::remove_file(file).expect("deleted");
}

/// The child process, doing nothing: what starting and awaiting one costs.
fn child() -> Duration {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe().expect("a benchmark has a file"));
    command.args(["__billhook-child", "nothing"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status().expect("starts");
    start.elapsed()
}

fn main() {
    billhook::run_child_process();
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let package = support::package("reader", "Reader", 10_000_000, folder.path());
    let mut homes = 0;
    let (floor, install) = support::in_turn(
        ROUNDS,
        || floor(&package, folder.path()),
        || {
            homes += 1;
            let host = Host::open(folder.path().join(format!("home-{homes}"))).expect("opens");
            host.install(&package, &Install::default()).expect("installed");
        },
    );
    let child = support::median((0..ROUNDS).map(|_| child()).collect());
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (floor, install, child) = (ms(floor), ms(install), ms(child));
    println!(
        "install of {:.1} MB: unzip, hash and one sync {floor:.2} ms, an empty child process {child:.2} ms, \
         install {install:.2} ms, without the child process {:.2} times the floor",
        fs::metadata(&package).expect("there").len() as f64 / 1e6,
        (install - child) / floor
    );
}
