//! The functions that read [`data`](crate::data) objects: what a host lends to plugins without copying it.

use std::{
    cell::{OnceCell, UnsafeCell},
    fmt,
    ptr::{from_ref, null},
};

use abi_stable::{prefix_type::WithMetadata, sabi_types::StaticRef};

use super::types::*;
use crate::{
    Json,
    call::bounds,
    data::{AddonRequest, Asset, AssetChanges, Charge, Contract, Event, ObjectId, Offering, Order, User},
};

/// A function that reads a field, as the tables hold it.
macro_rules! get {
    ($object:ty, $result:ty, $read:expr) => {{
        unsafe extern "C" fn get(object: Object) -> $result {
            let read: fn(&$object) -> $result = $read;
            // SAFETY: the handle was made from a reference that outlives its use.
            read(unsafe { &*object.cast::<$object>() })
        }
        get
    }};
}

macro_rules! get_text {
    ($object:ty, $read:expr) => {
        GetText(get!($object, Text, |object| {
            let read: fn(&$object) -> &str = $read;
            Text::new(read(object).as_bytes())
        }))
    };
}

macro_rules! get_option {
    ($object:ty, $read:expr) => {
        GetText(get!($object, Text, |object| {
            let read: fn(&$object) -> Option<&str> = $read;
            Text::from_option(read(object))
        }))
    };
}

/// The handle of an object, from a reference to it and its static table.
macro_rules! lend {
    ($object:ty => $handle:ident, $reference:ident, $table:expr) => {
        impl From<&$object> for $handle {
            fn from(object: &$object) -> Self {
                $handle { object: from_ref(object).cast(), table: $reference($table.as_prefix()) }
            }
        }

        impl From<Option<&$object>> for $handle {
            fn from(object: Option<&$object>) -> Self {
                $handle { object: object.map_or(null(), from_ref).cast(), table: $reference($table.as_prefix()) }
            }
        }
    };
}

