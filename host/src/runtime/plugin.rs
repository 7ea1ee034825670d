//! A plugin that is ready to be called, wherever it runs.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use billhook_plugin_api::{
    Hook, Json, PendingAccounting, PluginError, UsageSpec,
    abi::module::{LentOrder, PluginInstance},
    data::{
        AddonConfig, AddonRequest, Asset, AssetChanges, Contract, Credentials, Event, Provisioned, SingleSignOn, User,
    },
};

use super::{
    Instance,
    call::{Borrowed, CallFailure, Fault, HookAnswer, HookObjects},
    overdue,
    worker::Workers,
};

/// A plugin that is ready to be called.
pub(crate) enum Plugin {
    /// In this process, on the thread of the caller.
    InProcess(InProcess),
    /// In worker processes.
    Workers(Box<Workers>),
}

/// A plugin in this process.
pub(crate) struct InProcess {
    pub(crate) instance: Arc<Instance>,
    /// The hooks that run on threads of their own, with their deadlines.
    pub(crate) released: Vec<(Hook, Duration)>,
    /// The number of its slot, by which overdue calls are counted.
    pub(crate) number: u32,
}

impl Plugin {
    /// The hooks, if this one runs on the thread of the caller.
    #[inline]
    fn here(&self, hook: Hook) -> Result<Option<&PluginInstance>, CallFailure> {
        match self {
            Plugin::InProcess(plugin) if plugin.released.is_empty() || !plugin.is_released(hook) => {
                plugin.instance.hooks().map(Some).ok_or_else(|| CallFailure::Plugin(ended()))
            }
            _ => Ok(None),
        }
    }

    #[cold]
    fn elsewhere(&self, hook: Hook, objects: Borrowed<'_>) -> Result<HookAnswer, CallFailure> {
        match self {
            Plugin::InProcess(plugin) => plugin.call_released(hook, objects.to_owned()),
            Plugin::Workers(workers) => workers.call(hook, objects),
        }
    }

    fn changes(&self, hook: Hook, objects: Borrowed<'_>) -> Result<AssetChanges, CallFailure> {
        self.elsewhere(hook, objects).map(|answer| answer.changes)
    }
}

/// Why there are no hooks: the instance is being dropped, so nobody can have the plugin any more.
#[cold]
fn ended() -> PluginError {
    PluginError::unavailable("the plugin is being ended")
}

impl InProcess {
    fn is_released(&self, hook: Hook) -> bool {
        self.released.iter().any(|(released, _)| *released == hook)
    }

    /// Runs a hook on a thread of its own with copies of its objects, and lets the caller go at the deadline. What the hook
    /// changes later is dropped.
    fn call_released(&self, hook: Hook, objects: HookObjects) -> Result<HookAnswer, CallFailure> {
        let deadline = self.released.iter().find(|(released, _)| *released == hook).map(|(_, deadline)| *deadline);
        let deadline = deadline.unwrap_or_default();
        let (answer, answered) = mpsc::sync_channel(1);
        let plugin = Plugin::InProcess(InProcess {
            instance: Arc::clone(&self.instance),
            released: Vec::new(),
            number: self.number,
        });
        let number = self.number;
        let run = move || {
            // The caller goes at the deadline, and this thread may not: so many of them are too many.
            let _watched = overdue::enter(number, overdue::ticks(deadline));
            // Nobody may wait any more.
            let _ = answer.send(objects.call(&plugin, hook, None));
        };
        thread::Builder::new()
            .name("billhook-released".to_owned())
            .spawn(run)
            .map_err(|error| Fault::unavailable(format!("no thread can be started for the call: {error}"), None))?;
        answered
            .recv_timeout(deadline)
            .unwrap_or_else(|_| Err(timed_out(self.instance.plugin(), hook, deadline).into()))
    }
}

/// A call that took too long. What it was to do may be done.
#[cold]
pub(super) fn timed_out(plugin: &str, hook: Hook, deadline: Duration) -> Fault {
    metrics::counter!("billhook_timeouts_total", "plugin" => plugin.to_owned(), "hook" => hook.name()).increment(1);
    Fault::unknown(format!("timed out after {} s: outcome unknown", deadline.as_secs_f64()))
}

