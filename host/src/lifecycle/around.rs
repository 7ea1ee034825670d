//! Pairs of hooks around the backend's own work.

use billhook_plugin_api::{
    Hook, Json,
    call::{HookCall, HookReply},
    data::{Asset, AssetChanges, Offering, User},
};

use billhook_machine::disk::DiskTrouble;
use billhook_model::text::with_causes;
use billhook_store::EventRecord;

use super::{
    Lifecycle,
    bundles::{BundleError, Catalogue, assets_of_asset, assets_of_offering},
};
use crate::{
    dispatch::{Dispatcher, HookError, Returned, Target},
    package::{Format, form},
};

/// Why nothing was begun: no hook of the pair that follows will run, and the work must not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The pre hook refused, or the manifest doesn't allow the asset.
    #[error(transparent)]
    Refused(#[from] HookError),
    /// Which assets it is about can't be told.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Why an around-function didn't go through. `T` is what the backend's work returns, `E` its error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AroundError<T, E> {
    /// Nothing was begun: the work did not run.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The work failed: no post hook ran.
    #[error("the backend's own work failed: {0}")]
    Work(E),
    /// The work was done, and the post hook refused: the backend undoes what `result` says that it did, and no more.
    #[error("{refusal}")]
    RefusedAfter {
        /// The refusal.
        refusal: HookError,
        /// What the work returned.
        result: T,
    },
}

/// What went through: what the work returned, and what is left to save.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done<T, C = AssetChanges> {
    /// What the work returned.
    pub result: T,
    /// What the post hook changed: save it.
    pub changes: C,
}

/// An asset with the changes that hooks made to it so far, and those changes alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangedAsset {
    /// The asset with its changes.
    pub asset: Asset,
    /// The changes: save them.
    pub changes: AssetChanges,
}

impl ChangedAsset {
    fn add(&mut self, changes: AssetChanges) {
        changes.clone().apply(&mut self.asset);
        self.changes.add(changes);
    }
}

/// A new asset, about to be validated.
#[derive(Debug, Clone, Copy)]
pub struct ProductSpecValidation<'a> {
    /// Who sells it.
    pub provider: &'a User,
    /// Its type.
    pub asset_t: &'a str,
    /// How it is provided.
    pub format: Format,
    /// Its media type.
    pub media_type: &'a str,
    /// Where it is.
    pub url: &'a str,
    /// What the seller filled into the form: an object.
    pub meta_info: &'a Json<'a>,
}

/// A validation whose pre hook went through.
#[must_use = "a token that is dropped runs no post hook"]
pub struct BegunValidation<'a> {
    lifecycle: Lifecycle<'a>,
    provider: User,
    meta_info: Json<'static>,
    /// What the pre hook's listeners are told when the whole pair went through.
    records: Vec<EventRecord>,
}

impl BegunValidation<'_> {
    /// What the asset's `meta_info` is to be: what the seller gave, and the form's defaults.
    pub fn meta_info(&self) -> &Json<'static> {
        &self.meta_info
    }

    /// Runs the post hook for the asset that the work found or created. Answers what is to be saved on it.
    pub fn finish(self, asset: &Asset) -> Result<AssetChanges, HookError> {
        let call = HookCall::OnPostProductSpecValidation { provider: &self.provider, asset };
        let dispatcher = self.lifecycle.dispatcher;
        let (changes, after) = changed(dispatcher, asset, call)?;
        tell(dispatcher, call.hook(), self.records, after).map_err(|error| error.about(&asset.id))?;
        Ok(changes)
    }
}

/// An attachment or an upgrade whose pre hook went through.
#[must_use = "a token that is dropped runs no post hook"]
pub struct BegunProductSpec<'a> {
    lifecycle: Lifecycle<'a>,
    post: Hook,
    /// A bundle has no hooks of its own.
    is_bundle: bool,
    product_spec: &'a Json<'a>,
    changes: AssetChanges,
    /// What the pre hook's listeners are told when the whole pair went through.
    records: Vec<EventRecord>,
}

impl BegunProductSpec<'_> {
    /// What the pre hook changed: the work saves it with its own.
    pub fn changes(&self) -> &AssetChanges {
        &self.changes
    }

    /// Runs the post hook for the asset as the work left it. Answers what is to be saved on it.
    pub fn finish(self, asset: &Asset) -> Result<AssetChanges, HookError> {
        if self.is_bundle {
            return Ok(AssetChanges::default());
        }
        let Lifecycle { dispatcher, plugins } = self.lifecycle;
        let (kind, product_spec) = (asset.resource_type.as_str(), self.product_spec);
        let is_upgrade = self.post == Hook::OnPostProductSpecUpgrade;
        let call = if is_upgrade {
            HookCall::OnPostProductSpecUpgrade { asset, asset_t: kind, product_spec }
        } else {
            HookCall::OnPostProductSpecAttachment { asset, asset_t: kind, product_spec }
        };
        let (changes, after) = changed(dispatcher, asset, call)?;
        if is_upgrade {
            tell(dispatcher, self.post, self.records, after).map_err(|error| error.about(&asset.id))?;
            return Ok(changes);
        }
        let recorded = dispatcher.plugin_of(self.post, kind).and_then(|plugin| {
            let recorded = plugins.use_asset(&plugin, &asset.id).map_err(|error| {
                let message = format!("the asset can't be recorded as in use: {}", with_causes(&error));
                HookError::internal(self.post, &plugin, message).of_disk(DiskTrouble::of(&error))
            })?;
            if recorded { Ok(()) } else { Err(HookError::not_installed(self.post, &plugin)) }
        });
        recorded
            .and_then(|()| tell(dispatcher, self.post, self.records, after))
            .map_err(|error| error.about(&asset.id))?;
        Ok(changes)
    }
}

