//! Events, their deliveries, and the execution log.

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use billhook_plugin_api::{Json as Document, data::ObjectId};
use serde::{Deserialize, Serialize};

use super::{
    frame::{Failure, Frame, go_to, said, show},
    login::OwnForm,
    texts::{asked, moment, took},
    viewer::{LIVE, Viewer},
};
use crate::{
    Delivery, DeliveryFilter, DeliveryStatus, EventError, EventInfo, Execution, ExecutionFilter, ExecutionStatus,
    Named, NewEvent, Scope, parse_moment,
    server::{
        problem::Problem,
        request::{Parameters, PathPart},
        state::App,
    },
};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/events", get(emit_page).post(emit))
        .route("/deliveries", get(deliveries).post(settle_all))
        .route("/deliveries/{number}", get(delivery))
        .route("/deliveries/{number}/redrive", post(|state, path, form| settle(state, path, form, true)))
        .route("/deliveries/{number}/discard", post(|state, path, form| settle(state, path, form, false)))
        .route("/log", get(log))
        .route(LIVE, get(log_rows))
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct EmitForm {
    event: String,
    object: String,
    data: String,
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    frame: Frame,
    events: Vec<EventInfo>,
    form: EmitForm,
}

async fn events_page(app: &App, viewer: Viewer, form: EmitForm, problem: Option<Problem>) -> Result<Response, Failure> {
    let events = app.manage(|host| host.events()).await.map_err(|problem| Failure::of(app, &viewer, problem))?;
    let events = events.map_err(|error| Failure::of(app, &viewer, error))?;
    let mut frame = Frame::new(app, "Events", "events", viewer);
    let mut status = StatusCode::OK;
    if let Some(problem) = problem {
        status = problem.status();
        frame = frame.with_error(problem.detail());
    }
    Ok(show(status, &EventsPage { frame, events, form }))
}

async fn emit_page(State(app): State<App>, viewer: Viewer) -> Result<Response, Failure> {
    let form = EmitForm { data: "{}".to_owned(), ..EmitForm::default() };
    events_page(&app, viewer, form, None).await
}

async fn emit(State(app): State<App>, OwnForm { viewer, form }: OwnForm<EmitForm>) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Emit)?;
    let data = match Document::new(form.data.trim().to_owned()) {
        Ok(data) => data,
        Err(error) => {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("The data are no JSON: {error}."));
            return events_page(&app, viewer, form, Some(problem)).await;
        }
    };
    let event = NewEvent::new(form.event.trim()).with_data(data);
    // As with the command: without any it is the data's own.
    let event = match form.object.trim() {
        "" => event.about_own_id(),
        text => Ok(event.about(ObjectId::typed(text))),
    };
    let mut event = match event {
        Ok(event) => event,
        Err(error) => return events_page(&app, viewer, form, Some(EventError::from(error).into())).await,
    };
    let key = format!("event {}", form.event);
    let emitted = app.call(&key, None, move |host| -> Result<_, EventError> {
        event.data = host.before(&event)?;
        host.emit(&event)
    });
    match emitted.await.and_then(|emitted| Ok(emitted?)) {
        Ok(emitted) => {
            let count = emitted.deliveries.len();
            let text = match count {
                0 => "Nobody listens to it now.".to_owned(),
                1 => "It has 1 delivery.".to_owned(),
                _ => format!("It has {count} deliveries."),
            };
            viewer.tell(&app, format!("The event {} is recorded. {text}", emitted.id), false);
            Ok(go_to("/deliveries"))
        }
        Err(problem) => events_page(&app, viewer, form, Some(problem)).await,
    }
}

/// What is searched; what is empty doesn't matter.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Search {
    event: String,
    listener: String,
    status: String,
    object: String,
    since: String,
    until: String,
    cursor: String,
}

impl Search {
    fn is_empty(&self) -> bool {
        self.status.is_empty() && !self.is_searched()
    }

    /// Whether anything but the status is asked for, for which there are shortcuts.
    fn is_searched(&self) -> bool {
        [&self.event, &self.listener, &self.object, &self.since, &self.until].into_iter().any(|text| !text.is_empty())
    }
}

/// So many are on a page.
const ON_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    frame: Frame,
    deliveries: Vec<Delivery>,
    search: Search,
    statuses: &'static [DeliveryStatus],
    next: Option<String>,
}

