//! A call in a worker process against a bare ping-pong of the same bytes over the same kind of socket between two processes.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod support;

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use billhook::{
    HookObjects, Host, Install, Isolation,
    data::{Asset, Contract, Offering, Order, User},
};
use serde_json::json;

const ROUNDS: usize = 40;
const CALLS: usize = 500;

/// Lets a process run on some processors only: 0 is this one. A pair of processes on one processor takes turns; on two, each
/// wakes the other's. Left to the system, a pair may stay at either for long, and no two pairs could be compared.
fn pin(process: u32, processors: &[usize]) {
    use rustix::thread::{CpuSet, Pid, sched_setaffinity};
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    sched_setaffinity(pid, &set).expect("there are two processors");
}

/// The processes of workers: those that this process's children started.
fn workers() -> Vec<u32> {
    let children = |pid: &str| {
        let read = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        tasks
            .map(read)
            .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let supervisors = children("self");
    supervisors.iter().flat_map(|pid| children(pid)).filter_map(|pid| pid.parse().ok()).collect()
}

/// The process at the other end of the floor: answers so many bytes to so many.
fn pong(arguments: &[String]) -> Option<()> {
    let [marker, request, answer] = arguments else { return None };
    let (mut request, answer) = (vec![0; request.parse().ok()?], vec![b' '; answer.parse().ok()?]);
    if marker != "pong" {
        return None;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).expect("a socket");
    let mut socket = UnixStream::from(socket);
    while socket.read_exact(&mut request).is_ok() {
        socket.write_all(&answer).expect("answered");
    }
    Some(())
}

struct Floor {
    child: Child,
    socket: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Floor {
    fn start(request: usize, answer: usize) -> Self {
        let (socket, its) = UnixStream::pair().expect("sockets");
        let mut command = Command::new(std::env::current_exe().expect("a benchmark has a file"));
        command.args(["pong", &request.to_string(), &answer.to_string()]).stdin(Stdio::from(OwnedFd::from(its)));
        Floor { child: command.spawn().expect("starts"), socket, request: vec![b' '; request], answer: vec![0; answer] }
    }

    fn call(&mut self) {
        self.socket.write_all(&self.request).expect("asked");
        self.socket.read_exact(&mut self.answer).expect("answered");
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

fn objects(contracts: usize) -> (Asset, Order) {
    let asset = Asset {
        id: "61004aba5e05acc115f022f0".into(),
        resource_type: "Healthy".into(),
        provider: User { username: "acme".into(), ..User::default() },
        download_link: Some("https://acme.example/data".into()),
        ..Asset::default()
    };
    let offering = Offering { off_id: "5".into(), asset: Some(asset.clone()), ..Offering::default() };
    let contract = |index: usize| Contract {
        item_id: index.to_string(),
        product_id: Some(format!("product-{index}")),
        offering: offering.clone(),
        ..Contract::default()
    };
    let order = Order {
        order_id: "67".into(),
        customer: User { username: "ada".into(), ..User::default() },
        contracts: (0..contracts).map(contract).collect(),
        ..Order::default()
    };
    (asset, order)
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}

/// Calls a second from several threads at once.
fn rate(host: &Host, asset: &Asset, order: &Order, threads: usize) -> f64 {
    let call = || host.on_product_acquisition(asset, &order.contracts[0], order).expect("it went through");
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..5 * CALLS).for_each(|_| drop(call())));
        }
    });
    (5 * CALLS * threads) as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    billhook::run_child_process();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if pong(&arguments).is_some() {
        return;
    }
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let package = support::package("healthy", "Healthy", 0, folder.path());
    let host = Host::open(folder.path().join("home")).expect("opens");
    let how = Install { isolation: Some(Isolation::Process), ..Install::default() };
    host.install(&package, &how).expect("installed");
    for contracts in [1, 1_000] {
        let (asset, order) = objects(contracts);
        let call = || host.on_product_acquisition(&asset, &order.contracts[0], &order).expect("it went through");
        let changes = call();
        // The bytes of such a call: the objects, without the contracts of the order but for the one that it is about.
        let objects = HookObjects {
            asset: Some(asset.clone()),
            contract: Some(order.contracts[0].clone()),
            order: Some(Order { contracts: Vec::new(), ..order.clone() }),
            ..HookObjects::default()
        };
        let request = json!({"call": {"hook": "on_product_acquisition", "objects": objects}}).to_string().len() + 4;
        let answer = json!({"done": {"changes": changes}}).to_string().len() + 4;
        let mut floor = Floor::start(request, answer);
        for (place, its) in [("on one processor", 0), ("on two", 1)] {
            pin(0, &[0]);
            workers().into_iter().chain([floor.child.id()]).for_each(|process| pin(process, &[its]));
            let (mut floors, mut calls) = (Vec::new(), Vec::new());
            support::in_turn(
                ROUNDS,
                || (0..CALLS).for_each(|_| floors.push(timed(|| floor.call()))),
                || (0..CALLS).for_each(|_| calls.push(timed(|| drop(call())))),
            );
            floors.sort();
            calls.sort();
            println!(
                "order of {contracts}, {place}: {request} bytes there and {answer} back; ping-pong {:.1} µs (p99 {:.1}), call \
                 in a worker {:.1} µs (p99 {:.1}), {:.2} times",
                at(&floors, 0.5),
                at(&floors, 0.99),
                at(&calls, 0.5),
                at(&calls, 0.99),
                at(&calls, 0.5) / at(&floors, 0.5)
            );
        }
    }
    pin(0, &[0, 1]);
    let (asset, order) = objects(1);
    let mut rates = Vec::new();
    for workers in [1, 2] {
        let mut runtime = host.show("healthy").expect("installed").runtime;
        runtime.workers = workers;
        host.set_runtime("healthy", &runtime).expect("it can be run so");
        rate(&host, &asset, &order, workers as usize);
        rates.push(rate(&host, &asset, &order, workers as usize));
    }
    println!("calls a second: {:.0} with 1 worker and thread, {:.0} with 2 of each", rates[0], rates[1]);
}
