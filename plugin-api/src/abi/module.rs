//! The host's side of the boundary: from an entry symbol to typed, safe calls.

use abi_stable::{StableAbi, abi_stability::abi_checking::check_layout_compatibility, library::AbiHeaderRef};

use super::{reply::Reply, services::SharedServices, tables::LentAsset, types::*};
use crate::{
    Hook, PluginError,
    call::{HookCall, HookReply, PendingUsage},
    hooks::for_each_hook,
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
        implements(self.0, hook)
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

    /// Calls a hook. A hook of the [`Plugin`](crate::Plugin) trait that isn't implemented does nothing; one of an add-on
    /// that the plugin doesn't provide is an error.
    #[inline]
    pub fn call(&self, call: HookCall<'_>) -> Result<HookReply, PluginError> {
        dispatch(self, call)
    }
}

/// Lends the objects of a call to one function of the module. The rules take the objects one by one: each adds a statement
/// that lends it, and the arguments that cross.
macro_rules! cross {
    (@next $hook:tt [$($lend:tt)*] [$($argument:tt)*] [$($changes:tt)*] $object:ident: Login $(, $($rest:tt)*)?) => {
        cross!(@next $hook [$($lend)*]
            [$($argument)* text(&$object.email), text(&$object.app), text(&$object.nav_data),]
            [$($changes)*] $($($rest)*)?)
    };
    (@next $hook:tt [$($lend:tt)*] [$($argument:tt)*] [] $object:ident: Asset $(, $($rest:tt)*)?) => {
        cross!(@next $hook [$($lend)* let $object = LentAsset::new($object);]
            [$($argument)* $object.handle(),]
            [$object.into_changes()] $($($rest)*)?)
    };
    (@next $hook:tt [$($lend:tt)*] [$($argument:tt)*] [$($changes:tt)*] $object:ident: $kind:ident $(, $($rest:tt)*)?) => {
        cross!(@next $hook [$($lend)*]
            [$($argument)* cross!(@lent $kind $object),]
            [$($changes)*] $($($rest)*)?)
    };
    (@next [$hook:ident $instance:ident $variant:ident $reply:ident]
        [$($lend:tt)*] [$($argument:tt)*] [$($changes:tt)*]) => {{
        $($lend)*
        let mut reply = Reply::default();
        // SAFETY: the layout was checked; the instance is alive; the objects and the reply live during the call.
        let status = unsafe { ($hook.0)($instance.instance, $($argument)* reply.handle()) };
        let reply = reply.finish(status)?;
        Ok(HookReply::$variant(cross!(@reply $reply reply [$($changes)*])))
    }};
    (@lent Text $object:ident) => { text($object) };
    (@lent AssetType $object:ident) => { text($object) };
    (@lent Document $object:ident) => { text($object.as_str()) };
    (@lent Order $object:ident) => { $object.handle() };
    (@lent $kind:ident $object:ident) => { $object.into() };
    (@reply Done $reply:ident []) => {{
        drop($reply);
    }};
    (@reply Changes $reply:ident [$changes:expr]) => {{
        drop($reply);
        $changes
    }};
    (@reply Specifications $reply:ident []) => { $reply.into_usage_specs() };
    (@reply Usage $reply:ident [$changes:expr]) => {
        PendingUsage { pending_accounting: $reply.into_pending_accounting(), changes: $changes }
    };
    (@reply $value:ident $reply:ident []) => { $reply.into_json()? };
    (@absent Plugin $variant:ident) => { Ok(HookReply::$variant(Default::default())) };
    (@absent $addon:ident $variant:ident) => { Err(PluginError::internal("the plugin provides no add-on")) };
}

macro_rules! calls {
    ($($trait:ident since $since:literal {$(
        $(#[doc = $doc:literal])* $(#[sabi($sabi:ident)])?
        $variant:ident, $name:ident = $function:ident: $table:ident($($object:ident: $kind:ident),*) -> $reply:ident;
    )*})*) => {
        fn implements(module: PluginModuleRef, hook: Hook) -> bool {
            match hook { $($(Hook::$variant => module.$name().is_some(),)*)* }
        }

        #[inline]
        fn dispatch(instance: &PluginInstance, call: HookCall<'_>) -> Result<HookReply, PluginError> {
            match call {$($(
                HookCall::$variant { $($object),* } => match instance.module.$name() {
                    Some(hook) => cross!(@next [hook instance $variant $reply] [] [] [] $($object: $kind),*),
                    None => cross!(@absent $trait $variant),
                },
            )*)*}
        }
    };
}

for_each_hook!(calls);
