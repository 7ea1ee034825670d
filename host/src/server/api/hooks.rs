//! What a backend calls: hooks, notifications, and which assets are in use.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode},
};
use billhook_plugin_api::{
    Hook, Timestamp,
    call::{HookAnswer, HookObjects},
    data::{Asset, AssetChanges, Contract, Offering, Order},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    Catalogue, CatalogueError, HookError, HostError, LONGEST_OBJECT_ID, Scope, UsageRefreshed,
    server::{
        body::JsonBody,
        operation::{Api, operation},
        problem::{self, Problem},
        request::{Parameters, PathPart},
        state::App,
    },
};

const TAG: &str = "backend";

/// What a hook came to.
#[derive(Debug, Serialize, ToSchema)]
struct Outcome {
    /// `ok`, or `not implemented` where the plugin lacks the hook: it did nothing then.
    outcome: &'static str,
    #[serde(flatten)]
    answer: HookAnswer,
}

/// Which plugin is called.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct Which {
    /// The plugin's id; that of the asset's type unless set.
    plugin: Option<String>,
}

/// What happened to a product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Notification {
    /// The order.
    order: Order,
    /// The contract; the order's only one unless set.
    contract: Option<Contract>,
    /// The assets of the contract's offering, with bundles replaced by what they bundle; the offering's own asset unless set.
    assets: Option<Vec<Asset>>,
}

/// What became of the assets of a contract.
#[derive(Debug, Serialize, ToSchema)]
struct Notified {
    /// Each asset, in the order in which they were told.
    outcomes: Vec<AssetOutcome>,
}

/// What became of an asset.
#[derive(Debug, Serialize, ToSchema)]
struct AssetOutcome {
    /// The asset's id.
    asset: String,
    /// `ok`, or that of the problem.
    outcome: String,
    /// What the hook changed on it: save it.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<AssetChanges>,
    /// Why it was refused: a problem as those that requests end with.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<problem::Body>,
    /// How many usage records are new.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<u64>,
    /// How many were reported before.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<u64>,
}

/// What a refresh of usage came to.
#[derive(Debug, Serialize, ToSchema)]
struct Refreshed {
    /// Each asset.
    outcomes: Vec<AssetOutcome>,
    /// The contract's new correlation number: save it.
    correlation_number: u64,
    /// The contract's new time of the last usage: save it.
    last_usage: Option<Timestamp<'static>>,
    /// How many records' documents were guided.
    sent: u64,
    /// How many have none yet; a later refresh sends them.
    unsent: u64,
    /// Why not all were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// What an asset is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InUse {
    /// Its type: the name of the plugin that knows it.
    resource_type: String,
}

pub(super) fn add_to(api: &mut Api) {
    api.add(
        operation(
            Method::POST,
            "/api/v1/hooks/{hook}",
            Scope::Emit,
            TAG,
            "Call a hook of the plugin of an asset's type",
        )
        .describe(
            "The body holds the objects that the hook takes; others are left alone. What the hook changed on the asset \
                 comes back: save it. Before handlers are asked first, and after listeners told when it went through.",
        )
        .query::<Which>()
        .takes::<HookObjects>()
        .answers::<Outcome>(200, "the hook went through")
        .fails(&[
            (400, "a value has the wrong form, or an object is missing"),
            (403, "the plugin or a handler forbids it"),
            (404, "the plugin or what it was asked for isn't there"),
            (409, "it contradicts what is there"),
            (422, "the plugin refuses, or no plugin has the type"),
            (500, "the plugin failed, or, with outcome_unknown, nobody knows what it did"),
            (503, "the plugin takes no calls now; or the server's disk fails, or is read-only"),
        ]),
        call,
    );
    for (path, summary) in [
        ("/api/v1/notifications/product_acquired", "A customer paid: tell every asset of the contract"),
        ("/api/v1/notifications/product_suspended", "A customer didn't pay: tell every asset of the contract"),
    ] {
        let hook = if path.ends_with("acquired") { Hook::OnProductAcquisition } else { Hook::OnProductSuspension };
        api.add(
            operation(Method::POST, path, Scope::Emit, TAG, summary)
                .describe("One asset's refusal neither hides nor stops the others: look at each outcome.")
                .takes::<Notification>()
                .answers::<Notified>(200, "every asset was told")
                .fails(&[(422, "the order or the contract is wrong")]),
            move |state, body| notify(state, body, hook),
        );
    }
    api.add(
        operation(
            Method::POST,
            "/api/v1/notifications/usage_refreshed",
            Scope::Emit,
            TAG,
            "Before a customer is charged: pull usage, and make documents of it in the usage API",
        )
        .takes::<Notification>()
        .answers::<Refreshed>(200, "what was reported is recorded, and what could be sent is sent")
        .fails(&[
            (422, "the order or the contract is wrong"),
            (503, "there is no usage API, or it is refreshed elsewhere; or the server's disk fails, or is read-only"),
        ]),
        refresh,
    );
    api.add(
        operation(Method::PUT, "/api/v1/assets/{id}", Scope::Emit, TAG, "An asset is attached to a product")
            .describe("As long as assets are in use, the plugin of their type is only removed by force.")
            .takes::<InUse>()
            .answers_plain(204, "noted")
            .fails(&[(422, "no plugin has the type")]),
        use_asset,
    );
    api.add(
        operation(Method::DELETE, "/api/v1/assets/{id}", Scope::Emit, TAG, "An asset is in use no more")
            .answers_plain(204, "noted")
            .fails(&[(404, "it wasn't in use")]),
        release_asset,
    );
}

