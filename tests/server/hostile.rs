//! Requests that mean harm: none gets in, none takes the server down, and none leaves anything behind.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use flate2::{Compression, write::DeflateEncoder};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{Answer, Entry, Home, Package, RawZip, Server, asset, order, wait_for};

pub(super) const PLUGINS: &str = "/api/v1/plugins";
pub(super) const ACQUISITION: &str = "/api/v1/hooks/on_product_acquisition";
/// What breaks out of whatever it isn't escaped in.
const TEXT: &str = "</script><img src=x onerror=alert(1)>\"\0\u{1b}[31m\r\nX-Evil: 1\u{202e}\u{2028}!";

pub(super) fn connect(address: &str) -> TcpStream {
    let connection = TcpStream::connect(address).expect("connected");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    connection.set_write_timeout(Some(Duration::from_secs(60))).expect("set");
    connection
}

/// Sends bytes on a connection of their own. The status of the answer; 0 if the connection was closed without any.
fn raw(server: &Server, bytes: impl AsRef<[u8]>) -> u16 {
    let mut connection = connect(&server.address);
    // Whoever answers may have read enough before the end.
    let _ = connection.write_all(bytes.as_ref());
    status(&mut connection)
}

/// The status that comes on a connection, which is read until it is closed.
pub(super) fn status(connection: &mut TcpStream) -> u16 {
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    let is_late = read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!is_late, "it is never closed, after {:?}", String::from_utf8_lossy(&answer));
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// The head of a request of whoever manages, without its end.
pub(super) fn head(server: &Server, method: &str, path: &str) -> String {
    let (address, token) = (&server.address, &server.token);
    format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n")
}

/// What is left of packages that were received or unpacked.
pub(super) fn staged(home: &Home) -> usize {
    fs::read_dir(home.path().join("staging")).map_or(0, Iterator::count)
}

fn acquire(server: &Server, asset_type: &str) -> Answer {
    server.post(ACQUISITION, &json!({"asset": asset(asset_type), "order": order()}))
}

fn deflated_zeros(mebibytes: usize) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0_u8; 1 << 20];
    (0..mebibytes).for_each(|_| encoder.write_all(&zeros).expect("written"));
    encoder.finish().expect("finished")
}

#[test]
fn pages_of_other_sites_reach_nothing_where_nobody_has_to_prove_anything() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let server = Server::start_with(&home, &["--insecure-no-auth"]);
    let own = server.address.as_str();
    let port = own.rsplit(':').next().expect("a port");
    let ask = |target: &str, host: &str, more: &str| {
        raw(&server, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"))
    };
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"] {
        let host = format!("{host}:{port}");
        assert_eq!(ask(PLUGINS, &host, ""), 200, "{host}");
        assert_eq!(ask(PLUGINS, &host, &format!("Origin: http://{host}\r\n")), 200, "{host}");
        assert_eq!(ask(&format!("http://{host}{PLUGINS}"), &host, ""), 200, "{host}");
    }
    // Names that somebody made to mean this address, or that look as if they did.
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        &format!("127.0.0.1.evil.example:{port}"),
        &format!("evil.example@127.0.0.1:{port}"),
        &format!("127.0.0.1:{port}@evil.example"),
        &format!("0.0.0.0:{port}"),
        "127.0.0.1",
        "localhost:1",
        "localhost",
        "",
    ] {
        for path in [PLUGINS, "/", "/login", "/metrics", "/api/v1/openapi.json", "/nothing"] {
            assert_eq!(ask(path, host, ""), 403, "{host:?} {path}");
        }
    }
    for origin in [
        "http://evil.example",
        "https://evil.example",
        "null",
        "",
        "http://127.0.0.1:1",
        &format!("http://localhost:{port}"),
        &format!("http://{own}.evil.example"),
        &format!("http://evil.example, http://{own}"),
    ] {
        assert_eq!(ask(PLUGINS, own, &format!("Origin: {origin}\r\n")), 403, "{origin:?}");
    }
    for (host, second) in [(own, "evil.example"), ("evil.example", own), (own, own)] {
        assert_eq!(ask(PLUGINS, host, &format!("Host: {second}\r\n")), 403, "{host} and {second}");
    }
    for (target, host) in [("evil.example", own), (own, "evil.example"), ("evil.example", "evil.example")] {
        assert_eq!(ask(&format!("http://{target}{PLUGINS}"), host, ""), 403, "{target} for {host}");
    }

    // What a form can make a browser send.
    let foreign = [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")];
    for path in [PLUGINS, "/api/v1/plugins/healthy/disable", "/api/v1/events", "/login", "/plugins/healthy/disable"] {
        for sign in foreign {
            server.request("POST", path, &[sign, ("content-type", "text/plain")], b"x").is(403);
        }
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        for path in [PLUGINS, "/api/v1/events", "/api/v1/handlers", ACQUISITION] {
            // A package may come as a file of a form; what foreign pages send is refused before it is looked at.
            let expected = if path == PLUGINS && kind.starts_with("multipart") { 400 } else { 415 };
            server.request("POST", path, &[("content-type", kind)], b"{}").is(expected);
        }
    }
    let plugins = server.request("GET", PLUGINS, &[], b"").is(200).json();
    assert_eq!((plugins.as_array().map(Vec::len), &plugins[0]["status"]), (Some(1), &json!("enabled")));
    let everywhere = ["serve", "--insecure-no-auth", "--listen", "0.0.0.0:0"];
    home.run(&everywhere).failed_with(&["is no loopback address: there, clients have to prove who they are"]);
}

