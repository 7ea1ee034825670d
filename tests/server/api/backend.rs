//! What a backend calls: hooks, notifications, usage.

use super::*;

#[test]
fn each_hook_of_an_assets_life_is_called_and_its_changes_come_back() {
    let home = Home::new();
    let settings = home.file("settings.json", &json!({"log": home.folder().join("calls")}).to_string());
    let recorder = Package::new("Recorder").of("recorder").write(home.folder());
    home.run(&["loadplugin", recorder.to_str().expect("UTF-8"), "--settings", &settings]).succeeded();
    home.load(&Package::new("Healthy")).succeeded();
    home.load(&Package::new("Panicky").of("panic_in_each_hook").field("pull_accounting", json!(true))).succeeded();
    let (server, emitter) = (Server::start(&home), token(&home, "emit"));
    let call = |hook: &str, asset_type: &str| {
        let asset = Asset { meta_info: json!([]).into(), ..asset(asset_type) };
        let objects = json!({
            "provider": {"username": "acme"},
            "media_type": "application/json",
            "url": "https://api.example/v1",
            "asset": asset,
            "product_spec": {},
            "product_offering": {},
            "order": order(),
        });
        server.ask_as(&emitter, "POST", &format!("/api/v1/hooks/{hook}"), Some(&objects))
    };
    for (hook, changes) in hooks() {
        assert_eq!(call(hook, "Recorder").is(200).json(), json!({"outcome": "ok", "changes": changes}), "{hook}");
        let expected = if hook == "on_product_acquisition" {
            json!({"outcome": "ok", "changes": {"meta_info": "healthy"}})
        } else {
            json!({"outcome": "not implemented", "changes": {}})
        };
        assert_eq!(call(hook, "Healthy").is(200).json(), expected, "{hook}");
        let problem = refused(call(hook, "Panicky"), 500, &format!("in {hook}"));
        let shown = ["kind", "plugin", "hook", "asset"].map(|key| problem[key].as_str().unwrap_or_default());
        assert_eq!(shown, ["internal", "panicky", hook, "asset-1"]);
    }
    let calls = fs::read_to_string(home.folder().join("calls")).expect("written");
    assert_eq!(calls.lines().count(), hooks().len(), "each once: {calls}");
    assert_eq!(call("get_usage_specs", "Recorder").is(200).json()["outcome"], "not implemented");
    assert_eq!(call("get_usage_specs", "Panicky").is(200).json()["usage_specs"], json!([]));
    refused(call("get_pending_accounting", "Panicky"), 500, "in get_pending_accounting");
    let known = "the hooks are on_pre_product_spec_validation, ";
    for hook in ["addon_create", "addon_credentials", "on_event", "nothing", "On_Product_Acquisition"] {
        let told = refused(call(hook, "Healthy"), 404, known);
        assert!(!told["detail"].as_str().is_some_and(|told| told.contains(", addon_")), "{told}");
    }
}

#[test]
fn a_hook_that_never_ends_is_answered_at_its_deadline_and_keeps_its_turn() {
    let home = Home::new();
    home.load(&Package::new("Waiter").of("waiter")).succeeded();
    home.load(&Package::new("Healthy")).succeeded();
    let config = home.file("turns.toml", "[server]\ncalls_per_plugin = 1\n");
    let server = Server::start_with(&home, &["--config", &config]);
    server.ask("PUT", "/api/v1/plugins/waiter/runtime", Some(&json!({"deadline_ms": 100}))).is(200);
    let end = home.folder().join("end");
    let asset_of = |name: &str| Asset { download_link: end.to_str().map(str::to_owned), ..asset(name) };
    for (path, body) in [
        ("/api/v1/hooks/on_product_acquisition", json!({"asset": asset_of("Waiter"), "order": order()})),
        // By its type, by its id, or as one of a contract's: it is the same plugin.
        ("/api/v1/hooks/on_product_acquisition?plugin=waiter", json!({"asset": asset_of("Healthy"), "order": order()})),
        ("/api/v1/notifications/product_acquired", json!({"assets": [asset_of("Waiter")], "order": order()})),
    ] {
        let is_first = path.ends_with("acquisition");
        let problem = refused(server.post(path, &body), if is_first { 500 } else { 503 }, "");
        assert_eq!(problem["outcome_unknown"].as_bool().unwrap_or_default(), is_first, "{path}: {problem}");
    }
    server.post("/api/v1/hooks/on_product_acquisition", &json!({"asset": asset("Healthy"), "order": order()})).is(200);
    fs::write(&end, "").expect("written");
    wait_for("the plugin to take calls again", || {
        server
            .post("/api/v1/hooks/on_product_acquisition", &json!({"asset": asset_of("Waiter"), "order": order()}))
            .status
            == 200
    });
}

