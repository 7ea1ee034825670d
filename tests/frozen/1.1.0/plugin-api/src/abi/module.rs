//! The host's side of the boundary: from an entry symbol to typed, safe calls.

use abi_stable::{StableAbi, abi_stability::abi_checking::check_layout_compatibility, library::AbiHeaderRef};

use super::{
    reply::Reply,
    services::SharedServices,
    tables::{LazyOrder, LentAsset},
    types::*,
};
use crate::{
    Hook, Json, PluginError,
    data::{Asset, AssetChanges, Contract, Event, Order, PendingAccounting, UsageSpec, User},
};

/// Why an entry is not a plugin's.
#[derive(Debug)]
pub struct EntryError {
    /// One sentence for the operator.
    pub message: String,
    /// The whole report of what differs, where there is one: hundreds of lines, for the log.
    pub report: Option<String>,
}

impl EntryError {
    fn new(message: impl Into<String>) -> Self {
        EntryError { message: message.into(), report: None }
    }
}

/// The entry of a loaded library, checked. The library stays loaded for the life of the process.
#[derive(Clone, Copy)]
pub struct LoadedModule(PluginModuleRef);

impl LoadedModule {
    /// Checks a library's entry against this version of the API.
    ///
    /// Layouts are compared from the older to the newer side: what the older knows must be a prefix of what the newer
    /// has. `plugin_is_newer` tells how the version in the record of the library's file compares to this API's.
    ///
    /// # Safety
    /// `entry` must be the address of the symbol [`PLUGIN_ENTRY`](super::PLUGIN_ENTRY) of a library that is never
    /// closed, and that symbol must be what the export attribute makes.
    pub unsafe fn from_entry(entry: *const (), plugin_is_newer: bool) -> Result<Self, EntryError> {
        // SAFETY: the symbol begins with the header that every version of abi_stable begins with; the reference wrapper
        // is transparent over a pointer that is not null.
        let header = unsafe {
            if entry.is_null() {
                return Err(EntryError::new("its entry symbol is null"));
            }
            std::mem::transmute::<*const (), AbiHeaderRef>(entry)
        };
        let header = header.upgrade().map_err(|error| EntryError {
            message: "its ABI header is of another version of abi_stable".to_owned(),
            report: Some(error.to_string()),
        })?;
        let Some(theirs) = header.layout() else {
            return Err(EntryError::new("it was exported without a layout, so that nothing about it can be checked"));
        };
        let ours = <PluginModuleRef as StableAbi>::LAYOUT;
        let (older, newer) = if plugin_is_newer { (ours, theirs) } else { (theirs, ours) };
        check_layout_compatibility(older, newer).map_err(|report| EntryError {
            message: "the layout of its interface differs from the one that its API version has".to_owned(),
            report: Some(report.to_string()),
        })?;
        // SAFETY: the layout was just checked. The version in the header isn't looked at: the caller did that.
        let module = unsafe { header.unchecked_layout::<PluginModuleRef>() };
        module.map(LoadedModule).map_err(|error| EntryError {
            message: "its entry failed to answer its module".to_owned(),
            report: Some(error.into_library_error::<PluginModuleRef>().to_string()),
        })
    }

    /// The record that the module itself answers; it has to be the one in the file.
    pub fn record(&self) -> &'static [u8] {
        // SAFETY: the function takes nothing and answers a static of the library, which is never closed.
        unsafe { (self.0.record().0)().bytes().unwrap_or_default() }
    }

    /// Whether a hook is implemented.
    pub fn implements(&self, hook: Hook) -> bool {
        let module = self.0;
        match hook {
            Hook::OnPreProductSpecValidation => module.on_pre_product_spec_validation().is_some(),
            Hook::OnPostProductSpecValidation => module.on_post_product_spec_validation().is_some(),
            Hook::OnPreProductSpecAttachment => module.on_pre_product_spec_attachment().is_some(),
            Hook::OnPostProductSpecAttachment => module.on_post_product_spec_attachment().is_some(),
            Hook::OnPreProductSpecUpgrade => module.on_pre_product_spec_upgrade().is_some(),
            Hook::OnPostProductSpecUpgrade => module.on_post_product_spec_upgrade().is_some(),
            Hook::OnPreProductOfferingValidation => module.on_pre_product_offering_validation().is_some(),
            Hook::OnPostProductOfferingValidation => module.on_post_product_offering_validation().is_some(),
            Hook::OnProductAcquisition => module.on_product_acquisition().is_some(),
            Hook::OnProductSuspension => module.on_product_suspension().is_some(),
            Hook::GetUsageSpecs => module.get_usage_specs().is_some(),
            Hook::GetPendingAccounting => module.get_pending_accounting().is_some(),
            Hook::OnEvent => module.on_event().is_some(),
        }
    }

    /// Makes an instance. Runs code of the plugin's.
    pub fn construct(self, services: SharedServices) -> Result<PluginInstance, PluginError> {
        let mut reply = Reply::default();
        // SAFETY: the layout was checked; the share of the services is handed over; the reply lives during the call.
        let instance = unsafe { (self.0.construct().0)(services.into_handle(), reply.handle()) };
        reply.finish(u32::from(instance.is_null()))?;
        Ok(PluginInstance { module: self.0, instance })
    }
}

