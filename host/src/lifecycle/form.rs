//! What a manifest allows of a new asset: its format, its media type, and what the seller filled into the form.

use serde_json::{Map, Value};

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

/// Fills the form's defaults into what the seller gave. Refuses if a mandatory field is left empty and has no default: all such
/// fields at once.
pub(super) fn fill(manifest: &Manifest, mut given: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut missing = Vec::new();
    for field in &manifest.form {
        let is_empty = |value: &Value| value.is_null() || value.as_str().is_some_and(str::is_empty);
        if given.get(&field.name).is_some_and(|value| !is_empty(value)) {
            continue;
        }
        match &field.default {
            Some(default) if !is_empty(default) => drop(given.insert(field.name.clone(), default.clone())),
            _ if field.mandatory => missing.push(field.label.as_ref().unwrap_or(&field.name).as_str()),
            _ => {}
        }
    }
    if missing.is_empty() {
        Ok(given)
    } else {
        Err(format!("these fields of the form are mandatory and empty: {}", missing.join(", ")))
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
        let fill = |given: Value| fill(&manifest(), given.as_object().expect("an object").clone()).map(Value::from);
        assert_eq!(fill(json!({"key": "k"})), Ok(json!({"key": "k", "plan": "basic", "open": false})));
        let given = json!({"key": "k", "plan": "premium", "open": true, "note": "n", "own": 1});
        assert_eq!(fill(given.clone()), Ok(given));
        for empty in [json!({}), json!({"key": ""}), json!({"key": null})] {
            assert_eq!(fill(empty), Err("these fields of the form are mandatory and empty: API key".to_owned()));
        }
    }
}