lend!(User => UserHandle, UserTableRef, USER);
lend!(Asset => AssetHandle, AssetTableRef, ASSET);
lend!(Offering => OfferingHandle, OfferingTableRef, OFFERING);
lend!(Charge => ChargeHandle, ChargeTableRef, CHARGE);
lend!(Contract => ContractHandle, ContractTableRef, CONTRACT);
lend!(Order => OrderHandle, OrderTableRef, ORDER);
lend!(Event => EventHandle, EventTableRef, EVENT);
lend!(AddonRequest => AddonRequestHandle, AddonRequestTableRef, ADDON_REQUEST);
lend!(LazyOrder<'_> => OrderHandle, OrderTableRef, LAZY_ORDER);

/// A table that lives as long as this library.
macro_rules! table {
    ($name:ident: $table:ident = $value:expr) => {
        static $name: StaticRef<WithMetadata<$table>> = {
            const TABLE: &WithMetadata<$table> = &WithMetadata::new($value);
            StaticRef::new(TABLE)
        };
    };
}

table!(USER: UserTable = UserTable {
    username: get_text!(User, |user| &user.username),
    email: get_text!(User, |user| &user.email),
    complete_name: get_text!(User, |user| &user.complete_name),
    extra: get_text!(User, |user| user.extra.as_str()),
});

table!(ASSET: AssetTable = AssetTable {
    id: get_text!(Asset, |asset| &asset.id),
    product_id: get_option!(Asset, |asset| asset.product_id.as_deref()),
    version: get_option!(Asset, |asset| asset.version.as_deref()),
    provider: GetUser(get!(Asset, UserHandle, |asset| (&asset.provider).into())),
    content_type: get_option!(Asset, |asset| asset.content_type.as_deref()),
    download_link: get_option!(Asset, |asset| asset.download_link.as_deref()),
    resource_path: get_option!(Asset, |asset| asset.resource_path.as_deref()),
    resource_type: get_text!(Asset, |asset| &asset.resource_type),
    is_public: GetFlag(get!(Asset, u8, |asset| asset.is_public.into())),
    meta_info: get_text!(Asset, |asset| asset.meta_info.as_str()),
    url: get_option!(Asset, |asset| asset.url.as_deref()),
    uri: get_option!(Asset, |asset| asset.uri.as_deref()),
    extra: get_text!(Asset, |asset| asset.extra.as_str()),
});

table!(OFFERING: OfferingTable = OfferingTable {
    off_id: get_text!(Offering, |offering| &offering.off_id),
    name: get_text!(Offering, |offering| &offering.name),
    version: get_text!(Offering, |offering| &offering.version),
    description: get_text!(Offering, |offering| &offering.description),
    asset: GetAsset(get!(Offering, AssetHandle, |offering| offering.asset.as_ref().into())),
    extra: get_text!(Offering, |offering| offering.extra.as_str()),
});

table!(CHARGE: ChargeTable = ChargeTable {
    date: get_text!(Charge, |charge| charge.date.as_str()),
    cost: get_text!(Charge, |charge| charge.cost.as_str()),
    duty_free: get_text!(Charge, |charge| charge.duty_free.as_str()),
    currency: get_text!(Charge, |charge| &charge.currency),
    concept: get_text!(Charge, |charge| &charge.concept),
    invoice: get_option!(Charge, |charge| charge.invoice.as_deref()),
    extra: get_text!(Charge, |charge| charge.extra.as_str()),
});

table!(CONTRACT: ContractTable = ContractTable {
    item_id: get_text!(Contract, |contract| &contract.item_id),
    offering: GetOffering(get!(Contract, OfferingHandle, |contract| (&contract.offering).into())),
    product_id: get_option!(Contract, |contract| contract.product_id.as_deref()),
    pricing_model: get_text!(Contract, |contract| contract.pricing_model.as_str()),
    last_charge: get_option!(Contract, |contract| contract.last_charge.as_ref().map(|date| date.as_str())),
    charges: GetNumber(get!(Contract, u64, |contract| contract.charges.len() as u64)),
    charge: GetCharge(charge_at),
    correlation_number: GetNumber(get!(Contract, u64, |contract| contract.correlation_number)),
    last_usage: get_option!(Contract, |contract| contract.last_usage.as_ref().map(|date| date.as_str())),
    revenue_class: get_option!(Contract, |contract| contract.revenue_class.as_deref()),
    terminated: GetFlag(get!(Contract, u8, |contract| contract.terminated.into())),
    extra: get_text!(Contract, |contract| contract.extra.as_str()),
});

table!(ORDER: OrderTable = OrderTable {
    order_id: get_text!(Order, |order| &order.order_id),
    customer: GetUser(get!(Order, UserHandle, |order| (&order.customer).into())),
    date: get_text!(Order, |order| order.date.as_str()),
    tax_address: get_text!(Order, |order| order.tax_address.as_str()),
    contracts: GetNumber(get!(Order, u64, |order| order.contracts.len() as u64)),
    contract: GetContract(contract_at),
    item_contract: FindContract(item_contract),
    product_contract: FindContract(product_contract),
    extra: get_text!(Order, |order| order.extra.as_str()),
});

table!(ADDON_REQUEST: AddonRequestTable = AddonRequestTable {
    uuid: get_option!(AddonRequest, |request| request.uuid.as_deref()),
    platform_id: get_option!(AddonRequest, |request| request.platform_id.as_ref().map(ObjectId::as_str)),
    plan: get_option!(AddonRequest, |request| request.plan.as_deref()),
    region: get_option!(AddonRequest, |request| request.region.as_deref()),
    callback_url: get_option!(AddonRequest, |request| request.callback_url.as_deref()),
    options: get_text!(AddonRequest, |request| request.options.as_str()),
    body: get_text!(AddonRequest, |request| request.body.as_str()),
});

table!(EVENT: EventTable = EventTable {
    id: get_text!(Event, |event| &event.id),
    name: get_text!(Event, |event| &event.name),
    object_id: get_option!(Event, |event| event.object_id.as_ref().map(|id| id.as_str())),
    date: get_text!(Event, |event| event.date.as_str()),
    attempt: GetNumber(get!(Event, u64, |event| event.attempt)),
    data: get_text!(Event, |event| event.data.as_str()),
});

/// An order whose contracts are fetched when the plugin first asks for one: most plugins never do, and there may be
/// thousands. Stays on the thread of the call.
pub struct LazyOrder<'a> {
    order: &'a Order,
    contracts: OnceCell<Vec<Contract>>,
    fetch: &'a dyn Fn() -> Vec<Contract>,
}

impl<'a> LazyOrder<'a> {
    /// An order without its contracts, and the function that fetches them. The function must not panic.
    pub fn new(order: &'a Order, fetch: &'a dyn Fn() -> Vec<Contract>) -> Self {
        LazyOrder { order, contracts: OnceCell::new(), fetch }
    }

