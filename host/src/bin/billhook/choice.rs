//! Options whose values are names out of a list.

use billhook::Named;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Reads a value by its name, in which a hyphen stands for an underscore.
pub(crate) fn choice<T: Named + Send + Sync>() -> impl TypedValueParser<Value = T> {
    parser(|value: T| PossibleValue::new(spelt(value)))
}

/// The same, where the help says what each value means.
pub(crate) fn explained_choice<T: Named + Send + Sync>() -> impl TypedValueParser<Value = T> {
    parser(|value: T| PossibleValue::new(spelt(value)).help(value.about().trim_end_matches('.').to_owned()))
}

fn parser<T: Named + Send + Sync>(show: fn(T) -> PossibleValue) -> impl TypedValueParser<Value = T> {
    let values = T::ALL.iter().map(|value| show(*value));
    PossibleValuesParser::new(values).try_map(|name| {
        T::ALL.iter().find(|value| spelt(**value) == name).copied().ok_or_else(|| format!("unknown {}", T::WHAT))
    })
}

fn spelt<T: Named>(value: T) -> String {
    value.name().replace('_', "-")
}
