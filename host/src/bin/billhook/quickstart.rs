//! `billhook quickstart`: the whole life of an asset, on a home that is thrown away.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use billhook::{
    Hook, HookError, HookReply, Host, Install, Json, PendingUsage, PluginSummary,
    data::{Asset, AssetChanges, Contract, Offering, Order, User},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{listplugins, output::Output, packplugin, progress::Progress};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the example plugin's crate [default: example-plugin, here or above]
    #[arg(long, value_name = "DIR")]
    plugin: Option<PathBuf>,
}

const PRODUCT_SPECIFICATION: &str = include_str!("quickstart/product_specification.json");
const PRODUCT_OFFERING: &str = include_str!("quickstart/product_offering.json");
const PRODUCT_ORDER: &str = include_str!("quickstart/product_order.json");

pub(crate) fn run(arguments: &Arguments, output: &Output) -> anyhow::Result<()> {
    let plugin = arguments.plugin.clone().map_or_else(find_example, Ok)?;
    let folder = tempfile::Builder::new().prefix("billhook-quickstart-").tempdir()?;
    let mut report = Report { output, calls: Vec::new() };

    report.say(&format!("Packing the plugin in {} (the first time, its dependencies are built)", plugin.display()))?;
    let package = folder.path().join("package.zip");
    let packed = packplugin::pack(&plugin, Some(&package), &[], output)?;

    report.say(&format!("\nLoading {} {} into a temporary home", packed.id, packed.version))?;
    let progress = Progress::start("loading");
    let usage_log = folder.path().join("usage.jsonl");
    fs::write(&usage_log, usage())?;
    let host = Host::open(folder.path().join("home"))?;
    let settings = json!({ "usage_log": usage_log }).to_string();
    let installed = host.install(&package, &Install { settings: Some(&settings), ..Install::default() })?;
    drop(progress);
    if let Some(message) = installed.needs_settings {
        bail!("the example plugin refuses its settings: {message}");
    }
    let plugins = host.list()?;
    report.say(&listplugins::table(&plugins))?;

    report.say(&format!("\nThe life of an asset of the type {:?}:", installed.plugin.name))?;
    life(&host, &installed.plugin.name, &mut report)?;

    let removed = host.remove(&packed.id, true)?;
    report.say(&format!("\n{} was removed again", removed.id))?;
    if output.is_json() {
        return output.json(&Told { plugin: installed.plugin, calls: report.calls });
    }
    output.text(
        "\nWhat to try next:
  billhook newplugin \"My Data\" --api plugin-api   makes a plugin of your own
  billhook packplugin example-plugin              packs this one
  billhook loadplugin test-resource-1.0.zip       installs it to stay
  docs/plugin-guide.md                            tells how to write one
  docs/architecture.md                            tells how it all works",
    )
}

/// The example plugin's crate: in a checkout, from wherever in it.
fn find_example() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let found =
        here.ancestors().map(|folder| folder.join("example-plugin")).find(|it| it.join("package.json").is_file());
    found.context(
        "there is no example-plugin here or above; run this in a checkout of billhook, or name it with --plugin DIR",
    )
}

/// What the gateway of the API that is sold logged: two batches of calls.
fn usage() -> String {
    [("2026-03-02T08:00:00Z", 12), ("2026-03-03T17:30:00Z", 30)]
        .iter()
        .enumerate()
        .map(|(index, (date, calls))| {
            let line = json!({"id": format!("batch-{}", index + 1), "date": date, "order": "order-1", "item": "item-1", "calls": calls});
            format!("{line}\n")
        })
        .collect()
}

/// Runs every hook once in the order of an asset's life, as a backend would.
fn life(host: &Host, asset_type: &str, report: &mut Report<'_>) -> anyhow::Result<()> {
    let seller = User {
        username: "acme".to_owned(),
        email: "sales@acme.example".to_owned(),
        complete_name: "Acme Ltd".to_owned(),
        ..User::default()
    };
    let mut asset = Asset {
        id: "asset-1".to_owned(),
        provider: seller.clone(),
        resource_type: asset_type.to_owned(),
        download_link: Some("https://api.acme.example/weather".to_owned()),
        meta_info: json!({"auth_type": "key"}).into(),
        ..Asset::default()
    };
    let specification = Json::new(PRODUCT_SPECIFICATION)?;
    let offering = Json::new(PRODUCT_OFFERING)?;

    let url = "https://api.acme.example/weather";
    let answer = host.on_pre_product_spec_validation(&seller, asset_type, "application/json", url);
    report.call(Hook::OnPreProductSpecValidation, answer.map(HookReply::OnPreProductSpecValidation))?;
    let answer = host.on_post_product_spec_validation(&seller, &asset);
    report.change(Hook::OnPostProductSpecValidation, answer, &mut asset)?;

    let answer = host.on_pre_product_spec_attachment(&asset, &specification);
    report.change(Hook::OnPreProductSpecAttachment, answer, &mut asset)?;
    asset.product_id = Some("spec-1".to_owned());
    asset.version = Some("1.0".to_owned());
    let answer = host.on_post_product_spec_attachment(&asset, &specification);
    report.change(Hook::OnPostProductSpecAttachment, answer, &mut asset)?;

    asset.download_link = Some("https://api.acme.example/weather/v2".to_owned());
    let answer = host.on_pre_product_spec_upgrade(&asset, &specification);
    report.change(Hook::OnPreProductSpecUpgrade, answer, &mut asset)?;
    asset.version = Some("2.0".to_owned());
    let answer = host.on_post_product_spec_upgrade(&asset, &specification);
    report.change(Hook::OnPostProductSpecUpgrade, answer, &mut asset)?;

    let answer = host.on_pre_product_offering_validation(&asset, &offering);
    report.change(Hook::OnPreProductOfferingValidation, answer, &mut asset)?;
    let answer = host.on_post_product_offering_validation(&asset, &offering);
    report.change(Hook::OnPostProductOfferingValidation, answer, &mut asset)?;

    let order = order_from_tmf(PRODUCT_ORDER, &asset)?;
    let contract = order.contracts.first().context("the order has an item")?;
    let answer = host.on_product_acquisition(&asset, contract, &order);
    report.change(Hook::OnProductAcquisition, answer, &mut asset)?;

    let answer = host.get_usage_specs(asset_type);
    report.call(Hook::GetUsageSpecs, answer.map(HookReply::GetUsageSpecs))?;
    let pending = host.get_pending_accounting(&asset, contract, &order);
    let answer = pending.map(|(pending_accounting, changes)| PendingUsage { pending_accounting, changes });
    report.call(Hook::GetPendingAccounting, answer.map(HookReply::GetPendingAccounting))?;

    let answer = host.on_product_suspension(&asset, contract, &order);
    report.change(Hook::OnProductSuspension, answer, &mut asset)
}

