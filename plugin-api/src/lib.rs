//! Write plugins for **billhook**, the plugin host for charging backends.
//!
//! A charging backend sells digital assets. What it takes to validate, activate, suspend or meter one depends on the kind
//! of asset; a plugin teaches the backend one kind. The life of a plugin:
//!
//! 1. Write a crate with `crate-type = ["cdylib"]` that implements [`Plugin`] and marks the `impl` with
//!    [`export`]; `billhook newplugin` makes one that builds, tests and packs.
//! 2. Test the hooks with [`testing`], without a host.
//! 3. `billhook packplugin` builds it and zips it with its `package.json`.
//! 4. `billhook loadplugin` checks the package, tries it in a process of its own, and installs it.
//! 5. The backend's life-cycle events reach the hooks; what a hook changes on its asset, or refuses, goes back.
//!
//! ```
//! use billhook_plugin_api::{Asset, Contract, Order, Plugin, PluginError, Services, User};
//!
//! struct Greeting {
//!     services: Services,
//! }
//!
//! #[billhook_plugin_api::export]
//! impl Plugin for Greeting {
//!     fn new(services: Services) -> Result<Self, PluginError> {
//!         Ok(Greeting { services })
//!     }
//!
//!     fn on_pre_product_spec_validation(
//!         &self,
//!         provider: &User,
//!         _asset_t: &str,
//!         _media_type: &str,
//!         url: &str,
//!     ) -> Result<(), PluginError> {
//!         if !url.starts_with("https://") {
//!             let name = provider.complete_name();
//!             return Err(PluginError::invalid(format!("{name}, please sell over https only")));
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_product_acquisition(
//!         &self,
//!         _asset: &mut Asset,
//!         _contract: &Contract,
//!         order: &Order,
//!     ) -> Result<(), PluginError> {
//!         self.services.log().info(format!("hello, {}", order.customer().username()));
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! The crate follows semantic versioning, for the source and for the ABI: a plugin runs in every host of the same major
//! version, as long as it uses only what that host has.

#[doc(hidden)]
pub mod abi;
mod addon;
#[doc(hidden)]
pub mod call;
pub mod data;
mod error;
mod hook;
mod hooks;
mod json;
#[doc(hidden)]
pub mod json_tree;
mod objects;
mod plugin;
#[cfg(feature = "schema")]
mod schema;
mod services;
pub mod testing;
mod values;

pub use addon::AddonProvisioning;
pub use error::{ErrorKind, PluginError};
pub use hook::{Hook, HookSet, UnknownHook};
pub use json::Json;
pub use objects::{AddonRequest, Asset, AssetRef, Charge, Contract, Event, Offering, Order, User};
pub use plugin::Plugin;
pub use services::{Log, Services, State};
pub use values::{Decimal, Timestamp, ValueError};

pub use data::{PendingAccounting, UsageRecord, UsageSpec};

/// Exports the `impl` of a trait from the library: put it on `impl Plugin for YourType`.
///
/// It writes the entry that a host looks for and a record, readable without running the library, of the hooks that the
/// `impl` really has. A library exports each trait once.
pub use billhook_plugin_api_macros::export;

/// What the attribute refuses, because it would lose a hook or clash with another.
///
/// A hook under a condition: the record would tell of a hook that isn't there.
/// ```compile_fail
/// # use billhook_plugin_api::*;
/// struct Fixture;
/// #[export]
/// impl Plugin for Fixture {
///     fn new(_: Services) -> Result<Self, PluginError> { Ok(Fixture) }
///     #[cfg(all())]
///     fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, PluginError> { Ok(vec![]) }
/// }
/// # fn main() {}
/// ```
/// A hook that a macro makes: the attribute can't see it.
/// ```compile_fail
/// # use billhook_plugin_api::*;
/// macro_rules! hook {
///     () => { fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, PluginError> { Ok(vec![]) } };
/// }
/// struct Fixture;
/// #[export]
/// impl Plugin for Fixture {
///     fn new(_: Services) -> Result<Self, PluginError> { Ok(Fixture) }
///     hook!();
/// }
/// # fn main() {}
/// ```
/// Two plugins in one library.
/// ```compile_fail
/// # use billhook_plugin_api::*;
/// mod one {
///     use billhook_plugin_api::*;
///     struct Fixture;
///     #[export]
///     impl Plugin for Fixture { fn new(_: Services) -> Result<Self, PluginError> { Ok(Fixture) } }
/// }
/// mod two {
///     use billhook_plugin_api::*;
///     struct Fixture;
///     #[export]
///     impl Plugin for Fixture { fn new(_: Services) -> Result<Self, PluginError> { Ok(Fixture) } }
/// }
/// # fn main() {}
/// ```
/// A generic plugin.
/// ```compile_fail
/// # use billhook_plugin_api::*;
/// struct Fixture<T>(T);
/// #[export]
/// impl<T: Send + Sync + 'static> Plugin for Fixture<T> {
///     fn new(_: Services) -> Result<Self, PluginError> { Err(PluginError::internal("")) }
/// }
/// # fn main() {}
/// ```
/// And what all of them were without their fault.
/// ```
/// #![forbid(unsafe_code)]
/// # use billhook_plugin_api::*;
/// struct Fixture;
/// #[export]
/// impl Plugin for Fixture {
///     fn new(_: Services) -> Result<Self, PluginError> { Ok(Fixture) }
///     fn get_usage_specs(&self) -> Result<Vec<UsageSpec>, PluginError> { Ok(vec![]) }
/// }
/// # fn main() {}
/// ```
#[cfg(doctest)]
pub struct WhatExportRefuses;

/// Runs the examples of the plugin guide as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/plugin-guide.md")]
pub struct PluginGuide;
