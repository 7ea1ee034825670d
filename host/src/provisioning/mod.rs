//! Add-ons that plugins provide to platforms, and the resources that they made.
//!
//! That a resource is asked for is noted before the add-on is, and what it answers is recorded before the platform hears of it. A
//! request that comes again, with the same key, is answered with the same resource; the add-on is asked again only where nobody
//! knows what became of the first time.

mod proof;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use billhook_plugin_api::{
    ErrorKind, Hook,
    data::{AddonConfig, AddonRequest, Credentials, Provisioned, SingleSignOn},
};

use crate::{
    crash_point,
    dispatch::{Dispatcher, HookError},
    locks::Lock,
    registry::{AddonRow, NewResource, Registry, RegistryError, Resource},
    runtime::{HookAnswer, HookObjects},
};

/// Why an add-on didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisioningError {
    /// No installed plugin provides such an add-on.
    #[error("there is no add-on {addon:?}")]
    NoAddon {
        /// Its id.
        addon: String,
    },
    /// The add-on has no such resource.
    #[error("{addon} has no resource {id:?}")]
    NoResource {
        /// The add-on.
        addon: String,
        /// The resource's id.
        id: String,
    },
    /// The add-on refused or failed.
    #[error(transparent)]
    Refused(#[from] HookError),
    /// The add-on answered what it must not.
    #[error("the add-on {addon} answered {problem}")]
    BadAnswer {
        /// The add-on.
        addon: String,
        /// What.
        problem: String,
    },
    /// The same was asked for before, and that isn't done yet.
    #[error("the same resource is being provisioned, and that didn't end within {} s", .0.as_secs_f64())]
    Busy(Duration),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The home's locks can't be used.
    #[error("the home's locks can't be used: {0}")]
    Lock(#[source] std::io::Error),
}

/// A platform sends somebody to see their resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignOnRequest {
    /// The add-on's id of the resource.
    pub id: String,
    /// The hexadecimal SHA-1 of `id:salt:timestamp`.
    pub token: String,
    /// When the platform sent them, in seconds since 1970.
    pub timestamp: String,
    /// Who they are.
    pub login: SingleSignOn,
}

/// Where somebody who signed on is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedOn {
    /// The add-on.
    pub addon: String,
    /// The address.
    pub location: String,
}

/// A resource that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedResource {
    /// The resource.
    pub resource: Resource,
    /// Whether it was there before: the request was a repetition.
    pub was_there: bool,
}

/// What provisioning needs of a host.
pub(crate) struct Provisioning<'a> {
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) locks: PathBuf,
    pub(crate) known: &'a KnownCredentials,
}

/// The credentials that add-ons answered last.
#[derive(Default)]
pub(crate) struct KnownCredentials(Mutex<HashMap<String, Known>>);

/// Credentials, of a generation of the registry: other settings make another.
#[derive(Clone)]
struct Known {
    generation: i64,
    at: Instant,
    credentials: Credentials,
}

/// So long credentials that were answered stand for those that would be.
const FRESH: Duration = Duration::from_secs(3);
/// How long a request waits for another one about the same resource.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of an id, and of a configuration in all.
const LONGEST_ID: usize = 255;
const LARGEST_CONFIG: usize = 256 * 1024;