/// The validation of an offering whose pre hooks went through.
#[must_use = "a token that is dropped runs no post hook"]
pub struct BegunOffering<'a> {
    lifecycle: Lifecycle<'a>,
    product_offering: &'a Json<'a>,
    assets: Vec<ChangedAsset>,
    /// What the pre hooks' listeners are told when all pairs went through.
    records: Vec<EventRecord>,
}

impl BegunOffering<'_> {
    /// The assets of the offering, with what the pre hooks changed.
    pub fn assets(&self) -> &[ChangedAsset] {
        &self.assets
    }

    /// Runs the post hook of each asset's own plugin. Answers the assets with all changes.
    pub fn finish(mut self) -> Result<Vec<ChangedAsset>, HookError> {
        let hook = Hook::OnPostProductOfferingValidation;
        let dispatcher = self.lifecycle.dispatcher;
        let mut records = std::mem::take(&mut self.records);
        for begun in &mut self.assets {
            let (asset, product_offering) = (&begun.asset, self.product_offering);
            let call = HookCall::OnPostProductOfferingValidation { asset, product_offering };
            let (changes, after) = changed(dispatcher, asset, call)?;
            begun.add(changes);
            records.extend(after);
        }
        dispatcher.tell(hook, records)?;
        Ok(self.assets)
    }
}

/// Calls a hook of a pair about an asset. Returns what it changed, and what its listeners are to be told.
fn changed(
    dispatcher: &Dispatcher,
    asset: &Asset,
    call: HookCall<'_>,
) -> Result<(AssetChanges, Vec<EventRecord>), HookError> {
    let Returned { reply, records } = dispatcher.call_in_pair(Target::Type(&asset.resource_type), call)?;
    Ok((reply.map(HookReply::into_changes).unwrap_or_default(), records))
}

/// Records what the listeners of both hooks of a pair are told.
fn tell(
    dispatcher: &Dispatcher,
    post: Hook,
    mut records: Vec<EventRecord>,
    after: Vec<EventRecord>,
) -> Result<(), HookError> {
    records.extend(after);
    dispatcher.tell(post, records)
}

impl<'a> Lifecycle<'a> {
    pub(crate) fn begin_product_spec_validation(
        self,
        new: &ProductSpecValidation<'_>,
    ) -> Result<BegunValidation<'a>, BeginError> {
        let hook = Hook::OnPreProductSpecValidation;
        let manifest = self.dispatcher.manifest_of(hook, new.asset_t)?;
        let id = manifest.id();
        form::check_asset(&manifest, new.format, new.media_type)
            .map_err(|problem| HookError::invalid(hook, &id, problem))?;
        let meta_info = form::fill(&manifest, new.meta_info);
        let meta_info = meta_info.map_err(|problem| HookError::of_form(hook, &id, problem))?;
        let ProductSpecValidation { provider, asset_t, media_type, url, .. } = *new;
        let call = HookCall::OnPreProductSpecValidation { provider, asset_t, media_type, url };
        let Returned { records, .. } = self.dispatcher.call_in_pair(Target::Type(asset_t), call)?;
        Ok(BegunValidation { lifecycle: self, provider: new.provider.clone(), meta_info, records })
    }

    pub(crate) fn begin_product_spec(
        self,
        pre: Hook,
        asset: &Asset,
        product_spec: &'a Json<'a>,
        catalogue: &dyn Catalogue,
    ) -> Result<BegunProductSpec<'a>, BeginError> {
        let is_attachment = pre == Hook::OnPreProductSpecAttachment;
        let post = if is_attachment { Hook::OnPostProductSpecAttachment } else { Hook::OnPostProductSpecUpgrade };
        // An asset that is no bundle stands for itself, and for nothing else.
        let stands_for = assets_of_asset(asset, catalogue)?;
        let is_bundle = !matches!(stands_for.as_slice(), [own] if own.id == asset.id);
        let (mut changes, mut records) = (AssetChanges::default(), Vec::new());
        if !is_bundle {
            let asset_t = asset.resource_type.as_str();
            let call = if is_attachment {
                HookCall::OnPreProductSpecAttachment { asset, asset_t, product_spec }
            } else {
                HookCall::OnPreProductSpecUpgrade { asset, asset_t, product_spec }
            };
            (changes, records) = changed(self.dispatcher, asset, call)?;
        }
        Ok(BegunProductSpec { lifecycle: self, post, is_bundle, product_spec, changes, records })
    }

    pub(crate) fn begin_product_offering_validation(
        self,
        offering: &Offering,
        product_offering: &'a Json<'a>,
        catalogue: &dyn Catalogue,
    ) -> Result<BegunOffering<'a>, BeginError> {
        let (mut assets, mut records) = (Vec::new(), Vec::new());
        for asset in assets_of_offering(offering, catalogue)? {
            let call = HookCall::OnPreProductOfferingValidation { asset: &asset, product_offering };
            let (changes, after) = changed(self.dispatcher, &asset, call)?;
            records.extend(after);
            let mut begun = ChangedAsset { asset, changes: AssetChanges::default() };
            begun.add(changes);
            assets.push(begun);
        }
        Ok(BegunOffering { lifecycle: self, product_offering, assets, records })
    }
}