/// The address of what comes behind the last, with the same search.
fn next_page(path: &str, search: &Search, last: i64) -> String {
    let Search { event, listener, status, object, since, until, .. } = search;
    let last = last.to_string();
    let query = [
        ("event", event),
        ("listener", listener),
        ("status", status),
        ("object", object),
        ("since", since),
        ("until", until),
        ("cursor", &last),
    ];
    let query = serde_urlencoded::to_string(query.iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>());
    format!("{path}?{}", query.unwrap_or_default())
}

async fn deliveries(
    State(app): State<App>,
    viewer: Viewer,
    Parameters(search): Parameters<Search>,
) -> Result<Response, Failure> {
    let filter = DeliveryFilter {
        status: named(&search.status),
        event: asked(&search.event),
        listener: asked(&search.listener),
        object: asked(&search.object),
        before: search.cursor.parse().ok(),
        limit: Some(ON_PAGE + 1),
        ..DeliveryFilter::default()
    };
    let found = app.search(move |host| host.deliveries(&filter)).await;
    let found = found.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let mut deliveries = found.map_err(|error| Failure::of(&app, &viewer, error))?;
    let is_more = deliveries.len() > ON_PAGE;
    deliveries.truncate(ON_PAGE);
    let last = deliveries.last().filter(|_| is_more);
    let next = last.map(|delivery| next_page("/deliveries", &search, delivery.number));
    let frame = Frame::new(&app, "Deliveries", "deliveries", viewer);
    let statuses = DeliveryStatus::ALL;
    Ok(show(StatusCode::OK, &DeliveriesPage { frame, deliveries, search, statuses, next }))
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    frame: Frame,
    delivery: Delivery,
    date: String,
    data: String,
    rows: Vec<Row>,
}

async fn delivery(State(app): State<App>, viewer: Viewer, PathPart(part): PathPart) -> Result<Response, Failure> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "There is no such delivery.");
    let number: i64 = part.parse().map_err(|_| Failure::of(&app, &viewer, none()))?;
    let found = app.manage(move |host| host.delivery(number)).await;
    let found = found.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let (delivery, event, executions) = found.map_err(|error| Failure::of(&app, &viewer, error))?;
    let data = format!("{:#}", event.data);
    let frame = Frame::new(&app, format!("Delivery {number}"), "deliveries", viewer);
    let (date, rows) = (event.date.to_string(), executions.iter().map(Row::of).collect());
    Ok(show(StatusCode::OK, &DeliveryPage { frame, delivery, date, data, rows }))
}

#[derive(Deserialize)]
struct Nothing {}

async fn settle(
    State(app): State<App>,
    PathPart(part): PathPart,
    OwnForm { viewer, form: Nothing {} }: OwnForm<Nothing>,
    again: bool,
) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "There is no such delivery.");
    let number: i64 = part.parse().map_err(|_| Failure::of(&app, &viewer, none()))?;
    let settled = app.manage(move |host| if again { host.redrive(number) } else { host.discard(number) }).await;
    match settled.map_err(|problem| Failure::of(&app, &viewer, problem))? {
        Ok(()) if again => viewer.tell(&app, format!("Delivery {number} is attempted again."), false),
        Ok(()) => viewer.tell(&app, format!("Delivery {number} was given up."), false),
        Err(error) => viewer.tell(&app, said(error), true),
    }
    Ok(go_to(&format!("/deliveries/{number}")))
}

/// Several deliveries at once: those of a page.
#[derive(Deserialize)]
struct SettleForm {
    numbers: String,
    what: String,
}

async fn settle_all(
    State(app): State<App>,
    OwnForm { viewer, form }: OwnForm<SettleForm>,
) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let numbers: Vec<i64> =
        form.numbers.split_whitespace().take(ON_PAGE).filter_map(|text| text.parse().ok()).collect();
    let again = form.what == "redrive";
    let settled = app.manage(move |host| {
        let settle = |number: &i64| if again { host.redrive(*number) } else { host.discard(*number) };
        let (done, failed): (Vec<_>, Vec<_>) = numbers.iter().map(settle).partition(Result::is_ok);
        (done.len(), failed.into_iter().find_map(Result::err))
    });
    let (done, failure) = settled.await.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let text = format!("{done} {}.", if again { "are attempted again" } else { "were given up" });
    match failure {
        None => viewer.tell(&app, text, false),
        Some(error) => viewer.tell(&app, format!("{text} Not all could be: {}", said(error)), true),
    }
    Ok(go_to("/deliveries?status=dead"))
}

