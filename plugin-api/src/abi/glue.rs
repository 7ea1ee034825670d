//! The plugin's side of the boundary: one function a hook, which guards the call and turns handles into views.

use std::marker::PhantomData;

use abi_stable::{
    library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    prefix_type::WithMetadata,
    sabi_types::{StaticRef, VersionStrings},
    std_types::RResult,
};

use super::{guard, services::SharedServices, types::*, views::View};
use crate::{
    AddonProvisioning, AddonRequest, Asset, Contract, Event, Json, Order, Plugin, PluginError, Services, User,
    data::SingleSignOn, hooks::for_each_hook,
};

/// What the export attribute implements for a plugin.
pub trait ExportPlugin: Plugin {
    /// The functions of the hooks that are really implemented.
    const MODULE: PluginModule;
    /// The record of the module's own section.
    const RECORD: &'static [u8];
}

/// The entry that a module exports under [`PLUGIN_ENTRY`](super::PLUGIN_ENTRY).
#[repr(transparent)]
pub struct PluginEntry(LibHeader);

impl PluginEntry {
    /// The entry of a plugin.
    pub const fn new<P: ExportPlugin>() -> Self {
        // SAFETY: `Exported::module` answers a `PluginModuleRef`.
        PluginEntry(unsafe {
            LibHeader::from_constructor::<PluginModuleRef>(Exported::<P>::module, CheckTypeLayout::Yes)
        })
    }
}

impl PluginEntry {
    /// An entry that no host accepts, because nothing about it can be checked: for tests of hosts.
    pub const fn without_layout<P: ExportPlugin>() -> Self {
        // SAFETY: as in `new`.
        PluginEntry(unsafe {
            LibHeader::from_constructor::<PluginModuleRef>(Exported::<P>::module, CheckTypeLayout::No)
        })
    }
}

struct Exported<P>(PhantomData<P>);

impl<P: ExportPlugin> Exported<P> {
    const TABLE: *const WithMetadata<PluginModule> = &WithMetadata::new(P::MODULE);

    extern "C" fn module() -> RootModuleResult {
        // SAFETY: the constant is promoted to a static, which lives as long as the library.
        let table: StaticRef<WithMetadata<PluginModule>> = unsafe { StaticRef::from_raw(Self::TABLE) };
        let module = PluginModuleRef(table.as_prefix());
        // SAFETY: the entry was made for `PluginModuleRef`.
        RResult::ROk(unsafe { module.0.cast() })
    }
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "billhook_plugin";
    const NAME: &'static str = "billhook_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// Finds out, at compile time, whether a plugin provides an add-on: where it does, the constants here are taken, and those
/// of [`WithoutAddon`] where it doesn't.
pub struct Addon<P>(PhantomData<P>);

/// The functions of an add-on, where there is one.
#[allow(missing_docs, reason = "as the module's fields")]
pub struct AddonHooks {
    pub create: Option<AddonCreateHook>,
    pub update: Option<AddonUpdateHook>,
    pub delete: Option<AddonDeleteHook>,
    pub credentials: Option<BareHook>,
    pub single_sign_on: Option<AddonSignOnHook>,
    /// Their names, as a record has them.
    pub names: &'static str,
}

/// See [`Addon`].
pub trait WithoutAddon {
    /// No functions.
    const HOOKS: AddonHooks =
        AddonHooks { create: None, update: None, delete: None, credentials: None, single_sign_on: None, names: "" };
}

impl<P> WithoutAddon for Addon<P> {}

impl<P: AddonProvisioning> Addon<P> {
    /// The functions.
    pub const HOOKS: AddonHooks = AddonHooks {
        create: Some(addon_create::<P>()),
        update: Some(addon_update::<P>()),
        delete: Some(addon_delete::<P>()),
        credentials: Some(addon_credentials::<P>()),
        single_sign_on: Some(addon_single_sign_on::<P>()),
        names: r#""addon_create","addon_update","addon_delete","addon_credentials","addon_single_sign_on""#,
    };
}

unsafe extern "C" fn record<P: ExportPlugin>() -> Text {
    Text::new(P::RECORD)
}

unsafe extern "C" fn construct<P: ExportPlugin>(services: ServicesHandle, reply: ReplyHandle) -> Instance {
    // SAFETY: the host hands over a share of its services.
    let services = unsafe { SharedServices::from_handle(services) };
    let log = services.clone();
    guard::watch_panics(move |line| log.log(1, line));
    let mut instance: Instance = std::ptr::null();
    guard::status(reply, || {
        // A plugin of size zero has no allocation; a box of a box has one that is never null and of its own.
        instance = Box::into_raw(Box::new(Box::new(P::new(Services(services))?))).cast_const().cast();
        Ok(())
    });
    instance
}

unsafe extern "C" fn destroy<P: ExportPlugin>(instance: Instance, reply: ReplyHandle) -> u32 {
    guard::status(reply, || {
        // SAFETY: `construct` made the instance, the host ends it once, and no call is under way.
        drop(unsafe { Box::from_raw(instance.cast_mut().cast::<Box<P>>()) });
        Ok(())
    })
}

/// # Safety
/// `construct` must have made the instance for this `P`, and it must not be ended during `'a`.
unsafe fn plugin<'a, P: Plugin>(instance: Instance) -> &'a P {
    // SAFETY: handed on to the caller.
    unsafe { &*instance.cast::<Box<P>>() }
}

/// Views on the arguments of a call.
///
/// # Safety
/// Of every function here: the handle or text must be valid during `'a`, as the host's are during the call.
mod argument {
    use super::*;

