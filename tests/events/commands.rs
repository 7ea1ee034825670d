//! The commands of events, handlers and deliveries: what they print, and what they refuse.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{HandlerServer, Home, Package, Reply, run_on_terminal};

#[test]
fn all_events_are_listed_and_own_ones_added_once() {
    let home = Home::new();
    home.run(&["addevent", "tickets.create", "--description", "a ticket was opened"]).succeeded();
    let listed = home.run(&["listevents"]).succeeded().stdout;
    for line in [
        "clients.create\tbuilt in\tclients create",
        "clients.balance_zero\tbuilt in\tclients balance became <=0",
        "on_product_acquisition\thook\ta call of this hook",
        "tickets.create\town\ta ticket was opened",
    ] {
        assert!(listed.lines().any(|listed| listed == line), "{line:?} is not in\n{listed}");
    }
    assert_eq!(listed.lines().count(), 18 + 15 + 1);
    let json = home.run(&["listevents", "--json"]).succeeded().json();
    assert_eq!(json.as_array().map(Vec::len), Some(34));
    home.run(&["addevent", "tickets.create"]).failed_with(&["there is an event \"tickets.create\" already"]);
    home.run(&["addevent", "clients.create"]).failed_with(&["it is built in"]);
    home.run(&["addevent", "on_product_acquisition"]).failed_with(&["it is a hook"]);
    home.run(&["addevent", "a.b", "--description", &"x".repeat(501)]).failed_with(&["description"]);
    home.run(&["addevent", "a.b"]).succeeded();
    home.run(&["addhandler", "h", "--event", "a.b", "--task", "/bin/true"]).succeeded();
    home.run(&["removeevent", "a.b"]).failed_with(&["1 handler is attached to a.b"]);
    home.run(&["removehandler", "h"]).succeeded();
    home.run(&["removeevent", "a.b"]).succeeded();
    home.run(&["removeevent", "clients.create"]).failed_with(&["that was added"]);
    home.run(&["addevent", "Tickets"]).failed_with(&["write it as parts with dots between them"]);
    home.run(&["emit", "ticket.create"]).failed_with(&[
        "there is no event \"ticket.create\"",
        "tickets.create",
        "addevent",
    ]);
    home.run(&["emit", "tickets.create", "--object", "x"]).succeeded();
    home.run(&["addhandler", "a", "--event", "clients.cretae", "--task", "/x"])
        .failed_with(&["the nearest is \"clients.create\""]);
}

