//! The way of a call, from top to bottom: is it listened to; before handlers; the slot that it goes to; the instance; and what is
//! noted of it.

use std::{sync::Arc, time::Instant};

use billhook_model::{ExecutionStatus, LONGEST_OBJECT_ID, ListenerKind, NewEvent, PluginStatus, text};
use billhook_plugin_api::{
    Hook, Json,
    call::{HookCall, HookObjects, HookReply, MissingObject, OwnedHookCall},
    data::{Asset, Event},
};

use billhook_store::{CalledName, EventRecord, ExecutionNote};

use super::{
    Dispatcher, HookError, Table,
    slot::{NotReady, Slot},
    status_of,
    table::Route,
};
use crate::package::form;

/// How the plugin of a call is found.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// By the type of its assets.
    Type(&'a str),
    /// By its id, whatever the asset's type is.
    Plugin(&'a str),
}

impl Target<'_> {
    #[inline]
    fn route(self, hook: Hook, table: &Table) -> Result<&Route, HookError> {
        match self {
            Target::Type(name) => table.by_type(name).ok_or_else(|| HookError::unknown_type(hook, name)),
            Target::Plugin(id) => table.by_id(id).ok_or_else(|| HookError::not_installed(hook, id)),
        }
    }
}

/// What a hook returned, and what listeners are to be told of it.
pub(crate) struct Returned {
    /// `None` where the plugin doesn't implement the hook.
    pub(crate) reply: Option<HookReply>,
    pub(crate) records: Vec<EventRecord>,
}

impl Dispatcher {
    /// Calls a hook, and records what its listeners are told. Returns `None` where the plugin doesn't implement the hook.
    #[inline]
    pub(crate) fn call(&self, target: Target<'_>, call: HookCall<'_>) -> Result<Option<HookReply>, HookError> {
        let table = self.table.load();
        self.check_form(&table, target, &call)?;
        let returned = if table.is_listened_to(call.hook()) {
            self.call_and_tell(target, call)
        } else {
            about_asset(self.route(&table, target, call), &call)
        };
        match returned {
            Err(error) if error.is_unknown() => self.call_anew(table.generation, target, call, error),
            returned => returned,
        }
    }

    /// Calls a hook of which the table knows no plugin: one may have been installed since the table was made.
    #[cold]
    fn call_anew(
        &self,
        generation: i64,
        target: Target<'_>,
        call: HookCall<'_>,
        error: HookError,
    ) -> Result<Option<HookReply>, HookError> {
        let table = self.table_after_refresh();
        if table.generation == generation {
            return Err(error);
        }
        self.check_form(&table, target, &call)?;
        if table.is_listened_to(call.hook()) {
            return self.call_and_tell(target, call);
        }
        about_asset(self.route(&table, target, call), &call)
    }