#[test]
fn a_hook_that_does_not_go_through_tells_who_refused_what_and_when_to_try_again() {
    let home = Home::new();
    for (name, fixture) in [
        ("Healthy", "healthy"),
        ("Refuser", "refuse_after_a_change"),
        ("Rogue", "rogue"),
        ("Keeper", "keeper"),
        ("Bytes", "error_not_utf8"),
    ] {
        home.load(&Package::new(name).of(fixture)).succeeded();
    }
    let config = home.file("small.toml", "[server]\nbody_kb = 4\n");
    let server = Server::start_with(&home, &["--config", &config]);
    let with = |asset_type: &str, meta_info: Value| Asset { meta_info: meta_info.into(), ..asset(asset_type) };
    for (asset, status, kind, detail, retry_after_ms) in [
        (with("Refuser", json!({})), 409, "conflict", "after the change", Value::Null),
        (with("Rogue", json!({"do": "refuse"})), 409, "conflict", "as asked", json!(2000)),
        (with("Rogue", json!(5)), 400, "bad value", "unexpected JSON", Value::Null),
        (with("Keeper", json!(["keep and refuse", "k", 1])), 503, "unavailable", "kept, and refused", json!(7000)),
        (with("Bytes", json!({})), 422, "invalid", "broken \u{fffd}\u{fffd} text", Value::Null),
    ] {
        let answer = acquire(&server, &asset);
        let seconds = retry_after_ms.as_u64().map(|ms| (ms / 1000).to_string()).unwrap_or_default();
        assert_eq!(answer.header("retry-after"), seconds, "{answer:#?}");
        let problem = refused(answer, status, detail);
        assert_eq!(problem["retry_after_ms"], retry_after_ms, "{problem}");
        let shown = ["kind", "plugin", "hook", "asset"].map(|key| problem[key].as_str().unwrap_or_default());
        let plugin = asset.resource_type.to_lowercase();
        assert_eq!(shown, [kind, plugin.as_str(), "on_product_acquisition", "asset-1"]);
    }
    let problem = refused(acquire(&server, &asset("Nobody")), 422, UNKNOWN_TYPE);
    assert_eq!((&problem["kind"], problem.get("plugin")), (&json!("invalid"), None));

    // Whatever the asset's type is, the plugin can be named.
    let objects = json!({"asset": asset("Nobody"), "order": order()});
    server.post(&format!("{ACQUISITION}?plugin=healthy"), &objects).is(200);
    refused(server.post(&format!("{ACQUISITION}?plugin=nobody"), &objects), 404, "there is no plugin \"nobody\"");
    refused(server.post(ACQUISITION, &json!({})), 400, "an \"asset\" or its type (\"asset_t\"), and both are missing");
    refused(server.post(ACQUISITION, &json!({"asset_t": "Healthy"})), 400, "takes \"asset\", which is missing");
    let without = json!({"asset": asset("Healthy"), "order": Order { contracts: Vec::new(), ..order() }});
    refused(server.post(ACQUISITION, &without), 400, "takes \"contract\", which is missing");
    refused(server.post(ACQUISITION, &json!({"asset": 1})), 400, "the body can't be taken");
    refused(server.post(ACQUISITION, &json!({"assets": []})), 400, "unknown field `assets`");
    for (kind, body, status) in [
        ("application/json", "{\"asset\":".to_owned(), 400),
        ("application/json", String::new(), 400),
        ("application/json; charset=utf-8", "{}}".to_owned(), 400),
        ("text/plain", "{}".to_owned(), 415),
        ("application/json", format!("{{\"asset_t\": \"{}\"}}", "x".repeat(6000)), 413),
    ] {
        refused(send(&server, "POST", ACQUISITION, kind, body.as_bytes()), status, "the body");
    }
}

