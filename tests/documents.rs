//! Documents that pass through: whatever JSON's grammar allows comes out as it went in, on every way there is.

use std::path::Path;

use billhook::{
    Handler, Hook, HookObjects, HttpUsageApi, Install, Json, Mode, NewEvent, NoBundles, ProductSpecValidation,
    UsageApi, UsageApiSettings,
    data::{Asset, Contract, ObjectId, Offering, Order, User},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::{
    events::{delivering, http, script, settled},
    server::{log_in, mark},
    support::{
        Answer, HandlerServer, Home, Package, Reply, Server, UsageServer, asset, characteristic, order, wait_for,
    },
};

/// Numbers that lose something wherever they pass through 64 bits of floating point, through integers, or through a reader that writes
/// them out.
const NUMBERS: &[&str] = &[
    "117.63331139400017",
    "0.1000000000000000055511151231257827",
    "1.0",
    "1.10",
    "-0",
    "-0.0",
    "0e0",
    "1E+2",
    "1e-7",
    "1e999999999",
    "-1e-999999999",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890.123456789012345678901234567890",
];

/// A document of them, with everything else that the grammar allows and readers like to change.
fn hostile() -> String {
    let digits = "9".repeat(2_000);
    let deep = format!("{}1.0{}", "[".repeat(300), "]".repeat(300));
    format!(
        r#"{{"numbers": [{}, {digits}],"same":{{"k":1.0,"k":1.00}},  "half":"\ud800","\udc00":{{}},"deep":{deep},"empty":[{{}},[]],"\u0000":"\u0000\/"}}"#,
        NUMBERS.join(",")
    )
}

fn document() -> Json<'static> {
    Json::new(hostile()).expect("JSON")
}

fn passer() -> Package {
    let addon = json!({"id": "passer", "config_vars": ["BODY", "OPTIONS", "PLATFORM"]});
    let package = Package::new("Passer").of("passer").field("addon", addon).field("pull_accounting", json!(true));
    package.field("events", json!(["clients.create"]))
}

/// Objects with the document everywhere where there is room for one.
fn objects() -> (Asset, Contract, Order) {
    let document = document();
    let provider = User { extra: document.clone(), ..asset("Passer").provider };
    let asset = Asset { meta_info: document.clone(), extra: document.clone(), provider, ..asset("Passer") };
    let mut order = Order { extra: document.clone(), tax_address: document.clone(), ..order() };
    let contract = &mut order.contracts[0];
    (contract.pricing_model, contract.extra) = (document.clone(), document);
    (asset, contract.clone(), order)
}

/// How often the document is in a text, to the letter.
fn count(text: &str) -> usize {
    text.matches(&hostile()).count()
}

/// What the passer's acquisition makes of its objects, once it was told an event: eight times the document.
const IN_ACQUISITION: usize = 8;

