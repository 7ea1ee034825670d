//! What an operator's handler may be, and whom it may call.

use std::{fmt, net::IpAddr};

use billhook_model::{Handler, Task, text::is_hidden};
use ureq::http::Uri;

/// Why there can't be such a handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the handler is refused: {0}")]
pub struct BadHandler(pub(crate) String);

/// Refuses what makes no sense.
pub(crate) fn check(handler: &Handler, allowed_hosts: Option<&[String]>) -> Result<(), BadHandler> {
    let wrong = |problem: String| Err(BadHandler(problem));
    if handler.name.trim() != handler.name || handler.name.is_empty() || handler.name.len() > 100 {
        return wrong("a name has 1 to 100 bytes, and no space before or behind it".to_owned());
    }
    if handler.deadline_ms == 0 || handler.deadline_ms > LONGEST_DEADLINE_MS {
        return wrong(format!("a deadline is 1 to {LONGEST_DEADLINE_MS} milliseconds"));
    }
    if handler.retry.attempts == 0 || handler.retry.attempts > 1_000 {
        return wrong("1 to 1000 attempts are made".to_owned());
    }
    if handler.secret.as_ref().is_some_and(|secret| secret.len() < 16) {
        return wrong("a secret has at least 16 bytes".to_owned());
    }
    if handler.retry.longest_ms < handler.retry.first_ms {
        return wrong("the longest pause is shorter than the first".to_owned());
    }
    if matches!(handler.task, Task::Http(_)) && !handler.environment.is_empty() {
        return wrong("only a script has an environment".to_owned());
    }
    if handler.name.chars().any(is_hidden) {
        return wrong("a name has no control characters and no hidden ones".to_owned());
    }
    if let Some(name) = handler.environment.iter().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return wrong(format!("{name:?} is no name of an environment variable"));
    }
    match &handler.task {
        Task::Http(address) => {
            let host = endpoint_of(address)?;
            if let Some(allowed) = allowed_hosts
                && !is_allowed(&host, allowed)
            {
                return wrong(format!("the host {host} is not among those that the configuration allows"));
            }
            Ok(())
        }
        Task::Script(words) if handler.secret.is_some() => {
            wrong(format!("a script is not sent over a network: {} needs no secret", words.join(" ")))
        }
        Task::Script(words) => match words.first() {
            Some(path) if !path.starts_with('/') => wrong(format!("{path:?} is no absolute path")),
            Some(_) if words.iter().any(|word| word.contains('\0')) => wrong("a word holds a zero byte".to_owned()),
            Some(_) => Ok(()),
            None => wrong("a script has a path".to_owned()),
        },
        other => wrong(format!("this billhook knows no tasks of the kind {}", other.kind())),
    }
}

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
    use billhook_model::RetryPolicy;

    use super::*;

    #[test]
    fn a_handler_that_makes_no_sense_is_refused_with_the_reason() {
        let http = |address: &str| Task::Http(address.to_owned());
        let script = |path: &str| Task::Script(vec![path.to_owned()]);
        let good = Handler::new("a", "clients.create", http("http://127.0.0.1:5000/api"));
        assert_eq!(check(&good, None), Ok(()));
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
            let error = check(&handler, None).expect_err(expected).to_string();
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
        assert!(check(&handler, Some(&allowed)).expect_err("refused").to_string().contains("169.254.169.254"));
    }
}
