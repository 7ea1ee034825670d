//! What happened to a product: every asset of its contract is told, each to its own plugin.

use billhook_plugin_api::{
    Hook,
    call::{HookCall, HookReply},
    data::{Asset, AssetChanges, Contract, Order},
};

use super::{
    Lifecycle,
    bundles::{BundleError, Catalogue, assets_of_offering},
};
use crate::dispatch::{HookError, Target};

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
        let tell = |asset: Asset| {
            let call = match hook {
                Hook::OnProductSuspension => {
                    HookCall::OnProductSuspension { asset: &asset, contract, order: order.into() }
                }
                _ => HookCall::OnProductAcquisition { asset: &asset, contract, order: order.into() },
            };
            let reply = self.dispatcher.call(Target::Type(&asset.resource_type), call);
            let result = reply.map(|reply| reply.map(HookReply::into_changes).unwrap_or_default());
            AssetOutcome { asset, result }
        };
        Ok(assets_of_offering(&contract.offering, catalogue)?.into_iter().map(tell).collect())
    }
}
