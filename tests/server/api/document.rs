//! What the API's document says is what the API does.

use super::*;

/// The API's document.
struct Document(Value);

impl Document {
    #[track_caller]
    fn of(server: &Server) -> Self {
        Document(server.request("GET", "/api/v1/openapi.json", &[], b"").is(200).json())
    }

    /// Every operation: its method, its path, and what is said about it.
    fn operations(&self) -> Vec<(String, &str, &Value)> {
        let mut all = Vec::new();
        for (path, operations) in self.0["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                all.push((method.to_uppercase(), path.as_str(), operation));
            }
        }
        all
    }

    /// Fails if an answer has a status, or a field, that the document doesn't tell of.
    #[track_caller]
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let told = &self.0["paths"][path][method.to_lowercase()]["responses"][answer.status.to_string()];
        let schema = &told["content"][answer.header("content-type")]["schema"];
        assert!(schema.is_object(), "{method} {path}: nothing is told of {answer:#?}");
        let lacking = self.lacking(&[schema], &answer.json(), "");
        assert!(lacking.is_empty(), "{method} {path} {}: the schema lacks {lacking:?}", answer.status);
    }

    /// The places of a value that none of its schemas tells of.
    fn lacking<'a>(&'a self, schemas: &[&'a Value], value: &Value, at: &str) -> Vec<String> {
        let mut parts = Vec::new();
        schemas.iter().for_each(|schema| self.take_apart(schema, &mut parts));
        // An object of which nothing is told may hold anything.
        let is_free = |part: &&Value| {
            let kind = &part["type"];
            let may_be_object = kind.is_null()
                || *kind == "object"
                || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("object")));
            may_be_object && ["properties", "additionalProperties", "items"].iter().all(|key| part.get(*key).is_none())
        };
        if parts.iter().any(is_free) {
            return Vec::new();
        }
        let mut lacking = Vec::new();
        let mut check = |own: Vec<&'a Value>, value: &Value, at: String| {
            if own.is_empty() {
                lacking.push(at);
            } else {
                lacking.extend(self.lacking(&own, value, &at));
            }
        };
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    let of_part = |part: &'a Value| part["properties"].get(key).or(part.get("additionalProperties"));
                    check(parts.iter().copied().filter_map(of_part).collect(), field, format!("{at}/{key}"));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let own = parts.iter().copied().filter_map(|part: &'a Value| part.get("items")).collect();
                    check(own, item, format!("{at}/{index}"));
                }
            }
            _ => {}
        }
        lacking
    }

    /// What a schema is made of, with references followed.
    fn take_apart<'a>(&'a self, schema: &'a Value, parts: &mut Vec<&'a Value>) {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.take_apart(self.0.pointer(&reference[1..]).expect("it leads somewhere"), parts);
        }
        let composed = ["allOf", "oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
        let composed: Vec<&Value> = composed.collect();
        if composed.is_empty() {
            parts.push(schema);
        }
        composed.into_iter().for_each(|part| self.take_apart(part, parts));
    }
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_operation_lets_in_tokens_of_its_scope_or_a_higher_one_and_nobody_else() {
    let home = Home::new();
    let server = Server::start(&home);
    let (reader, emitter) = (token(&home, "read"), token(&home, "emit"));
    let tokens = [("read", &reader), ("emit", &emitter), ("manage", &server.token)];
    let document = Document::of(&server);
    let mut open = Vec::new();
    for (method, path, operation) in document.operations() {
        let Some(scope) = operation["security"][0]["token"][0].as_str() else {
            open.push(path);
            continue;
        };
        let at = filled(path, "x");
        let answer = server.request(&method, &at, &[], b"");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"billhook\"", "{method} {path}");
        refused(answer, 401, "this needs a token");
        let own = tokens.iter().position(|(name, _)| *name == scope).expect("a scope");
        for (_, lower) in &tokens[..own] {
            let detail = format!("this needs a token with the scope {scope:?}");
            refused(server.ask_as(lower, &method, &at, None), 403, &detail);
        }
        for (name, high_enough) in &tokens[own..] {
            let status = server.ask_as(high_enough, &method, &at, None).status;
            assert!(![401, 403].contains(&status), "{method} {path} with {name}: {status}");
        }
    }
    open.retain(|path| path.starts_with("/api/"));
    assert_eq!(open, ["/api/v1/openapi.json"], "nobody needs a token to learn how to ask");
}

