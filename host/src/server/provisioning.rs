//! Add-on provisioning over HTTP, as cloudControl's and Heroku's platforms speak it.

use std::{net::IpAddr, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use billhook_plugin_api::{
    Hook, Json as Document,
    data::{AddonConfig, AddonRequest, ObjectId, SingleSignOn},
    json_tree::{JsonKind, JsonNode, JsonTree},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{read_json, read_small_form},
    connections,
    operation::{Api, Operation, operation},
    problem::{Message, Problem, Refusal},
    request::{self, Parameters, Peer},
    state::App,
};
use crate::{DiskTrouble, Host, ProvisioningError, SignOnRequest};

const TAG: &str = "add-ons";
const SIGNS_ON: &str = "The token is the hexadecimal SHA-1 of id:salt:timestamp.";
const SIGNED_ON: &str = "to where the add-on shows the resource, with the cookie heroku-nav-data";
const BASIC: &str = "Basic realm=\"billhook\", charset=\"UTF-8\"";

/// What a platform asks for. It may send more, which the add-on sees in the whole body.
#[derive(Debug, ToSchema)]
struct ResourceRequest {
    /// The platform's id of the resource or its application, as cloudControl names it.
    cloudcontrol_id: Option<ObjectId>,
    /// The same, as Heroku names it.
    heroku_id: Option<ObjectId>,
    /// The platform's key for this request: again, it is answered with the same resource.
    uuid: Option<String>,
    /// The plan.
    plan: Option<String>,
    /// Where the customer's application runs.
    region: Option<String>,
    /// Where the platform can be asked about the resource.
    callback_url: Option<String>,
    /// What the customer asked for besides.
    #[schema(value_type = serde_json::Value)]
    options: Option<Document<'static>>,
}

impl ResourceRequest {
    /// Reads what is told here, and leaves everything else alone, whatever it holds. A problem names its field.
    fn read(whole: JsonNode<'_>) -> Result<Self, String> {
        fn field<T: DeserializeOwned>(whole: JsonNode<'_>, name: &str) -> Result<Option<T>, String> {
            let Some(value) = whole.only(name)? else { return Ok(None) };
            value.parse().map_err(|error| format!("{name}: {error}"))
        }
        Ok(ResourceRequest {
            cloudcontrol_id: field(whole, "cloudcontrol_id")?,
            heroku_id: field(whole, "heroku_id")?,
            uuid: field(whole, "uuid")?,
            plan: field(whole, "plan")?,
            region: field(whole, "region")?,
            callback_url: field(whole, "callback_url")?,
            options: field(whole, "options")?,
        })
    }
}

/// A resource that was made.
#[derive(Debug, Serialize, ToSchema)]
struct Created {
    /// The add-on's id of it.
    id: ObjectId,
    /// What to set in the application's environment.
    config: AddonConfig,
    /// A sentence for the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A resource that was deleted: nothing is left to be told.
#[derive(Debug, Serialize, ToSchema)]
struct Gone {}

/// A resource that was changed.
#[derive(Debug, Serialize, ToSchema)]
struct Changed {
    /// What to set in the application's environment.
    config: AddonConfig,
}

impl Operation {
    /// It is for an add-on's platform, which reads messages.
    fn answers_platforms(self) -> Self {
        [
            (400, "the body is no JSON object, or its fields can't be read"),
            (401, "wrong credentials, or none"),
            (408, "the body took too long to arrive"),
            (413, "the body is too large"),
            (415, "the body isn't declared as JSON"),
            (422, "the add-on refuses"),
            (429, "too many wrong passwords came from there"),
            (500, "the add-on failed"),
            (503, "the add-on can't now; or the server's disk fails, or is read-only"),
            (507, "the server's disk is full"),
        ]
        .into_iter()
        .fold(self.for_platforms(), |operation, (status, text)| operation.answers::<Message>(status, text))
    }
}

impl Operation {
    fn answers_signed_on(self) -> Self {
        [
            (400, "the form can't be read"),
            (403, "nobody vouches for them, or it is too long ago"),
            (408, "the form took too long to arrive"),
            (413, "the form is too large"),
            (415, "the body isn't declared as a form"),
            (429, "too many wrong tokens came from there"),
            (500, "the add-on failed"),
            (503, "the add-on can't now; or the server's disk fails, or is read-only"),
            (507, "the server's disk is full"),
        ]
        .into_iter()
        .fold(self, |operation, (status, text)| operation.answers::<Message>(status, text))
    }
}

pub(super) fn add_to(api: &mut Api) {
    let options = api.app().options.provisioning.clone();
    // As long as the server, which is made once in a process.
    let path = |end: &str| -> &'static str { Box::leak(format!("{}{end}", options.base_path).into_boxed_str()) };
    let described = "Basic authentication: the user is the add-on's id, the password the one that its plugin has.";
    for end in ["/resources", "/resources/"] {
        api.add(
            operation(Method::POST, path(end), None, TAG, "A customer added the add-on")
                .describe(described)
                .takes::<ResourceRequest>()
                .answers::<Created>(201, "the resource; the same one if the uuid was seen before")
                .answers_platforms(),
            create,
        );
    }
    for end in ["/resources/{id}", "/resources/{id}/"] {
        api.add(
            operation(Method::PUT, path(end), None, TAG, "A customer chose another plan")
                .describe(described)
                .takes::<ResourceRequest>()
                .answers::<Changed>(200, "the resource's configuration")
                .answers::<Message>(404, "the add-on has no such resource")
                .answers_platforms(),
            update,
        );
        api.add(
            operation(Method::DELETE, path(end), None, TAG, "A customer removed the add-on")
                .describe(described)
                .answers::<Gone>(200, "it is gone")
                .answers::<Message>(404, "the add-on has no such resource")
                .answers_platforms(),
            delete,
        );
        api.add(
            operation(Method::GET, path(end), None, TAG, "A platform's link to see a resource")
                .describe("Its query has the fields of a sign-on but the id, which is in the path.")
                .answers_plain(302, SIGNED_ON)
                .answers_signed_on(),
            follow_to_resource,
        );
    }
    let sign_on_path: &'static str = Box::leak(options.sign_on_path.into_boxed_str());
    for path in [sign_on_path, Box::leak(format!("{sign_on_path}/").into_boxed_str())] {
        api.add(
            operation(Method::POST, path, None, TAG, "A platform sends somebody to see their resource")
                .describe(SIGNS_ON)
                .takes_form::<SignOnForm>()
                .answers_plain(302, SIGNED_ON)
                .answers_signed_on(),
            sign_on,
        );
        api.add(
            operation(Method::GET, path, None, TAG, "A platform's link to see a resource, by its id")
                .describe(SIGNS_ON)
                .query::<SignOnForm>()
                .answers_plain(302, SIGNED_ON)
                .answers_signed_on(),
            follow,
        );
    }
}

/// Finds out which add-on's platform asks.
async fn addon(app: &App, request: &Parts) -> Result<String, Refusal> {
    let (headers, extensions) = (&request.headers, &request.extensions);
    let peer = request::peer(app, headers, extensions.get());
    let wrong = || Problem::unauthorized("wrong credentials, or none", BASIC);
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let encoded = value.and_then(|value| {
        let (scheme, encoded) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(encoded.trim())
    });
    let decoded = encoded.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((addon, password)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) else {
        return Err(wrong().into());
    };
    // Each add-on's password is guessed for itself, and all that don't exist together.
    let guessed = match app.host.plugin_of_addon(addon) {
        Some(_) => format!("add-on {addon}"),
        None => "an add-on".to_owned(),
    };
    if let Some(seconds) = app.failures.must_wait(peer, &guessed) {
        let detail = "too many wrong passwords came from there";
        return Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, detail, seconds).into());
    }
    let (named, given) = (addon.to_owned(), password.to_owned());
    // With turns of its own: whoever has the password isn't kept out by what the add-on is busy with.
    let check = move |host: &Host| host.check_addon_password(&named, &given);
    let limit = limit(app, addon, Hook::AddonCredentials);
    match app.call(&format!("credentials of {addon}"), limit, check).await? {
        Ok(true) => {
            connections::keep(extensions)?;
            Ok(addon.to_owned())
        }
        Ok(false) | Err(ProvisioningError::NoAddon { .. }) => {
            app.failures.note(peer, &guessed, Some(&format!("{addon}:{password}")));
            Err(wrong().into())
        }
        // Nobody can be let in as long as the add-on doesn't say who may.
        Err(error) if DiskTrouble::of(&error).is_some() => Err(Problem::from(error).into()),
        Err(error) => {
            tracing::error!(addon, "its credentials can't be had: {error}");
            let detail = "the add-on doesn't answer now";
            Err(Problem::busy(StatusCode::SERVICE_UNAVAILABLE, detail, 5).into())
        }
    }
}

