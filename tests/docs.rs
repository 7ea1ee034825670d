//! The commands in the documents work, in the order in which they stand.

use std::{fs, net::TcpListener, path::Path, process::Command};

use crate::{
    authoring::{authors_target, source},
    support::{BILLHOOK, Home, Package, UsageServer, run},
};

/// The commands in the `sh` blocks of a document.
fn commands(document: &str) -> String {
    let text = fs::read_to_string(source().join(document)).expect("there");
    let mut commands = String::from("set -eu\n");
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => commands += &format!("{line}\n"),
            _ => {}
        }
    }
    assert!(commands.contains("billhook "), "{document} has commands");
    commands
}

/// The configuration that a document shows, with a usage API and files that are there.
fn configuration(document: &str, home: &Home) -> String {
    let text = fs::read_to_string(source().join(document)).expect("there");
    let shown = text.split("```toml\n[usage_api]").nth(1).and_then(|rest| rest.split("```").next());
    let Some(shown) = shown else {
        // Other configurations are taken as they stand, all in one file.
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        return blocks
            .filter(|block| ["[handlers]", "[log]", "[server"].iter().any(|start| block.starts_with(start)))
            .collect();
    };
    let token = home.file("token", "secret");
    let (url, file) = ("https://store.example/DSUsageManagement/api/usageManagement/v2", "/etc/billhook/usage-token");
    assert!(shown.contains(url) && shown.contains(file), "no test calls somebody else's machine");
    format!("[usage_api]{}", shown.replace(url, &UsageServer::start().url()).replace(file, &token))
}

/// Runs the commands of a document beside a checkout of billhook.
fn run_all(document: &str, home: &Home) {
    run_these(document, &commands(document), home);
}

fn run_these(document: &str, commands: &str, home: &Home) {
    let folder = home.folder().join("work");
    fs::create_dir_all(&folder).expect("made");
    std::os::unix::fs::symlink(source(), home.folder().join("billhook")).expect("linked");
    let programs = Path::new(BILLHOOK).parent().expect("it is in a folder").to_str().expect("UTF-8").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(commands).current_dir(folder).env("PATH", format!("{programs}:{path}"));
    shell.env("BILLHOOK_HOME", home.path()).env("CARGO_TARGET_DIR", authors_target());
    shell.env("BILLHOOK_CONFIG", home.file("config.toml", &configuration(document, home)));
    run(&mut shell).succeeded();
}

#[test]
fn the_operator_guide_works() {
    let home = Home::new();
    fs::create_dir(home.folder().join("work")).expect("made");
    for version in ["1.0", "1.1"] {
        let package = Package::new("Test Resource").version(version).write(home.folder());
        fs::rename(package, home.folder().join(format!("work/test-resource-{version}.zip"))).expect("moved");
    }
    run_all("docs/operator-guide.md", &home);
}

#[test]
fn the_guide_of_the_server_works() {
    let home = Home::new();
    fs::create_dir(home.folder().join("work")).expect("made");
    let package = Package::new("Test Resource").write(home.folder());
    fs::rename(package, home.folder().join("work/test-resource-1.0.zip")).expect("moved");
    // A port that nobody has; between here and the server somebody else may take it, which is not likely.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let commands = commands("docs/server.md").replace("8420", &port.to_string());
    run_these("docs/server.md", &commands, &home);
}

#[test]
fn the_guide_of_events_and_handlers_works() {
    run_all("docs/handlers.md", &Home::new());
}

#[test]
fn the_plugin_guide_works() {
    run_all("docs/plugin-guide.md", &Home::new());
}

#[test]
fn the_readme_has_the_two_commands_that_are_run_elsewhere() {
    let readme = fs::read_to_string(source().join("README.md")).expect("there");
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("    cargo ")).collect();
    // The first is run by `authoring`, the second is what runs this.
    assert_eq!(commands, ["run --release -- quickstart", "test --workspace"]);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut documents = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in fs::read_dir(source().join("docs")).expect("there") {
        documents.push(format!("docs/{}", entry.expect("readable").file_name().to_str().expect("UTF-8")));
    }
    for document in documents {
        let path = source().join(&document);
        let text = fs::read_to_string(&path).expect("there");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") && !link.starts_with('#') {
                let (file, section) = link.split_once('#').unwrap_or((link, ""));
                let target = path.parent().expect("in a folder").join(file);
                assert!(target.exists(), "{document}: {link}");
                let is_section = |line: &str| {
                    let title = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim().to_lowercase());
                    title.is_some_and(|title| title.replace(' ', "-") == section)
                };
                // A link may lead to a folder.
                let text = fs::read_to_string(&target).unwrap_or_default();
                assert!(section.is_empty() || text.lines().any(is_section), "{document}: {link}");
            }
        }
    }
}
