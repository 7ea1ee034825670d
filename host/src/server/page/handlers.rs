//! Handlers: the list with its advanced search, and the form that adds and changes them.

use askama::Template;
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    frame::{Failure, Frame, go_to, part_of_path, said, show},
    login::OwnForm,
    texts::asked,
    viewer::Viewer,
};
use crate::{
    EventError, EventInfo, Handler, HandlerFilter, HandlerStatus, Mode, OnFailure, Scope, Task,
    server::{
        problem::Problem,
        request::{Parameters, PathPart},
        state::App,
        upload::refuse_uploads,
    },
};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/handlers", get(list).post(add))
        .route("/handlers/new", get(new))
        .route("/handlers/of/{name}", get(edit).post(save))
        .route("/handlers/of/{name}/remove", post(remove))
}

/// The fields of the advanced search; what is empty doesn't matter.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Search {
    name: String,
    event: String,
    kind: String,
    status: String,
}

#[derive(Template)]
#[template(path = "handlers.html")]
struct HandlersPage {
    frame: Frame,
    handlers: Vec<Handler>,
    events: Vec<EventInfo>,
    search: Search,
}

impl Search {
    fn is_empty(&self) -> bool {
        [&self.name, &self.event, &self.kind, &self.status].into_iter().all(String::is_empty)
    }
}

fn status(name: &str) -> Option<HandlerStatus> {
    name.parse().ok()
}

async fn list(
    State(app): State<App>,
    viewer: Viewer,
    Parameters(search): Parameters<Search>,
) -> Result<Response, Failure> {
    let filter = HandlerFilter {
        name: asked(&search.name),
        event: asked(&search.event),
        kind: search.kind.trim().parse().ok(),
        status: status(&search.status),
    };
    let found = app.manage(move |host| Ok::<_, EventError>((host.handlers(&filter)?, host.events()?))).await;
    let found = found.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let (handlers, events) = found.map_err(|error| Failure::of(&app, &viewer, error))?;
    let frame = Frame::new(&app, "Handlers", "handlers", viewer);
    Ok(show(StatusCode::OK, &HandlersPage { frame, handlers, events, search }))
}

/// The form of a handler, as it was filled in.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct HandlerForm {
    name: String,
    event: String,
    kind: String,
    task: String,
    mode: String,
    status: String,
    priority: String,
    deadline_ms: String,
    attempts: String,
    on_failure: String,
    secret: String,
    /// Names of variables, with spaces between them.
    environment: String,
    /// Whether there is a key; not from the form.
    #[serde(skip)]
    is_signed: bool,
}

#[derive(Template)]
#[template(path = "handler.html")]
struct HandlerPage {
    frame: Frame,
    events: Vec<EventInfo>,
    form: HandlerForm,
    /// The handler that is changed; none for a new one.
    present: Option<String>,
    takes_scripts: bool,
}

impl HandlerForm {
    fn of(handler: &Handler) -> Self {
        HandlerForm {
            name: handler.name.clone(),
            event: handler.event.clone(),
            kind: handler.task.kind().name().to_owned(),
            task: match &handler.task {
                Task::Script(words) => words.join("\n"),
                other => other.to_string(),
            },
            mode: handler.mode.name().to_owned(),
            status: handler.status.name().to_owned(),
            priority: handler.priority.to_string(),
            deadline_ms: handler.deadline_ms.to_string(),
            attempts: handler.retry.attempts.to_string(),
            on_failure: handler.on_failure.name().to_owned(),
            secret: String::new(),
            environment: handler.environment.join(" "),
            is_signed: handler.secret.is_some(),
        }
    }

    fn task(&self) -> Task {
        let text = self.task.trim();
        if self.kind == "script" {
            // A line a word: a path or an argument may hold spaces.
            return Task::Script(text.lines().map(|word| word.trim().to_owned()).collect());
        }
        // As the form of the Provisioning API takes it: host, port and path.
        let has_scheme = text.starts_with("http://") || text.starts_with("https://");
        Task::Http(if has_scheme { text.to_owned() } else { format!("http://{text}") })
    }

    /// Writes what was filled in onto a handler.
    fn apply(&self, handler: &mut Handler) -> Result<(), String> {
        fn number<T: std::str::FromStr>(text: &str, name: &str, into: &mut T) -> Result<(), String> {
            match text.trim() {
                "" => Ok(()),
                text => {
                    text.parse().map(|number| *into = number).map_err(|_| format!("{name} has to be a whole number."))
                }
            }
        }
        handler.event.clone_from(&self.event);
        handler.task = self.task();
        handler.mode = if self.mode == "before" { Mode::Before } else { Mode::After };
        handler.status = status(&self.status).unwrap_or(handler.status);
        handler.on_failure = if self.on_failure == "open" { OnFailure::Open } else { OnFailure::Closed };
        number(&self.priority, "The priority", &mut handler.priority)?;
        number(&self.deadline_ms, "The deadline", &mut handler.deadline_ms)?;
        number(&self.attempts, "The number of attempts", &mut handler.retry.attempts)?;
        handler.environment = self.environment.split_whitespace().map(str::to_owned).collect();
        if let Some(secret) = asked(&self.secret) {
            handler.secret = Some(secret);
        }
        Ok(())
    }
}

