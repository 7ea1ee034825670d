//! What a manifest allows of a new asset: its format, its media type, and what the seller filled into the form.

use std::collections::BTreeMap;

use billhook_plugin_api::Json;
use serde_json::value::RawValue;

use crate::package::{Format, Manifest};

/// Refuses a format or a media type that the manifest doesn't allow. Media types are equal regardless of case; a manifest
/// that names none allows all.
pub(super) fn check_asset(manifest: &Manifest, format: Format, media_type: &str) -> Result<(), String> {
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

/// Why a form can't be filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// What the seller gave is no object.
    NoObject,
    /// A mandatory field is empty: a sentence that names all such fields.
    Missing(String),
}

/// Fills the form's defaults into what the seller gave. Refuses if a mandatory field is left empty and has no default.
///
/// What the seller gave stays as it was written, number for number; where nothing is filled in, the whole text does.
pub(super) fn fill(manifest: &Manifest, given: &Json<'_>) -> Result<Json<'static>, Problem> {
    let mut fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(given.as_str()).map_err(|_| Problem::NoObject)?;
    let (mut missing, mut filled) = (Vec::new(), false);
    for field in &manifest.form {
        if fields.get(&field.name).is_some_and(|value| !["null", "\"\""].contains(&value.get())) {
            continue;
        }
        let default = field.default.as_ref().filter(|default| default.as_str() != Some(""));
        match default.and_then(|default| serde_json::value::to_raw_value(default).ok()) {
            Some(default) => {
                fields.insert(field.name.clone(), default);
                filled = true;
            }
            None if field.mandatory => missing.push(field.label.as_ref().unwrap_or(&field.name).as_str()),
            None => {}
        }
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Problem::Missing(format!("these fields of the form are mandatory and empty: {missing}")));
    }
    match Json::from_value(&fields) {
        Ok(json) if filled => Ok(json),
        _ => Ok(given.clone().into_owned()),
    }
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
                "plan": {"type": "select", "default": "basic", "mandatory": true, "options": [{"text": "B", "value": "basic"}]},
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

    #[test]
    fn defaults_are_filled_in_and_mandatory_fields_demanded() {
        let fill =
            |given: &str| fill(&manifest(), &Json::new(given).expect("JSON")).map(|json| json.as_str().to_owned());
        assert_eq!(fill(r#"{"key": "k"}"#).as_deref(), Ok(r#"{"key":"k","open":false,"plan":"basic"}"#));
        let exact = r#"{"account": 12345678901234567890123, "n":1.10,"key":"k"}"#;
        let expected = r#"{"account":12345678901234567890123,"key":"k","n":1.10,"open":false,"plan":"basic"}"#;
        assert_eq!(fill(exact).as_deref(), Ok(expected));
        let whole = r#"{"plan": "premium",  "key": "k", "open": true, "note": "n", "huge": 1e400}"#;
        assert_eq!(fill(whole).as_deref(), Ok(whole), "where nothing is filled in, nothing changes");
        for empty in ["{}", r#"{"key": ""}"#, r#"{"key": null}"#] {
            let missing = "these fields of the form are mandatory and empty: API key";
            assert_eq!(fill(empty), Err(Problem::Missing(missing.to_owned())));
        }
        for no_object in ["[]", "5", "\"text\""] {
            assert_eq!(fill(no_object), Err(Problem::NoObject));
        }
    }
}
