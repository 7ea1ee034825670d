//! Single sign-on: whom a platform vouches for is sent to the resource, and nobody else.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::SystemTime,
};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

use super::*;

/// The hexadecimal SHA-1 of a text, by somebody else's program.
fn sha1(text: &str) -> String {
    let mut command = Command::new("sha1sum");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils are there");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("UTF-8")[..40].to_owned()
}

pub(super) type Form = Vec<(&'static str, String)>;

/// What a platform sends with somebody's browser, so many seconds from now.
pub(super) fn form(id: &str, salt: &str, seconds: i64) -> Form {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let timestamp = now.checked_add_signed(seconds).expect("a time").to_string();
    let token = sha1(&format!("{id}:{salt}:{timestamp}"));
    let browser = [("nav-data", "eyJhZGRvbiI6ImZpeCJ9+/=="), ("email", "ada@acme.example"), ("app", "shop")];
    let signed = [("id", id.to_owned()), ("token", token), ("timestamp", timestamp)];
    signed.into_iter().chain(browser.map(|(name, value)| (name, value.to_owned()))).collect()
}

/// The same with another value, or without a field if there is none.
fn with(form: Form, field: &'static str, value: Option<&str>) -> Form {
    let others = form.into_iter().filter(|(name, _)| *name != field);
    others.chain(value.map(|value| (field, value.to_owned()))).collect()
}

#[track_caller]
pub(super) fn sign_on(server: &Server, path: &str, form: &[(&str, String)]) -> Answer {
    let pair = |(name, value): &(&str, String)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let body = form.iter().map(pair).collect::<Vec<_>>().join("&");
    // As a browser sends it from the platform's page.
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", "https://platform.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    server.request("POST", path, &headers, body.as_bytes())
}

#[test]
fn whom_a_platform_vouches_for_is_sent_to_the_resource() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    for (path, seconds) in [("/sso/login", 0), ("/sso/login/", 0), ("/sso/login", -240), ("/sso/login", 240)] {
        let answer = sign_on(&server, path, &form("res-u-1", SALT, seconds)).is(302);
        assert_eq!(answer.header("location"), "https://fix.example/sso/res-u-1?email=ada@acme.example");
        let cookie = "heroku-nav-data=eyJhZGRvbiI6ImZpeCJ9+/==; Path=/; SameSite=Lax";
        assert_eq!(answer.header("set-cookie"), cookie, "as it was sent");
    }
    // What proves nothing may be missing, and what nobody knows may be there.
    let mut short = form("res-u-1", SALT, 0);
    short.truncate(3);
    short.push(("resource_id", "x".to_owned()));
    let answer = sign_on(&server, "/sso/login", &short).is(302);
    assert_eq!(answer.header("location"), "https://fix.example/sso/res-u-1?email=");
    create(&server, "77", "number");
    sign_on(&server, "/sso/login", &form("77", SALT, 0)).is(302);
}

#[test]
fn a_sign_on_comes_too_early_where_the_add_on_takes_no_calls() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    server.ask("POST", "/api/v1/plugins/fix/disable", None).is(200);
    for _ in 0..70 {
        let answer = sign_on(&server, "/sso/login", &form("res-u-1", SALT, 0)).is(503);
        assert!(!answer.header("retry-after").is_empty(), "{answer:#?}");
    }
    server.ask("POST", "/api/v1/plugins/fix/enable", None).is(200);
    sign_on(&server, "/sso/login", &form("res-u-1", SALT, 0)).is(302);
}

#[test]
fn whoever_guesses_at_sign_ons_waits_and_keeps_nobody_out_who_is_vouched_for() {
    let home = home();
    let config = home.file("guesses.toml", "[server]\nguesses = 2\n");
    let server = Server::start_with(&home, &["--config", &config]);
    create(&server, "u-1", "free");
    create(&server, "u-2", "free");
    for (id, salt) in [("unknown", SALT), ("res-u-2", "pepper")] {
        // On a slow machine, guesses are forgotten meanwhile.
        let mut guesses = (0..100).map(|_| sign_on(&server, "/sso/login", &form(id, salt, 0)));
        guesses.find(|answer| answer.status != 403).expect("somebody notices").is(429);
    }
    sign_on(&server, "/sso/login", &form("res-u-1", SALT, 0)).is(302);
}

