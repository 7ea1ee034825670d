//! The `billhook` command: one file a verb. It parses, calls the library, and prints; nothing below it prints.

mod addevent;
mod addhandler;
mod callplugin;
mod checkplugin;
mod choice;
mod completions;
mod config;
mod deliver;
mod disableplugin;
mod discard;
mod downgradeplugin;
mod emit;
mod enableplugin;
mod explain;
mod handler_options;
mod hints;
mod init;
mod listdeliveries;
mod listevents;
mod listhandlers;
mod listplugins;
mod listresources;
mod loadplugin;
mod log;
mod log_queue;
mod logging;
mod newplugin;
mod output;
mod packplugin;
mod progress;
mod quickstart;
mod reconcile;
mod redrive;
mod removeevent;
mod removehandler;
mod removeplugin;
#[cfg(feature = "server")]
mod serve;
mod sethandler;
mod setplugin;
mod showdelivery;
mod showhandler;
mod showplugin;
mod signals;
mod streams;
mod times;
mod token;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use billhook::{EventError, Host, HostError, HostOptions};
use clap::{ArgAction, Args, Parser, Subcommand};

use output::Output;
use streams::Printed;

/// Manage the plugins of a charging backend.
#[derive(Parser)]
#[command(name = "billhook", version, max_term_width = 120)]
struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(Args)]
struct Global {
    /// The folder that holds the installed plugins [env: BILLHOOK_HOME] [default: billhook in the platform's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The configuration, a TOML file [env: BILLHOOK_CONFIG] [default: config.toml in the home, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The group of the home may write to it, as on a volume of Kubernetes [env: BILLHOOK_GROUP_WRITABLE=1]
    #[arg(long, global = true)]
    group_writable: bool,
    /// Answer as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Log to standard error what happens; twice for details, thrice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Verb {
    /// Install a package, or upgrade the plugin that it is a newer version of
    #[command(name = "loadplugin")]
    Load(loadplugin::Arguments),
    /// List the installed plugins
    #[command(name = "listplugins")]
    List,
    /// Remove a plugin, with its history, settings and state
    #[command(name = "removeplugin")]
    Remove(removeplugin::Arguments),
    /// Go back to an older version of a plugin
    #[command(name = "downgradeplugin")]
    Downgrade(downgradeplugin::Arguments),
    /// Show everything about a plugin
    #[command(name = "showplugin")]
    Show(showplugin::Arguments),
    /// Tell everything that is wrong with a package, without installing it
    #[command(name = "checkplugin")]
    Check(checkplugin::Arguments),
    /// Make the crate of a new plugin
    #[command(name = "newplugin")]
    New(newplugin::Arguments),
    /// Build the crate of a plugin and pack it
    #[command(name = "packplugin")]
    Pack(packplugin::Arguments),
    /// Call a hook of a plugin and print what it answers
    #[command(name = "callplugin")]
    Call(callplugin::Arguments),
    /// Let a plugin take calls again
    #[command(name = "enableplugin")]
    Enable(enableplugin::Arguments),
    /// Keep a plugin from taking calls: they are answered as unavailable
    #[command(name = "disableplugin")]
    Disable(disableplugin::Arguments),
    /// Give a plugin other settings, or run it otherwise
    #[command(name = "setplugin")]
    Set(setplugin::Arguments),
    /// Attach a script or an HTTP endpoint to an event
    #[command(name = "addhandler")]
    AddHandler(addhandler::Arguments),
    /// List and search handlers
    #[command(name = "listhandlers")]
    ListHandlers(listhandlers::Arguments),
    /// Show everything about a handler
    #[command(name = "showhandler")]
    ShowHandler(showhandler::Arguments),
    /// Change a handler: enable, disable or archive it, or call something else
    #[command(name = "sethandler")]
    SetHandler(sethandler::Arguments),
    /// Remove a handler
    #[command(name = "removehandler")]
    RemoveHandler(removehandler::Arguments),
    /// List all events that can be emitted and listened to
    #[command(name = "listevents")]
    ListEvents,
    /// Add an event of your own
    #[command(name = "addevent")]
    AddEvent(addevent::Arguments),
    /// Remove an event of your own
    #[command(name = "removeevent")]
    RemoveEvent(removeevent::Arguments),
    /// Show what happens at an event: who is called, in which order
    Explain(explain::Arguments),
    /// Tell that an event happened: ask its before handlers, record it, and deliver it to its after listeners
    Emit(emit::Arguments),
    /// Deliver events in the foreground
    Deliver(deliver::Arguments),
    /// List and search deliveries
    #[command(name = "listdeliveries")]
    ListDeliveries(listdeliveries::Arguments),
    /// Show everything about a delivery: its event, and what became of each attempt
    #[command(name = "showdelivery")]
    ShowDelivery(showdelivery::Arguments),
    /// Attempt dead letters again
    Redrive(redrive::Arguments),
    /// Give deliveries up
    Discard(discard::Arguments),
    /// Show the execution log: every call of every listener
    Log(log::Arguments),
    /// Bring the usage API up to date: specifications of units, and usage that was left unsent
    #[command(name = "reconcile")]
    Reconcile,
    /// Serve management, hooks, events and add-on provisioning over HTTP, with a page to look at
    #[cfg(feature = "server")]
    Serve(serve::Arguments),
    /// Make, list and remove the tokens by which a server's clients prove who they are
    Token(token::Arguments),
    /// List what add-ons provisioned
    #[command(name = "listresources")]
    ListResources(listresources::Arguments),
    /// Pack the example plugin, load it into a temporary home, and run the whole life of an asset
    Quickstart(quickstart::Arguments),
    /// Print the completion script of a shell
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    billhook::run_child_process();
    signals::begin();
    if let Some(code) = init::run() {
        return code;
    }
    let command = Command::parse();
    let output = Output::new(command.global.json);
    #[cfg(feature = "server")]
    let is_server = matches!(command.verb, Verb::Serve(_));
    #[cfg(not(feature = "server"))]
    let is_server = false;
    let taken = streams::take(if is_server { Printed::Logged } else { Printed::AsItIs });
    logging::start(command.global.verbose, is_server);
    let done = taken.context("the command can't be started").and_then(|()| run(command.verb, &command.global, &output));
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    };
    streams::flush();
    code
}

