//! The hooks, called without a host.

use std::io::Write;

use billhook_plugin_api::{Asset, Contract, ErrorKind, Json, Order, Plugin, PluginError, Services, data, testing};
use serde_json::json;

use super::{Grant, TestResource};

fn plugin() -> (TestResource, Services) {
    plugin_with(json!({}))
}

fn plugin_with(settings: serde_json::Value) -> (TestResource, Services) {
    let services = testing::services().with_settings(&settings.to_string()).build();
    (TestResource::new(services.clone()).expect("the settings are right"), services)
}

fn asset(meta_info: serde_json::Value) -> data::Asset {
    data::Asset { meta_info: meta_info.into(), ..testing::asset("Test Resource") }
}

fn kind<T>(answer: Result<T, PluginError>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}

#[test]
fn sells_https_addresses_with_a_known_media_type() {
    let settings = json!({"blocked_sellers": ["eve"], "allowed_hosts": ["api.example"]});
    let (plugin, _) = plugin_with(settings);
    for (seller, media_type, url, expected) in [
        ("acme", "application/json", "https://api.example/v1", None),
        ("acme", "Application/ZIP", "https://api.example:8443", None),
        ("eve", "application/json", "https://api.example/v1", Some(ErrorKind::Forbidden)),
        ("acme", "application/json", "https://other.example/v1", Some(ErrorKind::Forbidden)),
        ("acme", "application/json", "http://api.example/v1", Some(ErrorKind::Invalid)),
        ("acme", "application/json", "https://", Some(ErrorKind::Invalid)),
        ("acme", "text/html", "https://api.example/v1", Some(ErrorKind::Invalid)),
    ] {
        let seller = data::User { username: seller.into(), ..data::User::default() };
        let answer = testing::with_user(&seller, |seller| {
            plugin.on_pre_product_spec_validation(seller, "Test Resource", media_type, url)
        });
        assert_eq!(kind(answer), expected, "{media_type} {url}");
    }
}