#[test]
fn nobody_else_signs_on_and_the_salt_tells_add_ons_apart() {
    let home = home();
    for (addon, salt) in [("other", json!("other-salt")), ("unsalted", Value::Null), ("empty", json!(""))] {
        load_with(&home, addon, &json!({ "sso_salt": salt }));
    }
    let server = Server::start(&home);
    for (addon, uuid) in [("fix", "u-1"), ("other", "u-1"), ("other", "u-2"), ("unsalted", "u-3"), ("empty", "u-4")] {
        let made = ask_as(&server, &basic(addon, PASSWORD), "POST", RESOURCES, &wanted(uuid, "free")).is(201).json();
        assert_eq!(made["id"], format!("res-{uuid}"));
    }
    let good = || form("res-u-1", SALT, 0);
    for (what, form) in [
        ("another salt", form("res-u-1", "pepper", 0)),
        ("six minutes ago", form("res-u-1", SALT, -360)),
        ("in six minutes", form("res-u-1", SALT, 360)),
        ("another add-on's resource", form("res-u-2", SALT, 0)),
        ("an add-on without a salt", form("res-u-3", "", 0)),
        ("an add-on with an empty salt", form("res-u-4", "", 0)),
        ("no such resource", form("unknown", SALT, 0)),
        ("an id that wasn't signed", with(good(), "id", Some("res-u-2"))),
        ("a time that wasn't signed", with(form("res-u-1", SALT, -360), "timestamp", Some(good()[2].1.as_str()))),
        ("an empty token", with(good(), "token", Some(""))),
        ("a time that is no number", with(good(), "timestamp", Some("now"))),
        ("no id", with(good(), "id", None)),
        ("no token", with(good(), "token", None)),
        ("no timestamp", with(good(), "timestamp", None)),
        ("nothing", Form::new()),
    ] {
        let answer = checked(sign_on(&server, "/sso/login", &form));
        assert_eq!(answer.status, 403, "{what}: {answer:#?}");
        assert_eq!((answer.header("location"), answer.header("set-cookie")), ("", ""), "{what}");
    }
    for (salt, host) in [(SALT, "https://fix.example/"), ("other-salt", "https://other.example/")] {
        let answer = sign_on(&server, "/sso/login", &form("res-u-1", salt, 0)).is(302);
        assert!(answer.header("location").starts_with(host), "{salt}: {answer:#?}");
    }
    delete(&server, "res-u-1").is(200);
    sign_on(&server, "/sso/login", &good()).is(403);
    sign_on(&server, "/sso/login", &form("res-u-1", "other-salt", 0)).is(302);
}

#[test]
fn what_a_browser_sends_adds_no_headers_and_no_cookies() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    for hostile in [
        "a\r\nSet-Cookie: evil=1\r\nX-Evil: 1",
        "a; Domain=acme.example, evil=1",
        "\"a\\\"; Path=/evil",
        "%0d%0aX-Evil: 1",
        "\0\t\x7f \u{e4}\u{20ac}",
    ] {
        let hostile_form = with(form("res-u-1", SALT, 0), "nav-data", Some(hostile));
        let answer = sign_on(&server, "/sso/login", &hostile_form).is(302);
        let is_one = answer.headers.get_all("set-cookie").iter().count() == 1;
        assert!(is_one && !answer.headers.contains_key("x-evil"), "{answer:#?}");
        let value = answer.header("set-cookie").strip_prefix("heroku-nav-data=").unwrap_or_default();
        let value = value.strip_suffix("; Path=/; SameSite=Lax").unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        assert!(value.bytes().all(is_plain), "{answer:#?}");
        assert_eq!(percent_decode_str(value).decode_utf8().expect("UTF-8"), hostile);
        // The fixture writes it into the address as it came, which is the add-on's fault.
        let hostile_form = with(form("res-u-1", SALT, 0), "email", Some(hostile));
        let answer = checked(sign_on(&server, "/sso/login", &hostile_form)).is(500);
        let headers = ["x-evil", "set-cookie", "location"];
        assert!(!headers.iter().any(|name| answer.headers.contains_key(*name)), "{answer:#?}");
    }
}