/// What stands for an add-on's plugin, where calls of plugins take turns: calls of its other hooks, too.
fn key(app: &App, addon: &str) -> String {
    app.host.plugin_of_addon(addon).unwrap_or_default()
}

/// The longest that an add-on may take, with waiting for another request about the same resource.
fn limit(app: &App, addon: &str, hook: Hook) -> Option<Duration> {
    let plugin = app.host.plugin_of_addon(addon)?;
    Some(app.host.longest_call(&plugin, hook)? + Duration::from_secs(15))
}

/// Reads what a platform asks for.
async fn asked(app: &App, headers: &HeaderMap, body: Body) -> Result<AddonRequest, Refusal> {
    let bytes = read_json(app, headers, body).await?;
    let bad = |detail: String| Refusal(Problem::bad_request(detail));
    let text = std::str::from_utf8(&bytes).map_err(|error| bad(format!("the body is not UTF-8: {error}")))?;
    let tree = JsonTree::read(text).map_err(|error| bad(format!("the body is no JSON object: {error}")))?;
    let whole = tree.root();
    if whole.kind() != JsonKind::Object {
        return Err(bad(format!("the body is no JSON object: it is {}", whole.kind().name())));
    }
    let ResourceRequest { cloudcontrol_id, heroku_id, uuid, plan, region, callback_url, options } =
        ResourceRequest::read(whole).map_err(|problem| bad(format!("the body can't be taken: {problem}")))?;
    let body = Document::new(text.to_owned()).map_err(|error| bad(error.to_string()))?;
    let uuid = uuid.filter(|uuid| !uuid.is_empty());
    if uuid.as_ref().is_some_and(|uuid| uuid.len() > 255) {
        return Err(bad("the uuid has more than 255 bytes".to_owned()));
    }
    let platform_id = cloudcontrol_id.or(heroku_id);
    let options = options.unwrap_or_default();
    Ok(AddonRequest { uuid, platform_id, plan, region, callback_url, options, body })
}

