//! The protocol of add-on platforms, row by row: what is asked, what is answered, and what is made of it exactly once.

/// What the providers' own client asks.
mod kensa;
/// Single sign-on.
mod sign_on;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{Answer, Home, Package, Server, asset, order, wait_for};
use sign_on::{form, sign_on};

const RESOURCES: &str = "/cloudcontrol/resources";
/// What the fixture has unless its settings say otherwise.
const PASSWORD: &str = "fixture-password-1234";
const SALT: &str = "fixture-salt";

/// A package of the fixture, which does what a request's plan says.
fn package(name: &str, addon: &str) -> Package {
    let addon = json!({"id": addon, "config_vars": ["FIX_URL", "FIX_PLAN"]});
    Package::new(name).of("addon").field("addon", addon)
}

/// Loads the fixture as another add-on.
#[track_caller]
fn load_with(home: &Home, addon: &str, settings: &Value) {
    let settings = home.file("settings.json", &settings.to_string());
    let package = package(addon, addon).write(home.folder());
    home.run(&["loadplugin", package.to_str().expect("UTF-8"), "--settings", &settings]).succeeded();
}

/// A home with the add-on.
fn home() -> Home {
    let home = Home::new();
    home.load(&package("Fix", "fix")).succeeded();
    home
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// Asks as whoever it is; nothing is in the body for null.
#[track_caller]
fn ask_as(server: &Server, authorization: &str, method: &str, path: &str, body: &Value) -> Answer {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend((!authorization.is_empty()).then_some(("authorization", authorization)));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    checked(server.request(method, path, &headers, body.as_bytes()))
}

/// Whatever the answer is, it is JSON, and a refusal has a message.
#[track_caller]
fn checked(answer: Answer) -> Answer {
    assert_eq!(answer.header("content-type"), "application/json", "{answer:#?}");
    assert!(answer.status < 400 || answer.json()["message"].is_string(), "{answer:#?}");
    answer
}

/// Asks as the add-on's platform.
#[track_caller]
fn ask(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    ask_as(server, &basic("fix", PASSWORD), method, path, body)
}

#[track_caller]
fn post(server: &Server, body: &Value) -> Answer {
    ask(server, "POST", RESOURCES, body)
}

#[track_caller]
fn put(server: &Server, id: &str, plan: &str) -> Answer {
    ask(server, "PUT", &at(id), &json!({"plan": plan, "cloudcontrol_id": "app"}))
}

#[track_caller]
fn delete(server: &Server, id: &str) -> Answer {
    ask(server, "DELETE", &at(id), &Value::Null)
}

/// The path of a resource, whatever its id is.
fn at(id: &str) -> String {
    format!("{RESOURCES}/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

fn wanted(uuid: &str, plan: &str) -> Value {
    json!({"uuid": uuid, "cloudcontrol_id": format!("app-{uuid}"), "plan": plan})
}

/// Asks for a resource, and answers what was made.
#[track_caller]
fn create(server: &Server, uuid: &str, plan: &str) -> Value {
    post(server, &wanted(uuid, plan)).is(201).json()
}

fn listed(home: &Home) -> Vec<Value> {
    home.run(&["listresources", "--json"]).succeeded().json().as_array().expect("a list").clone()
}

/// What the plugin was asked for. Its hook tells: an add-on's plugin may know assets, too.
#[track_caller]
fn counted(server: &Server, what: &str) -> Value {
    let objects = json!({"asset": asset("Fix"), "order": order()});
    let answer = server.post("/api/v1/hooks/on_product_acquisition", &objects).is(200).json();
    answer["changes"]["meta_info"][what].clone()
}

/// How often the plugin was asked for a resource.
#[track_caller]
fn creates(server: &Server) -> Value {
    counted(server, "creates")
}

#[test]
fn what_both_platforms_send_is_taken_with_and_without_the_closing_slash() {
    let home = home();
    let server = Server::start(&home);
    let back = "https://platform.example/1";
    for (body, id) in [
        (json!({"cloudcontrol_id": "app1", "plan": "a", "callback_url": back, "options": {"x": [1]}}), Value::Null),
        (
            json!({"heroku_id": "app2@platform.example", "plan": "a", "region": "eu", "uuid": "u-2",
                   "logplex_token": null, "callback_url": back, "options": {}}),
            json!("res-u-2"),
        ),
        (json!({"heroku_id": 3, "plan": "number", "uuid": "1234"}), json!(1234)),
        (json!({"cloudcontrol_id": 4, "plan": "a", "uuid": null, "options": null, "new": {"x": 1}}), Value::Null),
    ] {
        for end in ["", "/"] {
            let made = ask(&server, "POST", &format!("{RESOURCES}{end}"), &body).is(201).json();
            assert!(id.is_null() || made["id"] == id, "{made}");
            let text = made["id"].as_str().map_or_else(|| made["id"].to_string(), str::to_owned);
            let url = format!("https://fix.example/{text}");
            assert_eq!(made["config"], json!({"FIX_PLAN": body["plan"], "FIX_URL": url}));
            assert_eq!(made["message"], "made as asked");
            let path = format!("{RESOURCES}/{text}{end}");
            let changed = ask(&server, "PUT", &path, &json!({"plan": "b", "heroku_id": 3})).is(200).json();
            assert_eq!(changed, json!({"config": {"FIX_PLAN": "b", "FIX_URL": url}}));
            ask(&server, "DELETE", &path, &Value::Null).is(200);
            ask(&server, "DELETE", &path, &Value::Null).is(404);
        }
    }
    assert_eq!(listed(&home), Vec::<Value>::new());
}

#[test]
fn resources_are_listed_and_their_values_never_shown() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    post(&server, &json!({"heroku_id": 7, "plan": "number", "region": "eu", "uuid": "1234"})).is(201);
    let text = home.run(&["listresources"]).succeeded().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("fix\tres-u-1\tapp-u-1\tfree\t\tFIX_PLAN FIX_URL\t"), "{text}");
    assert!(lines[1].starts_with("fix\t1234\t7\tnumber\teu\tFIX_PLAN FIX_URL\t") && lines.len() == 2, "{text}");
    let all = listed(&home);
    let shown = ["addon", "id", "uuid", "platform_id", "plan", "region", "config_vars"].map(|key| all[1][key].clone());
    assert_eq!(json!(shown), json!(["fix", 1234, "1234", 7, "number", "eu", ["FIX_PLAN", "FIX_URL"]]));
    let over_http = server.get("/api/v1/resources?addon=fix").is(200);
    assert_eq!(over_http.json()["items"], json!([all[1], all[0]]), "the newest first");
    let log = fs::read_to_string(home.folder().join("server.log")).expect("there");
    for shown in [text, json!(all).to_string(), over_http.body, log] {
        assert!(!shown.contains("fix.example") && !shown.contains(PASSWORD), "{shown}");
    }
    assert_eq!(home.run(&["listresources", "--addon", "other"]).succeeded().stdout.trim(), "");
    // The functions of an add-on are for platforms, and not for whoever has a token.
    server.post("/api/v1/hooks/addon_create", &json!({"addon_request": {}})).is(404);
}

#[test]
fn refusals_are_told_leave_nothing_behind_and_do_not_stand_in_the_way() {
    let home = home();
    let server = Server::start(&home);
    for (plan, status, message, retry_after) in [
        ("refuse", 422, "no such plan", ""),
        ("later", 503, "not now", "7"),
        ("panic", 500, "", ""),
        ("undeclared", 500, "", ""),
    ] {
        let answer = post(&server, &wanted(plan, plan)).is(status);
        assert!(answer.body.contains(message) && !answer.body.contains("nobody sees this"), "{answer:#?}");
        assert_eq!(answer.header("retry-after"), retry_after, "{plan}");
        assert_eq!(listed(&home), Vec::<Value>::new(), "{plan}");
        create(&server, plan, "free");
        delete(&server, &format!("res-{plan}")).is(200);
    }
    let deletes = counted(&server, "deletes");
    assert_eq!(deletes[3], "res-undeclared", "it was told that nobody has it: {deletes}");
    // An id that is somebody else's already is taken from nobody.
    let made = create(&server, "u-1", "same");
    post(&server, &wanted("u-2", "same")).is(500);
    assert_eq!((create(&server, "u-1", "same"), listed(&home).len()), (made, 1));
}

#[test]
fn a_body_that_is_no_json_or_says_nonsense_is_refused_with_a_message() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    let before = listed(&home);
    let ask_with = |method: &str, path: &str, content_type: &str, body: &str| {
        let authorization = basic("fix", PASSWORD);
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend((!content_type.is_empty()).then_some(("content-type", content_type)));
        checked(server.request(method, path, &headers, body.as_bytes()))
    };
    let (declared, long) = ("application/json", json!({"uuid": "u".repeat(256)}).to_string());
    for (content_type, body, status) in [
        ("", r#"{"plan": "free"}"#, 415),
        ("text/plain", r#"{"plan": "free"}"#, 415),
        ("application/x-www-form-urlencoded", "plan=free", 415),
        (declared, "", 400),
        (declared, "{", 400),
        (declared, "plan=free", 400),
        (declared, "[]", 400),
        (declared, r#""free""#, 400),
        (declared, r#"{"plan": "free"} {}"#, 400),
        (declared, long.as_str(), 400),
        (declared, r#"{"plan": 7}"#, 400),
        (declared, r#"{"heroku_id": [1]}"#, 400),
        (declared, r#"{"uuid": {}}"#, 400),
    ] {
        for (method, path) in [("POST", RESOURCES.to_owned()), ("PUT", at("res-u-1"))] {
            let answer = ask_with(method, &path, content_type, body);
            assert_eq!(answer.status, status, "{method} {content_type:?} {body}: {answer:#?}");
        }
    }
    assert_eq!(listed(&home), before);
    ask_with("POST", RESOURCES, "Application/JSON; charset=utf-8", &wanted("u-2", "free").to_string()).is(201);
}

#[test]
fn every_call_needs_the_add_ons_own_password() {
    let home = home();
    load_with(&home, "other", &json!({"password": "another-password"}));
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    let before = listed(&home);
    let wrong = [
        String::new(),
        basic("fix", "wrong"),
        basic("fix", ""),
        basic("fix", "another-password"),
        basic("other", PASSWORD),
        basic("nobody", PASSWORD),
        basic("", ""),
        format!("Basic {}", BASE64_STANDARD.encode("fix")),
        "Basic ???".to_owned(),
        format!("Bearer {}", server.token),
    ];
    for (method, path) in [("POST", RESOURCES.to_owned()), ("PUT", at("res-u-1")), ("DELETE", at("res-u-1"))] {
        for path in [path.clone(), format!("{path}/")] {
            for authorization in &wrong {
                let answer = ask_as(&server, authorization, method, &path, &wanted("u-2", "free"));
                assert_eq!(answer.status, 401, "{method} {path} {authorization:?}: {answer:#?}");
                assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{answer:#?}");
            }
        }
    }
    assert_eq!((listed(&home), creates(&server)), (before, json!(1)), "nothing was done");
    // A platform has to do with its own add-on, and with nothing else.
    let other = basic("other", "another-password");
    for method in ["PUT", "DELETE"] {
        ask_as(&server, &other, method, &at("res-u-1"), &json!({"plan": "team"})).is(404);
    }
    server.request("GET", "/api/v1/plugins", &[("authorization", other.as_str())], b"").is(401);
    let lower = basic("fix", PASSWORD).replace("Basic", "basic");
    ask_as(&server, &lower, "DELETE", &at("res-u-1"), &Value::Null).is(200);
}

#[test]
fn nobody_gets_in_where_the_password_cannot_be_had_and_a_new_one_counts_at_once() {
    let home = home();
    let others = [
        ("silent", json!({"no_credentials": true}), 503),
        ("unset", json!({"password": 7}), 503),
        ("empty", json!({"password": ""}), 401),
    ];
    for (addon, settings, _) in &others {
        load_with(&home, addon, settings);
    }
    let server = Server::start(&home);
    let post_as = |addon: &str, password: &str| {
        ask_as(&server, &basic(addon, password), "POST", RESOURCES, &wanted("u-1", "free"))
    };
    for (addon, _, status) in others {
        for password in [PASSWORD, ""] {
            let answer = post_as(addon, password).is(status);
            assert_eq!(answer.header("retry-after").is_empty(), status == 401, "{addon}: {answer:#?}");
        }
    }
    let new = json!({"password": "a-new-password"});
    server.ask("PUT", "/api/v1/plugins/fix/settings", Some(&new)).is(200);
    post_as("fix", "a-new-password").is(201);
    post_as("fix", PASSWORD).is(401);
    server.ask("POST", "/api/v1/plugins/fix/disable", None).is(200);
    let told = post_as("fix", "a-new-password").is(503).json();
    assert_eq!(told["message"], "the add-on doesn't answer now", "why not is for the operator");
}

#[test]
fn the_same_uuid_is_the_same_resource_and_is_asked_for_once() {
    let home = home();
    let server = Server::start(&home);
    let first = create(&server, "u-1", "free");
    for (path, plan) in [(RESOURCES, "free"), ("/cloudcontrol/resources/", "free"), (RESOURCES, "team")] {
        assert_eq!(ask(&server, "POST", path, &wanted("u-1", plan)).is(201).json(), first);
    }
    assert_eq!(creates(&server), 1);
    // All at once, of two servers.
    let second = Server::start(&home);
    let servers = [&server, &second];
    let made: Vec<Value> = thread::scope(|scope| {
        let start = |number: usize| {
            let server = servers[number % 2];
            scope.spawn(move || create(server, "u-2", "slow"))
        };
        let threads: Vec<_> = (0..8).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("answered")).collect()
    });
    assert_eq!(made, vec![made[0].clone(); 8]);
    assert_eq!(creates(&server), 2);
    assert!(server.stop() && second.stop());
    let server = Server::start(&home);
    assert_eq!(create(&server, "u-1", "free"), first);
    assert_eq!((creates(&server), listed(&home).len()), (json!(2), 2));
    // Another uuid is another resource, and so is each request without one.
    assert_ne!(create(&server, "u-3", "free")["id"], first["id"]);
    let keyless = json!({"cloudcontrol_id": "app-u-1", "plan": "free"});
    assert_ne!(post(&server, &keyless).is(201).json()["id"], post(&server, &keyless).is(201).json()["id"]);
    assert_eq!((creates(&server), listed(&home).len()), (json!(5), 5));
    // What was deleted is made anew.
    delete(&server, "res-u-1").is(200);
    create(&server, "u-1", "free");
    assert_eq!((creates(&server), listed(&home).len()), (json!(6), 5));
}

#[test]
fn plans_are_changed_and_resources_deleted_once() {
    let home = home();
    let server = Server::start(&home);
    let made = create(&server, "u-1", "free");
    let config = put(&server, "res-u-1", "keep").is(200).json()["config"].clone();
    assert_eq!((&config, &listed(&home)[0]["plan"]), (&made["config"], &json!("keep")));
    assert_eq!(put(&server, "res-u-1", "team").is(200).json()["config"]["FIX_PLAN"], "team");
    put(&server, "res-u-1", "refuse").is(422);
    assert_eq!(listed(&home)[0]["plan"], "team");
    // The add-on changed the plan, and its answer can't be taken.
    put(&server, "res-u-1", "undeclared").is(500);
    assert_eq!(listed(&home)[0]["plan"], "undeclared");
    assert_eq!(create(&server, "u-1", "free")["config"]["FIX_PLAN"], "team", "the last configuration that was taken");
    delete(&server, "res-u-1").is(200);
    for id in ["res-u-1", "unknown"] {
        delete(&server, id).is(404);
        put(&server, id, "team").is(404);
    }
    // What can't be deleted now stays; what the add-on itself doesn't have any more is deleted. Ids may be anything.
    for (uuid, plan, status) in [("stuck", "free", 503), ("u-2", "gone", 200), ("a/b c%41;\u{e4}?#", "free", 200)] {
        let id = create(&server, uuid, plan)["id"].as_str().expect("text").to_owned();
        assert_eq!(id, format!("res-{uuid}"));
        put(&server, &id, "keep").is(200);
        delete(&server, &id).is(status);
    }
    let left: Vec<Value> = listed(&home).into_iter().map(|resource| resource["id"].clone()).collect();
    assert_eq!(left, ["res-stuck"]);
}

#[test]
fn the_paths_are_where_the_configuration_says() {
    let home = home();
    let configuration = "[server.provisioning]\nbase_path = \"/heroku\"\nsign_on_path = \"/heroku/sso\"\n";
    fs::write(home.path().join("config.toml"), configuration).expect("written");
    let server = Server::start(&home);
    for end in ["", "/"] {
        ask(&server, "POST", &format!("/heroku/resources{end}"), &wanted("u-1", "free")).is(201);
        ask(&server, "PUT", &format!("/heroku/resources/res-u-1{end}"), &wanted("u-1", "team")).is(200);
        sign_on(&server, &format!("/heroku/sso{end}"), &form("res-u-1", SALT, 0)).is(302);
        ask(&server, "DELETE", &format!("/heroku/resources/res-u-1{end}"), &Value::Null).is(200);
    }
    for path in [RESOURCES, "/sso/login"] {
        server.request("POST", path, &[], b"").is(404);
    }
}

#[test]
fn an_add_on_in_a_process_of_its_own_does_the_same_and_survives_its_end() {
    let home = Home::new();
    let zip = package("Fix", "fix").write(home.folder());
    home.run(&["loadplugin", zip.to_str().expect("UTF-8"), "--isolation", "process"]).succeeded();
    let server = Server::start(&home);
    let made = create(&server, "u-1", "free");
    assert_eq!((create(&server, "u-1", "free"), creates(&server)), (made, json!(1)));
    for (plan, status) in [("refuse", 422), ("later", 503), ("panic", 500), ("undeclared", 500)] {
        post(&server, &wanted(plan, plan)).is(status);
    }
    assert_eq!(put(&server, "res-u-1", "team").is(200).json()["config"]["FIX_PLAN"], "team");
    sign_on(&server, "/sso/login", &form("res-u-1", SALT, 0)).is(302);
    delete(&server, "res-u-1").is(200);
    ask_as(&server, &basic("fix", "wrong"), "POST", RESOURCES, &wanted("u-2", "exit")).is(401);
    // Nobody knows whether it was made, so it is listed, and the platform asks again.
    post(&server, &wanted("u-2", "exit")).is(503);
    assert!(home.run(&["listresources"]).succeeded().stdout.starts_with("fix\t(unknown)\tapp-u-2\texit\t"));
    assert_eq!(create(&server, "u-2", "exit")["id"], "res-u-2");
    let all = listed(&home);
    assert_eq!((all.len(), &all[0]["id"]), (1, &json!("res-u-2")));
}

/// Starts a server that is killed at a step, and asks it something that comes to it. Nothing is answered.
#[track_caller]
fn ask_until_killed(home: &Home, step: &str, line: &str, body: &str) {
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("BILLHOOK_KILL_AT", step).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said).expect("it says where it is");
    let address = said.trim().strip_prefix("listening on http://").expect("an address");
    let (authorization, length) = (basic("fix", PASSWORD), body.len());
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    let _ = connection.read_to_string(&mut answer);
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(answer, "", "{step}");
}

#[test]
fn a_server_that_is_killed_at_any_step_makes_one_resource_and_deletes_it() {
    let steps = [("resource before commit", 0, 1), ("resource made", 1, 2), ("resource before commit#2", 1, 2)];
    for (step, noted, asked) in steps {
        let home = home();
        // With this plan, the add-on says of a deletion that the resource was deleted before.
        let body = wanted("u-1", "gone");
        ask_until_killed(&home, step, &format!("POST {RESOURCES}"), &body.to_string());
        let left = listed(&home);
        assert!(left.len() == noted && left.iter().all(|resource| resource["id"].is_null()), "{step}: {left:?}");
        let server = Server::start(&home);
        let made = create(&server, "u-1", "gone");
        assert_eq!((&made["id"], &create(&server, "u-1", "gone")), (&json!("res-u-1"), &made), "{step}");
        assert_eq!((listed(&home).len(), creates(&server)), (1, json!(asked)), "{step}");
        assert!(server.stop());

        ask_until_killed(&home, "resource deleted", &format!("DELETE {}", at("res-u-1")), "");
        assert_eq!(listed(&home).len(), 1);
        let server = Server::start(&home);
        delete(&server, "res-u-1").is(200);
        delete(&server, "res-u-1").is(404);
        assert_eq!(listed(&home), Vec::<Value>::new());
    }
}

#[test]
fn what_may_be_there_stays_listed_until_the_add_on_is_asked_again() {
    let home = Home::new();
    let zip = package("Fix", "fix").write(home.folder());
    home.run(&["loadplugin", zip.to_str().expect("UTF-8"), "--isolation", "process"]).succeeded();
    let server = Server::start(&home);
    let left = || -> Vec<Value> { listed(&home).into_iter().map(|resource| resource["uuid"].clone()).collect() };
    // Nobody knows what became of the first request. That the second is refused doesn't say that there is nothing.
    post(&server, &wanted("u-1", "exit")).is(503);
    post(&server, &wanted("u-1", "refuse")).is(422);
    assert_eq!(left(), ["u-1"]);
    // It answered what can't be taken, and can't take it back.
    post(&server, &wanted("stuck", "undeclared")).is(500);
    assert_eq!((left(), listed(&home)[1]["id"].clone()), (vec![json!("u-1"), json!("stuck")], Value::Null));
    home.run(&["removeplugin", "fix"]).failed_with(&["which has 2 resources"]);
    assert_eq!(create(&server, "stuck", "free")["id"], "res-stuck");
    assert_eq!(create(&server, "u-1", "free")["id"], "res-u-1");
}

#[test]
fn a_plugin_stays_as_long_as_it_is_asked_for_a_resource() {
    let home = home();
    let server = Server::start(&home);
    thread::scope(|scope| {
        let making = scope.spawn(|| create(&server, "u-1", "slow"));
        wait_for("the request to be noted", || listed(&home).len() == 1);
        let refused = server.ask("DELETE", "/api/v1/plugins/fix", None).is(409);
        assert!(refused.body.contains("which has 1 resource"), "{refused:#?}");
        home.load(&package("Fix", "fixed").version("4.0")).failed_with(&["which has 1 resource"]);
        assert_eq!(making.join().expect("made")["id"], "res-u-1");
    });
    delete(&server, "res-u-1").is(200);
    let kept = server.ask("DELETE", "/api/v1/plugins/fix", None).is(409).json();
    assert_eq!(kept["kind"], "keeps_state", "of the add-on there is nothing left, but of what it keeps: {kept}");
    server.ask("DELETE", "/api/v1/plugins/fix?force=true", None).is(200);
}

#[test]
fn resources_go_to_nobody_else_unless_the_operator_says_so() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    home.run(&["removeplugin", "fix", "--force"]).succeeded();
    let made_by = "the add-on \"fix\" has resources that fix by";
    home.load(&package("Other", "fix")).failed_with(&[made_by, "--force hands them over"]);
    home.load(&package("Fix", "fix").field("author", json!("somebody else"))).failed_with(&[made_by]);
    let other = package("Other", "fix").write(home.folder());
    server.upload(&fs::read(&other).expect("readable")).is(409);
    home.run(&["loadplugin", other.to_str().expect("UTF-8"), "--force"]).succeeded();
    wait_for("the other plugin", || put(&server, "res-u-1", "team").status == 200);
    home.run(&["removeplugin", "other", "--force"]).succeeded();
    home.load(&package("Fix", "fix")).failed_with(&["has resources that other by"]);
}

#[test]
fn an_older_configuration_has_no_variables_that_the_add_on_declares_no_more() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    let fewer = package("Fix", "fix").field("addon", json!({"id": "fix", "config_vars": ["FIX_URL"]})).version("2.0");
    home.load(&fewer).succeeded();
    let only = json!({"FIX_URL": "https://fix.example/res-u-1"});
    wait_for("the new version", || put(&server, "res-u-1", "keep").json()["config"] == only);
    assert_eq!(create(&server, "u-1", "free")["config"], only);
}

#[test]
fn a_connection_stays_good_after_a_wrong_password() {
    let home = home();
    let server = Server::start(&home);
    let mut connection = BufReader::new(TcpStream::connect(&server.address).expect("connected"));
    let mut ask = |password: &str, path: &str| {
        let (body, authorization) = (wanted("u-1", "free").to_string(), basic("fix", password));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {authorization}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        // In two pieces, as many clients send it.
        connection.get_mut().write_all(head.as_bytes()).expect("sent");
        thread::sleep(Duration::from_millis(20));
        connection.get_mut().write_all(body.as_bytes()).expect("sent");
        let (mut lines, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).expect("an answer");
            assert!(!line.is_empty(), "it is closed after {lines:?}");
            if let Some(told) = line.to_lowercase().strip_prefix("content-length:") {
                length = told.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line);
        }
        connection.read_exact(&mut vec![0; length]).expect("the body");
        lines[0].split(' ').nth(1).expect("a status").to_owned()
    };
    for _ in 0..5 {
        assert_eq!(ask("wrong", RESOURCES), "401");
        assert_eq!(ask(PASSWORD, "/cloudcontrol/nothing"), "404");
        assert_eq!(ask(PASSWORD, RESOURCES), "201");
    }
}

#[test]
fn an_add_on_with_resources_keeps_its_id_and_its_plugin() {
    let home = Home::new();
    let missing = Package::new("Other").field("addon", json!({"id": "fix"}));
    home.load(&missing).failed_with(&["$.addon", "doesn't implement AddonProvisioning"]);
    home.load(&Package::new("Other").of("addon")).failed_with(&["$.addon", "names no add-on"]);
    // Without resources, the id may change.
    for (version, addon) in [("1.0", "fix"), ("2.0", "fixed"), ("3.0", "fix")] {
        home.load(&package("Fix", addon).version(version)).succeeded();
    }
    home.load(&package("Other", "fix")).failed_with(&["the add-on \"fix\" is provided by fix", "removeplugin fix"]);
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    let refused = "fix provides the add-on \"fix\", which has 1 resource";
    home.load(&package("Fix", "fixed").version("4.0")).failed_with(&[refused]);
    home.load(&Package::new("Fix").version("4.0")).failed_with(&[refused]);
    home.load(&package("Fix", "fix").version("4.0")).succeeded();
    home.run(&["downgradeplugin", "fix", "2.0"]).failed_with(&[refused]);
    home.run(&["downgradeplugin", "fix", "3.0"]).succeeded();
    home.run(&["removeplugin", "fix"]).failed_with(&[refused, "listresources --addon fix", "--force"]);
    server.ask("DELETE", "/api/v1/plugins/fix", None).is(409);
    wait_for("the older version", || put(&server, "res-u-1", "team").status == 200);
    // By force; a plugin that comes back finds its resources.
    home.run(&["removeplugin", "fix", "--force"]).succeeded();
    wait_for("the removal to be noticed", || put(&server, "res-u-1", "team").status == 401);
    assert_eq!(listed(&home).len(), 1);
    home.load(&package("Fix", "fix")).succeeded();
    wait_for("the add-on", || put(&server, "res-u-1", "team").status == 200);
    delete(&server, "res-u-1").is(200);
    home.run(&["removeplugin", "fix", "--force"]).succeeded();
}
