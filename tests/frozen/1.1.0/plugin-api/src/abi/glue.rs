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
use crate::{Asset, Contract, Event, Json, Order, Plugin, Services, User};

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

/// The table of a plugin that implements no hook; the attribute adds those that it found.
pub const fn bare_module<P: ExportPlugin>() -> PluginModule {
    PluginModule {
        record: GetRecord(record::<P>),
        construct: Construct(construct::<P>),
        destroy: Destroy(destroy::<P>),
        on_pre_product_spec_validation: None,
        on_post_product_spec_validation: None,
        on_pre_product_spec_attachment: None,
        on_post_product_spec_attachment: None,
        on_pre_product_spec_upgrade: None,
        on_post_product_spec_upgrade: None,
        on_pre_product_offering_validation: None,
        on_post_product_offering_validation: None,
        on_product_acquisition: None,
        on_product_suspension: None,
        get_usage_specs: None,
        get_pending_accounting: None,
        on_event: None,
    }
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

    pub(super) unsafe fn event<'a>(handle: EventHandle) -> Event<'a> {
        // SAFETY: handed on to the caller.
        Event::from_view(unsafe { View::new(handle) })
    }
}

/// Makes one function a hook: what crosses the boundary, and how it becomes what the trait takes.
macro_rules! glue {
    ($($hook:ident: $table:ident($($argument:ident: $raw:ty => $convert:ident $pass:ident),*) $(-> $send:ident)?;)*) => {$(
        #[doc = concat!("The function that calls `", stringify!($hook), "`.")]
        pub const fn $hook<P: ExportPlugin>() -> $table {
            unsafe extern "C" fn call<P: ExportPlugin>(
                instance: Instance,
                $($argument: $raw,)*
                reply: ReplyHandle,
            ) -> u32 {
                guard::status(reply, || {
                    // SAFETY: the host calls with an instance of this plugin that isn't ended meanwhile.
                    let plugin = unsafe { plugin::<P>(instance) };
                    $(glue!(@bind $argument $convert $pass);)*
                    let answer = plugin.$hook($(glue!(@pass $argument $pass)),*)?;
                    glue!(@send answer reply $($send)?);
                    Ok(())
                })
            }
            $table(call::<P>)
        }
    )*};
    (@bind $argument:ident $convert:ident exclusive) => {
        // SAFETY: the host's handles are valid during the call.
        let mut $argument = unsafe { argument::$convert($argument) };
    };
    (@bind $argument:ident $convert:ident $pass:ident) => {
        // SAFETY: as above.
        let $argument = unsafe { argument::$convert($argument) };
    };
    (@pass $argument:ident exclusive) => { &mut $argument };
    (@pass $argument:ident shared) => { &$argument };
    (@pass $argument:ident value) => { $argument };
    (@send $answer:ident $reply:ident) => { let () = $answer; };
    (@send $answer:ident $reply:ident $send:ident) => { send::$send($answer, $reply); };
}

glue! {
    on_pre_product_spec_validation: ValidationHook(provider: UserHandle => user shared, asset_t: Text => text value,
        media_type: Text => text value, url: Text => text value);
    on_post_product_spec_validation: ProviderHook(provider: UserHandle => user shared,
        asset: AssetInCall => asset exclusive);
    on_pre_product_spec_attachment: ProductSpecHook(asset: AssetInCall => asset exclusive,
        asset_t: Text => text value, product_spec: Text => json shared);
    on_post_product_spec_attachment: ProductSpecHook(asset: AssetInCall => asset exclusive,
        asset_t: Text => text value, product_spec: Text => json shared);
    on_pre_product_spec_upgrade: ProductSpecHook(asset: AssetInCall => asset exclusive,
        asset_t: Text => text value, product_spec: Text => json shared);
    on_post_product_spec_upgrade: ProductSpecHook(asset: AssetInCall => asset exclusive,
        asset_t: Text => text value, product_spec: Text => json shared);
    on_pre_product_offering_validation: OfferingHook(asset: AssetInCall => asset exclusive,
        product_offering: Text => json shared);
    on_post_product_offering_validation: OfferingHook(asset: AssetInCall => asset exclusive,
        product_offering: Text => json shared);
    on_product_acquisition: OrderHook(asset: AssetInCall => asset exclusive,
        contract: ContractHandle => contract shared, order: OrderHandle => order shared);
    on_product_suspension: OrderHook(asset: AssetInCall => asset exclusive,
        contract: ContractHandle => contract shared, order: OrderHandle => order shared);
    get_usage_specs: BareHook() -> usage_specs;
    get_pending_accounting: OrderHook(asset: AssetInCall => asset exclusive,
        contract: ContractHandle => contract shared, order: OrderHandle => order shared) -> pending_accounting;
    on_event: EventHook(event: EventHandle => event shared);
}

/// Answers that are more than a status. The host copies them before the functions return.
mod send {
    use super::*;
    use crate::data::{PendingAccounting, UsageSpec};

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
