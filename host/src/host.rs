//! The host: joins packages, registry, runtime and dispatch.

mod error;
mod home;
mod install;
mod watch;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use billhook_plugin_api::{
    Hook, Json, PendingAccounting, PluginError, UsageSpec,
    data::{Asset, AssetChanges, Contract, Offering, Order, User},
};

pub use error::HostError;
pub use install::{Downgrade, Install, Installed};

use crate::{
    dispatch::{Dispatcher, HookAnswer, HookError, HookObjects, Loader},
    lifecycle::{
        AroundError, AssetOutcome, BeginError, BegunOffering, BegunProductSpec, BegunValidation, BundleError,
        Catalogue, ChangedAsset, Done, Lifecycle, ProductSpecValidation,
    },
    package::{self, CheckReport, Limits},
    registry::{PluginDetails, PluginSummary, Registry, RegistryError},
    runtime::{ChildProgram, StateStore},
};
use home::Home;
use watch::Watch;

/// How a host works; the defaults suit most.
#[derive(Debug, Clone)]
pub struct HostOptions {
    child_program: ChildProgram,
    trial_limit: Duration,
    limits: Limits,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            child_program: ChildProgram::default(),
            trial_limit: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

impl HostOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program that packages are tried in, if it isn't this one: the path of a `billhook` command. See
    /// [`run_child_process`](crate::run_child_process).
    #[must_use]
    pub fn child_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.child_program = ChildProgram::At(path.into());
        self
    }

    /// How long a package may take to be loaded, constructed, asked for its usage specifications and dropped when it is
    /// tried; 10 seconds unless set.
    #[must_use]
    pub fn trial_limit(mut self, limit: Duration) -> Self {
        self.trial_limit = limit;
        self
    }

    /// How much of a package is taken.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// A plugin host on a home: a folder that holds packages and registry, and that several processes may share.
///
/// `Host` is `Send + Sync`: share one among all threads. Its functions block; calls from many threads run in parallel. A
/// hook runs on the thread that calls it.
pub struct Host {
    // Dropped first, so that nothing refreshes while the rest goes.
    watch: Watch,
    shared: Arc<Shared>,
    options: HostOptions,
}

/// What the host's own thread shares with it.
struct Shared {
    home: Home,
    registry: Arc<Registry>,
    dispatcher: Dispatcher,
}

impl Shared {
    fn refresh(&self) -> Result<(), RegistryError> {
        self.dispatcher.refresh()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("home", &self.shared.home.path()).finish_non_exhaustive()
    }
}

/// The registry as the place where plugins' state is kept.
struct RegistryState(Arc<Registry>);

impl StateStore for RegistryState {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(self.0.state_get(plugin, key)?)
    }

    fn keep(&self, plugin: &str, key: &str, value: &str) -> Result<(), PluginError> {
        if self.0.state_keep(plugin, key, value)? {
            Ok(())
        } else {
            Err(PluginError::unavailable("the plugin was removed, and its state with it"))
        }
    }

    fn delete(&self, plugin: &str, key: &str) -> Result<(), PluginError> {
        Ok(self.0.state_delete(plugin, key)?)
    }
}

impl Host {
    /// Opens a home, and makes it if there is none. Loads no plugin: the first call of each does.
    ///
    /// What an install that was cut off left behind is cleared away. A thread notices within a second what other processes
    /// install and change. A home is a local folder that only its user can write to, never a network share.
    pub fn open(home: impl AsRef<Path>) -> Result<Self, HostError> {
        Self::open_with(home, HostOptions::default())
    }

    /// Opens a home with other options.
    pub fn open_with(home: impl AsRef<Path>, options: HostOptions) -> Result<Self, HostError> {
        let home = Home::open(home.as_ref())?;
        let registry = Arc::new(Registry::open(home.path())?);
        // A registry that was made just now knows of no package: if there are any, it took the place of a lost one.
        if !registry.is_new() {
            home.sweep(&registry)?;
        }
        let settings = Arc::clone(&registry);
        let dispatcher = Dispatcher::new(
            Arc::clone(&registry),
            Loader {
                packages: home.packages(),
                settings: Box::new(move |id| match settings.settings(id) {
                    Ok(Some(settings)) => Ok(settings),
                    Ok(None) => Err("the plugin was removed".to_owned()),
                    Err(error) => Err(error.to_string()),
                }),
                state: Arc::new(RegistryState(Arc::clone(&registry))),
                libraries: Default::default(),
            },
        );
        let shared = Arc::new(Shared { home, registry, dispatcher });
        shared.refresh()?;
        let watch = Watch::start(Arc::clone(&shared));
        Ok(Host { watch, shared, options })
    }

