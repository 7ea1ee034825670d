//! The views of asset types that clients of the Business API Ecosystem know, where they know them.

use std::borrow::Cow;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
};
use billhook_plugin_api::{
    Json as Document,
    json_tree::{JsonKind, JsonNode, JsonTree},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Host, HostError, PluginDetails, PluginStatus, Scope,
    server::{
        operation::{Api, operation},
        problem::Problem,
        request::{PathPart, UNRESERVED},
        state::App,
    },
};

/// Where they are.
const TYPES: &str = "/charging/api/assetManagement/assetTypes";

/// An asset type, as sellers may choose one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AssetType {
    /// The plugin's id.
    id: String,
    /// The address of this view.
    href: String,
    /// The name, which assets of the type have as theirs.
    name: String,
    /// Who wrote the plugin.
    author: String,
    /// The plugin's version.
    version: String,
    /// The media types that an asset may have; empty allows all.
    media_types: Vec<String>,
    /// `FILE`, `URL` or both.
    formats: Vec<String>,
    /// What of a product the plugin overrides.
    overrides: Vec<String>,
    /// The form that sellers fill in, as `package.json` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    form: Option<Document<'static>>,
    /// The order of its fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    form_order: Option<Vec<String>>,
}

pub(super) fn add_to(api: &mut Api) {
    for path in [TYPES, "/charging/api/assetManagement/assetTypes/"] {
        api.add(
            operation(Method::GET, path, Scope::Read, "asset types", "List the asset types that can be sold")
                .answers::<Vec<AssetType>>(200, "the types, by id")
                .fails(&[]),
            list,
        );
    }
    api.add(
        operation(
            Method::GET,
            "/charging/api/assetManagement/assetTypes/{id}",
            Scope::Read,
            "asset types",
            "Show an asset type",
        )
        .answers::<AssetType>(200, "the type")
        .fails(&[(404, "there is no such type")]),
        show,
    );
}

/// What addresses in answers begin with.
fn base(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.options.public_url {
        return url.clone();
    }
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.map_or_else(|| app.address.to_string(), str::to_owned);
    format!("{}://{host}", if app.is_tls { "https" } else { "http" })
}

/// The asset type of a plugin; none if it takes no calls, or is an add-on and nothing else.
fn asset_type(details: &PluginDetails, base: &str) -> Option<AssetType> {
    let manifest = JsonTree::read(details.manifest.as_str()).ok()?;
    let texts = |key: &str| -> Vec<String> {
        let list = manifest.root().get(key).into_iter().flat_map(JsonNode::elements);
        list.filter_map(|value| value.text().map(Cow::into_owned)).collect()
    };
    let (summary, formats) = (&details.summary, texts("formats"));
    if formats.is_empty() || summary.status == PluginStatus::Disabled {
        return None;
    }
    let form = manifest.root().get("form").filter(|form| form.kind() == JsonKind::Object && !form.is_empty());
    Some(AssetType {
        href: format!("{base}{TYPES}/{}", percent_encoding::utf8_percent_encode(&summary.id, UNRESERVED)),
        id: summary.id.clone(),
        name: summary.name.clone(),
        author: summary.author.clone(),
        version: summary.version.clone(),
        media_types: texts("media_types"),
        formats,
        overrides: texts("overrides"),
        form: form.and_then(|form| form.parse().ok()),
        form_order: Some(texts("form_order")).filter(|order| !order.is_empty()),
    })
}

async fn list(State(app): State<App>, headers: HeaderMap) -> Result<Json<Vec<AssetType>>, Problem> {
    let base = base(&app, &headers);
    let list = move |host: &Host| -> Result<Vec<AssetType>, HostError> {
        let mut types = Vec::new();
        for plugin in host.list()? {
            match host.show(&plugin.id) {
                Ok(details) => types.extend(asset_type(&details, &base)),
                // It was removed meanwhile.
                Err(HostError::NotInstalled { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(types)
    };
    Ok(Json(app.manage(list).await??))
}

async fn show(State(app): State<App>, PathPart(id): PathPart, headers: HeaderMap) -> Result<Json<AssetType>, Problem> {
    let base = base(&app, &headers);
    let named = id.clone();
    let details = app.manage(move |host| host.show(&named)).await??;
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("there is no asset type {id:?}"));
    asset_type(&details, &base).map(Json).ok_or_else(none)
}