#[test]
fn what_hooks_and_settings_are_given_reaches_plugins_and_comes_back_to_the_letter() {
    let home = Home::new();
    let package = passer().write(home.folder());
    let settings = home.file("settings.json", &hostile());
    home.run(&["loadplugin", package.to_str().expect("UTF-8"), "--settings", &settings]).succeeded();
    let (asset, contract, order) = objects();
    let objects = json_of(&[("asset", &asset), ("order", &order)]);
    let file = home.file("objects.json", &objects);
    let handler = HandlerServer::echo();
    let host = home.host();
    for isolation in ["in-process", "process"] {
        home.run(&["setplugin", "passer", "--isolation", isolation]).succeeded();
        // The embedded host, with what is listened to: a delivery to the plugin, and then a hook.
        let host = delivering(&home);
        host.emit(&NewEvent::new("clients.create").with_data(document())).expect("recorded");
        settled(&host);
        let changes = host.on_product_acquisition(&asset, &contract, &order).expect("it passes on");
        let passed = changes.meta_info.expect("changed");
        assert_eq!(count(passed.as_str()), IN_ACQUISITION, "{isolation}: {passed}");
        for (changes, expected) in [
            (host.on_pre_product_spec_attachment(&asset, &document()), 1),
            (host.on_pre_product_offering_validation(&asset, &document()), 1),
            (host.on_post_product_spec_validation(&asset.provider, &asset), 2),
        ] {
            let passed = changes.expect("it passes on").meta_info.expect("changed");
            assert_eq!(count(passed.as_str()), expected, "{isolation}: {passed}");
        }
        // The command, whose answer shows them as they are.
        let run = home.run(&["callplugin", "passer", "on_product_acquisition", "--objects", &file]).succeeded();
        assert_eq!(count(&run.stdout), IN_ACQUISITION, "{isolation}: {}", run.stdout);
    }
    assert_eq!(count(&home.run(&["--json", "showplugin", "passer"]).succeeded().stdout), 1);
    let shown = home.run(&["showplugin", "passer"]).succeeded().stdout;
    assert!(NUMBERS.iter().all(|number| shown.contains(&format!(" {number},\n"))), "{shown}");
    assert_eq!(host.show("passer").expect("there").settings.as_str(), hostile());

    // A before handler that sends everything back, beside the plugin, and one that is told after it.
    let hook = Hook::OnProductAcquisition.name();
    host.add_handler(&Handler { mode: Mode::Before, ..http("echo", hook, &handler) }).expect("added");
    host.add_handler(&http("after", hook, &handler)).expect("added");
    let changes = host.on_product_acquisition(&asset, &contract, &order).expect("an echo changes nothing");
    assert_eq!(count(changes.meta_info.expect("changed").as_str()), IN_ACQUISITION);
    // The provider's, the asset's two, the contract's two, the order's two, and again the contract's two in the order.
    let sent = count(&handler.calls()[0].body);
    assert_eq!(sent, 9, "{}", handler.calls()[0].body);
    let host = delivering(&home);
    settled(&host);
    let told = handler.calls().into_iter().find(|call| call.path == "/after").expect("it was told");
    assert_eq!(count(&told.body), sent - 1 + IN_ACQUISITION, "the asset as the hook left it");
}

