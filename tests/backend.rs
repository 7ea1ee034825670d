//! The life-cycle functions, called as a backend calls them. Several tests are named after what the Business API Ecosystem's
//! own host got wrong.

use std::{collections::HashMap, fs, path::PathBuf};

use billhook::{
    AroundError, BeginError, Catalogue, CatalogueError, ErrorKind, Host, Install, Json, NoBundles,
    ProductSpecValidation,
    data::{Asset, Contract, Offering, Order, User},
    package::Format,
};
use serde_json::{Value, json};

use crate::support::{Home, Package, order};

/// A home with two plugins that record their calls, and a backend's assets and bundles.
struct Backend {
    home: Home,
    host: Host,
    log: PathBuf,
    bundled_assets: HashMap<String, Vec<Asset>>,
    bundled_offerings: HashMap<String, Vec<Offering>>,
}

impl Catalogue for Backend {
    fn bundled_assets(&self, asset: &Asset) -> Result<Vec<Asset>, CatalogueError> {
        Ok(self.bundled_assets.get(&asset.id).cloned().unwrap_or_default())
    }

    fn bundled_offerings(&self, offering: &Offering) -> Result<Vec<Offering>, CatalogueError> {
        Ok(self.bundled_offerings.get(&offering.off_id).cloned().unwrap_or_default())
    }
}

fn backend() -> Backend {
    let home = Home::new();
    let host = home.host();
    let log = home.folder().join("calls");
    for name in ["File", "Service"] {
        let form = json!({"plan": {"type": "text", "default": "basic"}, "key": {"type": "text", "mandatory": true}});
        let package = Package::new(name).of("recorder").field("form", form);
        let package = package.field("media_types", json!(["Application/JSON"])).write(home.folder());
        let settings = json!({"log": log}).to_string();
        host.install(package, &Install { settings: Some(&settings), ..Install::default() }).expect("installed");
    }
    let _ = fs::remove_file(&log);
    Backend { home, host, log, bundled_assets: HashMap::new(), bundled_offerings: HashMap::new() }
}

impl Backend {
    /// The calls since this was asked last.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let _ = fs::remove_file(&self.log);
        text.lines().map(str::to_owned).collect()
    }

    /// Makes hooks of a plugin refuse from now on.
    fn refuse(&self, plugin: &str, hooks: &[&str]) {
        let settings = json!({"log": self.log, "refuse": hooks}).to_string();
        self.host.set_settings(plugin, &settings).expect("they fit");
    }

    fn validate(
        &self,
        format: Format,
        media_type: &str,
        meta_info: Value,
        work: impl FnOnce(&Json<'static>) -> Result<(&'static str, Asset), String>,
    ) -> Result<billhook::Done<&'static str>, AroundError<&'static str, String>> {
        let (provider, meta_info) = (User { username: "acme".into(), ..User::default() }, meta_info.into());
        let new = ProductSpecValidation {
            provider: &provider,
            asset_t: "Service",
            format,
            media_type,
            url: "https://acme.example",
            meta_info: &meta_info,
        };
        self.host.product_spec_validation(&new, work)
    }
}

fn asset(id: &str, kind: &str) -> Asset {
    Asset { id: id.to_owned(), resource_type: kind.to_owned(), ..Asset::default() }
}

fn offering(id: &str, asset: Option<Asset>) -> Offering {
    Offering { off_id: id.to_owned(), asset, ..Offering::default() }
}

fn no_spec() -> Json<'static> {
    Json::default()
}

