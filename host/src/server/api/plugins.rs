//! Managing plugins.

use axum::{
    Extension, Json,
    extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use billhook_plugin_api::Json as Document;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::paging::{Page, limit};
use crate::{
    Downgrade, Host, HostError, Install, Installed, Isolation, PluginDetails, PluginSummary, Resource, ResourceFilter,
    RunPolicy, Scope,
    server::{
        auth::Client,
        body::{AnyJsonBody, JsonBody},
        media::{check_encoding, is_of_type},
        operation::{Api, operation},
        problem::Problem,
        request::{Parameters, PathPart},
        state::App,
        upload::{Upload, UploadForm, refuse_uploads, too_large},
    },
};

const TAG: &str = "plugins";
const GONE: (u16, &str) = (404, "there is no such plugin");
const CLASH: (u16, &str) = (409, "something that is there stands against it");
const WRONG: (u16, &str) = (422, "the package or the settings are wrong: every fault is told");

/// How a package is taken.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct How {
    /// Upgrade also if the package is another author's, or spells its name differently; and take over an add-on's resources
    /// that another plugin made.
    force: bool,
    /// Where the plugin runs: `in-process` or `process`.
    #[param(value_type = Option<String>)]
    isolation: Option<Isolation>,
}

/// How a plugin is removed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct Removal {
    /// Also if assets use it, usage of it is unsent, its add-on has resources, or it keeps anything: what it keeps is deleted
    /// for good.
    force: bool,
}

/// How a plugin goes back to an older version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct DowngradeBody {
    /// The version; the one before unless set.
    version: Option<String>,
    /// Settings for the older version; those that are there unless set.
    #[schema(value_type = Option<Object>)]
    settings: Option<Document<'static>>,
}

/// The place of a plugin among the listeners of an event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Priority {
    /// Lower ones come first.
    priority: u32,
}

/// Which resources are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct ResourceQuery {
    /// The add-on.
    addon: Option<String>,
    /// At most so many, 1 to 1000; 100 unless set.
    limit: Option<usize>,
    /// The `next` of the part before.
    cursor: Option<i64>,
}