#[test]
fn events_that_carry_no_data_are_refused_with_some_and_bad_data_with_its_place() {
    let home = Home::new();
    home.run(&["addevent", "a.b"]).succeeded();
    let data = home.file("data.json", r#"{"id": 1}"#);
    home.run(&["emit", "clients.delete", "--data", &data]).failed_with(&["clients.delete", "carries no data"]);
    home.run(&["emit", "clients.delete", "--object", "1"]).succeeded();
    let broken = home.file("broken.json", r#"{"id": "#);
    home.run(&["emit", "a.b", "--data", &broken]).failed_with(&["broken.json is no JSON", "EOF"]);
    home.run(&["emit", "a.b", "--data", "none.json"]).failed_with(&["none.json can't be read"]);
}

#[test]
fn handlers_are_searched_by_name_event_type_and_status() {
    let home = Home::new();
    let add = |name: &str, event: &str, task: &str| {
        home.run(&["addhandler", name, "--event", event, "--task", task]).succeeded();
    };
    add("CRM sync", "clients.create", "http://127.0.0.1:1/api");
    add("mail", "clients.create", "/bin/true");
    add("audit", "clients.update", "/bin/true");
    home.run(&["sethandler", "mail", "--status", "disabled", "--priority", "5"]).succeeded();
    home.run(&["sethandler", "audit", "--status", "archived"]).succeeded();
    let names = |arguments: &[&str]| -> Vec<String> {
        let all = [&["listhandlers", "--json"], arguments].concat();
        let listed = home.run(&all).succeeded().json();
        listed
            .as_array()
            .expect("a list")
            .iter()
            .map(|handler| handler["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(&[]), ["CRM sync", "mail"], "without a status: enabled and disabled");
    assert_eq!(names(&["--status", "archived"]), ["audit"]);
    assert_eq!(names(&["--status", "enabled"]), ["CRM sync"]);
    assert_eq!(names(&["--name", "crm"]), ["CRM sync"]);
    assert_eq!(names(&["--type", "script"]), ["mail"]);
    assert_eq!(names(&["--event", "Clients Create", "--type", "http"]), ["CRM sync"]);
    assert_eq!(names(&["--event", "clients.archive"]), Vec::<String>::new());
    let lines = home.run(&["listhandlers"]).succeeded().stdout;
    assert_eq!(
        lines,
        "CRM sync\tclients.create\tafter\tenabled\t100\thttp\thttp://127.0.0.1:1/api\n\
         mail\tclients.create\tafter\tdisabled\t5\tscript\t/bin/true\n"
    );
    let (_, table) = run_on_terminal(&mut home.command(&["listhandlers"]));
    assert!(table.contains("CRM sync") && table.contains("Priority"), "{table}");
}

#[test]
fn a_handler_is_shown_changed_and_removed_and_what_is_wrong_is_refused() {
    let home = Home::new();
    let url = "http://127.0.0.1:1/api";
    let add = ["addhandler", "a", "--event", "clients.create", "--task", url];
    for (options, refused) in [
        (&["--on-failure", "open"][..], "--on-failure is for handlers before"),
        (&["--mode", "before", "--attempts", "3"], "a before handler is asked once"),
        (&["--arg", "x"], "--arg is for scripts"),
        (&["--env", "X"], "only a script has an environment"),
        (&["--first-pause", "10m", "--longest-pause", "1s"], "the longest pause is shorter"),
    ] {
        home.run(&[&add[..], options].concat()).failed_with(&[refused]);
    }
    home.run(&["addhandler", "a", "--event", "clients.create", "--task", "http://127.0.0.1:99999/"])
        .failed_with(&["port"]);
    home.run(&[&add[..], &["--mode", "before", "--deadline", "500ms", "--on-failure", "open"]].concat()).succeeded();
    let shown = home.run(&["showhandler", "a"]).succeeded().stdout;
    for line in [
        "mode          before",
        "deadline      500ms",
        "on failure    open",
        "status        enabled",
        "priority      100",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    home.run(&add).failed_with(&["there is a handler \"a\" already", "sethandler"]);
    let set = ["sethandler", "a", "--mode", "after", "--attempts", "3", "--first-pause", "2s", "--longest-pause", "1m"];
    home.run(&set).succeeded();
    assert!(home.run(&["showhandler", "a"]).stdout.contains("attempts      3, with pauses of 2s at first, 1m at most"));
    home.run(&["sethandler", "a"]).failed_with(&["nothing is to be changed"]);
    home.run(&["sethandler", "a", "--task", "relative/path"]).failed_with(&["no absolute path"]);
    home.run(&["sethandler", "a", "--event", "nothing"]).failed_with(&["there is no event"]);
    home.run(&["sethandler", "b", "--priority", "1"]).failed_with(&["there is no handler \"b\"", "listhandlers"]);
    home.run(&["addhandler", "b", "--event", "clients.create", "--task", "http://user:pw@h/"])
        .failed_with(&["can't hold a user"]);
    let secret = home.file("secret", "short");
    home.run(&["sethandler", "a", "--secret-file", &secret]).failed_with(&["at least 16 bytes"]);
    let warned =
        home.run(&["addhandler", "c", "--event", "clients.create", "--task", "/no/such/script --flag"]).succeeded();
    assert!(warned.stderr.contains("/no/such/script can't be run"), "{}", warned.stderr);
    let shown = home.run(&["showhandler", "c", "--json"]).succeeded().json();
    assert_eq!(shown["task"], json!({"script": ["/no/such/script", "--flag"]}));
    home.run(&["removehandler", "a"]).succeeded();
    home.run(&["showhandler", "a"]).failed_with(&["there is no handler \"a\""]);
    home.run(&["removehandler", "a"]).failed_with(&["there is no handler \"a\""]);
}

#[test]
fn explain_prints_the_whole_chain_of_an_event_and_of_a_pair_of_hooks() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let add = |name: &str, event: &str, mode: &str, priority: &str| {
        let task = ["--task", "/bin/true", "--mode", mode, "--priority", priority];
        home.run(&[&["addhandler", name, "--event", event], &task[..]].concat()).succeeded();
    };
    add("late", "clients.create", "after", "200");
    add("early", "clients.create", "after", "1");
    add("gate", "clients.create", "before", "100");
    let steps = |arguments: &[&str]| -> Vec<String> {
        let explained = home.run(&[&["explain", "--json"], arguments].concat()).succeeded().json();
        let step =
            |step: &Value| format!("{} {}", step["phase"].as_str().unwrap_or("?"), step["who"].as_str().unwrap_or("?"));
        explained.as_array().expect("a list").iter().map(step).collect()
    };
    assert_eq!(steps(&["clients.create"]), ["before gate", "work the backend", "after early", "after late"]);
    add("pre", "on_pre_product_spec_attachment", "before", "1");
    add("post", "on_post_product_spec_attachment", "after", "1");
    let pair = ["before pre", "hook healthy", "work the backend", "hook healthy", "after post"];
    for hook in ["on_pre_product_spec_attachment", "on_post_product_spec_attachment"] {
        assert_eq!(steps(&[hook, "--asset-type", "Healthy"]), pair, "{hook}");
    }
    assert_eq!(steps(&["on_product_acquisition"]), ["hook the plugin of the asset's type"]);
    assert_eq!(steps(&["on_product_acquisition", "--asset-type", "None"]), ["hook no plugin"]);
    let text = home.run(&["explain", "clients.create"]).succeeded().stdout;
    assert!(text.starts_with("1\tbefore\t100\thandler\tgate\t"), "{text}");
    home.run(&["explain", "clients.craete"]).failed_with(&["the nearest is"]);
}

#[test]
fn emit_waits_for_the_first_attempts_and_tells_what_became_of_them() {
    let home = Home::new();
    let server = HandlerServer::start(|call| match call.path.as_str() {
        "/good" => Reply::ok(),
        "/bad" => Reply::Answer(422, json!({"message": "not this one"}).to_string()),
        _ => Reply::status(500),
    });
    for name in ["good", "bad", "later"] {
        home.run(&["addhandler", name, "--event", "clients.create", "--task", &server.url(&format!("/{name}"))])
            .succeeded();
    }
    let said = home.run(&["emit", "clients.create", "--object", "7"]).succeeded().stdout;
    for part in [
        "delivery 1 to handler bad: dead: not this one",
        "delivery 2 to handler good: done",
        "delivery 3 to handler later: failed, and is tried again by a running host: it answered 500",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert_eq!(server.calls()[0].at("/event/object_id"), json!(7), "a number is sent as one");
    let said = home.run(&["emit", "clients.create", "--object", "x", "--no-wait"]).succeeded().stdout;
    assert!(said.contains("delivery 5 to handler good: waits for a running host"), "{said}");
    assert_eq!(server.calls().len(), 3);
    let said = home.run(&["emit", "clients.archive", "--object", "x"]).succeeded().stdout;
    assert!(said.contains("nobody listens to it now"), "{said}");
    let json = home.run(&["emit", "clients.create", "--object", "y", "--json"]).succeeded().json();
    assert_eq!(json["deliveries"].as_array().map(Vec::len), Some(3));

    let listed = home.run(&["listdeliveries", "--status", "dead"]).succeeded().stdout;
    assert!(listed.contains("1\tclients.create\t7\tbad\tdead\t1\tnot this one"), "{listed}");
    let shown = home.run(&["showdelivery", "1"]).succeeded().stdout;
    for part in ["listener      handler bad", "status        dead", "problem       not this one", "attempt 1     "] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    home.run(&["showdelivery", "99"]).failed_with(&["there is no delivery 99", "listdeliveries"]);
    home.run(&["redrive", "2"]).failed_with(&["delivery 2 is done"]);
    // What can be done is done, and the rest is told.
    let both = home.run(&["redrive", "2", "1"]);
    assert!(both.stdout.contains("1 delivery will be attempted again") && both.code == Some(1), "{both:?}");
    home.run(&["discard", "1"]).succeeded();
    home.run(&["redrive", "1"]).succeeded();
    home.run(&["discard", "1"]).succeeded();
    // What nobody would be told is not promised.
    home.run(&["sethandler", "bad", "--status", "archived"]).succeeded();
    home.run(&["redrive", "1"]).failed_with(&["its listener is gone, or listens no more"]);
    let said = home.run(&["log", "--listener", "nobody"]).succeeded();
    assert!(said.stderr.contains("no handler and no plugin is called \"nobody\""), "{}", said.stderr);
}

#[test]
fn deliver_runs_in_the_foreground_until_everything_is_done() {
    let home = Home::new();
    let server =
        HandlerServer::start(
            |call| if call.at("/event/attempt") == json!(1) { Reply::status(500) } else { Reply::ok() },
        );
    let add = ["addhandler", "a", "--event", "clients.create", "--task", &server.url("/"), "--first-pause", "10ms"];
    home.run(&add).succeeded();
    for object in 0..5 {
        home.run(&["emit", "clients.create", "--no-wait", "--object", &object.to_string()]).succeeded();
    }
    let said = home.run(&["deliver", "--until-done"]).succeeded();
    assert_eq!(said.stdout.lines().count(), 10, "{}", said.stdout);
    assert_eq!(said.stdout.lines().filter(|line| line.contains("\tsuccess\t")).count(), 5, "{}", said.stdout);
    assert_eq!(home.run(&["deliver", "--until-done"]).succeeded().stdout, "", "nothing is left");
    // What waits for a disabled handler doesn't hold it up; and nobody waits long for such a delivery.
    home.run(&["emit", "clients.create", "--no-wait", "--object", "007"]).succeeded();
    home.run(&["sethandler", "a", "--status", "disabled"]).succeeded();
    let said = home.run(&["deliver", "--until-done"]).succeeded();
    assert!(said.stderr.contains("what is left waits for listeners that take nothing now: a"), "{}", said.stderr);
    let listed = home.run(&["listdeliveries", "--status", "waiting"]).succeeded().stdout;
    assert!(listed.contains("\tclients.create\t007\ta\twaiting\t0"), "{listed}");
}

#[test]
fn the_log_is_searched_and_followed() {
    let home = Home::new();
    let server = HandlerServer::start(|call| if call.path == "/bad" { Reply::status(403) } else { Reply::ok() });
    for name in ["good", "bad"] {
        home.run(&["addhandler", name, "--event", "clients.create", "--task", &server.url(&format!("/{name}"))])
            .succeeded();
    }
    let mut following = home.command(&["log", "--follow", "--json", "--listener", "good"]);
    let mut following = following.stdout(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(following.stdout.take().expect("a pipe")).lines();
    for object in ["1", "2"] {
        home.run(&["emit", "clients.create", "--object", object]).succeeded();
        let line = lines.next().expect("a line").expect("UTF-8");
        let execution: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&execution["listener"], &execution["object_id"]), (&json!("good"), &json!(object)));
    }
    following.kill().expect("there");
    following.wait().expect("ended");
    let count = |arguments: &[&str]| home.run(&[&["log"], arguments].concat()).succeeded().stdout.lines().count();
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--listener", "bad"]), 2);
    assert_eq!(count(&["--status", "forbidden"]), 2);
    assert_eq!(count(&["--status", "success", "--object", "1"]), 1);
    assert_eq!(count(&["--event", "Clients Create", "--limit", "3"]), 3);
    assert_eq!(count(&["--event", "clients.update"]), 0);
    assert_eq!(count(&["--since", "1h"]), 4);
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--since", "2000-01-01T00:00:00Z", "--until", "2001-01-01"]), 0);
    assert_eq!(home.run(&["log", "--since", "yesterday"]).code, Some(2), "a wrong argument");
}

#[test]
fn calls_of_hooks_are_in_the_log_of_the_command_and_not_of_a_host_that_is_embedded() {
    let home = Home::new();
    home.load(&Package::new("Healthy")).succeeded();
    let objects = home.file(
        "objects.json",
        &json!({"asset": crate::support::asset("Healthy"), "order": crate::support::order()}).to_string(),
    );
    home.run(&["callplugin", "healthy", "on_product_acquisition", "--objects", &objects]).succeeded();
    let host = home.host();
    crate::support::acquire(&host, &crate::support::asset("Healthy")).expect("it went through");
    drop(host);
    let logged = home.run(&["log", "--json"]).succeeded().json();
    let logged = logged.as_array().expect("a list");
    assert_eq!(logged.len(), 1, "{logged:?}");
    let shown = ["event", "object_id", "kind", "listener", "status"].map(|key| logged[0][key].as_str().expect("text"));
    assert_eq!(shown, ["on_product_acquisition", "asset-1", "plugin", "healthy", "success"]);
    home.file("home/config.toml", "[log]\nhooks = false\n");
    home.run(&["callplugin", "healthy", "on_product_acquisition", "--objects", &objects]).succeeded();
    assert_eq!(home.run(&["log"]).succeeded().stdout.lines().count(), 1);
}