#[test]
fn every_asset_of_a_contract_is_told_whatever_the_others_say() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    home.load(&Package::new("Refuser").of("refuse_after_a_change")).succeeded();
    let server = Server::start(&home);
    let second = |asset_type: &str| Asset { id: "asset-2".to_owned(), ..asset(asset_type) };
    let both = [second("Refuser"), asset("Healthy"), Asset { id: "asset-3".to_owned(), ..asset("Nobody") }];
    let told = server.post(ACQUIRED, &json!({"order": order(), "assets": both})).is(200).json();
    let outcomes = told["outcomes"].as_array().expect("a list");
    let shown = |key: &str| outcomes.iter().map(|outcome| outcome[key].clone()).collect::<Vec<_>>();
    assert_eq!(shown("asset"), ["asset-2", "asset-1", "asset-3"]);
    assert_eq!(shown("outcome"), ["refused", "ok", "refused"]);
    assert_eq!(outcomes[1]["changes"], json!({"meta_info": "healthy"}));
    let refusal = json!({
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "after the change",
        "kind": "conflict",
        "outcome": "refused",
        "hook": "on_product_acquisition",
        "plugin": "refuser",
        "asset": "asset-2",
    });
    assert_eq!(outcomes[0]["refusal"], refusal);
    assert_eq!(outcomes[2]["refusal"]["detail"], UNKNOWN_TYPE);
    let suspended = server.post("/api/v1/notifications/product_suspended", &json!({"order": order(), "assets": both}));
    assert_eq!(suspended.is(200).json()["outcomes"][0], json!({"asset": "asset-2", "outcome": "ok", "changes": {}}));

    refused(server.post(ACQUIRED, &json!({"order": order()})), 422, "the contract's offering has no asset");
    let mut with_asset = order();
    with_asset.contracts[0].offering.asset = Some(asset("Healthy"));
    let told = server.post(ACQUIRED, &json!({"order": with_asset})).is(200).json();
    assert_eq!(told["outcomes"][0]["outcome"], "ok", "the offering's own asset stands for those that aren't told");
    let mut two = with_asset;
    let contract = two.contracts[0].clone();
    two.contracts.push(contract.clone());
    refused(
        server.post(ACQUIRED, &json!({"order": two})),
        422,
        "\"contract\" is missing, and the order has not just one",
    );
    server.post(ACQUIRED, &json!({"order": two, "contract": contract})).is(200);
    refused(server.post(ACQUIRED, &json!({"assets": both})), 400, "missing field `order`");
    let refreshed = server.post(REFRESHED, &json!({"order": order(), "assets": both}));
    refused(refreshed, 503, "this server has no usage API");
}

#[test]
fn usage_becomes_guided_documents_and_the_contracts_new_number_is_answered() {
    let (home, usage) = (Home::new(), UsageServer::start());
    let config = home.file("usage.toml", &format!("[usage_api]\nbase_url = \"{}\"\n", usage.url()));
    let server = Server::start_with(&home, &["--config", &config]);
    let meter = Package::new("Meter").of("meter").field("pull_accounting", json!(true));
    assert_eq!(server.upload(&zip(&home, &meter)).is(201).json()["status"], "needs_settings");
    let record =
        |day: u32| json!({"date": format!("2026-01-{day:02}T12:00:00Z"), "unit": "API call", "value": day.to_string()});
    let reports = json!({"*": {"records": [record(1), record(2)], "last_usage": "2026-03-01T00:00:00Z"}});
    let reports = home.file("reports.json", &reports.to_string());
    put(&server, "/api/v1/plugins/meter/settings", &json!({"reports": reports, "units": ["API call"]})).is(200);
    let mut order = order();
    order.contracts[0].offering.asset = Some(asset("Meter"));
    refused(server.post(REFRESHED, &json!({"order": order})), 422, "has no product yet");
    order.contracts[0].product_id = Some("product-1".to_owned());
    order.contracts[0].correlation_number = 7;
    for (recorded, known) in [(2, 0), (0, 2)] {
        let refreshed = server.post(REFRESHED, &json!({"order": order})).is(200).json();
        let outcome = &refreshed["outcomes"][0];
        assert_eq!((&outcome["recorded"], &outcome["known"]), (&json!(recorded), &json!(known)), "{refreshed}");
        assert_eq!((&refreshed["sent"], &refreshed["unsent"]), (&json!(recorded), &json!(0)), "{refreshed}");
        assert_eq!(refreshed["correlation_number"], 9);
        assert_eq!(refreshed["last_usage"], "2026-03-01T00:00:00Z");
    }
    let documents = usage.documents("order-1");
    let mut found: Vec<&str> = documents.iter().map(|document| characteristic(document, "correlationNumber")).collect();
    found.sort_unstable();
    assert_eq!(found, ["7", "8"]);
    assert!(documents.iter().all(|document| document["status"] == "guided"), "{documents:?}");
}
