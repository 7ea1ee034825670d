//! An operator's handler: a script or an HTTP endpoint that is attached to an event.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use ureq::http::Uri;

use crate::shown::is_hidden;

/// When a handler is called.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// Before it happens: it may change the data, or forbid.
    Before,
    /// After it happened: told at least once.
    After,
}

/// Whether a handler is called.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HandlerStatus {
    /// It is called.
    Enabled,
    /// It is not called; deliveries that it had before wait.
    Disabled,
    /// It is not called and not listed; deliveries that it had before become dead letters.
    Archived,
}

/// What stands for a before handler that doesn't answer.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnFailure {
    /// Go on, with the data as it is.
    Open,
    /// Forbid.
    Closed,
}

macro_rules! names {
    ($($type:ident { $($variant:ident = $name:literal),* })*) => {$(
        impl $type {
            /// The name in JSON and in tables.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )*};
}

names! {
    Mode { Before = "before", After = "after" }
    HandlerStatus { Enabled = "enabled", Disabled = "disabled", Archived = "archived" }
    OnFailure { Open = "open", Closed = "closed" }
}

/// What is called.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// An `http` or `https` address that the envelope is posted to.
    Http(String),
    /// The absolute path of a script, and its arguments.
    Script(Vec<String>),
}

impl Task {
    /// `http` or `script`.
    pub fn kind(&self) -> &'static str {
        match self {
            Task::Http(_) => "http",
            Task::Script(_) => "script",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Http(address) => f.write_str(address),
            Task::Script(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// How often, and how far apart, a delivery is attempted.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// The most attempts, the first included; after the last one a delivery is a dead letter.
    pub attempts: u32,
    /// The pause after the first attempt, in milliseconds; each later one is twice as long. Each is shortened by chance, by up to
    /// half, so that many don't come at once.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub longest_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { attempts: 8, first_ms: 1_000, longest_ms: 600_000 }
    }
}

impl RetryPolicy {
    /// The pause after so many failed attempts.
    pub(crate) fn pause(&self, failed: u32) -> Duration {
        let doubled = self.first_ms.saturating_mul(1 << failed.saturating_sub(1).min(32));
        let longest = doubled.min(self.longest_ms);
        Duration::from_millis(fastrand::u64(longest / 2..=longest))
    }
}

/// A handler: what is called, when, and what becomes of failures.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// The name, which no other handler has.
    pub name: String,
    /// The event.
    pub event: String,
    /// When it is called.
    pub mode: Mode,
    /// What is called.
    pub task: Task,
    /// Whether it is called.
    pub status: HandlerStatus,
    /// Its place among the listeners: lower ones come first.
    pub priority: u32,
    /// How long a call may take, in milliseconds.
    pub deadline_ms: u64,
    /// How often a delivery is attempted; of no effect before.
    pub retry: RetryPolicy,
    /// What stands for it where it doesn't answer; of no effect after.
    pub on_failure: OnFailure,
    /// The names of the environment variables that a script gets beside `PATH`.
    #[serde(default)]
    pub environment: Vec<String>,
    /// The key that calls over HTTP are signed with. Never shown.
    #[serde(skip)]
    pub secret: Option<String>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).field("task", &self.task).finish_non_exhaustive()
    }
}

/// Why there can't be such a handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the handler is refused: {0}")]
pub struct BadHandler(pub(crate) String);

impl Handler {
    /// A handler with the defaults: enabled, after the event, priority 100, ten seconds, eight attempts, closed.
    pub fn new(name: impl Into<String>, event: impl Into<String>, task: Task) -> Self {
        Handler {
            name: name.into(),
            event: event.into(),
            mode: Mode::After,
            task,
            status: HandlerStatus::Enabled,
            priority: DEFAULT_PRIORITY,
            deadline_ms: 10_000,
            retry: RetryPolicy::default(),
            on_failure: OnFailure::Closed,
            environment: Vec::new(),
            secret: None,
        }
    }

