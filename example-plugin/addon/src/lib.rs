//! "Notes": an add-on that gives each application a notebook.
//!
//! The platform's protocol is the host's business. What is here is a provider's: which plans there are, what a notebook
//! is called, and where it is shown. A notebook is an entry in the host's state; another provider makes a database, and
//! keeps there how to reach it.
#![forbid(unsafe_code)]

use billhook_plugin_api::{
    AddonProvisioning, AddonRequest, Plugin, PluginError, Services,
    data::{AddonConfig, Credentials, Provisioned, SingleSignOn},
};
use serde::{Deserialize, Serialize};

/// The plans that a customer can choose.
const PLANS: [&str; 2] = ["free", "team"];

/// A shorter password is guessed one day.
const SHORTEST_PASSWORD: usize = 16;

/// The instance: made once, called from many threads. What has to be remembered is in the host's state.
pub struct Notes {
    services: Services,
    settings: Settings,
}

/// What the operator sets. The platform has the same password and salt, from the add-on's manifest there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What the platform proves itself with.
    password: String,
    /// What single sign-on is signed with; without it, nobody signs on.
    sso_salt: Option<String>,
    /// Where notebooks are shown.
    #[serde(default = "Settings::base_url")]
    base_url: String,
}

impl Settings {
    fn base_url() -> String {
        "https://notes.example".to_owned()
    }
}

/// What is kept of a notebook, under [`key`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Notebook {
    plan: String,
    token: String,
}

fn key(id: &str) -> String {
    format!("notebook/{id}")
}

#[billhook_plugin_api::export]
impl Plugin for Notes {
    fn new(services: Services) -> Result<Self, PluginError> {
        let settings: Settings = services.parse_settings()?;
        if settings.password.chars().count() < SHORTEST_PASSWORD {
            let problem = format!("the password is too short: it needs {SHORTEST_PASSWORD} characters");
            return Err(PluginError::bad_value(problem));
        }
        Ok(Notes { services, settings })
    }
}

impl AddonProvisioning for Notes {
    fn create(&self, request: &AddonRequest<'_>) -> Result<Provisioned, PluginError> {
        let plan = plan(request)?;
        // The host can't always know what became of a request, and makes it again: the same uuid, the same notebook.
        let id = match request.uuid() {
            Some(uuid) => checked(uuid)?.to_owned(),
            None => random()?,
        };
        let (state, key) = (self.services.state(), key(&id));
        let notebook = match state.get(&key)? {
            Some(notebook) => notebook,
            None => {
                let notebook = Notebook { plan: plan.to_owned(), token: random()? };
                state.keep(&key, &notebook)?;
                self.services.log().info(format!("notebook {id} was made"));
                notebook
            }
        };
        let url = self.url(&id);
        Ok(Provisioned::new(id)
            .with("NOTES_URL", url)
            .with("NOTES_TOKEN", notebook.token)
            .with_message("Your notebook is ready."))
    }

    fn update(&self, resource: &str, request: &AddonRequest<'_>) -> Result<Option<AddonConfig>, PluginError> {
        let plan = plan(request)?;
        let notebook = Notebook { plan: plan.to_owned(), ..self.notebook(resource)? };
        self.services.state().keep(&key(resource), &notebook)?;
        // Its address and its token are good for every plan.
        Ok(None)
    }

    fn delete(&self, resource: &str) -> Result<(), PluginError> {
        self.notebook(resource)?;
        self.services.state().delete(&key(resource))?;
        self.services.log().info(format!("notebook {resource} was deleted"));
        Ok(())
    }

    fn credentials(&self) -> Result<Credentials, PluginError> {
        let credentials = Credentials::new(&self.settings.password);
        Ok(match &self.settings.sso_salt {
            Some(salt) => credentials.with_sso_salt(salt),
            None => credentials,
        })
    }

    fn single_sign_on(&self, resource: &str, _login: &SingleSignOn) -> Result<String, PluginError> {
        // Another provider makes a session for whoever signs on, and puts its secret into the address.
        self.notebook(resource)?;
        Ok(self.url(resource))
    }
}

impl Notes {
    fn url(&self, id: &str) -> String {
        format!("{}/notebooks/{id}", self.settings.base_url)
    }

    fn notebook(&self, id: &str) -> Result<Notebook, PluginError> {
        let notebook = self.services.state().get(&key(id))?;
        notebook.ok_or_else(|| PluginError::not_found(format!("there is no notebook {id}")))
    }
}

/// The plan that a request asks for. What is wrong with it is shown to the platform's customer.
fn plan<'a>(request: &AddonRequest<'a>) -> Result<&'a str, PluginError> {
    let plan = request.plan().unwrap_or_default();
    if PLANS.contains(&plan) {
        return Ok(plan);
    }
    Err(PluginError::invalid(format!("there is no plan {plan:?}; choose one of {}", PLANS.join(", "))))
}

/// A uuid that can be a part of an address as it is.
fn checked(uuid: &str) -> Result<&str, PluginError> {
    if uuid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Ok(uuid);
    }
    Err(PluginError::bad_value(format!("{uuid:?} is no uuid")))
}