/// The id at the end of a path: of an add-on's resource, or of any.
///
/// A plus sign stands for itself in a path. Clients that encode it as a form send one for a space: it is one where there is only a
/// resource of that id.
async fn id_of(app: &App, addon: Option<&str>, uri: &Uri) -> Result<String, Refusal> {
    let path = uri.path().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let decoded = |text: &str| match percent_encoding::percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such resource")),
    };
    let written = decoded(last)?;
    if !last.contains('+') {
        return Ok(written);
    }
    let spaced = decoded(&last.replace('+', " "))?;
    for id in [&written, &spaced] {
        let asked = id.clone();
        let owners = app.manage(move |host| host.resource_owners(&asked)).await??;
        if owners.iter().any(|owner| addon.is_none_or(|addon| owner == addon)) {
            return Ok(id.clone());
        }
    }
    Ok(written)
}

async fn create(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let addon = addon(&app, &parts).await?;
    let request = asked(&app, &parts.headers, body).await?;
    let (key, limit) = (key(&app, &addon), limit(&app, &addon, Hook::AddonCreate));
    let created = app.call(&key, limit, move |host| host.create_resource(&addon, &request)).await??;
    let resource = created.resource;
    let none = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the resource has no id");
    let id = resource.id.ok_or_else(none)?;
    let created = Created { id, config: resource.config, message: resource.message };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

async fn update(State(app): State<App>, request: Request) -> Result<Json<Changed>, Refusal> {
    let (parts, body) = request.into_parts();
    let addon = addon(&app, &parts).await?;
    let id = id_of(&app, Some(&addon), &parts.uri).await?;
    let request = asked(&app, &parts.headers, body).await?;
    let (key, limit) = (key(&app, &addon), limit(&app, &addon, Hook::AddonUpdate));
    let resource = app.call(&key, limit, move |host| host.update_resource(&addon, &id, &request)).await??;
    Ok(Json(Changed { config: resource.config }))
}

async fn delete(State(app): State<App>, request: Request) -> Result<Json<Gone>, Refusal> {
    let (parts, _) = request.into_parts();
    let addon = addon(&app, &parts).await?;
    let id = id_of(&app, Some(&addon), &parts.uri).await?;
    let (key, limit) = (key(&app, &addon), limit(&app, &addon, Hook::AddonDelete));
    app.call(&key, limit, move |host| host.delete_resource(&addon, &id)).await??;
    Ok(Json(Gone {}))
}

/// The form of single sign-on.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
struct SignOnForm {
    /// The add-on's id of the resource.
    id: String,
    /// The hexadecimal SHA-1 of `id:salt:timestamp`.
    token: String,
    /// When the platform sent them, in seconds since 1970.
    timestamp: String,
    /// What the platform's bar at the top of the page is made of.
    #[serde(rename = "nav-data")]
    nav_data: String,
    /// The same, as some clients spell it.
    #[serde(rename = "nav_data")]
    nav_data_too: String,
    /// Whom it sent.
    email: String,
    /// Their application.
    app: String,
}

async fn sign_on(State(app): State<App>, Peer(peer): Peer, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = read_small_form(&app, &parts.headers, body).await?;
    let form = serde_urlencoded::from_bytes(&bytes).map_err(|error| Problem::bad_request(error.to_string()))?;
    admit(&app, peer, form).await
}

/// Single sign-on by an address.
async fn follow(
    State(app): State<App>,
    Peer(peer): Peer,
    Parameters(form): Parameters<SignOnForm>,
) -> Result<Response, Refusal> {
    admit(&app, peer, form).await
}

/// Single sign-on by the address of a resource, which has its id in it.
async fn follow_to_resource(
    State(app): State<App>,
    Peer(peer): Peer,
    Parameters(form): Parameters<SignOnForm>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let id = id_of(&app, None, &uri).await?;
    admit(&app, peer, SignOnForm { id, ..form }).await
}

/// Lets somebody in whom a platform sent.
async fn admit(app: &App, peer: IpAddr, form: SignOnForm) -> Result<Response, Refusal> {
    let SignOnForm { id, token, timestamp, nav_data, nav_data_too, email, app: application } = form;
    let nav_data = if nav_data.is_empty() { nav_data_too } else { nav_data };
    let nobody = || Problem::new(StatusCode::FORBIDDEN, "nobody vouches for this sign-on, or it is too old");
    // One that comes too late is none, whoever vouches for it.
    if !SignOnRequest::is_recent(&timestamp, app.host.now()) {
        return Err(nobody().into());
    }
    let wait = |guessed: &str| match app.failures.must_wait(peer, guessed) {
        None => Ok(()),
        Some(seconds) => {
            let detail = "too many wrong tokens came from there";
            Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, detail, seconds))
        }
    };
    // The salt of each resource's add-on is guessed for itself, and ids that no resource has together: whoever guesses at some keeps
    // nobody out who has another.
    let guessed = format!("sign-on {id}");
    wait(&guessed)?;
    let asked = id.clone();
    let owners = app.manage(move |host| host.resource_owners(&asked)).await??;
    let Some(addon) = owners.into_iter().next() else {
        wait("sign-on")?;
        app.failures.note(peer, "sign-on", None);
        return Err(nobody().into());
    };
    let login = SingleSignOn { email, app: application, nav_data: nav_data.clone() };
    let request = SignOnRequest { id, token, timestamp, login };
    let (key, limit) = (key(app, &addon), limit(app, &addon, Hook::AddonSingleSignOn));
    let signed_on = app.call(&key, limit, move |host| host.sign_on(&request)).await?;
    let Some(signed_on) = signed_on.map_err(sign_on_refusal)? else {
        app.failures.note(peer, &guessed, None);
        return Err(nobody().into());
    };
    let location = HeaderValue::from_str(&signed_on.location)
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the add-on answered no address"))?;
    let mut response = (StatusCode::FOUND, [(header::LOCATION, location)]).into_response();
    if let Some(cookie) = cookie(&nav_data, app.is_secure()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// An add-on without single sign-on lets nobody in.
fn sign_on_refusal(error: ProvisioningError) -> Refusal {
    match error {
        ProvisioningError::Refused(refusal) if refusal.status() < 500 => {
            Problem::new(StatusCode::FORBIDDEN, refusal.message()).into()
        }
        error => error.into(),
    }
}

/// The cookie that the platform's bar at the top of the page is made of. Its script reads it, so it isn't hidden from scripts.
fn cookie(nav_data: &str, is_secure: bool) -> Option<HeaderValue> {
    // What a cookie can't hold is written as in an address.
    const PLAIN: &percent_encoding::AsciiSet =
        &percent_encoding::CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');
    let value = percent_encoding::utf8_percent_encode(nav_data, PLAIN);
    let secure = if is_secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("heroku-nav-data={value}; Path=/; SameSite=Lax{secure}")).ok()
}