    /// The order, without its contracts.
    pub fn head(&self) -> &Order {
        self.order
    }

    fn contracts(&self) -> &[Contract] {
        self.contracts.get_or_init(self.fetch)
    }
}

impl fmt::Debug for LazyOrder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyOrder").field("order", self.order).finish_non_exhaustive()
    }
}

type Lazy = LazyOrder<'static>;

table!(LAZY_ORDER: OrderTable = OrderTable {
    order_id: get_text!(Lazy, |lazy| &lazy.order.order_id),
    customer: GetUser(get!(Lazy, UserHandle, |lazy| (&lazy.order.customer).into())),
    date: get_text!(Lazy, |lazy| lazy.order.date.as_str()),
    tax_address: get_text!(Lazy, |lazy| lazy.order.tax_address.as_str()),
    contracts: GetNumber(get!(Lazy, u64, |lazy| lazy.contracts().len() as u64)),
    contract: GetContract(lazy_contract_at),
    item_contract: FindContract(lazy_item_contract),
    product_contract: FindContract(lazy_product_contract),
    extra: get_text!(Lazy, |lazy| lazy.order.extra.as_str()),
});

unsafe extern "C" fn lazy_contract_at(order: Object, index: u64) -> ContractHandle {
    // SAFETY: as in `charge_at`.
    let order = unsafe { &*order.cast::<Lazy>() };
    usize::try_from(index).ok().and_then(|index| order.contracts().get(index)).into()
}

unsafe extern "C" fn lazy_item_contract(order: Object, id: Text) -> ContractHandle {
    // SAFETY: as in `charge_at`; the text is valid during the call.
    unsafe { find_in((*order.cast::<Lazy>()).contracts(), id, |contract| Some(&contract.item_id)) }
}

unsafe extern "C" fn lazy_product_contract(order: Object, id: Text) -> ContractHandle {
    // SAFETY: as in `charge_at`; the text is valid during the call.
    unsafe { find_in((*order.cast::<Lazy>()).contracts(), id, |contract| contract.product_id.as_deref()) }
}

unsafe extern "C" fn charge_at(contract: Object, index: u64) -> ChargeHandle {
    // SAFETY: the handle was made from a reference that outlives its use.
    let contract = unsafe { &*contract.cast::<Contract>() };
    usize::try_from(index).ok().and_then(|index| contract.charges.get(index)).into()
}

unsafe extern "C" fn contract_at(order: Object, index: u64) -> ContractHandle {
    // SAFETY: as in `charge_at`.
    let order = unsafe { &*order.cast::<Order>() };
    usize::try_from(index).ok().and_then(|index| order.contracts.get(index)).into()
}

/// The first contract whose id is `id`.
///
/// # Safety
/// `id` must be valid during the call.
unsafe fn find_in(contracts: &[Contract], id: Text, id_of: fn(&Contract) -> Option<&str>) -> ContractHandle {
    // SAFETY: handed on to the caller.
    let id = unsafe { id.bytes() };
    contracts.iter().find(|contract| id.is_some() && id_of(contract).map(str::as_bytes) == id).into()
}

unsafe extern "C" fn item_contract(order: Object, id: Text) -> ContractHandle {
    // SAFETY: as in `charge_at`; the text is valid during the call.
    unsafe { find_in(&(*order.cast::<Order>()).contracts, id, |contract| Some(&contract.item_id)) }
}

unsafe extern "C" fn product_contract(order: Object, id: Text) -> ContractHandle {
    // SAFETY: as in `charge_at`; the text is valid during the call.
    unsafe { find_in(&(*order.cast::<Order>()).contracts, id, |contract| contract.product_id.as_deref()) }
}

/// An asset that is lent to one call, and the changes that the call makes.
///
/// Stays on the thread of the call. The plugin may hold texts that it read before it replaced them, so what is
/// replaced is kept until the call is over.
pub struct LentAsset<'a> {
    asset: &'a Asset,
    /// Most calls change nothing, so there is none until something is.
    changes: UnsafeCell<Option<Box<Changes>>>,
}

#[derive(Default)]
struct Changes {
    meta_info: Option<String>,
    content_type: Option<String>,
    download_link: Option<String>,
    replaced: Vec<String>,
    size: usize,
}

impl<'a> LentAsset<'a> {
    /// Lends an asset.
    pub fn new(asset: &'a Asset) -> Self {
        LentAsset { asset, changes: UnsafeCell::default() }
    }

