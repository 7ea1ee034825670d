//! How a server works.

use std::{io, net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// How a server works; the table `[server]` of a configuration. The defaults suit most.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The address to listen on: host and port. `127.0.0.1:8420` unless set.
    pub listen: String,
    /// Lets everybody who reaches the server do everything. Only on a loopback address.
    pub insecure_no_auth: bool,
    /// Whether code may come in over HTTP: packages, and handlers that run scripts. It may unless set.
    pub uploads: bool,
    /// The names that the server is called by, with the port where it isn't the usual one. A request for another name is
    /// refused. Without them, any name is taken where clients prove who they are, and those of loopback addresses where they
    /// don't.
    pub hosts: Vec<String>,
    /// What addresses in answers begin with, such as `https://billhook.example`; what the client asked unless set.
    pub public_url: Option<String>,
    /// Whether a proxy is before the server, whose last `X-Forwarded-For` tells who asks.
    pub behind_proxy: bool,
    /// The certificate; without one, the server speaks plain HTTP.
    pub tls: Option<TlsOptions>,
    /// The most bytes of a request's body, in KiB; packages have limits of their own. 4096 unless set.
    pub body_kb: usize,
    /// How long a client may take to send a request's head, and as long again its body, in seconds; 30 unless set.
    pub receive_s: u64,
    /// How long a package may take to arrive, in seconds; 600 unless set.
    pub upload_s: u64,
    /// How many connections there may be at once. Where there are more, one that is quiet gives way; if all are at work, later
    /// ones wait. 4096 unless set.
    pub connections: usize,
    /// How many of them one address may have, unless it is this machine's or a proxy's; 1024 unless set.
    pub connections_per_peer: usize,
    /// How many calls of plugins may be under way at once; 256 unless set. Others wait, and are refused after five seconds.
    pub calls: usize,
    /// How many of them may be to one plugin; 64 unless set.
    pub calls_per_plugin: usize,
    /// How often a client may guess a secret at once; later it has one guess in two seconds. 60 unless set.
    pub guesses: u32,
    /// How long what is under way may take when the server is told to stop, in seconds; 30 unless set.
    pub drain_s: u64,
    /// Add-on provisioning.
    pub provisioning: ProvisioningOptions,
}

/// A certificate and its key, two PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// The file of the certificate, and those that lead to its root.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
}

/// Where platforms find the add-ons.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProvisioningOptions {
    /// What the paths of resources begin with; `/cloudcontrol` unless set, and `/heroku` for Heroku.
    pub base_path: String,
    /// The path of single sign-on; `/sso/login` unless set.
    pub sign_on_path: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: "127.0.0.1:8420".to_owned(),
            insecure_no_auth: false,
            uploads: true,
            hosts: Vec::new(),
            public_url: None,
            behind_proxy: false,
            tls: None,
            body_kb: 4096,
            receive_s: 30,
            upload_s: 600,
            connections: 4096,
            connections_per_peer: 1024,
            calls: 256,
            calls_per_plugin: 64,
            guesses: 60,
            drain_s: 30,
            provisioning: ProvisioningOptions::default(),
        }
    }
}

impl ProvisioningOptions {
    /// Whether a path is one that platforms ask for.
    pub(super) fn is_for_platforms(&self, path: &str) -> bool {
        let is_below =
            path.strip_prefix(self.base_path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_below || path.trim_end_matches('/') == self.sign_on_path
    }
}

impl Default for ProvisioningOptions {
    fn default() -> Self {
        ProvisioningOptions { base_path: "/cloudcontrol".to_owned(), sign_on_path: "/sso/login".to_owned() }
    }
}

/// Why a server can't work so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerOptionsError {
    /// The address can't be had.
    #[error("{address} can't be listened on: {source}; it has to be HOST:PORT, and a port that nobody has")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The system doesn't give the threads that it needs.
    #[error(
        "the server's threads can't be started: {0}; raise the limit of processes (ulimit -u, TasksMax or pids.max)"
    )]
    Threads(#[source] io::Error),
    /// Without authentication, only a loopback address is listened on.
    #[error("{address} is no loopback address: there, clients have to prove who they are")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The certificate or its key can't be used.
    #[error("{} can't be used: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A number or a path makes no sense.
    #[error("the server's option {name} is wrong: {problem}")]
    Value {
        /// The option.
        name: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl ServerOptions {
    /// How many threads the server has for what blocks, at most.
    pub fn blocking_threads(&self) -> usize {
        self.calls + MANAGEMENT + SEARCHES + 16
    }

    /// How many open files a process needs for it, at most: connections, and what calls and databases open.
    pub fn files(&self) -> usize {
        self.connections + 2 * self.blocking_threads() + 256
    }

    pub(super) fn check(&self) -> Result<(), ServerOptionsError> {
        let wrong = |name, problem| Err(ServerOptionsError::Value { name, problem });
        for (name, number) in [
            ("connections", self.connections),
            ("connections_per_peer", self.connections_per_peer),
            ("calls", self.calls),
            ("calls_per_plugin", self.calls_per_plugin),
            ("body_kb", self.body_kb),
        ] {
            if number == 0 || number > 1_000_000 {
                return wrong(name, "it has to be 1 to 1000000");
            }
        }
        for (name, seconds) in [("receive_s", self.receive_s), ("upload_s", self.upload_s)] {
            if seconds == 0 || seconds > 86_400 {
                return wrong(name, "it has to be 1 to 86400");
            }
        }
        let ProvisioningOptions { base_path, sign_on_path } = &self.provisioning;
        for (name, path) in [("provisioning.base_path", base_path), ("provisioning.sign_on_path", sign_on_path)] {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
            if !path.starts_with('/') || path.ends_with('/') || path.contains("//") || !path.chars().all(is_plain) {
                return wrong(name, "it has to begin with / and not to end with one, of letters, digits and -._~/");
            }
            if path.split('/').any(|part| part == "." || part == "..") {
                return wrong(name, "it has to have no parts that are . or ..");
            }
            let taken = [
                "/api",
                "/assets",
                "/charging",
                "/deliveries",
                "/events",
                "/handlers",
                "/healthz",
                "/log",
                "/login",
                "/logout",
                "/metrics",
                "/plugins",
                "/readyz",
                "/resources",
            ];
            if taken.iter().any(|taken| path == taken || path.starts_with(&format!("{taken}/"))) {
                return wrong(name, "something else is there");
            }
        }
        if sign_on_path == base_path || sign_on_path.starts_with(&format!("{base_path}/resources")) {
            return wrong("provisioning.sign_on_path", "resources are there");
        }
        // With a scheme or a path it would never be what a client names.
        if self.hosts.iter().any(|host| host.is_empty() || host.contains('/') || host.contains(char::is_whitespace)) {
            return wrong("hosts", "each has to be a name or an address, with a port where it isn't the usual one");
        }
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if self.public_url.as_ref().is_some_and(|url| !is_url(url) || url.ends_with('/')) {
            return wrong("public_url", "it has to begin with http:// or https:// and not to end with /");
        }
        Ok(())
    }
}

/// So many requests that manage or look may be under way at once.
pub(super) const MANAGEMENT: usize = 32;
/// So many searches.
pub(super) const SEARCHES: usize = 2;
