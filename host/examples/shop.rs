//! A small charging backend that embeds billhook: it keeps its assets and offerings in memory, and lets plugins have their say
//! at every step of an asset's life.
//!
//! Run it with a plugin's package: `cargo run --example shop -- test-resource-1.0.zip`.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::Write,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use billhook::{
    AroundError, Catalogue, CatalogueError, FoundSpecification, FoundUsageDocument, Host, HostOptions, Install, Json,
    NewSpecification, NewUsageDocument, ProductSpecValidation, SpecificationRef, UsageApi, UsageApiError,
    data::{Asset, Contract, Offering, Order, User},
    package::Format,
};

fn main() -> ExitCode {
    // First thing: packages are tried in a child process, which is this program again.
    billhook::run_child_process();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the backend keeps; a real one has a database.
#[derive(Default)]
struct Shop {
    assets: BTreeMap<String, Asset>,
    offerings: BTreeMap<String, Offering>,
    /// Which offerings a bundle is made of.
    bundles: BTreeMap<String, Vec<String>>,
}

/// What the host asks about bundles.
impl Catalogue for Shop {
    fn bundled_offerings(&self, offering: &Offering) -> Result<Vec<Offering>, CatalogueError> {
        let parts = self.bundles.get(&offering.off_id).into_iter().flatten();
        let known =
            |id: &String| self.offerings.get(id).cloned().ok_or_else(|| format!("there is no offering {id}").into());
        parts.map(known).collect()
    }
}

/// Where usage is accounted. A backend with a usage API over HTTP takes `HttpUsageApi` instead.
#[derive(Default)]
struct Usage(Mutex<UsageTables>);

#[derive(Default)]
struct UsageTables {
    specifications: Vec<FoundSpecification>,
    documents: Vec<FoundUsageDocument>,
}

impl Usage {
    fn tables(&self) -> MutexGuard<'_, UsageTables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsageApi for Usage {
    fn create_specification(&self, new: &NewSpecification<'_>) -> Result<SpecificationRef, UsageApiError> {
        let specifications = &mut self.tables().specifications;
        // Never one that another had, also after some were deleted.
        let numbers = specifications.iter().filter_map(|found| found.at.id.strip_prefix("unit-")?.parse().ok());
        let id = format!("unit-{}", numbers.max().map_or(0, |last: u64| last + 1));
        let at = SpecificationRef { href: format!("shop:/units/{id}"), id };
        let (name, description) = (new.name.to_owned(), new.description.to_owned());
        specifications.push(FoundSpecification { at: at.clone(), name, description });
        Ok(at)
    }

    fn specifications(&self, name: &str) -> Result<Vec<FoundSpecification>, UsageApiError> {
        Ok(self.tables().specifications.iter().filter(|found| found.name == name).cloned().collect())
    }

    fn delete_specification(&self, specification: &SpecificationRef) -> Result<(), UsageApiError> {
        self.tables().specifications.retain(|found| found.at != *specification);
        Ok(())
    }

    fn create_usage(&self, new: &NewUsageDocument<'_>) -> Result<String, UsageApiError> {
        let documents = &mut self.tables().documents;
        let id = documents.len().to_string();
        documents.push(FoundUsageDocument {
            id: id.clone(),
            status: "Received".to_owned(),
            order_id: new.order_id.to_owned(),
            product_id: new.product_id.to_owned(),
            correlation_number: Some(new.correlation_number),
            unit: Some(new.unit.to_owned()),
            value: Some(new.value.to_owned()),
        });
        Ok(id)
    }

    fn guide_usage(&self, id: &str) -> Result<(), UsageApiError> {
        let mut tables = self.tables();
        let document = tables.documents.iter_mut().find(|document| document.id == id);
        let document = document.ok_or_else(|| UsageApiError::NotFound(format!("document {id}")))?;
        document.status = "guided".to_owned();
        Ok(())
    }

    fn customer_usage(&self, _: &str, each: &mut dyn FnMut(FoundUsageDocument)) -> Result<(), UsageApiError> {
        // This shop has one customer.
        self.tables().documents.iter().cloned().for_each(each);
        Ok(())
    }
}

/// What the work around which the validation hooks run did, so that it can be undone exactly.
enum Saved {
    Found,
    Created,
}

impl Shop {
    /// A seller creates a digital asset.
    fn create_asset(
        &mut self,
        host: &Host,
        seller: &User,
        kind: &str,
        url: &str,
        form: &Json,
    ) -> Result<String, Box<dyn Error>> {
        let id = format!("asset-{url}");
        let new = ProductSpecValidation {
            provider: seller,
            asset_t: kind,
            format: Format::Url,
            media_type: "application/json",
            url,
            meta_info: form,
        };
        let validated = host.product_spec_validation(&new, |meta_info| {
            if let Some(found) = self.assets.get(&id) {
                return Ok((Saved::Found, found.clone()));
            }
            let asset = Asset {
                id: id.clone(),
                provider: seller.clone(),
                resource_type: kind.to_owned(),
                download_link: Some(url.to_owned()),
                url: Some(url.to_owned()),
                meta_info: meta_info.clone(),
                ..Asset::default()
            };
            self.assets.insert(id.clone(), asset.clone());
            Ok::<_, std::convert::Infallible>((Saved::Created, asset))
        });
        match validated {
            Ok(done) => {
                if let Some(asset) = self.assets.get_mut(&id) {
                    done.changes.apply(asset);
                }
                Ok(id)
            }
            Err(AroundError::RefusedAfter { refusal, result }) => {
                // Undo what was done just now, and nothing older.
                if let Saved::Created = result {
                    self.assets.remove(&id);
                }
                Err(refusal.into())
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// The catalogue made a product specification of the asset.
    fn attach(&mut self, host: &Host, id: &str, product: &str, specification: &Json) -> Result<(), Box<dyn Error>> {
        let before = self.assets.get(id).cloned().ok_or("there is no such asset")?;
        let attached = host.product_spec_attachment(&before, specification, &Shop::default(), |changes| {
            let mut asset = before.clone();
            changes.clone().apply(&mut asset);
            asset.product_id = Some(product.to_owned());
            asset.version = Some("1.0".to_owned());
            self.assets.insert(id.to_owned(), asset.clone());
            Ok::<_, std::convert::Infallible>(((), asset))
        });
        match attached {
            Ok(done) => {
                if let Some(asset) = self.assets.get_mut(id) {
                    done.changes.apply(asset);
                }
                Ok(())
            }
            Err(error) => {
                self.assets.insert(id.to_owned(), before);
                Err(error.to_string().into())
            }
        }
    }

    /// A seller offers an asset, or several as a bundle.
    fn offer(&mut self, host: &Host, offering: Offering, document: &Json) -> Result<(), Box<dyn Error>> {
        let validated = host.product_offering_validation(&offering, document, self, |_assets| {
            // The backend's own checks of the pricing model.
            Ok::<_, std::convert::Infallible>(())
        });
        // Only the changes: the asset itself may have changed since the offering was written.
        for changed in validated.map_err(|error| error.to_string())?.changes {
            if let Some(asset) = self.assets.get_mut(&changed.asset.id) {
                changed.changes.apply(asset);
            }
        }
        self.offerings.insert(offering.off_id.clone(), offering);
        Ok(())
    }

    /// A customer paid for an order: every asset in it is told. Answers those that failed, to be tried again.
    fn paid(&mut self, host: &Host, order: &Order) -> Result<Vec<String>, Box<dyn Error>> {
        let mut failed = Vec::new();
        for contract in &order.contracts {
            for outcome in host.product_acquired(order, contract, self)? {
                match (outcome.result, self.assets.get_mut(&outcome.asset.id)) {
                    (Ok(changes), Some(asset)) => changes.apply(asset),
                    (Ok(_), None) => {}
                    (Err(error), _) => failed.push(format!("{}: {error}", outcome.asset.id)),
                }
            }
        }
        Ok(failed)
    }

    /// The end of the month: usage is accounted before the customer is charged for it. Answers how many records there are in
    /// all, and what failed: as long as anything did, the customer can't be charged.
    fn meter(&mut self, host: &Host, order: &mut Order) -> Result<(u64, Vec<String>), Box<dyn Error>> {
        let mut failed = Vec::new();
        for index in 0..order.contracts.len() {
            let refreshed = host.usage_refreshed(order, &order.contracts[index], self)?;
            // What the host recorded is recorded, whatever became of sending it: the contract's new values are saved first.
            let contract = &mut order.contracts[index];
            contract.correlation_number = refreshed.correlation_number;
            contract.last_usage = refreshed.last_usage;
            for outcome in refreshed.outcomes {
                match (outcome.result, self.assets.get_mut(&outcome.asset.id)) {
                    (Ok(usage), Some(asset)) => usage.changes.apply(asset),
                    (Ok(_), None) => {}
                    (Err(error), _) => failed.push(format!("{}: {error}", outcome.asset.id)),
                }
            }
            failed.extend(refreshed.failure.map(|failure| failure.to_string()));
        }
        Ok((order.contracts.iter().map(|contract| contract.correlation_number).sum(), failed))
    }
}

/// What the gateway logged.
const CALLS: &str = r#"{"id": "c1", "date": "2026-01-10T09:00:00Z", "order": "order-1", "item": "item-1", "calls": 3}
{"id": "c2", "date": "2026-01-11T09:00:00Z", "order": "order-1", "item": "item-1", "calls": 5}
"#;

fn run() -> Result<(), Box<dyn Error>> {
    let package = env::args_os().nth(1).ok_or("name the package of a plugin")?;
    let home = tempfile::tempdir()?;
    let usage = Arc::new(Usage::default());
    let host = Host::open_with(home.path().join("billhook"), HostOptions::new().usage_api(usage.clone()))?;
    host.start_reconciler()?;

    // The example plugin reads the calls that customers made from a log of the API's gateway.
    let log = home.path().join("calls.jsonl");
    std::fs::write(&log, CALLS)?;
    let settings = serde_json::json!({"usage_log": log}).to_string();
    let plugin = host.install(package, &Install { settings: Some(&settings), ..Install::default() })?.plugin;
    let mut shop = Shop::default();
    let mut out = std::io::stdout();

    let seller = User { username: "acme".to_owned(), ..User::default() };
    let form = Json::new(r#"{"auth_type": "key"}"#)?;
    let asset = shop.create_asset(&host, &seller, &plugin.name, "https://api.acme.example/weather", &form)?;
    writeln!(out, "created {asset} with {}", shop.assets[&asset].meta_info)?;
    let refused = shop.create_asset(&host, &seller, &plugin.name, "http://api.acme.example/plain", &form);
    writeln!(out, "refused: {}", refused.err().map(|error| error.to_string()).unwrap_or_default())?;

    let specification = Json::new(r#"{"name": "City weather", "version": "1.0"}"#)?;
    shop.attach(&host, &asset, "product-1", &specification)?;
    writeln!(out, "attached to {}", shop.assets[&asset].product_id.as_deref().unwrap_or_default())?;

    let prices = Json::new(
        r#"{"name": "By the call", "productOfferingPrice": [{"priceType": "usage", "unitOfMeasure": "API call"}]}"#,
    )?;
    let single =
        Offering { off_id: "single".to_owned(), asset: Some(shop.assets[&asset].clone()), ..Offering::default() };
    shop.offer(&host, single, &prices)?;
    shop.bundles.insert("pack".to_owned(), vec!["single".to_owned()]);
    let pack = Offering { off_id: "pack".to_owned(), ..Offering::default() };
    shop.offer(&host, pack.clone(), &prices)?;
    writeln!(out, "offered alone and in a bundle")?;

    let product_id = Some("inventory-1".to_owned());
    let contract = Contract { item_id: "item-1".to_owned(), product_id, offering: pack, ..Contract::default() };
    let customer = User { username: "ada".to_owned(), ..User::default() };
    let mut order = Order { order_id: "order-1".to_owned(), customer, contracts: vec![contract], ..Order::default() };
    let failed = shop.paid(&host, &order)?;
    writeln!(out, "paid; {} of its assets failed", failed.len())?;

    let (metered, failed) = shop.meter(&host, &mut order)?;
    writeln!(out, "metered; {} of its assets failed", failed.len())?;
    // Asked again, the plugin reports nothing new; had it reported the same once more, nothing would come of it either.
    assert_eq!(shop.meter(&host, &mut order)?.0, metered);
    let guided = usage.tables().documents.iter().filter(|document| document.status == "guided").count();
    writeln!(out, "metered {metered} records, of which {guided} are ready to be charged")?;

    // The asset is in use, so its plugin can't be removed before it is released.
    writeln!(out, "{}", host.remove(&plugin.id, false).err().map(|error| error.to_string()).unwrap_or_default())?;
    host.release_asset(&asset)?;
    // The plugin keeps what its customers were granted. It is deleted with the plugin, so that has to be asked for.
    writeln!(out, "{}", host.remove(&plugin.id, false).err().map(|error| error.to_string()).unwrap_or_default())?;
    writeln!(out, "removed {}", host.remove(&plugin.id, true)?.id)?;
    Ok(())
}
