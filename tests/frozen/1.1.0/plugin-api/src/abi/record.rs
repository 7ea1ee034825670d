//! The record that every exported trait leaves in its library, to be read without running it.
//!
//! One line of JSON in a section of the trait's own. Fields are only ever added; a reader ignores those that it doesn't
//! know.

use serde::{Deserialize, Serialize};

/// The section that holds the record of the [`Plugin`](crate::Plugin) trait, as each file format names it.
#[derive(Debug, Clone, Copy)]
pub struct SectionNames {
    /// In ELF files.
    pub elf: &'static str,
    /// In Mach-O files: the section of the segment `__DATA`.
    pub mach_o: &'static str,
    /// In PE files, where names have at most 8 bytes.
    pub pe: &'static str,
}

/// The section of the [`Plugin`](crate::Plugin) trait. The export attribute writes the same names.
pub const PLUGIN_SECTION: SectionNames = SectionNames { elf: ".billhook.plugin", mach_o: "__bh_plugin", pe: ".bhplug" };

/// The version of this crate, which is the version of the ABI.
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The compiler that built this crate.
pub const COMPILER: &str = env!("BILLHOOK_COMPILER");
/// The target triple that this crate was built for.
pub const TARGET: &str = env!("BILLHOOK_TARGET");

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The exported trait: `plugin`.
    #[serde(rename = "trait")]
    pub exported: String,
    /// The version of the API that it was built with.
    pub api: String,
    /// The compiler that built it.
    pub compiler: String,
    /// The panic strategy that it was built with: `unwind` or `abort`.
    pub panic: String,
    /// The target triple that it was built for.
    pub target: String,
    /// The hooks that are really implemented, by their names.
    pub hooks: Vec<String>,
}

impl Record {
    /// Reads the content of a section: one record, and perhaps zero bytes that a linker filled up with.
    pub fn parse(section: &[u8]) -> Result<Self, String> {
        let end = section.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        serde_json::from_slice(&section[..end]).map_err(|error| format!("its record can't be read: {error}"))
    }
}

/// The length of `parts` in a row.
pub const fn length(parts: &[&str]) -> usize {
    let mut length = 0;
    let mut part = 0;
    while part < parts.len() {
        length += parts[part].len();
        part += 1;
    }
    length
}

/// `parts` in a row; `N` is their [`length`].
pub const fn join<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut joined = [0; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            joined[at] = bytes[byte];
            at += 1;
            byte += 1;
        }
        part += 1;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_joined_at_compile_time_and_read_back() {
        const PARTS: &[&str] = &[
            r#"{"trait":"plugin","api":""#,
            API_VERSION,
            r#"","compiler":"c","panic":"unwind","target":"t","hooks":["a"],"later":1}"#,
        ];
        static JOINED: [u8; length(PARTS)] = join(PARTS);
        let mut section = JOINED.to_vec();
        section.extend([0; 7]);
        let record = Record::parse(&section).unwrap();
        assert_eq!((record.api.as_str(), record.hooks.len()), (API_VERSION, 1));
        for wrong in [&b""[..], b"\0\0", b"{}", b"{\"trait\":\"plugin\"}{}", b"\xff"] {
            assert!(Record::parse(wrong).is_err());
        }
    }
}