    /// The home's folder.
    pub fn home(&self) -> &Path {
        self.shared.home.path()
    }

    /// All installed plugins, ordered by id.
    pub fn list(&self) -> Result<Vec<PluginSummary>, HostError> {
        Ok(self.shared.registry.list()?)
    }

    /// Everything about a plugin.
    pub fn show(&self, id: &str) -> Result<PluginDetails, HostError> {
        self.shared.registry.details(id)?.ok_or_else(|| HostError::NotInstalled { id: id.to_owned() })
    }

    /// Checks a package without running its code: a zip, the folder of an unpacked one, or a `package.json` alone.
    pub fn check(path: impl AsRef<Path>, limits: &Limits) -> std::io::Result<CheckReport> {
        package::check(path.as_ref(), limits).map(|checked| CheckReport::from(&checked.examined))
    }

    /// Looks at once for what other processes changed, without waiting for the host's own thread to notice.
    pub fn refresh(&self) -> Result<(), HostError> {
        Ok(self.shared.refresh()?)
    }

    /// How many plugins are loaded into this process.
    pub fn loaded(&self) -> usize {
        self.shared.dispatcher.loaded()
    }

    /// Whether the plugin of an asset type implements a hook; `None` where no plugin has the type.
    pub fn implements(&self, asset_type: &str, hook: Hook) -> Option<bool> {
        self.shared.dispatcher.implements(asset_type, hook)
    }

    /// Calls any hook of a plugin by the plugin's id, with objects in their JSON form.
    pub fn call(&self, id: &str, hook: Hook, objects: &HookObjects) -> Result<HookAnswer, HookError> {
        self.shared.dispatcher.call(id, hook, objects)
    }
}

/// The hooks. Each finds the plugin by the asset's type and calls it on the thread of the caller.
///
/// The answer is what the hook changed on the asset; saving it is the backend's business. A hook that the plugin doesn't
/// implement changes nothing. An asset of a type that no plugin has is refused as invalid.
impl Host {
    /// A product specification with an asset of this type is about to be validated.
    pub fn on_pre_product_spec_validation(
        &self,
        provider: &User,
        asset_t: &str,
        media_type: &str,
        url: &str,
    ) -> Result<(), HookError> {
        self.shared.dispatcher.on_pre_product_spec_validation(provider, asset_t, media_type, url)
    }

