//! A server of the command's, in a process of its own, and a client that takes every status as an answer.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Request, Response},
};

use super::Home;

/// A running `billhook serve`; it is ended with the test.
pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    pub(crate) scheme: &'static str,
    /// A token with the scope `manage`.
    pub(crate) token: String,
    agent: Agent,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    /// The answer if it has this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}

/// A client that follows nothing, keeps no cookies, and takes every status.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(120)))
        .build()
        .into()
}

/// Makes a token.
pub(crate) fn token(home: &Home, scope: &str) -> String {
    home.run(&["token", "create", "--scope", scope]).succeeded().stdout.trim().to_owned()
}

impl Server {
    /// A server on a home, with a token to manage it.
    pub(crate) fn start(home: &Home) -> Self {
        Self::start_with(home, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(home: &Home, arguments: &[&str]) -> Self {
        let token = token(home, "manage");
        let mut command = home.command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        let log = File::create(home.folder().join("server.log")).expect("made");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it is");
        let said = line.trim().strip_prefix("listening on ").unwrap_or_else(|| {
            let log = std::fs::read_to_string(home.folder().join("server.log")).unwrap_or_default();
            panic!("it said {line:?}: {log}")
        });
        let (scheme, address) = said.split_once("://").expect("an address");
        let scheme = if scheme == "https" { "https" } else { "http" };
        Server { child, address: address.to_owned(), scheme, token, agent: agent() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Any request: method, path, headers, body.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_vec()).expect("a request");
        let config = self.agent.configure_request(request).allow_non_standard_methods(true).build();
        read(self.agent.run(config).expect("an answer"))
    }

    /// A request of whoever manages: JSON, or nothing.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_as(&self.token, method, path, body)
    }

    /// The same with another token.
    #[track_caller]
    pub(crate) fn ask_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("authorization", authorization.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.request(method, path, &headers, body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body))
    }

    /// Uploads a package.
    #[track_caller]
    pub(crate) fn upload(&self, package: &[u8]) -> Answer {
        let authorization = format!("Bearer {}", self.token);
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/zip")];
        self.request("POST", "/api/v1/plugins", &headers, package)
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// Asks it to end, and waits for it. Whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it is there");
        self.child.wait().expect("it ends").success()
    }
}

fn read(mut response: Response<Body>) -> Answer {
    let body = response.body_mut().with_config().limit(64 * 1024 * 1024).read_to_vec().expect("read");
    let body = String::from_utf8(body).expect("UTF-8");
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
