//! Calling a handler over HTTP. `docs/handlers.md` is the contract.

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use billhook_model::{Clock, Mode, Moment, text::hex};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use ureq::{
    Body as ResponseBody,
    http::{HeaderMap, Request, Response, Uri, header},
};

use super::{
    answer::{Answer, Body, Called, LARGEST_ANSWER, response},
    handler::{endpoint_of, is_allowed},
};
use crate::http_client::{Begin, HttpClient, Limits, Repeat, Unanswered};

/// What is posted.
pub(super) struct Post<'a> {
    pub(super) address: &'a str,
    pub(super) mode: Mode,
    pub(super) secret: Option<&'a str>,
    /// The same at every attempt.
    pub(super) idempotency_key: &'a str,
    pub(super) envelope: &'a [u8],
    pub(super) limit: Duration,
    /// Until when it may be begun, if that is limited.
    pub(super) begin: Option<Begin<'a>>,
}

/// Calls handlers over HTTP. Connections are kept alive.
pub(super) struct Client {
    client: HttpClient,
    clock: Arc<dyn Clock>,
    allowed_hosts: Option<Vec<String>>,
}

/// A redirect to the same host is followed so often.
const MOST_REDIRECTS: usize = 3;
/// Finding a host and connecting to it take no longer.
const LONGEST_REACHING: Duration = Duration::from_secs(10);
/// Nobody may ask for another attempt later than that.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(86_400);

impl Client {
    pub(super) fn new(allowed_hosts: Option<Vec<String>>, clock: Arc<dyn Clock>) -> Self {
        Client { client: HttpClient::new(256, 16, Arc::clone(&clock)), clock, allowed_hosts }
    }

    /// Posts an envelope, and tells what the handler answered.
    pub(super) fn call(&self, post: &Post<'_>) -> Called {
        let bare = |answer| Called { answer, response: String::new() };
        let deadline = Instant::now() + post.limit;
        let mut address = post.address.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            // Looked at for each call: the configuration may have changed since the handler was added.
            match endpoint_of(&address) {
                Err(error) => return bare(Answer::Failed(error.to_string())),
                Ok(host) if self.allowed_hosts.as_ref().is_some_and(|allowed| !is_allowed(&host, allowed)) => {
                    let problem = format!("the host {host} is not among those that the configuration allows");
                    return bare(Answer::Failed(problem));
                }
                Ok(_) => {}
            }
            let answered = match self.post(&address, post, deadline) {
                Ok(answered) => answered,
                Err(unanswered) => return bare(self.failed(&unanswered, post)),
            };
            let status = answered.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return read(answered, post, self.clock.now());
            }
            match redirected(&address, status, answered.headers()) {
                Ok(next) => address = next,
                Err(problem) => return bare(Answer::Failed(problem)),
            }
        }
        bare(Answer::Failed(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    /// What a call that got no answer means.
    fn failed(&self, unanswered: &Unanswered, post: &Post<'_>) -> Answer {
        let error = &unanswered.error;
        if !unanswered.was_sent {
            return match post.begin {
                Some(begin) if self.clock.since_boot() >= begin.before => Answer::NotBegun,
                _ if unanswered.is_bad_request() => Answer::Failed(format!("it can't be called: {error}")),
                _ => Answer::Again { problem: format!("it can't be reached: {error}"), after: None },
            };
        }
        if unanswered.is_timed_out() {
            return timed_out(post.limit);
        }
        Answer::Unknown(format!("the call broke off: {error}: outcome unknown"))
    }

    fn post(&self, address: &str, post: &Post<'_>, deadline: Instant) -> Result<Response<ResponseBody>, Unanswered> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = Request::post(address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header("idempotency-key", post.idempotency_key);
        if let Some(secret) = post.secret {
            let now = self.clock.now().seconds().unsigned_abs();
            request = request.header(SIGNATURE, signature(secret, now, post.envelope));
        }
        let bad =
            |error| Unanswered { error: ureq::Error::Http(error), was_sent: false, was_on_stale_connection: false };
        let request = request.body(post.envelope).map_err(bad)?;
        let limits = Limits { whole: left, connect: LONGEST_REACHING, begin: post.begin };
        // The key tells the handler when it is sent again.
        self.client.send(&request, limits, Repeat::Safe)
    }
}

/// The header that holds the signature: `t=SECONDS,v1=HEX`.
const SIGNATURE: &str = "billhook-signature";

/// The HMAC-SHA-256 of the time, a point, and the body.
fn signature(secret: &str, time: u64, body: &[u8]) -> String {
    let mut text = format!("t={time},v1=");
    // A key of any length will do.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        mac.update(time.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        text += &hex(&mac.finalize().into_bytes());
    }
    text
}

