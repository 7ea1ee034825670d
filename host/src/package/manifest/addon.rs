//! The add-on in a `package.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Check, Kind, Path};

/// An add-on that a plugin provides to a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addon {
    /// Its id, which is the user of the platform's requests.
    pub id: String,
    /// The variables that a resource's configuration may have.
    #[serde(default)]
    pub config_vars: Vec<String>,
}

impl Check {
    pub(super) fn addon(&mut self, addon: &Map<String, Value>) -> Option<Addon> {
        let path = Path::Key(&Path::Root, "addon");
        let id_path = Path::Key(&path, "id");
        let id = match addon.get("id") {
            Some(id) => self.typed(&id_path, id, Kind::Text).and_then(Value::as_str),
            None => {
                self.violation(&id_path, "it is missing");
                None
            }
        };
        // It is the user of basic authentication, which a colon ends.
        let is_id = |id: &str| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
            (1..=100).contains(&id.len()) && id.chars().all(is_part)
        };
        if let Some(id) = id.filter(|id| !is_id(id)) {
            let problem = format!("{id:?} is no id: use up to 100 letters of a-z, digits, '-', '_' and '.'");
            self.violation(&id_path, problem);
        }
        let variables_path = Path::Key(&path, "config_vars");
        let mut config_vars = Vec::new();
        let listed = addon.get("config_vars").and_then(|list| self.typed(&variables_path, list, Kind::List));
        for (index, variable) in listed.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let path = Path::Index(&variables_path, index);
            let Some(variable) = self.typed(&path, variable, Kind::Text).and_then(Value::as_str) else { continue };
            let is_variable = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if variable.is_empty()
                || variable.len() > 200
                || variable.starts_with(|c: char| c.is_ascii_digit())
                || !variable.chars().all(is_variable)
            {
                let problem = format!("{variable:?} is no variable: use letters of A-Z, digits and '_'");
                self.violation(&path, problem);
            } else if config_vars.iter().any(|known| known == variable) {
                self.warn(format!("{variables_path} names {variable:?} twice"));
            } else {
                config_vars.push(variable.to_owned());
            }
        }
        for unknown in addon.keys().filter(|key| !["id", "config_vars"].contains(&key.as_str())) {
            self.warn(format!("{} is not a field of an add-on and is ignored", Path::Key(&path, unknown)));
        }
        Some(Addon { id: id?.to_owned(), config_vars })
    }
}
