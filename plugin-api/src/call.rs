//! A call of any hook as one value, what it returns as another, and the one JSON form that both have.

pub(crate) mod bounds;
mod objects;

pub use objects::HookObjects;

use serde::{Deserialize, Serialize, Serializer, de, ser::SerializeStruct};

use crate::{
    Hook, Json, PendingAccounting, UsageSpec,
    abi::{tables::LazyOrder, types::OrderHandle},
    data::{
        AddonConfig, AddonRequest, Asset, AssetChanges, Contract, Credentials, Event, Order, Provisioned, SingleSignOn,
        User,
    },
    hooks::for_each_hook,
};

/// The order of a call: whole, or with contracts that are fetched when the plugin asks for them.
#[derive(Debug, Clone, Copy)]
pub enum OrderRef<'a> {
    /// With all of its contracts.
    Whole(&'a Order),
    /// With contracts that are elsewhere.
    Lazy(&'a LazyOrder<'a>),
}

impl<'a> OrderRef<'a> {
    /// Returns the order; without its contracts, if they are elsewhere.
    pub fn order(self) -> &'a Order {
        match self {
            OrderRef::Whole(order) => order,
            OrderRef::Lazy(order) => order.head(),
        }
    }

    #[inline]
    pub(crate) fn handle(self) -> OrderHandle {
        match self {
            OrderRef::Whole(order) => order.into(),
            OrderRef::Lazy(order) => order.into(),
        }
    }
}

impl<'a> From<&'a Order> for OrderRef<'a> {
    fn from(order: &'a Order) -> Self {
        OrderRef::Whole(order)
    }
}

/// How a call has an object: borrowed from whoever calls.
macro_rules! borrowed {
    ($life:lifetime User) => { &$life User };
    ($life:lifetime Asset) => { &$life Asset };
    ($life:lifetime AssetType) => { &$life str };
    ($life:lifetime Text) => { &$life str };
    ($life:lifetime Document) => { &$life Json<$life> };
    ($life:lifetime Contract) => { &$life Contract };
    ($life:lifetime Order) => { OrderRef<$life> };
    ($life:lifetime Event) => { &$life Event };
    ($life:lifetime Request) => { &$life AddonRequest };
    ($life:lifetime Login) => { &$life SingleSignOn };
}

/// How a call has an object that it owns.
macro_rules! owned {
    (AssetType) => { String };
    (Text) => { String };
    (Document) => { Json<'static> };
    (Request) => { AddonRequest };
    (Login) => { SingleSignOn };
    ($kind:ident) => { $kind };
}

/// What a hook returns where it goes through.
macro_rules! returned {
    (Done) => { () };
    (Changes) => { AssetChanges };
    (Specifications) => { Vec<UsageSpec> };
    (Usage) => { PendingUsage };
    (Resource) => { Provisioned };
    (Configuration) => { Option<AddonConfig> };
    (Secrets) => { Credentials };
    (Location) => { String };
}

/// What `get_pending_accounting` returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingUsage {
    /// The usage that was not yet accounted.
    pub pending_accounting: PendingAccounting,
    /// What the hook changed on its asset.
    pub changes: AssetChanges,
}

