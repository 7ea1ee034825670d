//! `package.json`: its rules, and what it says once they hold.
//!
//! The rules are those of the Business API Ecosystem. Its own host stops or crashes at some violations; here every one
//! is reported, all at once, each with its JSON path.

mod addon;

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

pub use addon::Addon;

use super::{
    Version,
    strict_json::{self, MOST_REPORTED, Parsed, Path},
};

/// How an asset may be provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Format {
    /// As a file that is uploaded.
    File,
    /// As the address of a service elsewhere.
    Url,
}

impl Format {
    /// As `package.json` names it.
    pub fn name(self) -> &'static str {
        match self {
            Format::File => "FILE",
            Format::Url => "URL",
        }
    }
}

/// The kind of a form field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// One line of text.
    Text,
    /// Lines of text.
    Textarea,
    /// Yes or no.
    Checkbox,
    /// One of several options.
    Select,
}

/// An option of a select field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectOption {
    /// What sellers see.
    pub text: String,
    /// What is kept.
    pub value: String,
}

/// A field of the form that sellers fill in for an asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormField {
    /// The key in the asset's `meta_info`.
    #[serde(skip)]
    pub name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: FieldKind,
    /// What sellers see beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The value where the seller gives none: text, or a boolean for a checkbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What an empty text field shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// The options of a select.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<SelectOption>,
    /// Whether the seller has to fill it in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mandatory: bool,
}

impl FormField {
    /// What sellers see beside it: its label, or else its name.
    pub fn shown_label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }

    /// What an empty text field shows.
    pub fn shown_placeholder(&self) -> &str {
        self.placeholder.as_deref().unwrap_or_default()
    }

    /// The text that it has where the seller gives none.
    pub fn default_text(&self) -> &str {
        self.default.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether a checkbox is checked where the seller does nothing.
    pub fn is_checked(&self) -> bool {
        self.default.as_ref().and_then(Value::as_bool).unwrap_or_default()
    }
}

/// A `package.json` whose rules hold.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The asset type, as sellers see it.
    pub name: String,
    /// Who wrote the plugin.
    pub author: String,
    /// How assets of the type may be provided.
    pub formats: Vec<Format>,
    /// The library, without the decoration that a platform adds.
    pub module: String,
    /// The plugin's version.
    pub version: Version,
    /// The media types that an asset may have; empty allows all.
    pub media_types: Vec<String>,
    /// Whether the host pulls usage from the plugin.
    pub pull_accounting: bool,
    /// The form that sellers fill in, in the order to show it in.
    pub form: Vec<FormField>,
    /// What of a product the plugin overrides: `NAME`, `VERSION`, `OPEN`.
    pub overrides: Vec<String>,
    /// The events that the plugin listens to.
    pub events: Vec<String>,
    /// The add-on that the plugin provides.
    pub addon: Option<Addon>,
    /// What is accepted and yet odd, a sentence each.
    pub warnings: Vec<String>,
    /// The document itself, as it is written.
    pub json: String,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where, as a JSON path from `$`.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// Why a `package.json` is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It can't be read as JSON.
    #[error("package.json can't be read: {0}")]
    Json(String),
    /// It breaks rules: all that it breaks.
    #[error("package.json breaks {} rule{}:{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, lines(.0))]
    Rules(Vec<Violation>),
}

fn lines(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("\n  {violation}")).collect()
}

pub(super) const LARGEST: usize = 1024 * 1024;
const REQUIRED: [(&str, Kind); 5] = [
    ("name", Kind::Text),
    ("author", Kind::Text),
    ("formats", Kind::List),
    ("module", Kind::Text),
    ("version", Kind::Text),
];
const OPTIONAL: [(&str, Kind); 8] = [
    ("media_types", Kind::List),
    ("pull_accounting", Kind::Boolean),
    ("form", Kind::Object),
    ("form_order", Kind::List),
    ("overrides", Kind::List),
    ("runtime", Kind::Text),
    ("events", Kind::List),
    ("addon", Kind::Object),
];

impl Manifest {
    /// Checks a `package.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        Draft::read(bytes).0
    }

    /// The plugin's id: the name in lower case, with `-` for spaces.
    pub fn id(&self) -> String {
        self.name.to_lowercase().replace(' ', "-")
    }
}

/// What can be said of a `package.json` also if it breaks rules.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// The module that it names.
    pub(crate) module: Option<String>,
    /// Whether it says that usage is pulled; `None` where that can't be told.
    pub(crate) pull_accounting: Option<bool>,
    /// What is odd and accepted.
    pub(crate) warnings: Vec<String>,
}

