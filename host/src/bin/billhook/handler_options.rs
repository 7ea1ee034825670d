//! What `addhandler` and `sethandler` both take.

use std::path::{Path, PathBuf};

use billhook::{Handler, HandlerStatus, Mode, OnFailure, Task};

use crate::{choice::choice, inputs::read_text, times::milliseconds};

#[derive(clap::Args)]
pub(crate) struct HandlerOptions {
    /// When it is called: before, where it may change or forbid, or after
    #[arg(long, value_name = "MODE", value_parser = choice::<Mode>())]
    mode: Option<Mode>,
    /// Whether it is called
    #[arg(long, value_name = "STATUS", value_parser = choice::<HandlerStatus>())]
    pub(crate) status: Option<HandlerStatus>,
    /// Its place among the listeners: lower ones come first; 100 unless set
    #[arg(long, value_name = "NUMBER")]
    priority: Option<u32>,
    /// How long a call may take, such as 500ms or 10s
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    deadline: Option<u64>,
    /// How often a delivery is attempted, the first time included; 8 unless set
    #[arg(long, value_name = "NUMBER")]
    attempts: Option<u32>,
    /// The pause after the first attempt, which doubles from then on; 1s unless set
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    first_pause: Option<u64>,
    /// The longest pause; 10m unless set
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    longest_pause: Option<u64>,
    /// What stands for a before handler that gives no answer: open goes on, closed forbids
    #[arg(long, value_name = "POLICY", value_parser = choice::<OnFailure>())]
    on_failure: Option<OnFailure>,
    /// The name of an environment variable that a script gets; may be repeated
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// A file that holds nothing but the key that calls over HTTP are signed with
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// A task: an address, or the path of a script. Words behind the path are its arguments, unless there is a file of the whole name.
pub(crate) fn task(text: &str, arguments: &[String]) -> Task {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Task::Http(text.to_owned());
    }
    let mut words: Vec<String> = if Path::new(text).exists() {
        vec![text.to_owned()]
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    words.extend(arguments.iter().cloned());
    Task::Script(words)
}

/// What a script lacks to be run, to be said beside the answer: it may be put there later.
pub(crate) fn warning(task: &Task) -> Option<String> {
    let Task::Script(words) = task else { return None };
    let path = words.first()?;
    match std::fs::metadata(path) {
        Err(error) => Some(format!("{path} can't be run: {error}")),
        Ok(metadata) if !metadata.is_file() => Some(format!("{path} can't be run: it is no file")),
        Ok(metadata) if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 == 0 => {
            Some(format!("{path} can't be run: it is not executable; chmod +x makes it so"))
        }
        Ok(_) => None,
    }
}

impl HandlerOptions {
    /// The secret, if one is to be set.
    pub(crate) fn secret(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.secret_file else { return Ok(None) };
        let secret = read_text(path)?.trim_end_matches(['\r', '\n']).to_owned();
        anyhow::ensure!(!secret.is_empty(), "{} is empty", path.display());
        Ok(Some(secret))
    }

    /// Whether anything is to be set.
    pub(crate) fn is_empty(&self) -> bool {
        let HandlerOptions { mode, status, priority, deadline, attempts, first_pause, longest_pause, .. } = self;
        let numbers = priority.is_none() && deadline.is_none() && attempts.is_none();
        let others = mode.is_none() && status.is_none() && self.on_failure.is_none() && self.secret_file.is_none();
        numbers && others && first_pause.is_none() && longest_pause.is_none() && self.env.is_empty()
    }

    /// Refuses what would be of no effect.
    pub(crate) fn check(&self, handler: &Handler, arguments: &[String]) -> anyhow::Result<()> {
        let is_retry = self.attempts.is_some() || self.first_pause.is_some() || self.longest_pause.is_some();
        if is_retry && handler.mode == Mode::Before {
            anyhow::bail!("a before handler is asked once: --attempts and pauses are for handlers after the event");
        }
        if self.on_failure.is_some() && handler.mode == Mode::After {
            anyhow::bail!("--on-failure is for handlers before the event; after it, a delivery is attempted again");
        }
        if !arguments.is_empty() && matches!(handler.task, Task::Http(_)) {
            anyhow::bail!("--arg is for scripts; put what an address needs into the address");
        }
        Ok(())
    }

    /// Sets what was given.
    pub(crate) fn apply(&self, handler: &mut Handler, secret: Option<String>) {
        if let Some(mode) = self.mode {
            handler.mode = mode;
        }
        if let Some(status) = self.status {
            handler.status = status;
        }
        if let Some(policy) = self.on_failure {
            handler.on_failure = policy;
        }
        handler.priority = self.priority.unwrap_or(handler.priority);
        handler.deadline_ms = self.deadline.unwrap_or(handler.deadline_ms);
        handler.retry.attempts = self.attempts.unwrap_or(handler.retry.attempts);
        handler.retry.first_ms = self.first_pause.unwrap_or(handler.retry.first_ms);
        handler.retry.longest_ms = self.longest_pause.unwrap_or(handler.retry.longest_ms);
        if !self.env.is_empty() {
            handler.environment.clone_from(&self.env);
        }
        if secret.is_some() {
            handler.secret = secret;
        }
    }
}
