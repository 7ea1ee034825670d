//! What a manifest allows of a new asset: its format, its media type, and what the seller filled into the form.

use std::ops::Range;

use billhook_plugin_api::{
    Json,
    json_tree::{JsonKind, JsonNode, JsonTree},
};

use super::{FieldKind, FormField, Format, Manifest};

/// Refuses a format or a media type that the manifest doesn't allow. Media types are equal regardless of case; a manifest
/// that names none allows all.
pub(crate) fn check_asset(manifest: &Manifest, format: Format, media_type: &str) -> Result<(), String> {
    let name = &manifest.name;
    if !manifest.formats.contains(&format) {
        let allowed: Vec<&str> = manifest.formats.iter().map(|format| format.name()).collect();
        let (format, allowed) = (format.name(), allowed.join(" or "));
        return Err(format!("assets of the type {name:?} are provided as {allowed}, not as {format}"));
    }
    let allows = |allowed: &String| allowed.to_lowercase() == media_type.to_lowercase();
    if !manifest.media_types.is_empty() && !manifest.media_types.iter().any(allows) {
        let allowed = manifest.media_types.join(", ");
        return Err(format!(
            "assets of the type {name:?} can't have the media type {media_type:?}; allowed are {allowed}"
        ));
    }
    Ok(())
}

/// Why a form can't be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FormProblem {
    /// What the seller gave is no object.
    NoObject,
    /// Fields have values that they can't have, or are mandatory and empty: a sentence that names all of them.
    Fields(String),
}

/// Refuses what a seller can't have filled into the form: a value of another type than its field's, one that is no option, or nothing in
/// a mandatory field that has no default. What the form doesn't have is left alone.
pub(crate) fn check(manifest: &Manifest, given: &Json<'_>) -> Result<(), FormProblem> {
    if manifest.form.is_empty() {
        return Ok(());
    }
    look(manifest, given).map(drop)
}

