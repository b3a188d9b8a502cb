//! Import: many devices are registered from one file.

mod records;
mod row;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use utoipa::IntoParams;
use vestibule_platform::{Import, ImportEnded, RowWrong};

use crate::api::Shared;
use crate::extract::{Answer, Nothing, Params, TheCaller, one_header};
use crate::find::Flag;
use crate::jobs::{IMPORT, ImportList, ImportShape, JobInPath, TheJob, kind};
use crate::problem::{Kind, Problem, ProblemDocument};

use records::Records;
use row::{Head, RowToImport};

/// The longest file, in bytes.
const MAX_FILE: u64 = 128 * 1024 * 1024;
/// And how long it may be in coming.
const MAX_TIME: Duration = Duration::from_secs(60 * 60);

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Ndjson,
    Csv,
}

impl Format {
    fn of(headers: &HeaderMap) -> Answer<Format> {
        let kind = one_header(headers, &header::CONTENT_TYPE).ok().flatten().unwrap_or_default();
        let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind).trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Format::Ndjson),
            "text/csv" => Ok(Format::Csv),
            _ => {
                let detail = "Send devices as \"Content-Type: application/x-ndjson\", one JSON object on each line, or as \
                              \"text/csv\" with a line of names.";
                Err(Problem::new(Kind::UnsupportedMediaType, detail))
            }
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImportParams {
    /// Whether to say only what would be done.
    #[param(value_type = Option<bool>, default = false)]
    dry_run: Option<Flag>,
}