pub(super) fn add_to(api: &mut Api) {
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    api.add(
        operation(get.clone(), "/api/v1/plugins", Scope::Read, TAG, "List the installed plugins")
            .answers::<Vec<PluginSummary>>(200, "the plugins, by id")
            .fails(&[]),
        list,
    );
    api.add(
        operation(post.clone(), "/api/v1/plugins", Scope::Manage, TAG, "Install a package, or upgrade its plugin")
            .describe("The body is the zip. It is checked without running it, tried in a child process, and installed.")
            .query::<How>()
            .takes_package()
            .answers::<Installed>(201, "it is installed")
            .fails(&[(403, "uploads are switched off"), CLASH, (413, "the package is too large"), WRONG]),
        upload,
    );
    api.add(
        operation(get.clone(), "/api/v1/plugins/{id}", Scope::Read, TAG, "Show everything about a plugin")
            .describe("Settings may be secrets: only a token with the scope `manage` sees them.")
            .answers::<PluginDetails>(200, "the plugin")
            .fails(&[GONE]),
        show,
    );
    api.add(
        operation(put.clone(), "/api/v1/plugins/{id}", Scope::Manage, TAG, "Upgrade this plugin with a package")
            .query::<How>()
            .takes_package()
            .answers::<Installed>(200, "it is upgraded")
            .fails(&[GONE, CLASH, (413, "the package is too large"), WRONG]),
        upgrade,
    );
    api.add(
        operation(Method::DELETE, "/api/v1/plugins/{id}", Scope::Manage, TAG, "Remove a plugin")
            .query::<Removal>()
            .answers::<PluginSummary>(200, "what was removed")
            .fails(&[GONE, CLASH]),
        remove,
    );
    api.add(
        operation(post.clone(), "/api/v1/plugins/{id}/downgrade", Scope::Manage, TAG, "Go back to an older version")
            .takes::<DowngradeBody>()
            .answers::<PluginSummary>(200, "the plugin")
            .fails(&[GONE, CLASH, WRONG]),
        downgrade,
    );
    for (path, summary) in [
        ("/api/v1/plugins/{id}/enable", "Let a plugin take calls again"),
        ("/api/v1/plugins/{id}/disable", "Keep a plugin from taking calls"),
    ] {
        let enabled = path.ends_with("enable");
        api.add(
            operation(post.clone(), path, Scope::Manage, TAG, summary)
                .answers::<PluginSummary>(200, "the plugin")
                .fails(&[GONE]),
            move |state, id| set_enabled(state, id, enabled),
        );
    }
    api.add(
        operation(get.clone(), "/api/v1/plugins/{id}/settings", Scope::Manage, TAG, "Show a plugin's settings")
            .answers::<Value>(200, "a JSON document")
            .fails(&[GONE]),
        settings,
    );
    api.add(
        operation(put.clone(), "/api/v1/plugins/{id}/settings", Scope::Manage, TAG, "Give a plugin other settings")
            .describe("The body is the settings, a JSON document. If the plugin refuses them, the old ones stay.")
            .takes::<Value>()
            .answers::<PluginSummary>(200, "the plugin")
            .fails(&[GONE, WRONG]),
        set_settings,
    );
    api.add(
        operation(put.clone(), "/api/v1/plugins/{id}/runtime", Scope::Manage, TAG, "Run a plugin otherwise")
            .takes::<RunPolicy>()
            .answers::<PluginSummary>(200, "the plugin")
            .fails(&[GONE, WRONG]),
        set_runtime,
    );
    api.add(
        operation(put, "/api/v1/plugins/{id}/priority", Scope::Manage, TAG, "Give a plugin its place among listeners")
            .takes::<Priority>()
            .answers::<Priority>(200, "the place")
            .fails(&[GONE]),
        set_priority,
    );
    api.add(
        operation(get, "/api/v1/resources", Scope::Read, "add-ons", "List what add-ons provisioned")
            .query::<ResourceQuery>()
            .answers::<Page<Resource>>(200, "resources, the newest first")
            .fails(&[]),
        resources,
    );
}

async fn list(State(app): State<App>) -> Result<Json<Vec<PluginSummary>>, Problem> {
    Ok(Json(app.manage(Host::list).await??))
}

async fn show(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    PathPart(id): PathPart,
) -> Result<Json<PluginDetails>, Problem> {
    let mut details = app.manage(move |host| host.show(&id)).await??;
    if client.scope < Scope::Manage {
        details.settings = Document::from(Value::Null);
        hide_reason(&mut details);
    }
    Ok(Json(details))
}

/// Takes away why a plugin needs settings: what it says may quote them.
pub(in crate::server) fn hide_reason(details: &mut PluginDetails) {
    if let Some(reason) = &mut details.needs_settings {
        "who manages sees why".clone_into(reason);
    }
}

async fn upload(
    State(app): State<App>,
    Parameters(how): Parameters<How>,
    request: Request,
) -> Result<Response, Problem> {
    let installed = install(&app, how, None, request).await?;
    let status = if installed.unchanged { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(installed)).into_response())
}

async fn upgrade(
    State(app): State<App>,
    PathPart(id): PathPart,
    Parameters(how): Parameters<How>,
    request: Request,
) -> Result<Json<Installed>, Problem> {
    let named = id.clone();
    app.manage(move |host| host.show(&named)).await??;
    Ok(Json(install(&app, how, Some(id), request).await?))
}

