//! Packages that come in over HTTP: a file of the home that grows as they come, and that is deleted if they don't come whole.

use std::{future::Future, time::Duration};

use axum::http::StatusCode;
use tempfile::NamedTempFile;
use tokio::{
    fs::File,
    io::AsyncWriteExt as _,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{problem::Problem, state::App};
use crate::Host;

/// Refuses code that comes in over HTTP, where the operator doesn't want any.
pub(super) fn refuse_uploads(app: &App) -> Result<(), Problem> {
    if app.options.uploads {
        return Ok(());
    }
    let detail = "this server takes no code over HTTP: neither packages nor handlers that run scripts";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// A package that is larger than packages may be.
pub(super) fn too_large(app: &App) -> Problem {
    let detail = format!("the package has more than {} bytes", app.host.package_limit());
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// How long a package may take to arrive: in all, and from piece to piece.
pub(super) struct Patience {
    end: Instant,
    piece: Duration,
}

impl Patience {
    pub(super) fn new(app: &App) -> Self {
        let options = &app.options;
        Patience {
            end: Instant::now() + Duration::from_secs(options.upload_s),
            piece: Duration::from_secs(options.receive_s),
        }
    }

    /// What comes next, if it comes in time.
    pub(super) async fn wait<T>(&self, next: impl Future<Output = T>) -> Result<T, Problem> {
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the package took too long to arrive");
        timeout_at(self.end.min(Instant::now() + self.piece), next).await.map_err(late)
    }
}

/// A package that is coming in, piece by piece. Only few come at once.
pub(super) struct Upload<'a> {
    app: &'a App,
    file: NamedTempFile,
    writer: File,
    size: u64,
    _turn: OwnedSemaphorePermit,
}

impl<'a> Upload<'a> {
    pub(super) async fn begin(app: &'a App) -> Result<Self, Problem> {
        let turn = app.upload_turn().await?;
        let file = app.manage(Host::upload_file).await??;
        let writer = File::from_std(file.reopen().map_err(unwritable)?);
        Ok(Upload { app, file, writer, size: 0, _turn: turn })
    }

    pub(super) async fn add(&mut self, piece: &[u8]) -> Result<(), Problem> {
        self.size += piece.len() as u64;
        if self.size > self.app.host.package_limit() {
            return Err(too_large(self.app));
        }
        self.writer.write_all(piece).await.map_err(unwritable)
    }

    /// How many bytes came so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The file, which is deleted when it is dropped.
    pub(super) async fn end(mut self) -> Result<NamedTempFile, Problem> {
        self.writer.flush().await.map_err(unwritable)?;
        Ok(self.file)
    }
}

fn unwritable(error: std::io::Error) -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, format!("the package can't be written to the home: {error}"))
}
