//! Values that have a name each: the one way from an enum to its text, its number and its schema.

use std::{error::Error, fmt};

/// A value out of a fixed list, each with a name.
pub trait Named: Copy + Eq + 'static {
    /// What such a value is, for messages: `plugin status`.
    const WHAT: &'static str;
    /// Every value, in the order of the list.
    const ALL: &'static [Self];
    /// Their names, in the same order.
    const NAMES: &'static [&'static str];

    /// Returns the name in JSON and in what is kept. It never changes.
    fn name(self) -> &'static str;

    /// Returns what the value means, in a sentence.
    fn about(self) -> &'static str;

    /// Returns the value of a name.
    ///
    /// # Errors
    /// No value has the name.
    fn of_name(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.iter().find(|value| value.name() == name).copied().ok_or_else(|| UnknownName {
            what: Self::WHAT,
            name: name.to_owned(),
            known: Self::NAMES,
        })
    }
}

/// A text isn't a name out of a fixed list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownName {
    /// What was looked for.
    pub what: &'static str,
    /// The text.
    pub name: String,
    /// The names that there are.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} {:?}; use {}", self.what, crate::text::shortened(&self.name, 60), self.known.join(", "))
    }
}

impl Error for UnknownName {}

/// Declares an enum whose values have a name and a number each. Neither ever changes: what is kept holds them.
///
/// From it follow the list of all values, the name, the number, reading and writing JSON, and the schema. For people,
/// `Display` writes the name with spaces.
macro_rules! named {
    (
        $(#[doc = $doc:literal])*
        pub enum $type:ident: $what:literal $(in schemas $schema:literal)? {
            $($(#[doc = $value_doc:literal])* $value:ident = $number:literal, $name:literal;)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[doc = $value_doc])* $value = $number,)*
        }

        impl $type {
            /// Every value.
            pub const ALL: &'static [$type] = &[$($type::$value,)*];

            /// Returns the name in JSON and in what is kept. It never changes.
            pub const fn name(self) -> &'static str {
                match self { $($type::$value => $name,)* }
            }

            /// Returns the number in what is kept. It never changes.
            pub const fn code(self) -> i64 {
                self as i64
            }

            /// Returns the value of a number, if there is one.
            pub fn of_code(code: i64) -> Option<Self> {
                Self::ALL.iter().find(|value| value.code() == code).copied()
            }
        }

        impl $crate::Named for $type {
            const WHAT: &'static str = $what;
            const ALL: &'static [$type] = $type::ALL;
            const NAMES: &'static [&'static str] = &[$($name,)*];

            fn name(self) -> &'static str {
                $type::name(self)
            }

            fn about(self) -> &'static str {
                match self { $($type::$value => concat!($($value_doc),*).trim(),)* }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.name().replace('_', " "))
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                $crate::Named::of_name(name)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::named::NameVisitor(std::marker::PhantomData))
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some(Self::ALL.iter().map(|value| value.name())))
                    .description(Some([$($doc.trim()),*].join("\n")))
                    .into()
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                // A name that clients' code was made from stays.
                std::borrow::Cow::Borrowed([$($schema,)? stringify!($type)][0])
            }
        }
    };
}

pub(crate) use named;

/// Reads a value by its name.
pub(crate) struct NameVisitor<T>(pub(crate) std::marker::PhantomData<T>);

impl<T: Named> serde::de::Visitor<'_> for NameVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", T::WHAT)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<T, E> {
        T::of_name(name).map_err(|unknown| E::unknown_variant(name, unknown.known))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::{
        Confinement, DeliveryStatus, EventKind, ExecutionStatus, HandlerStatus, Isolation, ListenerKind, Mode, Named,
        OnFailure, PendingSpec, PluginStatus, Scope,
    };

    /// Each value is found by its name and by its number, and no two share one.
    fn holds<T>(of_code: fn(i64) -> Option<T>, code: fn(T) -> i64)
    where
        T: Named + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let names: HashSet<&str> = T::ALL.iter().map(|value| value.name()).collect();
        let codes: HashSet<i64> = T::ALL.iter().map(|value| code(*value)).collect();
        assert_eq!((names.len(), codes.len()), (T::ALL.len(), T::ALL.len()), "{:?}", T::ALL);
        for value in T::ALL {
            assert_eq!(T::of_name(value.name()).as_ref(), Ok(value));
            assert_eq!(of_code(code(*value)).as_ref(), Some(value));
            let json = serde_json::to_string(value).expect("written");
            assert_eq!(json, format!("{:?}", value.name()));
            assert_eq!(serde_json::from_str::<T>(&json).expect("read"), *value);
        }
        let problem = T::of_name("nonsense").expect_err("unknown").to_string();
        assert!(problem.starts_with(&format!("unknown {} \"nonsense\"; use ", T::WHAT)), "{problem}");
        assert!(of_code(-1).is_none());
    }

    #[test]
    fn each_value_has_a_name_and_a_number_of_its_own() {
        macro_rules! all {
            ($($type:ident),*) => { $(holds($type::of_code, $type::code);)* };
        }
        all!(Confinement, DeliveryStatus, EventKind, ExecutionStatus, HandlerStatus, Isolation, ListenerKind, Mode);
        all!(OnFailure, PendingSpec, PluginStatus, Scope);
    }

    #[test]
    fn people_read_names_with_spaces() {
        assert_eq!(PluginStatus::NeedsSettings.to_string(), "needs settings");
        assert_eq!(PluginStatus::NeedsSettings.name(), "needs_settings");
        assert_eq!(format!("{:<10}|", ExecutionStatus::TimedOut), "timed out |");
    }
}
