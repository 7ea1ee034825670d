//! The names of the hooks, the same wherever a hook is named: records, commands, JSON, logs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hooks::for_each_hook;

macro_rules! hooks {
    ($($trait:ident since $since:literal {$(
        $(#[doc = $doc:literal])* $(#[sabi($sabi:ident)])?
        $variant:ident, $name:ident = $function:ident: $table:ident($($object:ident: $kind:ident),*) -> $reply:ident;
    )*})*) => {
        /// A hook of the [`Plugin`](crate::Plugin) trait, or of [`AddonProvisioning`](crate::AddonProvisioning).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Hook { $($($(#[doc = $doc])* $variant,)*)* }

        impl Hook {
            /// Every hook, in the order in which they came: first those of an asset, in the order of its life.
            pub const ALL: &'static [Hook] = &[$($(Hook::$variant,)*)*];

            /// Returns the name of the function in the trait; those of an add-on have `addon_` before it.
            pub const fn name(self) -> &'static str {
                match self { $($(Hook::$variant => stringify!($name),)*)* }
            }

            /// Returns the names of the objects that the hook takes, as they are in JSON.
            pub const fn objects(self) -> &'static [&'static str] {
                match self { $($(Hook::$variant => &[$(stringify!($object)),*],)*)* }
            }
        }
    };
}

for_each_hook!(hooks);

/// A set of hooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookSet(u64);

impl HookSet {
    const fn bit(hook: Hook) -> u64 {
        1 << hook as u32
    }

    /// Returns whether the set has a hook.
    #[inline]
    pub const fn contains(self, hook: Hook) -> bool {
        self.0 & Self::bit(hook) != 0
    }

    /// Adds a hook.
    pub const fn insert(&mut self, hook: Hook) {
        self.0 |= Self::bit(hook);
    }

    /// Returns whether the set has no hook.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Hook> for HookSet {
    fn from_iter<I: IntoIterator<Item = Hook>>(hooks: I) -> Self {
        let mut set = HookSet::default();
        hooks.into_iter().for_each(|hook| set.insert(hook));
        set
    }
}

impl Serialize for Hook {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Hook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl de::Visitor<'_> for Name {
            type Value = Hook;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a hook")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Hook, E> {
                name.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
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
