//! The page in a real browser.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::json;

use crate::support::{Browser, HandlerServer, Home, Package, Reply, Server, asset, order, wait_for};

/// Names that would do something if a page took them for HTML.
const HOSTILE: &str = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1</script>'\"&";

fn log_in(browser: &Browser, server: &Server) {
    browser.open(&server.url("/"));
    browser.fill("#token", &server.token);
    browser.click("main form button");
    browser.shows("The last hour");
}

#[test]
fn an_operator_goes_from_logging_in_to_redriving_a_dead_letter() {
    let Some(browser) = Browser::start() else { return };
    let (home, is_well) = (Home::new(), Arc::new(AtomicBool::new(false)));
    let healed = Arc::clone(&is_well);
    let endpoint = HandlerServer::start(move |_| {
        if healed.load(Ordering::Relaxed) { Reply::ok() } else { Reply::Answer(400, "not yet".to_owned()) }
    });
    let server = Server::start(&home);
    let form = json!({
        "plan": {"type": "select", "label": "Plan", "default": "basic", "options": [
            {"text": "Basic", "value": "basic"}, {"text": "Premium", "value": "premium"}]},
        "open": {"type": "checkbox", "label": "Open to all?", "default": true},
        "key": {"type": "text", "label": "API key", "placeholder": "abc", "mandatory": true},
        "note": {"type": "textarea"}
    });
    let package = Package::new("Weather Data").field("form", form).write(home.folder());

    browser.be(1280, "light");
    browser.open(&server.url("/deliveries"));
    assert_eq!(browser.path(), "/login", "who hasn't logged in is asked to");
    browser.fill("#token", "billhook_000000000000_wrong");
    browser.click("main form button");
    browser.shows("This token is wrong, or was removed, or has expired.");
    // The status of that answer is what the browser complains of, and nothing else.
    assert!(browser.complaints().iter().all(|line| line.contains("401")), "only of the refusal");
    browser.fill("#token", &server.token);
    browser.click("main form button");
    browser.shows("Dead letters");
    assert_eq!(browser.path(), "/deliveries", "and then gets where they wanted to go");

    browser.open(&server.url("/"));
    browser.shows("No plugin is installed yet.");
    browser.fill("#package", package.to_str().expect("UTF-8"));
    browser.click("form[enctype] button");
    browser.shows("weather-data was installed, version 1.0.");
    assert_eq!(browser.path(), "/plugins/weather-data");

    browser.choose("#preview select", "premium");
    browser.fill("#preview input[type=text]", "s3cret");
    browser.click("#preview input[type=checkbox]");
    let meta_info = browser.script("return document.getElementById('meta-info').textContent");
    let meta_info: serde_json::Value = serde_json::from_str(meta_info.as_str().expect("text")).expect("JSON");
    assert_eq!(meta_info, json!({"plan": "premium", "open": false, "key": "s3cret", "note": ""}));

    browser.open(&server.url("/handlers"));
    browser.click("main a.button");
    browser.fill("#name", "CRM sync");
    browser.choose("#event", "clients.create");
    browser.fill("#task", &format!("{}/api", endpoint.address));
    browser.fill("#priority", "5");
    browser.click("main form button");
    browser.shows("The handler CRM sync was added.");

    browser.open(&server.url("/log"));
    browser.shows("There is nothing like that yet.");
    server.post("/api/v1/events", &json!({"event": "clients.create", "data": {"id": 12, "name": HOSTILE}})).is(201);
    browser.shows("CRM sync");
    browser.shows("failed");
    assert_eq!(browser.path(), "/log", "it came by itself");

    browser.open(&server.url("/events"));
    browser.choose("#event", "clients.create");
    browser.fill("#data", r#"{"id": 13}"#);
    browser.click("main form button");
    browser.shows("It has 1 delivery.");
    browser.open(&server.url("/deliveries?status=dead"));
    browser.click("tbody a");
    browser.shows("not yet");
    is_well.store(true, Ordering::Relaxed);
    browser.click("form[action$=redrive] button");
    browser.shows("is attempted again");
    wait_for("the redriven delivery", || {
        browser.script("location.reload()");
        browser.text().contains("done")
    });
    assert_eq!(browser.complaints(), Vec::<String>::new());

    browser.click(".logout button");
    browser.shows("Token");
    browser.open(&server.url("/log"));
    assert_eq!(browser.path(), "/login", "who logged out is out");
}

#[test]
fn a_plugin_is_looked_at_changed_upgraded_and_taken_back() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    home.load(&Package::new("Choosy").of("refuse_settings")).succeeded();
    home.load(&Package::new("Healthy")).succeeded();
    home.load(&Package::new("Healthy").version("2.0")).succeeded();
    home.load(
        &Package::new("Fix").of("addon").field("addon", json!({"id": "fix", "config_vars": ["FIX_URL", "FIX_PLAN"]})),
    )
    .succeeded();
    let server = Server::start(&home);
    log_in(&browser, &server);
    browser.shows("No plugin was called.");
    for _ in 0..3 {
        let objects = json!({"asset": asset("Healthy"), "order": order()});
        server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200);
    }
    browser.open(&server.url("/"));
    browser.shows("3 calls, 0 failed");
    let bars = "return [...document.querySelectorAll('svg.calls rect title')].map((title) => title.textContent).join()";
    assert!(
        browser.script(bars).as_str().is_some_and(|bars| bars.contains(": 3") || bars.contains(": 2")),
        "a minute or two"
    );

    // What was typed isn't lost where it is refused.
    browser.open(&server.url("/plugins/choosy"));
    browser.shows("It takes no calls until it has settings that suit it: set \"address\"");
    browser.fill("#settings", r#"{"elsewhere": "</textarea><b>"}"#);
    browser.click("form[action$=settings] button");
    browser.shows("refuses the settings");
    assert_eq!(
        browser.script("return document.getElementById('settings').value"),
        r#"{"elsewhere": "</textarea><b>"}"#
    );
    browser.fill("#settings", r#"{"address": "here"}"#);
    browser.click("form[action$=settings] button");
    browser.shows("choosy has the new settings.");

    browser.open(&server.url("/plugins/healthy"));
    browser.click("form[action$=downgrade] button");
    browser.shows("healthy went back to 1.0.");
    browser.click("form[action$=isolation] button");
    browser.shows("in worker processes");
    browser.click("form[action$=disable] button");
    browser.shows("healthy takes no calls now.");
    browser.click("form[action$=enable] button");
    browser.shows("healthy takes calls again.");
    browser.click("main details summary");
    browser.click("form[action$=remove] button");
    browser.shows("healthy was removed.");

    let resource = json!({"uuid": "u-1", "heroku_id": HOSTILE, "plan": "free", "region": HOSTILE});
    let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "fix:fixture-password-1234");
    let headers = [("authorization", &*format!("Basic {basic}")), ("content-type", "application/json")];
    server.request("POST", "/cloudcontrol/resources", &headers, resource.to_string().as_bytes()).is(201);
    browser.open(&server.url("/resources"));
    for shown in ["fix", "res-u-1", HOSTILE, "FIX_PLAN FIX_URL"] {
        browser.shows(shown);
    }
    assert!(!browser.text().contains("fix.example"), "values are secrets");

    // A refusal's status is what the browser complains of, and nothing else.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("422")), "{complaints:?}");
    browser.open(&server.url("/plugins/healthy"));
    browser.shows("there is no plugin \"healthy\"");
    browser.open(&server.url("/nowhere"));
    browser.shows("There is nothing here.");
}

