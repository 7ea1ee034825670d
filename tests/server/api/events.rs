//! Events, handlers, deliveries and the log.

use super::*;

#[test]
fn events_are_asked_for_recorded_once_and_told() {
    let home = Home::new();
    let server = Server::start(&home);
    let handlers = HandlerServer::start(|call| match call.path.as_str() {
        "/change" => Reply::Answer(200, json!({"data": {"id": 7, "changed": true}}).to_string()),
        "/forbid" => Reply::Answer(403, json!({"message": "not <b>this</b> one"}).to_string()),
        _ => Reply::ok(),
    });
    let list = "/api/v1/handlers";
    let http = |path: &str| json!({"http": handlers.url(path)});
    let tell = json!({"name": "tell/ä", "event": "Clients Create", "task": http("/tell"), "priority": 3});
    let added = server.post(list, &tell).is(201).json();
    assert_eq!(
        (&added["event"], &added["mode"], &added["priority"]),
        (&json!("clients.create"), &json!("after"), &json!(3))
    );
    let gate = json!({"name": "gate", "event": "clients.create", "mode": "before", "task": http("/change")});
    server.post(list, &gate).is(201);
    refused(server.post(list, &gate), 409, "there is a handler \"gate\" already");
    refused(server.post(list, &json!({"name": "x", "event": "clients.create"})), 422, "\"task\" is missing");
    let names = |query: &str| -> Vec<Value> {
        let found = server.get(&format!("{list}{query}")).is(200).json();
        found.as_array().expect("a list").iter().map(|handler| handler["name"].clone()).collect()
    };
    assert_eq!(names(""), ["gate", "tell/ä"]);
    assert_eq!(names("?name=TELL&kind=http&event=Clients%20Create"), ["tell/ä"]);
    refused(server.get(&format!("{list}?status=gone")), 400, "unknown variant `gone`");

    let event = json!({"event": "clients.create", "data": {"id": 7}, "id": "01890a5d-ac96-774b-bcce-b302099a8057"});
    let emit = |event: &Value| server.post("/api/v1/events", event);
    let first = emit(&event).is(201).json();
    let told = json!({"id": 7, "changed": true});
    assert_eq!((&first["id"], &first["data"], &first["is_repeated"]), (&event["id"], &told, &json!(false)));
    wait_for("the handler to be told", || handlers.calls().iter().any(|call| call.path == "/tell"));
    let call = handlers.calls().into_iter().find(|call| call.path == "/tell").expect("it is there");
    assert_eq!((call.at("/data"), call.at("/event/object_id")), (told, json!(7)));
    let again = emit(&event).is(200).json();
    let expected = (&json!(true), &first["deliveries"], &first["data"]);
    assert_eq!((&again["is_repeated"], &again["deliveries"], &again["data"]), expected);
    // Another event with the same id isn't taken for the same.
    for other in [json!({"event": "clients.update"}), json!({"event": "clients.create", "data": {"id": 8}})] {
        let other = json!({"event": other["event"], "data": other["data"], "id": event["id"]});
        refused(emit(&other), 409, "is that of another event, clients.create");
    }
    refused(emit(&json!({"event": "clients.create", "object_id": "x".repeat(2000)})), 422, "more than 1024 bytes");

    let change = |body: Value| server.ask("PATCH", &format!("{list}/gate"), Some(&body));
    let other = json!({"event": "clients.create", "object_id": "8"});
    change(json!({"task": http("/forbid")})).is(200);
    let problem = refused(emit(&other), 403, "the handler \"gate\" forbids it: not <b>this</b> one");
    assert_eq!(problem["handler"], "gate");
    change(json!({"task": {"http": "http://127.0.0.1:1/"}})).is(200);
    refused(emit(&other), 503, "the handler \"gate\" gave no answer");
    assert_eq!(
        emit(&event).is(200).json(),
        again,
        "who repeats one that is recorded is told so, whatever is in the way now"
    );
    refused(change(json!({"name": "other"})), 422, "a handler's name can't be changed");
    assert_eq!(change(json!({"status": "archived"})).is(200).json()["mode"], "before", "what is left out stays");
    assert_eq!((names(""), names("?status=archived")), (vec![json!("tell/ä")], vec![json!("gate")]));
    emit(&other).is(201);
    for (event, detail) in [
        (json!({"event": "clients.craete"}), "there is no event \"clients.craete\"; the nearest is \"clients.create\""),
        (json!({"event": "clients.delete", "data": {"id": 7}}), "this event carries no data"),
        (json!({"event": "clients.create", "id": "7"}), "the event's id is no UUID"),
    ] {
        refused(emit(&event), 422, detail);
    }
    refused(emit(&json!({"data": {}})), 400, "missing field `event`");

    let own = "/api/v1/events/tickets.create";
    put(&server, own, &json!({"description": "a ticket"})).is(201);
    refused(put(&server, own, &json!({})), 409, "already");
    refused(put(&server, "/api/v1/events/Tickets", &json!({})), 422, "can't be the name of an event");
    let all = server.get("/api/v1/events").is(200).json();
    let found = all.as_array().expect("a list").iter().find(|event| event["name"] == "tickets.create");
    assert_eq!(found.map(|event| (&event["kind"], &event["description"])), Some((&json!("own"), &json!("a ticket"))));
    server.post(list, &json!({"name": "t", "event": "tickets.create", "task": http("/t")})).is(201);
    refused(server.ask("DELETE", own, None), 409, "1 handler is attached");
    for (name, status) in [("t", 204), ("tell%2F%C3%A4", 204), ("nobody", 404)] {
        server.ask("DELETE", &format!("{list}/{name}?force=true"), None).is(status);
    }
    server.ask("DELETE", own, None).is(204);
    refused(emit(&json!({"event": "tickets.create"})), 422, "there is no event");
    refused(server.get(&format!("{list}/t")), 404, "there is no handler \"t\"");
}

