//! How a server starts: its options, its certificate, and what it says of those that are wrong.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::support::{Home, Server, token};

/// A certificate for this machine, and its key, in two files.
fn certificate(home: &Home) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("made");
    (home.file("certificate.pem", &made.cert.pem()), home.file("key.pem", &made.signing_key.serialize_pem()))
}

fn configure(home: &Home, text: &str) {
    fs::create_dir_all(home.path()).expect("made");
    fs::write(home.path().join("config.toml"), text).expect("written");
}

#[test]
fn with_a_certificate_it_speaks_tls_and_nothing_else() {
    let home = Home::new();
    let (certificate, key) = certificate(&home);
    token(&home, "read");
    configure(&home, &format!("[server]\ntls = {{ certificate = {certificate:?}, key = {key:?} }}\n"));
    let server = Server::start(&home);
    assert_eq!(server.scheme, "https");
    let trusted = Certificate::from_pem(&fs::read(&certificate).expect("there")).expect("a certificate").to_owned();
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![trusted]))).build();
    let client: Agent =
        Agent::config_builder().http_status_as_error(false).max_redirects(0).tls_config(tls).build().into();
    let port = server.address.rsplit(':').next().expect("a port");
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let answer = client.get(url("/healthz")).call().expect("trusted");
    assert_eq!(answer.status(), 200);
    let form = [("token", server.token.as_str())];
    let answer = client.post(url("/login")).send_form(form).expect("answered");
    let cookie = answer.headers().get("set-cookie").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(cookie.starts_with("__Host-billhook=") && cookie.contains("; Secure"), "{cookie}");
    // Whoever speaks plainly gets no answer, and holds up nobody.
    let mut plain = TcpStream::connect(&server.address).expect("connected");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("written");
    let mut answered = Vec::new();
    let _ = plain.read_to_end(&mut answered);
    assert!(!answered.starts_with(b"HTTP"), "{answered:?}");
    assert_eq!(client.get(url("/healthz")).call().expect("still there").status(), 200);
}

#[test]
fn behind_a_proxy_that_speaks_tls_it_says_what_browsers_have_to_know() {
    let home = Home::new();
    token(&home, "read");
    configure(&home, "[server]\nbehind_proxy = true\npublic_url = \"https://billhook.example\"\nguesses = 2\n");
    let server = Server::start(&home);
    let form = format!("token={}", server.token);
    let log_in = |origin: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", origin)];
        server.request("POST", "/login", &headers, form.as_bytes())
    };
    let answer = log_in("https://billhook.example").is(303);
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-billhook=") && cookie.contains("; Secure"), "{cookie}");
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    log_in(&format!("http://{}", server.address)).is(403);
    let types = server.get("/charging/api/assetManagement/assetTypes").is(200);
    assert_eq!(types.json(), serde_json::json!([]));
    // Who guesses is whom the proxy names last, and nobody else.
    let guess = |peer: &str| {
        let headers = [("authorization", "Bearer billhook_0_wrong"), ("x-forwarded-for", peer)];
        server.request("GET", "/api/v1/plugins", &headers, b"").status
    };
    for (guesser, another) in [
        ("10.0.0.9, 10.0.0.1", "10.0.0.1, 10.0.0.2"),
        ("10.0.1.1:51234", "10.0.1.2:51234"),
        ("\"[2001:db8:1::1]:51234\"", "\"[2001:db8:2::1]:51234\""),
        ("2001:db8:3::1", "2001:db8:4::1"),
    ] {
        let refused = (0..100).map(|_| guess(guesser)).find(|status| *status != 401);
        assert_eq!((refused, guess(another)), (Some(429), 401), "{guesser}");
    }
    // The port changes with each connection.
    let refused = (0..100).map(|port| guess(&format!("10.0.2.1:{}", 50_000 + port))).find(|status| *status != 401);
    assert_eq!(refused, Some(429));
    // What is no address is the proxy, and told.
    let refused = (0..100).map(|_| guess("unknown")).find(|status| *status != 401);
    assert_eq!(refused, Some(429));
    let log = fs::read_to_string(home.folder().join("server.log")).expect("readable");
    assert_eq!(log.matches("X-Forwarded-For says").count(), 1, "{log}");
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let home = Home::new();
    let (certificate, key) = certificate(&home);
    let (none, text) = (home.folder().join("none.pem").display().to_string(), home.file("text.pem", "no certificate"));
    for (options, arguments, expected) in [
        ("listen = \"nowhere\"", &[][..], "nowhere can't be listened on"),
        ("", &["--listen", "0.0.0.0:0", "--insecure-no-auth"], "is no loopback address"),
        ("listen = \"[::]:0\"\ninsecure_no_auth = true", &[], "is no loopback address"),
        ("colour = 1", &[], "unknown field `colour`"),
        ("calls = 0", &[], "the server's option calls is wrong"),
        ("receive_s = 0", &[], "the server's option receive_s is wrong"),
        ("public_url = \"billhook.example\"", &[], "the server's option public_url is wrong"),
        ("provisioning.base_path = \"/api\"", &[], "provisioning.base_path is wrong: something else is there"),
        ("provisioning.base_path = \"x/\"", &[], "provisioning.base_path is wrong"),
        ("provisioning.sign_on_path = \"/cloudcontrol/resources\"", &[], "provisioning.sign_on_path is wrong"),
        (&format!("tls = {{ certificate = {none:?}, key = {key:?} }}"), &[], "none.pem can't be used"),
        (&format!("tls = {{ certificate = {text:?}, key = {key:?} }}"), &[], "text.pem can't be used"),
        (&format!("tls = {{ certificate = {certificate:?}, key = {text:?} }}"), &[], "text.pem can't be used"),
    ] {
        configure(&home, &format!("[server]\n{options}\n"));
        home.run(&[&["serve"], arguments].concat()).failed_with(&[expected]);
    }
}

#[test]
fn an_address_that_somebody_has_is_told() {
    let (home, other) = (Home::new(), Home::new());
    let server = Server::start(&home);
    other.run(&["serve", "--listen", &server.address]).failed_with(&[&server.address, "can't be listened on"]);
}

#[test]
fn a_second_server_of_the_same_home_serves_the_same() {
    let home = Home::new();
    let (one, two) = (Server::start(&home), Server::start(&home));
    for server in [&one, &two] {
        // Each knows the other's token.
        server.ask_as(&one.token, "GET", "/api/v1/plugins", None).is(200);
        server.ask_as(&two.token, "GET", "/api/v1/plugins", None).is(200);
    }
}