/// Register many devices from one file
///
/// NDJSON with one device on each line, or CSV whose first line names the columns; 100,000 devices and 128 MiB at most. The
/// fields are those of one device, and `disabled`; in CSV `labels` is a cell of JSON, and a column `label:NAME` is the label
/// of this name. What an export says beside that is passed over.
///
/// Rows are registered as they arrive. The answer's head comes at once, with the job's address; its body when the import has
/// ended. A row that cannot be taken is told with its line and does not keep the others out. A device that is registered
/// already and is as its row says is `unchanged`; one that is not is an error, as nothing is changed. So an import that was
/// interrupted is gone on with by sending the same file again. No part of the file is kept, and codes are in no answer.
#[utoipa::path(
    post,
    path = "/v1/imports",
    tag = "devices",
    params(ImportParams),
    request_body(description = "The devices", content(
        (RowToImport = "application/x-ndjson"), (String = "text/csv"),
    )),
    responses(
        (status = 201, description = "The import, when it has ended", body = ImportShape,
            headers(("Location" = String, description = "Address of the import"))),
        (status = 409, description = "As many jobs as may are running",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer, or the platform is shutting down",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn import_devices(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<ImportParams>,
    request: Request,
) -> Answer<Response> {
    if *shared.closing.borrow() {
        return Err(Problem::new(Kind::ShuttingDown, "The platform is shutting down."));
    }
    let format = Format::of(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut body = request.into_body().into_data_stream();
    // A client that waits to be told to go on is told so by the first read, and before it has any other answer.
    let first = timeout(shared.config.body_timeout, body.next()).await;
    let first = first.map_err(|_| Problem::new(Kind::Timeout, "The body did not arrive in time."))?;
    let cut = |_| Problem::new(Kind::MalformedRequest, "The body ended before it was complete.");
    let first = first.transpose().map_err(cut)?.unwrap_or_default();
    let dry_run = params.dry_run.is_some_and(|flag| flag.0);
    let mut import = shared.platform.begin_import(dry_run, &caller).await?;
    let job = Arc::clone(import.job());
    let location = format!("/v1/imports/{}", job.id);
    let (end, ended) = oneshot::channel::<()>();
    // Its own task, so that a client that goes away leaves a job that says so.
    tokio::spawn(async move {
        let (idle, closing) = (shared.config.body_timeout, shared.closing.subscribe());
        let how = File { first, body, length, format, idle, closing }.read_into(&mut import).await;
        import.end(how).await;
        // Nobody may wait for it any more.
        let _ = end.send(());
    });
    let body = stream::once(async move {
        // The task that would say so may have been cut off; the job tells how far it came.
        let _ = ended.await;
        // Strings and numbers always have a JSON text.
        std::io::Result::Ok(Bytes::from(serde_json::to_vec(&ImportShape::from(&*job)).unwrap_or_default()))
    });
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)], Body::from_stream(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A file as it arrives.
struct File {
    first: Bytes,
    body: BodyDataStream,
    /// How long it is, where its sender has said so.
    length: Option<u64>,
    format: Format,
    /// How long nothing may arrive.
    idle: Duration,
    closing: watch::Receiver<bool>,
}

fn interrupted(reason: impl Into<String>) -> ImportEnded {
    ImportEnded::Interrupted(reason.into())
}

impl File {
    /// Reads it to its end, row by row.
    async fn read_into(mut self, import: &mut Import) -> Result<(), ImportEnded> {
        let mut records = Records::new(self.format == Format::Csv);
        let mut head = None;
        let mut bytes = std::mem::take(&mut self.first);
        let mut arrived = 0;
        let late = Instant::now() + MAX_TIME;
        loop {
            // Asked for whatever arrives, also where no row is complete with it.
            import.check()?;
            if Instant::now() > late {
                return Err(interrupted("The file took longer than an hour. Send the rest as another one."));
            }
            arrived += bytes.len() as u64;
            if arrived > MAX_FILE {
                return Err(interrupted("The file is longer than 128 MiB. Send the rest as another one."));
            }
            records.push(&bytes);
            // Rows are not left in the middle: what is registered and what the job says of it go together.
            take_all(self.format, &mut records, &mut head, import, &self.closing).await?;
            let next = tokio::select! {
                next = timeout(self.idle, self.body.next()) => next,
                _ = self.closing.wait_for(|closing| *closing) => return Err(shut_down()),
            };
            bytes = match next {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(None) if self.length.is_none_or(|length| length == arrived) => break,
                Ok(None | Some(Err(_))) => {
                    return Err(interrupted("The connection ended before the file did. Send it once more."));
                }
                Err(_) => return Err(interrupted("Nothing more arrived for too long. Send it once more.")),
            };
        }
        records.finish();
        take_all(self.format, &mut records, &mut head, import, &self.closing).await
    }
}

fn shut_down() -> ImportEnded {
    interrupted("The platform was shut down. Send it once more.")
}

/// Takes the rows that are complete.
async fn take_all(
    format: Format,
    records: &mut Records,
    head: &mut Option<Head>,
    import: &mut Import,
    closing: &watch::Receiver<bool>,
) -> Result<(), ImportEnded> {
    while let Some((line, record)) = records.next_record().map_err(|error| interrupted(error.to_string()))? {
        if *closing.borrow() {
            return Err(shut_down());
        }
        let row = match (format, &head) {
            (Format::Ndjson, _) => row::of_json(record),
            (Format::Csv, Some(head)) => head.row(record),
            (Format::Csv, None) => {
                *head = Some(Head::read(record).map_err(|RowWrong { detail, .. }| interrupted(detail))?);
                continue;
            }
        };
        import.take(line, row).await?;
    }
    Ok(())
}

/// List imports, newest first
#[utoipa::path(
    get,
    path = "/v1/imports",
    tag = "devices",
    responses((status = 200, description = "The imports of your part of the organisation", body = ImportList)),
)]
pub(crate) async fn list_imports(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
) -> Json<ImportList> {
    let jobs = shared.platform.jobs(kind(IMPORT), &caller);
    Json(ImportList { items: jobs.iter().map(|job| ImportShape::from(&**job)).collect(), next: None })
}

/// Show how far an import is
#[utoipa::path(
    get,
    path = "/v1/imports/{id}",
    tag = "devices",
    params(JobInPath),
    responses(
        (status = 200, description = "The import", body = ImportShape),
        (status = 404, description = "There is no such import",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_import(TheJob(job): TheJob<IMPORT>, _: Params<Nothing>) -> Json<ImportShape> {
    Json(ImportShape::from(&*job))
}

/// Cancel an import
///
/// Rows that wait to be registered with the next some hundred are not. What is registered stays. One that has ended stays as
/// it is.
#[utoipa::path(
    post,
    path = "/v1/imports/{id}/cancel",
    tag = "devices",
    params(JobInPath),
    responses(
        (status = 200, description = "The import", body = ImportShape),
        (status = 404, description = "There is no such import",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel_import(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheJob(job): TheJob<IMPORT>,
    _: Params<Nothing>,
) -> Json<ImportShape> {
    shared.platform.cancel_job(&job, &caller).await;
    Json(ImportShape::from(&*job))
}
