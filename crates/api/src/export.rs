//! What devices reported, as one file: JSON, one report on a line, or CSV.
//!
//! An export is read page by page as its client takes it, so that its length costs no memory. It ends with what was stored
//! when it began. Where the store fails in the middle, or retention takes what was not read yet, the connection is cut: a file
//! that is short, or has a hole, never looks complete.

mod lines;

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::IntoParams;
use vestibule_platform::{Caller, HistoryQuery, Platform, Position, RecordKind, StoreError};

use crate::access::NOBODYS;
use crate::api::Shared;
use crate::extract::{Answer, Params, TheCaller, device_filter};
use crate::feed;
use crate::moment::Moment;
use crate::problem::{Kind, Problem, ProblemDocument};
use lines::{head, lines, rows};
pub(crate) use lines::{kept, meant, written};

/// Reports that are read at once: large ones are in memory together.
const PAGE: usize = 100;

/// How an export is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object on each line.
    #[default]
    Ndjson,
    /// RFC 4180 with a line of names; what was reported is a cell of JSON.
    Csv,
}

impl Format {
    pub(crate) fn named(name: Option<&str>) -> Answer<Format> {
        match name {
            None => Ok(Format::default()),
            Some("ndjson") => Ok(Format::Ndjson),
            Some("csv") => Ok(Format::Csv),
            Some(_) => Err(Problem::field(Kind::InvalidValue, "format", "format must be ndjson or csv.")),
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportParams {
    /// `ndjson` or `csv`.
    #[param(pattern = "^(ndjson|csv)$", default = "ndjson")]
    format: Option<String>,
    /// Only of the device with this id or serial. Reports of a removed device are found by its id.
    device: Option<String>,
    /// Only of this area.
    area: Option<String>,
    /// Only with this name.
    name: Option<String>,
    /// Only at or after this moment by the device's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    from: Option<Moment>,
    /// Only before this moment by the device's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "1769860800000")]
    to: Option<Moment>,
    /// Only received at or after this moment, by the platform's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    received_from: Option<Moment>,
    /// Only received before this moment, by the platform's time: RFC 3339, or milliseconds since 1970.
    #[param(value_type = Option<String>, example = "1769860800000")]
    received_to: Option<Moment>,
}

/// Export events, oldest first
///
/// All events that match and were stored when the export began. With `format=csv`, text that a spreadsheet would take for
/// a formula has a `'` before it; `data` is JSON in either format.
#[utoipa::path(
    get,
    path = "/v1/events/export",
    tag = "events",
    params(ExportParams),
    responses(
        (status = 200, description = "The events", content(
            (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open, the store does not answer, or the platform is shutting down",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn export_events(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<ExportParams>,
) -> Answer<Response> {
    export(&shared, RecordKind::Event, params, caller).await
}

/// Export what attributes were reported as, oldest first
///
/// All reports that match and were stored when the export began, also those of a value that was there before. With
/// `format=csv`, text that a spreadsheet would take for a formula has a `'` before it; `value` is JSON in either format.
#[utoipa::path(
    get,
    path = "/v1/attributes/export",
    tag = "attributes",
    params(ExportParams),
    responses(
        (status = 200, description = "The reports", content(
            (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open, the store does not answer, or the platform is shutting down",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn export_attributes(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(params): Params<ExportParams>,
) -> Answer<Response> {
    export(&shared, RecordKind::Attribute, params, caller).await
}

async fn export(shared: &Arc<Shared>, kind: RecordKind, params: ExportParams, by: Caller) -> Answer<Response> {
    let place = feed::place(shared)?;
    let format = Format::named(params.format.as_deref())?;
    let end = Position::new(shared.platform.journal().durable().get().saturating_add(1));
    let query = HistoryQuery {
        device: device_filter(&shared.platform, params.device.as_deref(), &by)?,
        area: params.area,
        name: params.name,
        from: params.from.map(|moment| moment.0),
        to: params.to.map(|moment| moment.0),
        received_from: params.received_from.map(|moment| moment.0),
        received_to: params.received_to.map(|moment| moment.0),
        before: Some(end),
        limit: PAGE,
        ..HistoryQuery::all(kind)
    };
    let (platform, closing) = (Arc::clone(&shared.platform), shared.closing.subscribe());
    let mut pages = Pages { platform, closing, by, query, format, is_over: false };
    // The journal is read for the first time before the answer begins: a store that is down is told by its status.
    let mut first = if format == Format::Csv { head(kind) } else { Vec::new() };
    first.extend(pages.read().await?);
    let rest = stream::unfold((pages, place), async |(mut pages, place)| {
        let chunk = pages.next().await.transpose()?;
        Some((chunk.map(Bytes::from).map_err(io::Error::other), (pages, place)))
    });
    let first = stream::once(std::future::ready(Ok(Bytes::from(first))));
    let mut response = Body::from_stream(first.chain(rest)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    let file = match (kind, format) {
        (RecordKind::Attribute, Format::Csv) => "attachment; filename=\"attributes.csv\"",
        (RecordKind::Attribute, Format::Ndjson) => "attachment; filename=\"attributes.ndjson\"",
        (_, Format::Csv) => "attachment; filename=\"events.csv\"",
        (_, Format::Ndjson) => "attachment; filename=\"events.ndjson\"",
    };
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(file));
    Ok(response)
}

/// Why an export ends early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the journal cannot be read")]
    Store(#[from] StoreError),
    #[error("the rights of its caller have ended")]
    Revoked,
    #[error("retention has taken what was not read yet")]
    Overtaken,
    #[error("the platform is shutting down")]
    ShuttingDown,
}

impl Ended {
    fn as_str(&self) -> &'static str {
        match self {
            Ended::Store(_) => "store",
            Ended::Revoked => "revoked",
            Ended::Overtaken => "overtaken",
            Ended::ShuttingDown => "shutdown",
        }
    }
}

impl From<Ended> for Problem {
    fn from(ended: Ended) -> Problem {
        match ended {
            Ended::Store(error) => error.into(),
            Ended::Revoked => Problem::new(Kind::Unauthenticated, NOBODYS),
            Ended::ShuttingDown => Problem::new(Kind::ShuttingDown, "The platform is shutting down."),
            // Not before something was read.
            Ended::Overtaken => Problem::new(Kind::Overloaded, "Retention was faster. Try again."),
        }
    }
}

/// The reports of an export, page by page.
struct Pages {
    platform: Arc<Platform>,
    closing: watch::Receiver<bool>,
    /// For whom: what he does not see is left out.
    by: Caller,
    query: HistoryQuery,
    format: Format,
    is_over: bool,
}

impl Pages {
    /// The next page as it is written; `None` after the last. After an error nothing follows, and its client sees the
    /// connection end too early.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Ended> {
        while !self.is_over {
            match self.read().await {
                Ok(page) if page.is_empty() => {}
                Ok(page) => return Ok(Some(page)),
                Err(ended) => {
                    self.is_over = true;
                    metrics::counter!("vestibule_exports_cut_total", "reason" => ended.as_str()).increment(1);
                    tracing::warn!(error = &ended as &dyn std::error::Error, "an export ends early");
                    return Err(ended);
                }
            }
        }
        Ok(None)
    }

    /// Reads once, and writes what is for the caller: nothing, when all of it is of others.
    async fn read(&mut self) -> Result<Vec<u8>, Ended> {
        if *self.closing.borrow() {
            return Err(Ended::ShuttingDown);
        }
        if !self.by.is_current(self.platform.clock().now_ms()) {
            return Err(Ended::Revoked);
        }
        let page = self.platform.history(self.query.clone(), &self.by).await?;
        if page.overtaken {
            return Err(Ended::Overtaken);
        }
        self.is_over = page.is_last;
        self.query.after = page.reached.unwrap_or(self.query.after);
        Ok(match self.format {
            Format::Ndjson => lines(&page.items),
            Format::Csv => rows(&page.items),
        })
    }
}