    pub(super) unsafe fn text<'a>(text: Text) -> &'a str {
        // SAFETY: handed on to the caller; the host's texts are UTF-8.
        unsafe { std::str::from_utf8_unchecked(text.bytes().unwrap_or_default()) }
    }

    pub(super) unsafe fn json<'a>(json: Text) -> Json<'a> {
        // SAFETY: handed on to the caller.
        Json::from_checked(unsafe { text(json) })
    }

    pub(super) unsafe fn user<'a>(handle: UserHandle) -> User<'a> {
        // SAFETY: handed on to the caller.
        User::from_view(unsafe { View::new(handle) })
    }

    pub(super) unsafe fn asset<'a>(handle: AssetInCall) -> Asset<'a> {
        // SAFETY: handed on to the caller.
        unsafe { Asset::from_views(View::new(handle.asset), View::new(handle.changes)) }
    }

    pub(super) unsafe fn contract<'a>(handle: ContractHandle) -> Contract<'a> {
        // SAFETY: handed on to the caller.
        Contract::from_view(unsafe { View::new(handle) })
    }

    pub(super) unsafe fn order<'a>(handle: OrderHandle) -> Order<'a> {
        // SAFETY: handed on to the caller.
        Order::from_view(unsafe { View::new(handle) })
    }

    pub(super) unsafe fn addon_request<'a>(handle: AddonRequestHandle) -> AddonRequest<'a> {
        // SAFETY: handed on to the caller.
        AddonRequest::from_view(unsafe { View::new(handle) })
    }

