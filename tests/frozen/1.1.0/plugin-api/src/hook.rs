//! The names of the hooks, the same wherever a hook is named: records, commands, JSON, logs.

use std::{fmt, str::FromStr};

macro_rules! hooks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A hook of the [`Plugin`](crate::Plugin) trait.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Hook { $($(#[$doc])* $variant,)* }

        impl Hook {
            /// Every hook, in the order of an asset's life; what is about no asset comes last.
            pub const ALL: &'static [Hook] = &[$(Hook::$variant,)*];

            /// The name of the function in the trait.
            pub const fn name(self) -> &'static str {
                match self { $(Hook::$variant => $name,)* }
            }
        }
    };
}

hooks! {
    /// Before the backend validates a product specification.
    OnPreProductSpecValidation = "on_pre_product_spec_validation",
    /// After it validated the specification and saved the asset.
    OnPostProductSpecValidation = "on_post_product_spec_validation",
    /// Before the specification's id is written onto the asset.
    OnPreProductSpecAttachment = "on_pre_product_spec_attachment",
    /// After the specification's id was written onto the asset.
    OnPostProductSpecAttachment = "on_post_product_spec_attachment",
    /// Before a new version of the asset is saved.
    OnPreProductSpecUpgrade = "on_pre_product_spec_upgrade",
    /// After a new version of the asset was saved.
    OnPostProductSpecUpgrade = "on_post_product_spec_upgrade",
    /// Before an offering's pricing model is validated.
    OnPreProductOfferingValidation = "on_pre_product_offering_validation",
    /// After an offering's pricing model was validated.
    OnPostProductOfferingValidation = "on_post_product_offering_validation",
    /// A customer acquired a product with the asset.
    OnProductAcquisition = "on_product_acquisition",
    /// A customer's product was suspended.
    OnProductSuspension = "on_product_suspension",
    /// Which units the plugin can account for.
    GetUsageSpecs = "get_usage_specs",
    /// Usage that was not yet accounted.
    GetPendingAccounting = "get_pending_accounting",
    /// An event that the plugin listens to; about no asset.
    OnEvent = "on_event",
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownHook(String);

impl fmt::Display for UnknownHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no hook {:?}; the hooks are ", self.0)?;
        for (index, hook) in Hook::ALL.iter().enumerate() {
            write!(f, "{}{hook}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownHook {}

impl FromStr for Hook {
    type Err = UnknownHook;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Hook::ALL.iter().find(|hook| hook.name() == name).copied().ok_or_else(|| UnknownHook(name.to_owned()))
    }
}