impl Draft {
    /// Checks a `package.json`, and tells what can be told of it in any case.
    pub(crate) fn read(bytes: &[u8]) -> (Result<Manifest, ManifestError>, Draft) {
        if bytes.len() > LARGEST {
            let error = ManifestError::Json(format!("it is longer than the {LARGEST} bytes that are taken"));
            return (Err(error), Draft::default());
        }
        let Parsed { text, value: json, duplicates } = match strict_json::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => return (Err(ManifestError::Json(error)), Draft::default()),
        };
        let mut check = Check::default();
        for path in duplicates {
            check.violations.push(Violation { path, problem: "this key stands twice".to_owned() });
        }
        let manifest = match &json {
            Value::Object(fields) => check.manifest(fields),
            _ => {
                check.violation(&Path::Root, "package.json has to be an object");
                None
            }
        };
        let pull_accounting = json.get("pull_accounting").map_or(Some(false), Value::as_bool);
        let module = json.get("module").and_then(Value::as_str).filter(|module| !module.is_empty());
        let draft = Draft {
            module: module.map(str::to_owned),
            pull_accounting: pull_accounting.filter(|_| json.is_object()),
            warnings: check.warnings.clone(),
        };
        let checked = match manifest {
            Some(manifest) if check.violations.is_empty() => {
                Ok(Manifest { warnings: check.warnings, json: text.to_owned(), ..manifest })
            }
            _ => Err(ManifestError::Rules(check.violations)),
        };
        (checked, draft)
    }
}

/// What a value has to be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    List,
    Boolean,
    Object,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::List => "a list",
            Kind::Boolean => "true or false",
            Kind::Object => "an object",
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::List => value.is_array(),
            Kind::Boolean => value.is_boolean(),
            Kind::Object => value.is_object(),
        }
    }
}