#[test]
fn writes_the_defaults_of_the_form_onto_the_asset() {
    let (plugin, _) = plugin();
    let seller = data::User::default();
    let validate = |meta_info| {
        testing::with_asset(&asset(meta_info), |asset| {
            testing::with_user(&seller, |seller| plugin.on_post_product_spec_validation(seller, asset))
        })
    };

    let (answer, changes) = validate(json!({}));
    answer.expect("defaults are enough");
    assert_eq!(changes.meta_info.expect("written").as_str(), r#"{"auth_type":"key","token_required":true}"#);
    assert_eq!(changes.content_type.as_deref(), Some("application/json"));

    let (answer, changes) = validate(json!({"auth_type": "oauth2"}));
    assert_eq!(kind(answer), Some(ErrorKind::Invalid));
    assert!(changes.is_empty());
    assert_eq!(kind(validate(json!({"auth_type": "magic"})).0), Some(ErrorKind::BadValue));
}

#[test]
fn accounts_for_api_calls_and_for_nothing_else() {
    let (plugin, _) = plugin();
    let price = |unit: serde_json::Value| json!({"productOfferingPrice": [{"name": "p", "priceType": "usage", "unitOfMeasure": unit}]});
    for (offering, expected) in [
        (json!({}), None),
        (json!({"productOfferingPrice": [{"priceType": "recurring"}]}), None),
        (price(json!("api CALL")), None),
        (price(json!({"amount": 1.0, "units": "API call"})), None),
        (price(json!("GB")), Some(ErrorKind::Invalid)),
        (json!({"productOfferingPrice": [{"priceType": "usage"}]}), Some(ErrorKind::Invalid)),
        (json!("offering"), Some(ErrorKind::BadValue)),
    ] {
        let offering = Json::from(offering);
        let (answer, _) =
            testing::with_asset(&asset(json!({})), |asset| plugin.on_pre_product_offering_validation(asset, &offering));
        assert_eq!(kind(answer), expected, "{offering}");
    }
}

/// Calls a hook about an asset of an item of an order.
fn call(
    plugin: &TestResource,
    hook: fn(&TestResource, &mut Asset, &Contract, &Order) -> Result<(), PluginError>,
    asset: &data::Asset,
    order: &data::Order,
    item: &str,
) -> Result<(), PluginError> {
    let answer = testing::with_asset(asset, |asset| {
        testing::with_order(order, |order| {
            hook(plugin, asset, &order.get_item_contract(item).expect("it is there"), order)
        })
    });
    answer.0
}

#[test]
fn gives_access_on_acquisition_and_withdraws_it_on_suspension() {
    let (plugin, services) = plugin();
    let (order, asset) = (testing::order("order-7", "ada"), asset(json!({})));
    let key = format!("grant/{}", json!(["order-7", "item-1", asset.id]));
    let grant = || services.state().get::<Grant>(&key).expect("readable");
    let call = |hook| call(&plugin, hook, &asset, &order, "item-1");

    assert_eq!(kind(call(TestResource::on_product_suspension)), Some(ErrorKind::NotFound));
    for _ in 0..2 {
        call(TestResource::on_product_acquisition).expect("access is given, however often");
        assert!(grant().expect("kept").active);
    }
    call(TestResource::on_product_suspension).expect("access is withdrawn");
    assert!(!grant().expect("kept").active);
}

#[test]
fn keeps_a_grant_for_each_asset_of_each_item_of_each_order() {
    let (plugin, services) = plugin();
    let of = |id: &str| data::Asset { id: id.to_owned(), ..asset(json!({})) };
    let mut order = testing::order("order/7", "ada");
    let second = data::Contract { item_id: "1/item-1".to_owned(), ..order.contracts[0].clone() };
    order.contracts.push(second);
    // The same asset in two items, two assets in one, and ids that read alike when they are put one behind the other.
    let all = [("a", "item-1"), ("b", "item-1"), ("a", "1/item-1"), ("item-1/a", "item-1")];
    for (asset, item) in all {
        call(&plugin, TestResource::on_product_acquisition, &of(asset), &order, item).expect("access is given");
    }
    for (count, (asset, item)) in all.into_iter().enumerate() {
        call(&plugin, TestResource::on_product_suspension, &of(asset), &order, item).expect("access is withdrawn");
        for (index, (asset, item)) in all.into_iter().enumerate() {
            let key = format!("grant/{}", json!(["order/7", item, asset]));
            let grant = services.state().get::<Grant>(&key).expect("readable").expect("kept");
            assert_eq!(grant.active, index > count, "{asset} of {item} after {count}");
        }
    }
    call(&plugin, TestResource::on_product_acquisition, &of("b"), &order, "item-1").expect("it is given again");
}

#[test]
fn finds_a_grant_that_the_first_version_kept() {
    let (plugin, services) = plugin();
    let (order, asset) = (testing::order("order-7", "ada"), asset(json!({})));
    let url = asset.url.clone().or(asset.download_link.clone()).expect("an address");
    let old = Grant { customer: "ada".to_owned(), url, active: true };
    services.state().keep("grant/order-7/item-1", &old).expect("kept");
    let other = data::Asset {
        id: "other".to_owned(),
        url: Some("https://other.example".to_owned()),
        download_link: Some("https://other.example".to_owned()),
        ..asset.clone()
    };
    let suspend = |asset: &data::Asset| call(&plugin, TestResource::on_product_suspension, asset, &order, "item-1");
    assert_eq!(kind(suspend(&other)), Some(ErrorKind::NotFound), "it is another asset's");
    suspend(&asset).expect("access is withdrawn");
}

#[test]
fn reports_each_call_of_the_contract_since_its_last_usage() {
    let mut log = tempfile::NamedTempFile::new().expect("a temporary file");
    for (id, date, order, calls) in [
        ("c", "2026-03-03T00:00:00Z", "order-7", 3),
        ("a", "2026-03-01T00:00:00Z", "order-7", 1),
        ("b", "2026-03-02T01:00:00+01:00", "order-7", 2),
        ("x", "2026-03-02T00:00:00Z", "order-8", 9),
    ] {
        writeln!(log, "{}", json!({"id": id, "date": date, "order": order, "item": "item-1", "calls": calls}))
            .expect("written");
    }
    let (plugin, _) = plugin_with(json!({"usage_log": log.path()}));
    let mut order = testing::order("order-7", "ada");
    order.contracts[0].last_usage = Some("2026-03-01T00:00:00Z".to_owned().try_into().expect("a date"));

    let (answer, _) = testing::with_asset(&asset(json!({})), |asset| {
        testing::with_order(&order, |order| {
            plugin.get_pending_accounting(asset, &order.contracts().next().expect("one"), order)
        })
    });
    let pending = answer.expect("the log is right");
    let ids: Vec<_> = pending.records.iter().filter_map(|record| record.id.as_deref()).collect();
    assert_eq!(ids, ["b", "c"]);
    assert_eq!(pending.last_usage.expect("there was usage").as_str(), "2026-03-03T00:00:00Z");
}
