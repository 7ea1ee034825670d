//! A usage API on loopback that records what it is asked, and fails where a test says so.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It isn't done, and answered with a status.
    Answer(u16),
    /// It isn't done, and the connection is closed without a byte of an answer.
    CloseBefore,
    /// It is done, and the connection is closed without a byte of an answer.
    CloseAfter,
    /// It is done after a long time.
    Slow,
    /// It isn't done, and the connection is dropped within the answer.
    DropBefore,
    /// It is done, and the connection is dropped within the answer.
    DropAfter,
    /// It is done, and half of the answer is sent.
    DropWithin,
    /// It is done, and answered with a status all the same.
    AnswerAfter(u16),
    /// It is done, and answered with what is no JSON.
    Garbage,
    /// It isn't done, and there is no answer for a long time.
    HangBefore,
    /// It is done, and there is no answer for a long time.
    HangAfter,
    /// There is no answer for a long time, and then it is done.
    HangThenDo,
    /// The process is killed before it is done.
    KillBefore(u32),
    /// It is done, and the process is killed before the answer.
    KillAfter(u32),
}

/// How the server answers lists.
#[derive(Debug, Clone, Copy, Default)]
pub struct Paging {
    /// The most entries in a page; all if none.
    pub page: Option<usize>,
    /// Whether it tells how many there are in all.
    pub tells_total: bool,
    /// Whether it always answers the first page.
    pub ignores_offset: bool,
    /// What it answers to an offset behind the end, if not an empty page.
    pub refuses_behind: Option<u16>,
    /// Whether it says of a part that it is one.
    pub tells_part: bool,
}

#[derive(Default)]
struct Store {
    usages: BTreeMap<u64, Value>,
    specifications: BTreeMap<u64, Value>,
    next: u64,
    calls: Vec<String>,
    headers: Vec<String>,
    /// What happens to calls by their number since this was set.
    /// What happens to a call that comes on a connection after so many others.
    of_connection: Option<(usize, Fault)>,
    faults: BTreeMap<usize, Fault>,
    /// What happens to calls whose line has this in it.
    always: Option<(String, Fault)>,
    paging: Paging,
}

/// The server; it ends with the test's process.
pub struct UsageServer {
    address: SocketAddr,
    store: Arc<Mutex<Store>>,
}

struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl UsageServer {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// Starts where another one was.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let store = Arc::new(Mutex::new(Store { next: 1, ..Store::default() }));
        let shared = Arc::clone(&store);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let store = Arc::clone(&shared);
                thread::spawn(move || serve(&connection, &store));
            }
        });
        UsageServer { address, store }
    }

    /// An address where nobody listens, and a server may be started later.
    pub fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
    }

    pub fn url(&self) -> String {
        format!("http://{}/usageManagement/v2", self.address)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the n-th call from now on, counted from 0, go wrong; forgets the calls so far.
    pub fn fail(&self, faults: &[(usize, Fault)]) {
        let mut store = self.store();
        store.calls.clear();
        store.faults = faults.iter().copied().collect();
        store.always = None;
    }

    /// Lets the call go wrong that comes on a connection after so many others.
    pub fn close_after(&self, kept: usize, fault: Fault) {
        self.store().of_connection = Some((kept, fault));
    }

    /// Lets every call go wrong whose line holds a text.
    pub fn always_fail(&self, line: &str, fault: Fault) {
        self.store().always = Some((line.to_owned(), fault));
    }

    pub fn page(&self, paging: Paging) {
        self.store().paging = paging;
    }

    /// The calls since faults were set last.
    pub fn calls(&self) -> Vec<String> {
        self.store().calls.clone()
    }

    /// The headers of the last call.
    pub fn headers(&self) -> Vec<String> {
        self.store().headers.clone()
    }

    /// All usage documents of an order.
    pub fn documents(&self, order: &str) -> Vec<Value> {
        let of_order = |usage: &&Value| characteristic(usage, "orderId") == order;
        self.store().usages.values().filter(of_order).cloned().collect()
    }

    /// What somebody else does with the documents: changes them, or deletes those for which it answers `false`.
    pub fn change_documents(&self, mut change: impl FnMut(&mut Value) -> bool) {
        self.store().usages.retain(|_, usage| change(usage));
    }

    /// Puts a document there that is not the host's.
    pub fn put_document(&self, document: Value) {
        let mut store = self.store();
        let _ = add(&mut store, "usage", document);
    }

    /// Puts a usage specification there that is not the host's.
    pub fn put_specification(&self, specification: Value) {
        let mut store = self.store();
        let _ = add(&mut store, "usageSpecification", specification);
    }

    /// The names of all usage specifications.
    pub fn specifications(&self) -> Vec<String> {
        let name = |spec: &Value| spec["name"].as_str().unwrap_or_default().to_owned();
        self.store().specifications.values().map(name).collect()
    }

    /// A usage specification as it was made.
    pub fn specification(&self, name: &str) -> Option<Value> {
        self.store().specifications.values().find(|spec| spec["name"] == name).cloned()
    }

    /// Takes all usage specifications away, as somebody else might.
    pub fn lose_specifications(&self) {
        self.store().specifications.clear();
    }
}