/// A product order of TM Forum's API 622 as the objects that hooks take.
fn order_from_tmf(text: &str, asset: &Asset) -> anyhow::Result<Order> {
    let (order, document): (Value, Json) = (serde_json::from_str(text)?, Json::new(text)?);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let parties = order["relatedParty"].as_array().into_iter().flatten();
    let customer = parties.filter(|party| party["role"] == "customer").map(|party| &party["partyOrPartyRole"]).next();
    let customer = customer.context("the order has no customer")?;
    let prices = |index: usize| -> anyhow::Result<Json<'static>> {
        let price = document.pointer::<Json>(&format!("/productOrderItem/{index}/itemPrice"));
        let price = price.map_err(|error| anyhow!("the order's prices: {error}"))?;
        Ok(Json::from_value(&BTreeMap::from([("pay_per_use", price)]))?)
    };
    let contract = |(index, item): (usize, &Value)| -> anyhow::Result<Contract> {
        Ok(Contract {
            item_id: text(&item["id"]),
            product_id: item["product"]["id"].as_str().map(str::to_owned),
            offering: Offering {
                off_id: text(&item["productOffering"]["id"]),
                name: text(&item["productOffering"]["name"]),
                asset: Some(asset.clone()),
                ..Offering::default()
            },
            pricing_model: prices(index)?,
            ..Contract::default()
        })
    };
    let items = order["productOrderItem"].as_array().into_iter().flatten();
    Ok(Order {
        order_id: text(&order["id"]),
        customer: User { username: text(&customer["id"]), complete_name: text(&customer["name"]), ..User::default() },
        date: text(&order["orderDate"]).try_into()?,
        tax_address: Json::default(),
        contracts: items.enumerate().map(contract).collect::<anyhow::Result<_>>()?,
        extra: Json::default(),
    })
}

/// Prints calls as they are answered, or keeps them for one document.
struct Report<'a> {
    output: &'a Output,
    calls: Vec<Call>,
}

/// A call that was answered.
#[derive(Serialize)]
struct Call {
    hook: &'static str,
    answer: HookReply,
}

/// What is told in one document.
#[derive(Serialize)]
struct Told {
    plugin: PluginSummary,
    calls: Vec<Call>,
}

impl Report<'_> {
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.output.is_json() { Ok(()) } else { self.output.text(text) }
    }

    /// Shows what a hook answered, and does with its changes what a backend does: writes them onto the asset.
    fn change(&mut self, hook: Hook, answer: Result<AssetChanges, HookError>, asset: &mut Asset) -> anyhow::Result<()> {
        if let Ok(changes) = &answer {
            changes.clone().apply(asset);
        }
        self.call(hook, answer.map(|changes| HookReply::of_changes(hook, changes).unwrap_or(HookReply::OnEvent(()))))
    }

    fn call(&mut self, hook: Hook, answer: Result<HookReply, HookError>) -> anyhow::Result<()> {
        let answer = answer.with_context(|| format!("the example plugin refused {hook}"))?;
        self.say(&format!("  {:<36}{}", hook.name(), described(&answer)))?;
        self.calls.push(Call { hook: hook.name(), answer });
        Ok(())
    }
}

/// An answer in a line.
fn described(reply: &HookReply) -> String {
    let mut parts = vec!["ok".to_owned()];
    let AssetChanges { meta_info, content_type, download_link, .. } = reply.changes().cloned().unwrap_or_default();
    parts.extend(meta_info.as_ref().map(|json| format!("meta_info is now {json}")));
    parts.extend(content_type.as_ref().map(|text| format!("content_type is now {text}")));
    parts.extend(download_link.as_ref().map(|text| format!("download_link is now {text}")));
    if let HookReply::GetUsageSpecs(specifications) = reply {
        parts.extend(specifications.iter().map(|spec| format!("{:?}: {}", spec.name, spec.description)));
    }
    if let HookReply::GetPendingAccounting(PendingUsage { pending_accounting: pending, .. }) = reply {
        parts.extend(
            pending.records.iter().map(|record| format!("{} {} on {}", record.value, record.unit, record.date)),
        );
        parts.extend(pending.last_usage.as_ref().map(|date| format!("last usage {date}")));
    }
    parts.join("; ")
}