    /// The product specification was validated and the asset saved.
    pub fn on_post_product_spec_validation(&self, provider: &User, asset: &Asset) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnPostProductSpecValidation;
        self.shared.dispatcher.about(hook, asset, |plugin| plugin.on_post_product_spec_validation(provider, asset))
    }

    /// The product specification's id is about to be written onto the asset.
    pub fn on_pre_product_spec_attachment(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.shared.dispatcher.about(Hook::OnPreProductSpecAttachment, asset, |plugin| {
            plugin.on_pre_product_spec_attachment(asset, &asset.resource_type, product_spec)
        })
    }

    /// The product specification's id was written onto the asset.
    pub fn on_post_product_spec_attachment(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.shared.dispatcher.about(Hook::OnPostProductSpecAttachment, asset, |plugin| {
            plugin.on_post_product_spec_attachment(asset, &asset.resource_type, product_spec)
        })
    }

    /// A new version of the asset is about to be saved.
    pub fn on_pre_product_spec_upgrade(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.shared.dispatcher.about(Hook::OnPreProductSpecUpgrade, asset, |plugin| {
            plugin.on_pre_product_spec_upgrade(asset, &asset.resource_type, product_spec)
        })
    }

    /// A new version of the asset was saved.
    pub fn on_post_product_spec_upgrade(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.shared.dispatcher.about(Hook::OnPostProductSpecUpgrade, asset, |plugin| {
            plugin.on_post_product_spec_upgrade(asset, &asset.resource_type, product_spec)
        })
    }

    /// An offering with the asset is about to be validated.
    pub fn on_pre_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.shared.dispatcher.about(Hook::OnPreProductOfferingValidation, asset, |plugin| {
            plugin.on_pre_product_offering_validation(asset, product_offering)
        })
    }

    /// An offering with the asset was validated.
    pub fn on_post_product_offering_validation(
        &self,
        asset: &Asset,
        product_offering: &Json<'_>,
    ) -> Result<AssetChanges, HookError> {
        self.shared.dispatcher.about(Hook::OnPostProductOfferingValidation, asset, |plugin| {
            plugin.on_post_product_offering_validation(asset, product_offering)
        })
    }

    /// A customer acquired a product with the asset.
    pub fn on_product_acquisition(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnProductAcquisition;
        self.shared.dispatcher.about(hook, asset, |plugin| plugin.on_product_acquisition(asset, contract, order))
    }

    /// A customer's product was suspended.
    pub fn on_product_suspension(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnProductSuspension;
        self.shared.dispatcher.about(hook, asset, |plugin| plugin.on_product_suspension(asset, contract, order))
    }

    /// The units that the plugin of an asset type can account for.
    pub fn get_usage_specs(&self, asset_type: &str) -> Result<Vec<UsageSpec>, HookError> {
        self.shared.dispatcher.get_usage_specs(asset_type)
    }

    /// Usage of a contract that was not yet accounted, and what the hook changed on the asset.
    pub fn get_pending_accounting(
        &self,
        asset: &Asset,
        contract: &Contract,
        order: &Order,
    ) -> Result<(PendingAccounting, AssetChanges), HookError> {
        let hook = Hook::GetPendingAccounting;
        self.shared.dispatcher.about(hook, asset, |plugin| plugin.get_pending_accounting(asset, contract, order))
    }
}