macro_rules! calls {
    ($($trait:ident since $since:literal {$(
        $(#[doc = $doc:literal])* $(#[sabi($sabi:ident)])?
        $variant:ident, $name:ident = $function:ident: $table:ident($($object:ident: $kind:ident),*) -> $reply:ident;
    )*})*) => {
        /// A call of a hook: which one, and the objects that it takes, borrowed from whoever calls.
        ///
        /// Its JSON form is an object with a member for each object of the call; the order has all of its contracts there. An
        /// asset type that is the asset's own is left out.
        #[derive(Debug, Clone, Copy)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the objects are those of the trait's function")]
        pub enum HookCall<'a> {$($(
            $(#[doc = $doc])*
            $variant { $($object: borrowed!('a $kind)),* },
        )*)*}

        /// A call of a hook that owns its objects: one that came over a wire, or goes to another thread.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the objects are those of the trait's function")]
        pub enum OwnedHookCall {$($(
            $(#[doc = $doc])*
            $variant { $($object: owned!($kind)),* },
        )*)*}

        impl HookCall<'_> {
            /// Returns which hook is called.
            #[inline]
            pub const fn hook(&self) -> Hook {
                match self { $($(HookCall::$variant { .. } => Hook::$variant,)*)* }
            }

            /// Returns the asset that the call is about, if it is about one.
            #[inline]
            pub fn asset(&self) -> Option<&Asset> {
                match self {$($(HookCall::$variant { $($object),* } => find!(Asset; $($object: $kind),*),)*)*}
            }

            /// Returns the order of the call, if it has one; without its contracts, if they are elsewhere.
            pub fn order(&self) -> Option<&Order> {
                let order: Option<&OrderRef<'_>> = match self {$($(
                    HookCall::$variant { $($object),* } => find!(Order; $($object: $kind),*),
                )*)*};
                order.map(|order| order.order())
            }

            /// Returns a copy that owns its objects.
            pub fn to_owned(&self) -> OwnedHookCall {
                match *self {$($(
                    HookCall::$variant { $($object),* } => OwnedHookCall::$variant { $($object: copied!($kind $object)),* },
                )*)*}
            }

            fn write<S: Serializer>(&self, serializer: S, contracts: Contracts) -> Result<S::Ok, S::Error> {
                let mut objects = serializer.serialize_struct("HookCall", self.hook().objects().len())?;
                let asset = self.asset();
                match *self {$($(
                    HookCall::$variant { $($object),* } => {
                        $(write_object!(objects asset contracts $kind $object);)*
                    }
                )*)*}
                objects.end()
            }
        }

        impl OwnedHookCall {
            /// Takes what a hook takes out of a document of objects.
            pub fn new(hook: Hook, objects: HookObjects) -> Result<Self, MissingObject> {
                let mut objects = objects.completed(hook);
                match hook {$($(
                    Hook::$variant => Ok(OwnedHookCall::$variant {$(
                        $object: objects.$object.take().ok_or_else(|| objects.missing(hook, stringify!($object)))?,
                    )*}),
                )*)*}
            }

            /// Returns the same call with its objects borrowed.
            #[inline]
            pub fn borrowed(&self) -> HookCall<'_> {
                self.with_contracts(None)
            }

            /// Returns the same call with its objects borrowed, and an order whose contracts are elsewhere.
            pub fn with_contracts<'a>(&'a self, lazy: Option<&'a LazyOrder<'a>>) -> HookCall<'a> {
                match self {$($(
                    OwnedHookCall::$variant { $($object),* } => HookCall::$variant { $($object: lent!($kind $object lazy)),* },
                )*)*}
            }

            /// Returns the asset that the call is about, if it is about one: what is changed on it is what the hook sees.
            pub fn asset_mut(&mut self) -> Option<&mut Asset> {
                match self {$($(OwnedHookCall::$variant { $($object),* } => find!(Asset; $($object: $kind),*),)*)*}
            }

            /// Returns the order of the call, if it has one.
            pub fn order(&self) -> Option<&Order> {
                match self {$($(OwnedHookCall::$variant { $($object),* } => find!(Order; $($object: $kind),*),)*)*}
            }
        }

        /// What a hook returned that went through.
        ///
        /// Its JSON form has what the hook changed on its asset as `changes`, and beside it what else it returned.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum HookReply {$($(
            $(#[doc = $doc])*
            $variant(returned!($reply)),
        )*)*}

        impl HookReply {
            /// Returns which hook returned it.
            pub const fn hook(&self) -> Hook {
                match self { $($(HookReply::$variant(_) => Hook::$variant,)*)* }
            }

            /// Returns what the hook changed on its asset, if it may change one.
            #[inline]
            pub fn changes(&self) -> Option<&AssetChanges> {
                match self { $($(HookReply::$variant(_returned) => changes!($reply _returned),)*)* }
            }

            /// Returns what the hook changed on its asset, to be added to.
            #[inline]
            pub fn changes_mut(&mut self) -> Option<&mut AssetChanges> {
                match self { $($(HookReply::$variant(_returned) => changes_mut!($reply _returned),)*)* }
            }

            /// Returns what a hook returned that changed its asset and did nothing else; `None` if it may not change one.
            pub fn of_changes(hook: Hook, changes: AssetChanges) -> Option<Self> {
                match hook { $($(Hook::$variant => of_changes!($reply $variant changes),)*)* }
            }

            /// Returns how many bytes the JSON form of what a hook returns may have.
            pub const fn largest(hook: Hook) -> usize {
                match hook { $($(Hook::$variant => largest!($reply),)*)* }
            }

            /// Reads the JSON form of what a hook returned.
            ///
            /// # Errors
            /// The text isn't JSON, lacks what the hook returns, has what only other hooks return, or is larger than what
            /// the hook may return. Nothing is built of what is too large.
            pub fn read(hook: Hook, json: &[u8]) -> Result<Self, serde_json::Error> {
                if json.len() > Self::largest(hook) {
                    return Err(de::Error::custom(format_args!(
                        "{} bytes are more than {hook} may return ({})", json.len(), Self::largest(hook)
                    )));
                }
                match hook {$($(
                    Hook::$variant => read::$reply(json).map(HookReply::$variant),
                )*)*}
            }
        }

        impl Serialize for HookReply {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {$($(HookReply::$variant(returned) => write_reply!(serializer $reply returned),)*)*}
            }
        }
    };
}

