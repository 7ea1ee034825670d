//! Add-ons that plugins provide to platforms, and the resources that they made.
//!
//! That a resource is asked for is noted before the add-on is, and what it answers is recorded before the platform hears of it. A
//! request that comes again, with the same key, is answered with the same resource; the add-on is asked again only where nobody
//! knows what became of the first time.

mod proof;

pub use proof::SignOnRequest;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use billhook_machine::crash_point;
use billhook_model::{Clock, Resource};
use billhook_plugin_api::{
    ErrorKind, Hook,
    call::{HookCall, HookReply},
    data::{AddonConfig, AddonRequest, Credentials, Provisioned},
};
use billhook_store::{Coordination, Guard, InstalledAddon, LockName, NewResource, Resources, StoreError};

use crate::dispatch::{Dispatcher, HookError, Target};

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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    pub(crate) resources: &'a dyn Resources,
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) coordination: &'a dyn Coordination,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) known: &'a KnownAddons,
}

/// What is known of the add-ons, of a generation of the registry: other plugins and other settings make another.
#[derive(Default)]
pub(crate) struct KnownAddons(Mutex<Known>);

#[derive(Default)]
struct Known {
    generation: Option<i64>,
    addons: HashMap<String, Arc<InstalledAddon>>,
    /// What each answered last, and when.
    credentials: HashMap<String, (Instant, Credentials)>,
}

impl KnownAddons {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin that provides an add-on, as far as that is known without asking the registry.
    pub(crate) fn plugin(&self, addon: &str) -> Option<String> {
        self.known().addons.get(addon).map(|addon| addon.plugin.clone())
    }
}

/// So long credentials that were answered stand for those that would be.
const FRESH: Duration = Duration::from_secs(3);
/// How long a request waits for another one about the same resource: not long, because it keeps others of the add-on waiting.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an id, and of a configuration in all.
const LONGEST_ID: usize = 255;
const LARGEST_CONFIG: usize = 256 * 1024;

