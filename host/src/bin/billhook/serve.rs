//! `billhook serve`

use std::sync::Arc;

use crate::{Global, output::Output, signals};
use anyhow::Context as _;
use billhook::{
    Host,
    server::{Metrics, Server},
};

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
    let host = Arc::new(Host::open_with(home, config.options()?.observe(true))?);
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
    check_threads().context("the server can't be started")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(options.blocking_threads())
        .thread_name("billhook-server")
        .build()
        .context("the server's threads can't be started")?;
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
        output.answer(&serde_json::json!({"listening": format!("{scheme}://{address}")}), |_| {
            format!("listening on {scheme}://{address}")
        })?;
        let stop = async move { drop(asked.await) };
        server.run(stop).await?;
        anyhow::Ok(())
    });
    // A plugin that never returns would hold up the end for ever.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

/// Refuses to start where the system doesn't give this process the threads that it needs: the runtime would end in the middle of
/// its start.
fn check_threads() -> anyhow::Result<()> {
    // The runtime's own, those for calls and for background work of the host, and one for a call.
    const BESIDE: usize = 8;
    let needed = std::thread::available_parallelism().map_or(1, usize::from) + BESIDE;
    let barrier = Arc::new(std::sync::Mutex::new(()));
    let held = barrier.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut threads = Vec::new();
    let mut refused = None;
    for _ in 0..needed {
        let barrier = Arc::clone(&barrier);
        match std::thread::Builder::new().spawn(move || drop(barrier.lock())) {
            Ok(thread) => threads.push(thread),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    drop(held);
    let started = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    match refused {
        None => Ok(()),
        Some(error) => anyhow::bail!(
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
