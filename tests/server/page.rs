//! The page as a client of HTTP sees it.

use serde_json::json;

use crate::support::{Answer, Home, Package, Server, asset, order, token, wait_for};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Logs in, and answers the cookie.
pub(crate) fn log_in(server: &Server, token: &str) -> String {
    let answer = server.request("POST", "/login", &[FORM], format!("token={token}&next=/log").as_bytes()).is(303);
    assert_eq!(answer.header("location"), "/log");
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    cookie.split(';').next().expect("a pair").to_owned()
}

/// The mark that the forms of a page carry.
pub(crate) fn mark(page: &Answer) -> String {
    let rest = page.body.split("name=\"csrf\" value=\"").nth(1).expect("a form");
    rest.split('"').next().expect("a value").to_owned()
}

#[test]
fn a_session_needs_a_token_and_ends_with_it() {
    let (home, server) = {
        let home = Home::new();
        let server = Server::start(&home);
        (home, server)
    };
    for path in ["/", "/log", "/plugins/x", "/handlers/new", "/api", "/log/rows?after=0"] {
        let answer = server.request("GET", path, &[], b"").is(303);
        assert!(answer.header("location").starts_with("/login?next="), "{path}");
        server.request("GET", path, &[("cookie", "billhook=wrong")], b"").is(303);
        server.request("GET", path, &[("authorization", &format!("Bearer {}", server.token))], b"").is(303);
    }
    server.request("POST", "/login", &[FORM], b"token=billhook_0_0").is(401);
    server.request("POST", "/login", &[], b"token=x").is(415);
    for away in ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"] {
        let form = format!("token={}&next={away}", server.token);
        let answer = server.request("POST", "/login", &[FORM], form.as_bytes()).is(303);
        assert_eq!(answer.header("location"), "/", "{away}");
    }
    let reader = token(&home, "read");
    let cookie = log_in(&server, &reader);
    server.request("GET", "/log", &[("cookie", &cookie)], b"").is(200);
    // The API takes tokens, and not what a browser sends by itself.
    server.request("GET", "/api/v1/plugins", &[("cookie", &cookie)], b"").is(401);
    let id = reader.split('_').nth(1).expect("an id").to_owned();
    home.run(&["token", "remove", &id]).succeeded();
    wait_for("the end of the session", || server.request("GET", "/log", &[("cookie", &cookie)], b"").status == 303);
}

#[test]
fn forms_are_taken_from_the_sessions_own_pages_and_as_far_as_its_token_goes() {
    let home = Home::new();
    home.load(&Package::new("Plain")).succeeded();
    let server = Server::start(&home);
    let (manager, reader) = (log_in(&server, &server.token), log_in(&server, &token(&home, "read")));
    let page = server.request("GET", "/plugins/plain", &[("cookie", &manager)], b"").is(200);
    let csrf = mark(&page);
    let post = |cookie: &str, csrf: &str, more: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie), FORM], more].concat();
        server.request("POST", "/plugins/plain/disable", &headers, format!("csrf={csrf}").as_bytes())
    };
    post("", &csrf, &[]).is(303);
    post(&manager, "", &[]).is(403);
    post(&manager, "wrong", &[]).is(403);
    post(&reader, &csrf, &[]).is(403);
    let own = mark(&server.request("GET", "/log", &[("cookie", &reader)], b"").is(200));
    post(&reader, &own, &[]).is(403);
    post(&manager, &csrf, &[("origin", "https://evil.example")]).is(403);
    post(&manager, &csrf, &[("sec-fetch-site", "cross-site")]).is(403);
    let status = || server.get("/api/v1/plugins/plain").json()["status"].clone();
    assert_eq!(status(), "enabled", "none of these did anything");
    post(&manager, &csrf, &[("origin", &server.url(""))]).is(303);
    assert_eq!(status(), "disabled");
    // Who only looks sees no forms that change anything.
    let seen = server.request("GET", "/plugins/plain", &[("cookie", &reader)], b"").is(200);
    assert!(!seen.body.contains("/plugins/plain/enable") && !seen.body.contains("id=\"settings\""));
}

