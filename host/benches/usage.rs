//! Refreshing 10,000 pending records against the bare HTTP calls that they need, on one kept-alive connection.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use billhook::{
    Host, HostOptions, HttpUsageApi, Install, NoBundles, UsageApiSettings,
    data::{Asset, Contract, Offering, Order, User},
};
use serde_json::{Value, json};

const RECORDS: usize = 10_000;
const ROUNDS: usize = 5;

/// A usage API on loopback that answers at once and keeps nothing. Answers its address.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || serve(&connection));
        }
    });
    format!("http://{address}")
}

fn serve(connection: &TcpStream) {
    connection.set_nodelay(true).expect("set");
    let mut reader = BufReader::new(connection);
    let mut made = 0;
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let is_list = line.starts_with("GET");
        let is_new = line.starts_with("POST");
        loop {
            line.clear();
            reader.read_line(&mut line).expect("a header");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        made += usize::from(is_new);
        if is_new {
            // What came, with an id, as such servers answer.
            body.splice(1..1, format!("\"id\":\"{made}\",\"href\":\"https://usage.example/{made}\",").into_bytes());
        } else if is_list {
            body = b"[]".to_vec();
        }
        let status = if is_new { "201 Created" } else { "200 OK" };
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.append(&mut body);
        if (&mut &*connection).write_all(&answer).is_err() {
            return;
        }
    }
}

/// What nobody can do without: for each record, a document is made and set to guided.
fn floor(url: &str) {
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let body = |number: usize| {
        json!({
            "date": "2026-01-01T12:00:00Z", "type": "event", "status": "Received",
            "usageSpecification": {"id": "1", "href": "https://usage.example/usageSpecification/1", "name": "API call"},
            "usageCharacteristic": [
                {"name": "orderId", "value": "floor"}, {"name": "productId", "value": "product-1"},
                {"name": "correlationNumber", "value": number.to_string()}, {"name": "unit", "value": "API call"},
                {"name": "value", "value": "1"},
            ],
            "relatedParty": [{"role": "customer", "id": "ada"}],
        })
        .to_string()
    };
    for number in 0..RECORDS {
        let request = agent.post(format!("{url}/usage")).header("content-type", "application/json");
        let mut made = request.send(body(number)).expect("made");
        let made: Value = serde_json::from_slice(&made.body_mut().read_to_vec().expect("read")).expect("JSON");
        let id = made["id"].as_str().expect("an id");
        let request = agent.patch(format!("{url}/usage/{id}")).header("content-type", "application/json");
        let mut guided = request.send(r#"{"status":"guided"}"#).expect("guided");
        guided.body_mut().read_to_vec().expect("read");
    }
}

fn main() {
    billhook::run_child_process();
    let folder = tempfile::tempdir_in(std::env::current_dir().expect("there is one")).expect("a folder");
    let (package, server) = (support::package("meter", "Meter", 0, folder.path()), server());
    let api = HttpUsageApi::new(&UsageApiSettings::new(&server)).expect("sound settings");
    let options = HostOptions::new().usage_api(Arc::new(api));
    let host = Host::open_with(folder.path().join("home"), options).expect("opens");
    let reports = folder.path().join("reports.json");
    let record = |index: usize| json!({"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": "1", "id": index.to_string()});
    let records: Vec<Value> = (0..RECORDS).map(record).collect();
    std::fs::write(&reports, json!({"*": {"records": records}}).to_string()).expect("written");
    let settings = json!({"reports": reports, "units": ["API call"]}).to_string();
    host.install(&package, &Install { settings: Some(&settings), ..Install::default() }).expect("installed");

    let asset = Asset { id: "a".into(), resource_type: "Meter".into(), ..Asset::default() };
    let offering = Offering { off_id: "o".into(), asset: Some(asset), ..Offering::default() };
    let contract =
        Contract { item_id: "1".into(), product_id: Some("product-1".into()), offering, ..Contract::default() };
    let order = |round: usize| Order {
        order_id: format!("order-{round}"),
        customer: User { username: "ada".into(), ..User::default() },
        contracts: vec![contract.clone()],
        ..Order::default()
    };
    let mut round = 0;
    let (floor, refresh) = support::in_turn(
        ROUNDS,
        || floor(&server),
        || {
            round += 1;
            let order = order(round);
            let refreshed = host.usage_refreshed(&order, &order.contracts[0], &NoBundles).expect("refreshed");
            assert_eq!((refreshed.sent as usize, refreshed.unsent), (RECORDS, 0));
        },
    );
    // The same report once more: nothing is new.
    let order = order(round);
    let start = Instant::now();
    let again = host.usage_refreshed(&order, &order.contracts[0], &NoBundles).expect("refreshed");
    assert_eq!(again.sent, 0);
    let micros = |duration: std::time::Duration| duration.as_secs_f64() * 1e6 / RECORDS as f64;
    println!(
        "usage of {RECORDS} records: bare calls {:.1} µs a record, refresh {:.1} µs a record, {:.2} times; the same report again \
         {:.1} µs a record",
        micros(floor),
        micros(refresh),
        refresh.as_secs_f64() / floor.as_secs_f64(),
        micros(start.elapsed())
    );
}
