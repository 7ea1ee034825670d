//! Pull accounting, against a usage API that fails wherever a test says so. Several tests are named after what the Business API
//! Ecosystem's own host got wrong.

mod cut_off;
mod slow;
mod specifications;

use std::{collections::HashMap, path::PathBuf, process::Command, sync::Arc};

use billhook::{
    Catalogue, CatalogueError, Host, HttpUsageApi, Install, NoBundles, UsageApiError, UsageApiSettings, UsageError,
    UsageRefreshed,
    data::{Asset, Contract, Offering, Order, User},
};
use serde_json::{Value, json};

use crate::support::{Fault, Home, Package, UsageServer, characteristic, options};

/// A home with a plugin that reports what a file holds, a usage API, and a host that has both.
struct Meter {
    home: Home,
    server: UsageServer,
    host: Host,
    reports: PathBuf,
}

fn api(url: &str) -> Arc<HttpUsageApi> {
    Arc::new(HttpUsageApi::new(&UsageApiSettings::new(url)).expect("sound settings"))
}

/// A usage API whose calls may take less long than the server hangs, and may be at work for a while after that.
fn impatient_api(url: &str, settle_ms: u64) -> Arc<HttpUsageApi> {
    let mut settings = UsageApiSettings::new(url);
    (settings.timeout_ms, settings.settle_ms) = (300, Some(settle_ms));
    Arc::new(HttpUsageApi::new(&settings).expect("sound settings"))
}

fn host(home: &Home, url: &str) -> Host {
    Host::open_with(home.path(), options().usage_api(api(url))).expect("the home opens")
}

fn package(version: &str) -> Package {
    Package::new("Meter").of("meter").version(version).field("pull_accounting", json!(true))
}

impl Meter {
    fn new() -> Self {
        Self::with_units(&["API call", "Megabyte"])
    }

    fn with_units(units: &[&str]) -> Self {
        let (home, server) = (Home::new(), UsageServer::start());
        let host = host(&home, &server.url());
        let meter = Meter { reports: home.folder().join("reports.json"), home, server, host };
        meter.install("1.0", units);
        meter
    }

    fn settings(&self, units: &[&str]) -> String {
        json!({"reports": self.reports, "units": units}).to_string()
    }

    fn install(&self, version: &str, units: &[&str]) {
        let settings = self.settings(units);
        let package = package(version).write(self.home.folder());
        self.host.install(package, &Install { settings: Some(&settings), ..Install::default() }).expect("installed");
    }

    /// What the plugin reports for every asset from now on.
    fn report(&self, records: Value) {
        self.report_by_asset(json!({"*": {"records": records, "last_usage": "2026-03-01T00:00:00Z"}}));
    }

    fn report_by_asset(&self, reports: Value) {
        std::fs::write(&self.reports, reports.to_string()).expect("written");
    }

    fn refresh(&self, order: &Order) -> UsageRefreshed {
        refresh(&self.host, order)
    }

    /// Another host on the home, whose calls of the usage API may not take long.
    fn impatient_host(&self, settle_ms: u64) -> Host {
        let options = options().usage_api(impatient_api(&self.server.url(), settle_ms));
        Host::open_with(self.home.path(), options).expect("the home opens")
    }

    /// A run of a program of its own that refreshes an order's usage.
    fn accountant(&self, order: &Order) -> Command {
        let program = format!("accountant{}", std::env::consts::EXE_SUFFIX);
        let mut command = Command::new(crate::support::library("healthy").with_file_name(program));
        let order = serde_json::to_string(order).expect("JSON");
        command.arg(self.home.path()).arg(self.server.url()).arg(order);
        command
    }

    /// The documents of an order: each once, guided, and numbered without a gap from a number on.
    #[track_caller]
    fn check(&self, order: &str, first: u64, expected: &[(&str, &str)], context: &str) {
        let documents = self.server.documents(order);
        let mut found: Vec<(u64, String, String)> = documents
            .iter()
            .map(|document| {
                assert_eq!(document["status"], "guided", "{context}: {document}");
                let number = characteristic(document, "correlationNumber").parse().expect("a number");
                let text = |name| characteristic(document, name).to_owned();
                (number, text("unit"), text("value"))
            })
            .collect();
        found.sort();
        let numbered = |(index, (unit, value)): (usize, &(&str, &str))| {
            (first + index as u64, (*unit).to_owned(), (*value).to_owned())
        };
        let expected: Vec<_> = expected.iter().enumerate().map(numbered).collect();
        assert_eq!(found, expected, "{context}");
    }
}

