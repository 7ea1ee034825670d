//! Which assets an offering is about: bundles are replaced by what they bundle, at any depth.

use std::collections::HashSet;

use billhook_plugin_api::data::{Asset, Offering};

/// What a backend answers about its assets and offerings. The host asks while it runs one of its life-cycle functions, on the
/// thread that called it.
///
/// ```
/// use billhook::{Catalogue, CatalogueError, data::{Asset, Offering}};
///
/// /// A backend that keeps its bundles in memory.
/// struct Shop { starter_pack: Vec<Offering> }
///
/// impl Catalogue for Shop {
///     fn bundled_offerings(&self, offering: &Offering) -> Result<Vec<Offering>, CatalogueError> {
///         Ok(if offering.off_id == "starter-pack" { self.starter_pack.clone() } else { Vec::new() })
///     }
/// }
/// ```
pub trait Catalogue {
    /// The assets that an asset bundles; none if it bundles none.
    fn bundled_assets(&self, asset: &Asset) -> Result<Vec<Asset>, CatalogueError> {
        let _ = asset;
        Ok(Vec::new())
    }

    /// The offerings that an offering bundles; none if it bundles none.
    fn bundled_offerings(&self, offering: &Offering) -> Result<Vec<Offering>, CatalogueError> {
        let _ = offering;
        Ok(Vec::new())
    }
}

/// A backend without bundles.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBundles;

impl Catalogue for NoBundles {}

/// Why a backend couldn't answer.
pub type CatalogueError = Box<dyn std::error::Error + Send + Sync>;

/// Why an offering's assets can't be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A bundle holds itself.
    #[error("the bundle {} holds itself: {}", .0.first().map(String::as_str).unwrap_or_default(), .0.join(" → "))]
    Cycle(Vec<String>),
    /// The backend couldn't answer.
    #[error("the backend can't tell what is bundled: {0}")]
    Catalogue(#[source] CatalogueError),
}

/// The assets of an offering, each once, in the order in which they were found.
pub(crate) fn assets_of_offering(offering: &Offering, catalogue: &dyn Catalogue) -> Result<Vec<Asset>, BundleError> {
    expand(Step::Offering(offering.clone()), catalogue)
}

/// The assets that an asset stands for: itself, or those that it bundles.
pub(super) fn assets_of_asset(asset: &Asset, catalogue: &dyn Catalogue) -> Result<Vec<Asset>, BundleError> {
    expand(Step::Asset(asset.clone()), catalogue)
}

/// What is still to be looked at. A list of our own and not the call stack, so that no depth is too deep.
enum Step {
    Offering(Offering),
    Asset(Asset),
    /// All of the innermost bundle was looked at.
    Leave,
}