/// A hook that a backend calls: those of an asset's life, and of pull accounting.
fn hook(name: &str) -> Result<Hook, Problem> {
    let is_of_backend = |hook: &Hook| {
        let name = hook.name();
        !name.starts_with("addon_") && *hook != Hook::OnEvent
    };
    name.parse().ok().filter(is_of_backend).ok_or_else(|| {
        let all: Vec<&str> = Hook::ALL.iter().filter(|hook| is_of_backend(hook)).map(|hook| hook.name()).collect();
        let detail = format!("there is no hook {name:?} for backends; the hooks are {}", all.join(", "));
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

async fn call(
    State(app): State<App>,
    PathPart(name): PathPart,
    Parameters(which): Parameters<Which>,
    // Boxed, because it is large and goes from hand to hand.
    JsonBody(objects): JsonBody<Box<HookObjects>>,
) -> Result<Json<Outcome>, Problem> {
    let hook = hook(&name)?;
    objects.asset.as_ref().map_or(Ok(()), |asset| check_id(&asset.id))?;
    let own = objects.asset.as_ref().map(|asset| asset.resource_type.as_str());
    let asset_type = match hook {
        Hook::OnPreProductSpecValidation | Hook::GetUsageSpecs => objects.asset_t.as_deref().or(own),
        _ => own.or(objects.asset_t.as_deref()),
    };
    let (named, plugin) = match (&which.plugin, asset_type) {
        (Some(plugin), _) => (plugin.clone(), plugin.clone()),
        (None, Some(asset_type)) => (asset_type.to_owned(), plugin_of(&app, asset_type)),
        (None, None) => {
            let detail = format!("{hook} takes an \"asset\" or its type (\"asset_t\"), and both are missing");
            return Err(Problem::bad_request(detail));
        }
    };
    let limit = app.host.longest_call(&plugin, hook);
    let called = app.call(&plugin, limit, move |host| match &which.plugin {
        Some(plugin) => host.call(plugin, hook, *objects),
        None => host.call_type(&named, hook, *objects),
    });
    let reply = called.await??;
    let outcome = if reply.is_some() { "ok" } else { "not implemented" };
    Ok(Json(Outcome { outcome, answer: HookAnswer(reply) }))
}

/// What stands for the plugin of an asset's type, where calls take turns; the same for all types that no plugin has.
fn plugin_of(app: &App, asset_type: &str) -> String {
    app.host.plugin_of_type(asset_type).unwrap_or_default()
}

/// A contract's offering as the backend expanded it.
struct Expanded {
    offering: String,
    assets: Vec<Asset>,
}

impl Catalogue for Expanded {
    fn bundled_offerings(&self, offering: &Offering) -> Result<Vec<Offering>, CatalogueError> {
        if offering.off_id != self.offering {
            return Ok(Vec::new());
        }
        let part = |(index, asset): (usize, &Asset)| Offering {
            off_id: format!("{}, part {index}", self.offering),
            asset: Some(asset.clone()),
            ..Offering::default()
        };
        Ok(self.assets.iter().enumerate().map(part).collect())
    }
}

impl Notification {
    /// The order, the contract, and what its offering stands for.
    fn parts(self) -> Result<(Order, Contract, Expanded), Problem> {
        let Notification { order, contract, assets } = self;
        let contract = match (contract, order.contracts.as_slice()) {
            (Some(contract), _) => contract,
            (None, [contract]) => contract.clone(),
            (None, _) => {
                let detail = "\"contract\" is missing, and the order has not just one";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
            }
        };
        let assets = assets.or_else(|| contract.offering.asset.clone().map(|asset| vec![asset])).unwrap_or_default();
        if assets.is_empty() {
            let detail = "\"assets\" is missing, and the contract's offering has no asset";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        assets.iter().try_for_each(|asset| check_id(&asset.id))?;
        let offering = contract.offering.off_id.clone();
        Ok((order, contract, Expanded { offering, assets }))
    }
}

impl Expanded {
    /// The plugins that are called, and the longest that all may take.
    fn plugins(&self, app: &App, hook: Hook) -> (Vec<String>, Duration) {
        let plugins: Vec<String> = self.assets.iter().map(|asset| plugin_of(app, &asset.resource_type)).collect();
        let longest = plugins.iter().filter_map(|plugin| app.host.longest_call(plugin, hook)).sum();
        (plugins, longest)
    }
}

/// Refuses an asset whose id is none: the log keeps ids, and whoever looks at it gets them.
fn check_id(id: &str) -> Result<(), Problem> {
    if id.len() <= LONGEST_OBJECT_ID {
        return Ok(());
    }
    Err(Problem::bad_request(format!("the asset's id has more than {LONGEST_OBJECT_ID} bytes")))
}

async fn notify(
    State(app): State<App>,
    JsonBody(body): JsonBody<Notification>,
    hook: Hook,
) -> Result<Json<Notified>, Problem> {
    let (order, contract, catalogue) = body.parts()?;
    let (plugins, longest) = catalogue.plugins(&app, hook);
    let told = app.call_all(plugins.iter().map(String::as_str), Some(longest), move |host| match hook {
        Hook::OnProductSuspension => host.product_suspended(&order, &contract, &catalogue),
        _ => host.product_acquired(&order, &contract, &catalogue),
    });
    let outcomes = told.await??.into_iter().map(|outcome| {
        let (changes, refusal) = match outcome.result {
            Ok(changes) => (Some(changes), None),
            Err(refusal) => (None, Some(refusal)),
        };
        AssetOutcome::new(outcome.asset, changes, refusal)
    });
    Ok(Json(Notified { outcomes: outcomes.collect() }))
}

impl AssetOutcome {
    fn new(asset: Asset, changes: Option<AssetChanges>, refusal: Option<HookError>) -> Self {
        let refusal = refusal.map(|refusal| Problem::from(refusal).into_body());
        let outcome = refusal.as_ref().map_or("ok", problem::Body::outcome).to_owned();
        AssetOutcome { asset: asset.id, outcome, changes, refusal, recorded: None, known: None }
    }
}

async fn refresh(State(app): State<App>, JsonBody(body): JsonBody<Notification>) -> Result<Json<Refreshed>, Problem> {
    let (order, contract, catalogue) = body.parts()?;
    // However long it takes to send all documents.
    let (plugins, _) = catalogue.plugins(&app, Hook::GetPendingAccounting);
    let plugins = plugins.iter().map(String::as_str);
    let refreshed =
        app.call_all(plugins, None, move |host| host.usage_refreshed(&order, &contract, &catalogue)).await??;
    let UsageRefreshed { outcomes, correlation_number, last_usage, sent, unsent, failure } = refreshed;
    let outcomes = outcomes.into_iter().map(|outcome| match outcome.result {
        Ok(usage) => AssetOutcome {
            recorded: Some(usage.recorded),
            known: Some(usage.known),
            ..AssetOutcome::new(outcome.asset, Some(usage.changes), None)
        },
        Err(refusal) => AssetOutcome::new(outcome.asset, None, Some(refusal)),
    });
    Ok(Json(Refreshed {
        outcomes: outcomes.collect(),
        correlation_number,
        last_usage,
        sent,
        unsent,
        failure: failure.map(|failure| failure.to_string()),
    }))
}

async fn use_asset(
    State(app): State<App>,
    PathPart(id): PathPart,
    JsonBody(InUse { resource_type }): JsonBody<InUse>,
) -> Result<StatusCode, Problem> {
    check_id(&id)?;
    let is_known = app.manage(move |host| host.use_asset(&id, &resource_type).map(|known| (known, resource_type)));
    match is_known.await?.map_err(|error: HostError| Problem::from(error))? {
        (true, _) => Ok(StatusCode::NO_CONTENT),
        (false, unknown) => {
            let detail = format!("The given product specification contains a not supported asset type: {unknown}");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with("kind", "invalid"))
        }
    }
}

async fn release_asset(State(app): State<App>, PathPart(id): PathPart) -> Result<StatusCode, Problem> {
    let named = id.clone();
    if app.manage(move |host| host.release_asset(&named)).await?.map_err(|error: HostError| Problem::from(error))? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(StatusCode::NOT_FOUND, format!("the asset {id:?} isn't in use")))
}