impl Provisioning<'_> {
    fn addon(&self, id: &str) -> Result<AddonRow, ProvisioningError> {
        let addon = self.registry.addon(id)?.ok_or_else(|| ProvisioningError::NoAddon { addon: id.to_owned() })?;
        // Another process installed it just now: the registry has it, and this one's table doesn't yet.
        if self.dispatcher.implements_hook(&addon.plugin, Hook::AddonCreate).is_none() {
            self.dispatcher.refresh()?;
        }
        Ok(addon)
    }

    fn call(&self, addon: &AddonRow, hook: Hook, objects: &HookObjects) -> Result<HookAnswer, HookError> {
        self.dispatcher.call(&addon.plugin, hook, objects)
    }

    /// The add-on's credentials, at most a few seconds old: who guesses passwords neither keeps the plugin busy nor waits for
    /// what it is busy with.
    fn credentials(&self, addon: &AddonRow) -> Result<Credentials, HookError> {
        let generation = self.dispatcher.generation();
        let known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner).get(&addon.id).cloned();
        if let Some(known) = known.filter(|known| known.generation == generation && known.at.elapsed() < FRESH) {
            return Ok(known.credentials);
        }
        let answer = self.call(addon, Hook::AddonCredentials, &HookObjects::default())?;
        let missing = || HookError::internal(Hook::AddonCredentials, &addon.plugin, "it answered none".to_owned());
        let credentials = answer.credentials.ok_or_else(missing)?;
        let known = Known { generation, at: Instant::now(), credentials: credentials.clone() };
        self.known.0.lock().unwrap_or_else(PoisonError::into_inner).insert(addon.id.clone(), known);
        Ok(credentials)
    }

    /// Whether a password is the add-on's. An empty one is nobody's.
    pub(crate) fn check_password(&self, addon: &str, password: &str) -> Result<bool, ProvisioningError> {
        let credentials = self.credentials(&self.addon(addon)?)?;
        Ok(!credentials.password.is_empty() && proof::is_same(&credentials.password, password))
    }

    /// Asks an add-on for a resource.
    pub(crate) fn create(&self, addon: &str, request: &AddonRequest) -> Result<CreatedResource, ProvisioningError> {
        let addon = self.addon(addon)?;
        // One request with the same key at a time, in all processes.
        let key = request.uuid.as_deref().or(request.platform_id.as_ref().map(|id| id.as_str()));
        let _lock = key.map(|key| self.lock(&addon.id, key)).transpose()?;
        let (number, was_asked) = match self.registry.note_resource(&addon.id, request)? {
            NewResource::Known(resource) => return Ok(CreatedResource { resource: *resource, was_there: true }),
            NewResource::AskedBefore(number) => (number, true),
            NewResource::Noted(number) => (number, false),
        };
        let objects = HookObjects { addon_request: Some(request.clone()), ..HookObjects::default() };
        let made = match self.call(&addon, Hook::AddonCreate, &objects) {
            Ok(answer) => answer.provisioned,
            Err(error) => {
                // What was asked for before and may be there stays noted until the add-on says otherwise.
                let is_final = !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal);
                if !error.is_outcome_unknown() && (is_final || !was_asked) {
                    self.registry.forget_resource(number)?;
                }
                return Err(error.into());
            }
        };
        crash_point::reached("resource made");
        let id = made.as_ref().map(|made| made.id.as_str().to_owned());
        let checked = made.ok_or_else(|| "nothing".to_owned()).and_then(|made| check(&addon, made));
        let made = match checked {
            Ok(made) => made,
            Err(problem) => return self.take_back(&addon, number, id, problem),
        };
        match self.registry.made_resource(number, &made)? {
            Some(resource) => Ok(CreatedResource { resource, was_there: false }),
            None => {
                let problem = format!("the id {:?} of another customer's resource", made.id.as_str());
                self.take_back(&addon, number, None, problem)
            }
        }
    }

    /// Forgets a resource whose answer can't be taken, and tells the add-on to end it.
    fn take_back<T>(
        &self,
        addon: &AddonRow,
        number: i64,
        id: Option<String>,
        problem: String,
    ) -> Result<T, ProvisioningError> {
        if let Some(id) = id
            && self.registry.resource(&addon.id, &id)?.is_none()
        {
            let objects = HookObjects { resource: Some(id), ..HookObjects::default() };
            if let Err(error) = self.call(addon, Hook::AddonDelete, &objects) {
                tracing::error!(addon = addon.id, "a resource that can't be taken stays with the add-on: {error}");
            }
        }
        self.registry.forget_resource(number)?;
        Err(ProvisioningError::BadAnswer { addon: addon.id.clone(), problem })
    }

    /// Asks an add-on for another plan. Answers the resource with its new configuration.
    pub(crate) fn update(&self, addon: &str, id: &str, request: &AddonRequest) -> Result<Resource, ProvisioningError> {
        let addon = self.addon(addon)?;
        let _lock = self.lock(&addon.id, id)?;
        let mut resource = self.resource(&addon, id)?;
        let objects = HookObjects {
            resource: Some(id.to_owned()),
            addon_request: Some(request.clone()),
            ..HookObjects::default()
        };
        let config = self.call(&addon, Hook::AddonUpdate, &objects)?.config;
        if let Some(config) = &config {
            let bad = |problem| ProvisioningError::BadAnswer { addon: addon.id.clone(), problem };
            check_config(&addon, config).map_err(bad)?;
        }
        self.registry.change_resource(resource.number, request.plan.as_deref(), config.as_ref())?;
        resource.plan = request.plan.clone().or(resource.plan);
        resource.config = config.unwrap_or(resource.config);
        Ok(resource)
    }

    /// Tells an add-on to end a resource.
    pub(crate) fn delete(&self, addon: &str, id: &str) -> Result<(), ProvisioningError> {
        let addon = self.addon(addon)?;
        let _lock = self.lock(&addon.id, id)?;
        let resource = self.resource(&addon, id)?;
        let objects = HookObjects { resource: Some(id.to_owned()), ..HookObjects::default() };
        match self.call(&addon, Hook::AddonDelete, &objects) {
            Ok(_) => {}
            // It ended it before, and this host was cut off before it could note that.
            Err(error) if error.kind() == ErrorKind::NotFound && self.registry.addon(&addon.id)?.is_some() => {}
            Err(error) => return Err(error.into()),
        }
        crash_point::reached("resource deleted");
        Ok(self.registry.forget_resource(resource.number)?)
    }

    /// Lets somebody in whom a platform sent: the add-on that has the resource, and whose salt the token was made with, says
    /// where to. `None` where there is none, or the token is too old.
    pub(crate) fn sign_on(&self, request: &SignOnRequest) -> Result<Option<SignedOn>, ProvisioningError> {
        if !proof::is_recent(&request.timestamp) {
            return Ok(None);
        }
        for owner in self.registry.owners(&request.id)? {
            let Some(addon) = self.registry.addon(&owner)? else { continue };
            let credentials = match self.credentials(&addon) {
                Ok(credentials) => credentials,
                // Another one may have a resource of this id, too.
                Err(error) => {
                    tracing::warn!(addon = addon.id, "its salt can't be had: {error}");
                    continue;
                }
            };
            let salt = credentials.sso_salt.filter(|salt| !salt.is_empty());
            if !salt.is_some_and(|salt| proof::is_signed(request, &salt)) {
                continue;
            }
            let objects = HookObjects {
                resource: Some(request.id.clone()),
                login: Some(request.login.clone()),
                ..HookObjects::default()
            };
            let location = self.call(&addon, Hook::AddonSingleSignOn, &objects)?.location.unwrap_or_default();
            if location.is_empty()
                || location.len() > 8 * 1024
                || location.bytes().any(|byte| !(33..127).contains(&byte))
            {
                let problem = "an address that is none".to_owned();
                return Err(ProvisioningError::BadAnswer { addon: addon.id, problem });
            }
            return Ok(Some(SignedOn { addon: addon.id, location }));
        }
        Ok(None)
    }

    fn resource(&self, addon: &AddonRow, id: &str) -> Result<Resource, ProvisioningError> {
        let none = || ProvisioningError::NoResource { addon: addon.id.clone(), id: id.to_owned() };
        self.registry.resource(&addon.id, id)?.ok_or_else(none)
    }

    fn lock(&self, addon: &str, key: &str) -> Result<Lock, ProvisioningError> {
        let lock = Lock::of(&self.locks, "resource", [addon, key], PATIENCE).map_err(ProvisioningError::Lock)?;
        lock.ok_or(ProvisioningError::Busy(PATIENCE))
    }
}

