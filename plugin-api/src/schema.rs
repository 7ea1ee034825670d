//! JSON schemas of values whose JSON form is written by hand.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Object, RefOr, Schema,
        schema::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type},
    },
};

use crate::{Decimal, Json, Timestamp, data};

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
        .item(Object::with_type(Type::Integer))
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
