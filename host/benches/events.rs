//! Events: recording them against bare transactions of the same rows, delivering them against a bare loop of HTTP calls, the delay
//! of a healthy handler beside one that hangs, alone and beside thousands of deliveries that wait for that one, and what a note in the execution log costs who calls a hook.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod support;

use std::{
    collections::HashMap,
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use billhook::{
    DeliveryFilter, DeliveryStatus, Handler, Host, HostOptions, Install, Json, NewEvent, Task,
    data::{Asset, Contract, Offering, Order, User},
};
use rusqlite::{Connection, params};

const DATA: &str =
    r#"{"id":12,"name":"My name","companies_id":3,"status":"active","balance":"12.50","currency":"EUR"}"#;

fn event(object: i64) -> NewEvent {
    NewEvent::new("clients.create").about(object).with_data(Json::new(DATA).expect("JSON"))
}

/// A handler on loopback that answers at once, and tells when it got which object. Answers its address.
fn server(seen: Arc<Mutex<HashMap<i64, Instant>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || serve(&connection, &seen));
        }
    });
    format!("http://{address}/")
}

fn serve(connection: &TcpStream, seen: &Mutex<HashMap<i64, Instant>>) {
    connection.set_nodelay(true).expect("set");
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let hangs = line.contains("/hangs");
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("a header");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        if hangs {
            thread::sleep(Duration::from_secs(600));
        }
        let text = String::from_utf8_lossy(&body);
        let object = text.split("\"object_id\":").nth(1).and_then(|rest| rest.split(',').next());
        if let Some(object) = object.and_then(|object| object.parse().ok()) {
            seen.lock().expect("sound").insert(object, Instant::now());
        }
        if (&mut &*connection).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn listening(host: &Host, name: &str, url: &str) {
    host.add_handler(&Handler::new(name, "clients.create", Task::Http(format!("{url}{name}")))).expect("added");
}

/// Bare transactions of the rows that an event with one listener has, so many events in each. Answers events a second.
fn bare_rows(ledger: &Path, events: usize, batch: usize) -> f64 {
    let mut connection = Connection::open(ledger).expect("opens");
    connection.pragma_update(None, "synchronous", "FULL").expect("set");
    let start = Instant::now();
    for _ in 0..events / batch {
        let transaction = connection.transaction().expect("begun");
        for _ in 0..batch {
            let event = event(12);
            transaction
                .prepare_cached(
                    "INSERT INTO event (id, name, object_id, date, data, recorded) VALUES (?1, ?2, '12', ?3, ?4, 1)",
                )
                .and_then(|mut insert| insert.execute(params![event.id, event.name, event.date.as_str(), DATA]))
                .expect("inserted");
            let number = transaction.last_insert_rowid();
            transaction
                .prepare_cached(
                    "INSERT INTO delivery (event, kind, listener, object, due, state)
                     VALUES (?1, 'handler', 'good', ?2, 1, 0)",
                )
                .and_then(|mut insert| insert.execute(params![number, number.to_string()]))
                .expect("inserted");
        }
        transaction.commit().expect("durable");
    }
    events as f64 / start.elapsed().as_secs_f64()
}

/// Emits from several threads at once. Answers events a second.
fn emits(host: &Host, events: usize, threads: usize) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for part in 0..threads {
            scope.spawn(move || {
                for number in 0..events / threads {
                    host.emit(&event((part * events + number) as i64)).expect("recorded");
                }
            });
        }
    });
    events as f64 / start.elapsed().as_secs_f64()
}