/// The value of a characteristic of a usage document.
pub fn characteristic<'a>(usage: &'a Value, name: &str) -> &'a str {
    let all = usage["usageCharacteristic"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|one| one["name"] == name).and_then(|one| one["value"].as_str()).unwrap_or_default()
}

fn serve(connection: &TcpStream, store: &Mutex<Store>) {
    let _ = connection.set_nodelay(true);
    let mut reader = BufReader::new(connection);
    let mut served = 0;
    while let Some(request) = read(&mut reader) {
        served += 1;
        let fault = {
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            let number = store.calls.len();
            store.calls.push(request.line.clone());
            store.headers.clone_from(&request.headers);
            let always = store.always.as_ref().filter(|(part, _)| request.line.contains(part.as_str()));
            let of_connection = store.of_connection.filter(|(kept, _)| served > *kept).map(|(_, fault)| fault);
            of_connection.or(always.map(|(_, fault)| *fault)).or_else(|| store.faults.get(&number).copied())
        };
        match fault {
            Some(Fault::DropBefore) => {
                break_off(connection);
                return;
            }
            Some(Fault::CloseBefore) => return,
            Some(Fault::Answer(status)) => {
                let elsewhere = "Location: https://elsewhere.example/usage".to_owned();
                let headers = if (300..400).contains(&status) { vec![elsewhere] } else { Vec::new() };
                answer(connection, status, &headers, b"{\"error\":\"as the test says\"}");
                continue;
            }
            Some(Fault::HangBefore) => {
                thread::sleep(LONG);
                return;
            }
            Some(Fault::HangThenDo) => {
                thread::sleep(LONG);
                handle(&request, &mut store.lock().unwrap_or_else(PoisonError::into_inner));
                return;
            }
            Some(Fault::Slow) => thread::sleep(LONG),
            Some(Fault::KillBefore(process)) => {
                kill(process);
                return;
            }
            _ => {}
        }
        let (status, headers, body) = handle(&request, &mut store.lock().unwrap_or_else(PoisonError::into_inner));
        match fault {
            Some(Fault::DropAfter) => {
                break_off(connection);
                return;
            }
            Some(Fault::CloseAfter) => return,
            Some(Fault::DropWithin) => {
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len() + 10);
                let _ = (&mut &*connection).write_all(head.as_bytes());
                let _ = (&mut &*connection).write_all(&body);
                return;
            }
            Some(Fault::AnswerAfter(status)) => answer(connection, status, &[], b"{}"),
            Some(Fault::Garbage) => answer(connection, status, &[], b"<html>"),
            Some(Fault::HangAfter) => {
                thread::sleep(LONG);
                return;
            }
            Some(Fault::KillAfter(process)) => {
                kill(process);
                return;
            }
            _ => answer(connection, status, &headers, &body),
        }
    }
}

