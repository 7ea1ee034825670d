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
mod global;
mod handler_options;
mod hints;
mod init;
mod inputs;
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
mod search;
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

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use global::Global;
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
        Verb::Completions(arguments) => completions::run(&arguments, Command::command()),
    }
}