#[test]
fn an_upload_from_a_form_needs_the_mark_before_the_file() {
    let home = Home::new();
    let server = Server::start(&home);
    let cookie = log_in(&server, &server.token);
    let csrf = mark(&server.request("GET", "/", &[("cookie", &cookie)], b"").is(200));
    let package = std::fs::read(Package::new("Plain").write(home.folder())).expect("readable");
    let upload = |parts: &[(&str, &[u8])]| {
        let mut body = Vec::new();
        for (name, content) in parts {
            body.extend(
                format!("--mark\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n").bytes(),
            );
            body.extend(*content);
            body.extend(b"\r\n");
        }
        body.extend(b"--mark--\r\n");
        let headers = [("cookie", cookie.as_str()), ("content-type", "multipart/form-data; boundary=mark")];
        server.request("POST", "/plugins", &headers, &body)
    };
    upload(&[("package", &package)]).is(403);
    upload(&[("package", &package), ("csrf", csrf.as_bytes())]).is(403);
    upload(&[("csrf", b"wrong"), ("package", &package)]).is(403);
    assert_eq!(server.get("/api/v1/plugins").json(), json!([]));
    let answer = upload(&[("csrf", csrf.as_bytes()), ("package", b"no zip")]).is(303);
    assert_eq!(answer.header("location"), "/");
    let told = server.request("GET", "/", &[("cookie", &cookie)], b"").is(200);
    assert!(told.body.contains("The package was not installed."), "{}", told.body);
    upload(&[("csrf", csrf.as_bytes()), ("package", &package)]).is(303);
    assert_eq!(server.get("/api/v1/plugins").json()[0]["id"], "plain");
    let left: Vec<_> = std::fs::read_dir(home.path().join("staging")).expect("there").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_page_lets_nothing_in_but_its_own_files() {
    let home = Home::new();
    let server = Server::start(&home);
    let cookie = log_in(&server, &server.token);
    for path in [
        "/",
        "/login",
        "/handlers",
        "/handlers/new",
        "/events",
        "/deliveries",
        "/resources",
        "/log",
        "/api",
        "/plugins/none",
    ] {
        // Whoever has logged in is sent on from where one does.
        let cookie = if path == "/login" { "" } else { cookie.as_str() };
        let page = server.request("GET", path, &[("cookie", cookie)], b"");
        assert!([200, 404].contains(&page.status), "{path}: {}", page.status);
        let policy = page.header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert!(!page.body.contains(" style=") && !page.body.contains(" onclick="), "{path}");
        let foreign = page.body.matches("src=\"").count();
        assert_eq!(foreign, page.body.matches("src=\"/assets/").count(), "{path} loads nothing from elsewhere");
    }
}

#[test]
fn trouble_of_the_disk_is_told_on_the_page_without_a_place_and_what_was_typed_stays() {
    let home = Home::on_failing_disk();
    home.load(&Package::new("Plain")).succeeded();
    let server = Server::start(&home);
    let cookie = log_in(&server, &server.token);
    let csrf = mark(&server.request("GET", "/plugins/plain", &[("cookie", &cookie)], b"").is(200));
    home.fail(&["write", "make"], rustix::io::Errno::IO.raw_os_error());
    let post = |path: &str, more: &str| {
        let headers = [("cookie", cookie.as_str()), FORM];
        server.request("POST", path, &headers, format!("csrf={csrf}{more}").as_bytes())
    };
    let refused = post("/plugins/plain/settings", "&settings=%7B%22typed%22%3A1%7D").is(503);
    assert!(refused.body.contains("the host&#39;s disk fails") && refused.body.contains("typed"), "{}", refused.body);
    post("/plugins/plain/disable", "").is(303);
    let told = server.request("GET", "/plugins/plain", &[("cookie", &cookie)], b"").is(200);
    assert!(told.body.contains("the host&#39;s disk fails"), "{}", told.body);
    for page in [refused, told] {
        assert!(!page.body.contains(home.folder().to_str().expect("UTF-8")), "{}", page.body);
    }
}

#[test]
fn what_a_plugin_keeps_is_named_where_it_is_removed_and_deleted_only_where_that_was_ticked() {
    let home = Home::new();
    home.load(&Package::new("Keeper").of("keeper")).succeeded();
    let server = Server::start(&home);
    let mut kept = asset("Keeper");
    kept.meta_info = json!(["keep", "key", "value"]).into();
    server.post("/api/v1/hooks/on_product_acquisition", &json!({"asset": kept, "order": order()})).is(200);
    let cookie = log_in(&server, &server.token);
    let page = server.request("GET", "/plugins/keeper", &[("cookie", &cookie)], b"").is(200);
    for shown in ["1 value (10 bytes) that it keeps", "Also delete the 1 value (10 bytes) that it keeps, for good"] {
        assert!(page.body.contains(shown), "{shown:?} is not in {}", page.body);
    }
    let csrf = mark(&page);
    let remove = |more: &str| {
        let form = format!("csrf={csrf}{more}");
        let headers = [("cookie", cookie.as_str()), FORM];
        let to = server.request("POST", "/plugins/keeper/remove", &headers, form.as_bytes()).is(303);
        server.request("GET", to.header("location"), &[("cookie", &cookie)], b"").is(200).body
    };
    let refused = remove("");
    assert!(refused.contains("keeper keeps 1 value (10 bytes), which would be deleted with it"), "{refused}");
    assert!(remove("&force=on").contains("keeper was removed."));
}
