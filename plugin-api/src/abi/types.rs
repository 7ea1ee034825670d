//! The shapes that cross the boundary: borrowed text, handles, and tables of functions.
//!
//! Every table is a prefix type: a later minor version appends entries behind the last one, never changes or reorders
//! them. Handles are plain structs and stay as they are for a whole major version.
//! A function in a table is called with the object of the handle that the table came with, and with nothing else.

use abi_stable::StableAbi;

use crate::hooks::for_each_hook;

/// Borrowed bytes; `start` is null where there is no value. They are UTF-8 when they come from the host;
/// from a plugin they may be anything.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Text {
    start: *const u8,
    length: usize,
}

impl Text {
    /// No value.
    pub const NONE: Text = Text { start: std::ptr::null(), length: 0 };

    /// Borrows `bytes`; the receiver may read them until the call that they are passed to returns, or, when they
    /// are returned, for as long as the object that they came from lives.
    pub const fn new(bytes: &[u8]) -> Self {
        Text { start: bytes.as_ptr(), length: bytes.len() }
    }

    /// Borrows a text or says that there is none.
    pub fn from_option(text: Option<&str>) -> Self {
        text.map_or(Text::NONE, |text| Text::new(text.as_bytes()))
    }

    /// The bytes, or `None` where there is no value.
    ///
    /// # Safety
    /// The bytes must live and stay unchanged for `'a`.
    pub unsafe fn bytes<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: the caller vouches for the bytes; `start` is not null and came from a slice.
        (!self.start.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.start, self.length) })
    }
}

/// A pointer to an object of the other side; only the functions that came with it know what it points to.
pub type Object = *const ();

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, StableAbi)]
        pub struct $name(pub unsafe extern "C" fn($($argument),*) $(-> $result)?);
    )*};
}

/// What every handle has.
pub trait Handle: Copy {
    /// Whether there is no object.
    fn is_none(&self) -> bool;
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident($table:ty);)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, StableAbi)]
        pub struct $name {
            /// The object; null where there is none.
            pub object: Object,
            /// The functions that take it.
            pub table: $table,
        }

        impl Handle for $name {
            fn is_none(&self) -> bool {
                self.object.is_null()
            }
        }
    )*};
}

functions! {
    /// Reads a text field.
    GetText: fn(Object) -> Text;
    /// Reads a flag: 0 is false.
    GetFlag: fn(Object) -> u8;
    /// Reads a number.
    GetNumber: fn(Object) -> u64;
    /// Reads a user.
    GetUser: fn(Object) -> UserHandle;
    /// Reads an asset.
    GetAsset: fn(Object) -> AssetHandle;
    /// Reads an offering.
    GetOffering: fn(Object) -> OfferingHandle;
    /// Reads a charge by its index; a null object behind the last.
    GetCharge: fn(Object, u64) -> ChargeHandle;
    /// Reads a contract by its index; a null object behind the last.
    GetContract: fn(Object, u64) -> ContractHandle;
    /// Finds a contract by an id; a null object where there is none.
    FindContract: fn(Object, Text) -> ContractHandle;
    /// Writes a text field of a change set: 0 done, 1 not UTF-8 or not JSON, 2 too large.
    SetText: fn(Object, Text) -> u32;
}

handles! {
    /// A user.
    UserHandle(UserTableRef);
    /// An asset.
    AssetHandle(AssetTableRef);
    /// The changes to the asset of one call.
    ChangesHandle(ChangesTableRef);
    /// An offering.
    OfferingHandle(OfferingTableRef);
    /// A charge.
    ChargeHandle(ChargeTableRef);
    /// A contract.
    ContractHandle(ContractTableRef);
    /// An order.
    OrderHandle(OrderTableRef);
    /// An event.
    EventHandle(EventTableRef);
    /// What a platform asks an add-on for.
    AddonRequestHandle(AddonRequestTableRef);
    /// Where the side that is called puts its answer; owned by the caller.
    ReplyHandle(ReplyTableRef);
    /// What the host offers one plugin; see [`ServicesTable`] for who owns it.
    ServicesHandle(ServicesTableRef);
}