/// An order that can be lent to a call: whole, or with contracts that are fetched when they are asked for.
pub trait LentOrder: sealed::Sealed {
    /// The handle, valid as long as `self`.
    #[doc(hidden)]
    fn handle(&self) -> OrderHandle;

    /// The order; without its contracts, if they are fetched.
    fn order(&self) -> &Order;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for &crate::data::Order {}
    impl Sealed for &super::LazyOrder<'_> {}
}

impl LentOrder for &Order {
    fn handle(&self) -> OrderHandle {
        (*self).into()
    }

    fn order(&self) -> &Order {
        self
    }
}

impl LentOrder for &LazyOrder<'_> {
    fn handle(&self) -> OrderHandle {
        (*self).into()
    }

    fn order(&self) -> &Order {
        self.head()
    }
}

/// An instance of a plugin. Dropping it without [`PluginInstance::end`] leaks it.
pub struct PluginInstance {
    module: PluginModuleRef,
    instance: Instance,
}

// SAFETY: a plugin is `Send + Sync`: the trait demands it, and its entries take a shared reference.
unsafe impl Send for PluginInstance {}
// SAFETY: as above.
unsafe impl Sync for PluginInstance {}

/// A text argument of a call.
fn text(text: &str) -> Text {
    Text::new(text.as_bytes())
}

impl PluginInstance {
    /// The function of `on_product_acquisition` and the instance that it takes: for benchmarks, as the floor of a call.
    pub fn bare_acquisition(&self) -> Option<(OrderHook, Instance)> {
        self.module.on_product_acquisition().map(|hook| (hook, self.instance))
    }

    /// Ends the instance. Runs code of the plugin's.
    pub fn end(self) -> Result<(), PluginError> {
        let mut reply = Reply::default();
        // SAFETY: `construct` made the instance; it is owned here, so no call is under way and none follows.
        let status = unsafe { (self.module.destroy().0)(self.instance, reply.handle()) };
        reply.finish(status).map(drop)
    }

    /// Runs a hook that changes its asset; a hook that isn't implemented changes nothing.
    fn change(
        &self,
        asset: &Asset,
        call: impl FnOnce(Instance, AssetInCall, ReplyHandle) -> u32,
    ) -> Result<AssetChanges, PluginError> {
        let lent = LentAsset::new(asset);
        let mut reply = Reply::default();
        let status = call(self.instance, lent.handle(), reply.handle());
        reply.finish(status)?;
        Ok(lent.into_changes())
    }