/// The hooks. Each takes what the hook of the trait takes.
impl Plugin {
    /// Calls `on_pre_product_spec_validation`.
    #[inline]
    pub(crate) fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), CallFailure> {
        match self.here(Hook::OnPreProductSpecValidation)? {
            Some(hooks) => Ok(hooks.on_pre_product_spec_validation(provider, asset_t, media_type, url)?),
            None => self
                .changes(
                    Hook::OnPreProductSpecValidation,
                    Borrowed {
                        provider: Some(provider),
                        asset_t: Some(asset_t),
                        media_type: Some(media_type),
                        url: Some(url),
                        ..Borrowed::default()
                    },
                )
                .map(drop),
        }
    }

    /// Calls `on_post_product_spec_validation`.
    #[inline]
    pub(crate) fn on_post_product_spec_validation(
        &self,
        provider: &User,
        asset: &Asset,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPostProductSpecValidation)? {
            Some(hooks) => Ok(hooks.on_post_product_spec_validation(provider, asset)?),
            None => self.changes(
                Hook::OnPostProductSpecValidation,
                Borrowed { provider: Some(provider), asset: Some(asset), ..Borrowed::default() },
            ),
        }
    }

    /// Calls `on_pre_product_spec_attachment`.
    #[inline]
    pub(crate) fn on_pre_product_spec_attachment(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPreProductSpecAttachment)? {
            Some(hooks) => Ok(hooks.on_pre_product_spec_attachment(asset, asset_t, product_spec)?),
            None => self.changes(
                Hook::OnPreProductSpecAttachment,
                Borrowed {
                    asset: Some(asset),
                    asset_t: Some(asset_t),
                    product_spec: Some(product_spec),
                    ..Borrowed::default()
                },
            ),
        }
    }

    /// Calls `on_post_product_spec_attachment`.
    #[inline]
    pub(crate) fn on_post_product_spec_attachment(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPostProductSpecAttachment)? {
            Some(hooks) => Ok(hooks.on_post_product_spec_attachment(asset, asset_t, product_spec)?),
            None => self.changes(
                Hook::OnPostProductSpecAttachment,
                Borrowed {
                    asset: Some(asset),
                    asset_t: Some(asset_t),
                    product_spec: Some(product_spec),
                    ..Borrowed::default()
                },
            ),
        }
    }

    /// Calls `on_pre_product_spec_upgrade`.
    #[inline]
    pub(crate) fn on_pre_product_spec_upgrade(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPreProductSpecUpgrade)? {
            Some(hooks) => Ok(hooks.on_pre_product_spec_upgrade(asset, asset_t, product_spec)?),
            None => self.changes(
                Hook::OnPreProductSpecUpgrade,
                Borrowed {
                    asset: Some(asset),
                    asset_t: Some(asset_t),
                    product_spec: Some(product_spec),
                    ..Borrowed::default()
                },
            ),
        }
    }

    /// Calls `on_post_product_spec_upgrade`.
    #[inline]
    pub(crate) fn on_post_product_spec_upgrade(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPostProductSpecUpgrade)? {
            Some(hooks) => Ok(hooks.on_post_product_spec_upgrade(asset, asset_t, product_spec)?),
            None => self.changes(
                Hook::OnPostProductSpecUpgrade,
                Borrowed {
                    asset: Some(asset),
                    asset_t: Some(asset_t),
                    product_spec: Some(product_spec),
                    ..Borrowed::default()
                },
            ),
        }
    }

    /// Calls `on_pre_product_offering_validation`.
    #[inline]
    pub(crate) fn on_pre_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPreProductOfferingValidation)? {
            Some(hooks) => Ok(hooks.on_pre_product_offering_validation(asset, product_offering)?),
            None => self.changes(
                Hook::OnPreProductOfferingValidation,
                Borrowed { asset: Some(asset), product_offering: Some(product_offering), ..Borrowed::default() },
            ),
        }
    }

    /// Calls `on_post_product_offering_validation`.
    #[inline]
    pub(crate) fn on_post_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnPostProductOfferingValidation)? {
            Some(hooks) => Ok(hooks.on_post_product_offering_validation(asset, product_offering)?),
            None => self.changes(
                Hook::OnPostProductOfferingValidation,
                Borrowed { asset: Some(asset), product_offering: Some(product_offering), ..Borrowed::default() },
            ),
        }
    }

    /// Calls `on_product_acquisition`.
    #[inline]
    pub(crate) fn on_product_acquisition(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: impl LentOrder,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnProductAcquisition)? {
            Some(hooks) => Ok(hooks.on_product_acquisition(asset, contract, order)?),
            None => self.changes(
                Hook::OnProductAcquisition,
                Borrowed {
                    asset: Some(asset),
                    contract: Some(contract),
                    order: Some(order.order()),
                    ..Borrowed::default()
                },
            ),
        }
    }

    /// Calls `on_product_suspension`.
    #[inline]
    pub(crate) fn on_product_suspension(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: impl LentOrder,
    ) -> Result<AssetChanges, CallFailure> {
        match self.here(Hook::OnProductSuspension)? {
            Some(hooks) => Ok(hooks.on_product_suspension(asset, contract, order)?),
            None => self.changes(
                Hook::OnProductSuspension,
                Borrowed {
                    asset: Some(asset),
                    contract: Some(contract),
                    order: Some(order.order()),
                    ..Borrowed::default()
                },
            ),
        }
    }

    /// Calls `get_usage_specs`.
    #[inline]
    pub(crate) fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, CallFailure> {
        match self.here(Hook::GetUsageSpecs)? {
            Some(hooks) => Ok(hooks.get_usage_specs()?),
            None => self
                .elsewhere(Hook::GetUsageSpecs, Borrowed::default())
                .map(|answer| answer.usage_specs.unwrap_or_default()),
        }
    }

    /// Calls `get_pending_accounting`.
    #[inline]
    pub(crate) fn get_pending_accounting(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: impl LentOrder,
    ) -> Result<(PendingAccounting, AssetChanges), CallFailure> {
        match self.here(Hook::GetPendingAccounting)? {
            Some(hooks) => Ok(hooks.get_pending_accounting(asset, contract, order)?),
            None => self
                .elsewhere(
                    Hook::GetPendingAccounting,
                    Borrowed {
                        asset: Some(asset),
                        contract: Some(contract),
                        order: Some(order.order()),
                        ..Borrowed::default()
                    },
                )
                .map(|answer| (answer.pending_accounting.unwrap_or_default(), answer.changes)),
        }
    }

    /// Calls `on_event`.
    pub(crate) fn on_event(&self, event: &Event) -> Result<(), CallFailure> {
        match self.here(Hook::OnEvent)? {
            Some(hooks) => Ok(hooks.on_event(event)?),
            None => self.changes(Hook::OnEvent, Borrowed { event: Some(event), ..Borrowed::default() }).map(drop),
        }
    }

    /// Calls `create` of an add-on.
    pub(crate) fn addon_create(&self, request: &AddonRequest) -> Result<Provisioned, CallFailure> {
        let hook = Hook::AddonCreate;
        match self.here(hook)? {
            Some(hooks) => Ok(hooks.addon_create(request)?),
            None => {
                let objects = Borrowed { addon_request: Some(request), ..Borrowed::default() };
                self.elsewhere(hook, objects)?.provisioned.ok_or_else(|| no_answer(hook))
            }
        }
    }

    /// Calls `update` of an add-on.
    pub(crate) fn addon_update(
        &self,
        resource: &str,
        request: &AddonRequest,
    ) -> Result<Option<AddonConfig>, CallFailure> {
        let hook = Hook::AddonUpdate;
        match self.here(hook)? {
            Some(hooks) => Ok(hooks.addon_update(resource, request)?),
            None => {
                let objects =
                    Borrowed { resource: Some(resource), addon_request: Some(request), ..Borrowed::default() };
                Ok(self.elsewhere(hook, objects)?.config)
            }
        }
    }

    /// Calls `delete` of an add-on.
    pub(crate) fn addon_delete(&self, resource: &str) -> Result<(), CallFailure> {
        match self.here(Hook::AddonDelete)? {
            Some(hooks) => Ok(hooks.addon_delete(resource)?),
            None => self
                .elsewhere(Hook::AddonDelete, Borrowed { resource: Some(resource), ..Borrowed::default() })
                .map(drop),
        }
    }

    /// Calls `credentials` of an add-on.
    pub(crate) fn addon_credentials(&self) -> Result<Credentials, CallFailure> {
        let hook = Hook::AddonCredentials;
        match self.here(hook)? {
            Some(hooks) => Ok(hooks.addon_credentials()?),
            None => self.elsewhere(hook, Borrowed::default())?.credentials.ok_or_else(|| no_answer(hook)),
        }
    }

    /// Calls `single_sign_on` of an add-on.
    pub(crate) fn addon_single_sign_on(&self, resource: &str, login: &SingleSignOn) -> Result<String, CallFailure> {
        let hook = Hook::AddonSingleSignOn;
        match self.here(hook)? {
            Some(hooks) => Ok(hooks.addon_single_sign_on(resource, login)?),
            None => {
                let objects = Borrowed { resource: Some(resource), login: Some(login), ..Borrowed::default() };
                self.elsewhere(hook, objects)?.location.ok_or_else(|| no_answer(hook))
            }
        }
    }
}

/// A worker said that a hook went through, and not what it answered.
#[cold]
fn no_answer(hook: Hook) -> CallFailure {
    PluginError::internal(format!("its worker went through {hook} and answered nothing")).into()
}
