//! Starting a worker's process, and serving what its plugin asks for.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::Stdio,
    sync::Arc,
    thread,
};

use billhook_plugin_api::{PluginError, abi::services::HostServices};

use billhook_model::text::beginning;
use billhook_process::{ChildProgram, SupervisedChild};

use super::{
    super::PluginServices,
    wire::{Incoming, LARGEST_SERVICE, LONGEST_LINE, Served, Service, receive, send},
};

/// The task of a child process that is a worker.
pub(crate) const WORK: &str = "work";

/// Starts the process of a worker. Returns it with the sockets of calls and of services.
///
/// One with a folder of its own gets no more of this process's environment than is named; one without has all of it, and this
/// process's working folder.
pub(super) fn spawn(
    program: &ChildProgram,
    environment: &[String],
    folder: Option<&Path>,
) -> io::Result<(SupervisedChild, UnixStream, UnixStream)> {
    let (calls, its_calls) = UnixStream::pair()?;
    let (services, its_services) = UnixStream::pair()?;
    let mut command = program.command(WORK)?;
    command.stdin(Stdio::from(OwnedFd::from(its_calls))).stdout(Stdio::from(OwnedFd::from(its_services)));
    if let Some(folder) = folder {
        command.env_clear().env("TMPDIR", folder).env("HOME", folder).current_dir(folder);
        for name in environment {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    }
    Ok((SupervisedChild::spawn(command)?, calls, services))
}

/// Serves what a worker asks for, on a thread of its own, until the worker is gone.
pub(super) fn serve_in_background(mut socket: UnixStream, services: Arc<PluginServices>) -> io::Result<()> {
    let serve = move || {
        let mut incoming = Incoming::default();
        loop {
            let service = match receive::<Service>(&mut incoming, &mut socket, LARGEST_SERVICE) {
                Ok(Some(service)) => service,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(plugin = services.plugin, "its worker's services ended: {error}");
                    return;
                }
            };
            let Some(served) = serve_one(&services, service) else { continue };
            if send(&mut socket, &served, LARGEST_SERVICE).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("billhook-services".to_owned()).spawn(serve).map(drop)
}

fn serve_one(services: &PluginServices, service: Service) -> Option<Served> {
    let changed = |changed: Result<(), PluginError>| match changed {
        Ok(()) => Served::Done,
        Err(error) => Served::Refused(error.into()),
    };
    Some(match service {
        Service::Log { level, message } => {
            services.log(level, beginning(&message, LONGEST_LINE));
            return None;
        }
        Service::Get { key } => match services.state_get(&key) {
            Ok(value) => Served::Value(value.and_then(|value| String::from_utf8(value).ok())),
            Err(error) => Served::Refused(error.into()),
        },
        Service::Keep { key, value } => changed(services.state_keep(&key, &value)),
        Service::Delete { key } => changed(services.state_delete(&key)),
    })
}