    /// Calls `on_pre_product_spec_validation`.
    pub fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), PluginError> {
        let Some(hook) = self.module.on_pre_product_spec_validation() else { return Ok(()) };
        let mut reply = Reply::default();
        let (asset_t, media_type, url) = (text(asset_t), text(media_type), text(url));
        // SAFETY: the layout was checked; the instance is alive; the arguments and the reply live during the call.
        let status = unsafe { (hook.0)(self.instance, provider.into(), asset_t, media_type, url, reply.handle()) };
        reply.finish(status).map(drop)
    }

    /// Calls `on_post_product_spec_validation`.
    pub fn on_post_product_spec_validation(&self, provider: &User, asset: &Asset) -> Result<AssetChanges, PluginError> {
        let Some(hook) = self.module.on_post_product_spec_validation() else { return Ok(AssetChanges::default()) };
        // SAFETY: as in `on_pre_product_spec_validation`.
        self.change(asset, |instance, asset, reply| unsafe { (hook.0)(instance, provider.into(), asset, reply) })
    }

    fn product_spec_hook(
        &self,
        hook: Option<ProductSpecHook>,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        let Some(hook) = hook else { return Ok(AssetChanges::default()) };
        let (asset_t, spec) = (text(asset_t), text(product_spec.as_str()));
        // SAFETY: as in `on_pre_product_spec_validation`.
        self.change(asset, |instance, asset, reply| unsafe { (hook.0)(instance, asset, asset_t, spec, reply) })
    }

    fn offering_hook(
        &self,
        hook: Option<OfferingHook>,
        asset: &Asset,
        offering: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        let Some(hook) = hook else { return Ok(AssetChanges::default()) };
        let offering = text(offering.as_str());
        // SAFETY: as in `on_pre_product_spec_validation`.
        self.change(asset, |instance, asset, reply| unsafe { (hook.0)(instance, asset, offering, reply) })
    }

    fn order_hook(
        &self,
        hook: Option<OrderHook>,
        asset: &Asset,
        contract: &Contract,
        order: OrderHandle,
    ) -> Result<AssetChanges, PluginError> {
        let Some(hook) = hook else { return Ok(AssetChanges::default()) };
        // SAFETY: as in `on_pre_product_spec_validation`.
        self.change(asset, |instance, asset, reply| unsafe { (hook.0)(instance, asset, contract.into(), order, reply) })
    }

    /// Calls `on_pre_product_spec_attachment`.
    pub fn on_pre_product_spec_attachment(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        self.product_spec_hook(self.module.on_pre_product_spec_attachment(), asset, asset_t, product_spec)
    }

    /// Calls `on_post_product_spec_attachment`.
    pub fn on_post_product_spec_attachment(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        self.product_spec_hook(self.module.on_post_product_spec_attachment(), asset, asset_t, product_spec)
    }

    /// Calls `on_pre_product_spec_upgrade`.
    pub fn on_pre_product_spec_upgrade(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        self.product_spec_hook(self.module.on_pre_product_spec_upgrade(), asset, asset_t, product_spec)
    }

    /// Calls `on_post_product_spec_upgrade`.
    pub fn on_post_product_spec_upgrade(
        &self,
        asset: &Asset,
        asset_t: &str,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        self.product_spec_hook(self.module.on_post_product_spec_upgrade(), asset, asset_t, product_spec)
    }

    /// Calls `on_pre_product_offering_validation`.
    pub fn on_pre_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        self.offering_hook(self.module.on_pre_product_offering_validation(), asset, product_offering)
    }

    /// Calls `on_post_product_offering_validation`.
    pub fn on_post_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, PluginError> {
        self.offering_hook(self.module.on_post_product_offering_validation(), asset, product_offering)
    }

    /// Calls `on_product_acquisition`.
    pub fn on_product_acquisition(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: impl LentOrder,
    ) -> Result<AssetChanges, PluginError> {
        self.order_hook(self.module.on_product_acquisition(), asset, contract, order.handle())
    }

    /// Calls `on_product_suspension`.
    pub fn on_product_suspension(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: impl LentOrder,
    ) -> Result<AssetChanges, PluginError> {
        self.order_hook(self.module.on_product_suspension(), asset, contract, order.handle())
    }

    /// Calls `get_usage_specs`.
    pub fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, PluginError> {
        let Some(hook) = self.module.get_usage_specs() else { return Ok(Vec::new()) };
        let mut reply = Reply::default();
        // SAFETY: as in `on_pre_product_spec_validation`.
        let status = unsafe { (hook.0)(self.instance, reply.handle()) };
        reply.finish(status).map(Reply::into_usage_specs)
    }

    /// Calls `get_pending_accounting`.
    pub fn get_pending_accounting(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: impl LentOrder,
    ) -> Result<(PendingAccounting, AssetChanges), PluginError> {
        let Some(hook) = self.module.get_pending_accounting() else { return Ok(Default::default()) };
        let lent = LentAsset::new(asset);
        let mut reply = Reply::default();
        // SAFETY: as in `on_pre_product_spec_validation`.
        let status = unsafe { (hook.0)(self.instance, lent.handle(), contract.into(), order.handle(), reply.handle()) };
        let pending = reply.finish(status)?.into_pending_accounting();
        Ok((pending, lent.into_changes()))
    }

    /// Calls `on_event`.
    pub fn on_event(&self, event: &Event) -> Result<(), PluginError> {
        let Some(hook) = self.module.on_event() else { return Ok(()) };
        let mut reply = Reply::default();
        // SAFETY: as in `on_pre_product_spec_validation`.
        let status = unsafe { (hook.0)(self.instance, event.into(), reply.handle()) };
        reply.finish(status).map(drop)
    }
}
