//! The table of faults that were met: the tests that it names are there.

use std::{collections::BTreeSet, fs, path::Path};

/// The names of all functions in the files of a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("readable");
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split_once("()"));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn each_fault_of_the_table_is_held_by_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut known = BTreeSet::new();
    for folder in ["host", "plugin-api", "example-plugin", "tests"] {
        functions(&root.join(folder), &mut known);
    }
    let table = fs::read_to_string(root.join("tests/field/README.md")).expect("readable");
    let (faults, _) = table.split_once("## What is no fault").expect("both parts");
    let rows = faults
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| kind") && !line.starts_with("| ---"));
    let mut count = 0;
    for row in rows {
        let held_by = row.trim_end_matches(['|', ' ']).rsplit('|').next().expect("a column");
        let tests: Vec<&str> = held_by.split(',').map(|name| name.trim().trim_matches('`')).collect();
        for test in tests {
            assert!(known.contains(test), "{test:?} of {row}");
        }
        count += 1;
    }
    assert!(count > 30, "{count} rows");
}