/// A line of the log, as it is shown.
#[derive(Serialize)]
struct Row {
    id: i64,
    date: String,
    event: String,
    object: String,
    listener: String,
    kind: &'static str,
    attempt: u32,
    status: String,
    /// The same, as a class of the style sheet.
    class: &'static str,
    took: String,
    error: String,
    delivery: Option<i64>,
}

impl Row {
    fn of(execution: &Execution) -> Self {
        let class = match execution.status {
            ExecutionStatus::Success => "good",
            ExecutionStatus::Forbidden => "warn",
            _ => "bad",
        };
        Row {
            id: execution.id,
            date: moment(execution.date),
            event: execution.event.clone(),
            object: execution.object_id.clone(),
            listener: execution.listener.clone(),
            kind: execution.kind.name(),
            attempt: execution.attempt,
            status: execution.status.to_string(),
            class,
            took: took(execution.duration_us),
            error: execution.error.clone().unwrap_or_default(),
            delivery: execution.delivery,
        }
    }
}

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    frame: Frame,
    rows: Vec<Row>,
    search: Search,
    statuses: &'static [ExecutionStatus],
    /// The newest line that is there: what comes is behind it.
    newest: i64,
    /// The query by which the script asks for what comes.
    query: String,
    next: Option<String>,
    /// So many calls are not in it.
    dropped: u64,
}

/// The value whose name is asked for; none if nothing or anything else is.
fn named<T: Named>(name: &str) -> Option<T> {
    T::of_name(&name.replace(' ', "_")).ok()
}

/// What a search asks of the log, or what is wrong with it.
fn filter(app: &App, search: &Search) -> Result<ExecutionFilter, String> {
    let moment = |name: &str, text: &str| {
        asked(text)
            .map(|text| parse_moment(&text, app.host.now()))
            .transpose()
            .map_err(|problem| format!("{name}: {problem}"))
    };
    Ok(ExecutionFilter {
        since: moment("Since", &search.since)?,
        until: moment("Until", &search.until)?,
        event: asked(&search.event),
        listener: asked(&search.listener),
        object: asked(&search.object),
        status: named(&search.status),
        ..ExecutionFilter::default()
    })
}

async fn log(
    State(app): State<App>,
    viewer: Viewer,
    Parameters(search): Parameters<Search>,
) -> Result<Response, Failure> {
    let before = search.cursor.parse().ok();
    let (asked, problem) = match filter(&app, &search) {
        Ok(filter) => (filter, None),
        Err(problem) => (ExecutionFilter::default(), Some(problem)),
    };
    let wanted = ExecutionFilter { before, limit: Some(ON_PAGE + 1), ..asked };
    let all = ExecutionFilter { limit: Some(1), ..ExecutionFilter::default() };
    let found = app
        .search(move |host| {
            Ok::<_, EventError>((host.executions(&all)?, host.executions(&wanted)?, host.dropped_executions()?))
        })
        .await;
    let found = found.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let (newest, mut executions, dropped) = found.map_err(|error| Failure::of(&app, &viewer, error))?;
    let is_more = executions.len() > ON_PAGE;
    executions.truncate(ON_PAGE);
    let next = executions.last().filter(|_| is_more).map(|last| next_page("/log", &search, last.id));
    // An older part stays as it is.
    let query = if before.is_none() { next_page(LIVE, &search, 0) } else { String::new() };
    let newest = newest.first().map_or(0, |execution| execution.id);
    let mut frame = Frame::new(&app, "Execution log", "log", viewer);
    let mut status = StatusCode::OK;
    if let Some(problem) = problem {
        (frame, status) = (frame.with_error(problem), StatusCode::BAD_REQUEST);
    }
    let rows = executions.iter().map(Row::of).collect();
    let statuses = ExecutionStatus::ALL;
    Ok(show(status, &LogPage { frame, rows, search, statuses, newest, query, next, dropped }))
}

/// What came since: for the script.
#[derive(Deserialize)]
struct After {
    after: i64,
}

async fn log_rows(
    State(app): State<App>,
    _viewer: Viewer,
    Parameters(After { after }): Parameters<After>,
    Parameters(search): Parameters<Search>,
) -> Result<Json<Vec<Row>>, Problem> {
    let asked = filter(&app, &search).map_err(Problem::bad_request)?;
    let wanted = ExecutionFilter { after: Some(after), limit: Some(200), ..asked };
    let executions = app.search(move |host| host.executions(&wanted)).await??;
    Ok(Json(executions.iter().map(Row::of).collect()))
}
