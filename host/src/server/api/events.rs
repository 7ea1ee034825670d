//! Events: those that there are, and those that happen.

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use billhook_plugin_api::{Json as Document, data::ObjectId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    EventError, EventInfo, Host, NewEvent, Scope,
    server::{
        body::JsonBody,
        operation::{Api, operation},
        problem::Problem,
        request::PathPart,
        state::App,
    },
};

/// An event that happened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EventBody {
    /// Its name, or an alias of it.
    event: String,
    /// The backend's id of the object that it happened to; the `id` of the data unless set.
    #[serde(default)]
    object_id: Option<ObjectId>,
    /// What is known about the object.
    #[serde(default)]
    data: Document<'static>,
    /// The event's own id, a UUID: the same again records nothing twice. One is made unless set.
    #[serde(default)]
    id: Option<String>,
}

/// An event that was recorded.
#[derive(Debug, Serialize, ToSchema)]
struct EmittedBody {
    /// The event's id.
    id: String,
    /// Its data, as its before handlers left them.
    data: Document<'static>,
    /// The numbers of its deliveries.
    deliveries: Vec<i64>,
    /// It had been recorded before.
    is_repeated: bool,
}

/// An event of the operator's own.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct OwnEvent {
    /// What it is about.
    description: String,
}

pub(super) fn add_to(api: &mut Api) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    api.add(
        operation(get.clone(), "/api/v1/events", Scope::Read, "events", "List all events that there are")
            .answers::<Vec<EventInfo>>(200, "built-in ones, hooks, and the operator's own")
            .fails(&[]),
        list_events,
    );
    api.add(
        operation(post.clone(), "/api/v1/events", Scope::Emit, "events", "Tell that an event happened")
            .describe(
                "Its before handlers are asked, it is recorded with a delivery for each after listener, and told.",
            )
            .takes::<EventBody>()
            .answers::<EmittedBody>(201, "it is recorded")
            .answers::<EmittedBody>(200, "it had been recorded before: nothing happens again")
            .fails(&[
                (403, "a handler forbids it"),
                (409, "another event has the id"),
                (422, "there is no such event, or its data can't be taken"),
            ]),
        emit,
    );
    api.add(
        operation(Method::PUT, "/api/v1/events/{name}", Scope::Manage, "events", "Add an event of your own")
            .takes::<OwnEvent>()
            .answers_plain(201, "it is there")
            .fails(&[(409, "there is one of that name"), (422, "an event can't be called so")]),
        add_event,
    );
    api.add(
        operation(delete.clone(), "/api/v1/events/{name}", Scope::Manage, "events", "Remove an event of your own")
            .answers_plain(204, "it is gone")
            .fails(&[(404, "it is none that was added"), (409, "handlers are attached to it")]),
        remove_event,
    );
}

async fn list_events(State(app): State<App>) -> Result<Json<Vec<EventInfo>>, Problem> {
    Ok(Json(app.manage(|host| host.events()).await??))
}

async fn emit(State(app): State<App>, JsonBody(body): JsonBody<EventBody>) -> Result<Response, Problem> {
    let EventBody { event: name, object_id, data, id } = body;
    let mut event = NewEvent::new(&name);
    let may_be_repeated = id.is_some();
    if let Some(id) = id {
        let is_uuid = uuid::Uuid::try_parse(&id).map_err(|_| "the event's id is no UUID");
        event.id = is_uuid.map_err(|problem| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem))?.to_string();
    }
    event.data = data;
    event = match object_id {
        Some(id) => event.about(id),
        None => event.about_own_id().map_err(EventError::from)?,
    };
    // Its before handlers end at their deadlines.
    let key = format!("event {name}");
    let emit = move |host: &Host| -> Result<EmittedBody, EventError> {
        if may_be_repeated && let Some((emitted, recorded)) = host.recorded(&event)? {
            return Ok(EmittedBody {
                id: emitted.id,
                data: recorded.data,
                deliveries: emitted.deliveries,
                is_repeated: true,
            });
        }
        event.data = host.before(&event)?;
        let emitted = host.emit(&event)?;
        let (id, deliveries, is_repeated) = (emitted.id, emitted.deliveries, emitted.is_repeated);
        Ok(EmittedBody { id, data: event.data, deliveries, is_repeated })
    };
    let emitted = app.call(&key, None, emit).await??;
    let status = if emitted.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(emitted)).into_response())
}

async fn add_event(
    State(app): State<App>,
    PathPart(name): PathPart,
    JsonBody(OwnEvent { description }): JsonBody<OwnEvent>,
) -> Result<StatusCode, Problem> {
    app.manage(move |host| host.add_event(&name, &description)).await??;
    Ok(StatusCode::CREATED)
}

async fn remove_event(State(app): State<App>, PathPart(name): PathPart) -> Result<StatusCode, Problem> {
    app.manage(move |host| host.remove_event(&name)).await??;
    Ok(StatusCode::NO_CONTENT)
}
