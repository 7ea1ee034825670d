//! The operations of the API: each is described once, and from that it is routed, guarded and documented.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    http::Method,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
use pin_project_lite::pin_project;
use serde_json::json;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        ContentBuilder, HttpMethod, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Schema,
        path::{OperationBuilder, ParameterBuilder, ParameterIn, Paths},
        request_body::RequestBodyBuilder,
        response::ResponseBuilder,
        schema::{Object, Type},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{
    auth::{self, Client},
    connections,
    problem::{self, Problem},
    request::{self, Route},
    state::{App, Document},
};
use crate::Scope;

type Schemas = Vec<(String, RefOr<Schema>)>;

/// An operation that is to be added.
pub(super) struct Operation {
    method: Method,
    path: &'static str,
    scope: Option<Scope>,
    described: OperationBuilder,
    schemas: Schemas,
}

/// An operation for whoever has a scope.
pub(super) fn operation(
    method: Method,
    path: &'static str,
    scope: impl Into<Option<Scope>>,
    tag: &'static str,
    summary: &'static str,
) -> Operation {
    let scope = scope.into();
    let mut described =
        OperationBuilder::new().tag(tag).summary(Some(summary)).operation_id(Some(id_of(&method, path)));
    described = match scope {
        Some(scope) => described.security(SecurityRequirement::new("token", [scope.name()])),
        None => described.securities(Some([])),
    };
    for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(Object::with_type(Type::String)));
        described = described.parameter(parameter);
    }
    Operation { method, path, scope, described, schemas: Vec::new() }
}

/// The name of an operation, for clients that are made from the document: `post_hooks_hook`.
fn id_of(method: &Method, path: &str) -> String {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    // One with a closing slash is another operation.
    let path = path.strip_suffix('/').map_or_else(|| path.to_owned(), |path| format!("{path}_slash"));
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words = words.fold(method.as_str().to_ascii_lowercase(), |id, word| format!("{id}_{word}"));
    words.trim_end_matches("_json").to_owned()
}

/// Whether a schema is that of a type, and not a list or a text.
fn is_named(schema: &Schema) -> bool {
    match schema {
        Schema::Object(object) => !object.properties.is_empty(),
        Schema::AllOf(_) | Schema::OneOf(_) => true,
        _ => false,
    }
}

fn reference<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    T::schemas(schemas);
    // Lists and the like have no name of their own.
    match T::schema() {
        RefOr::T(schema) if is_named(&schema) => {
            let name = T::name().into_owned();
            schemas.push((name.clone(), T::schema()));
            RefOr::Ref(Ref::from_schema_name(name))
        }
        other => other,
    }
}

impl Operation {
    /// What it does, in more words.
    pub(super) fn describe(mut self, text: &'static str) -> Self {
        self.described = self.described.description(Some(text));
        self
    }

    /// It takes a query.
    pub(super) fn query<T: IntoParams>(mut self) -> Self {
        for parameter in T::into_params(|| Some(ParameterIn::Query)) {
            self.described = self.described.parameter(parameter);
        }
        self.fails(&[(400, "the query can't be taken")])
    }