#[test]
fn where_the_servers_names_are_told_no_other_is_taken() {
    let home = Home::new();
    let config = home.file("named.toml", "[server]\nhosts = [\"shop.example\", \"10.0.0.1:8420\"]\n");
    let server = Server::start_with(&home, &["--config", &config]);
    for (host, expected) in [
        ("shop.example", 200),
        ("SHOP.example:8443", 200),
        ("10.0.0.1:8420", 200),
        ("10.0.0.1", 403),
        ("10.0.0.1:8421", 403),
        (server.address.as_str(), 403),
        ("localhost", 403),
        ("evil.example", 403),
        ("sub.shop.example", 403),
        ("shop.example.evil.example", 403),
    ] {
        let request = head(&server, "GET", PLUGINS).replacen(&server.address, host, 1);
        assert_eq!(raw(&server, format!("{request}\r\n")), expected, "{host}");
    }
}

#[test]
fn packages_that_do_harm_or_break_off_are_refused_and_leave_nothing() {
    let home = Home::new();
    let server = Server::start(&home);
    let manifest = json!({"name": "X", "author": "a", "version": "1", "module": "fixture", "formats": ["URL"]});
    let with = |entry: Entry| RawZip::new(vec![Entry::new("package.json", manifest.to_string()), entry]).bytes();
    let refused = |package: &[u8], detail: &str| {
        let problem = server.upload(package).is(422).json();
        assert!(problem["detail"].as_str().is_some_and(|told| told.contains(detail)), "{problem}");
        assert_eq!(staged(&home), 0, "{problem}");
    };
    // Whatever its headers say.
    let zeros = deflated_zeros(600);
    assert!(zeros.len() < 10 << 20);
    for size in [600 << 20, 1000] {
        let (size, crc) = (Some(size), Some(0));
        let bomb = Entry { method: 8, size, local_size: size, crc, ..Entry::new("zeros", zeros.clone()) };
        refused(&with(bomb), "unpacks to more than");
    }
    for name in ["../evil", "../../evil", "/evil"] {
        refused(&with(Entry::new(name, "x")), name);
    }
    refused(b"", "it is not a zip file");
    let whole = with(Entry::new("a", "content"));
    refused(&whole[..whole.len() / 2], "");
    assert!(!home.content().iter().any(|name| name.ends_with("evil")), "{:?}", home.content());

    let begin = format!("{}Content-Type: application/zip\r\n", head(&server, "POST", PLUGINS));
    for (what, expected) in [
        ("Content-Length: 99999999999\r\n\r\nPK", 413),
        ("Content-Length: -1\r\n\r\nPK", 400),
        ("Content-Length: 2\r\nContent-Length: 3\r\n\r\nPK", 400),
        ("Transfer-Encoding: chunked\r\n\r\nZZ\r\nPK\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nPK\r\n0\r\n\r\n", 422),
    ] {
        assert_eq!(raw(&server, format!("{begin}{what}")), expected, "{what}");
    }
    for what in ["Content-Length: 100000\r\n\r\nPK", "Transfer-Encoding: chunked\r\n\r\n2\r\nPK\r\n"] {
        let mut connection = connect(&server.address);
        connection.write_all(format!("{begin}{what}").as_bytes()).expect("written");
        wait_for("the package to begin", || staged(&home) == 1);
        drop(connection);
        wait_for("its beginning to be deleted", || staged(&home) == 0);
    }
    assert_eq!(server.get(PLUGINS).is(200).json(), json!([]));
}

