//! Usage specifications, and how the usage API is reached.

use std::sync::Arc;

use billhook::{Host, HttpUsageApi, Install, NoBundles, UsageApiSettings};
use serde_json::json;

use super::{Meter, host, order_of, package, record};
use crate::support::{Fault, Home, Package, UsageServer, options, wait_for};

#[test]
fn a_usage_specification_has_the_characteristics_of_its_documents() {
    let meter = Meter::new();
    let specification = meter.server.specification("Megabyte").expect("it was made");
    assert_eq!(specification["description"], "Number of Megabytes");
    let characteristics = specification["usageSpecCharacteristic"].as_array().expect("a list");
    let shown: Vec<(&str, &str)> = characteristics
        .iter()
        .map(|one| {
            let kind = one["usageSpecCharacteristicValue"][0]["valueType"].as_str().expect("text");
            (one["name"].as_str().expect("text"), kind)
        })
        .collect();
    let expected = [
        ("orderId", "number"),
        ("productId", "number"),
        ("correlationNumber", "number"),
        ("unit", "string"),
        ("value", "number"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(characteristics[3]["usageSpecCharacteristicValue"][0]["value"], "Megabyte");
}

/// The usage specifications of the plugin that are not as they have to be, as `showplugin` says.
fn pending(home: &Home) -> Vec<String> {
    let shown = home.run(&["showplugin", "meter", "--json"]).succeeded().json();
    let all = shown["usage_api"].as_array().expect("a list").iter();
    let pending = all.filter(|spec| !spec["pending"].is_null());
    pending
        .map(|spec| {
            format!("{} {}", spec["pending"].as_str().unwrap_or_default(), spec["name"].as_str().unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_usage_api_that_can_not_be_reached_fails_no_install_and_gets_its_specifications_later() {
    let (home, address) = (Home::new(), UsageServer::free_address());
    let url = format!("http://{address}/usageManagement/v2");
    home.file("reports.json", "{}");
    let config = home.file("billhook.toml", &format!("[usage_api]\nbase_url = \"{url}\"\n"));
    let settings = json!({"reports": "/nowhere", "units": ["API call", "Megabyte"]}).to_string();
    let settings = home.file("settings.json", &settings);
    let package = package("1.0").write(home.folder());
    let load = ["loadplugin", package.to_str().expect("UTF-8"), "--settings", &settings, "--config", &config];
    let loaded = home.run(&load).succeeded();
    assert!(loaded.stderr.contains("can't be reached"), "{}", loaded.stderr);
    assert_eq!(pending(&home), ["create API call", "create Megabyte"]);
    let shown = home.run(&["showplugin", "meter"]).succeeded().stdout;
    assert!(
        shown.contains("usage API     API call is not there yet, because the usage API can't be reached"),
        "{shown}"
    );
    let failed = home.run(&["reconcile", "--config", &config]).failed_with(&["can't be reached"]);
    assert!(failed.stdout.contains("0 made, 0 deleted, 2 pending"), "{}", failed.stdout);

    // A running host tries again by itself.
    let host = host(&home, &url);
    host.start_reconciler().expect("it has a usage API");
    host.start_reconciler().expect("starting it twice starts it once");
    let server = UsageServer::start_at(address);
    wait_for("both specifications", || server.specifications().len() == 2);
    wait_for("the registry to know", || pending(&home).is_empty());
    let done = home.run(&["reconcile", "--config", &config]).succeeded();
    assert!(done.stdout.contains("0 made, 0 deleted, 0 pending; usage records: 0 sent, 0 unsent"), "{}", done.stdout);
}

#[test]
fn upgrades_downgrades_and_removals_leave_the_usage_specifications_of_the_version_in_use() {
    let meter = Meter::with_units(&["API call", "Megabyte"]);
    assert_eq!(meter.server.specifications(), ["API call", "Megabyte"]);
    let href = |name: &str| {
        let shown = meter.home.run(&["showplugin", "meter", "--json"]).succeeded().json();
        let all = shown["usage_api"].as_array().expect("a list").clone();
        all.into_iter()
            .find(|spec| spec["name"] == name)
            .map(|spec| spec["href"].as_str().unwrap_or_default().to_owned())
    };
    let first = href("API call").expect("it is there");

    meter.install("2.0", &["API call", "Page"]);
    assert_eq!(meter.server.specifications(), ["API call", "Page"]);
    assert_eq!(href("API call"), Some(first), "what stays is not made anew");
    let page = href("Page").expect("it is there");

    // After a downgrade nothing refers to what was deleted.
    let older = meter.settings(&["API call", "Megabyte"]);
    let how = billhook::Downgrade { version: None, settings: Some(&older) };
    meter.host.downgrade("meter", &how).expect("downgraded");
    assert_eq!(meter.server.specifications(), ["API call", "Megabyte"]);
    assert_eq!(href("Page"), None);
    meter.install("2.0", &["API call", "Page"]);
    assert_ne!(href("Page"), Some(page), "it is another one now");

    // Switched off, it keeps them: its usage may still be looked at.
    meter.home.run(&["disableplugin", "meter"]).succeeded();
    assert_eq!(pending(&meter.home), [""; 0]);
    meter.home.run(&["enableplugin", "meter"]).succeeded();
    meter.host.remove("meter", false).expect("removed");
    assert_eq!(meter.server.specifications(), [""; 0]);
}

#[test]
fn one_failure_stops_no_other_specification_and_one_that_is_gone_is_as_good_as_deleted() {
    let meter = Meter::with_units(&["A", "B", "C"]);
    meter.server.lose_specifications();
    meter.install("2.0", &["D"]);
    assert_eq!((pending(&meter.home), meter.server.specifications()), (vec![], vec!["D".to_owned()]));

    meter.server.always_fail("POST", Fault::Answer(500));
    meter.install("3.0", &["E", "F"]);
    assert_eq!(pending(&meter.home), ["create E", "create F"], "the deletion of D went through");
    meter.server.fail(&[]);
    meter.server.always_fail("DELETE", Fault::DropBefore);
    meter.install("4.0", &["G"]);
    assert_eq!(pending(&meter.home), ["create G"; 0], "E and F were never made, so nothing is to be deleted");
    meter.install("5.0", &["H"]);
    assert_eq!(pending(&meter.home), ["delete G"]);
    meter.server.fail(&[]);
    meter.host.reconcile().expect("it can be reconciled");
    assert_eq!((pending(&meter.home), meter.server.specifications()), (vec![], vec!["H".to_owned()]));
}

#[test]
fn a_specification_whose_making_was_cut_off_is_found_and_not_made_twice() {
    let meter = Meter::with_units(&["A"]);
    // Somebody else's of the same name is left alone.
    let (own, other) = (meter.impatient_host(0), host(&meter.home, &meter.server.url()));
    for (index, fault) in
        [Fault::DropAfter, Fault::Garbage, Fault::AnswerAfter(502), Fault::HangAfter].into_iter().enumerate()
    {
        let unit = format!("Unit {index}");
        let others = json!({"name": unit, "description": "somebody else's"});
        meter.server.put_specification(others);
        meter.server.always_fail("POST", fault);
        let (settings, package) = (meter.settings(&[&unit]), package(&format!("{}.0", index + 2)));
        let package = package.write(meter.home.folder());
        own.install(package, &Install { settings: Some(&settings), ..Install::default() }).expect("installed");
        assert!(pending(&meter.home).contains(&format!("create {unit}")), "{fault:?}");
        meter.server.fail(&[]);
        other.reconcile().expect("it can be reconciled");
        assert_eq!(pending(&meter.home), [""; 0], "{fault:?}");
        let named = meter.server.specifications().into_iter().filter(|name| *name == unit).count();
        assert_eq!(named, 2, "{fault:?}: ours and somebody else's");
    }
    meter.host.remove("meter", false).expect("removed");
    assert_eq!(meter.server.specifications().len(), 4, "only ours are deleted");
}

#[test]
fn calls_carry_what_the_settings_say_and_secrets_are_not_shown() {
    let server = UsageServer::start();
    let home = Home::new();
    let secret = home.file("secret", "s3cret\n");
    for (settings, expected) in [
        (json!({"bearer_token_file": secret}), "authorization: Bearer s3cret"),
        (json!({"bearer_token": "t0ken"}), "authorization: Bearer t0ken"),
        (json!({"username": "billing", "password": "p:ä"}), "authorization: Basic YmlsbGluZzpwOsOk"),
        (json!({"username": "billing", "password_file": secret}), "authorization: Basic YmlsbGluZzpzM2NyZXQ="),
        (json!({"headers": {"X-Tenant": "acme"}}), "x-tenant: acme"),
    ] {
        let mut settings = settings;
        settings["base_url"] = json!(format!("{}/", server.url()));
        let settings: UsageApiSettings = serde_json::from_value(settings).expect("settings");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("acme") && !shown.contains("t0ken"), "{shown}");
        let api = HttpUsageApi::new(&settings).expect("sound settings");
        use billhook::UsageApi as _;
        let mut found = 0;
        api.customer_usage("a b&ä", &mut |_| found += 1).expect("answered");
        assert_eq!(
            server.calls().last().map(String::as_str),
            Some("GET /usageManagement/v2/usage?relatedParty.id=a%20b%26%C3%A4")
        );
        let headers: Vec<String> = server.headers().iter().map(|header| header.to_lowercase()).collect();
        assert!(headers.contains(&expected.to_lowercase()), "{expected} is not in {headers:?}");
    }
}

#[test]
fn a_customer_is_referred_to_by_the_address_that_the_settings_give() {
    let meter = Meter::new();
    meter.report(json!([record(1, "1")]));
    let mut settings = UsageApiSettings::new(meter.server.url());
    settings.customer_href = Some("https://party.example/individual/{id}".to_owned());
    let api = Arc::new(HttpUsageApi::new(&settings).expect("sound settings"));
    let host = Host::open_with(meter.home.path(), options().usage_api(api)).expect("the home opens");
    let order = order_of("order-1", &["a"]);
    host.usage_refreshed(&order, &order.contracts[0], &NoBundles).expect("it can be refreshed");
    let document = meter.server.documents("order-1").remove(0);
    assert_eq!(document["relatedParty"][0]["href"], "https://party.example/individual/ada");
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_its_line_and_without_its_secrets() {
    let home = Home::new();
    home.load(&Package::new("X")).succeeded();
    home.run(&["reconcile"]).failed_with(&["this host has no usage API"]);
    home.run(&["listplugins", "--config", "nowhere.toml"])
        .failed_with(&["the configuration nowhere.toml can't be read"]);
    let url = "base_url = \"http://127.0.0.1:1\"";
    for (text, expected) in [
        ("[usage]".to_owned(), "line 1: unknown field `usage`"),
        ("[usage_api]\n".to_owned(), "missing field `base_url`"),
        (format!("[usage_api]\n{url}\nbearer_tokn = \"s3cret\""), "line 3: unknown field `bearer_tokn`"),
        (format!("[usage_api]\n{url}\nbearer_token = s3cret"), "line 3: "),
        ("[usage_api]\nbase_url = \"ftp://a.example\"".to_owned(), "has to begin with http:// or https:// and a host"),
        ("[usage_api]\nbase_url = \"nonsense\"".to_owned(), "has to begin with http://"),
        ("[usage_api]\nbase_url = \"no nonsense s3cret\"".to_owned(), "base_url is no address"),
        (format!("[usage_api]\n{url}\nheaders = \"X-Key: s3cret\""), "line 3: a value of the wrong kind"),
        (format!("[usage_api]\n{url}\npassword = [\"s3cret\"]"), "line 3: a value of the wrong kind"),
        ("[usage_api]\nbase_url = \"https://a.example?x=s3cret\"".to_owned(), "can't have a query"),
        ("[usage_api]\nbase_url = \"https://u:s3cret@a.example\"".to_owned(), "can't hold a user"),
        (format!("[usage_api]\n{url}\ntimeout_ms = 0"), "a time limit can't be 0"),
        (format!("[usage_api]\n{url}\npassword = \"s3cret\""), "a password and no username"),
        (format!("[usage_api]\n{url}\nusername = \"a\"\nbearer_token = \"s3cret\""), "are both set"),
        (format!("[usage_api]\n{url}\nbearer_token_file = \"/nowhere/token\""), "/nowhere/token can't be read"),
        (format!("[usage_api]\n{url}\nheaders = {{ \"a b\" = \"1\" }}"), "\"a b\" is no name of a header"),
        (format!("[usage_api]\n{url}\nheaders = {{ a = \"s3cret\\n\" }}"), "the value of a can't be sent"),
    ] {
        std::fs::write(home.path().join("config.toml"), &text).expect("written");
        let run = home.run(&["listplugins"]).failed_with(&[expected]);
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    }
}

#[test]
fn a_redirect_is_not_followed_and_the_message_says_where_to() {
    let meter = Meter::new();
    meter.report(json!([record(1, "1")]));
    meter.server.always_fail("POST", Fault::Answer(307));
    let refreshed = meter.refresh(&order_of("order-1", &["a"]));
    let failure = refreshed.failure.expect("it was not sent").to_string();
    assert!(
        failure.contains("307") && failure.contains("to https://elsewhere.example/usage; redirects are not followed"),
        "{failure}"
    );
    assert_eq!(meter.server.documents("order-1").len(), 0);
}
