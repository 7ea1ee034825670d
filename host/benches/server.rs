//! Hook calls over HTTP on loopback, against an axum handler that parses the same JSON, hops to the blocking pool and answers.
//! The load comes from wrk, which has to be installed.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

#[path = "support/package.rs"]
mod package;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{Json, Router, body::Bytes, routing::post};
use billhook::{HookObjects, Host, Install, Isolation, Scope};
use serde_json::json;

const ROUNDS: usize = 7;
const CONNECTIONS: usize = 32;

/// A server in a process of its own.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it is");
        let address = line.trim().rsplit('/').next().unwrap_or_default().to_owned();
        Server { child, address }
    }

    /// The memory that it holds, in MiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What everybody else's server would do with such a request.
fn floor() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        let parse = post(|body: Bytes| async move {
            let objects: HookObjects = serde_json::from_slice(&body).expect("the objects of a hook");
            // Given back, so that nothing of it can be left out.
            let answer = tokio::task::spawn_blocking(move || {
                json!({"outcome": "ok", "changes": {"meta_info": objects.asset.map(|asset| asset.resource_type)}})
            });
            Json(answer.await.expect("answered"))
        });
        let router = Router::new().route("/parse", parse).route("/echo", post(|body: Bytes| async move { body }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("listening on http://{}", listener.local_addr().expect("an address"));
        axum::serve(listener, router).await.expect("it serves");
    });
}

/// What wrk measured.
#[derive(Clone, Copy)]
struct Load {
    calls: f64,
    rate: f64,
    p99: f64,
}

/// Milliseconds, of a time as wrk writes it.
fn milliseconds(text: &str) -> f64 {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..end].parse().unwrap_or_default();
    number
        * match &text[end..] {
            "us" => 0.001,
            "s" => 1000.0,
            "m" => 60_000.0,
            _ => 1.0,
        }
}

fn wrk(script: &Path, url: &str, connections: usize, seconds: u64) -> Load {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency", "-s"])
        .arg(script)
        .arg(url)
        .output()
        .expect("wrk is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let after =
        |label: &str| said.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim).unwrap_or_default();
    assert!(!said.contains("Non-2xx"), "every call is answered well: {said}");
    let calls = said.lines().find_map(|line| line.trim().split_once(" requests in")).map_or("0", |(calls, _)| calls);
    let number = |text: &str| text.parse().unwrap_or_default();
    Load { calls: number(calls), rate: number(after("Requests/sec:")), p99: milliseconds(after("99%")) }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn objects(asset_type: &str) -> String {
    let asset = json!({"id": "61004aba5e05acc115f022f0", "resource_type": asset_type, "provider": {"username": "acme"},
        "download_link": "https://acme.example/data"});
    let contract = json!({"item_id": "1", "product_id": "p-1", "offering": {"off_id": "5", "asset": asset.clone()}});
    json!({"asset": asset, "order": {"order_id": "67", "customer": {"username": "ada"}, "date": "2026-01-31T12:00:00Z",
        "contracts": [contract]}})
    .to_string()
}

fn script(folder: &Path, name: &str, token: &str, body: &str) -> std::path::PathBuf {
    let text = format!(
        "wrk.method = \"POST\"\nwrk.headers[\"Content-Type\"] = \"application/json\"\n\
         wrk.headers[\"Authorization\"] = \"Bearer {token}\"\nwrk.body = [==[{body}]==]\n"
    );
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

fn main() {
    billhook::run_child_process();
    if std::env::args().any(|argument| argument == "floor") {
        return floor();
    }
    if Command::new("wrk").arg("-v").output().is_err() {
        println!("wrk isn't installed, so nothing is measured");
        return;
    }
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let home = folder.path().join("home");
    let host = Host::open(&home).expect("opens");
    host.install(package::package("healthy", "Healthy", 0, folder.path()), &Install::default()).expect("installed");
    let crashing = Install { isolation: Some(Isolation::Process), ..Install::default() };
    host.install(package::package("crash_in_a_hook", "Crashing", 0, folder.path()), &crashing).expect("installed");
    let mut runtime = host.show("crashing").expect("there").runtime;
    runtime.most_crashes = 1_000_000;
    host.set_runtime("crashing", &runtime).expect("set");
    let (_, token) = host.create_token("bench", Scope::Emit, None).expect("made");
    drop(host);

    let program = env!("CARGO_BIN_EXE_billhook");
    let server = Server::start(Command::new(program).args(["serve", "--listen", "127.0.0.1:0", "--home"]).arg(&home));
    let floor = Server::start(Command::new(std::env::current_exe().expect("a file")).arg("floor"));
    let hook = format!("http://{}/api/v1/hooks/on_product_acquisition", server.address);
    let (parse, echo) = (format!("http://{}/parse", floor.address), format!("http://{}/echo", floor.address));
    let calls = script(folder.path(), "calls.lua", &token, &objects("Healthy"));
    let crashes = script(folder.path(), "crashes.lua", &token, &objects("Crashing"));

    for url in [&hook, &parse, &echo] {
        wrk(&calls, url, CONNECTIONS, 1);
    }
    let before = server.memory();
    let (mut ours, mut floors, mut echoes, mut made) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for _ in 0..ROUNDS {
        floors.push(wrk(&calls, &parse, CONNECTIONS, 2).rate);
        let load = wrk(&calls, &hook, CONNECTIONS, 2);
        ours.push(load.rate);
        made += load.calls;
        echoes.push(wrk(&calls, &echo, CONNECTIONS, 2).rate);
    }
    let (ours, floors, echoes) = (median(ours), median(floors), median(echoes));
    println!(
        "hook calls over HTTP: {ours:.0} a second; the same JSON parsed and answered from the blocking pool {floors:.0}, \
         {:.2} of it; a bare echo {echoes:.0}",
        ours / floors
    );
    while made < 200_000.0 {
        made += wrk(&calls, &hook, CONNECTIONS, 5).calls;
    }
    println!("memory: {before:.1} MiB before {made:.0} calls, {:.1} MiB after", server.memory());

    let crashed = || {
        let request = ureq::get(format!("http://{}/metrics", server.address));
        let answer = request.header("authorization", format!("Bearer {token}")).call().expect("answered");
        let text = answer.into_body().read_to_string().expect("text");
        let line = text.lines().find(|line| line.starts_with("billhook_worker_crashes_total{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };

    // Few callers, so that what is seen is the server and not the queue before it.
    let alone = wrk(&calls, &hook, 2, 5);
    let is_done = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                crash(&crashes, &hook);
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        let load = wrk(&calls, &hook, 2, 5);
        is_done.store(true, Ordering::Relaxed);
        load
    });
    // Otherwise nothing was beside the others.
    assert!(crashed() > 2, "the plugin crashed");
    println!(
        "others' calls: {:.0} a second, p99 {:.2} ms; beside a plugin that crashes all the time {:.0} a second, p99 {:.2} ms",
        alone.rate, alone.p99, beside.rate, beside.p99
    );
    println!("it crashed {} times meanwhile", crashed());
}

/// Calls the plugin that crashes, for a second.
fn crash(script: &Path, url: &str) {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c2", "-d1s", "-s"]).arg(script).arg(url).stdout(Stdio::null());
    let _ = command.status();
}
