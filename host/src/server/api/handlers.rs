//! Handlers: the scripts and endpoints that operators attach to events.

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Handler, HandlerFilter, HandlerStatus, Mode, OnFailure, RetryPolicy, Scope, Task, UnknownName,
    server::{
        body::JsonBody,
        operation::{Api, operation},
        problem::Problem,
        request::{Parameters, PathPart},
        state::App,
        upload::refuse_uploads,
    },
};

/// Which handlers are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct HandlerQuery {
    /// A part of the name, in whatever case.
    name: Option<String>,
    /// The event's name, or an alias of it.
    event: Option<String>,
    /// `http` or `script`.
    #[serde(alias = "type")]
    kind: Option<String>,
    /// The status; enabled and disabled ones unless set.
    #[param(value_type = Option<String>)]
    status: Option<HandlerStatus>,
}

/// A handler, or what is changed of one. What is left out of a new one is as with `billhook addhandler`, and of one that is
/// there stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
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

const NO_HANDLER: (u16, &str) = (404, "there is no such handler");

pub(super) fn add_to(api: &mut Api) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
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
}

async fn list_handlers(
    State(app): State<App>,
    Parameters(query): Parameters<HandlerQuery>,
) -> Result<Json<Vec<Handler>>, Problem> {
    let HandlerQuery { name, event, kind, status } = query;
    let kind = kind.map(|kind| kind.parse()).transpose();
    let kind = kind.map_err(|unknown: UnknownName| {
        let UnknownName { name, known, .. } = unknown;
        Problem::bad_request(format!("there is no kind {name:?}; there are {}", known.join(" and ")))
    })?;
    let filter = HandlerFilter { name, event, kind, status };
    Ok(Json(app.manage(move |host| host.handlers(&filter)).await??))
}

impl HandlerBody {
    fn apply(&self, handler: &mut Handler) {
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
        } = self.clone();
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
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{field:?} is missing: a new handler has to have one"))
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
