//! What goes wrong, as clients hear of it: `application/problem+json` (RFC 9457).

use std::{any::Any, error::Error, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use billhook_plugin_api::ErrorKind;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::options::ProvisioningOptions;
use crate::{
    BundleError, DiskTrouble, EventError, HookError, HostError, ProvisioningError, StoreError, StoreErrorKind,
    TrialError, UsageError,
    package::{CheckErrors, ManifestError},
    text::with_causes,
};

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) struct Problem(Box<Body>);

/// The body of an answer to a request that came to nothing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body {
    /// What kind of problem it is: `about:blank`, which says that the status tells.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(value_type = u16)]
    #[serde(serialize_with = "number")]
    status: StatusCode,
    /// What is wrong with this request.
    detail: String,
    /// What else is known: of a hook its `outcome` (`refused`, `failed` or `unknown`), `kind`, `plugin`, `handler`, `hook`,
    /// `asset`, `retry_after_ms` and `outcome_unknown`; of a package its `errors`;
    /// of a plugin that is needed its `uses`: `assets`, `unsent_usage`, `resources`, and `state` with `values` and `bytes`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    more: Map<String, Value>,
    #[serde(skip)]
    challenge: Option<&'static str>,
    #[serde(skip)]
    retry_after: Option<u64>,
    #[serde(skip)]
    accepts_no_encoding: bool,
}

impl Body {
    /// What became of a hook.
    pub(super) fn outcome(&self) -> &str {
        self.more.get("outcome").and_then(Value::as_str).unwrap_or("refused")
    }
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem(Box::new(Body {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            detail: detail.into(),
            more: Map::new(),
            challenge: None,
            retry_after: None,
            accepts_no_encoding: false,
        }))
    }

    /// What its answer says.
    pub(super) fn into_body(self) -> Body {
        *self.0
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A client that has to prove who it is, and how.
    pub(super) fn unauthorized(detail: &str, challenge: &'static str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, detail);
        problem.0.challenge = Some(challenge);
        problem
    }

    /// It may go better later.
    pub(super) fn busy(status: StatusCode, detail: impl Into<String>, seconds: u64) -> Self {
        Self::new(status, detail).after(Some(seconds))
    }

    fn after(mut self, seconds: Option<u64>) -> Self {
        self.0.retry_after = seconds;
        self
    }

    /// A body was encoded, and none that is gets taken (RFC 9110, section 15.5.16).
    pub(super) fn accepting_no_encoding(mut self) -> Self {
        self.0.accepts_no_encoding = true;
        self
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(key.to_owned(), value.into());
        self
    }
}

impl Problem {
    /// In the form that is expected at a path: platforms read messages.
    pub(super) fn at(self, options: &ProvisioningOptions, path: &str) -> Response {
        if options.is_for_platforms(path) { Refusal(self).into_response() } else { self.into_response() }
    }
}

/// What goes wrong, as platforms read it.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Problem);

/// The body of a refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Message {
    /// A sentence for the platform's customer.
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(problem) = self;
        let message = Message { message: problem.detail().to_owned() };
        let (mut parts, _) = problem.into_response().into_parts();
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, axum::body::Body::from(serde_json::to_vec(&message).unwrap_or_default()))
    }
}

