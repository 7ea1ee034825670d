//! Deliveries, and the execution log, which tells what became of each attempt and of every other call.

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode},
};
use billhook_plugin_api::data::Event;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::paging::{Page, limit};
use crate::{
    Delivery, DeliveryFilter, DeliveryStatus, Execution, ExecutionFilter, ExecutionStatus, Named, Scope, UnknownName,
    parse_moment,
    server::{
        operation::{Api, operation},
        problem::Problem,
        request::{Parameters, PathPart},
        state::App,
    },
};

/// Which deliveries are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct DeliveryQuery {
    /// `waiting`, `running`, `done`, `dead` or `discarded`.
    status: Option<String>,
    /// The event's name.
    event: Option<String>,
    /// The event's id.
    event_id: Option<String>,
    /// The handler's name or the plugin's id.
    listener: Option<String>,
    /// The object's id.
    object: Option<String>,
    /// At most so many, 1 to 1000; 100 unless set.
    limit: Option<usize>,
    /// The `next` of the part before.
    cursor: Option<i64>,
}

/// A delivery with its event and its attempts.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryDetails {
    #[serde(flatten)]
    delivery: Delivery,
    /// The event, as the listener gets it.
    envelope: Event,
    /// What the execution log has of its attempts.
    executions: Vec<Execution>,
}

/// Which executions are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct ExecutionQuery {
    /// The event's or hook's name.
    event: Option<String>,
    /// The handler's name or the plugin's id.
    listener: Option<String>,
    /// `success`, `forbidden`, `failed`, `timed_out` or `unknown`.
    status: Option<String>,
    /// The object's id.
    object: Option<String>,
    /// The number of the delivery.
    delivery: Option<i64>,
    /// Not before this moment: a date as RFC 3339 has it, milliseconds since 1970, or how long ago, such as `15m`.
    since: Option<String>,
    /// Before this moment.
    until: Option<String>,
    /// Those with higher ids than this, the oldest first: to go on with what comes.
    after: Option<i64>,
    /// At most so many, 1 to 1000; 100 unless set.
    limit: Option<usize>,
    /// The `next` of the part before.
    cursor: Option<i64>,
}

const NO_DELIVERY: (u16, &str) = (404, "there is no such delivery");

pub(super) fn add_to(api: &mut Api) {
    let (get, post) = (Method::GET, Method::POST);
    api.add(
        operation(get.clone(), "/api/v1/deliveries", Scope::Read, "deliveries", "List and search deliveries")
            .query::<DeliveryQuery>()
            .answers::<Page<Delivery>>(200, "deliveries, the newest first")
            .fails(&[]),
        list_deliveries,
    );
    api.add(
        operation(get.clone(), "/api/v1/deliveries/{number}", Scope::Read, "deliveries", "Show a delivery")
            .answers::<DeliveryDetails>(200, "the delivery, its event, and what became of each attempt")
            .fails(&[NO_DELIVERY]),
        show_delivery,
    );
    api.add(
        operation(
            post.clone(),
            "/api/v1/deliveries/{number}/redrive",
            Scope::Manage,
            "deliveries",
            "Attempt a dead letter again",
        )
        .answers_plain(204, "it is attempted again")
        .fails(&[NO_DELIVERY, (409, "it is being delivered or done, or its listener is gone")]),
        |state, number| settle(state, number, true),
    );
    api.add(
        operation(post, "/api/v1/deliveries/{number}/discard", Scope::Manage, "deliveries", "Give a delivery up")
            .answers_plain(204, "it is given up")
            .fails(&[NO_DELIVERY, (409, "it is running or done")]),
        |state, number| settle(state, number, false),
    );
    api.add(
        operation(
            get,
            "/api/v1/executions",
            Scope::Read,
            "log",
            "Show the execution log: every call of every listener",
        )
        .query::<ExecutionQuery>()
        .answers::<Page<Execution>>(200, "executions, the newest first; with `after`, the oldest first")
        .fails(&[]),
        list_executions,
    );
}

/// The value whose name was asked for, with spaces or without.
fn named<T: Named>(asked: Option<String>) -> Result<Option<T>, Problem> {
    let named = asked.map(|asked| T::of_name(&asked.replace(' ', "_"))).transpose();
    named.map_err(|unknown| {
        let UnknownName { name, known, .. } = unknown;
        Problem::bad_request(format!("there is no status {name:?}; there are {}", known.join(", ")))
    })
}

async fn list_deliveries(
    State(app): State<App>,
    Parameters(query): Parameters<DeliveryQuery>,
) -> Result<Json<Page<Delivery>>, Problem> {
    let most = limit(query.limit)?;
    let DeliveryQuery { status, event, event_id, listener, object, cursor, .. } = query;
    let status = named::<DeliveryStatus>(status)?;
    let filter = DeliveryFilter { status, event, event_id, listener, object, before: cursor, limit: Some(most + 1) };
    let found = app.search(move |host| host.deliveries(&filter)).await??;
    Ok(Json(Page::cut(found, most, |delivery| delivery.number)))
}

/// The number of a delivery in a path.
fn number(part: &str) -> Result<i64, Problem> {
    part.parse().map_err(|_| Problem::new(StatusCode::NOT_FOUND, format!("there is no delivery {part:?}")))
}

async fn show_delivery(State(app): State<App>, PathPart(part): PathPart) -> Result<Json<DeliveryDetails>, Problem> {
    let number = number(&part)?;
    let (delivery, envelope, executions) = app.manage(move |host| host.delivery(number)).await??;
    Ok(Json(DeliveryDetails { delivery, envelope, executions }))
}

async fn settle(State(app): State<App>, PathPart(part): PathPart, again: bool) -> Result<StatusCode, Problem> {
    let number = number(&part)?;
    app.manage(move |host| if again { host.redrive(number) } else { host.discard(number) }).await??;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_executions(
    State(app): State<App>,
    Parameters(query): Parameters<ExecutionQuery>,
) -> Result<Json<Page<Execution>>, Problem> {
    let most = limit(query.limit)?;
    let ExecutionQuery { event, listener, status, object, delivery, since, until, after, cursor, .. } = query;
    let status = named::<ExecutionStatus>(status)?;
    let now = app.host.now();
    let moment = |name: &str, text: Option<String>| {
        let parsed = text.map(|text| parse_moment(&text, now)).transpose();
        parsed.map_err(|problem| Problem::bad_request(format!("{name} can't be taken: {problem}")))
    };
    let filter = ExecutionFilter {
        event,
        listener,
        status,
        object,
        delivery,
        since: moment("since", since)?,
        until: moment("until", until)?,
        // Going on with what comes, the cursor leads to later ones.
        before: cursor.filter(|_| after.is_none()),
        after: after.map(|after| cursor.map_or(after, |cursor| cursor.max(after))),
        limit: Some(most + 1),
    };
    let found = app.search(move |host| host.executions(&filter)).await??;
    Ok(Json(Page::cut(found, most, |execution| execution.id)))
}
