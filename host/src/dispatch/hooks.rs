//! The hooks as functions of the dispatcher.

use billhook_plugin_api::{
    Hook, PendingAccounting, UsageSpec,
    data::{Asset, AssetChanges, Event, User},
};

use super::{Dispatcher, Finder, HookError, Table};
use crate::{
    ledger::Record,
    runtime::{Borrowed, CallFailure, HookAnswer, HookObjects, Plugin},
};

/// What a hook answers, of all that any answers.
pub(crate) trait FromAnswer: Default {
    fn from_answer(answer: HookAnswer) -> Self;
}

impl FromAnswer for () {
    fn from_answer(_: HookAnswer) -> Self {}
}

impl FromAnswer for AssetChanges {
    fn from_answer(answer: HookAnswer) -> Self {
        answer.changes
    }
}

impl FromAnswer for Vec<UsageSpec> {
    fn from_answer(answer: HookAnswer) -> Self {
        answer.usage_specs.unwrap_or_default()
    }
}

impl FromAnswer for (PendingAccounting, AssetChanges) {
    fn from_answer(answer: HookAnswer) -> Self {
        (answer.pending_accounting.unwrap_or_default(), answer.changes)
    }
}

impl FromAnswer for HookAnswer {
    fn from_answer(answer: HookAnswer) -> Self {
        answer
    }
}

impl Dispatcher {
    /// Calls `on_pre_product_spec_validation`, which has no asset yet. Also answers what its listeners are to be told.
    pub(crate) fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<((), Vec<Record>), HookError> {
        let hook = Hook::OnPreProductSpecValidation;
        let objects = Borrowed {
            provider: Some(provider),
            asset_t: Some(asset_t),
            media_type: Some(media_type),
            url: Some(url),
            ..Borrowed::default()
        };
        self.call_in_pair(hook, objects, Finder::Type(asset_t), |plugin| {
            plugin.on_pre_product_spec_validation(provider, asset_t, media_type, url)
        })
    }

    /// Calls a hook about an asset, of the plugin of the asset's type, and records what its listeners are told.
    #[inline]
    pub(crate) fn about<T: FromAnswer>(
        &self,
        hook: Hook,
        asset: &Asset,
        objects: Borrowed<'_>,
        call: impl Fn(&Plugin) -> Result<T, CallFailure>,
    ) -> Result<T, HookError> {
        let objects = Borrowed { asset: Some(asset), ..objects };
        match self.call_found(hook, objects, Finder::Type(&asset.resource_type), call) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.about(&asset.id)),
        }
    }

    /// Calls a hook about an asset, of the plugin of the asset's type. Also answers what its listeners are to be told when the
    /// whole pair of hooks went through.
    pub(crate) fn about_in_pair<T: FromAnswer>(
        &self,
        hook: Hook,
        asset: &Asset,
        objects: Borrowed<'_>,
        call: impl Fn(&Plugin) -> Result<T, CallFailure>,
    ) -> Result<(T, Vec<Record>), HookError> {
        let objects = Borrowed { asset: Some(asset), ..objects };
        match self.call_in_pair(hook, objects, Finder::Type(&asset.resource_type), call) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.about(&asset.id)),
        }
    }

    /// Calls `get_usage_specs`.
    pub(crate) fn get_usage_specs(&self, asset_type: &str) -> Result<Vec<UsageSpec>, HookError> {
        let hook = Hook::GetUsageSpecs;
        let objects = Borrowed { asset_t: Some(asset_type), ..Borrowed::default() };
        self.call_found(hook, objects, Finder::Type(asset_type), Plugin::get_usage_specs)
    }

    /// Calls any hook of a plugin by the plugin's id.
    pub(crate) fn call(&self, plugin: &str, hook: Hook, objects: &HookObjects) -> Result<HookAnswer, HookError> {
        self.call_any(Finder::Id(plugin), hook, objects)
    }

    /// Calls any hook of the plugin of an asset type.
    pub(crate) fn call_type(
        &self,
        asset_type: &str,
        hook: Hook,
        objects: &HookObjects,
    ) -> Result<HookAnswer, HookError> {
        self.call_any(Finder::Type(asset_type), hook, objects)
    }

    fn call_any(&self, find: Finder<'_>, hook: Hook, objects: &HookObjects) -> Result<HookAnswer, HookError> {
        let call = |plugin: &Plugin| objects.call(plugin, hook, None);
        let answer = self.call_found(hook, objects.borrowed(), find, call);
        match &objects.asset {
            Some(asset) if !matches!(hook, Hook::GetUsageSpecs | Hook::OnEvent) => {
                answer.map_err(|error| error.about(&asset.id))
            }
            _ => answer,
        }
    }

    /// Delivers an event to a plugin.
    pub(crate) fn on_event(&self, plugin: &str, event: &Event) -> Result<(), HookError> {
        // What is delivered is noted with what becomes of the delivery.
        let table: std::sync::Arc<Table> = self.table.load_full();
        self.call_plugin(Hook::OnEvent, &table, Finder::Id(plugin), None, &|plugin: &Plugin| plugin.on_event(event))
    }
}
