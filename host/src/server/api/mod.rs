//! The API under `/api/v1`, and the two views of asset types that the Business API Ecosystem has.

mod catalogue;
mod deliveries;
mod events;
mod handlers;
mod health;
mod hooks;
mod plugins;

use std::borrow::Cow;

use axum::{
    extract::State,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr, Schema,
        schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type},
    },
};

pub(super) use plugins::hide_reason;

use super::{
    operation::{Api, operation},
    problem::Problem,
    state::App,
};

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    /// The newest first, mostly.
    items: Vec<T>,
    /// What `cursor` has to be to go on; none behind the last.
    next: Option<i64>,
}

// By hand, because each kind of part has to have a name of its own.
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let item = Ref::from_schema_name(T::name());
        let items = ArrayBuilder::new().items(item).description(Some("The newest first, unless said otherwise."));
        let next = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
            .description(Some("What `cursor` has to be to go on; none behind the last."));
        let page = ObjectBuilder::new().property("items", items).required("items").property("next", next);
        page.description(Some("A part of a list.")).into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("PageOf{}", T::name()))
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

impl<T> Page<T> {
    /// A part of at most `limit` items, cut from one more.
    fn cut(mut items: Vec<T>, limit: usize, number: impl Fn(&T) -> i64) -> Self {
        let is_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| is_more).map(number);
        Page { items, next }
    }
}

/// The most items of a part of a list, and how many there are unless said otherwise.
const MOST: usize = 1_000;
const USUAL: usize = 100;

/// A limit that was asked for.
fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit),
        _ => Err(Problem::bad_request(format!("limit has to be 1 to {MOST}"))),
    }
}

pub(super) fn add_to(api: &mut Api) {
    plugins::add_to(api);
    hooks::add_to(api);
    events::add_to(api);
    handlers::add_to(api);
    deliveries::add_to(api);
    catalogue::add_to(api);
    health::add_to(api);
    api.add(
        operation(Method::GET, "/api/v1/openapi.json", None, "server", "This document")
            .answers_plain(200, "an OpenAPI document"),
        document,
    );
}

async fn document(State(app): State<App>) -> Response {
    let text = app.document().map(|document| document.text.clone()).unwrap_or_default();
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}