/// Fills the form's defaults into what the seller gave, and refuses what [`check`] does.
///
/// What the seller gave stays as it was written, number for number.
pub(crate) fn fill(manifest: &Manifest, given: &Json<'_>) -> Result<Json<'static>, FormProblem> {
    let Looked { empty, added, end, is_first } = look(manifest, given)?;
    let given = given.as_str();
    let (mut filled, mut written) = (String::with_capacity(given.len()), 0);
    let mut add = |until: usize, from: usize, text: &str| {
        filled.push_str(&given[written..until]);
        filled.push_str(text);
        written = from;
    };
    for (range, default) in empty {
        add(range.start, range.end, &default);
    }
    let separator = if is_first || added.is_empty() { "" } else { "," };
    add(end, end, &format!("{separator}{}", added.join(",")));
    add(given.len(), given.len(), "");
    Json::new(filled).map_err(|_| FormProblem::NoObject)
}

/// What is to be filled into a form.
struct Looked {
    /// Defaults for what is there and empty, in the order of the text.
    empty: Vec<(Range<usize>, String)>,
    /// Members for what isn't there.
    added: Vec<String>,
    /// Where the object ends, before its bracket, and whether nothing is in it.
    end: usize,
    is_first: bool,
}

fn look(manifest: &Manifest, given: &Json<'_>) -> Result<Looked, FormProblem> {
    let tree = JsonTree::read(given.as_str()).map_err(|_| FormProblem::NoObject)?;
    let form = tree.root();
    if form.kind() != JsonKind::Object {
        return Err(FormProblem::NoObject);
    }
    let end = form.range().end - 1;
    let mut looked = Looked { empty: Vec::new(), added: Vec::new(), end, is_first: form.is_empty() };
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for field in &manifest.form {
        let values: Vec<_> =
            form.members().filter(|(key, _)| key.is_text(&field.name)).map(|(_, value)| value).collect();
        // Readers may take any of them.
        wrong.extend(values.iter().filter_map(|value| problem(field, *value)));
        let last = values.last();
        if last.is_some_and(|value| !is_empty(field, *value)) {
            continue;
        }
        match (default(field), last) {
            (Some(default), Some(value)) => looked.empty.push((value.range(), default)),
            (Some(default), None) => {
                looked.added.push(format!("{}:{default}", serde_json::Value::from(field.name.as_str())));
            }
            (None, _) if field.mandatory => missing.push(field.shown_label()),
            (None, _) => {}
        }
    }
    looked.empty.sort_by_key(|(range, _)| range.start);
    if !missing.is_empty() {
        wrong.push(format!("these fields of the form are mandatory and empty: {}", missing.join(", ")));
    }
    if wrong.is_empty() { Ok(looked) } else { Err(FormProblem::Fields(wrong.join("; "))) }
}

/// Whether a field is left empty. A checkbox is never empty text.
fn is_empty(field: &FormField, value: JsonNode<'_>) -> bool {
    value.kind() == JsonKind::Null || (field.kind != FieldKind::Checkbox && value.is_text(""))
}

/// The default of a field as JSON, if it is one that a seller could give.
fn default(field: &FormField) -> Option<String> {
    let default = field.default.as_ref()?;
    let is_option = |text: &str| field.options.iter().any(|option| option.value == text);
    match default.as_str() {
        Some("") => None,
        Some(text) if field.kind == FieldKind::Select && !is_option(text) => None,
        _ => Some(default.to_string()),
    }
}

/// Why a field can't have a value.
fn problem(field: &FormField, value: JsonNode<'_>) -> Option<String> {
    if is_empty(field, value) {
        return None;
    }
    let takes = match field.kind {
        FieldKind::Text | FieldKind::Textarea if value.kind() == JsonKind::Text => return None,
        FieldKind::Checkbox if value.kind() == JsonKind::Bool => return None,
        FieldKind::Select if field.options.iter().any(|option| value.is_text(&option.value)) => return None,
        FieldKind::Text | FieldKind::Textarea => "a text".to_owned(),
        FieldKind::Checkbox => "true or false".to_owned(),
        FieldKind::Select => {
            let options: Vec<String> = field.options.iter().map(|option| format!("{:?}", option.value)).collect();
            format!("one of {}", options.join(", "))
        }
    };
    let given = match value.text() {
        Some(text) if text.chars().count() <= 60 => format!("{text:?}"),
        _ => value.kind().name().to_owned(),
    };
    Some(format!("the field {:?} of the form takes {takes}, and has {given}", field.shown_label()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        let manifest = json!({
            "name": "X", "author": "a", "version": "1", "module": "m", "formats": ["URL"],
            "media_types": ["Application/JSON", "FIWARE NGSI-LD"],
            "form": {
                "plan": {"type": "select", "default": "basic", "mandatory": true,
                         "options": [{"text": "B", "value": "basic"}, {"text": "P", "value": "premium"}]},
                "key": {"type": "text", "label": "API key", "mandatory": true},
                "open": {"type": "checkbox", "default": false},
                "note": {"type": "textarea"}
            }
        });
        Manifest::parse(manifest.to_string().as_bytes()).expect("right")
    }

    #[test]
    fn formats_and_media_types_are_those_of_the_manifest_regardless_of_case() {
        assert_eq!(check_asset(&manifest(), Format::Url, "application/json"), Ok(()));
        assert_eq!(check_asset(&manifest(), Format::Url, "fiware ngsi-ld"), Ok(()));
        let error = check_asset(&manifest(), Format::File, "application/json").expect_err("no file");
        assert_eq!(error, "assets of the type \"X\" are provided as URL, not as FILE");
        assert!(check_asset(&manifest(), Format::Url, "text/html").expect_err("not allowed").contains("text/html"));
        let all = Manifest { media_types: Vec::new(), ..manifest() };
        assert_eq!(check_asset(&all, Format::Url, "anything/at-all"), Ok(()));
    }

    fn filled(manifest: &Manifest, given: &str) -> Result<String, FormProblem> {
        let given = Json::new(given).expect("JSON");
        let filled = fill(manifest, &given);
        assert_eq!(
            check(manifest, &given).err(),
            filled.as_ref().err().map(|_| fill(manifest, &given).expect_err("it"))
        );
        filled.map(|json| json.as_str().to_owned())
    }

    #[test]
    fn defaults_are_filled_in_and_mandatory_fields_demanded() {
        let fill = |given: &str| filled(&manifest(), given);
        assert_eq!(fill(r#"{"key": "k"}"#).as_deref(), Ok(r#"{"key": "k","plan":"basic","open":false}"#));
        // What was given stays as it is, also what the form doesn't have.
        let exact = r#" {"account": 12345678901234567890123, "n":1.10,"open" :null, "key":"k", "huge": 1e999999999 } "#;
        let expected = r#" {"account": 12345678901234567890123, "n":1.10,"open" :false, "key":"k", "huge": 1e999999999 ,"plan":"basic"} "#;
        assert_eq!(fill(exact).as_deref(), Ok(expected));
        let whole = r#"{"plan": "premium",  "key": "k\ud800", "open": true, "note": "n", "huge": 1e400, "\udc00": []}"#;
        assert_eq!(fill(whole).as_deref(), Ok(whole), "where nothing is filled in, nothing changes");
        for empty in ["{}", r#"{"key": ""}"#, r#"{"key": null}"#, r#"{"key": "k", "key": ""}"#] {
            let missing = "these fields of the form are mandatory and empty: API key";
            assert_eq!(fill(empty), Err(FormProblem::Fields(missing.to_owned())));
        }
        for no_object in ["[]", "5", "\"text\""] {
            assert_eq!(fill(no_object), Err(FormProblem::NoObject));
        }
        // A default that is no option is none.
        let mut odd = manifest();
        odd.form[0].default = Some(json!("gold"));
        let missing = "these fields of the form are mandatory and empty: plan";
        assert_eq!(filled(&odd, r#"{"key": "k"}"#), Err(FormProblem::Fields(missing.to_owned())));
        odd.form[0].mandatory = false;
        assert_eq!(filled(&odd, r#"{"key": "k"}"#).as_deref(), Ok(r#"{"key": "k","open":false}"#));
        let empty = Manifest { form: odd.form[2..3].to_vec(), ..odd };
        assert_eq!(filled(&empty, "{ }").as_deref(), Ok(r#"{ "open":false}"#));
    }

    #[test]
    fn a_value_that_its_field_can_not_have_is_refused_by_the_fields_name() {
        let problem = |given: &str| match filled(&manifest(), given) {
            Err(FormProblem::Fields(problem)) => problem,
            other => panic!("{given}: {other:?}"),
        };
        for (given, expected) in [
            (r#""plan": "gold""#, r#"the field "plan" of the form takes one of "basic", "premium", and has "gold""#),
            (r#""plan": "Basic""#, r#"and has "Basic""#),
            (r#""plan": 1"#, r#""plan" of the form takes one of "basic", "premium", and has a number"#),
            (r#""plan": ["basic"]"#, "and has a list"),
            (r#""plan": "gold", "plan": "basic""#, "and has \"gold\""),
            (r#""open": "yes""#, r#"the field "open" of the form takes true or false, and has "yes""#),
            (r#""open": """#, "takes true or false"),
            (r#""open": 0"#, "takes true or false, and has a number"),
            (r#""key": 5"#, r#"the field "API key" of the form takes a text, and has a number"#),
            (r#""note": {}"#, r#"the field "note" of the form takes a text, and has an object"#),
            (
                r#""note": true, "open": 1"#,
                r#"takes true or false, and has a number; the field "note" of the form takes a text, and has true or false"#,
            ),
        ] {
            let problem =
                problem(&format!(r#"{{{given}{}}}"#, if given.contains("key") { "" } else { r#", "key": "k""# }));
            assert!(problem.contains(expected), "{problem}");
        }
        let problem = problem(&format!(r#"{{"plan": "{}"}}"#, "x".repeat(100_000)));
        assert!(problem.contains("and has a text; these fields of the form are mandatory"), "{problem}");
    }

    #[test]
    fn what_the_form_does_not_have_is_left_alone() {
        let without = Manifest { form: Vec::new(), ..manifest() };
        assert_eq!(check(&without, &Json::new("[5]").expect("JSON")), Ok(()));
        let other = r#"{"key": "k", "plan": "basic", "open": true, "tier": "gold", "Plan": 5}"#;
        assert_eq!(filled(&manifest(), other).as_deref(), Ok(other));
    }
}
