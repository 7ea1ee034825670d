//! The usage API over HTTP: TMF635 in the shapes of the Business API Ecosystem's version 2.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use billhook_machine::MachineClock;
use billhook_model::{number, text::visible_line};
use billhook_plugin_api::json_tree::{JsonKind, JsonNode, JsonTree};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use ureq::{
    Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri},
};

use super::api::{
    FoundSpecification, FoundUsageDocument, NewSpecification, NewUsageDocument, SpecificationRef, UsageApi,
    UsageApiError,
};
use crate::http_client::{HttpClient, Limits, Repeat, Unanswered};

/// How the usage API is reached. In TOML or JSON the fields have the names that they have here.
///
/// Secrets can be given as files, so that they need not stand among other settings.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageApiSettings {
    /// The address below which `/usage` and `/usageSpecification` are, such as
    /// `https://store.example/DSUsageManagement/api/usageManagement/v2`.
    pub base_url: String,
    /// How long connecting may take, in milliseconds; 5 seconds unless set.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// How long a whole call may take, in milliseconds; 30 seconds unless set.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// How long a call that got no answer in time may still be at work, in milliseconds; as `timeout_ms` unless set. See
    /// [`UsageApi::settle_time`].
    #[serde(default)]
    pub settle_ms: Option<u64>,
    /// Headers that every call carries.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A token for `Authorization: Bearer`.
    #[serde(default)]
    pub bearer_token: Option<String>,
    /// A file that holds nothing but the token.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// A user for basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<String>,
    /// A file that holds nothing but the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The address of a customer, with `{id}` where the id is to be; usage documents refer to customers by it. Left out,
    /// they refer by the id alone.
    #[serde(default)]
    pub customer_href: Option<String>,
}

fn connect_timeout_ms() -> u64 {
    5_000
}

fn timeout_ms() -> u64 {
    30_000
}

impl UsageApiSettings {
    /// The settings for an address, with everything else as it is unless set.
    pub fn new(base_url: impl Into<String>) -> Self {
        UsageApiSettings {
            base_url: base_url.into(),
            connect_timeout_ms: connect_timeout_ms(),
            timeout_ms: timeout_ms(),
            settle_ms: None,
            headers: BTreeMap::new(),
            bearer_token: None,
            bearer_token_file: None,
            username: None,
            password: None,
            password_file: None,
            customer_href: None,
        }
    }
}

impl fmt::Debug for UsageApiSettings {
    /// Without address, headers and credentials, which are secrets or may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageApiSettings").field("timeout_ms", &self.timeout_ms).finish_non_exhaustive()
    }
}

/// Why the settings of a usage API can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the settings of the usage API are wrong: {0}")]
pub struct UsageApiSettingsError(String);

/// The usage API over HTTP. Connections are kept alive; redirects are not followed, and no proxy is taken from the environment.
pub struct HttpUsageApi {
    client: HttpClient,
    limits: Limits<'static>,
    /// When a kept connection was found closed last.
    closed: Mutex<Option<Instant>>,
    base: String,
    headers: HeaderMap,
    customer_href: Option<String>,
    settle_time: Duration,
}

impl fmt::Debug for HttpUsageApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUsageApi").finish_non_exhaustive()
    }
}