/// What an add-on answered, if it may answer so.
fn check(addon: &AddonRow, made: Provisioned) -> Result<Provisioned, String> {
    let id = made.id.as_str();
    if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) {
        return Err(format!("an id that has not 1 to {LONGEST_ID} bytes, or control characters"));
    }
    if made.message.as_ref().is_some_and(|message| message.len() > 8 * 1024) {
        return Err("a message of more than 8 KiB".to_owned());
    }
    check_config(addon, &made.config)?;
    let missing: Vec<&str> =
        addon.config_vars.iter().filter(|name| !made.config.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        tracing::warn!(addon = addon.id, "a new resource lacks declared variables: {}", missing.join(", "));
    }
    Ok(made)
}

/// A configuration has no variables but those that package.json declares.
fn check_config(addon: &AddonRow, config: &AddonConfig) -> Result<(), String> {
    if let Some(unknown) = config.keys().find(|name| !addon.config_vars.contains(name)) {
        let known = addon.config_vars.join(", ");
        return Err(format!("the variable {unknown:?}, which package.json doesn't declare (it declares {known})"));
    }
    let size: usize = config.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > LARGEST_CONFIG {
        return Err(format!("a configuration of {size} bytes; at most {LARGEST_CONFIG} are taken"));
    }
    Ok(())
}
