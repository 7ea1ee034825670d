//! Plugins: what is installed and how it fares, the form that sellers will see, and taking packages.

use std::collections::HashMap;

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Multipart, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    charts::{self, PluginHour},
    frame::{Failure, Frame, go_to, part_of_path, said, show},
    login::{OwnForm, check_mark},
    texts::moment,
    viewer::Viewer,
};
use crate::{
    DiskTrouble, Downgrade, Host, HostError, Install, Isolation, PluginDetails, PluginStatus, PluginSummary, Scope,
    package::{FieldKind, FormField, Manifest},
    server::{
        api::hide_reason,
        problem::Problem,
        request::PathPart,
        state::App,
        upload::{UploadForm, refuse_uploads},
    },
};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/", get(overview))
        // Packages have a limit of their own, which is kept while they come in.
        .route("/plugins", post(upload).layer(DefaultBodyLimit::disable()))
        .route("/plugins/{id}", get(plugin))
        .route("/plugins/{id}/enable", post(|state, path, form| change(state, path, form, Change::Enable)))
        .route("/plugins/{id}/disable", post(|state, path, form| change(state, path, form, Change::Disable)))
        .route("/plugins/{id}/isolation", post(|state, path, form| change(state, path, form, Change::Isolation)))
        .route("/plugins/{id}/downgrade", post(|state, path, form| change(state, path, form, Change::Downgrade)))
        .route("/plugins/{id}/remove", post(|state, path, form| change(state, path, form, Change::Remove)))
        .route("/plugins/{id}/settings", post(set_settings))
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    plugins: Vec<PluginSummary>,
    hours: Vec<PluginHour>,
    takes_uploads: bool,
    /// The plugins of which the server goes on with an older version or older settings.
    stale: Vec<(String, String)>,
}

async fn overview(State(app): State<App>, viewer: Viewer) -> Result<Response, Failure> {
    let plugins = app.manage(Host::list).await.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let plugins = plugins.map_err(|error| Failure::of(&app, &viewer, error))?;
    let is_installed = |id: &str| plugins.iter().any(|plugin| plugin.id == id);
    let (hours, takes_uploads) = (charts::last_hour(&app, is_installed), app.options.uploads);
    let frame = Frame::new(&app, "Plugins", "plugins", viewer);
    let stale = app.host.stale_plugins();
    Ok(show(StatusCode::OK, &OverviewPage { frame, plugins, hours, takes_uploads, stale }))
}

#[derive(Template)]
#[template(path = "plugin.html")]
struct PluginPage {
    frame: Frame,
    plugin: PluginDetails,
    form: Vec<FormField>,
    settings: Option<String>,
    addon: Option<String>,
    /// What `package.json` says about its assets: a label, and values.
    facts: Vec<(&'static str, Vec<String>)>,
    is_asset_type: bool,
    /// Why the server goes on with an older version or older settings, if it does.
    stale: Option<String>,
    history: Vec<(String, String)>,
    manifest: String,
}

async fn plugin(State(app): State<App>, viewer: Viewer, PathPart(id): PathPart) -> Result<Response, Failure> {
    plugin_page(&app, viewer, id, None).await
}

/// Shows a plugin; with settings that were refused, and why.
async fn plugin_page(
    app: &App,
    viewer: Viewer,
    id: String,
    refused: Option<(String, HostError)>,
) -> Result<Response, Failure> {
    let found = app.manage(move |host| host.show(&id)).await.map_err(|problem| Failure::of(app, &viewer, problem))?;
    let mut plugin = found.map_err(|error| Failure::of(app, &viewer, error))?;
    // The rules held when it was installed.
    let manifest = Manifest::parse(plugin.manifest.as_str().as_bytes()).ok();
    let of_manifest = |texts: fn(&Manifest) -> Vec<String>| manifest.as_ref().map(texts).unwrap_or_default();
    let facts = vec![
        ("Formats", of_manifest(|manifest| manifest.formats.iter().map(|format| format.name().to_owned()).collect())),
        ("Media types", of_manifest(|manifest| manifest.media_types.clone())),
        ("Overrides", of_manifest(|manifest| manifest.overrides.clone())),
        ("Hears of", of_manifest(|manifest| manifest.events.clone())),
    ];
    let is_asset_type = !facts[0].1.is_empty();
    let (form, addon) = manifest.map(|manifest| (manifest.form, manifest.addon)).unwrap_or_default();
    let addon = addon.map(|addon| addon.id);
    let settings = viewer.may_manage().then(|| format!("{:#}", plugin.settings));
    let history = plugin.history.iter().rev();
    let history = history.map(|entry| (entry.version.clone(), moment(entry.installed_at))).collect();
    let manifest = format!("{:#}", plugin.manifest);
    if !viewer.may_manage() {
        hide_reason(&mut plugin);
    }
    let mut frame = Frame::new(app, plugin.summary.name.clone(), "plugins", viewer);
    let (status, settings) = match refused {
        None => (StatusCode::OK, settings),
        Some((typed, error)) => {
            let trouble = DiskTrouble::of(&error).and_then(|trouble| StatusCode::from_u16(trouble.status()).ok());
            frame = frame.with_error(said(error));
            (trouble.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY), Some(typed))
        }
    };
    let stale = app.host.stale_plugins().into_iter().find(|(id, _)| *id == plugin.summary.id);
    let stale = stale.map(|(_, reason)| reason);
    let page = PluginPage { frame, plugin, form, settings, addon, facts, is_asset_type, stale, history, manifest };
    Ok(show(status, &page).into_response())
}

