//! What happened to a product: every asset of its contract is told, each to its own plugin.

use billhook_plugin_api::{
    Hook,
    data::{Asset, AssetChanges, Contract, Order},
};

use super::{
    Lifecycle,
    bundles::{BundleError, Catalogue, assets_of_offering},
};
use crate::{dispatch::HookError, runtime::Borrowed};

/// What became of one asset.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AssetOutcome {
    /// The asset, as it was before the hook.
    pub asset: Asset,
    /// What the hook changed on it, or its refusal.
    pub result: Result<AssetChanges, HookError>,
}

impl Lifecycle<'_> {
    /// Tells every asset of a contract. One asset's failure neither hides nor stops the others.
    pub(crate) fn notify(
        self,
        hook: Hook,
        order: &Order,
        contract: &Contract,
        catalogue: &dyn Catalogue,
    ) -> Result<Vec<AssetOutcome>, BundleError> {
        let objects = Borrowed { contract: Some(contract), order: Some(order), ..Borrowed::default() };
        let tell = |asset: Asset| {
            let result = self.dispatcher.about(hook, &asset, objects, |plugin| match hook {
                Hook::OnProductSuspension => plugin.on_product_suspension(&asset, contract, order),
                _ => plugin.on_product_acquisition(&asset, contract, order),
            });
            AssetOutcome { asset, result }
        };
        Ok(assets_of_offering(&contract.offering, catalogue)?.into_iter().map(tell).collect())
    }
}