fn shown(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A name of a plugin or of a form field: letters, digits, `_`, space, `-`.
fn is_name(name: &str) -> bool {
    let is_letter_or_digit = |c: char| {
        use GeneralCategoryGroup::{Letter, Number};
        matches!(c.general_category_group(), Letter | Number)
    };
    !name.is_empty() && name.chars().all(|c| is_letter_or_digit(c) || ['_', ' ', '-'].contains(&c))
}

#[derive(Default)]
struct Check {
    violations: Vec<Violation>,
    warnings: Vec<String>,
}

impl Check {
    fn violation(&mut self, path: &Path<'_>, problem: impl Into<String>) {
        match self.violations.len().cmp(&MOST_REPORTED) {
            Ordering::Less => self.violations.push(Violation { path: path.to_string(), problem: problem.into() }),
            Ordering::Equal => {
                self.violations
                    .push(Violation { path: "$".to_owned(), problem: "and more: mend these first".to_owned() });
            }
            Ordering::Greater => {}
        }
    }

    fn warn(&mut self, warning: impl Into<String>) {
        if self.warnings.len() < MOST_REPORTED {
            self.warnings.push(warning.into());
        }
    }

    /// The value if it is of the kind; a violation if it is of another.
    fn typed<'a>(&mut self, path: &Path<'_>, value: &'a Value, kind: Kind) -> Option<&'a Value> {
        if kind.fits(value) {
            return Some(value);
        }
        self.violation(path, format!("it has to be {}, and is {}", kind.name(), shown(value)));
        None
    }

    fn manifest(&mut self, fields: &Map<String, Value>) -> Option<Manifest> {
        // Required fields first, then the optional ones, then what each says: all in one report.
        for (name, kind) in REQUIRED {
            match fields.get(name) {
                Some(value) => drop(self.typed(&Path::Key(&Path::Root, name), value, kind)),
                // An add-on may be no asset type at all.
                None if name == "formats" && fields.contains_key("addon") => {}
                None => self.violation(&Path::Key(&Path::Root, name), "this required field is missing"),
            }
        }
        for (name, kind) in OPTIONAL {
            if let Some(value) = fields.get(name) {
                self.typed(&Path::Key(&Path::Root, name), value, kind);
            }
        }
        for unknown in fields.keys() {
            if !REQUIRED.iter().chain(&OPTIONAL).any(|(known, _)| known == unknown) {
                self.warn(format!("{} is not a field of package.json and is ignored", Path::Key(&Path::Root, unknown)));
            }
        }
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let name = text("name").map(|name| self.name(name));
        let version = text("version").and_then(|version| self.version(version));
        let module = text("module").map(|module| self.module(module));
        let formats = fields.get("formats").and_then(Value::as_array).map(|formats| self.formats(formats));
        let media_types = self.texts(fields, "media_types", None);
        let overrides = self.texts(fields, "overrides", Some(&["NAME", "VERSION", "OPEN"]));
        let events = self.texts(fields, "events", None);
        let addon = fields.get("addon").and_then(Value::as_object).and_then(|addon| self.addon(addon));
        let formats = formats.or_else(|| fields.contains_key("addon").then(Vec::new));
        let form = self.form(fields);
        if let Some(runtime) = text("runtime").filter(|runtime| *runtime != "native") {
            let problem = format!("this version of billhook has no runtime {runtime:?}; it knows \"native\"");
            self.violation(&Path::Key(&Path::Root, "runtime"), problem);
        }
        Some(Manifest {
            name: name?,
            author: text("author")?.to_owned(),
            formats: formats?,
            module: module?,
            version: version?,
            media_types,
            pull_accounting: fields.get("pull_accounting").and_then(Value::as_bool).unwrap_or_default(),
            form,
            overrides,
            events,
            addon,
            warnings: Vec::new(),
            json: String::new(),
        })
    }

    fn name(&mut self, name: &str) -> String {
        if !is_name(name) {
            let problem = format!("{name:?} is no name: use letters, digits, '_', '-' and spaces, at least one");
            self.violation(&Path::Key(&Path::Root, "name"), problem);
        } else if name.trim() != name {
            self.warn(format!("the name {name:?} begins or ends with a space, which its id shows as '-'"));
        }
        name.to_owned()
    }

    fn version(&mut self, version: &str) -> Option<Version> {
        match version.parse() {
            Ok(version) => Some(version),
            Err(error) => {
                self.violation(&Path::Key(&Path::Root, "version"), error.to_string());
                None
            }
        }
    }

    fn module(&mut self, module: &str) -> String {
        if module.is_empty() {
            // Allowed in a manifest; a package with it has no module.
            self.warn("$.module names no library");
        } else if super::python::is_class(module) {
            self.warn(super::python::hint(module));
        }
        module.to_owned()
    }

    fn formats(&mut self, formats: &[Value]) -> Vec<Format> {
        let path = Path::Key(&Path::Root, "formats");
        if formats.is_empty() || formats.len() > 2 {
            self.violation(&path, "it has to hold one or two of \"FILE\" and \"URL\"");
        }
        let mut known = Vec::new();
        for (index, format) in formats.iter().enumerate() {
            let format = match format.as_str() {
                Some("FILE") => Format::File,
                Some("URL") => Format::Url,
                _ => {
                    self.violation(&Path::Index(&path, index), format!("{format} is neither \"FILE\" nor \"URL\""));
                    continue;
                }
            };
            if known.contains(&format) {
                self.warn(format!("{path} names {} twice", formats[index]));
            } else {
                known.push(format);
            }
        }
        known
    }

    /// A list of texts, each of which has to be one of `allowed` where that is given.
    fn texts(&mut self, fields: &Map<String, Value>, name: &str, allowed: Option<&[&str]>) -> Vec<String> {
        let path = Path::Key(&Path::Root, name);
        let mut texts = Vec::new();
        for (index, value) in fields.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
            match (value.as_str(), allowed) {
                (Some(text), Some(allowed)) if !allowed.contains(&text) => {
                    let problem = format!("{text:?} is none of {}", allowed.join(", "));
                    self.violation(&Path::Index(&path, index), problem);
                }
                (Some(text), _) => texts.push(text.to_owned()),
                (None, Some(_)) => drop(self.typed(&Path::Index(&path, index), value, Kind::Text)),
                (None, None) => self.warn(format!("{} is no text and is ignored", Path::Index(&path, index))),
            }
        }
        texts
    }

    fn form(&mut self, fields: &Map<String, Value>) -> Vec<FormField> {
        let path = Path::Key(&Path::Root, "form");
        let form = fields.get("form").and_then(Value::as_object);
        let mut found: Vec<FormField> = form
            .into_iter()
            .flatten()
            .filter_map(|(name, field)| self.field(&Path::Key(&path, name), name, field))
            .collect();

        let Some(order) = fields.get("form_order").and_then(Value::as_array) else { return found };
        let order_path = Path::Key(&Path::Root, "form_order");
        if !fields.contains_key("form") {
            self.violation(&order_path, "there is no form that it could order");
            return found;
        }
        for (index, name) in order.iter().enumerate() {
            match name.as_str() {
                None => self.warn(format!("{} is no text and is ignored", Path::Index(&order_path, index))),
                Some(name) if form.is_some_and(|form| !form.contains_key(name)) => {
                    self.warn(format!(
                        "{} names {name:?}, which the form doesn't have",
                        Path::Index(&order_path, index)
                    ));
                }
                Some(_) => {}
            }
        }
        let position = |name: &str| order.iter().position(|ordered| ordered.as_str() == Some(name));
        for name in form.into_iter().flat_map(Map::keys).filter(|name| position(name).is_none()) {
            self.violation(&order_path, format!("it has to name every field of the form, and lacks {name:?}"));
        }
        found.sort_by_key(|field| position(&field.name));
        found
    }

    fn field(&mut self, path: &Path<'_>, name: &str, field: &Value) -> Option<FormField> {
        if !is_name(name) {
            let problem =
                format!("{name:?} is no name of a field: use letters, digits, '_', '-' and spaces, at least one");
            self.violation(path, problem);
        }
        let field = self.typed(path, field, Kind::Object)?.as_object()?;
        let type_path = Path::Key(path, "type");
        let kind = match field.get("type") {
            None => {
                self.violation(&type_path, "it is missing: use \"text\", \"textarea\", \"checkbox\" or \"select\"");
                None
            }
            Some(value) => match value.as_str() {
                Some("text") => Some(FieldKind::Text),
                Some("textarea") => Some(FieldKind::Textarea),
                Some("checkbox") => Some(FieldKind::Checkbox),
                Some("select") => Some(FieldKind::Select),
                _ => {
                    let problem = format!("{value} is none of \"text\", \"textarea\", \"checkbox\" and \"select\"");
                    self.violation(&type_path, problem);
                    None
                }
            },
        };
        if let Some(mandatory) = field.get("mandatory") {
            self.typed(&Path::Key(path, "mandatory"), mandatory, Kind::Boolean);
        }
        let kind = kind?;
        let rules: &[(&str, Kind)] = match kind {
            FieldKind::Text | FieldKind::Textarea => {
                &[("label", Kind::Text), ("default", Kind::Text), ("placeholder", Kind::Text)]
            }
            FieldKind::Checkbox => &[("label", Kind::Text), ("default", Kind::Boolean)],
            FieldKind::Select => &[("label", Kind::Text), ("default", Kind::Text)],
        };
        for (key, rule) in rules {
            if let Some(value) = field.get(*key) {
                self.typed(&Path::Key(path, key), value, *rule);
            }
        }
        let options = if kind == FieldKind::Select { self.options(path, field) } else { Vec::new() };
        let known = ["type", "mandatory", "options"];
        for unknown in
            field.keys().filter(|key| !known.contains(&key.as_str()) && !rules.iter().any(|(rule, _)| rule == key))
        {
            self.warn(format!("{} means nothing to a field of this type and is ignored", Path::Key(path, unknown)));
        }
        let text = |key: &str| field.get(key).and_then(Value::as_str).map(str::to_owned);
        let default = field.get("default").cloned();
        if let Some(Value::String(default)) = &default
            && kind == FieldKind::Select
            && !options.iter().any(|option| option.value == *default)
        {
            self.warn(format!("{} is none of the options' values", Path::Key(path, "default")));
        }
        Some(FormField {
            name: name.to_owned(),
            kind,
            label: text("label"),
            default,
            placeholder: text("placeholder").filter(|_| matches!(kind, FieldKind::Text | FieldKind::Textarea)),
            options,
            mandatory: field.get("mandatory").and_then(Value::as_bool).unwrap_or_default(),
        })
    }

    fn options(&mut self, path: &Path<'_>, field: &Map<String, Value>) -> Vec<SelectOption> {
        let path = Path::Key(path, "options");
        let Some(value) = field.get("options") else {
            self.violation(&path, "a select has to have options");
            return Vec::new();
        };
        let Some(options) = self.typed(&path, value, Kind::List).and_then(Value::as_array) else { return Vec::new() };
        if options.is_empty() {
            self.violation(&path, "a select has to have at least one option");
        }
        let mut found = Vec::new();
        for (index, option) in options.iter().enumerate() {
            let path = Path::Index(&path, index);
            let Some(option) = self.typed(&path, option, Kind::Object).and_then(Value::as_object) else { continue };
            let [text, value] = ["text", "value"].map(|key| match option.get(key) {
                Some(value) => self.typed(&Path::Key(&path, key), value, Kind::Text).and_then(Value::as_str),
                None => {
                    self.violation(&Path::Key(&path, key), "it is missing");
                    None
                }
            });
            if let (Some(text), Some(value)) = (text, value) {
                found.push(SelectOption { text: text.to_owned(), value: value.to_owned() });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
