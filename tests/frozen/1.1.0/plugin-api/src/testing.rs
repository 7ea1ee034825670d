//! Unit tests of hooks without a host.
//!
//! Build the objects from [`data`], lend them to the hook, and look at what it answered and changed. The
//! services are fakes in memory: what a plugin logged and kept can be read back.
//!
//! ```
//! use billhook_plugin_api::{Asset, Contract, Order, Plugin, PluginError, Services, data, testing};
//!
//! struct Doors(Services);
//!
//! impl Plugin for Doors {
//!     fn new(services: Services) -> Result<Self, PluginError> {
//!         Ok(Doors(services))
//!     }
//!
//!     fn on_product_acquisition(
//!         &self,
//!         asset: &mut Asset,
//!         _contract: &Contract,
//!         order: &Order,
//!     ) -> Result<(), PluginError> {
//!         self.0.state().keep(order.order_id(), order.customer().username())?;
//!         asset.set_meta_info(&serde_json::json!({"door": "open"}))
//!     }
//! }
//!
//! let services = testing::services().build();
//! let doors = Doors::new(services.clone()).unwrap();
//!
//! let (answer, changes) = testing::with_asset(&testing::asset("Door"), |asset| {
//!     testing::with_order(&testing::order("7", "ada"), |order| {
//!         let contract = order.contracts().next().unwrap();
//!         doors.on_product_acquisition(asset, &contract, order)
//!     })
//! });
//!
//! answer.unwrap();
//! assert_eq!(changes.meta_info.unwrap().as_str(), r#"{"door":"open"}"#);
//! assert_eq!(services.state().get::<String>("7").unwrap().unwrap(), "ada");
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Asset, Contract, Event, Order, PluginError, Services, User,
    abi::{
        lend,
        services::{HostServices, SharedServices},
        tables::LentAsset,
    },
    data,
};

/// Services with an empty state and no settings; build them with [`FakeServices::build`].
pub fn services() -> FakeServices {
    FakeServices { settings: "{}".to_owned(), folder: ".".to_owned(), fake: Fake::default() }
}

/// Services for a test: see [`services`].
pub struct FakeServices {
    settings: String,
    folder: String,
    fake: Fake,
}

#[derive(Clone, Default)]
struct Fake {
    settings: String,
    folder: String,
    lines: Arc<Mutex<Vec<String>>>,
    state: Arc<Mutex<BTreeMap<String, String>>>,
}

/// The lines that a plugin logged in a test, each as `level: message`.
#[derive(Clone)]
pub struct LogLines(Arc<Mutex<Vec<String>>>);

impl LogLines {
    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FakeServices {
    /// Gives the plugin settings: a JSON document.
    #[must_use]
    pub fn with_settings(mut self, settings: &str) -> Self {
        self.settings = settings.to_owned();
        self
    }

    /// Gives the plugin the folder of an unpacked package; the working folder, which for a test is the crate's, if it is
    /// given none.
    #[must_use]
    pub fn with_package_folder(mut self, folder: &str) -> Self {
        self.folder = folder.to_owned();
        self
    }

    /// What the plugin will log.
    pub fn log_lines(&self) -> LogLines {
        LogLines(Arc::clone(&self.fake.lines))
    }

    /// The services. Clones share the state, so a test can read what the plugin kept.
    pub fn build(self) -> Services {
        Services(SharedServices::new(Arc::new(Fake { settings: self.settings, folder: self.folder, ..self.fake })))
    }
}

impl HostServices for Fake {
    fn plugin_id(&self) -> &str {
        "plugin-under-test"
    }

    fn settings(&self) -> &str {
        &self.settings
    }

    fn package_folder(&self) -> &str {
        &self.folder
    }

    fn log(&self, level: u32, message: &str) {
        let level = ["error", "warn", "info", "debug"].get(level.wrapping_sub(1) as usize).unwrap_or(&"trace");
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{level}: {message}"));
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.get(key).map(|value| value.clone().into_bytes()))
    }

    fn state_keep(&self, key: &str, value: &str) -> Result<(), PluginError> {
        crate::abi::services::check_state_size(key, value)?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn state_delete(&self, key: &str) -> Result<(), PluginError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }
}

/// Lends an asset to a hook. Answers what the hook answered and, as in a host, what it changed: nothing if it refused.
pub fn with_asset<T>(
    asset: &data::Asset,
    hook: impl FnOnce(&mut Asset<'_>) -> Result<T, PluginError>,
) -> (Result<T, PluginError>, data::AssetChanges) {
    let lent = LentAsset::new(asset);
    let answer = hook(&mut lend::asset(&lent));
    let changes = if answer.is_ok() { lent.into_changes() } else { data::AssetChanges::default() };
    (answer, changes)
}

/// Lends a user to a hook.
pub fn with_user<T>(user: &data::User, hook: impl FnOnce(&User<'_>) -> T) -> T {
    hook(&lend::user(user))
}

/// Lends a contract to a hook.
pub fn with_contract<T>(contract: &data::Contract, hook: impl FnOnce(&Contract<'_>) -> T) -> T {
    hook(&lend::contract(contract))
}

/// Lends an order to a hook.
pub fn with_order<T>(order: &data::Order, hook: impl FnOnce(&Order<'_>) -> T) -> T {
    hook(&lend::order(order))
}

/// Lends an event to a hook.
pub fn with_event<T>(event: &data::Event, hook: impl FnOnce(&Event<'_>) -> T) -> T {
    hook(&lend::event(event))
}

/// An asset of a type, provided by `acme`, at `https://acme.example/asset`.
pub fn asset(asset_type: &str) -> data::Asset {
    data::Asset {
        id: "asset-1".to_owned(),
        provider: data::User { username: "acme".to_owned(), ..data::User::default() },
        download_link: Some("https://acme.example/asset".to_owned()),
        url: Some("https://acme.example/asset".to_owned()),
        resource_type: asset_type.to_owned(),
        ..data::Asset::default()
    }
}

/// An order with one contract, `item-1`, for the product `product-1`.
pub fn order(order_id: &str, customer: &str) -> data::Order {
    data::Order {
        order_id: order_id.to_owned(),
        customer: data::User { username: customer.to_owned(), ..data::User::default() },
        date: std::time::SystemTime::UNIX_EPOCH.into(),
        tax_address: crate::Json::default(),
        contracts: vec![data::Contract {
            item_id: "item-1".to_owned(),
            product_id: Some("product-1".to_owned()),
            offering: data::Offering { off_id: "offering-1".to_owned(), ..data::Offering::default() },
            ..data::Contract::default()
        }],
        extra: crate::Json::default(),
    }
}