/// After a kept connection was found closed, no other is trusted for so long.
const DISTRUST: Duration = Duration::from_secs(60);
/// The most that is read of one answer.
const LARGEST_ANSWER: u64 = 64 * 1024 * 1024;
/// The most pages that a list may have.
const MOST_PAGES: usize = 100_000;
/// What stays as it is in a path segment or a query value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl HttpUsageApi {
    /// A client with these settings. Connects to nothing yet.
    pub fn new(settings: &UsageApiSettings) -> Result<Self, UsageApiSettingsError> {
        let wrong = |problem: &str| UsageApiSettingsError(problem.to_owned());
        // The address is not shown: it may hold a secret that doesn't belong there.
        let base = settings.base_url.trim_end_matches('/').to_owned();
        if base.contains('@') {
            return Err(wrong("base_url can't hold a user; set username and password"));
        }
        let uri: Uri = base.parse().map_err(|_| wrong("base_url is no address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(wrong("base_url has to begin with http:// or https:// and a host"));
        }
        if uri.query().is_some() {
            return Err(wrong("base_url can't have a query; set headers instead"));
        }
        let wrong = |problem: String| UsageApiSettingsError(problem);
        if settings.timeout_ms == 0 || settings.connect_timeout_ms == 0 {
            return Err(wrong("a time limit can't be 0".to_owned()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let name: HeaderName = name.parse().map_err(|_| wrong(format!("{name:?} is no name of a header")))?;
            headers.insert(name.clone(), secret(value, name.as_str())?);
        }
        if let Some(authorization) = authorization(settings)? {
            headers.insert("authorization", secret(&authorization, "authorization")?);
            let local = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
            if uri.scheme_str() == Some("http") && !local {
                tracing::warn!("the credentials of the usage API go over plain http");
            }
        }
        let limits = Limits {
            whole: Duration::from_millis(settings.timeout_ms),
            connect: Duration::from_millis(settings.connect_timeout_ms),
            begin: None,
        };
        let settle_time = Duration::from_millis(settings.settle_ms.unwrap_or(settings.timeout_ms));
        Ok(HttpUsageApi {
            client: HttpClient::new(16, 8, Arc::new(MachineClock)),
            limits,
            closed: Mutex::default(),
            base,
            headers,
            customer_href: settings.customer_href.clone(),
            settle_time,
        })
    }

    /// Makes a call and reads the whole answer, whatever its status.
    fn call(&self, method: Method, path: &str, body: Option<&[u8]>) -> Result<Answer, UsageApiError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
            headers.insert("accept", HeaderValue::from_static("application/json"));
            if body.is_some() {
                headers.insert("content-type", HeaderValue::from_static("application/json"));
            }
        }
        let impossible = |error: ureq::http::Error| UsageApiError::Refused(format!("it can't be asked: {error}"));
        // What makes something would make it twice; everything else may be asked again.
        let repeat = match request.method_ref() {
            Some(&Method::POST) if self.closes_connections() => Repeat::OnNewConnection,
            Some(&Method::POST) => Repeat::Never,
            _ => Repeat::Safe,
        };
        let request = request.body(body.unwrap_or_default()).map_err(impossible)?;
        let response = self.client.send(&request, self.limits, repeat);
        Answer::read(response.map_err(|unanswered| {
            if unanswered.was_on_stale_connection {
                *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            failed(&unanswered)
        })?)
    }

    /// Whether it closed a kept connection a moment ago: then another is made for what must not be sent twice.
    fn closes_connections(&self) -> bool {
        let closed = *self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.is_some_and(|at| at.elapsed() < DISTRUST)
    }

    /// Reads a list, page after page.
    ///
    /// A server may answer all at once, or a page of a size that it chooses, and may or may not tell which it did. So what
    /// follows the last entry is asked for until nothing new comes; and a list that is shorter than the server said, or
    /// that it called a part, is an error. A server that cuts lists off, takes no offset and says nothing can't be told from
    /// one that answers all.
    fn list(&self, path: &str, each: &mut dyn FnMut(JsonNode<'_>)) -> Result<(), UsageApiError> {
        let unknown = |problem: String| UsageApiError::Unknown(format!("the list of {path} is not whole: {problem}"));
        let mut known: HashSet<String> = HashSet::new();
        let (mut received, mut total, mut is_part) = (0_usize, None, false);
        for _ in 0..MOST_PAGES {
            let at = |offset: usize| if offset == 0 { path.to_owned() } else { format!("{path}&offset={offset}") };
            let answer = self.call(Method::GET, &at(received), None)?;
            total = total.max(answer.total);
            if received > 0 && matches!(answer.status.as_u16(), 400 | 404 | 416) {
                // Nothing is at an offset behind the end, or something is wrong: then it is so with the last entry too.
                let last = self.call(Method::GET, &at(received - 1), None)?.success();
                let last = last.map_err(|error| unknown(error.to_string()))?;
                let is_empty = last.document(JsonKind::List)?.root().is_empty();
                return match total {
                    Some(total) if known.len() < total => Err(unknown(format!("{} of {total} came", known.len()))),
                    _ if is_empty => Err(unknown("its last entry is gone".to_owned())),
                    _ => Ok(()),
                };
            }
            let answer = answer.success().map_err(|error| match received {
                0 => error,
                _ => unknown(error.to_string()),
            })?;
            is_part |= answer.status == StatusCode::PARTIAL_CONTENT;
            let entries = answer.document(JsonKind::List)?;
            let (mut is_empty, mut is_new) = (true, false);
            for entry in entries.root().elements() {
                (is_empty, received) = (false, received + 1);
                let id = id_of(entry).ok_or_else(|| unknown("an entry has no id".to_owned()))?;
                if known.insert(id) {
                    is_new = true;
                    each(entry);
                }
            }
            match total {
                Some(total) if known.len() >= total => return Ok(()),
                Some(total) if !is_new => return Err(unknown(format!("{} of {total} came", known.len()))),
                // The same page again: the server takes no offset.
                None if !is_new && !is_empty && is_part => return Err(unknown("only a part of it comes".to_owned())),
                None if !is_new => return Ok(()),
                _ => {}
            }
        }
        Err(unknown(format!("it has more than {MOST_PAGES} pages")))
    }
}

fn secret(value: &str, name: &str) -> Result<HeaderValue, UsageApiSettingsError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| UsageApiSettingsError(format!("the value of {name} can't be sent in a header")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn authorization(settings: &UsageApiSettings) -> Result<Option<String>, UsageApiSettingsError> {
    let read = |value: &Option<String>, file: &Option<PathBuf>, name: &str| match (value, file) {
        (Some(_), Some(_)) => Err(UsageApiSettingsError(format!("{name} and {name}_file are both set"))),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map(|text| Some(text.trim().to_owned()))
            .map_err(|error| UsageApiSettingsError(format!("{} can't be read: {error}", path.display()))),
        (None, None) => Ok(None),
    };
    let token = read(&settings.bearer_token, &settings.bearer_token_file, "bearer_token")?;
    let password = read(&settings.password, &settings.password_file, "password")?;
    match (token, &settings.username, password) {
        (Some(_), Some(_), _) => Err(UsageApiSettingsError("bearer_token and username are both set".to_owned())),
        (_, None, Some(_)) => Err(UsageApiSettingsError("there is a password and no username".to_owned())),
        (Some(token), None, None) => Ok(Some(format!("Bearer {token}"))),
        (None, Some(user), password) => {
            let password = password.unwrap_or_default();
            Ok(Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))))
        }
        (None, None, None) => Ok(None),
    }
}