/// Where a redirect leads to: only to the same host, and only as what keeps the method.
fn redirected(address: &str, status: u16, headers: &HeaderMap) -> Result<String, String> {
    let refused = |why: &str| format!("it answered {status}, a redirect {why}, which is not followed");
    if !matches!(status, 307 | 308) {
        return Err(refused("that would turn the POST into a GET"));
    }
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| refused("to nowhere"))?;
    let uri: Uri = address.parse().map_err(|_| refused("from nowhere"))?;
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |at| at.as_str()));
    let origin = format!("{scheme}://{authority}");
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(format!("{origin}{location}"));
    }
    let is_same = location.parse::<Uri>().is_ok_and(|to| {
        let other = to.authority().map_or("", |at| at.as_str());
        to.scheme_str() == Some(scheme) && other.eq_ignore_ascii_case(authority)
    });
    if is_same { Ok(location.to_owned()) } else { Err(refused("to another place")) }
}

/// Reads an answer, and tells what it means.
fn read(mut answered: Response<ResponseBody>, post: &Post<'_>, now: Moment) -> Called {
    let status = answered.status().as_u16();
    let after = retry_after(answered.headers(), now);
    let mut body = Vec::new();
    // One byte more than is taken, to see whether there is more.
    let most = LARGEST_ANSWER as u64;
    let read = answered.body_mut().as_reader().take(most + 1).read_to_end(&mut body);
    let is_cut = body.len() > LARGEST_ANSWER;
    body.truncate(LARGEST_ANSWER);
    let response = response(&body);
    if let Err(error) = read {
        let answer = match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(ureq::Error::Timeout(_)) => timed_out(post.limit),
            _ if error.kind() == std::io::ErrorKind::TimedOut => timed_out(post.limit),
            _ => Answer::Unknown(format!("its answer broke off: {error}")),
        };
        return Called { answer, response };
    }
    let message = |otherwise: &str| Body::message(&body, otherwise);
    let answer = match status {
        // After an event, nobody waits for its data.
        200..=299 if post.mode == Mode::After => Answer::Passed { data: None },
        200..=299 if is_cut => Answer::Failed(format!("its answer has more than {LARGEST_ANSWER} bytes")),
        200..=299 => match Body::parse(&body) {
            Ok(body) => Answer::Passed { data: body.data },
            Err(problem) => Answer::Failed(problem),
        },
        403 | 409 | 422 => Answer::Forbidden(message(&format!("it answered {status}"))),
        429 | 503 => Answer::Again { problem: format!("it answered {status}: {}", message("no reason")), after },
        500..=599 => Answer::Again { problem: format!("it answered {status}: {}", message("no reason")), after: None },
        _ => Answer::Failed(format!("it answered {status}: {}", message("no reason"))),
    };
    Called { answer, response }
}

/// The time that `Retry-After` names: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Moment) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::from(now)).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_RETRY_AFTER))
}

fn timed_out(limit: Duration) -> Answer {
    Answer::TimedOut(format!("timed out after {} s: outcome unknown", limit.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_hmac_of_time_and_body() {
        // Made with: printf '1700000000.{}' | openssl dgst -sha256 -hmac 'a key of the operator'
        let expected = "t=1700000000,v1=aec51efa2783196b25f0a599d2c96934efd297084f87dd0577efd4d19f125d50";
        let made = signature("a key of the operator", 1_700_000_000, b"{}");
        assert_eq!(made, expected);
        assert_ne!(made, signature("a key of the operator", 1_700_000_001, b"{}"));
        assert_ne!(made, signature("a key of the operators", 1_700_000_000, b"{}"));
    }

    #[test]
    fn redirects_lead_only_to_the_same_host() {
        let from = "https://a.example:8443/api?x=1";
        let to = |status, location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, header::HeaderValue::from_static(location));
            redirected(from, status, &headers)
        };
        assert_eq!(to(307, "/other").as_deref(), Ok("https://a.example:8443/other"));
        assert_eq!(to(308, "https://A.example:8443/other").as_deref(), Ok("https://A.example:8443/other"));
        for (status, location) in [
            (302, "/other"),
            (307, "https://b.example/"),
            (307, "http://a.example:8443/"),
            (307, "//b.example/"),
            (307, "https://a.example/"),
            (307, "other"),
        ] {
            to(status, location).expect_err(location);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a value"));
            retry_after(&headers, Moment::from_seconds(1_700_000_000))
        };
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("99999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }
}
