//! What a backend calls in the life of an asset.

use billhook_plugin_api::{
    Hook, Json,
    data::{Asset, AssetChanges, Contract, Offering, Order},
};

use super::{Background, Host, HostError, RECONCILE_INTERVAL};
use crate::{
    accounting::{Reconciled, Scope, UsageError, UsageRefreshed},
    dispatch::HookError,
    lifecycle::{
        AroundError, AssetOutcome, BeginError, BegunOffering, BegunProductSpec, BegunValidation, BundleError,
        Catalogue, ChangedAsset, Done, Lifecycle, ProductSpecValidation,
    },
};
use std::sync::{Arc, PoisonError};

/// The life-cycle functions that a backend calls: a pre hook, the backend's own work, a post hook.
///
/// The pre hook refuses: the work never runs. The work fails: no post hook runs. The post hook refuses: the caller gets the
/// refusal and what the work returned, so that it can undo exactly what it did. Every asset gets its own plugin's hooks.
impl Host {
    fn lifecycle(&self) -> Lifecycle<'_> {
        Lifecycle { dispatcher: &self.shared.dispatcher, plugins: &*self.shared.stores.plugins }
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

    /// Before a customer is charged: asks the plugin of every asset of the contract's offering, bundles expanded, for usage that
    /// is pending, records it, and makes usage documents of it in the usage API. Answers per asset; one failure neither hides
    /// nor stops the others.
    ///
    /// Every record becomes one guided document, whatever is cut off: what was not sent is sent by the next refresh of the same
    /// contract, or by [`Host::reconcile`]. Only one refresh of a contract runs at a time, in all processes.
    pub fn usage_refreshed(
        &self,
        order: &Order,
        contract: &Contract,
        catalogue: &dyn Catalogue,
    ) -> Result<UsageRefreshed, UsageError> {
        self.shared.accounting.refresh(&self.shared.dispatcher, order, contract, catalogue)
    }

    /// Brings the usage API up to date: makes and deletes the usage specifications that are pending, and sends usage that was
    /// left unsent. One failure doesn't stop the others.
    pub fn reconcile(&self) -> Result<Reconciled, UsageError> {
        self.shared.accounting.reconcile(Scope::All)
    }

    /// Starts a thread that does what [`Host::reconcile`] does, each time that something is pending, and tries again what
    /// failed: after a second at first, and later every five minutes. Starting it twice starts it once.
    pub fn start_reconciler(&self) -> Result<(), UsageError> {
        if self.options.usage_api.is_none() {
            return Err(UsageError::NoUsageApi);
        }
        let shared = Arc::clone(&self.shared);
        let mut reconciler = self.reconciler.lock().unwrap_or_else(PoisonError::into_inner);
        if reconciler.is_none() {
            let thread = Background::start("billhook-reconciler", RECONCILE_INTERVAL, move || {
                if let Err(error) = shared.accounting.reconcile(Scope::Due) {
                    tracing::warn!("the usage API can't be brought up to date: {error}");
                }
            });
            *reconciler = Some(thread.map_err(UsageError::Thread)?);
        }
        Ok(())
    }

    /// The backend attached an asset of a type to a product: the type's plugin isn't removed as long as it has such assets.
    /// The around-functions do this by themselves. Answers whether any plugin has the type.
    pub fn use_asset(&self, asset: &str, asset_type: &str) -> Result<bool, HostError> {
        let Ok(plugin) = self.shared.dispatcher.plugin_of(Hook::OnPostProductSpecAttachment, asset_type) else {
            return Ok(false);
        };
        Ok(self.shared.stores.plugins.use_asset(&plugin, asset)?)
    }

    /// The backend deleted an asset, or detached it from its product: its plugin may be removed. Answers whether it was in use.
    pub fn release_asset(&self, asset: &str) -> Result<bool, HostError> {
        Ok(self.shared.stores.plugins.release_asset(asset)?)
    }
}

/// What an around-function answers when its work is done.
fn done<T, C, E>(result: T, finished: Result<C, HookError>) -> Result<Done<T, C>, AroundError<T, E>> {
    match finished {
        Ok(changes) => Ok(Done { result, changes }),
        Err(refusal) => Err(AroundError::RefusedAfter { refusal, result }),
    }
}