#[test]
fn a_package_json_is_shown_as_it_is_written() {
    let home = Home::new();
    // What the rules don't look at: an unknown field, and an event that is none.
    let written = r#"{"price": 117.6333113940001712,  "most": 1e999999999, "id": 18446744073709551616}"#;
    let events = r#"[1e999, "clients.create"]"#;
    let package = Package::new("Passer").of("passer").field("pull_accounting", json!(true));
    let package = package.written("vendor", written).written("events", events);
    let package = package.written("form", r#"{"note": {"type": "text", "most": 1e999}}"#);
    let package = package.written("addon", r#"{"id": "passer", "config_vars": [], "since": -0}"#);
    let warned = home.load(&package).succeeded().stderr;
    assert!(warned.contains("$.vendor is not a field") && warned.contains("$.events[0] is no text"), "{warned}");
    for arguments in [&["--json", "showplugin", "passer"][..], &["showplugin", "passer"]] {
        let shown = home.run(arguments).succeeded().stdout;
        for part in ["117.6333113940001712", "1e999999999", "18446744073709551616", "-0", "1e999"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    let server = Server::start(&home);
    assert!(server.get("/api/v1/plugins/passer").is(200).body.contains(written));
    let types = server.get("/charging/api/assetManagement/assetTypes/passer").is(200).body;
    assert!(types.contains(r#""form":{"note": {"type": "text", "most": 1e999}}"#), "{types}");
    // It hears of the event all the same.
    let emitted = server.post("/api/v1/events", &json!({"event": "clients.create"})).is(201).json();
    assert_eq!(emitted["deliveries"], json!([1]));
}

/// An object of values as their JSON forms.
fn json_of(values: &[(&str, &dyn ErasedJson)]) -> String {
    let members: Vec<String> = values.iter().map(|(name, value)| format!("{name:?}:{}", value.json())).collect();
    format!("{{{}}}", members.join(","))
}

trait ErasedJson {
    fn json(&self) -> String;
}

impl<T: serde::Serialize> ErasedJson for T {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("JSON")
    }
}

#[test]
fn what_is_sent_over_http_comes_back_to_the_letter() {
    let home = Home::new();
    home.load(&passer()).succeeded();
    let server = Server::start(&home);
    let authorization = format!("Bearer {}", server.token);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let ask = |method: &str, path: &str, body: &str| server.request(method, path, &headers, body.as_bytes());

    ask("PUT", "/api/v1/plugins/passer/settings", &hostile()).is(200);
    assert_eq!(server.get("/api/v1/plugins/passer/settings").is(200).body, hostile());
    assert_eq!(count(&server.get("/api/v1/plugins/passer").is(200).body), 1);

    let event = format!(r#"{{"event": "clients.create", "object_id": 1E+2, "data": {}}}"#, hostile());
    let emitted = ask("POST", "/api/v1/events", &event).is(201);
    assert_eq!(count(&emitted.body), 1);
    let delivery = |number: i64| server.get(&format!("/api/v1/deliveries/{number}"));
    wait_for("the plugin to be told", || delivery(1).body.contains(r#""status":"done""#));
    assert_eq!(count(&delivery(1).is(200).body), 1);
    assert!(delivery(1).body.contains(r#""object_id":1E+2"#), "{}", delivery(1).body);

    let (asset, contract, order) = objects();
    let objects =
        json_of(&[("asset", &asset), ("contract", &contract), ("order", &order), ("product_spec", &document())]);
    for (hook, expected) in [("on_product_acquisition", IN_ACQUISITION), ("on_pre_product_spec_attachment", 1)] {
        let answer = ask("POST", &format!("/api/v1/hooks/{hook}"), &objects).is(200);
        assert_eq!(count(&answer.body), expected, "{hook}: {}", answer.body);
    }
    let notified = json_of(&[("assets", &[&asset]), ("order", &order)]);
    let answer = ask("POST", "/api/v1/notifications/product_acquired", &notified).is(200);
    assert_eq!(count(&answer.body), IN_ACQUISITION, "{}", answer.body);

    // The add-on protocol: what is asked for, and the whole body.
    let body = format!(r#" {{"uuid":"u","heroku_id":1E+2,"options":{}, "\ud800":1e999, "plan":"\u0070"}}"#, hostile());
    let authorization = "Basic cGFzc2VyOnBhc3N3b3JkLW9mLXRoZS1wYXNzZXI=";
    let platform = [("authorization", authorization), ("content-type", "application/json")];
    let created = server.request("POST", "/cloudcontrol/resources", &platform, body.as_bytes()).is(201).json();
    let config = |answer: &Value, name: &str| answer["config"][name].as_str().expect("text").to_owned();
    assert_eq!(config(&created, "BODY"), body);
    assert_eq!(config(&created, "OPTIONS"), hostile());
    assert_eq!(config(&created, "PLATFORM"), "1E+2");
    let changed = server.request("PUT", "/cloudcontrol/resources/resource", &platform, body.as_bytes()).is(200).json();
    assert_eq!(config(&changed, "BODY"), body);
    assert!(home.run(&["--json", "listresources"]).succeeded().stdout.contains(r#""platform_id": 1E+2"#));
}

#[test]
fn what_the_page_shows_and_takes_has_all_its_digits() {
    let home = Home::new();
    home.load(&passer()).succeeded();
    let server = Server::start(&home);
    let cookie = log_in(&server, &server.token);
    let get = |path: &str| server.request("GET", path, &[("cookie", &cookie)], b"").is(200);
    let post = |path: &str, page: &str, fields: &[(&str, &str)]| -> Answer {
        let csrf = mark(&get(page));
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let fields: String = fields.iter().map(|(name, value)| format!("&{name}={}", encoded(value))).collect();
        let headers = [("cookie", cookie.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        server.request("POST", path, &headers, format!("csrf={csrf}{fields}").as_bytes())
    };
    post("/plugins/passer/settings", "/plugins/passer", &[("settings", &hostile())]).is(303);
    assert_eq!(server.get("/api/v1/plugins/passer/settings").body, hostile());
    let id = "9223372036854775808";
    post("/events", "/events", &[("event", "clients.create"), ("object", id), ("data", &hostile())]).is(303);
    for path in ["/plugins/passer", "/deliveries/1"] {
        let page = get(path).body;
        for number in NUMBERS {
            assert!(page.contains(&format!(" {number},\n")), "{number} is not on {path}: {page}");
        }
    }
    // What is typed is what is sent: the settings as they are shown are the same settings.
    let shown = format!("{:#}", document());
    post("/plugins/passer/settings", "/plugins/passer", &[("settings", &shown)]).is(303);
    assert_eq!(server.get("/api/v1/plugins/passer/settings").body, shown);
    let delivery = server.get("/api/v1/deliveries/1").body;
    assert!(delivery.contains(&format!(r#""object_id":{id}"#)) && count(&delivery) == 1, "{delivery}");
}

#[test]
fn events_reach_every_listener_to_the_letter_and_are_shown_so() {
    let home = Home::new();
    let host = delivering(&home);
    let server = HandlerServer::start(|_| Reply::ok());
    let file = home.folder().join("told");
    let told = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    host.add_handler(&http("http", "clients.create", &server)).expect("added");
    let task = script(&home, "script", &format!("cat > {}", file.display()));
    host.add_handler(&crate::events::handler("script", "clients.create", task)).expect("added");
    let echo = script(&home, "echo", "cat");
    let before = Handler { mode: Mode::Before, ..crate::events::handler("echo", "clients.create", echo) };
    host.add_handler(&before).expect("added");
    let event = NewEvent::new("clients.create").with_data(document());
    let event = event.clone().with_data(host.before(&event).expect("allowed"));
    assert_eq!(event.data.as_str(), hostile());
    host.emit(&event).expect("recorded");
    settled(&host);
    assert_eq!((count(&server.calls()[0].body), count(&told(&file))), (1, 1));
    drop(host);
    // The command, with what is recorded and after that.
    let data = home.file("data.json", &hostile().replacen('{', r#"{"id": 1.0, "#, 1));
    let run = home.run(&["--json", "emit", "clients.create", "--data", &data]).succeeded();
    assert!(run.stdout.contains(r#""object_id": 1.0"#), "{}", run.stdout);
    let body = server.calls()[1].body.clone();
    assert!(body.contains(r#""object_id":1.0,"#) && body.contains(&hostile()[1..]), "{body}");
    for arguments in [&["showdelivery", "1"][..], &["--json", "showdelivery", "1"]] {
        assert_eq!(count(&home.run(arguments).succeeded().stdout), 1);
    }
}

#[test]
fn a_handler_that_changes_one_thing_changes_nothing_else() {
    let home = Home::new();
    home.load(&passer()).succeeded();
    let host = home.host();
    // What a handler makes of the document in a language that keeps numbers as floating point, and has no empty object: only x is
    // meant to change.
    let answered = |body: &str| {
        let mut body = body.to_owned();
        for (from, to) in [
            (r#""x":1"#, r#""x":2"#),
            ("0.1000000000000000055511151231257827", "0.1"),
            ("1.10", "1.1"),
            ("1E+2", "100"),
            ("9007199254740993", "9007199254740992"),
            ("18446744073709551616", "1.8446744073709552e+19"),
            ("1e999999999", "null"),
            ("[{},[]]", "[[],{}]"),
            (r#"{"k":1.0,"k":1.00}"#, r#"{"k":1}"#),
        ] {
            assert!(body.contains(from), "{from} is not in {body}");
            body = body.replace(from, to);
        }
        body
    };
    let server = HandlerServer::start(move |call| Reply::Answer(200, answered(&call.body)));
    let hook = Hook::OnProductAcquisition.name();
    for event in [hook, "clients.create"] {
        host.add_handler(&Handler { mode: Mode::Before, ..http(event, event, &server) }).expect("added");
    }
    let sent = hostile().replacen('{', r#"{"x":1, "#, 1);
    let expected = sent.replace(r#""x":1"#, r#""x":2"#);
    let event = NewEvent::new("clients.create").with_data(Json::new(sent.clone()).expect("JSON"));
    assert_eq!(host.before(&event).expect("allowed").as_str(), expected);

    let (asset, contract, order) = objects();
    let asset = Asset { meta_info: Json::new(sent).expect("JSON"), ..asset };
    let changes = host.on_product_acquisition(&asset, &contract, &order).expect("it may");
    let passed = changes.meta_info.expect("changed");
    assert_eq!(passed.pointer::<Json>("/meta_info").expect("a value").expect("there").as_str(), expected);
    assert_eq!(
        count(passed.as_str()),
        IN_ACQUISITION - 4,
        "everything else is as it was; no event and no settings are there"
    );
}

#[test]
fn an_id_of_an_object_is_any_number_or_text_and_keeps_its_order() {
    let home = Home::new();
    let server = Server::start(&home);
    let handler = HandlerServer::start(|_| Reply::status(503));
    let (task, pause) = (json!({"http": handler.url("/")}), 3_600_000);
    let retry = json!({"attempts": 8, "first_ms": pause, "longest_ms": pause});
    let never = json!({"name": "never", "event": "clients.create", "task": task, "retry": retry});
    server.post("/api/v1/handlers", &never).is(201);
    let authorization = format!("Bearer {}", server.token);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let emit = |event: &str| {
        let body = format!(r#"{{"event":"clients.create",{event}}}"#);
        server.request("POST", "/api/v1/events", &headers, body.as_bytes())
    };
    let long = "7".repeat(1_024);
    let mut ids: Vec<&str> = NUMBERS.to_vec();
    ids.extend([long.as_str(), r#""text""#, r#""007""#, r#""\u00e9\/""#]);
    let mut last = 0;
    for id in &ids {
        // Named beside the data, in the data, and by the command: three events of one object, which wait for each other.
        emit(&format!(r#""object_id":{id}"#)).is(201);
        emit(&format!(r#""data":{{"id":{id},"x":1}}"#)).is(201);
        let text: String = serde_json::from_str(id).unwrap_or_else(|_| (*id).to_owned());
        home.run(&["emit", "clients.create", "--object", &text, "--no-wait"]).succeeded();
        let shown = |number: i64| home.run(&["--json", "showdelivery", &number.to_string()]).succeeded().stdout;
        for number in last + 2..=last + 3 {
            let waits = format!("\"waits_for\": {}\n", last + 1);
            assert!(shown(number).contains(&waits), "{id}: {}", shown(number));
        }
        last += 3;
    }
    let first = handler.calls().into_iter().map(|call| call.body).find(|body| body.contains("9223372036854775808,"));
    assert!(first.is_some(), "the id is sent as it is written");
    for (event, status, expected) in [
        (r#""data":{"id":[1]}"#, 422, "this is a list"),
        (r#""data":{"id":{"$oid":"1"}}"#, 422, "this is an object"),
        (r#""data":{"id":true}"#, 422, "this is true or false"),
        (r#""data":{"id":"\ud800"}"#, 422, "half of a surrogate pair"),
        (r#""object_id":[1]"#, 400, "/object_id: an object's id is a number or a text, and this is a list"),
        (r#""object_id":"\udc00""#, 400, "half of a surrogate pair"),
        (&format!(r#""object_id":{long}7"#), 422, "more than 1024 bytes"),
        (&format!(r#""data":{{"id":"{long}7"}}"#), 422, "more than 1024 bytes"),
    ] {
        let answer = emit(event).is(status);
        assert!(answer.body.contains(expected), "{event}: {}", answer.body);
    }
    // Without an id, or with none, an event is about nothing.
    for event in [r#""data":{"x":1}"#, r#""data":{"id":null}"#, r#""data":[{"id":1}]"#, r#""object_id":null"#] {
        let emitted = emit(event).is(201).json();
        let delivery = server.get(&format!("/api/v1/deliveries/{}", emitted["deliveries"][0])).is(200).json();
        assert_eq!(delivery["object_id"], Value::Null, "{event}");
    }
    let data = home.file("data.json", r#"{"id": [1]}"#);
    home.run(&["emit", "clients.create", "--data", &data])
        .failed_with(&["this is a list", "hint: --object ID names it"]);
    home.run(&["emit", "clients.create", "--data", &data, "--object", "7", "--no-wait"]).succeeded();
    let all = home.run(&["--json", "listdeliveries", "--limit", "1"]).succeeded().stdout;
    assert!(all.contains(r#""object_id": 7,"#), "{all}");
}

#[test]
fn an_embedder_names_objects_by_any_id() {
    for (id, json) in [
        (ObjectId::from(-7), "-7"),
        (ObjectId::from("7"), "\"7\""),
        (ObjectId::from_json("18446744073709551616").expect("a number"), "18446744073709551616"),
        (ObjectId::from_json("1E+2").expect("a number"), "1E+2"),
        (ObjectId::typed("9223372036854775808"), "9223372036854775808"),
        (ObjectId::typed("-0"), "\"-0\""),
        (ObjectId::typed("007"), "\"007\""),
        (ObjectId::typed("1.0"), "\"1.0\""),
        (ObjectId::typed("-"), "\"-\""),
    ] {
        assert_eq!(serde_json::to_string(&id).expect("JSON"), json);
        assert_eq!(ObjectId::from_json(json), Some(id));
    }
    for none in ["null", "[]", "{}", "true", "01", "", "\"\\ud800\""] {
        assert_eq!(ObjectId::from_json(none), None, "{none}");
    }
}

#[test]
fn usage_is_accounted_with_all_its_digits_and_found_again_by_them() {
    let home = Home::new();
    let digits = format!("0.{}1", "0".repeat(60));
    let usage_server = UsageServer::start();
    let api = HttpUsageApi::new(&UsageApiSettings::new(usage_server.url())).expect("sound");
    let host = billhook::Host::open_with(home.path(), crate::support::options().usage_api(std::sync::Arc::new(api)));
    let host = host.expect("it opens");
    host.install(passer().write(home.folder()), &Install::default()).expect("installed");
    for (index, value) in ["117.63331139400017", "123456789012345678901234567890.10", &digits].into_iter().enumerate() {
        let extra = Json::from_value(&json!({ "value": value })).expect("JSON");
        let sold = Asset { id: format!("asset-{index}"), extra, ..asset("Passer") };
        let mut order = Order { order_id: format!("order-{index}"), ..order() };
        order.contracts[0].product_id = Some("product".to_owned());
        order.contracts[0].offering = Offering { asset: Some(sold), ..order.contracts[0].offering.clone() };
        let refreshed = host.usage_refreshed(&order, &order.contracts[0], &NoBundles).expect("recorded");
        assert_eq!((refreshed.sent, refreshed.unsent), (1, 0), "{refreshed:?}");
        let documents = usage_server.documents(&order.order_id);
        assert_eq!(documents.iter().map(|document| characteristic(document, "value")).collect::<Vec<_>>(), [value]);
    }

    // A server that keeps them as numbers: ids, values and numbers are read digit by digit.
    let usage = |id: &str, value: &str, number: &str| {
        let named = |name: &str, value: &str| format!(r#"{{"name":"{name}","value":{value}}}"#);
        let all =
            [named("orderId", "1"), named("productId", "2"), named("correlationNumber", number), named("value", value)];
        format!(r#"{{"id":{id},"status":"Guided","x":1e999,"usageCharacteristic":[{}]}}"#, all.join(","))
    };
    let list = format!(
        "[{},{}]",
        usage("12345678901234567890123", "117.63331139400017", "1.0e1"),
        usage("12345678901234567890124", "1e999999999", "18446744073709551615")
    );
    let server = HandlerServer::start(move |_| Reply::With(200, ("x-total-count", "2".to_owned()), list.clone()));
    let api = HttpUsageApi::new(&UsageApiSettings::new(server.url("/"))).expect("sound");
    let mut found = Vec::new();
    api.customer_usage("ada", &mut |document| found.push((document.id, document.value, document.correlation_number)))
        .expect("a list");
    let expected =
        [("12345678901234567890123", "117.63331139400017", 10), ("12345678901234567890124", "1e999999999", u64::MAX)];
    assert_eq!(found, expected.map(|(id, value, number)| (id.to_owned(), Some(value.to_owned()), Some(number))));
}

#[test]
fn what_a_seller_filled_in_is_held_to_the_form_on_every_way() {
    let home = Home::new();
    let form = json!({
        "plan": {"type": "select", "label": "Plan", "mandatory": true, "default": "basic",
                 "options": [{"text": "Basic", "value": "basic"}, {"text": "Premium", "value": "premium"}]},
        "open": {"type": "checkbox"},
        "key": {"type": "text", "mandatory": true},
        "note": {"type": "textarea"}
    });
    home.load(&passer().field("form", form)).succeeded();
    let server = Server::start(&home);
    let host = home.host();
    for (given, expected) in [
        (
            r#""plan": "gold", "key": "k""#,
            r#"the field "Plan" of the form takes one of "basic", "premium", and has "gold""#,
        ),
        (r#""plan": 1, "key": "k""#, r#"and has a number"#),
        (r#""open": "true", "key": "k""#, r#"the field "open" of the form takes true or false"#),
        (r#""key": 5"#, r#"the field "key" of the form takes a text, and has a number"#),
        (r#""key": "k", "note": []"#, r#"the field "note" of the form takes a text, and has a list"#),
        (r#""key": """#, "these fields of the form are mandatory and empty: key"),
        (r#""plan": "gold", "key": null"#, r#"and has "gold"; these fields of the form are mandatory and empty: key"#),
    ] {
        let meta_info = Json::new(format!("{{{given}}}")).expect("JSON");
        let sold = Asset { meta_info, ..asset("Passer") };
        let new = ProductSpecValidation {
            provider: &sold.provider,
            asset_t: "Passer",
            format: billhook::package::Format::Url,
            media_type: "",
            url: "https://a.example",
            meta_info: &sold.meta_info,
        };
        // Around the backend's work, which isn't done; the hook alone; over HTTP; with the command.
        let around = host.begin_product_spec_validation(&new).err().expect(given).to_string();
        let alone = host.on_post_product_spec_validation(&sold.provider, &sold).expect_err(given);
        assert_eq!(alone.status(), 422, "{alone}");
        let body = json_of(&[("asset", &sold)]);
        let authorization = format!("Bearer {}", server.token);
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let hook = "on_post_product_spec_validation";
        let over_http =
            server.request("POST", &format!("/api/v1/hooks/{hook}"), &headers, body.as_bytes()).is(422).json();
        let file = home.file("objects.json", &body);
        let command = home.run(&["callplugin", "passer", hook, "--objects", &file]).failed_with(&["passer"]);
        let said = [around, alone.to_string(), over_http["detail"].to_string().replace("\\\"", "\""), command.stderr];
        for problem in said {
            assert!(problem.contains(expected), "{given}: {problem}");
        }
    }
    // What the form doesn't have is the backend's and the plugin's own, and defaults needn't be there.
    let meta_info = Json::new(r#"{"key": "k", "tier": "gold", "n": 1.10}"#).expect("JSON");
    let sold = Asset { meta_info, ..asset("Passer") };
    host.on_post_product_spec_validation(&sold.provider, &sold).expect("it fits");
    // A plugin keeps what it likes with the asset: later hooks are not held to the form.
    let later = Asset { meta_info: Json::new(r#"{"plan": "grandfathered"}"#).expect("JSON"), ..sold };
    acquire(&host, &later);
}

fn acquire(host: &billhook::Host, asset: &Asset) {
    let order = order();
    host.on_product_acquisition(asset, &order.contracts[0], &order).expect("it goes through");
}

#[test]
fn what_does_not_fit_is_named_by_its_field_wherever_it_comes_in() {
    let home = Home::new();
    home.load(&passer()).succeeded();
    let server = Server::start(&home);
    let authorization = format!("Bearer {}", server.token);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let objects = |pointer: &str, value: Value| {
        let mut objects = json!({"asset": asset("Passer"), "order": order()});
        objects["order"]["contracts"][0]["charges"] =
            json!([{"date": "2026-01-31T12:00:00Z", "cost": "1", "duty_free": "1", "currency": "EUR"}]);
        objects["order"]["contracts"][0]["last_charge"] = Value::Null;
        *objects.pointer_mut(pointer).expect("there") = value;
        objects.to_string()
    };
    for (pointer, value, expected) in [
        (
            "/order/date",
            json!("2026-01-31T12:00:00"),
            "/order/date: \"2026-01-31T12:00:00\" is no RFC 3339 date: it has no offset",
        ),
        ("/order/date", json!("2026-01-31 12:00:00.5"), "it has no offset from UTC"),
        ("/order/date", json!(1_769_860_800), "/order/date: invalid type"),
        ("/order/contracts/0/last_charge", json!("31.01.2026"), "/order/contracts/0/last_charge: \"31.01.2026\""),
        ("/order/contracts/0/charges/0/date", json!("2026-01-31"), "/order/contracts/0/charges/0/date: \"2026-01-31\""),
        ("/order/contracts/0/charges/0/cost", json!(12.5), "/order/contracts/0/charges/0/cost: invalid type"),
        (
            "/order/contracts/0/charges/0/cost",
            json!("12,50"),
            "/order/contracts/0/charges/0/cost: \"12,50\" is no decimal number",
        ),
        ("/asset/is_public", json!("yes"), "/asset/is_public: invalid type"),
    ] {
        let body = objects(pointer, value);
        let path = "/api/v1/hooks/on_product_acquisition";
        let over_http = server.request("POST", path, &headers, body.as_bytes()).is(400).json();
        let file = home.file("objects.json", &body);
        let run = home
            .run(&["callplugin", "passer", "on_product_acquisition", "--objects", &file])
            .failed_with(&["objects.json"]);
        for problem in [over_http["detail"].as_str().expect("text"), &run.stderr] {
            assert!(problem.contains(expected), "{pointer}: {problem}");
        }
    }
    let runtime = home.file("runtime.json", r#"{"limits": {"memory_mb": "much"}}"#);
    home.run(&["setplugin", "passer", "--runtime", &runtime])
        .failed_with(&["runtime.json is refused: /limits/memory_mb: "]);
    let handler = json!({"name": "a", "event": "clients.create", "task": {"http": "http://a.example/"}, "retry": {"attempts": "8"}});
    let refused = server.post("/api/v1/handlers", &handler).is(400).body;
    assert!(refused.contains("/retry/attempts: "), "{refused}");
    let platform =
        [("authorization", "Basic cGFzc2VyOnBhc3N3b3JkLW9mLXRoZS1wYXNzZXI="), ("content-type", "application/json")];
    let refused = server.request("POST", "/cloudcontrol/resources", &platform, br#"{"plan": 5}"#).is(400).body;
    assert!(refused.contains("plan: invalid type"), "{refused}");
}

#[test]
fn objects_are_the_same_in_rust_and_in_json() {
    let (asset, contract, order) = objects();
    let text = json_of(&[("asset", &asset), ("contract", &contract), ("order", &order)]);
    let read: HookObjects = serde_json::from_str(&text).expect("objects");
    assert_eq!(
        (read.asset.as_ref(), read.contract.as_ref(), read.order.as_ref()),
        (Some(&asset), Some(&contract), Some(&order))
    );
    assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
    // An f64 that is asked for is the nearest to what is written.
    let document = document();
    assert_eq!(document.pointer::<f64>("/numbers/0").expect("a number"), Some(117.633_311_394_000_17));
    assert_eq!(document.pointer::<Json>("/numbers/0").expect("a number").expect("there").as_str(), NUMBERS[0]);
}
