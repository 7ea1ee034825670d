//! `billhook newplugin NAME`

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::output::Output;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The asset type, as sellers will see it, such as "Weather Data"
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    name: String,
    /// A folder with the source of billhook-plugin-api [default: the released crate]
    #[arg(long, value_name = "PATH")]
    api: Option<PathBuf>,
}

/// Names that a crate can't have, or that would hide what the template uses.
const RESERVED: &str = "\
    abstract alloc as async await become billhook-plugin-api box break const continue core crate do dyn \
    else enum extern false final fn for gen if impl in let loop macro match mod move mut override priv \
    proc-macro pub ref return self serde static std struct super test trait true try type typeof unsafe \
    unsized use where while";

/// The files of a new plugin, with `{{…}}` where its name goes.
const TEMPLATE: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("package.json", include_str!("template/package.json.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("objects.json", include_str!("template/objects.json.in")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", "/target\n*.zip\n"),
];

#[derive(Serialize)]
struct Made {
    id: String,
    folder: PathBuf,
    warnings: Vec<&'static str>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> anyhow::Result<()> {
    let name = arguments.name.as_str();
    let id = name.to_lowercase().replace(' ', "-");
    if RESERVED.split(' ').any(|reserved| reserved == id) {
        bail!("{name:?} can't name a crate: {id:?} means something to Rust; choose another name");
    }
    let right = id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !id.ends_with('-');
    if !right {
        bail!("{name:?} can't name a crate: begin with a letter, and use ASCII letters, digits, spaces, '-' and '_'");
    }
    let folder = PathBuf::from(&id);
    if folder.exists() {
        bail!("{} is already there; choose another name, or another folder to work in", folder.display());
    }
    let api = match &arguments.api {
        Some(path) => format!("path = {}", toml_text(&api_folder(path)?)),
        None => format!("version = {:?}", billhook::API_VERSION),
    };
    let values = [("{{name}}", name), ("{{id}}", &id), ("{{module}}", &id.replace('-', "_")), ("{{api}}", &api)];
    for (file, template) in TEMPLATE {
        let text = values.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value));
        let path = folder.join(file);
        let written = fs::create_dir_all(path.parent().unwrap_or(&folder)).and_then(|()| fs::write(&path, text));
        written.with_context(|| format!("{} can't be written", path.display()))?;
    }
    // The length of the name decides where lines break. Without rustfmt they break where they may.
    let _ = cargo(&folder, "fmt");
    let unreleased = arguments.api.is_none() && !is_released(&folder);
    let warnings = if unreleased { vec![UNRELEASED] } else { Vec::new() };
    output.answer(&Made { id: id.clone(), folder: folder.clone(), warnings }, |made| {
        let folder = made.folder.display();
        format!("{folder} is a new plugin; go on with:\n  cd {folder}\n  cargo test\n  billhook packplugin")
    })?;
    if unreleased {
        output.note("warning", UNRELEASED);
        output.note("hint", "name a folder with its source: billhook newplugin NAME --api PATH");
    }
    Ok(())
}

const UNRELEASED: &str = "cargo finds no released billhook-plugin-api for it";

/// The absolute path of the API's source.
fn api_folder(path: &Path) -> anyhow::Result<String> {
    let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    if !manifest.contains("name = \"billhook-plugin-api\"") {
        bail!("{} is not the source of billhook-plugin-api; name the folder with its Cargo.toml", path.display());
    }
    let path = path.canonicalize()?;
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

fn toml_text(text: &str) -> String {
    // A basic string of TOML has the escapes of JSON.
    serde_json::Value::from(text).to_string()
}

/// Whether cargo can resolve what the new crate depends on.
fn is_released(folder: &Path) -> bool {
    // Without cargo there is nothing to say about it.
    cargo(folder, "generate-lockfile").map_or(true, |status| status.success())
}

/// Runs cargo on the new crate, in silence.
fn cargo(folder: &Path, verb: &str) -> io::Result<ExitStatus> {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([verb, "--quiet", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
}