    /// Refuses a new asset whose seller filled in what the form doesn't allow. Within a pair that was looked at before the work: what
    /// the work found may be older than the form.
    #[inline]
    fn check_form(&self, table: &Table, target: Target<'_>, call: &HookCall<'_>) -> Result<(), HookError> {
        match call {
            HookCall::OnPostProductSpecValidation { asset, .. } => {
                self.check_form_of(table, target, call.hook(), asset)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn check_form_of(&self, table: &Table, target: Target<'_>, hook: Hook, asset: &Asset) -> Result<(), HookError> {
        // A plugin that isn't there, or takes no calls, is told of by the call itself.
        let Ok(slot) = target.route(hook, table).map(Route::in_use) else { return Ok(()) };
        if slot.spec().status != PluginStatus::Enabled {
            return Ok(());
        }
        let manifest = slot
            .manifest(hook)
            .or_else(|_| target.route(hook, &self.table_after_refresh())?.in_use().manifest(hook))?;
        form::check(&manifest, &asset.meta_info)
            .map_err(|problem| HookError::of_form(hook, slot.id(), problem).about(&asset.id))
    }

    /// Calls a hook of a pair. What its listeners are told is returned, and recorded when the whole pair went through.
    pub(crate) fn call_in_pair(&self, target: Target<'_>, call: HookCall<'_>) -> Result<Returned, HookError> {
        let mut table = self.table.load_full();
        loop {
            let returned = if table.is_listened_to(call.hook()) {
                self.call_listened_to(target, call)
            } else {
                self.route(&table, target, call).map(|reply| Returned { reply, records: Vec::new() })
            };
            if returned.as_ref().is_err_and(HookError::is_unknown) {
                // One may have been installed since the table was made.
                let now = self.table_after_refresh();
                if now.generation != table.generation {
                    table = now;
                    continue;
                }
            }
            return about_asset(returned, &call);
        }
    }

    /// Calls a hook with what it takes of some objects.
    pub(crate) fn call_with(
        &self,
        target: Target<'_>,
        hook: Hook,
        objects: HookObjects,
    ) -> Result<Option<HookReply>, HookError> {
        // Also where the hook itself doesn't take it.
        let asset = objects.asset.as_ref().map(|asset| asset.id.clone());
        let returned = match OwnedHookCall::new(hook, objects) {
            Ok(call) => self.call(target, call.borrowed()),
            Err(missing) => self.refuse(target, &missing),
        };
        match asset.filter(|_| !matches!(hook, Hook::GetUsageSpecs | Hook::OnEvent)) {
            Some(asset) => returned.map_err(|error| error.about(&asset)),
            None => returned,
        }
    }

    /// Says why a call without all of its objects comes to nothing, unless the plugin doesn't implement the hook.
    #[cold]
    fn refuse(&self, target: Target<'_>, missing: &MissingObject) -> Result<Option<HookReply>, HookError> {
        let table = self.table.load();
        let slot = target.route(missing.hook, &table)?.in_use();
        match slot.instance(missing.hook) {
            Ok(None) => Ok(None),
            Err(NotReady::Refused(error)) => Err(error),
            _ => Err(HookError::bad_value(missing.hook, slot.id(), missing.to_string())),
        }
    }

    /// Delivers an event to a plugin. What becomes of it is noted with its delivery.
    pub(crate) fn deliver(&self, plugin: &str, event: &Event) -> Result<(), HookError> {
        let table: Arc<Table> = self.table.load_full();
        self.route(&table, Target::Plugin(plugin), HookCall::OnEvent { event }).map(drop)
    }

    #[cold]
    fn call_and_tell(&self, target: Target<'_>, call: HookCall<'_>) -> Result<Option<HookReply>, HookError> {
        let Returned { reply, records } = about_asset(self.call_listened_to(target, call), &call)?;
        self.tell(call.hook(), records)?;
        Ok(reply)
    }

    /// Calls a hook whose calls are listened to: before handlers, the plugin with the objects as they left them, and what the
    /// after listeners are to be told.
    #[cold]
    fn call_listened_to(&self, target: Target<'_>, call: HookCall<'_>) -> Result<Returned, HookError> {
        let hook = call.hook();
        let table = self.table.load_full();
        let id = Arc::clone(target.route(hook, &table)?.in_use().id());
        let chain = table.listeners.chain(hook.name());
        let mut owned = call.to_owned();
        let written = |problem: String| HookError::internal(hook, &id, problem);
        let mut event = NewEvent::new(hook.name()).with_data(data_of(target, call).map_err(written)?);
        event.object_id = call.object().map(Into::into);
        let before = self.phases.before_hook(hook, &chain, &event, &mut owned)?;
        let mut reply = self.route(&table, target, owned.borrowed())?;
        let mut changes = before;
        if let Some(of_hook) = reply.as_mut().and_then(HookReply::changes_mut) {
            changes.add(std::mem::take(of_hook));
            *of_hook = changes.clone();
        } else if !changes.is_empty() {
            // The plugin lacks the hook, and handlers changed the asset: that is saved all the same.
            reply = HookReply::of_changes(hook, changes.clone());
        }
        let mut records = Vec::new();
        if !chain.after.is_empty() {
            if let Some(asset) = owned.asset_mut() {
                changes.apply(asset);
            }
            event.data = data_of(target, owned.borrowed()).map_err(written)?;
            let listeners = chain.after.iter().map(|(_, listener)| listener.clone()).collect();
            records.push(EventRecord::new(event, listeners));
        }
        Ok(Returned { reply, records })
    }

    /// Finds the slot of a call, and calls its instance. A plugin that couldn't begin may have been changed or removed since the
    /// table was made: then the call goes where it goes now.
    #[inline]
    fn route(&self, table: &Table, target: Target<'_>, call: HookCall<'_>) -> Result<Option<HookReply>, HookError> {
        let slot = target.route(call.hook(), table)?.choose(call.object());
        match self.call_slot(slot, call) {
            Ok(reply) => Ok(reply),
            Err(NotReady::Refused(error)) => Err(error),
            Err(NotReady::NotBegun(error)) => self.route_anew(slot, target, call, error),
        }
    }

    #[cold]
    fn route_anew(
        &self,
        stale: &Arc<Slot>,
        target: Target<'_>,
        call: HookCall<'_>,
        error: HookError,
    ) -> Result<Option<HookReply>, HookError> {
        let table = self.table_after_refresh();
        let slot = target.route(call.hook(), &table)?.choose(call.object());
        let start = Instant::now();
        let error = if Arc::ptr_eq(slot, stale) {
            error
        } else {
            match self.call_slot(slot, call) {
                Ok(reply) => return Ok(reply),
                Err(NotReady::Refused(error)) => return Err(error),
                Err(NotReady::NotBegun(error)) => error,
            }
        };
        if self.notes(call.hook()) {
            self.note(slot, call, start, Some(&error));
        }
        Err(error)
    }

    /// Calls the instance of a slot, and notes the call where calls of hooks are recorded: but for one that couldn't begin, which
    /// may go elsewhere.
    #[inline]
    fn call_slot(&self, slot: &Arc<Slot>, call: HookCall<'_>) -> Result<Option<HookReply>, NotReady> {
        let Some(instance) = slot.instance(call.hook())? else { return Ok(None) };
        let noted_from = self.notes(call.hook()).then(Instant::now);
        let returned = slot.call(instance, call);
        match returned {
            Err(error) if error.is_not_begun() => Err(NotReady::NotBegun(error)),
            returned => {
                if let Some(start) = noted_from {
                    self.note(slot, call, start, returned.as_ref().err());
                }
                returned.map(Some).map_err(NotReady::Refused)
            }
        }
    }

    /// Whether calls of a hook are noted here. Events are noted with their deliveries.
    #[inline]
    fn notes(&self, hook: Hook) -> bool {
        self.records_hooks && !matches!(hook, Hook::OnEvent | Hook::AddonCredentials)
    }

    #[cold]
    fn note(&self, slot: &Slot, call: HookCall<'_>, start: Instant, error: Option<&HookError>) {
        self.phases.note(ExecutionNote {
            at: self.phases.clock.now(),
            event: CalledName::Hook(call.hook().name()),
            object: text::beginning(call.object().unwrap_or_default(), LONGEST_OBJECT_ID).to_owned(),
            kind: ListenerKind::Plugin,
            listener: Arc::clone(slot.id()),
            attempt: 1,
            status: error.map_or(ExecutionStatus::Success, status_of),
            error: error.map(|error| error.message().to_owned()),
            response: String::new(),
            took: start.elapsed(),
            delivery: None,
        });
    }

    /// Records what listeners are told of hooks that went through. Durable on return.
    pub(crate) fn tell(&self, hook: Hook, records: Vec<EventRecord>) -> Result<(), HookError> {
        if records.is_empty() {
            return Ok(());
        }
        self.phases.emit(records).map(drop).map_err(|error| HookError::not_recorded(hook, &error))
    }
}

/// Names the asset of a call in its error.
#[inline]
fn about_asset<T>(returned: Result<T, HookError>, call: &HookCall<'_>) -> Result<T, HookError> {
    match (returned, call.asset()) {
        (Err(error), Some(asset)) => Err(error.about(&asset.id)),
        (returned, _) => returned,
    }
}

/// Returns the objects of a call as the data of its event. A hook without objects is about its asset type alone.
fn data_of(target: Target<'_>, call: HookCall<'_>) -> Result<Json<'static>, String> {
    let data = match target {
        Target::Type(asset_t) if call.hook().objects().is_empty() => {
            Json::from_value(&serde_json::json!({ "asset_t": asset_t }))
        }
        _ => Json::from_value(&call),
    };
    data.map_err(|error| format!("the objects can't be written as JSON: {error}"))
}