    /// How long a call may take.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// Refuses what makes no sense.
    pub(crate) fn check(&self, allowed_hosts: Option<&[String]>) -> Result<(), BadHandler> {
        let wrong = |problem: String| Err(BadHandler(problem));
        if self.name.trim() != self.name || self.name.is_empty() || self.name.len() > 100 {
            return wrong("a name has 1 to 100 bytes, and no space before or behind it".to_owned());
        }
        if self.deadline_ms == 0 || self.deadline_ms > LONGEST_DEADLINE_MS {
            return wrong(format!("a deadline is 1 to {LONGEST_DEADLINE_MS} milliseconds"));
        }
        if self.retry.attempts == 0 || self.retry.attempts > 1_000 {
            return wrong("1 to 1000 attempts are made".to_owned());
        }
        if self.secret.as_ref().is_some_and(|secret| secret.len() < 16) {
            return wrong("a secret has at least 16 bytes".to_owned());
        }
        if self.retry.longest_ms < self.retry.first_ms {
            return wrong("the longest pause is shorter than the first".to_owned());
        }
        if matches!(self.task, Task::Http(_)) && !self.environment.is_empty() {
            return wrong("only a script has an environment".to_owned());
        }
        if self.name.chars().any(is_hidden) {
            return wrong("a name has no control characters and no hidden ones".to_owned());
        }
        if let Some(name) = self.environment.iter().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return wrong(format!("{name:?} is no name of an environment variable"));
        }
        match &self.task {
            Task::Http(address) => {
                let host = endpoint_of(address)?;
                if let Some(allowed) = allowed_hosts
                    && !is_allowed(&host, allowed)
                {
                    return wrong(format!("the host {host} is not among those that the configuration allows"));
                }
                Ok(())
            }
            Task::Script(words) if self.secret.is_some() => {
                wrong(format!("a script is not sent over a network: {} needs no secret", words.join(" ")))
            }
            Task::Script(words) => match words.first() {
                Some(path) if !path.starts_with('/') => wrong(format!("{path:?} is no absolute path")),
                Some(_) if words.iter().any(|word| word.contains('\0')) => wrong("a word holds a zero byte".to_owned()),
                Some(_) => Ok(()),
                None => wrong("a script has a path".to_owned()),
            },
        }
    }
}

/// The priority of a listener that was given none.
pub(crate) const DEFAULT_PRIORITY: u32 = 100;
/// A call of a handler may take a day at most.
const LONGEST_DEADLINE_MS: u64 = 86_400_000;

