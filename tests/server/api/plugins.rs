//! Managing plugins, and the views of asset types.

use super::*;

#[test]
fn a_plugin_is_installed_upgraded_downgraded_switched_off_and_removed() {
    let home = Home::new();
    let server = Server::start(&home);
    let package = |version: &str| zip(&home, &Package::new("Healthy").version(version));
    let summary = |version: &str, status: &str| {
        let (id, name, author) = ("healthy", "Healthy", "acme");
        json!({"id": id, "name": name, "author": author, "version": version, "status": status})
    };
    let first = package("1.0");
    let installed = server.upload(&first).is(201).json();
    assert_eq!((&installed["version"], &installed["warnings"]), (&json!("1.0"), &json!([])));
    assert_eq!(server.upload(&first).is(200).json()["unchanged"], true);
    let differs = zip(&home, &Package::new("Healthy").version("1.0").with("more", b"added"));
    refused(server.upload(&differs), 409, "version 1.0 of healthy is already installed");
    assert_eq!(server.upload(&package("2.0")).is(201).json()["previous"], "1.0");
    refused(server.upload(&package("1.5")), 409, "which is newer than 1.5");
    let put_package = |path: &str, package: &[u8]| send(&server, "PUT", path, "application/octet-stream", package);
    assert_eq!(put_package("/api/v1/plugins/healthy", &package("3")).is(200).json()["previous"], "2.0");
    let other = zip(&home, &Package::new("Other"));
    refused(put_package("/api/v1/plugins/healthy", &other), 422, "this is a package of other, not of healthy");
    refused(put_package("/api/v1/plugins/other", b"PK"), 404, "there is no plugin \"other\"");
    assert_eq!(server.get("/api/v1/plugins").is(200).json(), json!([summary("3", "enabled")]));
    let theirs = zip(&home, &Package::new("Healthy").version("4").field("author", json!("eve")));
    refused(server.upload(&theirs), 409, "healthy was written by \"acme\", and this package by \"eve\"");
    let forced = send(&server, "POST", "/api/v1/plugins?force=true", "application/zip", &theirs).is(201).json();
    assert_eq!(forced["author"], "eve");

    let downgrade = |to: Value| server.post("/api/v1/plugins/healthy/downgrade", &to);
    assert_eq!(downgrade(json!({})).is(200).json(), summary("3", "enabled"));
    refused(downgrade(json!({"version": "9"})), 422, "is not in its history");
    assert_eq!(downgrade(json!({"version": "1.0"})).is(200).json(), summary("1.0", "enabled"));
    refused(downgrade(json!({})), 409, "no older version");

    let healthy = asset("Healthy");
    acquire(&server, &healthy).is(200);
    let switch = |to: &str| server.ask("POST", &format!("/api/v1/plugins/healthy/{to}"), None).is(200).json();
    assert_eq!(switch("disable"), summary("1.0", "disabled"));
    let problem = refused(acquire(&server, &healthy), 503, "the plugin is disabled");
    assert_eq!((&problem["kind"], &problem["plugin"]), (&json!("unavailable"), &json!("healthy")));
    assert_eq!(switch("enable"), summary("1.0", "enabled"));
    acquire(&server, &healthy).is(200);

    let shown = |field: &str| server.get("/api/v1/plugins/healthy").is(200).json().pointer(field).cloned();
    let runtime = |runtime: Value| put(&server, "/api/v1/plugins/healthy/runtime", &runtime);
    runtime(json!({"isolation": "process"})).is(200);
    acquire(&server, &healthy).is(200);
    refused(runtime(json!({"deadline_ms": 0})), 422, "a deadline of 0 ms");
    refused(runtime(json!({"isolation": "nowhere"})), 400, "nowhere");
    assert_eq!(shown("/runtime/isolation"), Some(json!("process")));
    assert_eq!(shown("/priority"), None);
    put(&server, "/api/v1/plugins/healthy/priority", &json!({"priority": 7})).is(200);
    assert_eq!(shown("/priority"), Some(json!(7)));

    assert_eq!(server.ask("DELETE", "/api/v1/plugins/healthy", None).is(200).json(), summary("1.0", "enabled"));
    for method in ["GET", "DELETE"] {
        refused(server.ask(method, "/api/v1/plugins/healthy", None), 404, "there is no plugin \"healthy\"");
    }
    refused(acquire(&server, &asset("Nobody")), 422, UNKNOWN_TYPE);
}

