//! `billhook serve`

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use billhook::{
    Host, HostError,
    server::{Metrics, Server},
};
use tokio::runtime::Runtime;

use crate::{global::Global, output::Output, signals, streams};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on [default: 127.0.0.1:8420]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Let everybody on this machine do everything, without a token; only on a loopback address
    #[arg(long)]
    insecure_no_auth: bool,
    /// Take no code over HTTP: neither packages nor handlers that run scripts
    #[arg(long)]
    no_uploads: bool,
}

pub(crate) fn run(arguments: &Arguments, global: &Global, output: &Output) -> anyhow::Result<()> {
    let home = global.home()?;
    // A misspelt name would serve nothing, and look well.
    if !home.join("registry.db").exists() {
        output.note("note", &format!("there is no home at {} yet: a new one is made", home.display()));
    }
    let config = global.config(&home)?;
    let mut options = config.server();
    if let Some(listen) = &arguments.listen {
        options.listen.clone_from(listen);
    }
    options.insecure_no_auth |= arguments.insecure_no_auth;
    options.uploads &= !arguments.no_uploads;
    allow_files(options.files());
    let metrics = Metrics::install().map_err(|error| anyhow::anyhow!("metrics can't be counted: {error}"))?;
    streams::count_lost();
    let host = Arc::new(Host::open_with(home, global.options(&config)?.observe(true))?);
    if host.is_read_only() {
        return Err(HostError::ReadOnly { path: host.home().to_owned() }).context("it can't be served");
    }
    if !options.insecure_no_auth && host.tokens()?.is_empty() {
        output.note(
            "note",
            "there is no token yet, so nobody but add-ons' platforms gets in; `billhook token create` makes one",
        );
    }
    let (ask, asked) = tokio::sync::oneshot::channel();
    signals::watch(move || {
        let _ = ask.send(());
    })
    .context("signals can't be watched")?;
    let runtime = runtime().context("the server can't be started")?;
    let done = runtime.block_on(async {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let server = Server::bind(host, options, Some(metrics)).await?;
        // The only line on standard output: whoever started the server learns from it where it is.
        let address = server.address();
        if scheme == "http" && !address.ip().is_loopback() {
            let detail = "without TLS, tokens and passwords go over the network as they are: [server.tls] names a certificate, \
                          or a proxy before the server speaks TLS";
            output.note("warning", detail);
        }
        announce(*output, format!("{scheme}://{address}"));
        let stop = async move { drop(asked.await) };
        server.run(stop).await?;
        anyhow::Ok(())
    });
    // A plugin that never returns would hold up the end for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Says where the server listens: on a thread of its own, because whoever is to read it may not, and nobody waits for that.
fn announce(output: Output, address: String) {
    let say =
        move || output.answer(&serde_json::json!({ "listening": address }), |_| format!("listening on {address}"));
    if let Err(error) = thread::Builder::new().name("billhook-announce".to_owned()).spawn(say) {
        tracing::warn!("where the server listens can't be said: {error}");
    }
}

/// Starts the threads that speak with clients. Refuses to start where the system doesn't give this process what it needs: the
/// runtime would end in the middle of its start, or wait for ever.
fn runtime() -> anyhow::Result<Runtime> {
    check_threads()?;
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("billhook-server");
    builder.on_thread_start(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    // It panics where it can't start its first thread, and says nothing of the others.
    let built = catch_unwind(AssertUnwindSafe(move || builder.build()));
    let runtime = built.map_err(|_| anyhow::anyhow!("its threads can't be started"))??;
    let deadline = Instant::now() + LONGEST_START;
    while started.load(Ordering::Relaxed) < runtime.metrics().num_workers() {
        if Instant::now() >= deadline {
            bail!("the system doesn't start its threads: raise ulimit -u, TasksMax or pids.max");
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(runtime)
}

/// How long the system may take to start threads that it gave.
const LONGEST_START: Duration = Duration::from_secs(10);

/// Looks whether the system gives this process the threads that a server needs, by starting as many, all at once.
fn check_threads() -> anyhow::Result<()> {
    // The server's and the host's own, and one for a call.
    const BESIDE: usize = 12;
    let needed = thread::available_parallelism().map_or(1, usize::from) + BESIDE;
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut threads, mut refused) = (Vec::new(), None);
    for _ in 0..needed {
        let gate = Arc::clone(&gate);
        match thread::Builder::new().name("billhook-check".to_owned()).spawn(move || drop(gate.lock())) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    drop(closed);
    let started = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    match refused {
        None => Ok(()),
        Some(error) => bail!(
            "it needs {needed} threads, and the system lets it have {started} (raise ulimit -u, TasksMax or pids.max): {error}"
        ),
    }
}

/// Lets this process have so many files and connections open, as far as the system allows; mostly, a shell lets it have 1024.
fn allow_files(needed: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = needed as u64;
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    if raised.is_err() || allowed < needed {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or_default();
        tracing::warn!(
            "{needed} open files may be needed, and {allowed} are allowed: raise the limit (ulimit -n, LimitNOFILE) or lower the server's option connections"
        );
    }
}
