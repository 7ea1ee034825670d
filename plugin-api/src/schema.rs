//! JSON schemas of values whose JSON form is written by hand.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Object, Ref, RefOr, Schema,
        schema::{AllOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type},
    },
};

use crate::{Decimal, Json, PendingAccounting, Timestamp, UsageSpec, call::HookAnswer, data};

macro_rules! schema {
    ($($type:ty = $name:literal: $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    )*};
}

schema! {
    Json<'static> = "Json": ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
        .description(Some("any JSON document"))
        .into();
    Timestamp<'static> = "Timestamp": ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .into();
    Decimal<'static> = "Decimal": ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("a decimal number as text, such as 12.50"))
        .into();
    data::ObjectId = "ObjectId": OneOfBuilder::new()
        .item(Object::with_type(Type::Number))
        .item(Object::with_type(Type::String))
        .into();
    data::Event = "Event": ObjectBuilder::new()
        .property("event", ObjectBuilder::new()
            .property("dt", Timestamp::schema())
            .property("events_id", Object::with_type(Type::String))
            .property("object_id", data::ObjectId::schema())
            .property("id", Object::with_type(Type::String))
            .property("attempt", Object::with_type(Type::Integer))
            .required("dt")
            .required("events_id")
            .required("id"))
        .property("data", Json::schema())
        .required("event")
        .into();
}

/// A reference to the schema of a type, which is in the document, too.
fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

impl PartialSchema for HookAnswer {
    fn schema() -> RefOr<Schema> {
        let described = |reference: Ref, text: &str| AllOfBuilder::new().item(reference).description(Some(text));
        ObjectBuilder::new()
            .description(Some("What a hook answered, and what it changed."))
            .property("changes", described(reference::<data::AssetChanges>(), "What it changed on its asset."))
            .required("changes")
            .property(
                "usage_specs",
                ArrayBuilder::new()
                    .items(reference::<UsageSpec>())
                    .description(Some("The answer of `get_usage_specs`.")),
            )
            .property(
                "pending_accounting",
                described(reference::<PendingAccounting>(), "The answer of `get_pending_accounting`."),
            )
            .into()
    }
}

impl ToSchema for HookAnswer {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("HookAnswer")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            schemas.push((T::name().into_owned(), T::schema()));
            T::schemas(schemas);
        }
        add::<data::AssetChanges>(schemas);
        add::<UsageSpec>(schemas);
        add::<PendingAccounting>(schemas);
    }
}