fn run(verb: Verb, global: &Global, output: &Output) -> anyhow::Result<()> {
    match verb {
        Verb::Load(arguments) => loadplugin::run(&arguments, global, output),
        Verb::List => listplugins::run(global, output),
        Verb::Remove(arguments) => removeplugin::run(&arguments, global, output),
        Verb::Downgrade(arguments) => downgradeplugin::run(&arguments, global, output),
        Verb::Show(arguments) => showplugin::run(&arguments, global, output),
        Verb::Check(arguments) => checkplugin::run(&arguments, output),
        Verb::New(arguments) => newplugin::run(&arguments, output),
        Verb::Pack(arguments) => packplugin::run(&arguments, output),
        Verb::Call(arguments) => callplugin::run(&arguments, global, output),
        Verb::Enable(arguments) => enableplugin::run(&arguments, global, output),
        Verb::Disable(arguments) => disableplugin::run(&arguments, global, output),
        Verb::Set(arguments) => setplugin::run(&arguments, global, output),
        Verb::AddHandler(arguments) => addhandler::run(&arguments, global, output),
        Verb::ListHandlers(arguments) => listhandlers::run(&arguments, global, output),
        Verb::ShowHandler(arguments) => showhandler::run(&arguments, global, output),
        Verb::SetHandler(arguments) => sethandler::run(&arguments, global, output),
        Verb::RemoveHandler(arguments) => removehandler::run(&arguments, global, output),
        Verb::ListEvents => listevents::run(global, output),
        Verb::AddEvent(arguments) => addevent::run(&arguments, global, output),
        Verb::RemoveEvent(arguments) => removeevent::run(&arguments, global, output),
        Verb::Explain(arguments) => explain::run(&arguments, global, output),
        Verb::Emit(arguments) => emit::run(&arguments, global, output),
        Verb::Deliver(arguments) => deliver::run(&arguments, global, output),
        Verb::ListDeliveries(arguments) => listdeliveries::run(&arguments, global, output),
        Verb::ShowDelivery(arguments) => showdelivery::run(&arguments, global, output),
        Verb::Redrive(arguments) => redrive::run(&arguments, global, output),
        Verb::Discard(arguments) => discard::run(&arguments, global, output),
        Verb::Log(arguments) => log::run(&arguments, global, output),
        Verb::Reconcile => reconcile::run(global, output),
        #[cfg(feature = "server")]
        Verb::Serve(arguments) => serve::run(&arguments, global, output),
        Verb::Token(arguments) => token::run(&arguments, global, output),
        Verb::ListResources(arguments) => listresources::run(&arguments, global, output),
        Verb::Quickstart(arguments) => quickstart::run(&arguments, output),
        Verb::Completions(arguments) => completions::run(&arguments),
    }
}