/// Reads a user.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = UserTableRef, prefix_fields = UserTableFields)))]
#[sabi(missing_field(option))]
pub struct UserTable {
    /// `data::User::username`
    pub username: GetText,
    /// `data::User::email`
    pub email: GetText,
    /// `data::User::complete_name`
    pub complete_name: GetText,
    /// `data::User::extra`
    #[sabi(last_prefix_field)]
    pub extra: GetText,
}

/// Reads an asset.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = AssetTableRef, prefix_fields = AssetTableFields)))]
#[sabi(missing_field(option))]
pub struct AssetTable {
    /// `data::Asset::id`
    pub id: GetText,
    /// `data::Asset::product_id`
    pub product_id: GetText,
    /// `data::Asset::version`
    pub version: GetText,
    /// `data::Asset::provider`
    pub provider: GetUser,
    /// `data::Asset::content_type`
    pub content_type: GetText,
    /// `data::Asset::download_link`
    pub download_link: GetText,
    /// `data::Asset::resource_path`
    pub resource_path: GetText,
    /// `data::Asset::resource_type`
    pub resource_type: GetText,
    /// `data::Asset::is_public`
    pub is_public: GetFlag,
    /// `data::Asset::meta_info`
    pub meta_info: GetText,
    /// `data::Asset::url`
    pub url: GetText,
    /// `data::Asset::uri`
    pub uri: GetText,
    /// `data::Asset::extra`
    #[sabi(last_prefix_field)]
    pub extra: GetText,
}

/// Writes the change set of one call. The asset itself is never written to.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ChangesTableRef, prefix_fields = ChangesTableFields)))]
#[sabi(missing_field(option))]
pub struct ChangesTable {
    /// `data::AssetChanges::meta_info`
    pub meta_info: SetText,
    /// `data::AssetChanges::content_type`
    pub content_type: SetText,
    /// `data::AssetChanges::download_link`
    #[sabi(last_prefix_field)]
    pub download_link: SetText,
}

/// Reads an offering.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = OfferingTableRef, prefix_fields = OfferingTableFields)))]
#[sabi(missing_field(option))]
pub struct OfferingTable {
    /// `data::Offering::off_id`
    pub off_id: GetText,
    /// `data::Offering::name`
    pub name: GetText,
    /// `data::Offering::version`
    pub version: GetText,
    /// `data::Offering::description`
    pub description: GetText,
    /// `data::Offering::asset`
    pub asset: GetAsset,
    /// `data::Offering::extra`
    #[sabi(last_prefix_field)]
    pub extra: GetText,
}

/// Reads a charge.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ChargeTableRef, prefix_fields = ChargeTableFields)))]
#[sabi(missing_field(option))]
pub struct ChargeTable {
    /// `data::Charge::date`
    pub date: GetText,
    /// `data::Charge::cost`
    pub cost: GetText,
    /// `data::Charge::duty_free`
    pub duty_free: GetText,
    /// `data::Charge::currency`
    pub currency: GetText,
    /// `data::Charge::concept`
    pub concept: GetText,
    /// `data::Charge::invoice`
    pub invoice: GetText,
    /// `data::Charge::extra`
    #[sabi(last_prefix_field)]
    pub extra: GetText,
}

/// Reads a contract.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ContractTableRef, prefix_fields = ContractTableFields)))]
#[sabi(missing_field(option))]
pub struct ContractTable {
    /// `data::Contract::item_id`
    pub item_id: GetText,
    /// `data::Contract::offering`
    pub offering: GetOffering,
    /// `data::Contract::product_id`
    pub product_id: GetText,
    /// `data::Contract::pricing_model`
    pub pricing_model: GetText,
    /// `data::Contract::last_charge`
    pub last_charge: GetText,
    /// How many `data::Contract::charges`
    pub charges: GetNumber,
    /// One of `data::Contract::charges`
    pub charge: GetCharge,
    /// `data::Contract::correlation_number`
    pub correlation_number: GetNumber,
    /// `data::Contract::last_usage`
    pub last_usage: GetText,
    /// `data::Contract::revenue_class`
    pub revenue_class: GetText,
    /// `data::Contract::terminated`
    pub terminated: GetFlag,
    /// `data::Contract::extra`
    #[sabi(last_prefix_field)]
    pub extra: GetText,
}