    /// It takes a JSON body.
    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        let schema = reference::<T>(&mut self.schemas);
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True));
        self.described = self.described.request_body(Some(body.build()));
        self.fails(&[
            (400, "the body is no JSON, or its fields can't be read"),
            (408, "the body took too long to arrive"),
            (413, "the body is too large"),
            (415, "the body isn't declared as JSON"),
        ])
    }

    /// It takes a package.
    pub(super) fn takes_package(mut self) -> Self {
        let content = ContentBuilder::new().build();
        let body = RequestBodyBuilder::new()
            .description(Some("the zip of a package"))
            .content("application/zip", content)
            .required(Some(Required::True));
        self.described = self.described.request_body(Some(body.build()));
        self.fails(&[(408, "it took too long to arrive"), (415, "it isn't declared as a zip")])
    }

    /// It takes a form.
    pub(super) fn takes_form<T: ToSchema>(mut self) -> Self {
        let schema = reference::<T>(&mut self.schemas);
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let body = RequestBodyBuilder::new()
            .content("application/x-www-form-urlencoded", content)
            .required(Some(Required::True));
        self.described = self.described.request_body(Some(body.build()));
        self
    }

    /// It is for an add-on's platform.
    pub(super) fn for_platforms(mut self) -> Self {
        let addon = SecurityRequirement::new("addon", Vec::<String>::new());
        self.described = self.described.securities(Some([addon]));
        self
    }

    /// It answers with JSON.
    pub(super) fn answers<T: ToSchema>(mut self, status: u16, text: &'static str) -> Self {
        let schema = reference::<T>(&mut self.schemas);
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new().description(text).content("application/json", content);
        self.described = self.described.response(status.to_string(), response.build());
        self
    }

    /// It answers with something else, or nothing.
    pub(super) fn answers_plain(mut self, status: u16, text: &'static str) -> Self {
        self.described = self.described.response(status.to_string(), ResponseBuilder::new().description(text).build());
        self
    }

    /// It fails with a problem.
    pub(super) fn fails(mut self, problems: &[(u16, &'static str)]) -> Self {
        let own: &[(u16, &str)] = match self.scope {
            Some(_) => &[
                (401, "no token, or one that doesn't count"),
                (403, "a token of another scope, or a page of another site"),
                (429, "too many wrong tokens came from there"),
                (503, "too much is under way; or the server's disk fails, or is read-only"),
                (507, "the server's disk is full"),
            ],
            None => &[],
        };
        for (status, text) in own.iter().chain(problems) {
            let schema = reference::<problem::Body>(&mut self.schemas);
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let response = ResponseBuilder::new().description(*text).content("application/problem+json", content);
            self.described = self.described.response(status.to_string(), response.build());
        }
        self
    }
}

/// A handler that only those reach who have a scope, and that learns who they are.
#[derive(Clone)]
struct Guarded<H> {
    handler: H,
    scope: Option<Scope>,
    path: &'static str,
}

impl<T: 'static, H: Handler<T, App>> Handler<T, App> for Guarded<H> {
    type Future = Marked<Either<BoxFuture<'static, Response>, H::Future>>;

    fn call(self, mut request: Request, app: App) -> Self::Future {
        let Guarded { handler, scope, path } = self;
        let Some(scope) = scope else { return Marked { answer: Either::Right(handler.call(request, app)), path } };
        let peer = request::peer(&app, request.headers(), request.extensions().get());
        let answer = match auth::authorize_now(&app, request.headers(), peer, scope) {
            Some(client) => match client.and_then(|client| admit(client, &mut request)) {
                Ok(()) => Either::Right(handler.call(request, app)),
                Err(problem) => Either::Left(std::future::ready(problem.into_response()).boxed()),
            },
            None => Either::Left(
                async move {
                    let headers = request.headers().clone();
                    let client = auth::authorize(&app, &headers, peer, scope).await;
                    match client.and_then(|client| admit(client, &mut request)) {
                        Ok(()) => handler.call(request, app).await,
                        Err(problem) => problem.into_response(),
                    }
                }
                .boxed(),
            ),
        };
        Marked { answer, path }
    }
}

/// Lets a request through, and tells its handler who asks.
fn admit(client: Client, request: &mut Request) -> Result<(), Problem> {
    connections::keep(request.extensions())?;
    request.extensions_mut().insert(client);
    Ok(())
}

pin_project! {
    /// Notes on an answer which operation it is of, for whoever counts.
    struct Marked<F> {
        #[pin]
        answer: F,
        path: &'static str,
    }
}

impl<F: Future<Output = Response>> Future for Marked<F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let this = self.project();
        this.answer.poll(context).map(|mut response| {
            response.extensions_mut().insert(Route(this.path));
            response
        })
    }
}

/// Collects operations.
pub(super) struct Api {
    app: App,
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
    routes: BTreeMap<&'static str, MethodRouter<App>>,
}

impl Api {
    pub(super) fn new(app: App) -> Self {
        let (paths, schemas, routes) = (Paths::new(), BTreeMap::new(), BTreeMap::new());
        Api { app, paths, schemas, routes }
    }

    pub(super) fn app(&self) -> &App {
        &self.app
    }

    /// Adds an operation, and what does it.
    pub(super) fn add<T: 'static>(&mut self, operation: Operation, handler: impl Handler<T, App>) {
        let Operation { method, path, scope, described, schemas } = operation;
        self.schemas.extend(schemas);
        let http = match method {
            Method::GET => HttpMethod::Get,
            Method::PUT => HttpMethod::Put,
            Method::PATCH => HttpMethod::Patch,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Post,
        };
        self.paths.add_path_operation(path, vec![http], described);
        let filter = MethodFilter::try_from(method).unwrap_or(MethodFilter::POST);
        let route = on(filter, Guarded { handler, scope, path });
        let present = self.routes.remove(path).unwrap_or_default();
        self.routes.insert(path, present.merge(route));
    }

    /// The routes, and the document that describes them.
    pub(super) fn finish(self) -> (Router<App>, Document) {
        let mut components = utoipa::openapi::ComponentsBuilder::new();
        for (name, schema) in self.schemas {
            components = components.schema(name, schema);
        }
        for (name, scheme, text) in [
            ("token", HttpAuthScheme::Bearer, "a token that `billhook token create` made"),
            ("addon", HttpAuthScheme::Basic, "the add-on's id and its password"),
        ] {
            let mut scheme = Http::new(scheme);
            scheme.description = Some(text.to_owned());
            components = components.security_scheme(name, SecurityScheme::Http(scheme));
        }
        let mut info = utoipa::openapi::Info::new("billhook", env!("CARGO_PKG_VERSION"));
        info.description = Some(
            "The plugin host for charging backends: management, hooks, events and add-on provisioning.".to_owned(),
        );
        let document: OpenApi =
            OpenApiBuilder::new().info(info).paths(self.paths).components(Some(components.build())).build();
        let value = serde_json::to_value(&document).unwrap_or_else(|_| json!({}));
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        let mut router = Router::new();
        for (path, route) in self.routes {
            router = router.route(path, route);
        }
        (router, Document { text, value })
    }
}