#[test]
fn deliveries_and_the_log_are_walked_and_dead_letters_redriven_or_given_up() {
    let home = Home::new();
    let server = Server::start(&home);
    let handlers = HandlerServer::start(|call| match call.path.as_str() {
        "/dead" => Reply::Answer(422, json!({"message": "not this one"}).to_string()),
        _ => Reply::ok(),
    });
    for (name, path) in [("bad", "/dead"), ("good", "/good")] {
        let handler = json!({"name": name, "event": "clients.create", "task": {"http": handlers.url(path)}});
        server.post("/api/v1/handlers", &handler).is(201);
    }
    for object in 0..5 {
        server.post("/api/v1/events", &json!({"event": "clients.create", "object_id": object})).is(201);
    }
    let (deliveries, executions) =
        ("/api/v1/deliveries?event=clients.create", "/api/v1/executions?event=clients.create");
    let count = |list: &str| server.get(list).is(200).json()["items"].as_array().map(Vec::len);
    wait_for("every attempt to be logged", || count(executions) == Some(10));
    wait_for("all to be told", || count("/api/v1/deliveries?status=done") == Some(5));
    wait_for("all to be dead", || count("/api/v1/deliveries?status=dead") == Some(5));
    assert_eq!(numbers(&walk(&server, deliveries), "number"), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1], "the newest first");
    assert_eq!(count("/api/v1/deliveries?listener=bad&object=3"), Some(1));
    assert_eq!(count("/api/v1/deliveries?event=Clients%20Create"), Some(10), "whatever spelling of it");
    assert_eq!(count("/api/v1/executions?event=Clients%20Create&since=1h"), Some(10));
    assert_eq!(count("/api/v1/executions?until=2026-01-31"), Some(0));
    for (query, detail) in [
        ("deliveries?status=nope", "there is no status \"nope\"; there are waiting, running, done, dead, discarded"),
        ("deliveries?limit=0", "limit has to be 1 to 1000"),
        ("executions?limit=1001", "limit has to be 1 to 1000"),
        ("deliveries?cursor=x", "cursor"),
        ("executions?nothing=1", "unknown field `nothing`"),
        ("executions?since=1795630204", "looks like seconds since 1970"),
        ("executions?until=soon", "until can't be taken: write a date like"),
    ] {
        refused(server.get(&format!("/api/v1/{query}")), 400, detail);
    }

    let dead = server.get("/api/v1/deliveries?status=dead&limit=1").is(200).json()["items"][0].clone();
    assert_eq!((&dead["problem"], &dead["listener"]), (&json!("not this one"), &json!("bad")));
    let at = format!("/api/v1/deliveries/{}", dead["number"]);
    let settle = |what: &str| server.ask("POST", &format!("{at}/{what}"), None);
    settle("redrive").is(204);
    wait_for("it to be dead again", || {
        let shown = server.get(&at).is(200).json();
        shown["status"] == "dead" && shown["executions"].as_array().is_some_and(|executions| executions.len() == 2)
    });
    assert_eq!(server.get(&at).is(200).json()["envelope"]["event"]["events_id"], "clients.create");
    settle("discard").is(204);
    assert_eq!(server.get(&at).is(200).json()["status"], "discarded");
    refused(settle("discard"), 409, "is discarded");
    let done = server.get("/api/v1/deliveries?status=done&limit=1").is(200).json()["items"][0]["number"].clone();
    for what in ["redrive", "discard"] {
        let of = |number: &str| server.ask("POST", &format!("/api/v1/deliveries/{number}/{what}"), None);
        refused(of(&done.to_string()), 409, "is done");
        refused(of("99"), 404, "there is no delivery 99");
        refused(of("x"), 404, "there is no delivery \"x\"");
    }

    assert_eq!(count(&format!("{executions}&status=forbidden")), Some(6));
    assert_eq!(count(&format!("{executions}&status=timed_out")), Some(0));
    assert_eq!(count(&format!("{executions}&listener=good&object=3")), Some(1));
    assert_eq!(count(&format!("{executions}&delivery={}", dead["number"])), Some(2));
    assert_eq!(count(&format!("{executions}&since=0&until=1")), Some(0));
    let newest_first = numbers(&walk(&server, executions), "id");
    let mut oldest_first = numbers(&walk(&server, &format!("{executions}&after=0")), "id");
    assert!(oldest_first.len() == 11 && oldest_first.is_sorted(), "{oldest_first:?}");
    let after = numbers(&walk(&server, &format!("{executions}&after={}", oldest_first[7])), "id");
    assert_eq!(after, oldest_first[8..], "what came since");
    oldest_first.reverse();
    assert_eq!(newest_first, oldest_first);
}