/// What a viewer does with a plugin.
#[derive(Clone, Copy)]
enum Change {
    Enable,
    Disable,
    Isolation,
    Downgrade,
    Remove,
}

#[derive(Deserialize)]
struct ChangeForm {
    #[serde(default)]
    force: Option<String>,
    #[serde(default)]
    isolation: Option<Isolation>,
    #[serde(default)]
    version: Option<String>,
}

async fn change(
    State(app): State<App>,
    PathPart(id): PathPart,
    OwnForm { viewer, form }: OwnForm<ChangeForm>,
    change: Change,
) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let named = id.clone();
    let force = form.force.is_some();
    let done = app.manage(move |host| match change {
        Change::Enable => host.set_enabled(&named, true),
        Change::Disable => host.set_enabled(&named, false),
        Change::Isolation => {
            let mut runtime = host.show(&named)?.runtime;
            runtime.isolation = form.isolation.unwrap_or(runtime.isolation);
            host.set_runtime(&named, &runtime)
        }
        Change::Downgrade => host.downgrade(&named, &Downgrade { version: form.version.as_deref(), settings: None }),
        Change::Remove => host.remove(&named, force),
    });
    let own = format!("/plugins/{}", part_of_path(&id));
    let (text, is_error, to) = match done.await.map_err(|problem| Failure::of(&app, &viewer, problem))? {
        Ok(plugin) => match change {
            Change::Enable => (format!("{id} takes calls again."), false, own),
            Change::Disable => (format!("{id} takes no calls now."), false, own),
            Change::Isolation => (format!("{id} runs elsewhere from now on."), false, own),
            Change::Downgrade => (format!("{id} went back to {}.", plugin.version), false, own),
            Change::Remove => (format!("{id} was removed."), false, "/".to_owned()),
        },
        Err(error) => (said(error), true, own),
    };
    viewer.tell(&app, text, is_error);
    Ok(go_to(&to))
}

#[derive(Deserialize)]
struct SettingsForm {
    settings: String,
}

async fn set_settings(
    State(app): State<App>,
    PathPart(id): PathPart,
    OwnForm { viewer, form }: OwnForm<SettingsForm>,
) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let to = format!("/plugins/{}", part_of_path(&id));
    let (named, typed) = (id.clone(), form.settings.clone());
    let done = app.manage(move |host| host.set_settings(&named, form.settings.trim())).await;
    match done.map_err(|problem| Failure::of(&app, &viewer, problem))? {
        Ok(plugin) => {
            viewer.tell(&app, format!("{} has the new settings.", plugin.id), false);
            Ok(go_to(&to))
        }
        Err(error) => plugin_page(&app, viewer, id, Some((typed, error))).await,
    }
}

async fn upload(State(app): State<App>, viewer: Viewer, mut form: Multipart) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let installed = install(&app, &viewer, &mut form).await;
    match installed {
        Ok(installed) => {
            let plugin = &installed.plugin;
            let mut text = match &installed.previous {
                _ if installed.repaired => {
                    format!("{} {} was there: its files were put back.", plugin.id, plugin.version)
                }
                _ if installed.unchanged => format!("{} {} is installed already.", plugin.id, plugin.version),
                Some(previous) => format!("{} was upgraded from {previous} to {}.", plugin.id, plugin.version),
                None => format!("{} was installed, version {}.", plugin.id, plugin.version),
            };
            if let Some(reason) = &installed.needs_settings {
                text += &format!(" It needs settings: {reason}");
            }
            for warning in &installed.warnings {
                text += &format!("\n{warning}");
            }
            viewer.tell(&app, text, false);
            Ok(go_to(&format!("/plugins/{}", part_of_path(&plugin.id))))
        }
        Err(problem) if problem.status() == StatusCode::FORBIDDEN => Err(Failure::of(&app, &viewer, problem)),
        Err(problem) => {
            viewer.tell(&app, format!("The package was not installed. {}", problem.detail()), true);
            Ok(go_to("/"))
        }
    }
}

/// Takes a package from a form: first the form's mark, then the file.
async fn install(app: &App, viewer: &Viewer, form: &mut Multipart) -> Result<crate::Installed, Problem> {
    refuse_uploads(app)?;
    let mark = |fields: &HashMap<String, String>| fields.get("csrf").cloned().unwrap_or_default();
    let UploadForm { fields, package } =
        UploadForm::read(app, form, |fields| check_mark(app, viewer, &mark(fields))).await?;
    let force = fields.contains_key("force");
    let isolation = match fields.get("isolation").map(String::as_str) {
        Some("in-process") => Some(Isolation::InProcess),
        Some("process") => Some(Isolation::Process),
        _ => None,
    };
    let settings = fields.get("settings").map(|settings| settings.trim().to_owned()).filter(|text| !text.is_empty());
    let installed = app.manage(move |host| {
        host.install(package.path(), &Install { force, isolation, settings: settings.as_deref(), ..Install::default() })
    });
    Ok(installed.await??)
}