#[test]
fn dead_letters_are_redriven_and_given_up_many_at_once() {
    let Some(browser) = Browser::start() else { return };
    let (home, is_well) = (Home::new(), Arc::new(AtomicBool::new(false)));
    let healed = Arc::clone(&is_well);
    let endpoint = HandlerServer::start(move |_| {
        if healed.load(Ordering::Relaxed) { Reply::ok() } else { Reply::Answer(400, HOSTILE.to_owned()) }
    });
    let server = Server::start(&home);
    let handler = json!({"name": "h", "event": "clients.create", "task": {"http": endpoint.url("/")}});
    server.post("/api/v1/handlers", &handler).is(201);
    log_in(&browser, &server);
    browser.open(&server.url("/log"));
    for id in 0..3 {
        server.post("/api/v1/events", &json!({"event": "clients.create", "data": {"id": id}})).is(201);
    }
    // What a handler says comes in by the script, too.
    browser.shows(HOSTILE);
    assert_eq!(browser.script("return window.harmed || document.images.length"), 1);
    let count = |status: &str| {
        let found = server.get(&format!("/api/v1/deliveries?status={status}")).json();
        found["items"].as_array().map(Vec::len)
    };
    wait_for("all to be dead", || count("dead") == Some(3));
    is_well.store(true, Ordering::Relaxed);
    browser.open(&server.url("/deliveries?status=dead"));
    browser.click("button[value=redrive]");
    browser.shows("3 are attempted again.");
    wait_for("all to be told", || count("done") == Some(3));
    browser.open(&server.url("/log?since=1h&until=2100-01-01"));
    browser.shows("success");
    browser.open(&server.url("/log?since=soon"));
    browser.shows("Since: write a date");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("400")), "{complaints:?}");
}