/// The life-cycle functions that a backend calls: a pre hook, the backend's own work, a post hook.
///
/// The pre hook refuses: the work never runs. The work fails: no post hook runs. The post hook refuses: the caller gets the
/// refusal and what the work returned, so that it can undo exactly what it did. Every asset gets its own plugin's hooks.
impl Host {
    fn lifecycle(&self) -> Lifecycle<'_> {
        Lifecycle { dispatcher: &self.shared.dispatcher, registry: &self.shared.registry }
    }

    /// Begins the validation of a new asset: refuses a format, a media type or an incomplete form that the manifest doesn't
    /// allow, and runs the pre hook.
    pub fn begin_product_spec_validation(
        &self,
        new: &ProductSpecValidation<'_>,
    ) -> Result<BegunValidation<'_>, BeginError> {
        self.lifecycle().begin_product_spec_validation(new)
    }

    /// Runs the validation of a new asset around the backend's own. The work gets the `meta_info` that the asset is to have,
    /// the form's defaults included; it answers what it did, and the asset that it found or created.
    pub fn product_spec_validation<T, E>(
        &self,
        new: &ProductSpecValidation<'_>,
        work: impl FnOnce(&Json<'static>) -> Result<(T, Asset), E>,
    ) -> Result<Done<T>, AroundError<T, E>> {
        let begun = self.begin_product_spec_validation(new)?;
        let (result, asset) = work(begun.meta_info()).map_err(AroundError::Work)?;
        done(result, begun.finish(&asset))
    }

    /// Begins to attach an asset to a product specification. A bundle has no hooks of its own.
    pub fn begin_product_spec_attachment<'a>(
        &'a self,
        asset: &Asset,
        product_spec: &'a Json<'a>,
        catalogue: &dyn Catalogue,
    ) -> Result<BegunProductSpec<'a>, BeginError> {
        self.lifecycle().begin_product_spec(Hook::OnPreProductSpecAttachment, asset, product_spec, catalogue)
    }

    /// Attaches an asset to a product specification. The work saves what the pre hook changed, and the product's id; it
    /// answers what it did, and the asset as it is then. The asset is in use from then on; see [`Host::release_asset`].
    pub fn product_spec_attachment<T, E>(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
        catalogue: &dyn Catalogue,
        work: impl FnOnce(&AssetChanges) -> Result<(T, Asset), E>,
    ) -> Result<Done<T>, AroundError<T, E>> {
        let begun = self.begin_product_spec_attachment(asset, product_spec, catalogue)?;
        let (result, asset) = work(begun.changes()).map_err(AroundError::Work)?;
        done(result, begun.finish(&asset))
    }

    /// Begins to upgrade an asset to a new version. A bundle has no hooks of its own.
    pub fn begin_product_spec_upgrade<'a>(
        &'a self,
        asset: &Asset,
        product_spec: &'a Json<'a>,
        catalogue: &dyn Catalogue,
    ) -> Result<BegunProductSpec<'a>, BeginError> {
        self.lifecycle().begin_product_spec(Hook::OnPreProductSpecUpgrade, asset, product_spec, catalogue)
    }

    /// Upgrades an asset to a new version. The work saves it; it answers what it did, and the asset as it is then.
    pub fn product_spec_upgrade<T, E>(
        &self,
        asset: &Asset,
        product_spec: &Json<'_>,
        catalogue: &dyn Catalogue,
        work: impl FnOnce(&AssetChanges) -> Result<(T, Asset), E>,
    ) -> Result<Done<T>, AroundError<T, E>> {
        let begun = self.begin_product_spec_upgrade(asset, product_spec, catalogue)?;
        let (result, asset) = work(begun.changes()).map_err(AroundError::Work)?;
        done(result, begun.finish(&asset))
    }

    /// Begins the validation of an offering: runs the pre hook of each of its assets, bundles expanded.
    pub fn begin_product_offering_validation<'a>(
        &'a self,
        offering: &Offering,
        product_offering: &'a Json<'a>,
        catalogue: &dyn Catalogue,
    ) -> Result<BegunOffering<'a>, BeginError> {
        self.lifecycle().begin_product_offering_validation(offering, product_offering, catalogue)
    }

    /// Runs the validation of an offering around the backend's own, on creation and on update alike. The work gets the
    /// assets with what the pre hooks changed.
    pub fn product_offering_validation<T, E>(
        &self,
        offering: &Offering,
        product_offering: &Json<'_>,
        catalogue: &dyn Catalogue,
        work: impl FnOnce(&[ChangedAsset]) -> Result<T, E>,
    ) -> Result<Done<T, Vec<ChangedAsset>>, AroundError<T, E>> {
        let begun = self.begin_product_offering_validation(offering, product_offering, catalogue)?;
        let result = work(begun.assets()).map_err(AroundError::Work)?;
        done(result, begun.finish())
    }

    /// A customer paid: tells every asset of the contract's offering, bundles expanded. Answers per asset; one failure
    /// neither hides nor stops the others.
    pub fn product_acquired(
        &self,
        order: &Order,
        contract: &Contract,
        catalogue: &dyn Catalogue,
    ) -> Result<Vec<AssetOutcome>, BundleError> {
        self.lifecycle().notify(Hook::OnProductAcquisition, order, contract, catalogue)
    }

    /// A customer didn't pay: as [`Host::product_acquired`].
    pub fn product_suspended(
        &self,
        order: &Order,
        contract: &Contract,
        catalogue: &dyn Catalogue,
    ) -> Result<Vec<AssetOutcome>, BundleError> {
        self.lifecycle().notify(Hook::OnProductSuspension, order, contract, catalogue)
    }

    /// The backend deleted an asset, or detached it from its product: its plugin may be removed. Answers whether it was in use.
    pub fn release_asset(&self, asset: &str) -> Result<bool, HostError> {
        Ok(self.shared.registry.release_asset(asset)?)
    }
}

/// What an around-function answers when its work is done.
fn done<T, C, E>(result: T, finished: Result<C, HookError>) -> Result<Done<T, C>, AroundError<T, E>> {
    match finished {
        Ok(changes) => Ok(Done { result, changes }),
        Err(refusal) => Err(AroundError::RefusedAfter { refusal, result }),
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.watch.stop();
    }
}