/// What a call that got no answer means.
fn failed(unanswered: &Unanswered) -> UsageApiError {
    let message = unanswered.error.to_string();
    if unanswered.is_bad_request() {
        UsageApiError::Refused(format!("it can't be asked: {message}"))
    } else if !unanswered.was_sent {
        UsageApiError::Unreachable(message)
    } else if unanswered.was_on_stale_connection {
        UsageApiError::Closed(message)
    } else if unanswered.is_timed_out() {
        UsageApiError::NoAnswer(message)
    } else {
        UsageApiError::Unknown(message)
    }
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    /// How many entries a list has in all, where the server tells.
    total: Option<usize>,
    location: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut response: Response<Body>) -> Result<Self, UsageApiError> {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let total = header("x-total-count").and_then(|total| total.trim().parse().ok());
        let location = header("location").map(str::to_owned);
        let status = response.status();
        let body = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec();
        match body {
            Ok(body) => Ok(Answer { status, total, location, body }),
            // The status alone says what became of it, unless it says that all went well.
            Err(_) if !status.is_success() => Ok(Answer { status, total, location, body: Vec::new() }),
            Err(error) => Err(UsageApiError::Unknown(format!("its answer can't be read: {error}"))),
        }
    }

    /// The answer, if it is one that all went well.
    fn success(self) -> Result<Self, UsageApiError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.body);
        let said: String = visible_line(&said).chars().take(300).collect();
        let mut message = self.status.to_string();
        if let (true, Some(location)) = (self.status.is_redirection(), &self.location) {
            message.push_str(&format!(", to {location}; redirects are not followed, set base_url"));
        } else if !said.trim().is_empty() {
            message.push_str(&format!(": {}", said.trim()));
        }
        Err(match self.status.as_u16() {
            404 | 410 => UsageApiError::NotFound(message),
            // A gateway answers these for a server that is still at work.
            408 | 504 => UsageApiError::NoAnswer(message),
            // A conflict may be with the document that an earlier try made.
            409 | 500.. => UsageApiError::Unknown(message),
            // The same for every record: wrong credentials, a wrong address, too many calls.
            300..=399 | 401 | 403 | 405 | 407 | 421 | 425 | 426 | 429 | 431 => UsageApiError::Unavailable(message),
            _ => UsageApiError::Refused(message),
        })
    }

    /// What was made, from the body or, where there is none, from the address in the header.
    fn created(self) -> Result<SpecificationRef, UsageApiError> {
        let is_empty = self.body.iter().all(u8::is_ascii_whitespace);
        let (mut id, mut href) = (None, String::new());
        if !is_empty {
            let created = self.document(JsonKind::Object)?;
            (id, href) = (id_of(created.root()), text_of(created.root(), "href"));
        }
        let href = Some(href).filter(|href| !href.is_empty()).or(self.location);
        let last = |href: &str| href.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
        let id = id.or_else(|| href.as_deref().and_then(last)).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| UsageApiError::Unknown("it answered with neither id nor href".to_owned()))?;
        Ok(SpecificationRef { href: href.unwrap_or_default(), id })
    }

    /// The body, which has to be a document of this kind.
    fn document(&self, kind: JsonKind) -> Result<JsonTree<'_>, UsageApiError> {
        let wrong = |problem: String| {
            UsageApiError::Unknown(format!("{}, and its answer is not what it has to be: {problem}", self.status))
        };
        let text = std::str::from_utf8(&self.body).map_err(|error| wrong(error.to_string()))?;
        let document = JsonTree::read(text).map_err(|error| wrong(error.to_string()))?;
        match document.root().kind() {
            found if found == kind => Ok(document),
            found => Err(wrong(format!("it is {}, and no {}", found.name(), kind.name()))),
        }
    }
}