#[test]
fn settings_that_are_refused_change_nothing_and_only_managers_see_those_that_are_there() {
    let home = Home::new();
    home.load(&Package::new("Choosy").of("refuse_settings")).succeeded();
    let server = Server::start(&home);
    let settings = "/api/v1/plugins/choosy/settings";
    refused(acquire(&server, &asset("Choosy")), 503, "the plugin needs settings");
    // Why may quote the settings, which not everybody sees.
    let shown = |token: &str| {
        let answer = server.ask_as(token, "GET", "/api/v1/plugins/choosy", None).is(200);
        answer.json()["needs_settings"].as_str().unwrap_or_default().to_owned()
    };
    assert!(shown(&server.token).starts_with("set \"address\""));
    assert_eq!(shown(&token(&home, "emit")), "who manages sees why");
    assert_eq!(put(&server, settings, &json!({"address": "here"})).is(200).json()["status"], "enabled");
    refused(put(&server, settings, &json!({"elsewhere": 1})), 422, "version 1.0 of choosy refuses the settings");
    refused(send(&server, "PUT", settings, "application/json", b"{\"address\":"), 400, "the body can't be taken");
    assert_eq!(server.get(settings).is(200).json(), json!({"address": "here"}));
    assert_eq!(acquire(&server, &asset("Choosy")).is(200).json()["changes"]["meta_info"][0], "here");
    let emitter = token(&home, "emit");
    let shown = |token: &str| server.ask_as(token, "GET", "/api/v1/plugins/choosy", None).is(200).json();
    assert_eq!(shown(&emitter)["settings"], Value::Null);
    assert_eq!(shown(&server.token)["settings"], json!({"address": "here"}));
    refused(put(&server, "/api/v1/plugins/nobody/settings", &json!({})), 404, "there is no plugin");
}

#[test]
fn a_plugin_that_assets_use_is_removed_by_force_alone() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let (server, emitter) = (Server::start(&home), token(&home, "emit"));
    let in_use = |asset_type: &str| {
        server.ask_as(&emitter, "PUT", "/api/v1/assets/a%20b", Some(&json!({"resource_type": asset_type})))
    };
    let release = || server.ask_as(&emitter, "DELETE", "/api/v1/assets/a%20b", None);
    let remove = |force: &str| server.ask("DELETE", &format!("/api/v1/plugins/healthy{force}"), None);
    refused(in_use("Nobody"), 422, UNKNOWN_TYPE);
    in_use("Healthy").is(204);
    in_use("Healthy").is(204);
    assert_eq!(server.get("/api/v1/plugins/healthy").json()["assets_in_use"], 1);
    refused(remove(""), 409, "healthy is used by 1 asset");
    release().is(204);
    refused(release(), 404, "the asset \"a b\" isn't in use");
    in_use("Healthy").is(204);
    refused(remove("?farce=true"), 400, "farce");
    remove("?force=true").is(200);
    refused(remove(""), 404, "there is no plugin");
}

