//! What a worker process does: it confines itself, loads one plugin, and answers calls until its host is gone.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process,
    sync::{Mutex, PoisonError},
};

use billhook_plugin_api::{
    Hook, PluginError,
    abi::{
        services::{HostServices, check_state_size},
        tables::LazyOrder,
    },
    call::{HookObjects, OwnedHookCall},
    data::Contract,
};

use billhook_model::text::beginning;
use billhook_process::{Bounds, be_killed_first, confine, is_shortage, split};

use super::{
    super::{Library, LoadedInstance},
    wire::{
        Asked, Incoming, LARGEST_CALL, LARGEST_REFUSAL, LARGEST_SERVICE, LONGEST_LINE, LONGEST_MESSAGE, Load, PROTOCOL,
        Said, Served, Service, largest_answer, receive, send,
    },
};

/// The exit code of a worker that the system gives no process, before any code of the plugin's ran.
pub(super) const NO_ROOM: i32 = 71;

/// Runs as a worker: standard input is the socket of calls, standard output that of services.
pub(crate) fn run(host: u32) -> io::Result<()> {
    if let Err(error) = split(host) {
        let _ = writeln!(io::stderr(), "{error}");
        process::exit(if is_shortage(&error) { NO_ROOM } else { 1 });
    }
    let (calls, services) = take_sockets()?;
    let mut connection = Connection { socket: calls, incoming: Incoming::default() };
    let Some(load) = receive::<Load>(&mut connection.incoming, &mut connection.socket, LARGEST_CALL)? else {
        return Ok(());
    };
    let plugin = match prepare(load, services, &mut connection) {
        Ok(plugin) => plugin,
        Err(NotReady { message, needs_settings }) => {
            let message = beginning(&message, LONGEST_MESSAGE).to_owned();
            return connection.say(&Said::NotReady { message, needs_settings }, LARGEST_REFUSAL);
        }
    };
    connection.serve(&plugin)?;
    // The host is gone or done: what the plugin wants to put in order it does now. A host that tries it still listens.
    if let Err(error) = plugin.end() {
        let _ = connection.say(&refused(error), LARGEST_REFUSAL);
    }
    process::exit(0);
}

/// Takes the two sockets, and puts in their places what a plugin may read and write: nothing, and standard error.
fn take_sockets() -> io::Result<(UnixStream, UnixStream)> {
    let (input, output) = (io::stdin(), io::stdout());
    let calls: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&input, 3)?;
    let services: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&output, 3)?;
    rustix::stdio::dup2_stdin(&File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok((calls.into(), services.into()))
}

/// Why there is no plugin.
struct NotReady {
    message: String,
    needs_settings: bool,
}

impl<E: std::fmt::Display> From<E> for NotReady {
    fn from(error: E) -> Self {
        NotReady { message: error.to_string(), needs_settings: false }
    }
}

/// Confines this process, loads the plugin and makes its instance.
fn prepare(load: Load, services: UnixStream, connection: &mut Connection) -> Result<LoadedInstance, NotReady> {
    if load.protocol != PROTOCOL {
        return Err(format!("the host speaks protocol {} and this worker {PROTOCOL}", load.protocol).into());
    }
    let mut lacks = Vec::new();
    if load.is_confined {
        let folder = load.folder.as_ref().ok_or_else(|| NotReady::from("it got no folder of its own"))?;
        std::env::set_current_dir(folder).map_err(|error| format!("its own folder can't be entered: {error}"))?;
        lacks = confine(&Bounds { limits: &load.limits, package: &load.package_folder, folder })?;
    } else {
        be_killed_first();
    }
    // While no code of the plugin's has run: later it could say anything.
    connection.say(&Said::Loading { process: process::id() }, LARGEST_REFUSAL)?;
    let library = Library::open(&load.library, &load.module)?;
    connection.say(&Said::Constructing, LARGEST_REFUSAL)?;
    let services = RemoteServices {
        plugin: load.plugin,
        settings: load.settings,
        package_folder: load.package_folder.to_string_lossy().into_owned(),
        socket: Mutex::new((services, Incoming::default())),
    };
    let instance = library.construct(services).map_err(|error| NotReady {
        message: if error.is_panic() { format!("the plugin {}", error.message()) } else { error.message().to_owned() },
        // A constructor that panics is a fault of the plugin's; one that returns an error asks for other settings.
        needs_settings: !error.is_panic(),
    })?;
    connection.say(&Said::Ready { protocol: PROTOCOL, lacks }, LARGEST_REFUSAL)?;
    Ok(instance)
}