    pub(super) unsafe fn event<'a>(handle: EventHandle) -> Event<'a> {
        // SAFETY: handed on to the caller.
        Event::from_view(unsafe { View::new(handle) })
    }
}

/// Defines the function that crosses the boundary for one hook. Its rules take the objects one by one: each adds its
/// parameters, and the statements that turn them into what the trait takes.
macro_rules! crossing {
    ($hook:ident = $trait:ident $function:ident $table:ident $reply:ident ($($objects:tt)*)) => {
        crossing!(@next [$hook $trait $function $table $reply] [] [] [] $($objects)*);
    };
    (@next $hook:tt [$($raw:tt)*] [$($bind:tt)*] [$($pass:tt)*] $object:ident: Login $(, $($rest:tt)*)?) => {
        crossing!(@next $hook
            [$($raw)* email: Text, app: Text, nav_data: Text,]
            [$($bind)*
                // SAFETY: the host's texts are valid during the call.
                let (email, app, nav_data) = unsafe { (argument::text(email), argument::text(app), argument::text(nav_data)) };
                let $object = SingleSignOn { email: email.to_owned(), app: app.to_owned(), nav_data: nav_data.to_owned() };
            ]
            [$($pass)* &$object,]
            $($($rest)*)?
        );
    };
    (@next $hook:tt [$($raw:tt)*] [$($bind:tt)*] [$($pass:tt)*] $object:ident: Asset $(, $($rest:tt)*)?) => {
        crossing!(@next $hook
            [$($raw)* $object: AssetInCall,]
            [$($bind)*
                // SAFETY: the host's handles are valid during the call.
                let mut $object = unsafe { argument::asset($object) };
            ]
            [$($pass)* &mut $object,]
            $($($rest)*)?
        );
    };
    (@next $hook:tt [$($raw:tt)*] [$($bind:tt)*] [$($pass:tt)*] $object:ident: $kind:ident $(, $($rest:tt)*)?) => {
        crossing!(@next $hook
            [$($raw)* $object: crossing!(@raw $kind),]
            [$($bind)*
                // SAFETY: the host's handles and texts are valid during the call.
                let $object = unsafe { crossing!(@view $kind)($object) };
            ]
            [$($pass)* crossing!(@pass $kind $object),]
            $($($rest)*)?
        );
    };
    (@next [$hook:ident $trait:ident $function:ident $table:ident $reply:ident]
        [$($raw:tt)*] [$($bind:tt)*] [$($pass:tt)*]) => {
        #[doc = concat!("Returns the function that calls `", stringify!($function), "`.")]
        pub const fn $hook<P: $trait>() -> $table {
            unsafe extern "C" fn call<P: $trait>(instance: Instance, $($raw)* reply: ReplyHandle) -> u32 {
                guard::status(reply, || {
                    // SAFETY: the host calls with an instance of this plugin that isn't ended meanwhile.
                    let plugin = unsafe { plugin::<P>(instance) };
                    $($bind)*
                    crossing!(@send $reply (<P as $trait>::$function(plugin, $($pass)*)?) reply);
                    Ok(())
                })
            }
            $table(call::<P>)
        }
    };
    (@raw User) => { UserHandle };
    (@raw Contract) => { ContractHandle };
    (@raw Order) => { OrderHandle };
    (@raw Event) => { EventHandle };
    (@raw Request) => { AddonRequestHandle };
    (@raw $text:ident) => { Text };
    (@view User) => { argument::user };
    (@view Contract) => { argument::contract };
    (@view Order) => { argument::order };
    (@view Event) => { argument::event };
    (@view Request) => { argument::addon_request };
    (@view Document) => { argument::json };
    (@view $text:ident) => { argument::text };
    (@pass Text $object:ident) => { $object };
    (@pass AssetType $object:ident) => { $object };
    (@pass $kind:ident $object:ident) => { &$object };
    (@send Done $answer:tt $reply:ident) => { let () = $answer; };
    (@send Changes $answer:tt $reply:ident) => { let () = $answer; };
    (@send Specifications $answer:tt $reply:ident) => { send::usage_specs($answer, $reply); };
    (@send Usage $answer:tt $reply:ident) => { send::pending_accounting($answer, $reply); };
    (@send $value:ident $answer:tt $reply:ident) => { send::value($answer, $reply); };
}

macro_rules! glue {
    ($($trait:ident since $since:literal {$(
        $(#[doc = $doc:literal])* $(#[sabi($sabi:ident)])?
        $variant:ident, $name:ident = $function:ident: $table:ident($($object:ident: $kind:ident),*) -> $reply:ident;
    )*})*) => {
        /// The table of a plugin that implements no hook; the attribute adds those that it found.
        pub const fn bare_module<P: ExportPlugin>() -> PluginModule {
            PluginModule {
                record: GetRecord(record::<P>),
                construct: Construct(construct::<P>),
                destroy: Destroy(destroy::<P>),
                $($($name: None,)*)*
            }
        }

        $($(crossing!($name = $trait $function $table $reply ($($object: $kind),*));)*)*
    };
}

for_each_hook!(glue);

/// Answers that are more than a status. The host copies them before the functions return.
mod send {
    use super::*;
    use crate::data::{PendingAccounting, UsageSpec};

    pub(super) fn value<T: serde::Serialize>(value: T, reply: ReplyHandle) {
        match serde_json::to_vec(&value) {
            // SAFETY: the reply is valid during the call.
            Ok(json) => unsafe { (reply.table.value().0)(reply.object, Text::new(&json)) },
            Err(error) => {
                let error = PluginError::internal(format!("its answer can't be written: {error}"));
                super::super::reply::send_refusal(reply, &error);
            }
        }
    }

    pub(super) fn usage_specs(specs: Vec<UsageSpec>, reply: ReplyHandle) {
        for spec in &specs {
            let (name, description) = (Text::new(spec.name.as_bytes()), Text::new(spec.description.as_bytes()));
            // SAFETY: the reply is valid during the call.
            unsafe { (reply.table.usage_spec().0)(reply.object, name, description) };
        }
    }

    pub(super) fn pending_accounting(pending: PendingAccounting, reply: ReplyHandle) {
        let text = |text: &str| Text::new(text.as_bytes());
        for record in &pending.records {
            let (date, value) = (text(record.date.as_str()), text(record.value.as_str()));
            let id = Text::from_option(record.id.as_deref());
            // SAFETY: the reply is valid during the call.
            unsafe { (reply.table.usage_record().0)(reply.object, date, text(&record.unit), value, id) };
        }
        if let Some(last_usage) = &pending.last_usage {
            // SAFETY: as above.
            unsafe { (reply.table.last_usage().0)(reply.object, text(last_usage.as_str())) };
        }
    }
}
