//! Add-ons and their resources; and the tokens of clients.

use std::time::SystemTime;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use billhook_plugin_api::data::AddonRequest;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Host, HostError};
use crate::{
    package::Addon,
    provisioning::{CreatedResource, Provisioning, ProvisioningError, SignOnRequest, SignedOn},
    registry::{Resource, ResourceFilter, Scope, Token},
};

/// What a token's text begins with, so that one that was lost is recognized.
const PREFIX: &str = "billhook_";

/// Add-on provisioning. Whoever speaks a platform's protocol calls these; each blocks as long as the add-on takes.
impl Host {
    fn provisioning(&self) -> Provisioning<'_> {
        let shared = &self.shared;
        Provisioning {
            registry: &shared.registry,
            dispatcher: &shared.dispatcher,
            locks: shared.home.locks(),
            known: &shared.known_credentials,
        }
    }

    /// Whether a password is the one that an add-on's platform has.
    pub fn check_addon_password(&self, addon: &str, password: &str) -> Result<bool, ProvisioningError> {
        self.provisioning().check_password(addon, password)
    }

    /// A customer of a platform's added an add-on. The same request again, by its `uuid`, is answered with the same resource.
    pub fn create_resource(&self, addon: &str, request: &AddonRequest) -> Result<CreatedResource, ProvisioningError> {
        self.provisioning().create(addon, request)
    }

    /// A customer of a platform's chose another plan. Answers the resource with its new configuration.
    pub fn update_resource(
        &self,
        addon: &str,
        id: &str,
        request: &AddonRequest,
    ) -> Result<Resource, ProvisioningError> {
        self.provisioning().update(addon, id, request)
    }

    /// A customer of a platform's removed an add-on.
    pub fn delete_resource(&self, addon: &str, id: &str) -> Result<(), ProvisioningError> {
        self.provisioning().delete(addon, id)
    }

    /// A platform sends somebody to see their resource. `None` if nobody vouches for them.
    pub fn sign_on(&self, request: &SignOnRequest) -> Result<Option<SignedOn>, ProvisioningError> {
        self.provisioning().sign_on(request)
    }

    /// Resources that add-ons provisioned, the newest first.
    pub fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>, HostError> {
        Ok(self.shared.registry.resources(filter)?)
    }

    /// Whether the add-on that a version has may take the place of the one that the plugin has now: its id is no other
    /// plugin's, and no resource is left behind.
    pub(super) fn check_addon(&self, plugin: &str, addon: Option<&str>) -> Result<(), HostError> {
        let addons = self.shared.registry.addons()?;
        if let Some(other) = addons.iter().find(|other| Some(other.id.as_str()) == addon && other.plugin != plugin) {
            let (addon, plugin) = (other.id.clone(), other.plugin.clone());
            return Err(HostError::AddonTaken { addon, plugin });
        }
        match addons.iter().find(|present| present.plugin == plugin) {
            Some(present) if Some(present.id.as_str()) != addon => {
                let resources = self.shared.registry.count_resources(&present.id)?;
                if resources > 0 {
                    let (id, addon) = (plugin.to_owned(), present.id.clone());
                    return Err(HostError::HasResources { id, addon, resources });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The add-on of an installed plugin.
    pub fn addon(&self, plugin: &str) -> Result<Option<Addon>, HostError> {
        let addons = self.shared.registry.addons()?;
        let found = addons.into_iter().find(|addon| addon.plugin == plugin);
        Ok(found.map(|addon| Addon { id: addon.id, config_vars: addon.config_vars }))
    }
}

/// Tokens, by which a server's clients prove who they are.
impl Host {
    /// Makes a token, and answers its text, which is kept nowhere. `expires` is in seconds since 1970.
    pub fn create_token(&self, name: &str, scope: Scope, expires: Option<i64>) -> Result<(Token, String), HostError> {
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(HostError::TokenName);
        }
        let mut random = [0; 38];
        getrandom::fill(&mut random).map_err(|error| HostError::Random(error.to_string()))?;
        let id: String = random[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = BASE64_URL_SAFE_NO_PAD.encode(&random[6..]);
        let created = now();
        // One round is enough: the secret is 256 bits of chance, which nobody guesses.
        let hash = Sha256::digest(&secret).to_vec();
        let token = Token { id: id.clone(), name: name.to_owned(), scope, created, expires, hash };
        self.shared.registry.add_token(&token)?;
        self.refresh()?;
        Ok((token, format!("{PREFIX}{id}_{secret}")))
    }

    /// All tokens.
    pub fn tokens(&self) -> Result<Vec<Token>, HostError> {
        Ok(self.shared.registry.tokens()?)
    }

    /// Forgets a token: within a second, no server takes it any more.
    pub fn remove_token(&self, id: &str) -> Result<(), HostError> {
        if !self.shared.registry.remove_token(id)? {
            return Err(HostError::NoToken { id: id.to_owned() });
        }
        self.refresh()
    }

    /// The generation of what this host knows of the registry: another one tells that something changed.
    pub fn generation(&self) -> i64 {
        self.shared.dispatcher.generation()
    }
}

/// Whole seconds since 1970.
fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl Token {
    /// The id in the text of a token, if it can be one.
    pub fn id_of(text: &str) -> Option<&str> {
        Some(text.strip_prefix(PREFIX)?.split_once('_')?.0)
    }

    /// Whether a text is this token's, in a time that tells nothing of it, and it has not expired.
    pub fn is(&self, text: &str) -> bool {
        let secret = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map_or("", |(_, secret)| secret);
        let is_same: bool = Sha256::digest(secret).as_slice().ct_eq(&self.hash).into();
        is_same && !self.is_expired()
    }

    /// Whether it allows nothing any more.
    pub fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| now() >= expires)
    }
}