/// The socket of calls.
struct Connection {
    socket: UnixStream,
    incoming: Incoming,
}

impl Connection {
    fn say(&mut self, said: &Said, largest: usize) -> io::Result<()> {
        match send(&mut self.socket, said, largest) {
            // The host takes no larger answer; it gets the reason instead.
            Err(error) if error.kind() == io::ErrorKind::Other => {
                let refused = Said::Refused(PluginError::internal(format!("its answer can't be sent: {error}")).into());
                send(&mut self.socket, &refused, LARGEST_REFUSAL)
            }
            sent => sent,
        }
    }

    /// Answers calls until the host closes the socket.
    fn serve(&mut self, plugin: &LoadedInstance) -> io::Result<()> {
        while let Some(asked) = receive(&mut self.incoming, &mut self.socket, LARGEST_CALL)? {
            let (said, largest) = match asked {
                Asked::Call { hook, objects } => (self.call(plugin, hook, *objects), largest_answer(hook)),
                Asked::Contracts(_) => return Err(io::Error::other("contracts that nobody asked for")),
            };
            self.incoming.shrink();
            self.say(&said, largest)?;
        }
        Ok(())
    }

    fn call(&mut self, plugin: &LoadedInstance, hook: Hook, objects: HookObjects) -> Said {
        let call = match OwnedHookCall::new(hook, objects) {
            Ok(call) => call,
            Err(missing) => return refused(PluginError::bad_value(missing.to_string())),
        };
        let connection = Mutex::new(self);
        let fetch = || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            // Without its host this process has nothing left to do, and nobody to tell.
            connection.fetch_contracts().unwrap_or_else(|_| process::abort())
        };
        let lazy = call.order().map(|order| LazyOrder::new(order, &fetch));
        match plugin.call(call.with_contracts(lazy.as_ref())) {
            Ok(reply) => match serde_json::value::to_raw_value(&reply) {
                Ok(reply) => Said::Done(reply),
                Err(error) => refused(PluginError::internal(format!("its answer can't be written: {error}"))),
            },
            Err(error) => refused(error),
        }
    }

    fn fetch_contracts(&mut self) -> io::Result<Vec<Contract>> {
        self.say(&Said::NeedContracts, LARGEST_REFUSAL)?;
        match receive(&mut self.incoming, &mut self.socket, LARGEST_CALL)? {
            Some(Asked::Contracts(contracts)) => Ok(contracts),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn refused(error: PluginError) -> Said {
    Said::Refused(error.into())
}

/// The services of a plugin whose host is another process.
struct RemoteServices {
    plugin: String,
    settings: String,
    package_folder: String,
    socket: Mutex<(UnixStream, Incoming)>,
}

impl RemoteServices {
    fn ask(&self, service: &Service) -> Result<Served, PluginError> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, incoming) = &mut *socket;
        send(socket, service, LARGEST_SERVICE)?;
        let gone = || PluginError::unavailable("the host is gone");
        receive(incoming, socket, LARGEST_SERVICE)?.ok_or_else(gone)
    }

    fn change(&self, service: &Service) -> Result<(), PluginError> {
        match self.ask(service)? {
            Served::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }
}

impl HostServices for RemoteServices {
    fn plugin_id(&self) -> &str {
        &self.plugin
    }

    fn settings(&self) -> &str {
        &self.settings
    }

    fn package_folder(&self) -> &str {
        &self.package_folder
    }

    fn log(&self, level: u32, message: &str) {
        let message = beginning(message, LONGEST_LINE).to_owned();
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever logs can't do anything about a host that is gone.
        if send(&mut socket.0, &Service::Log { level, message }, LARGEST_SERVICE).is_err() {
            let _ = io::stderr().write_all(b"the log can't be reached\n");
        }
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        check_state_size(key, "")?;
        match self.ask(&Service::Get { key: key.to_owned() })? {
            Served::Value(value) => Ok(value.map(String::into_bytes)),
            Served::Refused(refusal) => Err(refusal.into()),
            Served::Done => Ok(None),
        }
    }

    fn state_keep(&self, key: &str, value: &str) -> Result<(), PluginError> {
        check_state_size(key, value)?;
        self.change(&Service::Keep { key: key.to_owned(), value: value.to_owned() })
    }

    fn state_delete(&self, key: &str) -> Result<(), PluginError> {
        check_state_size(key, "")?;
        self.change(&Service::Delete { key: key.to_owned() })
    }
}