/// Reads an order.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = OrderTableRef, prefix_fields = OrderTableFields)))]
#[sabi(missing_field(option))]
pub struct OrderTable {
    /// `data::Order::order_id`
    pub order_id: GetText,
    /// `data::Order::customer`
    pub customer: GetUser,
    /// `data::Order::date`
    pub date: GetText,
    /// `data::Order::tax_address`
    pub tax_address: GetText,
    /// How many `data::Order::contracts`
    pub contracts: GetNumber,
    /// One of `data::Order::contracts`
    pub contract: GetContract,
    /// The contract of an order item
    pub item_contract: FindContract,
    /// The contract of an inventory product
    pub product_contract: FindContract,
    /// `data::Order::extra`
    #[sabi(last_prefix_field)]
    pub extra: GetText,
}

/// Reads an event.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = EventTableRef, prefix_fields = EventTableFields)))]
#[sabi(missing_field(option))]
pub struct EventTable {
    /// `data::Event::id`
    pub id: GetText,
    /// `data::Event::name`
    pub name: GetText,
    /// `data::Event::object_id`, as text
    pub object_id: GetText,
    /// `data::Event::date`
    pub date: GetText,
    /// `data::Event::attempt`
    pub attempt: GetNumber,
    /// `data::Event::data`
    #[sabi(last_prefix_field)]
    pub data: GetText,
}

/// Reads what a platform asks an add-on for.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = AddonRequestTableRef, prefix_fields = AddonRequestTableFields)))]
#[sabi(missing_field(option))]
pub struct AddonRequestTable {
    /// `data::AddonRequest::uuid`
    pub uuid: GetText,
    /// `data::AddonRequest::platform_id`, as text
    pub platform_id: GetText,
    /// `data::AddonRequest::plan`
    pub plan: GetText,
    /// `data::AddonRequest::region`
    pub region: GetText,
    /// `data::AddonRequest::callback_url`
    pub callback_url: GetText,
    /// `data::AddonRequest::options`
    pub options: GetText,
    /// `data::AddonRequest::body`
    #[sabi(last_prefix_field)]
    pub body: GetText,
}

functions! {
    /// Refuses: a kind, a message, and milliseconds until it makes sense to try again (`u64::MAX`: not said).
    Refuse: fn(Object, u32, Text, u64);
    /// Answers with a text.
    PutText: fn(Object, Text);
    /// Answers with a usage specification: name, description.
    PutUsageSpec: fn(Object, Text, Text);
    /// Answers with a usage record: date, unit, value, id or none.
    PutUsageRecord: fn(Object, Text, Text, Text, Text);
}

/// Takes the answer of a call. What is passed is copied before the function returns.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ReplyTableRef, prefix_fields = ReplyTableFields)))]
#[sabi(missing_field(option))]
pub struct ReplyTable {
    /// The call failed.
    pub refuse: Refuse,
    /// One value.
    pub value: PutText,
    /// One more usage specification.
    pub usage_spec: PutUsageSpec,
    /// One more usage record.
    pub usage_record: PutUsageRecord,
    /// The time of the last usage.
    #[sabi(last_prefix_field)]
    pub last_usage: PutText,
}

functions! {
    /// Takes or gives back one share of the services.
    Share: fn(Object);
    /// Logs: 1 error, 2 warning, 3 info, 4 debug, 5 trace.
    Log: fn(Object, u32, Text);
    /// Reads or deletes the state under a key: 0 done, else refused in the reply.
    StateKey: fn(Object, Text, ReplyHandle) -> u32;
    /// Keeps a value under a key: 0 done, else refused in the reply.
    StateKeep: fn(Object, Text, Text, ReplyHandle) -> u32;
}

