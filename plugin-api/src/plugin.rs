//! The trait that a plugin implements.

use crate::{
    Asset, Contract, Event, Json, Order, PluginError, Services, User,
    data::{PendingAccounting, UsageSpec},
    hooks::for_each_hook,
};

/// How a hook of the trait sees an object of its call.
macro_rules! view {
    (User) => { &User<'_> };
    (Asset) => { &mut Asset<'_> };
    (AssetType) => { &str };
    (Text) => { &str };
    (Document) => { &Json<'_> };
    (Contract) => { &Contract<'_> };
    (Order) => { &Order<'_> };
    (Event) => { &Event<'_> };
}

/// What a hook of the trait returns where it goes through.
macro_rules! returned {
    (Done) => { () };
    (Changes) => { () };
    (Specifications) => { Vec<UsageSpec> };
    (Usage) => { PendingAccounting };
}

/// The function of one hook, if it is of this trait.
macro_rules! function {
    (Plugin [$(#[doc = $doc:literal])*] $function:ident($($object:ident: $kind:ident),*) -> $reply:ident) => {
        $(#[doc = $doc])*
        fn $function(&self, $($object: view!($kind)),*) -> Result<returned!($reply), PluginError> {
            let _ = ($($object,)*);
            Ok(Default::default())
        }
    };
    ($trait:ident $($hook:tt)*) => {};
}

macro_rules! plugin {
    ($($trait:ident since $since:literal {$(
        $(#[doc = $doc:literal])* $(#[sabi($sabi:ident)])?
        $variant:ident, $name:ident = $function:ident: $table:ident($($object:ident: $kind:ident),*) -> $reply:ident;
    )*})*) => {
        /// What a charging backend does for one kind of asset.
        ///
        /// Implement the hooks that the kind needs and mark the `impl` with [`export`](crate::export). A hook that isn't
        /// implemented does nothing, and the host doesn't even call it.
        ///
        /// One instance serves many calls, from many threads at once and for a long time; in worker processes there may be
        /// several instances. So keep nothing in memory that has to be remembered: that is what
        /// [`Services::state`](crate::Services::state) is for.
        ///
        /// A hook refuses with a [`PluginError`]; what it changed on its asset is then discarded. Do outside work last, or make it
        /// safe to repeat: a hook that was cut off, by a time-out or a crash, may be called again.
        ///
        /// Parameters and order of the calls are those of the Business API Ecosystem's programmer guide.
        pub trait Plugin: Sized + Send + Sync + 'static {
            /// Makes the instance. Called when the plugin is installed (in a process of its own, whose state is thrown
            /// away), when the first call needs it, and again for new settings.
            ///
            /// An error says that the settings don't do; the plugin is then installed as *needs settings*. Don't do
            /// anything here that must not happen twice, and don't wait long.
            fn new(services: Services) -> Result<Self, PluginError>;

            $($(function!($trait [$(#[doc = $doc])*] $function($($object: $kind),*) -> $reply);)*)*
        }
    };
}

for_each_hook!(plugin);