fn recording() {
    const EVENTS: usize = 4_000;
    for threads in [1, 16] {
        let (mut floors, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
            let open = |name: &str| {
                let host = Host::open(folder.path().join(name)).expect("opens");
                listening(&host, "good", "http://127.0.0.1:1/");
                host.emit(&event(1)).expect("recorded");
                host
            };
            let (host, other) = (open("home"), open("floor"));
            drop(other);
            floors.push(bare_rows(&folder.path().join("floor/ledger.db"), EVENTS, threads));
            rates.push(emits(&host, EVENTS, threads));
        }
        let (floor, rate) = (middle(floors), middle(rates));
        println!(
            "{threads} emitting thread(s): {rate:.0} events a second; bare transactions of {threads}: {floor:.0}; {:.2} of it",
            rate / floor
        );
    }
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn delivering() {
    const EVENTS: usize = 10_000;
    let url = server(Arc::default());
    let (mut floors, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        let body = serde_json::json!({
            "event": {"dt": "2026-01-01T12:00:00+00:00", "events_id": "clients.create", "object_id": 12,
                      "id": "01a20a4e-4b33-717c-bf42-8fb89606dd6d", "attempt": 1},
            "data": serde_json::from_str::<serde_json::Value>(DATA).expect("JSON"),
        });
        let body = body.to_string();
        let start = Instant::now();
        for _ in 0..EVENTS {
            let mut answer = agent.post(&url).header("content-type", "application/json").send(&body).expect("answered");
            black_box(answer.body_mut().read_to_vec().expect("read"));
        }
        floors.push(EVENTS as f64 / start.elapsed().as_secs_f64());

        let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
        let host = Host::open(folder.path().join("home")).expect("opens");
        listening(&host, "good", &url);
        let events: Vec<NewEvent> = (0..EVENTS).map(|object| event(object as i64)).collect();
        host.emit_all(&events).expect("recorded");
        let start = Instant::now();
        host.start_deliveries().expect("started");
        let left = |status| {
            let filter = DeliveryFilter { status: Some(status), limit: Some(1), ..DeliveryFilter::default() };
            !host.deliveries(&filter).expect("readable").is_empty()
        };
        while left(DeliveryStatus::Waiting) || left(DeliveryStatus::Running) {
            thread::sleep(Duration::from_millis(10));
        }
        rates.push(EVENTS as f64 / start.elapsed().as_secs_f64());
    }
    let (floor, rate) = (middle(floors), middle(rates));
    println!("deliveries over HTTP: {rate:.0} a second; a bare loop of calls: {floor:.0}; {:.2} of it", rate / floor);
}

/// From before an event is emitted until its handler has it: median and 99 of 100, in milliseconds.
fn delays(hangs: bool) -> (f64, f64) {
    const EVENTS: i64 = 400;
    let seen: Arc<Mutex<HashMap<i64, Instant>>> = Arc::default();
    let url = server(Arc::clone(&seen));
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let host = Host::open(folder.path().join("home")).expect("opens");
    listening(&host, "good", &url);
    if hangs {
        listening(&host, "hangs", &url);
    }
    host.start_deliveries().expect("started");
    let mut emitted = HashMap::new();
    for object in 0..EVENTS {
        emitted.insert(object, Instant::now());
        host.emit(&event(object)).expect("recorded");
        thread::sleep(Duration::from_millis(5));
    }
    while seen.lock().expect("sound").len() < EVENTS as usize {
        thread::sleep(Duration::from_millis(10));
    }
    let seen = seen.lock().expect("sound").clone();
    host.stop_deliveries(Duration::ZERO);
    let mut delays: Vec<f64> =
        emitted.iter().map(|(object, at)| seen[object].duration_since(*at).as_secs_f64() * 1e3).collect();
    delays.sort_by(f64::total_cmp);
    (delays[delays.len() / 2], delays[delays.len() * 99 / 100])
}

/// How long recording an event takes while others wait for a handler that hangs, each of another object: median and 99 of 100 in
/// milliseconds, and from before it until the healthy handler has it.
fn beside_waiting(waiting: i64) -> [f64; 4] {
    const EVENTS: i64 = 400;
    let seen: Arc<Mutex<HashMap<i64, Instant>>> = Arc::default();
    let url = server(Arc::clone(&seen));
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let host = Host::open(folder.path().join("home")).expect("opens");
    listening(&host, "hangs", &url);
    let events: Vec<NewEvent> = (0..waiting).map(|object| event(EVENTS + object)).collect();
    for events in events.chunks(1000) {
        host.emit_all(events).expect("recorded");
    }
    listening(&host, "good", &url);
    host.start_deliveries().expect("started");
    let (mut emitted, mut took) = (HashMap::new(), Vec::new());
    for object in 0..EVENTS {
        let start = Instant::now();
        emitted.insert(object, start);
        host.emit(&event(object)).expect("recorded");
        took.push(start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(Duration::from_millis(5));
    }
    while seen.lock().expect("sound").len() < EVENTS as usize {
        thread::sleep(Duration::from_millis(10));
    }
    let seen = seen.lock().expect("sound").clone();
    host.stop_deliveries(Duration::ZERO);
    let mut delays: Vec<f64> =
        emitted.iter().map(|(object, at)| seen[object].duration_since(*at).as_secs_f64() * 1e3).collect();
    [&mut took, &mut delays].iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    [&took, &delays]
        .iter()
        .flat_map(|times| [times[times.len() / 2], times[times.len() * 99 / 100]])
        .collect::<Vec<_>>()
        .try_into()
        .expect("four numbers")
}

/// What a note in the execution log costs who calls a hook: the medians of a call without and with it, in nanoseconds.
fn noting() {
    // No more notes than the queue holds, so that none is dropped.
    const ROUNDS: usize = 300;
    const CALLS: u32 = 50;
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let package = support::package("healthy", "Healthy", 0, folder.path());
    let hosts = [false, true].map(|record| {
        let home = folder.path().join(format!("home-{record}"));
        let host = Host::open_with(home, HostOptions::new().record(record)).expect("opens");
        host.install(&package, &Install::default()).expect("installed");
        host
    });
    let asset = Asset {
        id: "61004aba5e05acc115f022f0".into(),
        resource_type: "Healthy".into(),
        provider: User { username: "acme".into(), ..User::default() },
        ..Asset::default()
    };
    let contract = Contract { item_id: "1".into(), offering: Offering::default(), ..Contract::default() };
    let order = Order { order_id: "67".into(), contracts: vec![contract.clone()], ..Order::default() };
    let run = |host: &Host| {
        for _ in 0..CALLS {
            black_box(host.on_product_acquisition(&asset, &contract, &order).expect("it went through"));
        }
    };
    hosts.iter().for_each(run);
    let (without, with) = support::in_turn(ROUNDS, || run(&hosts[0]), || run(&hosts[1]));
    let (without, with) = ((without / CALLS).as_nanos(), (with / CALLS).as_nanos());
    let dropped = hosts[1].dropped_executions().expect("readable");
    println!(
        "a call of a hook: {without} ns, noted in the execution log {with} ns: {} ns more; {dropped} dropped",
        with - without
    );
}

/// So many deliveries wait.
const WAITING: [i64; 4] = [0, 1_000, 15_000, 60_000];

fn main() {
    billhook::run_child_process();
    recording();
    delivering();
    let ((alone, worst), (beside, worst_beside)) = (delays(false), delays(true));
    println!(
        "from emit to the healthy handler: {alone:.2} ms (p99 {worst:.2}); beside one that hangs {beside:.2} ms (p99 {worst_beside:.2})"
    );
    for waiting in WAITING {
        let [emit, worst_emit, delay, worst_delay] = beside_waiting(waiting);
        println!(
            "beside {waiting} that wait for a handler that hangs: recorded in {emit:.2} ms (p99 {worst_emit:.2}), with the \
             healthy handler after {delay:.2} ms (p99 {worst_delay:.2})"
        );
    }
    noting();
}
