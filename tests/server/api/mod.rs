//! The API: who may ask for what, what is answered, and that the API's document tells the truth about both.

/// What a backend calls.
mod backend;
/// The document of the API.
mod document;
/// Events, handlers, deliveries and the log.
mod events;
/// Plugins, and the views of asset types.
mod plugins;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use billhook::data::{Asset, Order};
use serde_json::{Value, json};

use crate::support::{
    Answer, HandlerServer, Home, Package, Reply, Server, UsageServer, asset, characteristic, deed, home_with_rogue,
    order, token, wait_for,
};

const ACQUISITION: &str = "/api/v1/hooks/on_product_acquisition";
const ACQUIRED: &str = "/api/v1/notifications/product_acquired";
const REFRESHED: &str = "/api/v1/notifications/usage_refreshed";
const TYPES: &str = "/charging/api/assetManagement/assetTypes";
/// What the original says of a type that no plugin has.
const UNKNOWN_TYPE: &str = "The given product specification contains a not supported asset type: Nobody";

/// Every hook of an asset's life, and what the fixture `recorder` changes in it.
fn hooks() -> [(&'static str, Value); 10] {
    [
        ("on_pre_product_spec_validation", json!({})),
        ("on_post_product_spec_validation", json!({"content_type": "text/validated"})),
        ("on_pre_product_spec_attachment", json!({"content_type": "text/attaching"})),
        ("on_post_product_spec_attachment", json!({})),
        ("on_pre_product_spec_upgrade", json!({})),
        ("on_post_product_spec_upgrade", json!({})),
        ("on_pre_product_offering_validation", json!({"meta_info": ["pre"]})),
        ("on_post_product_offering_validation", json!({"meta_info": ["post"]})),
        ("on_product_acquisition", json!({"meta_info": "acquired"})),
        ("on_product_suspension", json!({})),
    ]
}

/// A problem of this status, in whose detail this stands.
#[track_caller]
fn refused(answer: Answer, status: u16, detail: &str) -> Value {
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:#?}");
    let problem = answer.is(status).json();
    assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)), "{problem}");
    let told = problem["detail"].as_str().expect("a detail");
    assert!(told.contains(detail), "{detail:?} is not in {told:?}");
    problem
}

/// A path of the document with something in place of its parameter.
fn filled(path: &str, part: &str) -> String {
    match (path.find('{'), path.find('}')) {
        (Some(start), Some(end)) => format!("{}{part}{}", &path[..start], &path[end + 1..]),
        _ => path.to_owned(),
    }
}

/// The bytes of a package.
fn zip(home: &Home, package: &Package) -> Vec<u8> {
    fs::read(package.write(home.folder())).expect("readable")
}

/// A request of whoever manages, whose body is of any kind.
#[track_caller]
fn send(server: &Server, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let authorization = format!("Bearer {}", server.token);
    server.request(method, path, &[("authorization", &authorization), ("content-type", kind)], body)
}

#[track_caller]
fn put(server: &Server, path: &str, body: &Value) -> Answer {
    server.ask("PUT", path, Some(body))
}

/// Calls `on_product_acquisition` for an asset.
#[track_caller]
fn acquire(server: &Server, asset: &Asset) -> Answer {
    server.post(ACQUISITION, &json!({"asset": asset, "order": order()}))
}

/// All items of a list, two at a time.
#[track_caller]
fn walk(server: &Server, list: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{list}&limit=2{cursor}")).is(200).json();
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= 2, "{page}");
        all.extend(items.iter().cloned());
        if page["next"].is_null() {
            return all;
        }
        cursor = format!("&cursor={}", page["next"]);
    }
}

/// The numbers that items have under a name.
fn numbers(items: &[Value], name: &str) -> Vec<i64> {
    items.iter().map(|item| item[name].as_i64().expect("a number")).collect()
}

#[test]
fn tokens_count_at_once_and_no_longer_than_they_should_and_are_kept_nowhere() {
    let home = Home::new();
    let server = Server::start(&home);
    let create = |more: &[&str]| {
        home.run(&[&["token", "create", "--scope", "read", "--json"], more].concat()).succeeded().json()
    };
    let ask = |token: &Value| server.ask_as(token["token"].as_str().expect("text"), "GET", "/api/v1/plugins", None);
    let made = create(&["--name", "late"]);
    ask(&made).is(200);
    let long = create(&["--expires", "90d"]);
    ask(&long).is(200);
    let short = create(&["--expires", "1s"]);
    wait_for("the token to expire", || ask(&short).status == 401);
    refused(ask(&short), 401, "the token is none that counts");

    let (text, id) = (made["token"].as_str().expect("text"), made["id"].as_str().expect("text"));
    let secret = text.splitn(3, '_').nth(2).expect("a secret");
    for list in [&["token", "list"][..], &["token", "list", "--json"]] {
        let listed = home.run(list).succeeded().stdout;
        assert!(listed.contains(id) && listed.contains("late") && !listed.contains(secret), "{listed}");
    }
    // Also what SQLite has not yet written to its file.
    for entry in fs::read_dir(home.path()).expect("readable") {
        let path = entry.expect("readable").path();
        let content = if path.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
        let is_there = content.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_there, "the secret is in {}", path.display());
    }
    refused(server.ask_as(&format!("{text}x"), "GET", "/api/v1/plugins", None), 401, "the token is none that counts");
    home.run(&["token", "remove", id]).succeeded();
    wait_for("the token to count no more", || ask(&made).status == 401);
    ask(&long).is(200);
}

