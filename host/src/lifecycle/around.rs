//! Pairs of hooks around the backend's own work.

use billhook_plugin_api::{
    Hook, Json,
    data::{Asset, AssetChanges, Offering, User},
};

use super::{
    Lifecycle,
    bundles::{BundleError, Catalogue, assets_of_asset, assets_of_offering},
    form,
};
use crate::{
    dispatch::{Dispatcher, HookError},
    ledger::Record,
    package::Format,
    runtime::Borrowed,
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
        let AssetChanges { meta_info, content_type, download_link, .. } = changes;
        self.changes.meta_info = meta_info.or(self.changes.meta_info.take());
        self.changes.content_type = content_type.or(self.changes.content_type.take());
        self.changes.download_link = download_link.or(self.changes.download_link.take());
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
    records: Vec<Record>,
}

impl BegunValidation<'_> {
    /// What the asset's `meta_info` is to be: what the seller gave, and the form's defaults.
    pub fn meta_info(&self) -> &Json<'static> {
        &self.meta_info
    }

    /// Runs the post hook for the asset that the work found or created. Answers what is to be saved on it.
    pub fn finish(self, asset: &Asset) -> Result<AssetChanges, HookError> {
        let hook = Hook::OnPostProductSpecValidation;
        let objects = Borrowed { provider: Some(&self.provider), ..Borrowed::default() };
        let dispatcher = self.lifecycle.dispatcher;
        let (changes, after) = dispatcher.about_in_pair(hook, asset, objects, |plugin| {
            plugin.on_post_product_spec_validation(&self.provider, asset)
        })?;
        tell(dispatcher, hook, self.records, after).map_err(|error| error.about(&asset.id))?;
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
    records: Vec<Record>,
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
        let Lifecycle { dispatcher, registry } = self.lifecycle;
        let (kind, spec) = (asset.resource_type.as_str(), self.product_spec);
        let objects = Borrowed { product_spec: Some(spec), ..Borrowed::default() };
        let is_upgrade = self.post == Hook::OnPostProductSpecUpgrade;
        let (changes, after) = dispatcher.about_in_pair(self.post, asset, objects, |plugin| {
            if is_upgrade {
                plugin.on_post_product_spec_upgrade(asset, kind, spec)
            } else {
                plugin.on_post_product_spec_attachment(asset, kind, spec)
            }
        })?;
        if is_upgrade {
            tell(dispatcher, self.post, self.records, after).map_err(|error| error.about(&asset.id))?;
            return Ok(changes);
        }
        let recorded = dispatcher.plugin_of(self.post, kind).and_then(|plugin| {
            let failed = |error| format!("the asset can't be recorded as in use: {error}");
            registry
                .use_asset(&plugin, &asset.id)
                .map_err(|error| HookError::internal(self.post, &plugin, failed(error)))
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
    records: Vec<Record>,
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
        for changed in &mut self.assets {
            let (asset, offering) = (&changed.asset, self.product_offering);
            let objects = Borrowed { product_offering: Some(offering), ..Borrowed::default() };
            let post = |plugin: &crate::runtime::Plugin| plugin.on_post_product_offering_validation(asset, offering);
            let (changes, after) = dispatcher.about_in_pair(hook, asset, objects, post)?;
            changed.add(changes);
            records.extend(after);
        }
        dispatcher.tell(hook, records)?;
        Ok(self.assets)
    }
}

/// Records what the listeners of both hooks of a pair are told.
fn tell(dispatcher: &Dispatcher, post: Hook, mut records: Vec<Record>, after: Vec<Record>) -> Result<(), HookError> {
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
        let meta_info = form::fill(&manifest, new.meta_info).map_err(|problem| match problem {
            form::Problem::NoObject => {
                HookError::bad_value(hook, &id, "the asset's meta_info has to be an object".to_owned())
            }
            form::Problem::Missing(problem) => HookError::invalid(hook, &id, problem),
        })?;
        let ((), records) =
            self.dispatcher.on_pre_product_spec_validation(new.provider, new.asset_t, new.media_type, new.url)?;
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
            let kind = asset.resource_type.as_str();
            let objects = Borrowed { product_spec: Some(product_spec), ..Borrowed::default() };
            (changes, records) = self.dispatcher.about_in_pair(pre, asset, objects, |plugin| {
                if is_attachment {
                    plugin.on_pre_product_spec_attachment(asset, kind, product_spec)
                } else {
                    plugin.on_pre_product_spec_upgrade(asset, kind, product_spec)
                }
            })?;
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
        let hook = Hook::OnPreProductOfferingValidation;
        for asset in assets_of_offering(offering, catalogue)? {
            let objects = Borrowed { product_offering: Some(product_offering), ..Borrowed::default() };
            let (changes, after) = self.dispatcher.about_in_pair(hook, &asset, objects, |plugin| {
                plugin.on_pre_product_offering_validation(&asset, product_offering)
            })?;
            records.extend(after);
            let mut changed = ChangedAsset { asset, changes: AssetChanges::default() };
            changed.add(changes);
            assets.push(changed);
        }
        Ok(BegunOffering { lifecycle: self, product_offering, assets, records })
    }
}