#[test]
fn paths_and_headers_that_are_nonsense_are_refused() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let server = Server::start(&home);
    let packages = || {
        let content = home.content().into_iter();
        content.filter(|name| name.starts_with("packages")).collect::<Vec<_>>()
    };
    let before = packages();
    let long = format!("{PLUGINS}/{}", "a".repeat(50_000));
    for path in [
        "/api/v1/plugins/..",
        "/api/v1/plugins/.",
        "/api/v1/plugins/../../x",
        "/api/v1/plugins/%2e%2e?force=true",
        "/api/v1/plugins/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/v1/plugins/%00",
        "/api/v1/plugins/%ff",
        "/api/v1/plugins/%zz",
        "/api/v1/plugins/healthy%00",
        "/api/v1/plugins/healthy%0d%0aX-Evil:%201",
        "/api/v1/handlers/%2e%2e",
        "/api/v1/deliveries/-1",
        "/api/v1/deliveries/99999999999999999999",
        "/charging/api/assetManagement/assetTypes/%2e%2e",
        "/assets/../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/..",
        "//",
        "/\\..",
        &long,
    ] {
        for method in ["GET", "DELETE"] {
            let found = raw(&server, format!("{}\r\n", head(&server, method, path)));
            assert!((400..500).contains(&found), "{method} {path}: {found}");
        }
    }
    assert_eq!(packages(), before);

    let with = |header: &[u8]| {
        let begin = format!("GET {PLUGINS} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.address);
        [begin.as_bytes(), header, b"\r\n\r\n"].concat()
    };
    for (header, expected) in [
        (b"Accept: */*".as_slice(), 401),
        (b"Authorization:", 401),
        (b"Authorization: Bearer", 401),
        (b"Authorization: Bearer      ", 401),
        (b"Authorization: Bearer billhook_0_0", 401),
        (b"Authorization: Basic YTpi", 401),
        (b"Authorization: Bearer \xff\xfe\x80", 401),
        (b"Authorization: Bearer \x01", 400),
        (b"X: \0", 400),
        (b"X\0: a", 400),
        (b"X : a", 400),
        (b"X: a\r\n b", 400),
        (b"Content-Length: 2\r\nContent-Length: 3", 400),
        (b"Content-Length: -1", 400),
    ] {
        assert_eq!(raw(&server, with(header)), expected, "{}", String::from_utf8_lossy(header));
    }
    // Some of it is answered before it is read, and the answer may be lost then.
    let many: String = (0..1000).map(|index| format!("X-{index}: a\r\n")).collect();
    for bytes in [
        with(format!("X: {}", "a".repeat(100_000)).as_bytes()),
        with(format!("Authorization: Bearer billhook_{}", "a".repeat(300_000)).as_bytes()),
        with(many.trim_end().as_bytes()),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a".repeat(300_000)).into_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /\r\n\r\n".to_vec(),
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_vec(),
        vec![0; 1000],
    ] {
        let found = raw(&server, &bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(found == 0 || (400..500).contains(&found), "{shown:?}: {found}");
    }
    acquire(&server, "Healthy").is(200);
}

#[test]
fn json_that_is_deep_huge_or_broken_is_taken_or_refused_and_never_a_failure() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let server = Server::start(&home);
    let sound = json!({"asset": asset("Healthy"), "order": order()}).to_string();
    let with = |more: &str| format!("{{{more},{}", &sound[1..]);
    let lists = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let authorization = format!("Bearer {}", server.token);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    for (body, expected) in [
        (lists.clone(), 400),
        ("[".repeat(100_000), 400),
        (objects.clone(), 400),
        (with("\"asset\": {\"id\": \"2\"}"), 400),
        (sound.replacen("\"id\":", "\"id\":\"2\",\"id\":", 1), 400),
        (sound.replace("\"item_id\":", "\"correlation_number\":99999999999999999999,\"item_id\":"), 400),
        (sound.replace("\"item_id\":", "\"correlation_number\":-1,\"item_id\":"), 400),
        (sound.replace("asset-1", "\\ud800"), 400),
        (sound.replace("asset-1", "\u{1}"), 400),
        (with("\"product_spec\": NaN"), 400),
        (format!("\u{feff}{sound}"), 415),
        (format!("{sound}{sound}"), 400),
    ] {
        let answer = server.request("POST", ACQUISITION, &headers, body.as_bytes());
        let shown: String = body.chars().take(80).collect();
        assert_eq!(answer.status, expected, "{shown}: {}", answer.body);
    }
    // What the host doesn't look at is the plugin's and the handlers', and may be refused, too.
    for document in [
        lists.as_str(),
        &objects,
        &"9".repeat(100_000),
        "1e99999999",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "{\"a\": 1, \"a\": 2}",
        "{\"id\": {\"a\": 1}}",
        "{\"id\": 1e999}",
    ] {
        let event = format!("{{\"event\": \"clients.create\", \"data\": {document}}}");
        for (method, path, body) in [
            ("POST", ACQUISITION, with(&format!("\"product_spec\": {document}"))),
            ("POST", "/api/v1/events", event),
            ("PUT", "/api/v1/plugins/healthy/settings", document.to_owned()),
        ] {
            let status = server.request(method, path, &headers, body.as_bytes()).status;
            let shown: String = document.chars().take(80).collect();
            assert!([200, 201, 400, 422].contains(&status), "{method} {path} {shown}: {status}");
        }
    }
    let at = sound.find("asset-1").expect("it is there");
    let not_utf8 = [&sound.as_bytes()[..at], b"\xff", &sound.as_bytes()[at..]].concat();
    server.request("POST", ACQUISITION, &headers, &not_utf8).is(400);
    acquire(&server, "Healthy").is(200);
    server.get("/api/v1/deliveries").is(200);
}

