//! What bodies are written in: what isn't read is answered with 415, and named.

use std::{io::Write, net::Shutdown};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use serde_json::json;

use super::hostile::{PLUGINS, connect, head, status};
use crate::support::{Home, Package, Server};

const EVENT: &str = r#"{"event": "clients.create"}"#;
const EVENTS: &str = "/api/v1/events";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("written");
    encoder.finish().expect("compressed")
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("written");
    encoder.finish().expect("compressed")
}

/// A text in UTF-16, the lower byte of each character first or last.
fn utf_16(text: &str, first: bool) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if first { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
}

#[test]
fn a_body_in_another_encoding_is_refused_by_name_wherever_text_is_taken() {
    let home = Home::new();
    let server = Server::start(&home);
    let authorization = format!("Bearer {}", server.token);
    let zstd = [b"\x28\xb5\x2f\xfd\x00\x00", EVENT.as_bytes()].concat();
    let marked = |mark: &[u8]| [mark, EVENT.as_bytes()].concat();
    for (what, body, named) in [
        ("gzip", gzip(EVENT), "gzip"),
        ("zstd", zstd, "zstd"),
        ("deflate", zlib(EVENT), "deflate"),
        ("xz", marked(b"\xfd7zXZ\0"), "xz"),
        ("bzip2", marked(b"BZh9"), "bzip2"),
        ("a zip", marked(b"PK\x03\x04"), "a zip"),
        ("a byte-order mark", marked(b"\xef\xbb\xbf"), "byte-order mark"),
        ("UTF-16 with one", [&b"\xff\xfe"[..], &utf_16(EVENT, true)].concat(), "UTF-16"),
        ("UTF-16 with one, the other way", [&b"\xfe\xff"[..], &utf_16(EVENT, false)].concat(), "UTF-16"),
        ("UTF-16 without", utf_16(EVENT, true), "UTF-16"),
        ("UTF-16 without, the other way", utf_16(EVENT, false), "UTF-16"),
        ("UTF-32", EVENT.chars().flat_map(|c| (c as u32).to_be_bytes()).collect(), "UTF-32"),
    ] {
        let api = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let answer = server.request("POST", EVENTS, &api, &body).is(415);
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{what}: {answer:#?}");
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for path in ["/login", "/sso/login"] {
            let answer = server.request("POST", path, &form, &body).is(415);
            assert!(answer.body.contains(named), "{what} at {path}: {answer:#?}");
        }
    }
    server.post(EVENTS, &json!({"event": "clients.create"})).is(201);
}

#[test]
fn a_body_that_is_declared_in_another_encoding_is_refused_before_it_is_read() {
    let home = Home::new();
    let server = Server::start(&home);
    let authorization = format!("Bearer {}", server.token);
    let package = std::fs::read(Package::new("healthy").write(home.folder())).expect("readable");
    for (encoding, status) in [
        ("gzip", 415),
        ("zstd", 415),
        ("br", 415),
        ("x-gzip", 415),
        ("identity, gzip", 415),
        ("unknown", 415),
        ("identity", 201),
        ("Identity", 201),
        ("", 201),
    ] {
        let headers =
            |kind| [("authorization", authorization.as_str()), ("content-type", kind), ("content-encoding", encoding)];
        let answer = server.request("POST", EVENTS, &headers("application/json"), EVENT.as_bytes()).is(status);
        if status == 415 {
            assert!(answer.body.contains(encoding), "{answer:#?}");
            assert_eq!(answer.header("accept-encoding"), "identity");
            for kind in ["application/zip", "multipart/form-data; boundary=x"] {
                let answer = server.request("POST", PLUGINS, &headers(kind), &package).is(415);
                assert!(answer.body.contains(encoding), "{answer:#?}");
            }
        }
    }
    for (kind, status) in [
        ("application/json; charset=iso-8859-1", 415),
        ("application/json;charset=\"UTF-16\"", 415),
        ("application/json; charset=UTF-8", 201),
        ("application/json; profile=x; charset=\"utf-8\"", 201),
        ("application/json; charset=us-ascii", 201),
    ] {
        let headers = [("authorization", authorization.as_str()), ("content-type", kind)];
        let answer = server.request("POST", EVENTS, &headers, EVENT.as_bytes());
        assert_eq!(answer.status, status, "{kind}: {answer:#?}");
    }
}

#[test]
fn who_sends_nothing_more_is_answered() {
    let home = Home::new();
    let server = Server::start(&home);
    let request = format!(
        "{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{EVENT}",
        head(&server, "POST", EVENTS).replace("Connection: close\r\n", ""),
        EVENT.len()
    );
    let answered = |sent: &str| {
        let mut connection = connect(&server.address);
        connection.write_all(sent.as_bytes()).expect("written");
        connection.shutdown(Shutdown::Write).expect("half closed");
        status(&mut connection)
    };
    assert_eq!(answered(&request), 201);
    assert_eq!(answered(&format!("{}\r\n", head(&server, "GET", PLUGINS))), 200);
    // One that isn't whole is none.
    assert_ne!(answered(&request[..request.len() - 5]), 201);
    assert_ne!(answered(&request[..40]), 201);
}
