//! A backend's life-cycle functions: a pre hook, the backend's own work, a post hook; and notifications for every asset of a
//! contract.
//!
//! Each pair of hooks has a `begin_…` that runs the pre hook and answers a token, and the token's `finish` runs the post
//! hook. The around-functions, which take the work as a closure, are built on them; asynchronous backends and those in
//! other languages hold the middle part themselves. A token that is dropped runs no post hook.

mod around;
mod bundles;
mod notify;

pub use around::{
    AroundError, BeginError, BegunOffering, BegunProductSpec, BegunValidation, ChangedAsset, Done,
    ProductSpecValidation,
};
pub(crate) use bundles::assets_of_offering;
pub use bundles::{BundleError, Catalogue, CatalogueError, NoBundles};
pub use notify::AssetOutcome;

use billhook_store::Plugins;

use crate::dispatch::Dispatcher;

/// What the life-cycle functions need of a host.
#[derive(Clone, Copy)]
pub(crate) struct Lifecycle<'a> {
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) plugins: &'a dyn Plugins,
}