/// An id, which some servers write as a number.
fn id_of(entry: JsonNode<'_>) -> Option<String> {
    text_or_digits(entry.get("id")?)
}

/// A text or a number as it is written; `None` for an empty text, and for anything else.
fn text_or_digits(value: JsonNode<'_>) -> Option<String> {
    match value.kind() {
        JsonKind::Number => Some(value.as_str().to_owned()),
        _ => value.text().filter(|text| !text.is_empty()).map(Cow::into_owned),
    }
}

/// A text of an object; empty where there is none.
fn text_of(object: JsonNode<'_>, name: &str) -> String {
    object.get(name).and_then(JsonNode::text).map(Cow::into_owned).unwrap_or_default()
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageBody<'a> {
    date: &'a str,
    r#type: &'a str,
    status: &'a str,
    usage_specification: SpecificationBody<'a>,
    usage_characteristic: [Named<'a>; 5],
    related_party: [PartyBody<'a>; 1],
}

#[derive(Serialize)]
struct SpecificationBody<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    href: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct PartyBody<'a> {
    role: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    href: Option<String>,
}

/// The body of a new usage specification: what its documents have, in the order of the original.
fn specification_body(new: &NewSpecification<'_>) -> serde_json::Value {
    let characteristic = |name: &str, description: &str, kind: &str, value: &str, from: &str| {
        serde_json::json!({
            "name": name, "description": description, "configurable": "false",
            "usageSpecCharacteristicValue":
                [{"valueType": kind, "default": "false", "value": value, "valueFrom": from, "valueTo": ""}],
        })
    };
    serde_json::json!({
        "name": new.name,
        "description": new.description,
        "usageSpecCharacteristic": [
            characteristic("orderId", "Order Id", "number", "", "0"),
            characteristic("productId", "Product Id", "number", "", "0"),
            characteristic("correlationNumber", "Correlation Number", "number", "", "0"),
            characteristic("unit", "Accounted Unit", "string", new.name, ""),
            characteristic("value", "Usage Made", "number", "", ""),
        ],
    })
}

/// The usage document in an entry of a list; none if it isn't one of ours.
fn found_document(entry: JsonNode<'_>) -> Option<FoundUsageDocument> {
    let characteristics = entry.get("usageCharacteristic")?;
    let characteristic = |name: &str| {
        let is_named = |one: &JsonNode<'_>| text_of(*one, "name").eq_ignore_ascii_case(name);
        text_or_digits(characteristics.elements().find(is_named)?.get("value")?)
    };
    Some(FoundUsageDocument {
        id: id_of(entry)?,
        status: text_of(entry, "status"),
        order_id: characteristic("orderId")?,
        product_id: characteristic("productId")?,
        correlation_number: number::whole(&characteristic("correlationNumber")?),
        unit: characteristic("unit"),
        value: characteristic("value"),
    })
}

fn encoded(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, PLAIN)
}