/// 128 bits of chance, as hexadecimal digits.
fn random() -> Result<String, PluginError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use billhook_plugin_api::{ErrorKind, data, testing};
    use serde_json::{Value, json};

    use super::*;

    fn notes_with(settings: &Value) -> (Result<Notes, PluginError>, Services) {
        let services = testing::services().with_settings(&settings.to_string()).build();
        (Notes::new(services.clone()), services)
    }

    fn notes() -> (Notes, Services) {
        let (notes, services) = notes_with(&json!({"password": "sixteen or more!", "sso_salt": "salt"}));
        (notes.expect("the settings are right"), services)
    }

    fn request(uuid: Option<&str>, plan: &str) -> data::AddonRequest {
        let (uuid, plan) = (uuid.map(str::to_owned), Some(plan.to_owned()));
        data::AddonRequest { uuid, plan, ..data::AddonRequest::default() }
    }

    fn create(notes: &Notes, uuid: Option<&str>, plan: &str) -> Result<Provisioned, PluginError> {
        testing::with_addon_request(&request(uuid, plan), |request| notes.create(request))
    }

    fn update(notes: &Notes, id: &str, plan: &str) -> Result<Option<AddonConfig>, PluginError> {
        testing::with_addon_request(&request(None, plan), |request| notes.update(id, request))
    }

    fn kind<T>(answer: Result<T, PluginError>) -> Option<ErrorKind> {
        answer.err().map(|error| error.kind())
    }

    #[test]
    fn needs_a_password_that_nobody_guesses() {
        for (settings, problem) in [
            (json!({}), Some("missing field `password`")),
            (json!({"password": "fifteen or less"}), Some("it needs 16 characters")),
            (json!({"password": "sixteen or more!", "salt": ""}), Some("unknown field `salt`")),
            (json!({"password": "sixteen or more!"}), None),
        ] {
            let refused = notes_with(&settings).0.err().map(|error| error.message().to_owned());
            match (&refused, problem) {
                (Some(message), Some(part)) => assert!(message.contains(part), "{settings}: {message}"),
                _ => assert_eq!(refused.is_some(), problem.is_some(), "{settings}: {refused:?}"),
            }
        }
    }

    #[test]
    fn answers_the_same_request_with_the_same_notebook_and_others_with_others() {
        let (notes, _) = notes();
        let made = create(&notes, Some("note-1"), "free").expect("made");
        assert_eq!(made.id.as_str(), "note-1");
        assert_eq!(made.config["NOTES_URL"], "https://notes.example/notebooks/note-1");
        assert_eq!(made.config["NOTES_TOKEN"].len(), 32);
        assert_eq!(create(&notes, Some("note-1"), "free").expect("made"), made);
        let others = [Some("note-2"), None, None].map(|uuid| create(&notes, uuid, "team").expect("made"));
        for (index, other) in others.iter().enumerate() {
            let before = others[..index].iter().chain([&made]);
            for one in before {
                assert_ne!(one.id, other.id);
                assert_ne!(one.config["NOTES_TOKEN"], other.config["NOTES_TOKEN"]);
            }
        }
    }

    #[test]
    fn refuses_what_it_does_not_provide() {
        let (notes, services) = notes();
        assert_eq!(kind(create(&notes, Some("note-1"), "gold")), Some(ErrorKind::Invalid));
        assert_eq!(kind(create(&notes, Some("../note"), "free")), Some(ErrorKind::BadValue));
        let unplanned = data::AddonRequest::default();
        let answer = testing::with_addon_request(&unplanned, |request| notes.create(request));
        assert_eq!(kind(answer), Some(ErrorKind::Invalid));
        assert_eq!(services.state().get::<Notebook>(&key("note-1")).expect("readable"), None, "nothing is left behind");
    }

    #[test]
    fn another_plan_keeps_the_token() {
        let (notes, services) = notes();
        let token = create(&notes, Some("note-1"), "free").expect("made").config["NOTES_TOKEN"].clone();
        assert_eq!(update(&notes, "note-1", "team").expect("changed"), None);
        let kept: Option<Notebook> = services.state().get(&key("note-1")).expect("readable");
        assert_eq!(kept, Some(Notebook { plan: "team".to_owned(), token }));
        assert_eq!(kind(update(&notes, "note-1", "gold")), Some(ErrorKind::Invalid));
        assert_eq!(kind(update(&notes, "note-2", "team")), Some(ErrorKind::NotFound));
    }

    #[test]
    fn what_is_deleted_is_gone() {
        let (notes, _) = notes();
        let id = create(&notes, None, "free").expect("made").id;
        let sign_on = || notes.single_sign_on(id.as_str(), &SingleSignOn::default());
        assert_eq!(sign_on().expect("it is there"), format!("https://notes.example/notebooks/{id}"));
        notes.delete(id.as_str()).expect("deleted");
        assert_eq!(kind(notes.delete(id.as_str())), Some(ErrorKind::NotFound));
        assert_eq!(kind(sign_on()), Some(ErrorKind::NotFound));
    }

    #[test]
    fn proves_itself_by_its_settings() {
        let (notes, _) = notes();
        let expected = Credentials::new("sixteen or more!").with_sso_salt("salt");
        assert_eq!(notes.credentials().expect("always"), expected);
        let (unsalted, _) = notes_with(&json!({"password": "sixteen or more!"}));
        assert_eq!(unsalted.expect("right").credentials().expect("always").sso_salt, None);
    }
}
