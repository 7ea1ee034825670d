//! Zips that two readers could read differently, or that do harm: refused, never repaired.

use std::fs;

use billhook::{Host, package::Limits};
use serde_json::json;

use crate::support::{Entry, Home, Package, RawZip};

fn manifest() -> Entry {
    let manifest = json!({"name": "X", "author": "a", "version": "1", "module": "fixture", "formats": ["URL"]});
    Entry::new("package.json", manifest.to_string())
}

/// What is wrong with a zip of a manifest and other entries.
fn errors(zip: &RawZip) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.zip");
    fs::write(&path, zip.bytes()).expect("written");
    Host::check(&path, &Limits::default()).expect("readable").errors.join("\n")
}

#[track_caller]
fn refused(zip: &RawZip, expected: &str) {
    let found = errors(zip);
    assert!(found.contains(expected), "expected {expected:?}, found {found:?}");
}

#[track_caller]
fn entry_refused(entry: Entry, expected: &str) {
    refused(&RawZip::new(vec![manifest(), entry]), expected);
}

/// The one thing that is wrong with an otherwise sound zip here: it has no library.
const SOUND: &str = "the module \"fixture\" is not in the package";

#[test]
fn a_sound_zip_is_taken() {
    let folder = Entry { attributes: 0o040_755 << 16, ..Entry::new("data/", "") };
    let zip = RawZip::new(vec![manifest(), folder, Entry::new("data/größe.txt", "x"), Entry::new("empty", "")]);
    refused(&zip, SOUND);
    refused(&RawZip { comment: b"a commit hash, as git archive writes it".to_vec(), ..zip }, SOUND);
}

#[test]
fn a_zip_in_a_zip_is_a_file_like_any_other() {
    let inner = RawZip::new(vec![Entry::new("a", "x")]).bytes();
    refused(&RawZip::new(vec![manifest(), Entry::new("inner.zip", inner)]), SOUND);
}

#[test]
fn a_zip_of_other_tools_is_taken() {
    // As a tool writes that can't seek: sizes behind the data.
    let mut streamed = zip::ZipWriter::new_stream(Vec::new());
    streamed.start_file("package.json", zip::write::SimpleFileOptions::default()).expect("started");
    std::io::Write::write_all(&mut streamed, &manifest().data).expect("written");
    let bytes = streamed.finish().expect("finished").into_inner();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.zip");
    fs::write(&path, bytes).expect("written");
    let errors = Host::check(&path, &Limits::default()).expect("readable").errors.join("\n");
    assert!(errors.contains(SOUND), "{errors}");
}

#[test]
fn names_that_lead_elsewhere_or_differ_between_systems_are_refused() {
    for (name, expected) in [
        ("../evil", "leads elsewhere"),
        ("a/../../evil", "leads elsewhere"),
        ("..", "leads elsewhere"),
        ("./a", "leads elsewhere"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "':'"),
        ("file.txt:stream", "':'"),
        ("\\\\server\\share", "'\\\\'"),
        ("a\\b", "'\\\\'"),
        ("a\0b", "'\\0'"),
        ("a\nb", "'\\n'"),
        ("", "empty part"),
        ("a//b", "empty part"),
        ("a.", "ends in a dot"),
        ("a /b", "ends in a dot or a space"),
        ("nul.txt", "a device on some systems"),
        ("x/COM1", "a device on some systems"),
    ] {
        entry_refused(Entry::new(name, "x"), expected);
    }
    entry_refused(Entry::new("d/".repeat(40) + "x", "x"), "folders deep");
    entry_refused(Entry::new("x".repeat(300), "x"), "255 bytes");
    entry_refused(Entry::new("long/".repeat(300) + "x", ""), "1024 bytes");
}

#[test]
fn names_that_are_one_on_another_file_system_are_refused() {
    for (first, second, expected) in [
        ("a", "a", "duplicate"),
        ("Readme", "README", "one name"),
        ("straße", "STRASSE", "one name"),
        ("caf\u{e9}", "cafe\u{301}", "one name"),
        ("Data/a", "data/b", "one name"),
        ("a", "a/b", "a file and a folder"),
        ("a/b", "a", "a file and a folder"),
    ] {
        let found = errors(&RawZip::new(vec![manifest(), Entry::new(first, "1"), Entry::new(second, "2")]));
        assert!(found.contains(expected) || found.contains("two entries of this name"), "{first} {second}: {found}");
    }
}