#[test]
fn the_preview_shows_what_is_kept_whatever_its_fields_are_called() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let text = json!({"type": "text", "default": "x"});
    let names = ["elements", "addEventListener", "__proto__", "name", "submit"];
    let form: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), text.clone())).collect();
    home.load(&Package::new("Plain").field("form", json!(form))).succeeded();
    let server = Server::start(&home);
    log_in(&browser, &server);
    browser.open(&server.url("/plugins/plain"));
    browser.fill("#preview input", "y");
    let kept = browser.script("return document.getElementById('meta-info').textContent");
    let kept: serde_json::Value = serde_json::from_str(kept.as_str().expect("text")).expect("JSON");
    for (index, name) in names.iter().enumerate() {
        assert_eq!(kept[name], if index == 0 { "y" } else { "x" }, "{name}: {kept}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn hostile_names_are_shown_and_do_nothing() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let form = json!({"field": {"type": "text", "label": HOSTILE, "placeholder": HOSTILE, "default": HOSTILE}});
    let package = Package::new("Plain").field("author", json!(HOSTILE)).field("form", form);
    home.load(&package).succeeded();
    let server = Server::start(&home);
    let handler = json!({"name": HOSTILE, "event": "clients.create", "task": {"http": "http://127.0.0.1:1/"},
        "retry": {"attempts": 1}});
    server.post("/api/v1/handlers", &handler).is(201);
    server
        .post("/api/v1/events", &json!({"event": "clients.create", "object_id": HOSTILE, "data": {"a": HOSTILE}}))
        .is(201);
    log_in(&browser, &server);
    browser.open(&server.url("/log"));
    browser.shows(HOSTILE);
    for (path, expected) in [
        ("/", HOSTILE),
        ("/plugins/plain", HOSTILE),
        ("/handlers", HOSTILE),
        ("/deliveries", HOSTILE),
        ("/deliveries/1", HOSTILE),
    ] {
        browser.open(&server.url(path));
        browser.shows(expected);
        assert_eq!(
            browser.script("return window.harmed || document.images.length"),
            1,
            "{path}: only the mark is an image"
        );
    }
    assert_eq!(browser.script("return document.querySelectorAll('script').length"), 1);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn every_part_fits_a_phone_and_a_desk_in_light_and_dark_and_works_with_the_keyboard() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    home.load(&Package::new("A Plugin With Quite A Long Name That Goes On")).succeeded();
    let server = Server::start(&home);
    let long = "x".repeat(100);
    let handler = json!({"name": long, "event": "clients.create", "task": {"http": format!("http://127.0.0.1:1/{long}")},
        "retry": {"attempts": 1}});
    server.post("/api/v1/handlers", &handler).is(201);
    server.post("/api/v1/events", &json!({"event": "clients.create", "object_id": long})).is(201);
    log_in(&browser, &server);
    let plugin = "/plugins/a-plugin-with-quite-a-long-name-that-goes-on";
    let parts = [
        "/",
        plugin,
        "/handlers",
        "/handlers/new",
        "/events",
        "/deliveries",
        "/deliveries/1",
        "/resources",
        "/log",
        "/api",
    ];
    let mut grounds = Vec::new();
    for (width, scheme) in [(1280, "light"), (390, "dark")] {
        browser.be(width, scheme);
        for part in parts {
            browser.open(&server.url(part));
            // Where the machine is busy, the page may be there before its style sheet.
            let styled = "return getComputedStyle(document.body).overflowWrap === 'anywhere'";
            wait_for("the style sheet", || browser.script(styled) == true);
            let needed = browser.script("return document.documentElement.scrollWidth").as_u64().expect("a number");
            assert!(needed <= u64::from(width), "{part} needs {needed} at {width}");
            let nameless = "return [...document.querySelectorAll('main input:not([type=hidden]), main select, main textarea')]\
                .filter((field) => !field.labels.length).length";
            assert_eq!(browser.script(nameless), 0, "{part}: every field has a label");
        }
        grounds.push(browser.script("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1], "dark is another colour than light");
    browser.open(&server.url("/"));
    // A key that comes before the page has the focus goes nowhere.
    wait_for("the focus", || {
        let is_nowhere = browser.script("return document.activeElement === document.body") == true;
        if is_nowhere {
            browser.press(&['\u{e004}']);
        }
        !is_nowhere
    });
    assert_eq!(browser.script("return document.activeElement.textContent"), "To the content");
    browser.press(&['\u{e007}']);
    wait_for("the way to the content", || browser.script("return document.activeElement.id") == "content");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
