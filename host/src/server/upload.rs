//! Packages that come in over HTTP: a file of the home that grows as they come, and that is deleted if they don't come whole.

use std::{collections::HashMap, fs::File, future::Future, io::Write as _, sync::Arc, time::Duration};

use axum::{
    extract::{Multipart, multipart::MultipartError},
    http::StatusCode,
};
use http_body_util::BodyExt as _;
use tempfile::NamedTempFile;
use tokio::{
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

/// So many bytes are written at once.
const WRITTEN_AT_ONCE: usize = 256 * 1024;

/// A package that is coming in, piece by piece. Only few come at once.
pub(super) struct Upload<'a> {
    app: &'a App,
    file: NamedTempFile,
    writer: Arc<File>,
    /// What came and isn't written yet.
    gathered: Vec<u8>,
    size: u64,
    _turn: OwnedSemaphorePermit,
}

impl<'a> Upload<'a> {
    pub(super) async fn begin(app: &'a App) -> Result<Self, Problem> {
        let turn = app.upload_turn().await?;
        let file = app.manage(Host::upload_file).await??;
        let writer = Arc::new(file.reopen().map_err(unwritable)?);
        Ok(Upload { app, file, writer, gathered: Vec::new(), size: 0, _turn: turn })
    }

    pub(super) async fn add(&mut self, piece: &[u8]) -> Result<(), Problem> {
        self.size += piece.len() as u64;
        if self.size > self.app.host.package_limit() {
            return Err(too_large(self.app));
        }
        self.gathered.extend_from_slice(piece);
        if self.gathered.len() >= WRITTEN_AT_ONCE { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), Problem> {
        let (gathered, writer) = (std::mem::take(&mut self.gathered), Arc::clone(&self.writer));
        self.app.block(move || (&*writer).write_all(&gathered)).await?.map_err(unwritable)
    }

    /// Takes a package that is the whole body of a request.
    pub(super) async fn of_body(app: &'a App, mut body: axum::body::Body) -> Result<NamedTempFile, Problem> {
        let patience = Patience::new(app);
        let mut arriving = Upload::begin(app).await?;
        while let Some(frame) = patience.wait(body.frame()).await? {
            let frame = frame.map_err(|error| Problem::bad_request(format!("the package broke off: {error}")))?;
            if let Ok(piece) = frame.into_data() {
                arriving.add(&piece).await?;
            }
        }
        arriving.end().await
    }

    /// The file, which is deleted when it is dropped.
    pub(super) async fn end(mut self) -> Result<NamedTempFile, Problem> {
        self.write().await?;
        Ok(self.file)
    }
}

/// A package in a form, with other fields before it.
pub(super) struct UploadForm {
    pub(super) fields: HashMap<String, String>,
    pub(super) package: NamedTempFile,
}

/// A field has at most so many bytes; settings may be as long as settings may be anywhere.
const LONGEST_FIELD: usize = 1_000;
const LONGEST_SETTINGS: usize = 1024 * 1024;

impl UploadForm {
    /// Reads a form up to its package, which comes last. `check` looks at the fields before the package is taken.
    pub(super) async fn read(
        app: &App,
        form: &mut Multipart,
        check: impl Fn(&HashMap<String, String>) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let unreadable = |error: MultipartError| Problem::bad_request(error.body_text());
        let mut fields = HashMap::new();
        let patience = Patience::new(app);
        while let Some(mut field) = patience.wait(form.next_field()).await?.map_err(unreadable)? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "package" {
                check(&fields)?;
                let mut arriving = Upload::begin(app).await?;
                while let Some(piece) = patience.wait(field.chunk()).await?.map_err(unreadable)? {
                    arriving.add(&piece).await?;
                }
                if arriving.size == 0 {
                    return Err(Problem::bad_request("no file was chosen"));
                }
                return Ok(UploadForm { fields, package: arriving.end().await? });
            }
            let longest = if name == "settings" { LONGEST_SETTINGS } else { LONGEST_FIELD };
            let mut text = Vec::new();
            while let Some(piece) = patience.wait(field.chunk()).await?.map_err(unreadable)? {
                text.extend_from_slice(&piece);
                if text.len() > longest {
                    return Err(Problem::bad_request(format!("the field {name:?} has more than {longest} bytes")));
                }
            }
            let text = String::from_utf8(text);
            let text = text.map_err(|_| Problem::bad_request(format!("the field {name:?} is not UTF-8")))?;
            fields.insert(name, text);
        }
        Err(Problem::bad_request(
            "no file was chosen; the part that holds the package is called package, and comes last",
        ))
    }
}

fn unwritable(error: std::io::Error) -> Problem {
    Problem::of_server(&error).unwrap_or_else(|| {
        tracing::error!("a package that is coming in can't be written: {error}");
        let detail = format!("the package can't be written to the server's home: {}", error.kind());
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })
}
