//! Parts of lists.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr, Schema,
        schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type},
    },
};

use crate::server::problem::Problem;

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    /// The newest first, mostly.
    pub(super) items: Vec<T>,
    /// What `cursor` has to be to go on; none behind the last.
    pub(super) next: Option<i64>,
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
    pub(super) fn cut(mut items: Vec<T>, limit: usize, number: impl Fn(&T) -> i64) -> Self {
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
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit),
        _ => Err(Problem::bad_request(format!("limit has to be 1 to {MOST}"))),
    }
}