/// What the host offers a plugin. Shared: whoever holds the handle owns one share; any thread may call.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ServicesTableRef, prefix_fields = ServicesTableFields)))]
#[sabi(missing_field(option))]
pub struct ServicesTable {
    /// Takes one more share.
    pub retain: Share,
    /// Gives a share back.
    pub release: Share,
    /// The plugin's id.
    pub plugin_id: GetText,
    /// The operator's settings, a JSON document.
    pub settings: GetText,
    /// The folder of the unpacked package.
    pub package_folder: GetText,
    /// Logs a line.
    pub log: Log,
    /// Reads a value of the plugin's state.
    pub state_get: StateKey,
    /// Keeps a value; durable on return.
    pub state_keep: StateKeep,
    /// Deletes a value; durable on return.
    #[sabi(last_prefix_field)]
    pub state_delete: StateKey,
}

/// A plugin's instance; made by `construct`, ended by `destroy`, called from any number of threads.
pub type Instance = *const ();

/// The asset of a call: to be read, and to be changed.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct AssetInCall {
    /// Reads the asset, with the changes of this call.
    pub asset: AssetHandle,
    /// Takes the changes.
    pub changes: ChangesHandle,
}

functions! {
    /// The record of the module's own section.
    GetRecord: fn() -> Text;
    /// Makes an instance: null when it refused.
    Construct: fn(ServicesHandle, ReplyHandle) -> Instance;
    /// Ends an instance: 0 done, else refused in the reply.
    Destroy: fn(Instance, ReplyHandle) -> u32;
    /// provider, asset type, media type, url
    ValidationHook: fn(Instance, UserHandle, Text, Text, Text, ReplyHandle) -> u32;
    /// provider, asset
    ProviderHook: fn(Instance, UserHandle, AssetInCall, ReplyHandle) -> u32;
    /// asset, asset type, product specification
    ProductSpecHook: fn(Instance, AssetInCall, Text, Text, ReplyHandle) -> u32;
    /// asset, product offering
    OfferingHook: fn(Instance, AssetInCall, Text, ReplyHandle) -> u32;
    /// asset, contract, order
    OrderHook: fn(Instance, AssetInCall, ContractHandle, OrderHandle, ReplyHandle) -> u32;
    /// nothing
    BareHook: fn(Instance, ReplyHandle) -> u32;
    /// event
    EventHook: fn(Instance, EventHandle, ReplyHandle) -> u32;
    /// request; answers a `data::Provisioned`
    AddonCreateHook: fn(Instance, AddonRequestHandle, ReplyHandle) -> u32;
    /// resource, request; answers a `data::AddonConfig` or null
    AddonUpdateHook: fn(Instance, Text, AddonRequestHandle, ReplyHandle) -> u32;
    /// resource
    AddonDeleteHook: fn(Instance, Text, ReplyHandle) -> u32;
    /// resource, e-mail address, application, navigation data; answers an address
    AddonSignOnHook: fn(Instance, Text, Text, Text, Text, ReplyHandle) -> u32;
}

macro_rules! module {
    ($($trait:ident since $since:literal {$(
        $(#[doc = $doc:literal])* $(#[sabi($sabi:ident)])?
        $variant:ident, $name:ident = $function:ident: $table:ident($($object:ident: $kind:ident),*) -> $reply:ident;
    )*})*) => {
        /// The entry of a module that exports the [`Plugin`](crate::Plugin) trait. A hook that isn't implemented is `None`;
        /// a hook answers 0, or else refused in the reply.
        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = PluginModuleRef, prefix_fields = PluginModuleFields)))]
        #[sabi(missing_field(default))]
        #[allow(missing_docs, reason = "the fields are named after the hooks, which are documented in the trait")]
        pub struct PluginModule {
            pub record: GetRecord,
            pub construct: Construct,
            pub destroy: Destroy,
            $($($(#[sabi($sabi)])? pub $name: Option<$table>,)*)*
        }
    };
}

for_each_hook!(module);