#[test]
fn what_is_far_too_long_for_a_name_is_not_sent_back() {
    let home = Home::new();
    let server = Server::start(&home);
    let name = "x".repeat(100_000);
    for (path, body) in [
        (ACQUISITION, json!({"asset": asset(&name), "order": order()})),
        ("/api/v1/notifications/product_acquired", json!({"assets": [asset(&name)], "order": order()})),
        ("/api/v1/events", json!({"event": name})),
        ("/api/v1/handlers", json!({"name": "a", "event": name, "task": {"http": "http://127.0.0.1:1/"}})),
    ] {
        let answer = server.post(path, &body);
        assert!(answer.status < 500 && answer.body.len() < 10_000, "{path}: {} {}", answer.status, answer.body.len());
    }
}

#[test]
fn text_of_clients_and_plugins_comes_back_as_json_and_as_nothing_else() {
    let home = Home::new();
    let server = Server::start(&home);
    let package = Package::new("Healthy").field("author", json!(TEXT)).write(home.folder());
    server.upload(&fs::read(package).expect("readable")).is(201);
    let escaped = utf8_percent_encode(TEXT, NON_ALPHANUMERIC).to_string();
    let put = |path: &str, body: Value| server.ask("PUT", path, Some(&body));
    put("/api/v1/plugins/healthy/settings", json!({"a": TEXT, TEXT: [TEXT]})).is(200);
    put("/api/v1/events/a.b", json!({"description": TEXT})).is(201);
    put(&format!("/api/v1/assets/{escaped}"), json!({"resource_type": "Healthy"})).is(204);
    let handler = json!({"name": "<b>\"x\"</b>", "event": "a.b", "task": {"http": "http://127.0.0.1:1/"}});
    server.post("/api/v1/handlers", &handler).is(201);
    server.post("/api/v1/handlers", &json!({"name": TEXT, "event": "a.b", "task": handler["task"]})).is(422);
    let event = json!({"event": "a.b", "object_id": TEXT, "data": {"text": TEXT}});
    server.post("/api/v1/events", &event).is(201);
    let logged = || server.get("/api/v1/executions").json();
    wait_for("the attempt to be logged", || logged()["items"].as_array().is_some_and(|items| !items.is_empty()));

    let nobody = json!({"asset": asset(TEXT), "order": order()});
    for (answer, pointer) in [
        (server.get(PLUGINS).is(200), "/0/author"),
        (server.get("/api/v1/plugins/healthy").is(200), "/manifest/author"),
        (server.get("/api/v1/plugins/healthy/settings").is(200), "/a"),
        (server.get("/charging/api/assetManagement/assetTypes").is(200), "/0/author"),
        (server.get("/api/v1/deliveries").is(200), "/items/0/object_id"),
        (server.get("/api/v1/deliveries/1").is(200), "/envelope/data/text"),
        (server.get("/api/v1/executions").is(200), "/items/0/object_id"),
        (server.get(&format!("{PLUGINS}/{escaped}")).is(404), ""),
        (server.get(&format!("/{escaped}")).is(404), ""),
        (server.post("/api/v1/events", &json!({"event": TEXT})).is(422), ""),
        (server.post(ACQUISITION, &nobody).is(422), ""),
    ] {
        let kind = if answer.status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!((answer.header("content-type"), answer.header("x-content-type-options")), (kind, "nosniff"));
        assert_eq!(answer.header("x-evil"), "", "{answer:#?}");
        assert!(!answer.body.contains(['\0', '\u{1b}', '\r', '\n']), "{answer:#?}");
        let found = answer.json().pointer(pointer).cloned();
        assert!(pointer.is_empty() || found == Some(json!(TEXT)), "{pointer}: {answer:#?}");
    }
    let log = fs::read_to_string(home.folder().join("server.log")).expect("readable");
    assert!(log.lines().count() > 10, "{log}");
    for line in log.lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "{line:?} is no entry of a log"
        );
    }
}

#[test]
fn a_plugin_that_crashes_takes_nobody_else_down() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    home.load(&Package::new("Crashy").of("crash_in_a_hook")).succeeded();
    let server = Server::start(&home);
    let runtime = json!({"isolation": "process"});
    server.ask("PUT", "/api/v1/plugins/crashy/runtime", Some(&runtime)).is(200);
    let mut crashes = 0;
    for _ in 0..6 {
        let answer = acquire(&server, "Crashy");
        let problem = answer.json();
        match answer.status {
            // It was called, and nobody knows what it did.
            500 => {
                assert_eq!(problem["outcome_unknown"], true, "{problem}");
                crashes += 1;
            }
            503 => assert!(problem.get("outcome_unknown").is_none(), "{problem}"),
            _ => panic!("{answer:#?}"),
        }
        assert_eq!((&problem["plugin"], &problem["hook"]), (&json!("crashy"), &json!("on_product_acquisition")));
        acquire(&server, "Healthy").is(200);
    }
    assert!((1..6).contains(&crashes), "{crashes} crashes are enough");
    assert_eq!(server.get("/api/v1/plugins").is(200).json()[0]["status"], "quarantined");
}