#[test]
fn the_document_tells_of_each_method_and_its_references_lead_somewhere() {
    let home = Home::new();
    let server = Server::start(&home);
    let document = Document::of(&server);
    for (path, operations) in document.0["paths"].as_object().expect("paths") {
        if !path.starts_with("/api/") && !path.starts_with(TYPES) {
            continue;
        }
        let answer = server.request("OPTIONS", &filled(path, "x"), &[], b"");
        let allowed = answer.header("allow").to_lowercase();
        let mut allowed: Vec<&str> = allowed.split(',').map(str::trim).filter(|method| *method != "head").collect();
        let mut told: Vec<&str> = operations.as_object().expect("operations").keys().map(String::as_str).collect();
        allowed.sort_unstable();
        told.sort_unstable();
        assert_eq!(allowed, told, "{path}");
        refused(answer, 405, "doesn't take OPTIONS");
    }
    for path in ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/plugins/x/nothing", "/api/v2/plugins"] {
        refused(server.get(path), 404, "there is nothing at");
    }
    let mut found = Vec::new();
    references(&document.0, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for reference in found {
        let target = reference.strip_prefix('#').and_then(|pointer| document.0.pointer(pointer));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
    for (method, path, operation) in document.operations() {
        for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let mut named = parameters.filter(|parameter| parameter["name"] == name && parameter["in"] == "path");
            assert!(named.next().is_some(), "{method} {path} tells nothing of {name}");
        }
    }
}

#[test]
fn answers_have_no_field_that_their_schema_lacks() {
    let home = Home::new();
    let server = Server::start(&home);
    let document = Document::of(&server);
    let handlers = HandlerServer::start(|_| Reply::Answer(422, json!({"message": "not this one"}).to_string()));
    for package in [
        Package::new("Healthy").field("form", json!({"a": {"type": "text"}})).field("media_types", json!(["a/b"])),
        Package::new("Refuser").of("refuse_after_a_change"),
        Package::new("Meter").of("meter").field("pull_accounting", json!(true)),
        Package::new("Broken").version("01"),
    ] {
        document.check("POST", "/api/v1/plugins", &server.upload(&zip(&home, &package)));
    }
    let record = json!({"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": "1", "id": "a"});
    let reports = json!({"*": {"records": [record], "last_usage": "2026-01-01T12:00:00Z"}});
    let reports = home.file("reports.json", &reports.to_string());
    put(&server, "/api/v1/plugins/meter/settings", &json!({"reports": reports, "units": ["API call"]})).is(200);
    let tell = json!({"name": "tell", "event": "clients.create", "task": {"http": handlers.url("/")}});
    document.check("POST", "/api/v1/handlers", &server.post("/api/v1/handlers", &tell).is(201));
    let event = json!({"event": "clients.create", "data": {"id": 7, "of": {"any": ["kind"]}}});
    document.check("POST", "/api/v1/events", &server.post("/api/v1/events", &event).is(201));
    wait_for("the attempt to be logged", || {
        server.get("/api/v1/executions").json()["items"].as_array().is_some_and(|items| !items.is_empty())
    });

    let objects = |asset_type: &str| json!({"asset": asset(asset_type), "order": order()});
    let both = json!({"order": order(), "assets": [asset("Healthy"), Asset { id: "b".into(), ..asset("Refuser") }]});
    let (hook, plugin, none) = ("/api/v1/hooks/{hook}", "/api/v1/plugins/{id}", Value::Null);
    for (method, path, part, body, status) in [
        ("GET", "/api/v1/plugins", "", none.clone(), 200),
        ("GET", plugin, "meter", none.clone(), 200),
        ("GET", plugin, "healthy", none.clone(), 200),
        ("GET", plugin, "nobody", none.clone(), 404),
        ("PUT", "/api/v1/plugins/{id}/priority", "healthy", json!({"priority": 1}), 200),
        ("PUT", "/api/v1/plugins/{id}/runtime", "healthy", json!({"deadline_ms": 5000}), 200),
        ("POST", "/api/v1/plugins/{id}/disable", "healthy", none.clone(), 200),
        ("POST", "/api/v1/plugins/{id}/enable", "healthy", none.clone(), 200),
        ("POST", "/api/v1/plugins/{id}/downgrade", "healthy", json!({}), 409),
        ("GET", "/api/v1/handlers", "", none.clone(), 200),
        ("GET", "/api/v1/handlers/{name}", "tell", none.clone(), 200),
        ("GET", "/api/v1/events", "", none.clone(), 200),
        ("GET", "/api/v1/deliveries", "", none.clone(), 200),
        ("GET", "/api/v1/deliveries/{number}", "1", none.clone(), 200),
        ("GET", "/api/v1/executions", "", none.clone(), 200),
        ("GET", "/api/v1/resources", "", none.clone(), 200),
        ("POST", hook, "on_product_acquisition", objects("Healthy"), 200),
        ("POST", hook, "on_product_acquisition", objects("Refuser"), 409),
        ("POST", hook, "get_usage_specs", objects("Meter"), 200),
        ("POST", hook, "get_pending_accounting", objects("Meter"), 200),
        ("POST", ACQUIRED, "", both.clone(), 200),
        ("POST", REFRESHED, "", both, 503),
        ("GET", TYPES, "", none.clone(), 200),
        ("GET", "/charging/api/assetManagement/assetTypes/{id}", "healthy", none.clone(), 200),
        ("DELETE", "/api/v1/assets/{id}", "unknown", none.clone(), 404),
        ("DELETE", plugin, "refuser", none.clone(), 200),
    ] {
        let answer = server.ask(method, &filled(path, part), (!body.is_null()).then_some(&body)).is(status);
        document.check(method, path, &answer);
    }
}