/// Returns the object of one kind among the objects of a call.
macro_rules! find {
    ($wanted:ident;) => { None };
    (Asset; $object:ident: Asset $(, $other:ident: $kind:ident)*) => {{
        let _ = ($($other,)*);
        Some($object)
    }};
    (Order; $object:ident: Order $(, $other:ident: $kind:ident)*) => {{
        let _ = ($($other,)*);
        Some($object)
    }};
    ($wanted:ident; $object:ident: $kind:ident $(, $($rest:tt)*)?) => {{
        let _ = $object;
        find!($wanted; $($($rest)*)?)
    }};
}

macro_rules! copied {
    (AssetType $object:ident) => {
        $object.to_owned()
    };
    (Text $object:ident) => {
        $object.to_owned()
    };
    (Document $object:ident) => {
        $object.clone().into_owned()
    };
    (Order $object:ident) => {
        $object.order().clone()
    };
    ($kind:ident $object:ident) => {
        $object.clone()
    };
}

macro_rules! lent {
    (Order $object:ident $lazy:ident) => {
        $lazy.map_or(OrderRef::Whole($object), OrderRef::Lazy)
    };
    ($kind:ident $object:ident $lazy:ident) => {
        $object
    };
}

macro_rules! write_object {
    ($objects:ident $asset:ident $contracts:ident AssetType $object:ident) => {
        if $asset.is_none_or(|asset| asset.resource_type != $object) {
            $objects.serialize_field(stringify!($object), $object)?;
        }
    };
    ($objects:ident $asset:ident $contracts:ident Order $object:ident) => {
        match $contracts {
            Contracts::Written => $objects.serialize_field(stringify!($object), $object.order())?,
            Contracts::LeftOut => $objects.serialize_field(stringify!($object), &Head($object.order()))?,
        }
    };
    ($objects:ident $asset:ident $contracts:ident $kind:ident $object:ident) => {
        $objects.serialize_field(stringify!($object), $object)?;
    };
}

/// The most bytes of the JSON form.
macro_rules! largest {
    (Done) => {
        bounds::NAMES
    };
    (Changes) => {
        bounds::CHANGES + bounds::NAMES
    };
    (Specifications) => {
        bounds::USAGE + bounds::NAMES
    };
    (Usage) => {
        bounds::USAGE + bounds::CHANGES + bounds::NAMES
    };
    ($document:ident) => {
        bounds::DOCUMENT + bounds::NAMES
    };
}

macro_rules! changes {
    (Changes $returned:ident) => {
        Some($returned)
    };
    (Usage $returned:ident) => {
        Some(&$returned.changes)
    };
    ($reply:ident $returned:ident) => {
        None
    };
}

macro_rules! changes_mut {
    (Changes $returned:ident) => {
        Some($returned)
    };
    (Usage $returned:ident) => {
        Some(&mut $returned.changes)
    };
    ($reply:ident $returned:ident) => {
        None
    };
}

macro_rules! of_changes {
    (Changes $variant:ident $changes:ident) => {
        Some(HookReply::$variant($changes))
    };
    (Usage $variant:ident $changes:ident) => {
        Some(HookReply::$variant(PendingUsage { changes: $changes, ..PendingUsage::default() }))
    };
    ($reply:ident $variant:ident $changes:ident) => {
        None
    };
}

macro_rules! write_reply {
    ($serializer:ident Done $returned:ident) => {{
        let () = $returned;
        write_nothing_else($serializer, &AssetChanges::default())
    }};
    ($serializer:ident Changes $returned:ident) => {
        write_nothing_else($serializer, $returned)
    };
    ($serializer:ident Specifications $returned:ident) => {
        write_beside($serializer, None, "usage_specs", $returned)
    };
    ($serializer:ident Usage $returned:ident) => {
        write_beside($serializer, Some(&$returned.changes), "pending_accounting", &$returned.pending_accounting)
    };
    ($serializer:ident Resource $returned:ident) => {
        write_beside($serializer, None, "provisioned", $returned)
    };
    ($serializer:ident Configuration $returned:ident) => {
        match $returned {
            Some(config) => write_beside($serializer, None, "config", config),
            None => write_nothing_else($serializer, &AssetChanges::default()),
        }
    };
    ($serializer:ident Secrets $returned:ident) => {
        write_beside($serializer, None, "credentials", $returned)
    };
    ($serializer:ident Location $returned:ident) => {
        write_beside($serializer, None, "location", $returned)
    };
}

for_each_hook!(calls);

fn write_nothing_else<S: Serializer>(serializer: S, changes: &AssetChanges) -> Result<S::Ok, S::Error> {
    let mut reply = serializer.serialize_struct("HookReply", 1)?;
    reply.serialize_field("changes", changes)?;
    reply.end()
}