impl Global {
    /// The home that was asked for.
    fn home(&self) -> anyhow::Result<PathBuf> {
        // Not read by clap, whose messages would then show `--home` as if it were required.
        let named = self.home.clone().or_else(|| std::env::var_os("BILLHOOK_HOME").map(PathBuf::from));
        if let Some(home) = named.filter(|home| !home.as_os_str().is_empty()) {
            return Ok(home);
        }
        let folders = directories::ProjectDirs::from("", "", "billhook");
        let folders = folders.context("this system has no data folder; name one with --home DIR or BILLHOOK_HOME")?;
        Ok(folders.data_dir().to_owned())
    }

    /// Opens the home, and makes it if there is none.
    fn new_host(&self) -> anyhow::Result<Host> {
        self.open(self.home()?)
    }

    fn open(&self, home: PathBuf) -> anyhow::Result<Host> {
        let config = self.config(&home)?;
        Ok(Host::open_with(home, self.options(&config)?)?)
    }

    /// How the host works.
    fn options(&self, config: &config::Config) -> anyhow::Result<HostOptions> {
        Ok(config.options()?.group_writable(self.is_group_writable()))
    }

    /// Whether the operator said that the home's group may write to it. Never by a file in the home: whoever can write to that could
    /// say it for themselves.
    fn is_group_writable(&self) -> bool {
        let said = std::env::var_os("BILLHOOK_GROUP_WRITABLE").unwrap_or_default();
        self.group_writable || ["1", "true", "yes"].iter().any(|word| said.eq_ignore_ascii_case(word))
    }

    /// The configuration for a home.
    fn config(&self, home: &Path) -> anyhow::Result<config::Config> {
        let named = self.config.clone().or_else(|| std::env::var_os("BILLHOOK_CONFIG").map(PathBuf::from));
        config::Config::read(named.filter(|path| !path.as_os_str().is_empty()), home)
    }

    /// Opens the home, if there is one: only installing makes one, so that a misspelt name is noticed.
    fn existing_host(&self) -> anyhow::Result<Option<Host>> {
        let home = self.home()?;
        // Also in a folder that is there: one without a registry is no home yet.
        // What has folders as a home does, and isn't one, is told of where it is opened.
        let is_missing = |name: &str| match fs::metadata(home.join(name)) {
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            Ok(_) => false,
        };
        if ["registry.db", "packages", "staging"].into_iter().all(is_missing) {
            return Ok(None);
        }
        Ok(Some(self.open(home)?))
    }

    /// Opens the home, which has to be there.
    fn host(&self) -> anyhow::Result<Host> {
        let home = self.home()?;
        let none = || {
            format!(
                "there is no home at {}; loadplugin makes one, as addhandler does, and --home DIR names another",
                home.display()
            )
        };
        self.existing_host()?.with_context(none)
    }
}

/// An id of a plugin. Ids may begin with a dash, as names may.
#[derive(Args)]
struct PluginId {
    /// The plugin's id, as listplugins shows it
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    id: String,
}

/// Does something with each of several deliveries, whatever becomes of the others. Answers those with which it went through, and the
/// first failure.
fn each(numbers: &[i64], run: impl Fn(i64) -> Result<(), EventError>) -> (Vec<i64>, Option<EventError>) {
    let (mut done, mut failure) = (Vec::new(), None);
    for number in numbers {
        match run(*number) {
            Ok(()) => done.push(*number),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    (done, failure)
}

/// Reads a file that has to be text.
fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Reads the file of a `--settings` option.
fn read_settings(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    path.map(read_text).transpose()
}

/// Names the file that an error of the host's is about.
fn about(path: &Path) -> impl FnOnce(HostError) -> anyhow::Error {
    move |error| anyhow::Error::new(error).context(format!("{} was not installed", path.display()))
}
