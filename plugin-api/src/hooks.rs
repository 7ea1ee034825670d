//! The hooks, each declared once.
//!
//! [`for_each_hook!`] hands the list to another macro. From it follow the trait [`Plugin`](crate::Plugin), the enum
//! [`Hook`](crate::Hook), the table and the functions of the ABI, and the values [`HookCall`](crate::call::HookCall) and
//! [`HookReply`](crate::call::HookReply), which a host carries and writes on the wire.
//!
//! An entry reads: documentation, variant of `Hook`, name of the hook, function of the trait, type of the function in the
//! ABI's table, objects that the hook takes, and what it returns. Entries stand in groups, by their trait and by the version of
//! the API that brought them. To add a hook, append an entry to the last group, or a group: the table of the ABI only grows at
//! its end, and that of 1.0 ends where `last_prefix_field` says so.
//!
//! | object | in the trait | | returned | in the trait |
//! | --- | --- | --- | --- | --- |
//! | `User` | `&User` | | `Done` | `()` |
//! | `Asset` | `&mut Asset` | | `Changes` | `()`; what the hook changed on its asset |
//! | `AssetType`, `Text` | `&str` | | `Specifications` | `Vec<UsageSpec>` |
//! | `Document` | `&Json` | | `Usage` | `PendingAccounting` |
//! | `Contract` | `&Contract` | | `Resource` | `Provisioned` |
//! | `Order` | `&Order` | | `Configuration` | `Option<AddonConfig>` |
//! | `Event` | `&Event` | | `Secrets` | `Credentials` |
//! | `Request` | `&AddonRequest` | | `Location` | `String` |
//! | `Login` | `&SingleSignOn` | | | |

/// Calls a macro with the list of all hooks.
macro_rules! for_each_hook {
    ($then:ident) => {
        $then! {
            Plugin since "1.0" {
                /// A product specification with an asset of this type is about to be validated; the asset isn't saved yet.
                /// Check the asset's format, or whether the seller may sell it.
                OnPreProductSpecValidation, on_pre_product_spec_validation = on_pre_product_spec_validation:
                    ValidationHook(provider: User, asset_t: AssetType, media_type: Text, url: Text) -> Done;
                /// The product specification was validated and the asset saved.
                OnPostProductSpecValidation, on_post_product_spec_validation = on_post_product_spec_validation:
                    ProviderHook(provider: User, asset: Asset) -> Changes;
                /// The catalogue has the product specification; its id is about to be written onto the asset.
                OnPreProductSpecAttachment, on_pre_product_spec_attachment = on_pre_product_spec_attachment:
                    ProductSpecHook(asset: Asset, asset_t: AssetType, product_spec: Document) -> Changes;
                /// The product specification's id was written onto the asset.
                OnPostProductSpecAttachment, on_post_product_spec_attachment = on_post_product_spec_attachment:
                    ProductSpecHook(asset: Asset, asset_t: AssetType, product_spec: Document) -> Changes;
                /// A new version of the asset was provided and is about to be saved.
                OnPreProductSpecUpgrade, on_pre_product_spec_upgrade = on_pre_product_spec_upgrade:
                    ProductSpecHook(asset: Asset, asset_t: AssetType, product_spec: Document) -> Changes;
                /// A new version of the asset was saved.
                OnPostProductSpecUpgrade, on_post_product_spec_upgrade = on_post_product_spec_upgrade:
                    ProductSpecHook(asset: Asset, asset_t: AssetType, product_spec: Document) -> Changes;
                /// An offering with the asset is about to be validated. Check its pricing model, for example whether the
                /// plugin can account for its units.
                OnPreProductOfferingValidation, on_pre_product_offering_validation = on_pre_product_offering_validation:
                    OfferingHook(asset: Asset, product_offering: Document) -> Changes;
                /// An offering with the asset was validated.
                OnPostProductOfferingValidation, on_post_product_offering_validation = on_post_product_offering_validation:
                    OfferingHook(asset: Asset, product_offering: Document) -> Changes;
                /// A customer acquired a product with the asset: activate the service and give access.
                OnProductAcquisition, on_product_acquisition = on_product_acquisition:
                    OrderHook(asset: Asset, contract: Contract, order: Order) -> Changes;
                /// A customer's product was suspended, for example for want of payment: withdraw access.
                OnProductSuspension, on_product_suspension = on_product_suspension:
                    OrderHook(asset: Asset, contract: Contract, order: Order) -> Changes;
                /// The units that the plugin can account for, each with a name and a description. Implement it if and only
                /// if `package.json` says `"pull_accounting": true`.
                GetUsageSpecs, get_usage_specs = get_usage_specs: BareHook() -> Specifications;
                /// Usage of a contract since its `last_usage`, read from the service. Implement it if and only if
                /// `package.json` says `"pull_accounting": true`.
                #[sabi(last_prefix_field)]
                GetPendingAccounting, get_pending_accounting = get_pending_accounting:
                    OrderHook(asset: Asset, contract: Contract, order: Order) -> Usage;
            }
            Plugin since "1.1" {
                /// An event happened that `package.json` lists under `events`. It is delivered at least once, and in the
                /// order of its object's events: [`Event::id`](crate::Event::id) tells a repetition. *Unavailable* and
                /// *internal* errors ask for another attempt, after the time that the error names; any other error is
                /// final. Since API 1.1.
                OnEvent, on_event = on_event: EventHook(event: Event) -> Done;
            }
            AddonProvisioning since "1.2" {
                /// A customer added the add-on: make a resource.
                AddonCreate, addon_create = create: AddonCreateHook(addon_request: Request) -> Resource;
                /// The customer chose another plan.
                AddonUpdate, addon_update = update: AddonUpdateHook(resource: Text, addon_request: Request) -> Configuration;
                /// The customer removed the add-on: the resource goes.
                AddonDelete, addon_delete = delete: AddonDeleteHook(resource: Text) -> Done;
                /// What the platform proves itself with.
                AddonCredentials, addon_credentials = credentials: BareHook() -> Secrets;
                /// Somebody wants to see their resource.
                AddonSingleSignOn, addon_single_sign_on = single_sign_on:
                    AddonSignOnHook(resource: Text, login: Login) -> Location;
            }
        }
    };
}

pub(crate) use for_each_hook;