impl UsageApi for HttpUsageApi {
    fn create_specification(&self, new: &NewSpecification<'_>) -> Result<SpecificationRef, UsageApiError> {
        let body = specification_body(new).to_string();
        self.call(Method::POST, "/usageSpecification", Some(body.as_bytes()))?.success()?.created()
    }

    fn specifications(&self, name: &str) -> Result<Vec<FoundSpecification>, UsageApiError> {
        let mut found = Vec::new();
        let listed = self.list(&format!("/usageSpecification?name={}", encoded(name)), &mut |entry| {
            // A server may ignore the filter.
            if let (Some(id), true) = (id_of(entry), text_of(entry, "name") == name) {
                let (at, description) =
                    (SpecificationRef { id, href: text_of(entry, "href") }, text_of(entry, "description"));
                found.push(FoundSpecification { at, name: name.to_owned(), description });
            }
        });
        match listed {
            // Some servers answer so where nothing has the name.
            Ok(()) | Err(UsageApiError::NotFound(_)) => Ok(found),
            Err(error) => Err(error),
        }
    }

    fn delete_specification(&self, specification: &SpecificationRef) -> Result<(), UsageApiError> {
        let path = format!("/usageSpecification/{}", encoded(&specification.id));
        self.call(Method::DELETE, &path, None)?.success().map(drop)
    }

    fn create_usage(&self, new: &NewUsageDocument<'_>) -> Result<String, UsageApiError> {
        let number = new.correlation_number.to_string();
        let href = self.customer_href.as_ref();
        let body = UsageBody {
            date: new.date,
            r#type: "event",
            status: "Received",
            usage_specification: SpecificationBody {
                id: &new.specification.id,
                href: &new.specification.href,
                name: new.unit,
            },
            usage_characteristic: [
                Named { name: "orderId", value: new.order_id },
                Named { name: "productId", value: new.product_id },
                Named { name: "correlationNumber", value: &number },
                Named { name: "unit", value: new.unit },
                Named { name: "value", value: new.value },
            ],
            related_party: [PartyBody {
                role: "customer",
                id: new.customer,
                href: href.map(|href| href.replace("{id}", &encoded(new.customer).to_string())),
            }],
        };
        let body = serde_json::to_vec(&body)
            .map_err(|error| UsageApiError::Refused(format!("the document can't be written: {error}")))?;
        Ok(self.call(Method::POST, "/usage", Some(&body))?.success()?.created()?.id)
    }

    fn guide_usage(&self, id: &str) -> Result<(), UsageApiError> {
        // In lower case: the original's usage API takes no other spelling.
        let path = format!("/usage/{}", encoded(id));
        self.call(Method::PATCH, &path, Some(br#"{"status":"guided"}"#))?.success().map(drop)
    }

    fn customer_usage(&self, customer: &str, each: &mut dyn FnMut(FoundUsageDocument)) -> Result<(), UsageApiError> {
        let listed = self.list(&format!("/usage?relatedParty.id={}", encoded(customer)), &mut |entry| {
            found_document(entry).into_iter().for_each(&mut *each);
        });
        match listed {
            // Some servers answer so where a customer has none. Then they answer otherwise where any has.
            Err(UsageApiError::NotFound(_)) => self.call(Method::GET, "/usage?limit=1", None)?.success().map(drop),
            listed => listed,
        }
    }

    fn call_time(&self) -> Duration {
        self.limits.whole
    }

    fn settle_time(&self) -> Duration {
        self.settle_time
    }
}
