//! The stable ABI between a host and a plugin. Not part of the API for plugin authors.
//!
//! This folder is the only place of the crate with unsafe code, and the only one that names abi_stable.
//! [`types`] are the shapes; [`glue`] and `views` are the plugin's side, [`module`] and [`tables`] the host's;
//! [`reply`] and [`services`] have both. No type of the Rust ABI crosses, nothing that one side allocates is freed by
//! the other, and no panic unwinds from one to the other.
#![allow(non_local_definitions, reason = "abi_stable's derives expand to impls that current compilers place elsewhere")]

pub mod glue;
pub(crate) mod guard;
pub(crate) mod lend;
pub mod module;
pub mod record;
pub mod reply;
pub mod services;
pub mod tables;
pub mod types;
pub(crate) mod views;

/// The symbol of the [`Plugin`](crate::Plugin) trait's entry. It carries the major version of the API, so that a
/// library may one day serve hosts of two major versions. The export attribute writes the same name.
pub const PLUGIN_ENTRY: &str = "billhook_plugin_1";