fn refresh(host: &Host, order: &Order) -> UsageRefreshed {
    host.usage_refreshed(order, &order.contracts[0], &NoBundles).expect("it can be refreshed")
}

fn order_of(id: &str, assets: &[&str]) -> Order {
    let asset = |id: &str| Asset { id: id.to_owned(), resource_type: "Meter".to_owned(), ..Asset::default() };
    let offering = match assets {
        [one] => Offering { off_id: "offering".into(), asset: Some(asset(one)), ..Offering::default() },
        _ => Offering { off_id: "bundle".into(), ..Offering::default() },
    };
    let contract =
        Contract { item_id: "item-1".into(), product_id: Some("product-1".into()), offering, ..Contract::default() };
    Order {
        order_id: id.to_owned(),
        customer: User { username: "ada".into(), ..User::default() },
        contracts: vec![contract],
        ..Order::default()
    }
}

/// A bundle of assets that the plugin meters.
struct Bundle(Vec<&'static str>);

impl Catalogue for Bundle {
    fn bundled_offerings(&self, offering: &Offering) -> Result<Vec<Offering>, CatalogueError> {
        if offering.off_id != "bundle" {
            return Ok(Vec::new());
        }
        Ok(self.0.iter().map(|id| order_of("x", &[id]).contracts[0].offering.clone()).collect())
    }
}

fn record(day: u32, value: &str) -> Value {
    json!({"date": format!("2026-01-{day:02}T12:00:00Z"), "unit": "API call", "value": value})
}

fn three() -> Value {
    json!([record(1, "1"), record(2, "2.50"), record(3, "3")])
}

const THREE: [(&str, &str); 3] = [("API call", "1"), ("API call", "2.50"), ("API call", "3")];

#[test]
fn pending_usage_becomes_guided_documents_and_the_contract_gets_its_new_values() {
    let meter = Meter::new();
    meter.report(three());
    let mut order = order_of("order-1", &["asset-1"]);
    order.contracts[0].correlation_number = 7;
    let refreshed = meter.refresh(&order);
    assert_eq!((refreshed.sent, refreshed.unsent, &refreshed.failure), (3, 0, &None));
    assert_eq!(refreshed.correlation_number, 10, "it goes on where the contract was");
    assert_eq!(refreshed.last_usage.as_ref().map(|date| date.as_str()), Some("2026-03-01T00:00:00Z"));
    let outcome = refreshed.outcomes[0].result.as_ref().expect("it went through");
    assert_eq!((outcome.recorded, outcome.known), (3, 0));
    assert_eq!(outcome.changes.meta_info.as_ref().map(|json| json.as_str()), Some("\"metered\""));

    meter.check("order-1", 7, &THREE, "the first refresh");
    let specification = meter.server.specification("API call").expect("it was made");
    let mut document = meter.server.documents("order-1").remove(0);
    document["id"] = Value::Null;
    document["href"] = Value::Null;
    assert_eq!(
        document,
        json!({
            "date": "2026-01-01T12:00:00Z",
            "type": "event",
            "status": "guided",
            "usageSpecification":
                {"id": specification["id"], "href": specification["href"], "name": "API call"},
            "usageCharacteristic": [
                {"name": "orderId", "value": "order-1"},
                {"name": "productId", "value": "product-1"},
                {"name": "correlationNumber", "value": "7"},
                {"name": "unit", "value": "API call"},
                {"name": "value", "value": "1"},
            ],
            "relatedParty": [{"role": "customer", "id": "ada"}],
            "id": null,
            "href": null,
        })
    );
    // The contract's own number may be behind, if the backend lost what it was told.
    meter.report(json!([record(4, "4")]));
    let refreshed = meter.refresh(&order);
    assert_eq!(refreshed.correlation_number, 11);
    meter.check("order-1", 7, &[THREE.as_slice(), &[("API call", "4")]].concat(), "the second refresh");
}

#[test]
fn a_unit_is_found_however_its_case_is() {
    let meter = Meter::new();
    let with_unit = |unit: &str| json!({"date": "2026-01-01T12:00:00Z", "unit": unit, "value": "1", "id": unit});
    meter.report(json!([with_unit("api call"), with_unit("API CALL"), with_unit("MegaByte")]));
    let refreshed = meter.refresh(&order_of("order-1", &["a"]));
    assert_eq!(refreshed.failure, None);
    meter.check("order-1", 0, &[("API call", "1"), ("API call", "1"), ("Megabyte", "1")], "any case");
}

#[test]
fn identical_records_are_charged_each_and_reported_again_not_at_all() {
    let meter = Meter::new();
    meter.report(json!([record(1, "5"), record(1, "5")]));
    meter.refresh(&order_of("twins", &["a"]));
    meter.check("twins", 0, &[("API call", "5"); 2], "two that are genuine");

    // The same moment, number and unit, written otherwise, and one that is new.
    let again = json!([
        {"date": "2026-01-01T13:00:00+01:00", "unit": "api CALL", "value": "5.0"},
        {"date": "2026-01-01T12:00:00.000Z", "unit": "API call", "value": "05"},
        record(1, "5"),
    ]);
    meter.report(again);
    let refreshed = meter.refresh(&order_of("twins", &["a"]));
    assert_eq!(refreshed.outcomes[0].result.as_ref().map(|usage| (usage.recorded, usage.known)), Ok((1, 2)));
    assert_eq!(refreshed.correlation_number, 3);
    meter.check("twins", 0, &[("API call", "5"); 3], "reported again");

    // With ids, it is the id that tells.
    let with_id =
        |id: &str, value: &str| json!({"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": value, "id": id});
    meter.report(json!([with_id("a", "1"), with_id("b", "1"), with_id("a", "1")]));
    meter.refresh(&order_of("ids", &["a"]));
    meter.report(json!([with_id("b", "1"), with_id("c", "1"), with_id("a", "9")]));
    meter.refresh(&order_of("ids", &["a"]));
    meter.check("ids", 0, &[("API call", "1"); 3], "a, b and c");
    // Another contract's are its own.
    meter.refresh(&order_of("others", &["a"]));
    assert_eq!(meter.server.documents("others").len(), 3);
}

#[test]
fn a_report_that_is_not_right_is_refused_as_a_whole_and_holds_up_no_other_asset() {
    let meter = Meter::new();
    let wrong = |field: &str, value: Value| {
        let mut wrong = record(2, "1");
        wrong[field] = value;
        json!([record(1, "1"), wrong])
    };
    let twice = json!([
        {"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": "1", "id": "x"},
        {"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": "2", "id": "x"},
    ]);
    for (records, expected) in [
        (
            wrong("unit", json!("Page")),
            "record 2 has the unit \"Page\", which was not declared (declared: API call, Megabyte)",
        ),
        (wrong("id", json!("")), "record 2 has an empty id"),
        (wrong("id", json!("x".repeat(2000))), "record 2 has an id of 2000 bytes"),
        (twice, "two different records have the id \"x\""),
        (wrong("date", json!("yesterday")), "no RFC 3339 date"),
        (wrong("value", json!("1e3")), "no decimal number"),
    ] {
        let right = json!({"records": [record(9, "9")], "last_usage": "2026-01-09T12:00:00Z"});
        meter.report_by_asset(json!({"a": {"records": records, "last_usage": null}, "b": right}));
        let order = order_of(expected, &[]);
        let (contract, bundle) = (&order.contracts[0], Bundle(vec!["a", "b", "down"]));
        let refreshed = meter.host.usage_refreshed(&order, contract, &bundle).expect("it can be refreshed");
        let results: Vec<_> = refreshed.outcomes.iter().map(|outcome| outcome.result.as_ref()).collect();
        if expected.contains("record") || expected.contains("declared") {
            let refusal = results[0].expect_err("refused");
            assert!(refusal.message().contains(expected), "{refusal}");
            assert_eq!((refusal.status(), refusal.asset(), refusal.plugin()), (422, Some("a"), Some("meter")));
            assert!(results[1].is_ok() && results[2].is_err());
            meter.check(expected, 0, &[("API call", "9")], "the other asset's");
        } else {
            // The plugin itself stumbles over its file, which concerns all its assets.
            assert!(results.iter().all(|result| result.is_err()), "{results:?}");
        }
    }
}

#[test]
fn two_assets_that_give_different_records_one_id_lose_none_of_them() {
    let meter = Meter::new();
    let with_id =
        |value: &str| json!([{"date": "2026-01-01T12:00:00Z", "unit": "API call", "value": value, "id": "1"}]);
    let report = |records: Value| json!({"records": records});
    meter.report_by_asset(json!({"a": report(with_id("1")), "b": report(with_id("2")), "c": report(with_id("1.0"))}));
    let order = order_of("order-1", &[]);
    let bundle = Bundle(vec!["a", "b", "c"]);
    let refreshed = meter.host.usage_refreshed(&order, &order.contracts[0], &bundle).expect("it can be refreshed");
    let refusal = refreshed.outcomes[1].result.as_ref().expect_err("it clashes");
    assert!(
        refusal.message().contains("another asset of the contract has another record with the id \"1\""),
        "{refusal}"
    );
    assert_eq!(refreshed.outcomes[2].result.as_ref().map(|usage| usage.known), Ok(1), "the same record by two ways");
    meter.check("order-1", 0, &[("API call", "1")], "the first asset's");
}

#[test]
fn what_a_contract_lacks_is_refused_and_nothing_is_recorded() {
    let meter = Meter::new();
    meter.report(three());
    let mut order = order_of("order-1", &["a"]);
    order.contracts[0].product_id = None;
    let refused = |order: &Order| {
        meter.host.usage_refreshed(order, &order.contracts[0], &NoBundles).expect_err("refused").to_string()
    };
    let of_item = |lacks: &str| {
        format!("item \"item-1\" of order \"order-1\" has no {lacks} yet: usage documents have to name one")
    };
    assert_eq!(refused(&order), of_item("product"));
    let mut order = order_of("order-1", &["a"]);
    order.customer.username.clear();
    assert_eq!(refused(&order), of_item("customer"));
    let mut order = order_of("order-2", &["a"]);
    order.contracts[0].correlation_number = u64::MAX;
    assert!(refused(&order).contains("the correlation number 18446744073709551615 is larger than"));
    assert_eq!(meter.server.documents("order-2").len(), 0);

    let without = meter.home.host();
    let order = order_of("order-3", &["a"]);
    let error = without.usage_refreshed(&order, &order.contracts[0], &NoBundles).expect_err("no usage API");
    assert!(matches!(error, UsageError::NoUsageApi), "{error}");
    assert!(matches!(without.reconcile(), Err(UsageError::NoUsageApi)));
    assert!(matches!(without.start_reconciler(), Err(UsageError::NoUsageApi)));
    // An asset without a plugin is an outcome, and the contract's others go on.
    let mut unknown = order_of("order-4", &["a"]);
    unknown.contracts[0].offering.asset = Some(Asset { resource_type: "Nobody's".into(), ..Asset::default() });
    assert_eq!(meter.refresh(&unknown).outcomes[0].result.as_ref().expect_err("no plugin").status(), 422);
}

#[test]
fn a_record_that_is_refused_holds_up_no_other_and_stays() {
    let meter = Meter::new();
    meter.report(three());
    let order = order_of("order-1", &["a"]);
    meter.server.fail(&[(2, Fault::Answer(422))]);
    let refreshed = meter.refresh(&order);
    assert_eq!((refreshed.sent, refreshed.unsent), (2, 1));
    assert!(
        matches!(&refreshed.failure, Some(UsageApiError::Refused(message)) if message.contains("as the test says"))
    );
    assert_eq!(meter.host.show("meter").expect("installed").unsent_usage, 1);
    meter.home.run(&["removeplugin", "meter"]).failed_with(&["meter reported 1 usage record", "reconcile sends it"]);

    // A plugin that is removed nevertheless takes its unsent usage with it nowhere: it is sent.
    meter.server.fail(&[]);
    meter.home.run(&["removeplugin", "meter", "--force"]).succeeded();
    let reconciled = meter.host.reconcile().expect("it can be reconciled");
    assert_eq!((reconciled.sent, reconciled.unsent), (1, 0));
    meter.check("order-1", 0, &THREE, "after the removal");
    let reconciled = meter.host.reconcile().expect("it can be reconciled");
    assert_eq!((reconciled.deleted, meter.server.specifications().len()), (1, 0), "its unit was needed until then");
}

#[test]
fn usage_that_was_reported_before_a_plugin_was_removed_is_not_charged_after_it_is_back() {
    let meter = Meter::new();
    meter.report(three());
    meter.refresh(&order_of("order-1", &["a"]));
    meter.host.remove("meter", false).expect("removed");
    meter.install("2.0", &["API call"]);
    let refreshed = meter.refresh(&order_of("order-1", &["a"]));
    assert_eq!((refreshed.sent, refreshed.correlation_number), (0, 3));
    meter.check("order-1", 0, &THREE, "after it was installed again");
}

#[test]
fn the_usage_of_an_asset_that_failed_is_not_skipped_because_another_went_on() {
    let meter = Meter::new();
    let settings = json!({"reports": meter.reports, "units": ["API call"], "only_later": true}).to_string();
    meter.host.set_settings("meter", &settings).expect("they fit");
    let mut order = order_of("order-1", &[]);
    let bundle = Bundle(vec!["a", "b"]);
    let mut refresh = |reports: Value| {
        meter.report_by_asset(reports);
        let refreshed = meter.host.usage_refreshed(&order, &order.contracts[0], &bundle).expect("it can be refreshed");
        order.contracts[0].last_usage = refreshed.last_usage.clone();
        order.contracts[0].correlation_number = refreshed.correlation_number;
        refreshed
    };
    let until = |day: u32, records: &[u32]| {
        let records: Vec<Value> = records.iter().map(|day| record(*day, &day.to_string())).collect();
        json!({"records": records, "last_usage": format!("2026-01-{day:02}T12:00:00Z")})
    };
    refresh(json!({"a": until(2, &[2]), "b": until(1, &[1])}));
    // The meter of b is down, and that of a goes on to the tenth.
    let refreshed = refresh(json!({"a": until(10, &[2, 10])}));
    assert!(refreshed.outcomes[1].result.is_err());
    // b's usage of the fifth is older than the contract's last usage, and counts.
    let refreshed = refresh(json!({"a": until(10, &[2, 10]), "b": until(5, &[1, 5])}));
    assert_eq!(refreshed.last_usage.expect("there is one").as_str(), "2026-01-10T12:00:00Z");
    let expected = [("API call", "2"), ("API call", "1"), ("API call", "10"), ("API call", "5")];
    meter.check("order-1", 0, &expected, "all usage of both");
}

#[test]
fn a_bundle_counts_each_asset_and_contracts_of_one_order_are_numbered_together_by_product() {
    let meter = Meter::new();
    meter.report(json!([record(1, "1")]));
    let order = order_of("order-1", &[]);
    let both = Bundle(vec!["a", "b"]);
    let refreshed = meter.host.usage_refreshed(&order, &order.contracts[0], &both).expect("it can be refreshed");
    assert_eq!((refreshed.sent, refreshed.correlation_number), (2, 2), "records without ids are each asset's own");
    let mut second = order.contracts[0].clone();
    second.item_id = "item-2".to_owned();
    let refreshed = meter.host.usage_refreshed(&order, &second, &both).expect("it can be refreshed");
    assert_eq!((refreshed.sent, refreshed.correlation_number), (2, 4), "another item, the same product");
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for document in meter.server.documents("order-1") {
        *numbers.entry(characteristic(&document, "correlationNumber").to_owned()).or_default() += 1;
    }
    assert_eq!(numbers.len(), 4);
}
