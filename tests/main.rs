//! The integration tests: one binary, so that they are linked once and run in parallel.

/// Nothing of the host: packages, homes, and runs of the command.
mod support;

/// Pull accounting: every record becomes one guided document, whatever is cut off.
mod accounting;
/// The house: which file and which crate may know which.
mod architecture;
/// From `newplugin` to `callplugin`, as an author goes.
mod authoring;
/// The life-cycle functions, called as a backend calls them.
mod backend;
/// What happens to an install that is killed at any step.
mod crash;
/// Disks in trouble: who is told, and how.
mod disk;
/// Calls: which plugin they reach, in parallel, while plugins are changed.
mod dispatch;
/// The commands in the documents.
mod docs;
/// Documents that pass through: whatever JSON allows comes out as it went in.
mod documents;
/// An embedder's own program as the child process.
mod embedding;
/// Events, handlers, the delivery ledger and the execution log.
mod events;
/// Faults that were met, and what holds them.
mod field;
/// Plugins and hosts of different versions of the API.
mod growth;
/// The home: whose it is, what lies in it, and disks that are mounted otherwise.
mod home;
/// Installing, upgrading, downgrading and removing by the rules.
mod lifecycle;
/// Zips that two readers could read differently, or that do harm.
mod packages;
/// Removing plugins: what they are needed for, and what they keep.
mod removal;
/// Files of a home that are put back from a copy.
mod restored;
/// The HTTP server: management, hooks, events, provisioning, and the page.
mod server;
/// What a plugin is offered: state, settings, log.
mod services;
/// The signals that the command takes, and what it does as the first process of a container.
mod signals;
/// The standard streams of the command.
mod streams;
/// What becomes of a server to which the system gives no threads.
mod threads;
/// The command: what it prints, where, and how it exits.
mod verbs;
/// Versions of a plugin: repaired, refused, with their settings.
mod versions;
/// A plugin in a worker process: whatever it does, the host lives.
mod workers;
/// Plugins that misbehave: each refused or reported in a sentence, and the host goes on.
mod zoo;