#[test]
fn an_asset_goes_through_its_whole_life() {
    let backend = backend();
    let host = &backend.host;
    let validated = backend
        .validate(Format::Url, "application/json", json!({"key": "k"}), |meta_info| {
            let asset = Asset { meta_info: meta_info.clone(), ..asset("a", "Service") };
            Ok(("created", asset))
        })
        .expect("it goes through");
    assert_eq!(validated.result, "created");
    assert_eq!(validated.changes.content_type.as_deref(), Some("text/validated"));

    let mut asset = asset("a", "Service");
    let attached = host.product_spec_attachment(&asset, &no_spec(), &NoBundles, |changes| {
        let mut attached = asset.clone();
        changes.clone().apply(&mut attached);
        attached.product_id = Some("product-1".to_owned());
        Ok::<_, String>((attached.clone(), attached))
    });
    asset = attached.expect("it goes through").result;
    assert_eq!(asset.content_type.as_deref(), Some("text/attaching"), "what the pre hook changed is saved with it");

    let upgraded = host.product_spec_upgrade(&asset, &no_spec(), &NoBundles, |_| Ok::<_, String>(((), asset.clone())));
    upgraded.expect("it goes through");
    let offered = host
        .product_offering_validation(&offering("o", Some(asset.clone())), &no_spec(), &NoBundles, |assets| {
            assert_eq!(assets[0].asset.meta_info.as_str(), r#"["pre"]"#);
            Ok::<_, String>("priced")
        })
        .expect("it goes through");
    assert_eq!(
        (offered.result, offered.changes[0].changes.meta_info.as_ref().map(Json::as_str)),
        ("priced", Some(r#"["pre","post"]"#))
    );

    let order = order_of(offering("o", Some(asset)));
    let outcomes = host.product_acquired(&order, &order.contracts[0], &NoBundles).expect("no bundles");
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    host.product_suspended(&order, &order.contracts[0], &NoBundles).expect("no bundles");
    let expected = [
        "pre validation -",
        "post validation a",
        "pre attachment a",
        "post attachment to product-1 of a",
        "pre upgrade a",
        "post upgrade a",
        "pre offering a",
        "post offering a",
        "acquisition a",
        "suspension a",
    ];
    assert_eq!(backend.calls(), expected.map(|call| format!("service {call}")));
}

fn order_of(offering: Offering) -> Order {
    Order { contracts: vec![Contract { item_id: "item-1".into(), offering, ..Contract::default() }], ..order() }
}

#[test]
fn what_the_manifest_does_not_allow_is_refused_before_any_hook() {
    let backend = backend();
    for (format, media_type, meta_info, expected) in [
        (Format::File, "application/json", json!({"key": "k"}), "provided as URL, not as FILE"),
        (Format::Url, "text/html", json!({"key": "k"}), "can't have the media type \"text/html\""),
        (Format::Url, "application/json", json!({}), "mandatory and empty: key"),
        (Format::Url, "application/json", json!([]), "has to be an object"),
    ] {
        let refused = backend.validate(format, media_type, meta_info, |_| panic!("the work must not run"));
        let Err(AroundError::Begin(BeginError::Refused(refusal))) = refused else { panic!("{refused:?}") };
        assert!(refusal.message().contains(expected), "{refusal}");
        assert_eq!(refusal.plugin(), Some("service"));
    }
    assert_eq!(backend.calls(), [""; 0]);
    let mut given = Json::default();
    let done = backend.validate(Format::Url, "APPLICATION/json", json!({"key": "k"}), |meta_info| {
        given = meta_info.clone();
        Ok(("found", asset("a", "Service")))
    });
    done.expect("media types are equal regardless of case");
    assert_eq!(given.as_str(), r#"{"key":"k","plan":"basic"}"#, "the form's defaults are filled in");
}

#[test]
fn a_refusal_before_keeps_the_work_from_running_and_a_failure_of_it_the_post_hook() {
    let backend = backend();
    let valid = || (Format::Url, "application/json", json!({"key": "k"}));
    let (format, media_type, meta_info) = valid();
    let failed = backend.validate(format, media_type, meta_info, |_| Err("the database is down".to_owned()));
    assert!(matches!(failed, Err(AroundError::Work(error)) if error == "the database is down"));
    assert_eq!(backend.calls(), ["service pre validation -"]);

    backend.refuse("service", &["pre validation"]);
    let (format, media_type, meta_info) = valid();
    let refused = backend.validate(format, media_type, meta_info, |_| panic!("the work must not run"));
    let Err(AroundError::Begin(BeginError::Refused(refusal))) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (refusal.kind(), refusal.status(), refusal.message()),
        (ErrorKind::Conflict, 409, "pre validation refuses")
    );
}

#[test]
fn a_failing_post_validation_tells_what_the_work_did_so_that_nothing_older_is_deleted() {
    let backend = backend();
    backend.refuse("service", &["post validation"]);
    for did in ["found", "created"] {
        let refused = backend
            .validate(Format::Url, "application/json", json!({"key": "k"}), |_| Ok((did, asset("a", "Service"))));
        let Err(AroundError::RefusedAfter { refusal, result }) = refused else { panic!("{refused:?}") };
        assert_eq!((result, refusal.asset()), (did, Some("a")), "a backend deletes what it created, and only that");
    }
}

#[test]
fn an_asset_is_not_locked_after_an_upgrade_hook_refused() {
    let backend = backend();
    let own = asset("a", "Service");
    let upgrade =
        || backend.host.product_spec_upgrade(&own, &no_spec(), &NoBundles, |_| Ok::<_, String>(("saved", own.clone())));
    for hook in ["pre upgrade", "post upgrade"] {
        backend.refuse("service", &[hook]);
        upgrade().expect_err("refused");
        backend.refuse("service", &[]);
        upgrade().expect("it can be upgraded again");
    }
}

#[test]
fn every_asset_of_an_offering_gets_its_own_plugins_hooks() {
    let mut backend = backend();
    backend.bundled_assets.insert("pack".into(), vec![asset("a", "File"), asset("b", "Service")]);
    let parts = vec![offering("first", Some(asset("pack", "File"))), offering("second", Some(asset("c", "File")))];
    backend.bundled_offerings.insert("all".into(), parts);
    let bundle = offering("all", None);

    let done = backend.host.product_offering_validation(&bundle, &no_spec(), &backend, |_| Ok::<_, String>(()));
    let ids: Vec<String> = done.expect("it goes through").changes.into_iter().map(|changed| changed.asset.id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let expected = [
        "file pre offering a",
        "service pre offering b",
        "file pre offering c",
        "file post offering a",
        "service post offering b",
        "file post offering c",
    ];
    assert_eq!(backend.calls(), expected);

    // A bundle is not attached or upgraded itself.
    let pack = asset("pack", "File");
    let attached =
        backend.host.product_spec_attachment(&pack, &no_spec(), &backend, |_| Ok::<_, String>(((), pack.clone())));
    attached.expect("only the work runs");
    assert_eq!(backend.calls(), [""; 0]);

    backend.bundled_offerings.insert("second".into(), vec![bundle.clone()]);
    let cycle = backend.host.product_offering_validation(&bundle, &no_spec(), &backend, |_| Ok::<_, String>(()));
    let error = cycle.expect_err("a cycle").to_string();
    assert_eq!(error, "the bundle offering all holds itself: offering all → offering second → offering all");
}

#[test]
fn acquisition_and_suspension_reach_every_asset_and_one_failure_hides_no_other() {
    let mut backend = backend();
    let parts = ["a", "b", "c"].map(|id| offering(id, Some(asset(id, if id == "b" { "File" } else { "Service" }))));
    let unknown = offering("d", Some(asset("d", "Nobody's")));
    backend.bundled_offerings.insert("all".into(), parts.into_iter().chain([unknown]).collect());
    backend.refuse("service", &["acquisition a"]);
    let order = order_of(offering("all", None));
    backend.calls();

    let outcomes = backend.host.product_acquired(&order, &order.contracts[0], &backend).expect("no cycle");
    let answers: Vec<_> =
        outcomes.iter().map(|outcome| outcome.result.as_ref().map_err(|error| error.status())).collect();
    let acquired = billhook::data::AssetChanges::default();
    assert_eq!(answers[0], Err(409));
    assert!(answers[1].is_ok_and(|changes| *changes != acquired) && answers[2].is_ok());
    assert_eq!(answers[3], Err(422), "an unknown type is an outcome too");
    assert_eq!(backend.calls(), ["service acquisition a", "file acquisition b", "service acquisition c"]);
    let outcomes = backend.host.product_suspended(&order, &order.contracts[0], &backend).expect("no cycle");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.result.is_ok()).count(), 3);
}

#[test]
fn a_plugin_whose_assets_are_in_use_is_not_removed() {
    let backend = backend();
    let attach = |id: &str| {
        let mut own = asset(id, "Service");
        own.product_id = Some("p".to_owned());
        let work = own.clone();
        backend.host.product_spec_attachment(&own, &no_spec(), &NoBundles, move |_| Ok::<_, String>(((), work)))
    };
    attach("a").expect("attached");
    attach("a").expect("attaching again is no second use");
    attach("b").expect("attached");
    backend.refuse("service", &["post attachment to p of c"]);
    attach("c").expect_err("refused, and so not in use");

    let remove = |arguments: &[&str]| backend.home.run(&[&["removeplugin", "service"], arguments].concat());
    remove(&[]).failed_with(&["service is used by 2 assets", "--force"]);
    assert!(backend.host.release_asset("a").expect("released"));
    assert!(!backend.host.release_asset("a").expect("nothing left to release"));
    remove(&[]).failed_with(&["service is used by 1 asset"]);
    assert_eq!(backend.host.show("service").expect("installed").assets_in_use, 1);
    // Attached anew with another type, it is in use with the other plugin.
    let other = asset("b", "File");
    let moved = other.clone();
    let attached =
        backend.host.product_spec_attachment(&other, &no_spec(), &NoBundles, move |_| Ok::<_, String>(((), moved)));
    attached.expect("attached");
    assert_eq!(backend.host.show("service").expect("installed").assets_in_use, 0);
    backend.home.run(&["removeplugin", "file"]).failed_with(&["file is used by 1 asset"]);
    backend.host.release_asset("b").expect("released");
    attach("a").expect("attached");
    remove(&["--force"]).succeeded();
    backend.home.run(&["removeplugin", "file"]).succeeded();
}

#[test]
fn a_token_that_is_dropped_runs_no_post_hook_and_one_that_is_finished_does() {
    let backend = backend();
    let (own, spec) = (asset("a", "Service"), no_spec());
    drop(backend.host.begin_product_spec_upgrade(&own, &spec, &NoBundles).expect("begun"));
    assert_eq!(backend.calls(), ["service pre upgrade a"]);
    let begun = backend.host.begin_product_spec_attachment(&own, &spec, &NoBundles).expect("begun");
    assert_eq!(begun.changes().content_type.as_deref(), Some("text/attaching"));
    begun.finish(&own).expect("finished");
    let begun =
        backend.host.begin_product_offering_validation(&offering("o", Some(own)), &spec, &NoBundles).expect("begun");
    assert_eq!(begun.finish().expect("finished").len(), 1);
    let expected = ["pre attachment a", "post attachment to no product of a", "pre offering a", "post offering a"];
    assert_eq!(backend.calls(), expected.map(|call| format!("service {call}")));
}