#[test]
fn a_server_that_is_told_to_stop_answers_what_is_under_way_and_takes_nothing_new() {
    let home = Home::new();
    home.load(&Package::new("Waiter").of("waiter")).succeeded();
    let server = Server::start(&home);
    assert_eq!(server.request("GET", "/healthz", &[], b"").is(200).body, "ok\n");
    assert_eq!(server.request("GET", "/readyz", &[], b"").is(200).body, "ready\n");
    let go = home.folder().join("go");
    let waiting = Asset { download_link: go.to_str().map(str::to_owned), ..asset("Waiter") };
    let body = json!({"asset": waiting, "order": order()}).to_string();
    let (address, token, length) = (server.address.clone(), &server.token, body.len());
    let mut call = TcpStream::connect(&address).expect("connected");
    let head = format!(
        "POST {ACQUISITION} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    call.write_all(format!("{head}{body}").as_bytes()).expect("written");
    wait_for("the call to be inside", || go.with_extension("called").exists());
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("new connections to be refused", || TcpStream::connect(&address).is_err());
            fs::write(&go, "").expect("written");
        });
        assert!(server.stop(), "it ends with success");
    });
    let mut answer = String::new();
    call.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"waited\""), "{answer}");
}

#[test]
fn metrics_are_for_those_who_may_read_and_count_calls() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let (server, reader) = (Server::start(&home), token(&home, "read"));
    acquire(&server, &asset("Healthy")).is(200);
    server.request("GET", "/metrics", &[], b"").is(401);
    let metrics = server.ask_as(&reader, "GET", "/metrics", None).is(200);
    assert!(metrics.header("content-type").starts_with("text/plain"), "{metrics:#?}");
    let has = |name: &str, labels: &[&str]| {
        let mut lines = metrics.body.lines().filter(|line| line.starts_with(name) && line.ends_with(" 1"));
        lines.any(|line| labels.iter().all(|label| line.contains(label)))
    };
    let labels = ["plugin=\"healthy\"", "hook=\"on_product_acquisition\"", "outcome=\"ok\""];
    assert!(has("billhook_calls_total{", &labels), "{}", metrics.body);
    assert!(has("billhook_plugins_loaded", &[]), "{}", metrics.body);
    let labels = ["method=\"POST\"", "route=\"/api/v1/hooks/{hook}\"", "status=\"200\""];
    assert!(has("billhook_http_requests_total{", &labels), "{}", metrics.body);
}

#[test]
fn an_outage_of_a_plugin_is_a_failure_and_a_refusal_is_none_in_metrics_on_the_page_and_in_the_log() {
    let home = home_with_rogue();
    let server = Server::start(&home);
    for (what, status) in
        [("pid", 200), ("refuse", 409), ("refuse", 409), ("unavailable", 503), ("broken", 500), ("panic", 500)]
    {
        server.post("/api/v1/hooks/on_product_acquisition", &deed(what, "")).is(status);
    }
    let metrics = server.get("/metrics").is(200).body;
    for (outcome, count) in [("ok", 1), ("refused", 2), ("failed", 3)] {
        let counted = metrics.lines().find(|line| {
            line.starts_with("billhook_calls_total{")
                && line.contains("hook=\"on_product_acquisition\"")
                && line.contains(&format!("outcome=\"{outcome}\""))
        });
        assert!(counted.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{outcome}: {counted:?}");
    }
    let form = format!("token={}", server.token);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let cookie = server.request("POST", "/login", &headers, form.as_bytes()).is(303).header("set-cookie").to_owned();
    let cookie = cookie.split(';').next().expect("a cookie");
    let page = server.request("GET", "/", &[("cookie", cookie)], b"").is(200).body;
    assert!(page.contains("6 calls, 3 failed"), "{page}");
    wait_for("the log to have them", || {
        let failed = server.get("/api/v1/executions?status=failed").is(200).json();
        failed["items"].as_array().map(Vec::len) == Some(3)
    });
}