async fn install(app: &App, how: How, id: Option<String>, request: Request) -> Result<Installed, Problem> {
    let is_form = is_of_type(request.headers(), "multipart/form-data");
    check_upload(app, request.headers(), is_form)?;
    let How { force, isolation } = how;
    let (package, settings) = if is_form {
        let mut request = request;
        // The package has a limit of its own.
        DefaultBodyLimit::disable().apply(&mut request);
        let form = Multipart::from_request(request, &()).await;
        let mut form = form.map_err(|error| Problem::bad_request(error.body_text()))?;
        let mut form = UploadForm::read(app, &mut form, |_| Ok(())).await?;
        let settings = form.fields.remove("settings");
        if let Some(unknown) = form.fields.keys().next() {
            return Err(Problem::bad_request(format!("the form has a field {unknown:?}, which is unknown")));
        }
        (form.package, settings)
    } else {
        (Upload::of_body(app, request.into_body()).await?, None)
    };
    app.manage(move |host| {
        let settings = settings.as_deref();
        host.install(package.path(), &Install { settings, force, isolation, plugin: id.as_deref() })
    })
    .await?
    .map_err(Problem::from)
}

/// Refuses a package by what is known before it comes.
fn check_upload(app: &App, headers: &HeaderMap, is_form: bool) -> Result<(), Problem> {
    refuse_uploads(app)?;
    if !is_form && !["application/zip", "application/octet-stream"].iter().any(|kind| is_of_type(headers, kind)) {
        let detail = "a package has to be declared as Content-Type: application/zip, or sent as multipart/form-data with the \
                      parts settings and package";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    check_encoding(headers)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > app.host.package_limit()) {
        return Err(too_large(app));
    }
    Ok(())
}

async fn remove(
    State(app): State<App>,
    PathPart(id): PathPart,
    Parameters(Removal { force }): Parameters<Removal>,
) -> Result<Json<PluginSummary>, Problem> {
    Ok(Json(app.manage(move |host| host.remove(&id, force)).await??))
}

async fn downgrade(
    State(app): State<App>,
    PathPart(id): PathPart,
    body: Option<JsonBody<DowngradeBody>>,
) -> Result<Json<PluginSummary>, Problem> {
    let DowngradeBody { version, settings } = body.map(|JsonBody(body)| body).unwrap_or_default();
    let downgraded = app.manage(move |host| {
        host.downgrade(
            &id,
            &Downgrade { version: version.as_deref(), settings: settings.as_ref().map(Document::as_str) },
        )
    });
    Ok(Json(downgraded.await??))
}

async fn set_enabled(
    State(app): State<App>,
    PathPart(id): PathPart,
    enabled: bool,
) -> Result<Json<PluginSummary>, Problem> {
    Ok(Json(app.manage(move |host| host.set_enabled(&id, enabled)).await??))
}

async fn settings(State(app): State<App>, PathPart(id): PathPart) -> Result<Json<Document<'static>>, Problem> {
    Ok(Json(app.manage(move |host| host.show(&id)).await??.settings))
}

async fn set_settings(
    State(app): State<App>,
    PathPart(id): PathPart,
    AnyJsonBody(settings): AnyJsonBody,
) -> Result<Json<PluginSummary>, Problem> {
    Ok(Json(app.manage(move |host| host.set_settings(&id, settings.get())).await??))
}

async fn set_runtime(
    State(app): State<App>,
    PathPart(id): PathPart,
    JsonBody(runtime): JsonBody<RunPolicy>,
) -> Result<Json<PluginSummary>, Problem> {
    Ok(Json(app.manage(move |host| host.set_runtime(&id, &runtime)).await??))
}

async fn set_priority(
    State(app): State<App>,
    PathPart(id): PathPart,
    JsonBody(place): JsonBody<Priority>,
) -> Result<Json<Priority>, Problem> {
    let priority = place.priority;
    app.manage(move |host| host.set_priority(&id, priority)).await?.map_err(|error: HostError| Problem::from(error))?;
    Ok(Json(place))
}

async fn resources(
    State(app): State<App>,
    Parameters(query): Parameters<ResourceQuery>,
) -> Result<Json<Page<Resource>>, Problem> {
    let most = limit(query.limit)?;
    let filter =
        ResourceFilter { addon: query.addon, before: query.cursor, limit: Some(most + 1), ..ResourceFilter::default() };
    let found = app.manage(move |host| host.resources(&filter)).await??;
    Ok(Json(Page::cut(found, most, |resource| resource.number)))
}