#[test]
fn everything_but_files_and_folders_is_refused() {
    for (attributes, expected) in [
        (0o120_777_u32 << 16, "symbolic link"),
        (0o020_644 << 16, "a device, a pipe or a socket"),
        (0o060_644 << 16, "a device, a pipe or a socket"),
        (0o010_644 << 16, "a device, a pipe or a socket"),
        (0o140_644 << 16, "a device, a pipe or a socket"),
        (0o040_755 << 16, "marked as a folder and named as a file"),
        (0x10, "marked as a folder and named as a file"),
    ] {
        entry_refused(Entry { attributes, ..Entry::new("a", "x") }, expected);
    }
    entry_refused(Entry { attributes: 0o040_755 << 16, ..Entry::new("a/", "data") }, "named as a folder and is none");
    entry_refused(Entry::new("a/", ""), "named as a folder and is none");
    let folder = Entry {
        method: 8,
        attributes: 0o040_755 << 16,
        size: Some(0),
        local_size: Some(0),
        ..Entry::new("a/", "hidden")
    };
    entry_refused(folder, "a folder and holds data");
    let link = [&0x000d_u16.to_le_bytes()[..], &16_u16.to_le_bytes(), &[0; 12], b"pass"].concat();
    entry_refused(Entry { extra: link, ..Entry::new("a", "x") }, "a link or a device");
    entry_refused(Entry { flags: 0x0801, ..Entry::new("a", "x") }, "encrypted");
    entry_refused(Entry { method: 12, ..Entry::new("a", "x") }, "method other than deflate");
    entry_refused(Entry { flags: 0, ..Entry::new("größe", "x") }, "not marked as UTF-8");
    entry_refused(Entry::new(b"\xff\xfe".to_vec(), "x"), "not marked as UTF-8");
}

#[test]
fn a_package_that_two_readers_see_differently_is_refused() {
    let two = vec![manifest(), Entry::new("a", "content")];
    let zip = RawZip::new(two.clone());
    let nested = zip.bytes();
    let bare_end = RawZip::default().bytes();
    let mut local_name = two.clone();
    local_name[1].local_name = Some(b"b".to_vec());
    let mut local_size = two.clone();
    local_size[1].local_size = Some(3);
    let mut gap = two.clone();
    gap[0].gap = b"hidden".to_vec();
    let mut overlapping = two.clone();
    overlapping[1].offset = Some(0);
    let second_name = [&0x7075_u16.to_le_bytes()[..], &6_u16.to_le_bytes(), &[1, 0, 0, 0, 0], b"b"].concat();
    let mut second_named = two.clone();
    second_named[1].extra = second_name;

    for (what, zip, expected) in [
        ("data before it", RawZip { before: b"#!/bin/sh\n".to_vec(), ..zip.clone() }, "data before"),
        ("an archive before it", RawZip { before: nested.clone(), ..zip.clone() }, "data before"),
        ("data behind it", RawZip { after: b"more".to_vec(), ..zip.clone() }, "data behind its end record"),
        ("an archive behind it", RawZip { after: nested.clone(), ..zip.clone() }, "not where its end record says"),
        ("an archive in its comment", RawZip { comment: nested.clone(), ..zip.clone() }, "two end records"),
        ("an end record in its comment", RawZip { comment: bare_end, ..zip.clone() }, "two end records"),
        ("fewer entries told", RawZip { count: Some(1), ..zip.clone() }, "more than its end record says"),
        ("more entries told", RawZip { count: Some(3), ..zip.clone() }, "cut off"),
        ("another name in the local header", RawZip::new(local_name), "header inconsistency"),
        ("another size in the local header", RawZip::new(local_size), "header inconsistency"),
        ("data that no entry has", RawZip::new(gap), "no entry has"),
        ("overlapping entries", RawZip::new(overlapping), "overlaps"),
        ("a second name", RawZip::new(second_named), "second name"),
    ] {
        let found = errors(&zip);
        assert!(found.contains(expected), "{what}: expected {expected:?}, found {found:?}");
    }
}

#[test]
fn a_bomb_is_stopped_by_what_comes_out_of_it() {
    let home = Home::new();
    let small = Limits { entries: 10, file_bytes: 100_000, total_bytes: 150_000, ..Limits::default() };
    let bomb = Package::new("X").with("zeros", &vec![0; 50_000_000]).write(home.folder());
    let check = |path| Host::check(path, &small).expect("readable").errors.join("\n");
    assert!(fs::metadata(&bomb).expect("there").len() < 5_000_000);
    assert!(check(&bomb).contains("unpacks to more than"), "{}", check(&bomb));

    let many = (0..20).map(|index| Entry::new(format!("f{index}"), "")).chain([manifest()]).collect();
    let path = home.folder().join("many.zip");
    fs::write(&path, RawZip::new(many).bytes()).expect("written");
    assert!(check(&path).contains("21 entries; at most 10"), "{}", check(&path));

    let tiny = Limits { package_bytes: 10, ..Limits::default() };
    let errors = Host::check(&path, &tiny).expect("readable").errors.join("\n");
    assert!(errors.contains("at most 10 are taken"), "{errors}");
}

