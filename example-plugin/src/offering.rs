//! What an offering may charge for.

use billhook_plugin_api::{Json, PluginError};
use serde::Deserialize;

use crate::API_CALL;

#[derive(Deserialize)]
struct Offering {
    #[serde(default, rename = "productOfferingPrice")]
    prices: Vec<Price>,
}

#[derive(Deserialize)]
struct Price {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "priceType")]
    price_type: String,
    #[serde(rename = "unitOfMeasure")]
    unit: Option<Unit>,
}

/// TM Forum's catalogues write the unit as a text in older versions and as an object in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Unit {
    Text(String),
    Object { units: String },
}

/// Refuses a usage price in a unit that the plugin can't account for.
pub(crate) fn check_units(offering: &Json) -> Result<(), PluginError> {
    let offering: Offering = offering.parse()?;
    for price in offering.prices.iter().filter(|price| price.price_type.eq_ignore_ascii_case("usage")) {
        let unit = match &price.unit {
            Some(Unit::Text(unit) | Unit::Object { units: unit }) => unit.as_str(),
            None => "",
        };
        if !unit.eq_ignore_ascii_case(API_CALL) {
            let name = &price.name;
            return Err(PluginError::invalid(format!("price {name:?} charges by {unit:?}; the unit is {API_CALL:?}")));
        }
    }
    Ok(())
}