impl Provisioning<'_> {
    fn addon(&self, id: &str) -> Result<Arc<InstalledAddon>, ProvisioningError> {
        let none = || ProvisioningError::NoAddon { addon: id.to_owned() };
        let addon = self.known()?.addons.get(id).cloned().ok_or_else(none)?;
        // Another process installed it just now: the registry has it, and this one's table doesn't yet.
        if self.dispatcher.implements_hook(&addon.plugin, Hook::AddonCreate).is_none() {
            self.dispatcher.refresh()?;
        }
        Ok(addon)
    }

    /// The add-ons of now: whoever asks for one that doesn't exist costs no look into the registry.
    fn known(&self) -> Result<MutexGuard<'_, Known>, StoreError> {
        // Before the add-ons are read, so that they are read again where it changes meanwhile.
        let generation = Some(self.dispatcher.generation());
        let known = self.known.known();
        if known.generation == generation {
            return Ok(known);
        }
        drop(known);
        let addons = self.resources.addons()?.into_iter().map(|addon| (addon.id.clone(), Arc::new(addon))).collect();
        let mut known = self.known.known();
        *known = Known { generation, addons, credentials: HashMap::new() };
        Ok(known)
    }

    /// Calls a hook of an add-on's plugin, which has to implement it.
    fn call(&self, addon: &InstalledAddon, call: HookCall<'_>) -> Result<HookReply, HookError> {
        let missing = || HookError::internal(call.hook(), &addon.plugin, "it provides no add-on".to_owned());
        self.dispatcher.call(Target::Plugin(&addon.plugin), call)?.ok_or_else(missing)
    }

    /// The add-on's credentials, at most a few seconds old: who guesses passwords neither keeps the plugin busy nor waits for
    /// what it is busy with.
    fn credentials(&self, addon: &InstalledAddon) -> Result<Credentials, ProvisioningError> {
        let generation = self.dispatcher.generation();
        if let Some((at, credentials)) = self.known()?.credentials.get(&addon.id)
            && at.elapsed() < FRESH
        {
            return Ok(credentials.clone());
        }
        let HookReply::AddonCredentials(credentials) = self.call(addon, HookCall::AddonCredentials {})? else {
            return Err(other_reply(addon));
        };
        let mut known = self.known.known();
        // Those of other settings are of another generation.
        if known.generation == Some(generation) {
            known.credentials.insert(addon.id.clone(), (Instant::now(), credentials.clone()));
        }
        Ok(credentials)
    }

    /// Whether a password is the add-on's. An empty one is nobody's.
    pub(crate) fn check_password(&self, addon: &str, password: &str) -> Result<bool, ProvisioningError> {
        let addon = self.addon(addon)?;
        let credentials = self.credentials(&addon)?;
        Ok(!credentials.password.is_empty() && proof::is_same(&credentials.password, password))
    }

    /// Asks an add-on for a resource.
    pub(crate) fn create(&self, addon: &str, request: &AddonRequest) -> Result<CreatedResource, ProvisioningError> {
        let addon = self.addon(addon)?;
        // One request with the same key at a time, in all processes.
        let key = request.uuid.as_deref().or(request.platform_id.as_ref().map(|id| id.as_str()));
        let _lock = key.map(|key| self.lock(&addon.id, key)).transpose()?;
        let (number, was_asked) = match self.resources.note_resource(&addon.id, request)? {
            NewResource::NoAddon => return Err(ProvisioningError::NoAddon { addon: addon.id.clone() }),
            NewResource::Known(resource) => {
                return Ok(CreatedResource { resource: declared(&addon, *resource), was_there: true });
            }
            NewResource::AskedBefore(number) => (number, true),
            NewResource::Noted(number) => (number, false),
        };
        let made = match self.call(&addon, HookCall::AddonCreate { addon_request: request }) {
            Ok(HookReply::AddonCreate(made)) => Some(made),
            Ok(_) => None,
            Err(error) => {
                // What was asked for before may be there, also where the add-on refuses it now: because it is there, perhaps.
                let is_not_there = !was_asked || (error.is_of_plugin() && error.kind() == ErrorKind::NotFound);
                if !error.is_outcome_unknown() && is_not_there {
                    self.resources.forget_resource(number)?;
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
        match self.resources.made_resource(number, &made)? {
            Some(resource) => Ok(CreatedResource { resource, was_there: false }),
            None => {
                let problem = format!("the id {:?} of another customer's resource", made.id.as_str());
                self.take_back(&addon, number, None, problem)
            }
        }
    }

    /// Forgets a resource whose answer can't be taken, and tells the add-on to end it. If it doesn't, the resource stays noted as
    /// one that may be there.
    fn take_back<T>(
        &self,
        addon: &InstalledAddon,
        number: i64,
        id: Option<String>,
        problem: String,
    ) -> Result<T, ProvisioningError> {
        if let Some(id) = id
            && self.resources.resource(&addon.id, &id)?.is_none()
        {
            match self.call(addon, HookCall::AddonDelete { resource: &id }) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::error!(
                        addon = addon.id,
                        resource = id,
                        "it can't be taken, and stays with the add-on: {error}"
                    );
                }
                _ => self.resources.forget_resource(number)?,
            }
        } else {
            self.resources.forget_resource(number)?;
        }
        Err(ProvisioningError::BadAnswer { addon: addon.id.clone(), problem })
    }

    /// Asks an add-on for another plan. Answers the resource with its new configuration.
    pub(crate) fn update(&self, addon: &str, id: &str, request: &AddonRequest) -> Result<Resource, ProvisioningError> {
        let addon = self.addon(addon)?;
        let _lock = self.lock(&addon.id, id)?;
        let mut resource = self.resource(&addon, id)?;
        let call = HookCall::AddonUpdate { resource: id, addon_request: request };
        let HookReply::AddonUpdate(config) = self.call(&addon, call)? else { return Err(other_reply(&addon)) };
        // The plan is another one now, whatever the add-on answered.
        let checked = config.as_ref().map_or(Ok(()), |config| check_config(&addon, config));
        let taken = config.filter(|_| checked.is_ok());
        self.resources.change_resource(resource.number, request.plan.as_deref(), taken.as_ref())?;
        checked.map_err(|problem| ProvisioningError::BadAnswer { addon: addon.id.clone(), problem })?;
        resource.plan = request.plan.clone().or(resource.plan);
        resource.config = taken.unwrap_or(resource.config);
        Ok(declared(&addon, resource))
    }

    /// Tells an add-on to end a resource.
    pub(crate) fn delete(&self, addon: &str, id: &str) -> Result<(), ProvisioningError> {
        let addon = self.addon(addon)?;
        let _lock = self.lock(&addon.id, id)?;
        let resource = self.resource(&addon, id)?;
        match self.call(&addon, HookCall::AddonDelete { resource: id }) {
            Ok(_) => {}
            // It ended it before, and this host was cut off before it could note that.
            Err(error) if error.kind() == ErrorKind::NotFound && error.is_of_plugin() => {}
            Err(error) => return Err(error.into()),
        }
        crash_point::reached("resource deleted");
        Ok(self.resources.forget_resource(resource.number)?)
    }

    /// Lets somebody in whom a platform sent: the add-on that has the resource, and whose salt the token was made with, says
    /// where to. `None` where there is none, or the token is too old. If the salt of one that has it can't be had, nobody knows.
    pub(crate) fn sign_on(&self, request: &SignOnRequest) -> Result<Option<SignedOn>, ProvisioningError> {
        if !proof::is_recent(&request.timestamp, self.clock.now()) {
            return Ok(None);
        }
        let mut failure = None;
        for owner in self.resources.owners(&request.id)? {
            let Ok(addon) = self.addon(&owner) else { continue };
            let credentials = match self.credentials(&addon) {
                Ok(credentials) => credentials,
                // Another one may have a resource of this id, too.
                Err(error) => {
                    tracing::warn!(addon = addon.id, "its salt can't be had: {error}");
                    failure = Some(error);
                    continue;
                }
            };
            let salt = credentials.sso_salt.filter(|salt| !salt.is_empty());
            if !salt.is_some_and(|salt| proof::is_signed(request, &salt)) {
                continue;
            }
            let call = HookCall::AddonSingleSignOn { resource: &request.id, login: &request.login };
            let HookReply::AddonSingleSignOn(location) = self.call(&addon, call)? else {
                return Err(other_reply(&addon));
            };
            if location.is_empty()
                || location.len() > 8 * 1024
                || location.bytes().any(|byte| !(33..127).contains(&byte))
            {
                let problem = "an address that is none".to_owned();
                return Err(ProvisioningError::BadAnswer { addon: addon.id.clone(), problem });
            }
            return Ok(Some(SignedOn { addon: addon.id.clone(), location }));
        }
        failure.map_or(Ok(None), Err)
    }

    fn resource(&self, addon: &InstalledAddon, id: &str) -> Result<Resource, ProvisioningError> {
        let none = || ProvisioningError::NoResource { addon: addon.id.clone(), id: id.to_owned() };
        self.resources.resource(&addon.id, id)?.ok_or_else(none)
    }

    fn lock(&self, addon: &str, key: &str) -> Result<Guard, ProvisioningError> {
        let lock = self.coordination.lock(&LockName::Resource { addon, key }, PATIENCE)?;
        lock.ok_or(ProvisioningError::Busy(PATIENCE))
    }
}

/// A hook that returned what only another hook does.
fn other_reply(addon: &InstalledAddon) -> ProvisioningError {
    ProvisioningError::BadAnswer { addon: addon.id.clone(), problem: "what another hook returns".to_owned() }
}

/// What an add-on answered, if it may answer so.
fn check(addon: &InstalledAddon, made: Provisioned) -> Result<Provisioned, String> {
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

/// A resource with those variables alone that the add-on declares: an older version may have declared others.
fn declared(addon: &InstalledAddon, mut resource: Resource) -> Resource {
    resource.config.retain(|name, _| addon.config_vars.contains(name));
    resource.config_vars.retain(|name| addon.config_vars.contains(name));
    resource
}

/// A configuration has no variables but those that package.json declares.
fn check_config(addon: &InstalledAddon, config: &AddonConfig) -> Result<(), String> {
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