#[test]
fn what_is_no_zip_at_all_is_said_to_be_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.zip");
    for content in [&b""[..], b"PK", b"hello", &[0; 5000]] {
        fs::write(&path, content).expect("written");
        assert_eq!(Host::check(&path, &Limits::default()).expect("readable").errors, ["it is not a zip file"]);
    }
    let whole = RawZip::new(vec![manifest(), Entry::new("a", "content")]).bytes();
    for cut in 1..whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        assert!(!Host::check(&path, &Limits::default()).expect("readable").is_valid(), "cut at {cut}");
    }
}

#[test]
fn every_single_wrong_byte_is_refused_or_changes_nothing_that_matters() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.zip");
    let whole = RawZip::new(vec![manifest(), Entry::new("a", "content")]).bytes();
    let mut passed = Vec::new();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(&path, &bytes).expect("written");
        let report = Host::check(&path, &Limits::default()).expect("readable");
        if report.errors.iter().all(|error| error.contains(SOUND)) {
            passed.push(at);
        }
    }
    // Dates, versions and attributes are nobody's business: 4 to 5 and 10 to 13 of a local header, and the like of a
    // central one. Nothing of a name, of content or of a size is among them.
    let content = whole.windows(7).position(|window| window == b"content").expect("stored as it is");
    assert!(!passed.iter().any(|at| (content..content + 7).contains(at)), "{passed:?}");
    assert!(passed.len() < 60, "{} of {} bytes don't matter: {passed:?}", passed.len(), whole.len());
}

#[test]
fn content_that_is_not_what_its_headers_say_is_refused() {
    let deflated = |data: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, data).expect("written");
        encoder.finish().expect("finished")
    };
    let data = vec![b'a'; 5000];
    let sound = Entry {
        method: 8,
        crc: Some(Entry::new("", data.clone()).crc32()),
        size: Some(5000),
        local_size: Some(5000),
        ..Entry::new("a", deflated(&data))
    };
    refused(&RawZip::new(vec![manifest(), sound.clone()]), SOUND);

    let trailing = [sound.data.clone(), b"hidden".to_vec()].concat();
    entry_refused(Entry { data: trailing, ..sound.clone() }, "data behind the end of its content");
    entry_refused(Entry { size: Some(4999), local_size: Some(4999), ..sound.clone() }, "not what its headers say");
    entry_refused(Entry { size: Some(6000), local_size: Some(6000), ..sound.clone() }, "not what its headers say");
    entry_refused(Entry { crc: Some(1), ..sound.clone() }, "not what its headers say");
    entry_refused(Entry { data: sound.data[..10].to_vec(), ..sound.clone() }, "a");
    entry_refused(Entry { size: Some(1), local_size: Some(1), ..Entry::new("a", "abc") }, "sizes contradict");
    entry_refused(Entry { local_flags: Some(0), ..Entry::new("a", "x") }, "two headers contradict");
    let zip64 = [&1_u16.to_le_bytes()[..], &8_u16.to_le_bytes(), &[0; 8]].concat();
    entry_refused(Entry { extra: zip64, ..Entry::new("a", "x") }, "zip64");
    let described = |fields: [u32; 3]| fields.iter().flat_map(|field| field.to_le_bytes()).collect::<Vec<u8>>();
    let streamed = Entry { flags: 0x0808, ..sound.clone() };
    let (crc, length) = (sound.crc.expect("set"), sound.data.len() as u32);
    refused(&RawZip::new(vec![manifest(), Entry { gap: described([crc, length, 5000]), ..streamed.clone() }]), SOUND);
    entry_refused(Entry { gap: described([crc, length, 1]), ..streamed }, "no entry has");
    entry_refused(Entry { flags: 0x0808, gap: described([0; 3]), ..Entry::new("a", "x") }, "can't tell where it ends");
}

#[test]
fn a_second_directory_that_only_zip64_readers_find_is_refused() {
    // A zip64 locator in the bytes before the end record: readers that know zip64 follow it, whatever the end record says.
    let whole = RawZip::new(vec![manifest()]).bytes();
    let end = whole.len() - 22;
    let locator = [&0x0706_4b50_u32.to_le_bytes()[..], &[0; 16]].concat();
    let mut zip = [&whole[..end], &locator, &whole[end..]].concat();
    // As the comment of the last entry, so that every byte belongs to something.
    let directory = whole.len() - 22 - (46 + "package.json".len());
    zip[directory + 32] = 20;
    let length = (46 + "package.json".len() + 20) as u32;
    let end = zip.len() - 22;
    zip[end + 12..end + 16].copy_from_slice(&length.to_le_bytes());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.zip");
    fs::write(&path, zip).expect("written");
    let errors = Host::check(&path, &Limits::default()).expect("readable").errors.join("\n");
    assert!(errors.contains("zip64"), "{errors}");
}