fn write_beside<S: Serializer, T: Serialize>(
    serializer: S,
    changes: Option<&AssetChanges>,
    name: &'static str,
    returned: &T,
) -> Result<S::Ok, S::Error> {
    let mut reply = serializer.serialize_struct("HookReply", 2)?;
    match changes {
        Some(changes) => reply.serialize_field("changes", changes)?,
        None => reply.serialize_field("changes", &AssetChanges::default())?,
    }
    reply.serialize_field(name, returned)?;
    reply.end()
}

/// Reads what each kind of hook returns, and nothing else.
#[allow(non_snake_case, reason = "each function has the name of what it reads in the list of hooks")]
mod read {
    use super::*;

    /// The changes of a hook that may change nothing.
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    macro_rules! read {
        ($($kind:ident -> $returned:ty $(, after $first:path)? { $($(#[$attribute:meta])* $field:ident: $type:ty),* } = $value:expr;)*) => {$(
            pub(super) fn $kind(json: &[u8]) -> Result<$returned, serde_json::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Reply { $($(#[$attribute])* $field: $type),* }
                let value: fn(Reply) -> $returned = $value;
                $($first(json)?;)?
                serde_json::from_slice(json).map(value)
            }
        )*};
    }

    read! {
        Done -> () { #[serde(default, rename = "changes")] _changes: Nothing } = |_| ();
        Changes -> AssetChanges { #[serde(default)] changes: AssetChanges } = |reply| reply.changes;
        Specifications -> Vec<UsageSpec>, after bounds::count {
            #[serde(default, rename = "changes")] _changes: Nothing, #[serde(default)] usage_specs: Vec<UsageSpec>
        } = |reply| reply.usage_specs;
        Usage -> PendingUsage, after bounds::count {
            #[serde(default)] changes: AssetChanges, #[serde(default)] pending_accounting: PendingAccounting
        } = |reply| PendingUsage { pending_accounting: reply.pending_accounting, changes: reply.changes };
        Resource -> Provisioned {
            #[serde(default, rename = "changes")] _changes: Nothing, provisioned: Provisioned
        } = |reply| reply.provisioned;
        Configuration -> Option<AddonConfig> {
            #[serde(default, rename = "changes")] _changes: Nothing, #[serde(default)] config: Option<AddonConfig>
        } = |reply| reply.config;
        Secrets -> Credentials {
            #[serde(default, rename = "changes")] _changes: Nothing, credentials: Credentials
        } = |reply| reply.credentials;
        Location -> String {
            #[serde(default, rename = "changes")] _changes: Nothing, location: String
        } = |reply| reply.location;
    }
}

#[derive(Clone, Copy)]
enum Contracts {
    Written,
    LeftOut,
}

impl Serialize for HookCall<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write(serializer, Contracts::Written)
    }
}

/// A call in its JSON form, but for the contracts of its order, of which there may be thousands.
#[derive(Debug, Clone, Copy)]
pub struct WithoutContracts<'a>(pub HookCall<'a>);

impl Serialize for WithoutContracts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer, Contracts::LeftOut)
    }
}

/// An order without its contracts.
struct Head<'a>(&'a Order);

impl Serialize for Head<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Order { order_id, customer, date, tax_address, contracts: _, extra } = self.0;
        let has_extra = *extra != Json::default();
        let mut order = serializer.serialize_struct("Order", 4 + usize::from(has_extra))?;
        order.serialize_field("order_id", order_id)?;
        order.serialize_field("customer", customer)?;
        order.serialize_field("date", date)?;
        order.serialize_field("tax_address", tax_address)?;
        if has_extra {
            order.serialize_field("extra", extra)?;
        }
        order.end()
    }
}

impl HookCall<'_> {
    /// Returns the id of the asset or the resource that the call is about, if it is about one.
    #[inline]
    pub fn object(&self) -> Option<&str> {
        match *self {
            HookCall::AddonUpdate { resource, .. }
            | HookCall::AddonDelete { resource }
            | HookCall::AddonSingleSignOn { resource, .. } => Some(resource),
            _ => self.asset().map(|asset| asset.id.as_str()),
        }
    }
}

impl HookReply {
    /// Takes what the hook changed on its asset.
    #[inline]
    pub fn into_changes(mut self) -> AssetChanges {
        self.changes_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// A hook was to be called without an object that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingObject {
    /// The hook.
    pub hook: Hook,
    /// The object.
    pub object: &'static str,
}

impl std::fmt::Display for MissingObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} takes {:?}, which is missing", self.hook, self.object)
    }
}

impl std::error::Error for MissingObject {}

/// What a call came to in its JSON form: what the hook returned, or no changes where the plugin doesn't implement the hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookAnswer(pub Option<HookReply>);

impl Serialize for HookAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(reply) => reply.serialize(serializer),
            None => write_nothing_else(serializer, &AssetChanges::default()),
        }
    }
}