/// The host of an address, with the port where it has one.
pub(crate) fn endpoint_of(address: &str) -> Result<Endpoint, BadHandler> {
    // The address may hold a secret that doesn't belong there, so none of these shows it.
    let wrong = |problem: &str| BadHandler(problem.to_owned());
    let uri: Uri = address.parse().map_err(|_| wrong("its address is invalid"))?;
    let authority =
        uri.authority().ok_or_else(|| wrong("its address has to begin with http:// or https:// and a host"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("its address has to begin with http:// or https://"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("its address can't hold a user; sign calls with a secret instead"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("its address has no host"));
    }
    let port = authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = port.map_or(Ok(default), |(_, port)| port.parse::<u16>());
    let port = port.map_err(|_| wrong("its address has an invalid port"))?;
    Ok(Endpoint { host: canonical(authority.host()), port, shown: authority.as_str().to_ascii_lowercase() })
}

/// The host and the port that an address leads to; the port of its scheme, if it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    shown: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A host as it is compared: names without regard to case and to a point at the end, addresses in their shortest form.
fn canonical(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase(),
    }
}

/// Whether calls may go to an endpoint: an entry is `host`, `host:port`, or `*.domain` for all hosts below a domain, with or
/// without a port. An entry without a port allows every one.
pub(crate) fn is_allowed(endpoint: &Endpoint, allowed: &[String]) -> bool {
    allowed.iter().any(|entry| {
        let entry = entry.trim();
        let (host, port) = match entry.rsplit_once(':') {
            // An IPv6 address alone has colons, too.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse::<u16>() {
                Ok(port) => (host, Some(port)),
                Err(_) => return false,
            },
            _ => (entry, None),
        };
        let is_host = match host.strip_prefix("*.") {
            Some(domain) => {
                let rest = endpoint.host.strip_suffix(&canonical(domain));
                rest.is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
            }
            None => canonical(host) == endpoint.host,
        };
        is_host && port.is_none_or(|port| port == endpoint.port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_makes_no_sense_is_refused_with_the_reason() {
        let http = |address: &str| Task::Http(address.to_owned());
        let script = |path: &str| Task::Script(vec![path.to_owned()]);
        let good = Handler::new("a", "clients.create", http("http://127.0.0.1:5000/api"));
        assert_eq!(good.check(None), Ok(()));
        let cases: [(Handler, &str); 9] = [
            (Handler { name: " a".into(), ..good.clone() }, "no space"),
            (Handler { name: "a\u{1b}".into(), ..good.clone() }, "control"),
            (Handler { deadline_ms: 0, ..good.clone() }, "deadline"),
            (Handler { retry: RetryPolicy { attempts: 0, ..RetryPolicy::default() }, ..good.clone() }, "attempts"),
            (Handler { secret: Some("short".into()), ..good.clone() }, "16 bytes"),
            (Handler { task: http("ftp://a.example/"), ..good.clone() }, "http://"),
            (Handler { task: http("http://user:secret@a.example/"), ..good.clone() }, "user"),
            (Handler { task: http("/api"), ..good.clone() }, "host"),
            (Handler { task: script("local/script.py"), ..good.clone() }, "absolute"),
        ];
        for (handler, expected) in cases {
            let error = handler.check(None).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("secret@"), "{error}");
        }
    }

    #[test]
    fn only_hosts_that_are_allowed_are_called() {
        let allowed: Vec<String> = [
            "127.0.0.1:5000",
            "*.acme.example",
            "one.example",
            "two.example:80",
            "*.three.example:443",
            "[::1]:8080",
            "::2",
            "FOUR.example.",
        ]
        .map(str::to_owned)
        .into();
        for (address, expected) in [
            ("http://two.example/", true),
            ("http://two.example:80/", true),
            ("https://two.example/", false),
            ("https://two.example:80/", true),
            ("https://a.three.example/", true),
            ("http://a.three.example/", false),
            ("https://three.example/", false),
            ("http://[::1]:8080/", true),
            ("http://[0:0:0::1]:8080/", true),
            ("http://[::1]/", false),
            ("http://[::2]:9/", true),
            ("http://four.example/", true),
            ("http://Four.Example.:81/", true),
        ] {
            let endpoint = endpoint_of(address).expect(address);
            assert_eq!(is_allowed(&endpoint, &allowed), expected, "{address}");
        }
        for (host, expected) in [
            ("127.0.0.1:5000", true),
            ("127.0.0.1:5001", false),
            ("a.acme.example", true),
            ("a.b.acme.example:8080", true),
            ("acme.example", false),
            ("evilacme.example", false),
            ("one.example:80", true),
            ("one.example.evil", false),
        ] {
            let endpoint = endpoint_of(&format!("http://{host}/")).expect(host);
            assert_eq!(is_allowed(&endpoint, &allowed), expected, "{host}");
        }
        let handler = Handler::new("a", "clients.create", Task::Http("http://169.254.169.254/latest".into()));
        assert!(handler.check(Some(&allowed)).expect_err("refused").to_string().contains("169.254.169.254"));
    }

    #[test]
    fn pauses_grow_and_differ() {
        let policy = RetryPolicy { attempts: 8, first_ms: 1_000, longest_ms: 5_000 };
        for (failed, longest) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (200, 5_000)] {
            for _ in 0..50 {
                let pause = policy.pause(failed).as_millis();
                assert!((longest / 2..=longest).contains(&pause), "{pause} after {failed}");
            }
        }
    }
}
