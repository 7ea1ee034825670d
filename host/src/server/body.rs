//! Bodies of requests: read within limits, as what they have to be; and what is left of those that nobody reads.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, OptionalFromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use billhook_plugin_api::json_tree::parse_located;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::timeout,
};

use super::{
    media::{check_begin, check_text},
    problem::Problem,
    state::App,
};

/// A request's body as it is lent to whoever answers the request. It comes back when they leave it unread.
struct Lent {
    body: Option<Incoming>,
    was_begun: bool,
    is_read: bool,
    back: Option<oneshot::Sender<(Incoming, bool)>>,
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.was_begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        // After an error, nothing comes any more either.
        self.is_read = frame.as_ref().is_none_or(Result::is_err);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take().filter(|_| !self.is_read), self.back.take()) {
            let _ = back.send((body, self.was_begun));
        }
    }
}

/// What comes back of a body.
pub(super) struct Rest {
    back: Option<oneshot::Receiver<(Incoming, bool)>>,
    /// The client waits to be told that it may send it.
    waits: bool,
}

/// Lends a request's body to whoever answers it.
pub(super) fn lend(request: Request<Incoming>) -> (Request, Rest) {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        let rest = Rest { back: None, waits: false };
        return (Request::from_parts(parts, Body::new(body)), rest);
    }
    let waits = parts.headers.contains_key(header::EXPECT);
    let (sender, receiver) = oneshot::channel();
    let lent = Lent { body: Some(body), was_begun: false, is_read: false, back: Some(sender) };
    (Request::from_parts(parts, Body::new(lent)), Rest { back: Some(receiver), waits })
}

impl Rest {
    /// Reads what nobody wanted, as far as that is bearable: who is still sending when the answer comes may never see it, and a
    /// connection with something unread can't be used any more. Whether it can.
    pub(super) async fn read(self, status: StatusCode) -> bool {
        const BEARABLE: u64 = 16 * 1024 * 1024;
        let Some(mut back) = self.back else { return true };
        let (mut body, was_begun) = match back.try_recv() {
            Ok(rest) => rest,
            // It was read to its end.
            Err(TryRecvError::Closed) => return true,
            Err(TryRecvError::Empty) => return false,
        };
        let is_late = status == StatusCode::REQUEST_TIMEOUT;
        if is_late || (self.waits && !was_begun) || body.size_hint().lower() > BEARABLE {
            return false;
        }
        let read = async {
            let mut size = 0;
            while let Some(frame) = body.frame().await {
                size += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
                if size > BEARABLE {
                    return None;
                }
            }
            Some(())
        };
        timeout(Duration::from_secs(10), read).await.is_ok_and(|read| read.is_some())
    }
}

/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// Reads JSON: what is declared as that, no more bytes and no longer than the options say.
pub(super) async fn read_json(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    read_text(app, headers, "application/json", body, app.options.body_kb.saturating_mul(1024)).await
}

/// Reads a form.
pub(super) async fn read_form(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    read_text(app, headers, FORM, body, app.options.body_kb.saturating_mul(1024)).await
}

/// Reads the form of somebody who is unknown as yet: a few fields, and no room for more.
pub(super) async fn read_small_form(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    read_text(app, headers, FORM, body, 64 * 1024).await
}

async fn read_text(app: &App, headers: &HeaderMap, kind: &str, body: Body, most: usize) -> Result<Bytes, Problem> {
    check_text(headers, kind)?;
    let bytes = read_at_most(app, body, most).await?;
    check_begin(&bytes)?;
    Ok(bytes)
}

async fn read_at_most(app: &App, body: Body, most: usize) -> Result<Bytes, Problem> {
    let time = Duration::from_secs(app.options.receive_s);
    let read = timeout(time, Limited::new(body, most).collect()).await;
    match read {
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body has more than {most} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body can't be read: {error}"))),
    }
}

/// A body of JSON, whatever it holds, as it was sent.
#[derive(Debug)]
pub(super) struct AnyJsonBody(pub(super) Box<RawValue>);

impl FromRequest<App> for AnyJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        parse(&json(request, app).await?).map(AnyJsonBody)
    }
}

/// A body of JSON: an object.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

/// The bytes of a body that is declared as JSON.
async fn json(request: Request, app: &App) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    read_json(app, &parts.headers, body).await
}

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = json(request, app).await?;
        // A list would be taken for the fields in their order.
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => Err(Problem::bad_request("the body has to be an object")),
            _ => parse(&bytes).map(JsonBody),
        }
    }
}

/// A body that may be left out.
impl<T: DeserializeOwned> OptionalFromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Option<Self>, Problem> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<App>>::from_request(request, app).await.map(Some)
    }
}

/// Reads JSON. The problem names the field that doesn't fit.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // What can't be read is a mistake of the client's; 422 is for what is read and refused.
    let bad = |problem: String| Problem::bad_request(format!("the body can't be taken: {problem}"));
    let text = std::str::from_utf8(bytes).map_err(|error| bad(format!("it is not UTF-8: {error}")))?;
    parse_located(text).map_err(bad)
}
