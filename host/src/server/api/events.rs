//! Events, handlers, deliveries, and the execution log.

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use billhook_plugin_api::{
    Json as Document,
    data::{Event, ObjectId},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Page, limit};
use crate::{
    Delivery, DeliveryFilter, DeliveryStatus, Emitted, EventError, EventInfo, Execution, ExecutionFilter,
    ExecutionStatus, Handler, HandlerFilter, HandlerStatus, Mode, NewEvent, OnFailure, RetryPolicy, Scope, Task,
    server::{
        body::JsonBody,
        operation::{Api, operation},
        problem::Problem,
        request::{Parameters, PathPart},
        state::App,
        upload::refuse_uploads,
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
    /// What before handlers made of its data; not told of one that had been recorded, which keeps the data that it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value)]
    data: Option<Document<'static>>,
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

/// Which handlers are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct HandlerQuery {
    /// A part of the name, in whatever case.
    name: Option<String>,
    /// The event's name, or an alias of it.
    event: Option<String>,
    /// `http` or `script`.
    kind: Option<String>,
    /// The status; enabled and disabled ones unless set.
    #[param(value_type = Option<String>)]
    status: Option<HandlerStatus>,
}

/// A handler, or what is changed of one. What is left out of a new one is as with `billhook addhandler`, and of one that is
/// there stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct HandlerBody {
    /// The name, which no other handler has; of a new one alone, which has to have one.
    name: Option<String>,
    /// The event, or an alias of it; a new one has to have one.
    event: Option<String>,
    /// What is called; a new one has to have one.
    task: Option<Task>,
    /// When it is called.
    mode: Option<Mode>,
    /// Whether it is called.
    status: Option<HandlerStatus>,
    /// Its place among the listeners.
    priority: Option<u32>,
    /// How long a call may take, in milliseconds.
    deadline_ms: Option<u64>,
    /// How often a delivery is attempted.
    retry: Option<RetryPolicy>,
    /// What stands for it where it doesn't answer.
    on_failure: Option<OnFailure>,
    /// The names of environment variables that a script gets.
    environment: Option<Vec<String>>,
    /// The key that calls over HTTP are signed with; an empty one takes it away.
    secret: Option<String>,
}

/// How a handler is removed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct Removal {
    /// Also if it has deliveries left, which become dead letters.
    force: bool,
}

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
    /// Not before this time, in milliseconds since 1970.
    since: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    until: Option<i64>,
    /// Those with higher ids than this, the oldest first: to go on with what comes.
    after: Option<i64>,
    /// At most so many, 1 to 1000; 100 unless set.
    limit: Option<usize>,
    /// The `next` of the part before.
    cursor: Option<i64>,
}