    /// The handles for one call; `self` must stay where it is until the call is over.
    pub fn handle(&self) -> AssetInCall {
        let object = from_ref(self).cast();
        AssetInCall {
            asset: AssetHandle { object, table: AssetTableRef(LENT_ASSET.as_prefix()) },
            changes: ChangesHandle { object, table: ChangesTableRef(CHANGES.as_prefix()) },
        }
    }

    /// What the call changed.
    pub fn into_changes(self) -> AssetChanges {
        let Some(changes) = self.changes.into_inner() else { return AssetChanges::default() };
        AssetChanges {
            meta_info: changes.meta_info.map(Json::from_checked_string),
            content_type: changes.content_type,
            download_link: changes.download_link,
        }
    }

    fn changes(&self) -> Option<&Changes> {
        // SAFETY: the call runs on one thread, and nothing keeps a reference to the set beyond the function that
        // took it. What points into the texts stays valid: a replaced text is moved, not freed.
        unsafe { (*self.changes.get()).as_deref() }
    }
}

/// Sets a field of the change set of a call, unless the changes grow too large.
///
/// # Safety
/// `lent` must be the object of [`LentAsset::handle`], `text` valid during the call.
unsafe fn set(lent: Object, text: Text, json: bool, field: fn(&mut Changes) -> &mut Option<String>) -> u32 {
    // SAFETY: handed on to the caller; the call runs on one thread, and no reference to the set is alive.
    let (changes, bytes) = unsafe { (&mut *(*lent.cast::<LentAsset<'_>>()).changes.get(), text.bytes()) };
    let Some(Ok(text)) = bytes.map(std::str::from_utf8) else { return 1 };
    if json && Json::new(text).is_err() {
        return 1;
    }
    let changes = changes.get_or_insert_default();
    let grown = changes.size.saturating_add(text.len());
    if grown > bounds::CHANGES {
        return 2;
    }
    changes.size = grown;
    let replaced = field(changes).replace(text.to_owned());
    changes.replaced.extend(replaced);
    0
}

unsafe extern "C" fn set_meta_info(lent: Object, text: Text) -> u32 {
    // SAFETY: handed on to the caller.
    unsafe { set(lent, text, true, |changes| &mut changes.meta_info) }
}

unsafe extern "C" fn set_content_type(lent: Object, text: Text) -> u32 {
    // SAFETY: handed on to the caller.
    unsafe { set(lent, text, false, |changes| &mut changes.content_type) }
}

unsafe extern "C" fn set_download_link(lent: Object, text: Text) -> u32 {
    // SAFETY: handed on to the caller.
    unsafe { set(lent, text, false, |changes| &mut changes.download_link) }
}

table!(CHANGES: ChangesTable = ChangesTable {
    meta_info: SetText(set_meta_info),
    content_type: SetText(set_content_type),
    download_link: SetText(set_download_link),
});

type Lent = LentAsset<'static>;

table!(LENT_ASSET: AssetTable = AssetTable {
    id: get_text!(Lent, |lent| &lent.asset.id),
    product_id: get_option!(Lent, |lent| lent.asset.product_id.as_deref()),
    version: get_option!(Lent, |lent| lent.asset.version.as_deref()),
    provider: GetUser(get!(Lent, UserHandle, |lent| (&lent.asset.provider).into())),
    content_type: get_option!(Lent, |lent| {
        lent.changes().and_then(|changes| changes.content_type.as_deref()).or(lent.asset.content_type.as_deref())
    }),
    download_link: get_option!(Lent, |lent| {
        lent.changes().and_then(|changes| changes.download_link.as_deref()).or(lent.asset.download_link.as_deref())
    }),
    resource_path: get_option!(Lent, |lent| lent.asset.resource_path.as_deref()),
    resource_type: get_text!(Lent, |lent| &lent.asset.resource_type),
    is_public: GetFlag(get!(Lent, u8, |lent| lent.asset.is_public.into())),
    meta_info: get_text!(Lent, |lent| {
        lent.changes().and_then(|changes| changes.meta_info.as_deref()).unwrap_or(lent.asset.meta_info.as_str())
    }),
    url: get_option!(Lent, |lent| lent.asset.url.as_deref()),
    uri: get_option!(Lent, |lent| lent.asset.uri.as_deref()),
    extra: get_text!(Lent, |lent| lent.asset.extra.as_str()),
});
