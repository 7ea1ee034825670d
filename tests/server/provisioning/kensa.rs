//! What the client asks that providers check their add-ons with, Kensa 3.1: the same requests, in the same order.

use super::*;

/// Kensa's path where a manifest says no other.
const KENSA: &str = "/heroku/resources";

fn server(home: &Home) -> Server {
    let config = home.file("kensa.toml", "[server.provisioning]\nbase_path = \"/heroku\"\n");
    Server::start_with(home, &["--config", &config])
}

/// Asks as Kensa's HTTP client: with a content type only where there is a body.
#[track_caller]
fn ask(server: &Server, (user, password): (&str, &str), method: &str, path: &str, body: Option<&Value>) -> Answer {
    let authorization = basic(user, password);
    let mut headers = vec![("accept", "application/json"), ("authorization", authorization.as_str())];
    headers.extend(body.map(|_| ("content-type", "application/json")));
    let body = body.map(ToString::to_string).unwrap_or_default();
    checked(server.request(method, path, &headers, body.as_bytes()))
}

/// An id as Kensa writes it into a path: encoded as a form, with a plus sign for a space.
fn escaped(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string().replace("%20", "+").replace("%2D", "-").replace("%5F", "_")
}

/// The query of a sign-on, and what its cookie has to hold.
fn query(id: &str, salt: &str, seconds: i64) -> (String, String) {
    let form = form(id, salt, seconds);
    let value = |name: &str| form.iter().find(|(field, _)| *field == name).expect("there").1.clone();
    let nav_data = "eyJhZGRvbiI6IllvdXIgQWRkb24ifQ";
    let signed = format!("token={}&timestamp={}", value("token"), value("timestamp"));
    (format!("{signed}&nav-data={nav_data}&email=username@example.com&app=myapp"), nav_data.to_owned())
}

#[test]
fn kensa_passes_from_end_to_end() {
    let home = home();
    let server = server(&home);
    let (right, wrong) = (("fix", PASSWORD), ("wrong", "secret"));
    let wanted = json!({"heroku_id": "app7@kensa.heroku.com", "plan": "test", "logplex_token": null,
        "callback_url": "http://localhost:7779/callback/999", "options": {}});
    let made = ask(&server, right, "POST", KENSA, Some(&wanted));
    assert!((200..300).contains(&made.status), "{made:#?}");
    let made = made.json();
    ask(&server, wrong, "POST", KENSA, Some(&wanted)).is(401);
    let config = made["config"].as_object().expect("a configuration");
    assert!(config.keys().all(|key| ["FIX_URL", "FIX_PLAN"].contains(&key.as_str())), "{config:?}");
    let id = made["id"].as_str().expect("an id");

    let path = format!("{KENSA}/{}", escaped(id));
    let changed = json!({"plan": "foo", "heroku_id": "app8@kensa.heroku.com"});
    ask(&server, right, "PUT", &path, Some(&changed)).is(200);
    ask(&server, wrong, "PUT", &path, Some(&changed)).is(401);

    // Kensa puts the id into the path as it is, and follows links as a browser.
    for (salt, seconds, status) in [("invalid", 0, 403), (SALT, -360, 403), (SALT, 0, 302)] {
        let (query, nav_data) = query(id, salt, seconds);
        let answer = server.request("GET", &format!("{KENSA}/{id}?{query}"), &[], b"").is(status);
        let cookie = format!("heroku-nav-data={nav_data}; Path=/; SameSite=Lax");
        assert_eq!(answer.header("set-cookie"), if status == 302 { cookie.as_str() } else { "" });
    }

    ask(&server, right, "DELETE", &path, None).is(200);
    ask(&server, wrong, "DELETE", &path, None).is(401);
    let (query, _) = query(id, SALT, 0);
    server.request("GET", &format!("{KENSA}/{id}?{query}"), &[], b"").is(403);
    assert_eq!(listed(&home), Vec::<Value>::new());
}

#[test]
fn a_link_signs_on_by_the_id_in_its_query_or_in_its_path_from_another_sites_page_too() {
    let home = home();
    let server = Server::start(&home);
    create(&server, "u-1", "free");
    let (query, _) = query("res-u-1", SALT, 0);
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    for path in [
        "/sso/login?id=res-u-1&",
        "/sso/login/?id=res-u-1&",
        "/cloudcontrol/resources/res-u-1?",
        "/cloudcontrol/resources/res-u-1/?",
        "/cloudcontrol/resources/res-u-1?id=other&",
    ] {
        let answer = server.request("GET", &format!("{path}{query}"), &link, b"").is(302);
        assert_eq!(answer.header("location"), "https://fix.example/sso/res-u-1?email=username@example.com");
    }
    for path in ["/sso/login?", "/sso/login?id=other&", "/cloudcontrol/resources/other?"] {
        checked(server.request("GET", &format!("{path}{query}"), &link, b"").is(403));
    }
    checked(server.request("GET", "/cloudcontrol/resources/res-u-1", &link, b"").is(403));
}

#[test]
fn a_plus_sign_in_a_path_is_itself_and_a_space_only_where_there_is_such_a_resource() {
    let home = home();
    let server = Server::start(&home);
    let as_fix = |method: &str, id: &str| {
        super::ask(
            &server,
            method,
            &format!("{RESOURCES}/{id}"),
            &match method {
                "PUT" => json!({"plan": "x"}),
                _ => Value::Null,
            },
        )
    };
    for uuid in ["a b", "c+d", "e f", "e+f", "ü +"] {
        create(&server, uuid, "free");
    }
    for (written, id) in [
        ("res-a+b", "res-a b"),
        ("res-c+d", "res-c+d"),
        ("res-e+f", "res-e+f"),
        ("res-e+f", "res-e f"),
        (escaped("res-ü +").as_str(), "res-ü +"),
    ] {
        as_fix("PUT", written).is(200);
        as_fix("DELETE", written).is(200);
        let left = listed(&home);
        assert!(left.iter().all(|resource| resource["id"] != id), "{id}: {left:?}");
    }
    as_fix("DELETE", "res-a+b").is(404);
    as_fix("DELETE", "%ff+").is(404);
}
