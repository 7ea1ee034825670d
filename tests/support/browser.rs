//! A real browser, steered through its driver: Chromium, without a window.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::wait_for;

/// A browser that is ended with the test.
pub(crate) struct Browser {
    driver: Child,
    agent: Agent,
    /// The address of its session.
    session: String,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The program by its name, where it is installed.
fn program(names: &[&str]) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// Starts the driver. Its port, if it got one.
fn start_driver(program: &Path) -> Option<(Child, String)> {
    let mut command = Command::new(program);
    let mut driver = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
    let port = lines.find_map(|line| {
        let line = line.expect("readable");
        let port = line.strip_prefix("ChromeDriver was started successfully on port ")?;
        Some(port.trim_end_matches('.').to_owned())
    });
    let Some(port) = port else {
        let _ = driver.kill();
        let _ = driver.wait();
        return None;
    };
    // Whatever else it says is read, so that it never waits.
    std::thread::spawn(move || lines.for_each(drop));
    Some((driver, port))
}

impl Browser {
    /// A browser; none where none is installed, which is told.
    pub(crate) fn start() -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let Some((driver, program)) = program(&["chromedriver"]).zip(program(&names)) else {
            assert!(std::env::var_os("BILLHOOK_BROWSER").is_none(), "a browser has to be there, and isn't");
            // Not through the test's own output, which nobody sees of a test that passes.
            let _ =
                writeln!(io::stderr(), "SKIPPED: chromium and chromedriver are not installed, so no browser is tested");
            return None;
        };
        // One at a time: they are large, and the machines small.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // The port that it chose may be somebody else's by the time it listens; it ends then.
        let (driver, port) = (0..20).find_map(|_| start_driver(&driver)).expect("the driver says where it is");
        let profile = tempfile::tempdir().expect("a folder");
        let agent = super::server::agent();
        let mut browser = Browser {
            driver,
            agent,
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
            _turn: turn,
        };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            folder.as_str(),
        ];
        let options = json!({"binary": program, "args": arguments});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options
        }}});
        let made = browser.post("", &wanted);
        let id = made["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.run("POST", path, Some(body)).unwrap_or_else(|problem| panic!("{path} {body}: {problem}"))
    }

    fn run(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.session));
        let request = request.header("content-type", "application/json");
        let request =
            request.body(body.map(ToString::to_string).unwrap_or_default()).map_err(|error| error.to_string())?;
        let mut answer = self.agent.run(request).map_err(|error| error.to_string())?;
        let text =
            answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|error| error.to_string())?;
        let mut answered: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer.status().is_success() { Ok(answered["value"].take()) } else { Err(text) }
    }

    /// Opens an address.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
        // On a busy machine the driver answers before the page has all that it is made of.
        wait_for(url, || self.script("return document.readyState") == "complete");
    }

    /// The path that is open.
    pub(crate) fn path(&self) -> String {
        self.script("return location.pathname").as_str().expect("text").to_owned()
    }

    /// What a script answers.
    #[track_caller]
    pub(crate) fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Writes into a field, in place of what is there. Of a file's field: chooses the file.
    #[track_caller]
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        // A file's field has nothing to be taken away.
        let _ = self.run("POST", &format!("/element/{element}/clear"), Some(&json!({})));
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    /// Chooses an option of a select.
    #[track_caller]
    pub(crate) fn choose(&self, selector: &str, value: &str) {
        self.click(&format!("{selector} option[value=\"{value}\"]"));
    }

    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        // Another page may come between the two: then nothing was clicked, and it is looked for in that one.
        wait_for(selector, || {
            let path = format!("/element/{}/click", self.element(selector));
            match self.run("POST", &path, Some(&json!({}))) {
                Ok(_) => true,
                Err(problem) if problem.contains("stale element reference") => false,
                Err(problem) => panic!("{path}: {problem}"),
            }
        });
    }

    /// Presses keys, wherever the focus is.
    #[track_caller]
    pub(crate) fn press(&self, keys: &[char]) {
        let presses = keys.iter().flat_map(|key| {
            let key = key.to_string();
            [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
        });
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": presses.collect::<Vec<_>>()}]});
        self.post("/actions", &actions);
    }

    /// All text of the page's content.
    pub(crate) fn text(&self) -> String {
        self.script("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows a text.
    #[track_caller]
    pub(crate) fn shows(&self, expected: &str) {
        wait_for(expected, || self.text().contains(expected));
    }

    /// Gives the page a width and a scheme of colours, as a device of that size has.
    #[track_caller]
    pub(crate) fn be(&self, width: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.develop("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.develop("Emulation.setEmulatedMedia", &features);
    }

    #[track_caller]
    fn develop(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// What the browser complained of: errors of scripts, what the page's policy forbade, what couldn't be loaded.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().expect("a list").iter();
        let complaints =
            lines.filter(|line| ["SEVERE", "WARNING"].contains(&line["level"].as_str().unwrap_or_default()));
        complaints.map(|line| line["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.run("DELETE", "", None);
        std::thread::sleep(Duration::from_millis(50));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