const NO_HANDLER: (u16, &str) = (404, "there is no such handler");
const NO_DELIVERY: (u16, &str) = (404, "there is no such delivery");

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
            .fails(&[(403, "a handler forbids it"), (422, "there is no such event, or its data can't be taken")]),
        emit,
    );
    api.add(
        operation(Method::PUT, "/api/v1/events/{name}", Scope::Manage, "events", "Add an event of your own")
            .takes::<OwnEvent>()
            .answers_plain(201, "it is there")
            .fails(&[(409, "it was there"), (422, "an event can't be called so")]),
        add_event,
    );
    api.add(
        operation(delete.clone(), "/api/v1/events/{name}", Scope::Manage, "events", "Remove an event of your own")
            .answers_plain(204, "it is gone")
            .fails(&[(409, "handlers are attached to it"), (422, "it is none that was added")]),
        remove_event,
    );
    api.add(
        operation(get.clone(), "/api/v1/handlers", Scope::Read, "handlers", "List and search handlers")
            .query::<HandlerQuery>()
            .answers::<Vec<Handler>>(200, "handlers, by name")
            .fails(&[(422, "there is no such event")]),
        list_handlers,
    );
    api.add(
        operation(
            post.clone(),
            "/api/v1/handlers",
            Scope::Manage,
            "handlers",
            "Attach a script or an endpoint to an event",
        )
        .takes::<HandlerBody>()
        .answers::<Handler>(201, "the handler")
        .fails(&[(409, "there is one of that name"), (422, "there can't be such a handler")]),
        add_handler,
    );
    api.add(
        operation(get.clone(), "/api/v1/handlers/{name}", Scope::Read, "handlers", "Show a handler")
            .answers::<Handler>(200, "the handler")
            .fails(&[NO_HANDLER]),
        show_handler,
    );
    api.add(
        operation(Method::PATCH, "/api/v1/handlers/{name}", Scope::Manage, "handlers", "Change a handler")
            .takes::<HandlerBody>()
            .answers::<Handler>(200, "the handler as it is now")
            .fails(&[NO_HANDLER, (409, "deliveries of its stand against it"), (422, "there can't be such a handler")]),
        change_handler,
    );
    api.add(
        operation(delete, "/api/v1/handlers/{name}", Scope::Manage, "handlers", "Remove a handler")
            .query::<Removal>()
            .answers_plain(204, "it is gone")
            .fails(&[NO_HANDLER, (409, "it has deliveries left")]),
        remove_handler,
    );
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
        .fails(&[NO_DELIVERY, (409, "it is neither dead nor discarded, or its listener is gone")]),
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
        .answers::<Page<Execution>>(200, "executions, the newest first")
        .fails(&[]),
        list_executions,
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
    event.object_id = object_id.or_else(|| data.pointer::<ObjectId>("/id").ok().flatten());
    event.data = data;
    // Handlers are called, and those that are before end at their deadlines.
    let key = format!("event {name}");
    let emitted = app.call(&key, None, move |host| -> Result<EmittedBody, EventError> {
        // Its before handlers had their say when it was recorded.
        let recorded = if may_be_repeated { host.recorded(&event.id)? } else { None };
        if let Some(Emitted { id, deliveries, is_repeated, .. }) = recorded {
            return Ok(EmittedBody { id, data: None, deliveries, is_repeated });
        }
        event.data = host.before(&event)?;
        let emitted = host.emit(&event)?;
        let (id, deliveries, is_repeated) = (emitted.id, emitted.deliveries, emitted.is_repeated);
        Ok(EmittedBody { id, data: (!is_repeated).then_some(event.data), deliveries, is_repeated })
    });
    Ok((StatusCode::CREATED, Json(emitted.await??)).into_response())
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

async fn list_handlers(
    State(app): State<App>,
    Parameters(query): Parameters<HandlerQuery>,
) -> Result<Json<Vec<Handler>>, Problem> {
    let HandlerQuery { name, event, kind, status } = query;
    if let Some(unknown) = kind.as_deref().filter(|kind| !["http", "script"].contains(kind)) {
        return Err(Problem::bad_request(format!("there is no type {unknown:?}; there are http and script")));
    }
    let filter = HandlerFilter { name, event, kind, status };
    Ok(Json(app.manage(move |host| host.handlers(&filter)).await??))
}

impl HandlerBody {
    fn apply(self, handler: &mut Handler) {
        let HandlerBody {
            event,
            task,
            mode,
            status,
            priority,
            deadline_ms,
            retry,
            on_failure,
            environment,
            secret,
            ..
        } = self;
        handler.event = event.unwrap_or(std::mem::take(&mut handler.event));
        handler.mode = mode.unwrap_or(handler.mode);
        handler.status = status.unwrap_or(handler.status);
        handler.priority = priority.unwrap_or(handler.priority);
        handler.deadline_ms = deadline_ms.unwrap_or(handler.deadline_ms);
        handler.retry = retry.unwrap_or(handler.retry);
        handler.on_failure = on_failure.unwrap_or(handler.on_failure);
        if let Some(task) = task {
            handler.task = task;
        }
        if let Some(environment) = environment {
            handler.environment = environment;
        }
        if let Some(secret) = secret {
            handler.secret = Some(secret).filter(|secret| !secret.is_empty());
        }
    }
}

