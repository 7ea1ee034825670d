//! How much a hook may return: the same in the process of the host and over a wire.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::data::{UsageRecord, UsageSpec};

/// The most bytes that the changes of one call may have in all, what they replaced included.
pub(crate) const CHANGES: usize = 16 * 1024 * 1024;
/// The most bytes that usage, or the description of usage, may have as it is kept in memory.
pub(crate) const USAGE: usize = 64 * 1024 * 1024;
/// The most bytes of what an add-on's function returns, as JSON.
pub(crate) const DOCUMENT: usize = 1024 * 1024;
/// The bytes that names and brackets take in the JSON form, at most.
pub(crate) const NAMES: usize = 64 * 1024;

/// Refuses a JSON form with so many usage records or specifications that they would take more memory than they may. Builds
/// nothing: the elements are counted only.
pub(super) fn count(json: &[u8]) -> Result<(), serde_json::Error> {
    // What is this small needs no count: an element takes at least two bytes.
    if json.len() <= NAMES {
        return Ok(());
    }
    let Elements { usage_specs, pending_accounting } = serde_json::from_slice(json)?;
    let size = usage_specs.0.saturating_mul(size_of::<UsageSpec>())
        + pending_accounting.records.0.saturating_mul(size_of::<UsageRecord>())
        + json.len();
    if size > USAGE + CHANGES {
        return Err(de::Error::custom(format_args!("the answer is larger than {} MiB", USAGE / 1024 / 1024)));
    }
    Ok(())
}

/// How many elements the lists of an answer have. What is no list is found out when the answer is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Elements {
    usage_specs: Count,
    pending_accounting: Accounting,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Accounting {
    records: Count,
}

/// The elements of a list, or of an object.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = Count(0);
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count.0 += 1;
                }
                Ok(count)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Count, A::Error> {
                let mut count = Count(0);
                while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count.0 += 1;
                }
                Ok(count)
            }
        }
        deserializer.deserialize_any(Counter)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Hook, call::HookReply};

    fn read(hook: Hook, json: &str) -> Result<HookReply, String> {
        HookReply::read(hook, json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_hook_returns_is_bounded_by_what_it_can_return() {
        let filled = |size: usize| "x".repeat(size);
        let megabyte = 1024 * 1024;
        let cases = [
            (Hook::OnEvent, "{}".to_owned(), true),
            (Hook::OnEvent, format!("{{{}}}", filled(megabyte).replace('x', " ")), false),
            (Hook::OnProductAcquisition, format!(r#"{{"changes":{{"meta_info":"{}"}}}}"#, filled(15 * megabyte)), true),
            (
                Hook::OnProductAcquisition,
                format!(r#"{{"changes":{{"meta_info":"{}"}}}}"#, filled(17 * megabyte)),
                false,
            ),
            (Hook::AddonSingleSignOn, format!(r#"{{"location":"{}"}}"#, filled(megabyte / 2)), true),
            (Hook::AddonSingleSignOn, format!(r#"{{"location":"{}"}}"#, filled(2 * megabyte)), false),
            (Hook::AddonCreate, format!(r#"{{"provisioned":{{"id":"{}"}}}}"#, filled(2 * megabyte)), false),
        ];
        for (hook, json, is_taken) in cases {
            let read = read(hook, &json);
            assert_eq!(read.is_ok(), is_taken, "{hook} {} bytes: {:?}", json.len(), read.err());
        }
    }

    #[test]
    fn many_small_records_are_counted_before_they_are_built() {
        let record = r#"{"date":"2026-01-01T00:00:00Z","unit":"u","value":"1"}"#;
        let list = |count: usize, element: &str| vec![element; count].join(",");
        let accounting = |records: &str| format!(r#"{{"pending_accounting":{{"records":[{records}]}}}}"#);
        assert!(read(Hook::GetPendingAccounting, &accounting(&list(10_000, record))).is_ok());
        let too_many = [
            (Hook::GetPendingAccounting, accounting(&list(600_000, record))),
            // No records at all, and told so before the first of them is looked at.
            (Hook::GetPendingAccounting, accounting(&list(2_000_000, "{}"))),
            (Hook::GetPendingAccounting, accounting(&list(10_000_000, "0"))),
            (Hook::GetUsageSpecs, format!(r#"{{"usage_specs":[{}]}}"#, list(3_000_000, r#"{"name":""}"#))),
        ];
        for (hook, json) in too_many {
            let problem = read(hook, &json).expect_err("too many");
            assert!(problem.contains("larger than 64 MiB"), "{problem}");
        }
    }
}