/// Shows the form, with what is wrong with it.
async fn form_page(
    app: &App,
    viewer: Viewer,
    form: HandlerForm,
    present: Option<String>,
    problem: Option<Problem>,
) -> Result<Response, Failure> {
    let events = app.manage(|host| host.events()).await.map_err(|problem| Failure::of(app, &viewer, problem))?;
    let events = events.map_err(|error| Failure::of(app, &viewer, error))?;
    let title = present.as_deref().map_or_else(|| "New handler".to_owned(), |name| format!("Handler {name}"));
    let mut frame = Frame::new(app, title, "handlers", viewer);
    let mut answer = StatusCode::OK;
    if let Some(problem) = problem {
        answer = problem.status();
        frame = frame.with_error(problem.detail());
    }
    let takes_scripts = app.options.uploads;
    Ok(show(answer, &HandlerPage { frame, events, form, present, takes_scripts }))
}

async fn new(State(app): State<App>, viewer: Viewer) -> Result<Response, Failure> {
    let form = HandlerForm::of(&Handler::new("", "", Task::Http(String::new())));
    form_page(&app, viewer, form, None, None).await
}

async fn edit(State(app): State<App>, viewer: Viewer, PathPart(name): PathPart) -> Result<Response, Failure> {
    let named = name.clone();
    let found = app.manage(move |host| host.handler(&named)).await;
    let found = found.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let handler = found.map_err(|error| Failure::of(&app, &viewer, error))?;
    form_page(&app, viewer, HandlerForm::of(&handler), Some(name), None).await
}

/// Refuses scripts where no code may come in over HTTP; one that is there may be switched off.
fn check(app: &App, form: &HandlerForm, present: Option<&Handler>) -> Result<(), Problem> {
    let is_there = present.is_some_and(|present| {
        let HandlerForm { environment, .. } = HandlerForm::of(present);
        present.task == form.task() && environment == form.environment.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    if form.kind == "script" && !is_there { refuse_uploads(app) } else { Ok(()) }
}

async fn add(State(app): State<App>, OwnForm { viewer, form }: OwnForm<HandlerForm>) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let mut handler = Handler::new(form.name.trim(), "", Task::Http(String::new()));
    let filled = form.apply(&mut handler).map_err(|text| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    let added = match check(&app, &form, None).and(filled) {
        Ok(()) => app.manage(move |host| host.add_handler(&handler)).await.and_then(|added| Ok(added?)),
        Err(problem) => Err(problem),
    };
    match added {
        Ok(added) => {
            viewer.tell(&app, format!("The handler {} was added.", added.name), false);
            Ok(go_to("/handlers"))
        }
        Err(problem) => form_page(&app, viewer, form, None, Some(problem)).await,
    }
}

async fn save(
    State(app): State<App>,
    PathPart(name): PathPart,
    OwnForm { viewer, form }: OwnForm<HandlerForm>,
) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let (named, filled) = (name.clone(), form.clone());
    // What can't be read is told before anything changes.
    let readable = form.apply(&mut Handler::new("", "", Task::Http(String::new())));
    let readable = readable.map_err(|text| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    let known = name.clone();
    let present = app.manage(move |host| host.handler(&known)).await;
    let present = present.map_err(|problem| Failure::of(&app, &viewer, problem))?;
    let present = present.map_err(|error| Failure::of(&app, &viewer, error))?;
    let form = HandlerForm { is_signed: present.secret.is_some(), ..form };
    let saved = match check(&app, &form, Some(&present)).and(readable) {
        Ok(()) => {
            let change = move |handler: &mut Handler| {
                let _ = filled.apply(handler);
            };
            app.manage(move |host| host.set_handler(&named, change)).await.and_then(|saved| Ok(saved?))
        }
        Err(problem) => Err(problem),
    };
    match saved {
        Ok(saved) => {
            viewer.tell(&app, format!("The handler {} was changed.", saved.name), false);
            Ok(go_to("/handlers"))
        }
        Err(problem) => form_page(&app, viewer, form, Some(name), Some(problem)).await,
    }
}

#[derive(Deserialize)]
struct RemoveForm {
    #[serde(default)]
    force: Option<String>,
}

async fn remove(
    State(app): State<App>,
    PathPart(name): PathPart,
    OwnForm { viewer, form }: OwnForm<RemoveForm>,
) -> Result<Response, Failure> {
    viewer.demand(&app, Scope::Manage)?;
    let (named, force) = (name.clone(), form.force.is_some());
    let removed = app.manage(move |host| host.remove_handler(&named, force)).await;
    match removed.map_err(|problem| Failure::of(&app, &viewer, problem))? {
        Ok(()) => {
            viewer.tell(&app, format!("The handler {name} was removed."), false);
            Ok(go_to("/handlers").into_response())
        }
        Err(error) => {
            viewer.tell(&app, said(error), true);
            Ok(go_to(&format!("/handlers/of/{}", part_of_path(&name))))
        }
    }
}