#[test]
fn a_broken_package_is_refused_with_every_fault_and_where_code_is_not_wanted_none_comes_in() {
    let home = Home::new();
    let server = Server::start(&home);
    let broken = Package::new("Broken").version("01").field("form", json!(3)).field("formats", json!(["TAPE"]));
    let problem = refused(server.upload(&zip(&home, &broken)), 422, "package.json breaks 3 rules");
    let errors = problem["errors"].as_array().expect("a list");
    assert!(errors.iter().all(|error| error["problem"].is_string()), "{problem}");
    let paths: Vec<&Value> = errors.iter().map(|error| &error["path"]).collect();
    assert_eq!(paths, ["$.form", "$.version", "$.formats[0]"]);
    let panics = zip(&home, &Package::new("Broken").of("panic_in_construction"));
    refused(server.upload(&panics), 422, "the module failed when it was constructed");
    refused(send(&server, "POST", "/api/v1/plugins", "text/plain", b"PK"), 415, "Content-Type: application/zip");
    assert_eq!(server.get("/api/v1/plugins").is(200).json(), json!([]));
    drop(server);

    let server = Server::start_with(&home, &["--no-uploads"]);
    let no_code = "this server takes no code over HTTP";
    refused(server.upload(b"PK"), 403, no_code);
    let handler = |name: &str, task: Value| json!({"name": name, "event": "clients.create", "task": task});
    let (script, http) = (json!({"script": ["/bin/true"]}), json!({"http": "http://127.0.0.1:1/"}));
    refused(server.post("/api/v1/handlers", &handler("script", script.clone())), 403, no_code);
    server.post("/api/v1/handlers", &handler("http", http)).is(201);
    let change = |name: &str, body: Value| server.ask("PATCH", &format!("/api/v1/handlers/{name}"), Some(&body));
    refused(change("http", json!({"task": script})), 403, no_code);
    // One that the operator attached can be managed, and is given nothing else.
    home.run(&["addhandler", "theirs", "--event", "clients.create", "--task", "/bin/true"]).succeeded();
    refused(change("theirs", json!({"environment": ["HOME"]})), 403, no_code);
    change("theirs", json!({"status": "disabled"})).is(200);
}

#[test]
fn asset_types_are_shown_as_clients_of_the_original_know_them() {
    let home = Home::new();
    let form = json!({"a": {"type": "text", "label": "A"}});
    let formed = Package::new("Java App").field("media_types", json!(["application/zip"])).field("form", form.clone());
    home.load(&formed.field("overrides", json!(["NAME"])).field("form_order", json!(["a"]))).succeeded();
    home.load(&Package::new("Plain")).succeeded();
    let server = Server::start(&home);
    let types = server.get(TYPES).is(200).json();
    let (java_app, plain) = (types[0].clone(), types[1].clone());
    let keys: Vec<&String> = plain.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["id", "href", "name", "author", "version", "mediaTypes", "formats", "overrides"]);
    let expected = json!({
        "id": "java-app",
        "href": java_app["href"],
        "name": "Java App",
        "author": "acme",
        "version": "1.0",
        "mediaTypes": ["application/zip"],
        "formats": ["URL"],
        "overrides": ["NAME"],
        "form": form,
        "formOrder": ["a"],
    });
    assert_eq!(java_app, expected);
    assert_eq!(server.get(&format!("{TYPES}/")).is(200).json(), types, "with a slash at the end, too");
    for entry in [&java_app, &plain] {
        let path = entry["href"].as_str().and_then(|href| href.strip_prefix(&server.url(""))).expect("ours");
        assert_eq!(server.get(path).is(200).json(), *entry);
    }
    refused(server.get(&format!("{TYPES}/nobody")), 404, "nobody");
    server.ask("POST", "/api/v1/plugins/java-app/disable", None).is(200);
    assert_eq!(server.get(TYPES).is(200).json(), json!([plain]), "what takes no calls can't be sold");
    refused(server.get(&format!("{TYPES}/java-app")), 404, "there is no asset type");
    drop(server);

    let config = home.file("public.toml", "[server]\npublic_url = \"https://shop.example/store\"\n");
    let server = Server::start_with(&home, &["--config", &config]);
    assert_eq!(server.get(TYPES).is(200).json()[0]["href"], format!("https://shop.example/store{TYPES}/plain"));
}