async fn add_handler(State(app): State<App>, JsonBody(mut body): JsonBody<HandlerBody>) -> Result<Response, Problem> {
    let missing = |field: &str| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("a handler has to have a {field:?}, which is missing"))
    };
    let name = body.name.take().ok_or_else(|| missing("name"))?;
    let event = body.event.take().ok_or_else(|| missing("event"))?;
    let task = body.task.take().ok_or_else(|| missing("task"))?;
    if matches!(task, Task::Script(_)) {
        refuse_uploads(&app)?;
    }
    let mut handler = Handler::new(name, event.clone(), task);
    body.event = Some(event);
    body.apply(&mut handler);
    let added = app.manage(move |host| host.add_handler(&handler)).await??;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

async fn show_handler(State(app): State<App>, PathPart(name): PathPart) -> Result<Json<Handler>, Problem> {
    Ok(Json(app.manage(move |host| host.handler(&name)).await??))
}

async fn change_handler(
    State(app): State<App>,
    PathPart(name): PathPart,
    JsonBody(body): JsonBody<HandlerBody>,
) -> Result<Json<Handler>, Problem> {
    if body.name.as_ref().is_some_and(|other| *other != name) {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a handler's name can't be changed"));
    }
    let named = name.clone();
    let present = app.manage(move |host| host.handler(&named)).await??;
    // What a script is given is code, too.
    let is_script = matches!(body.task.as_ref().unwrap_or(&present.task), Task::Script(_));
    if is_script && (body.task.is_some() || body.environment.is_some()) {
        refuse_uploads(&app)?;
    }
    let changed = app.manage(move |host| host.set_handler(&name, |handler| body.apply(handler)));
    Ok(Json(changed.await??))
}

async fn remove_handler(
    State(app): State<App>,
    PathPart(name): PathPart,
    Parameters(Removal { force }): Parameters<Removal>,
) -> Result<StatusCode, Problem> {
    app.manage(move |host| host.remove_handler(&name, force)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// The value whose name was asked for.
fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, asked: Option<String>) -> Result<Option<T>, Problem> {
    let Some(asked) = asked else { return Ok(None) };
    let is_named = |value: &&T| name(**value).replace(' ', "_") == asked.replace(' ', "_");
    let unknown = || {
        let all: Vec<&str> = all.iter().map(|value| name(*value)).collect();
        Problem::bad_request(format!("there is no status {asked:?}; there are {}", all.join(", ")))
    };
    Ok(Some(*all.iter().find(is_named).ok_or_else(unknown)?))
}

async fn list_deliveries(
    State(app): State<App>,
    Parameters(query): Parameters<DeliveryQuery>,
) -> Result<Json<Page<Delivery>>, Problem> {
    let most = limit(query.limit)?;
    let DeliveryQuery { status, event, event_id, listener, object, cursor, .. } = query;
    let status = named(DeliveryStatus::ALL, DeliveryStatus::name, status)?;
    let filter = DeliveryFilter { status, event, event_id, listener, object, before: cursor, limit: most + 1 };
    let found = app.manage(move |host| host.deliveries(&filter)).await??;
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
    let status = named(ExecutionStatus::ALL, ExecutionStatus::name, status)?;
    let filter = ExecutionFilter {
        event,
        listener,
        status,
        object,
        delivery,
        since,
        until,
        // Going on with what comes, the cursor leads to later ones.
        before: cursor.filter(|_| after.is_none()),
        after: after.map(|after| cursor.unwrap_or(after)),
        limit: most + 1,
    };
    let found = app.manage(move |host| host.executions(&filter)).await??;
    Ok(Json(Page::cut(found, most, |execution| execution.id)))
}