fn expand(first: Step, catalogue: &dyn Catalogue) -> Result<Vec<Asset>, BundleError> {
    let mut assets: Vec<Asset> = Vec::new();
    // What was looked at already adds nothing a second time, however many bundles share it.
    let mut known: HashSet<String> = HashSet::new();
    let mut steps = vec![first];
    // The bundles that the present step is in, outermost first.
    let mut inside: Vec<String> = Vec::new();
    while let Some(step) = steps.pop() {
        let (bundle, parts) = match step {
            Step::Leave => {
                inside.pop();
                continue;
            }
            Step::Offering(offering) => {
                let bundled = catalogue.bundled_offerings(&offering).map_err(BundleError::Catalogue)?;
                if bundled.is_empty() {
                    steps.extend(offering.asset.map(Step::Asset));
                    continue;
                }
                let parts: Vec<Step> = bundled.into_iter().map(Step::Offering).collect();
                (format!("offering {}", offering.off_id), parts)
            }
            Step::Asset(asset) => {
                let bundled = catalogue.bundled_assets(&asset).map_err(BundleError::Catalogue)?;
                if bundled.is_empty() {
                    // An asset that two bundles share is one asset.
                    if known.insert(format!("asset {}", asset.id)) {
                        assets.push(asset);
                    }
                    continue;
                }
                (format!("asset {}", asset.id), bundled.into_iter().map(Step::Asset).collect())
            }
        };
        if let Some(start) = inside.iter().position(|outer| *outer == bundle) {
            return Err(BundleError::Cycle(inside.drain(start..).chain([bundle]).collect()));
        }
        if !known.insert(bundle.clone()) {
            continue;
        }
        inside.push(bundle);
        steps.push(Step::Leave);
        steps.extend(parts.into_iter().rev());
    }
    Ok(assets)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// What bundles what, by id.
    #[derive(Default)]
    struct Shop {
        assets: HashMap<&'static str, Vec<&'static str>>,
        offerings: HashMap<&'static str, Vec<Offering>>,
    }

    fn asset(id: &str) -> Asset {
        Asset { id: id.to_owned(), ..Asset::default() }
    }

    fn offering(id: &str, of: Option<&str>) -> Offering {
        Offering { off_id: id.to_owned(), asset: of.map(asset), ..Offering::default() }
    }

    impl Catalogue for Shop {
        fn bundled_assets(&self, bundle: &Asset) -> Result<Vec<Asset>, CatalogueError> {
            Ok(self.assets.get(bundle.id.as_str()).into_iter().flatten().map(|id| asset(id)).collect())
        }

        fn bundled_offerings(&self, bundle: &Offering) -> Result<Vec<Offering>, CatalogueError> {
            if bundle.off_id == "broken" {
                return Err("the catalogue is down".into());
            }
            Ok(self.offerings.get(bundle.off_id.as_str()).cloned().unwrap_or_default())
        }
    }

    fn ids(offering: &Offering, shop: &Shop) -> Vec<String> {
        let assets = assets_of_offering(offering, shop).expect("no cycle");
        assets.into_iter().map(|asset| asset.id).collect()
    }

    #[test]
    fn bundles_are_replaced_by_what_they_bundle_at_any_depth() {
        let shop = Shop {
            assets: HashMap::from([("pack", vec!["a", "box"]), ("box", vec!["b", "a"])]),
            offerings: HashMap::from([
                ("all", vec![offering("first", Some("pack")), offering("rest", None)]),
                ("rest", vec![offering("second", Some("c")), offering("third", Some("b"))]),
            ]),
        };
        assert_eq!(ids(&offering("plain", Some("x")), &shop), ["x"]);
        assert_eq!(ids(&offering("packed", Some("pack")), &shop), ["a", "b"]);
        assert_eq!(ids(&offering("all", None), &shop), ["a", "b", "c"], "each asset once");
        assert_eq!(ids(&offering("nothing", None), &shop), [""; 0]);
    }

    #[test]
    fn bundles_that_share_parts_are_looked_at_once() {
        // Each holds the next one twice: as many ways down as a number of forty binary digits counts.
        let names: Vec<&'static str> =
            (0..41).map(|level| &*Box::leak(format!("level-{level}").into_boxed_str())).collect();
        let assets = names.windows(2).map(|pair| (pair[0], vec![pair[1], pair[1]])).collect();
        let shop = Shop { assets, ..Shop::default() };
        assert_eq!(ids(&offering("o", Some("level-0")), &shop), ["level-40"]);
    }

    #[test]
    fn a_bundle_that_holds_itself_is_refused_with_the_way_round() {
        let shop = Shop {
            assets: HashMap::from([("a", vec!["b"]), ("b", vec!["c", "a"])]),
            offerings: HashMap::from([("x", vec![offering("x", None)])]),
        };
        let error = assets_of_asset(&asset("a"), &shop).expect_err("a cycle").to_string();
        assert_eq!(error, "the bundle asset a holds itself: asset a → asset b → asset a");
        assert!(matches!(assets_of_offering(&offering("x", None), &shop), Err(BundleError::Cycle(_))));
    }

    #[test]
    fn a_backend_that_can_not_answer_is_an_error_and_not_an_empty_bundle() {
        let error = assets_of_offering(&offering("broken", Some("a")), &Shop::default()).expect_err("it is down");
        assert!(error.to_string().contains("the catalogue is down"));
    }
}