#[test]
fn everything_that_is_wrong_with_the_names_is_told_at_once() {
    let found =
        errors(&RawZip::new(vec![manifest(), Entry::new("../a", ""), Entry::new("/b", ""), Entry::new("c.", "")]));
    assert_eq!(found.lines().count(), 3, "{found}");
}

#[test]
fn what_takes_long_to_look_at_is_bounded() {
    let home = Home::new();
    let path = home.folder().join("x.zip");
    let check = |zip: RawZip| {
        fs::write(&path, zip.bytes()).expect("written");
        Host::check(&path, &Limits::default()).expect("readable").errors.join("\n")
    };
    // A ligature that unfolds to eighteen characters, deep down, in many entries.
    let deep = vec!["\u{fdfa}".repeat(10); 31].join("/");
    let many = (0..2000).map(|index| Entry::new(format!("{deep}/{index}"), "")).chain([manifest()]).collect();
    assert!(check(RawZip::new(many)).contains("1024 bytes") || check(RawZip::default()).contains("package.json"));
    let long = Entry::new("package.json", vec![b' '; 5_000_000]);
    assert!(check(RawZip::new(vec![long])).contains("longer than the 1048576 bytes"));
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    let home = Home::new();
    let pipe = home.folder().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("there is mkfifo").success());
    let pipe = pipe.to_str().expect("UTF-8");
    home.run(&["checkplugin", pipe]).failed_with(&["it is neither a file nor a folder"]);
    home.run(&["loadplugin", pipe]).failed_with(&["it is not a zip file"]);
    home.run(&["checkplugin", "/dev/zero"]).failed_with(&["it is neither a file nor a folder"]);
}

#[test]
fn a_manifest_that_is_not_in_the_root_is_told_where_it_is() {
    let entry = Entry { name: b"my-plugin/package.json".to_vec(), ..manifest() };
    refused(&RawZip::new(vec![entry]), "there is one at my-plugin/package.json: pack the content of its folder");
    refused(&RawZip::new(vec![Entry::new("a", "x")]), "there is no package.json in the root of the zip");
}

#[test]
fn modes_are_the_hosts_own() {
    let home = Home::new();
    let library = fs::read(crate::support::library("healthy")).expect("readable");
    let wild = Entry { attributes: 0o107_777 << 16, ..Entry::new("libfixture.so", library) };
    let path = home.folder().join("wild.zip");
    fs::write(&path, RawZip::new(vec![manifest(), wild]).bytes()).expect("written");
    home.run(&["loadplugin", path.to_str().expect("UTF-8")]).succeeded();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let library = home.content().into_iter().find(|name| name.ends_with("libfixture.so")).expect("installed");
        let mode = |name: &str| fs::metadata(home.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode(&library) & 0o7777, 0o600);
        assert_eq!(mode("packages") & 0o7777, 0o700, "only its user can write where libraries are opened");
    }
}

#[test]
fn what_other_programs_left_in_a_package_is_told_and_never_packed() {
    let home = Home::new();
    let clean = Package::new("Clean").with("icons/a.png", b"x").with("notes.txt", b"x");
    assert_eq!(home.load(&clean).succeeded().stderr, "");
    for (name, path) in [
        ("Mac", "__MACOSX/._package.json"),
        ("Finder", ".DS_Store"),
        ("Deep", "icons/.DS_Store"),
        ("Double", "icons/._a.png"),
        ("Windows", "icons/Thumbs.db"),
        ("Settings", "Desktop.ini"),
        ("Backup", "package.json~"),
        ("Swap", ".package.json.swp"),
        ("Git", ".git/config"),
    ] {
        let package = Package::new(name).with(path, b"x");
        let warned = home.load(&package).succeeded().stderr;
        assert!(warned.contains(path) && warned.contains("left over by other programs"), "{warned}");
        let zip = package.write(home.folder()).display().to_string();
        let checked = home.run(&["--json", "checkplugin", &zip]).succeeded().json();
        assert!(checked["warnings"][0].as_str().is_some_and(|warning| warning.contains(path)), "{checked}");
        assert!(billhook::package::is_left_over(path), "{path}");
    }
    for path in ["macosx/a", "DS_Store", "a._b", "thumbs.db.txt", "a/~b", ".swp/a", "git/config"] {
        assert!(!billhook::package::is_left_over(path), "{path}");
    }
    let mut many = Package::new("Many");
    for number in 0..40 {
        many = many.with(&format!("__MACOSX/{number}"), b"x");
    }
    let warned = home.load(&many).succeeded().stderr;
    assert!(warned.contains("and 37 more"), "{warned}");
}
