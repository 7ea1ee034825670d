//! The API for people: its document, as a page.

use std::collections::BTreeMap;

use askama::Template;
use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use serde_json::Value;

use super::{
    frame::{Frame, show},
    viewer::Viewer,
};
use crate::server::state::App;

/// The operations of a kind.
struct Group {
    name: String,
    operations: Vec<Operation>,
}

struct Operation {
    method: String,
    path: String,
    summary: String,
    description: String,
    scope: String,
    parameters: Vec<Field>,
    /// The name of the body's schema, or its media type.
    body: Option<String>,
    answers: Vec<Answer>,
}

struct Answer {
    status: String,
    description: String,
    schema: Option<String>,
}

struct Field {
    name: String,
    kind: String,
    description: String,
}

/// A type of the document.
struct Type {
    name: String,
    description: String,
    fields: Vec<Field>,
    /// What it is, where it has no fields.
    kind: String,
}

#[derive(Template)]
#[template(path = "reference.html")]
struct ReferencePage {
    frame: Frame,
    groups: Vec<Group>,
    types: Vec<Type>,
}

pub(super) fn router() -> Router<App> {
    Router::new().route("/api", get(reference))
}

async fn reference(State(app): State<App>, viewer: Viewer) -> Response {
    let document = app.document().map(|document| document.value.clone()).unwrap_or_default();
    let frame = Frame::new(&app, "API", "api", viewer);
    show(StatusCode::OK, &ReferencePage { frame, groups: groups(&document), types: types(&document) })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a schema is, in a word or a few.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[key].as_array() {
            let choices: Vec<String> = choices.iter().map(kind).filter(|kind| kind != "null").collect();
            return choices.join(if key == "allOf" { " and " } else { " or " });
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| value.to_string()).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<String> = names.iter().map(text).filter(|name| name != "null").collect();
            if names == ["array"] { format!("list of {}", kind(&schema["items"])) } else { names.join(" or ") }
        }
        _ => "any JSON".to_owned(),
    }
}

fn groups(document: &Value) -> Vec<Group> {
    let mut groups: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| Field {
                name: text(&parameter["name"]),
                kind: format!("{}, {}", text(&parameter["in"]), kind(&parameter["schema"])),
                description: text(&parameter["description"]),
            });
            let body = operation["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
            let answers = operation["responses"].as_object().into_iter().flatten().map(|(status, answer)| Answer {
                status: status.clone(),
                description: text(&answer["description"]),
                schema: answer["content"]
                    .as_object()
                    .and_then(|content| content.values().next())
                    .map(|content| kind(&content["schema"])),
            });
            let scope = operation["security"][0]["token"][0].as_str().unwrap_or("none").to_owned();
            groups.entry(text(&operation["tags"][0])).or_default().push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                summary: text(&operation["summary"]),
                description: text(&operation["description"]),
                scope,
                parameters: parameters.collect(),
                body: body.map(|(media_type, content)| match &content["schema"] {
                    Value::Null => media_type.clone(),
                    schema => kind(schema),
                }),
                answers: answers.collect(),
            });
        }
    }
    groups.into_iter().map(|(name, operations)| Group { name, operations }).collect()
}

fn types(document: &Value) -> Vec<Type> {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let described = schemas.map(|(name, schema)| {
        // What is flattened into a type stands beside its own fields.
        let parts: Vec<&Value> = match schema["allOf"].as_array() {
            Some(parts) => parts.iter().collect(),
            None => vec![schema],
        };
        let fields = parts.iter().flat_map(|part| part["properties"].as_object().into_iter().flatten());
        let fields = fields.map(|(name, field)| Field {
            name: name.clone(),
            kind: kind(field),
            description: text(&field["description"]),
        });
        Type {
            name: name.clone(),
            description: text(&schema["description"]),
            fields: fields.collect(),
            kind: kind(schema),
        }
    });
    described.collect()
}