/// Answers something, and no more than that: the other side can't take it for a connection that was closed before.
fn break_off(mut connection: &TcpStream) {
    let _ = connection.write_all(b"HTTP/1.1 ");
}

/// Longer than any time limit of a test's.
const LONG: Duration = Duration::from_secs(2);

fn kill(process: u32) {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        headers.push(header.to_owned());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(), headers, body })
}

fn answer(mut connection: &TcpStream, status: u16, headers: &[String], body: &[u8]) {
    let mut head =
        format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut all = head.into_bytes();
    all.extend_from_slice(body);
    let _ = connection.write_all(&all);
}

type Handled = (u16, Vec<String>, Vec<u8>);

fn handle(request: &Request, store: &mut Store) -> Handled {
    let (method, path) = request.line.split_once(' ').expect("a method and a path");
    let path = path.strip_prefix("/usageManagement/v2/").unwrap_or(path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (kind, id) = path.split_once('/').unwrap_or((path, ""));
    let body = || serde_json::from_slice::<Value>(&request.body).expect("JSON");
    match (method, kind) {
        ("POST", "usage" | "usageSpecification") => add(store, kind, body()),
        ("GET", "usage") => {
            let customer = parameter(query, "relatedParty.id").unwrap_or_default();
            let all = store.usages.values().filter(|usage| usage["relatedParty"][0]["id"] == customer).cloned();
            list(all.collect(), query, store.paging)
        }
        ("GET", "usageSpecification") => list(store.specifications.values().cloned().collect(), query, store.paging),
        ("PATCH", "usage") => {
            let patch = body();
            let Some(usage) = id.parse().ok().and_then(|id: u64| store.usages.get_mut(&id)) else {
                return (404, Vec::new(), b"{}".to_vec());
            };
            // Only this spelling is taken, as by the original's usage API.
            if patch["status"] != "guided" {
                return (400, Vec::new(), b"{\"error\":\"status\"}".to_vec());
            }
            usage["status"] = patch["status"].clone();
            (200, Vec::new(), usage.to_string().into_bytes())
        }
        ("DELETE", "usageSpecification") => {
            let gone = id.parse().ok().and_then(|id: u64| store.specifications.remove(&id));
            (if gone.is_some() { 204 } else { 404 }, Vec::new(), Vec::new())
        }
        _ => (405, Vec::new(), b"{}".to_vec()),
    }
}

fn add(store: &mut Store, kind: &str, mut entry: Value) -> Handled {
    let id = store.next;
    store.next += 1;
    entry["id"] = json!(id.to_string());
    entry["href"] = json!(format!("https://usage.example/{kind}/{id}"));
    let answer = entry.to_string().into_bytes();
    if kind == "usage" { &mut store.usages } else { &mut store.specifications }.insert(id, entry);
    (201, Vec::new(), answer)
}

fn list(all: Vec<Value>, query: &str, paging: Paging) -> Handled {
    let offset: usize = parameter(query, "offset").and_then(|offset| offset.parse().ok()).unwrap_or(0);
    let offset = if paging.ignores_offset { 0 } else { offset };
    if let Some(status) = paging.refuses_behind.filter(|_| offset > 0 && offset >= all.len()) {
        return (status, Vec::new(), b"{}".to_vec());
    }
    let total = all.len();
    let page: Vec<Value> = all.into_iter().skip(offset).take(paging.page.unwrap_or(usize::MAX)).collect();
    let headers = if paging.tells_total { vec![format!("X-Total-Count: {total}")] } else { Vec::new() };
    let is_part = paging.tells_part && page.len() < total;
    (if is_part { 206 } else { 200 }, headers, Value::from(page).to_string().into_bytes())
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
    // The tests' customers are plain, but for the one that shows that names are escaped.
    Some(found.1.replace("%20", " ").replace("%26", "&").replace("%C3%A4", "ä"))
}