impl<T: Into<Problem>> From<T> for Refusal {
    fn from(problem: T) -> Self {
        Refusal(problem.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem(body) = self;
        if body.status.is_server_error() {
            tracing::error!(status = body.status.as_u16(), "{}", body.detail);
        }
        let mut response = (body.status, Json(&body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = body.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if body.accepts_no_encoding {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if let Some(seconds) = body.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub(super) fn panicked(panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!("a panic in the server: {}", message.unwrap_or("it says nothing"));
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed").into_response()
}

impl From<HookError> for Problem {
    fn from(error: HookError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem = Problem::new(status, error.public_message());
        let more = serde_json::to_value(&error).unwrap_or_default();
        for (key, value) in more.as_object().into_iter().flatten() {
            if !["status", "message"].contains(&key.as_str()) {
                problem.0.more.insert(key.clone(), value.clone());
            }
        }
        let after = error.retry_after().map(|delay| delay.as_secs_f64().ceil() as u64);
        let outcome = match error.kind() {
            _ if error.is_outcome_unknown() => "unknown",
            ErrorKind::Internal => "failed",
            _ => "refused",
        };
        problem.after(after).with("outcome", outcome)
    }
}

impl Problem {
    /// The server's own trouble, if an error comes from it: the log has the whole of it, and clients hear what it is without where.
    pub(super) fn of_server(error: &(dyn Error + 'static)) -> Option<Self> {
        DiskTrouble::of(error).map(|trouble| Self::of_disk(trouble, error))
    }

    fn of_disk(trouble: DiskTrouble, error: &(dyn Error + 'static)) -> Self {
        tracing::error!("{}", with_causes(error));
        let status = StatusCode::from_u16(trouble.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(DISK_RETRY);
        Problem::new(status, trouble.to_string()).after(after).with("kind", trouble.name())
    }
}

/// When it makes sense to ask again after trouble of the disk, in seconds.
const DISK_RETRY: u64 = 30;

/// What a client hears of an error of the host's, without paths of the server's.
fn public(error: &HostError) -> String {
    match error {
        HostError::Home { source, .. } => format!("the server's home can't be used: {}", source.kind()),
        HostError::Write { source, .. } => format!("the server's home can't be written to: {}", source.kind()),
        HostError::Read(source) => format!("the package can't be read: {}", source.kind()),
        HostError::Trial(TrialError::Start(source)) => format!("the module can't be tried: {}", source.kind()),
        HostError::Trial(TrialError::Noexec { .. }) => {
            "the server's home is mounted noexec: no plugin can be run from it".to_owned()
        }
        HostError::GroupWritable { .. } => "the server's home can be written to by its group".to_owned(),
        HostError::Store(error) => public_store(error),
        error => with_causes(error),
    }
}

/// The same of what is kept.
fn public_store(error: &StoreError) -> String {
    match error.kind() {
        StoreErrorKind::Open => "the registry can't be opened".to_owned(),
        _ => with_causes(error),
    }
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        if let Some(problem) = Problem::of_server(&error) {
            return problem;
        }
        if let HostError::ReadOnly { .. } = error {
            return Problem::of_disk(DiskTrouble::ReadOnly, &error);
        }
        let detail = public(&error);
        let status = match &error {
            HostError::NotInstalled { .. } | HostError::NoToken { .. } => StatusCode::NOT_FOUND,
            HostError::InUse { .. }
            | HostError::SameVersion { .. }
            | HostError::NewerInstalled { .. }
            | HostError::OtherAuthor { .. }
            | HostError::OtherSpelling { .. }
            | HostError::AddonTaken { .. }
            | HostError::HasResources { .. }
            | HostError::OthersResources { .. }
            | HostError::NotLoadable { .. }
            | HostError::NoOlderVersion { .. } => StatusCode::CONFLICT,
            HostError::Trial(TrialError::Start(_) | TrialError::Noexec { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
            HostError::Package(_)
            | HostError::Trial(_)
            | HostError::SettingsRefused { .. }
            | HostError::NotInHistory { .. }
            | HostError::SettingsTooLarge { .. }
            | HostError::RunPolicy { .. }
            | HostError::OtherPlugin { .. }
            | HostError::TokenName => StatusCode::UNPROCESSABLE_ENTITY,
            HostError::SettingsNotJson(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!("{}", with_causes(&error));
        }
        let nevertheless = match &error {
            HostError::InUse { .. } => "; nothing was removed, which force=true does nevertheless",
            HostError::OtherAuthor { .. } | HostError::OtherSpelling { .. } | HostError::OthersResources { .. } => {
                "; force=true installs it nevertheless"
            }
            _ => "",
        };
        let problem = Problem::new(status, detail + nevertheless).with("kind", error.kind());
        match &error {
            HostError::Package(errors) => problem.with("errors", package_errors(errors)),
            HostError::InUse { uses, .. } => problem.with("uses", serde_json::to_value(uses).unwrap_or_default()),
            _ => problem,
        }
    }
}

/// Every fault of a package on its own.
fn package_errors(errors: &CheckErrors) -> Value {
    let each = errors.0.iter().flat_map(|error| match error {
        crate::package::CheckError::Manifest(ManifestError::Rules(violations)) => {
            violations.iter().map(|violation| json!({"path": violation.path, "problem": violation.problem})).collect()
        }
        other => vec![json!({"problem": other.to_string()})],
    });
    each.collect()
}

impl From<EventError> for Problem {
    fn from(error: EventError) -> Self {
        if let Some(problem) = Problem::of_server(&error) {
            return problem;
        }
        let detail = with_causes(&error);
        let status = match error {
            EventError::NoHandler { .. } | EventError::NoDelivery { .. } | EventError::NoOwnEvent { .. } => {
                StatusCode::NOT_FOUND
            }
            EventError::Unknown(_)
            | EventError::BadName(_)
            | EventError::Data { .. }
            | EventError::BadObjectId(_)
            | EventError::BadHandler(_) => StatusCode::UNPROCESSABLE_ENTITY,
            EventError::EventExists { .. }
            | EventError::EventInUse { .. }
            | EventError::OtherEvent { .. }
            | EventError::HandlerExists { .. }
            | EventError::HandlerInUse { .. }
            | EventError::Delivery { .. } => StatusCode::CONFLICT,
            EventError::Forbidden(forbidden) => {
                let status = if forbidden.by_policy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
                let kind = if forbidden.by_policy { ErrorKind::Unavailable } else { ErrorKind::Forbidden };
                let problem = Problem::new(status, detail).with("kind", kind.name());
                return problem.with("handler", forbidden.handler).with("outcome", "refused");
            }
            EventError::Host(error) => return error.into(),
            EventError::Store(ref error) if error.kind() == StoreErrorKind::TooLong => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, detail)
    }
}

impl From<BundleError> for Problem {
    fn from(error: BundleError) -> Self {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl From<UsageError> for Problem {
    fn from(error: UsageError) -> Self {
        if let Some(problem) = Problem::of_server(&error) {
            return problem;
        }
        let status = match error {
            UsageError::NoUsageApi | UsageError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            UsageError::Incomplete { .. } | UsageError::Bundle(_) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match error {
            UsageError::NoUsageApi => {
                Problem::new(status, "this server has no usage API; [usage_api] in its configuration names one")
            }
            UsageError::Busy(_) => Problem::busy(status, error.to_string(), 5),
            error => Problem::new(status, with_causes(&error)),
        }
    }
}

impl From<ProvisioningError> for Problem {
    fn from(error: ProvisioningError) -> Self {
        let of_plugin = match &error {
            ProvisioningError::Refused(refusal) => refusal.disk_trouble(),
            _ => None,
        };
        if let Some(trouble) = of_plugin.or_else(|| DiskTrouble::of(&error)) {
            return Problem::of_disk(trouble, &error);
        }
        let status = match &error {
            ProvisioningError::NoAddon { .. } | ProvisioningError::NoResource { .. } => StatusCode::NOT_FOUND,
            ProvisioningError::Refused(refusal) => match refusal.kind() {
                ErrorKind::NotFound => StatusCode::NOT_FOUND,
                ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                // What became of it can be found out by asking again.
                ErrorKind::Internal if refusal.is_outcome_unknown() => StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            },
            ProvisioningError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // What the add-on refuses with is for the customer; how it failed, or why it takes no calls, is for the operator.
        let is_for_customer = match &error {
            ProvisioningError::Refused(refusal) => refusal.is_of_plugin() && refusal.kind() != ErrorKind::Internal,
            other => matches!(other, ProvisioningError::NoAddon { .. } | ProvisioningError::NoResource { .. }),
        };
        if !is_for_customer {
            tracing::error!("an add-on failed: {}", with_causes(&error));
        }
        let (detail, after) = match &error {
            ProvisioningError::Refused(refusal) if is_for_customer => {
                (refusal.message().to_owned(), refusal.retry_after())
            }
            other if is_for_customer => (other.to_string(), None),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                ("the add-on can't do this now: ask again".to_owned(), Some(Duration::from_secs(5)))
            }
            _ => ("the add-on failed".to_owned(), None),
        };
        Problem::new(status, detail).after(after.map(|delay| delay.as_secs_f64().ceil() as u64))
    }
}
