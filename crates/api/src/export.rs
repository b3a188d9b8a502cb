//! What devices reported, as one file: JSON, one report on a line, or CSV.
//!
//! An export is read page by page as its client takes it, so that its length costs no memory. It ends with what was stored
//! when it began. Where the store fails in the middle, the connection is cut: a file that is short never looks complete.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use csv::WriterBuilder;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use utoipa::IntoParams;
use vestibule_platform::{Caller, HistoryQuery, Platform, Position, Record, RecordKind, StoreError};

use crate::access::NOBODYS;
use crate::api::Shared;
use crate::extract::{Answer, Params, TheCaller, device_filter};
use crate::moment::Moment;
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{EventShape, ReportShape, rfc3339};

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
    if *shared.closing.borrow() {
        return Err(Problem::new(Kind::ShuttingDown, "The platform is shutting down."));
    }
    // It takes a place among the streams: somebody who asks for many waits for himself.
    let Ok(place) = Arc::clone(&shared.streams).try_acquire_owned() else {
        metrics::counter!("vestibule_http_streams_refused_total").increment(1);
        return Err(Problem::new(Kind::TooManyStreams, "As many streams and exports as allowed are open."));
    };
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
    let mut pages = Pages { platform: Arc::clone(&shared.platform), by, query, format, is_over: false };
    // The first page is read before the answer begins: a store that is down is told by its status.
    let mut first = if format == Format::Csv { head(kind) } else { Vec::new() };
    first.extend(pages.next().await?.unwrap_or_default());
    let closing = shared.closing.subscribe();
    let rest = stream::unfold((pages, place), move |(mut pages, place)| {
        let is_closing = *closing.borrow();
        async move {
            let page =
                if is_closing { Err("the platform is shutting down".to_owned()) } else { pages.next_chunk().await };
            // Its client sees the connection end too early.
            let chunk =
                page.inspect_err(|error| tracing::warn!(error, "an export ends early")).map_err(io::Error::other);
            Some((chunk.transpose()?, (pages, place)))
        }
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
}

impl From<Ended> for Problem {
    fn from(ended: Ended) -> Problem {
        match ended {
            Ended::Store(error) => error.into(),
            Ended::Revoked => Problem::new(Kind::Unauthenticated, NOBODYS),
        }
    }
}

/// The reports of an export, page by page.
struct Pages {
    platform: Arc<Platform>,
    /// For whom: what he does not see is left out.
    by: Caller,
    query: HistoryQuery,
    format: Format,
    is_over: bool,
}

impl Pages {
    /// The next page as it is written; `None` after the last.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Ended> {
        while !self.is_over {
            if !self.by.is_current(self.platform.clock().now_ms()) {
                return Err(Ended::Revoked);
            }
            let page = self.platform.history(self.query.clone(), &self.by).await?;
            self.is_over = page.is_last;
            self.query.after = page.reached.unwrap_or(self.query.after);
            if !page.items.is_empty() {
                return Ok(Some(match self.format {
                    Format::Ndjson => lines(&page.items),
                    Format::Csv => rows(&page.items),
                }));
            }
        }
        Ok(None)
    }
}

impl Pages {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        let page = self.next().await.inspect_err(|_| self.is_over = true);
        page.map(|page| page.map(Bytes::from)).map_err(|error| error.to_string())
    }
}

/// Each report on a line of its own. A device's own JSON may hold line breaks between its tokens: they are spaces to JSON.
fn lines(records: &[Arc<Record>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(records.len() * 512);
    for record in records {
        let begin = text.len();
        // Shapes are strings, numbers and checked JSON: they always have a JSON text.
        let _ = match record.kind {
            RecordKind::Attribute => serde_json::to_writer(&mut text, &ReportShape::from(&**record)),
            _ => serde_json::to_writer(&mut text, &EventShape::from(&**record)),
        };
        for byte in &mut text[begin..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        text.push(b'\n');
    }
    text
}

/// The line of names.
fn head(kind: RecordKind) -> Vec<u8> {
    let what = if kind == RecordKind::Attribute { "value" } else { "data" };
    let names =
        ["position", "id", "device_id", "serial", "resource", "index", "area", "name", "time", "received", "flags"];
    written(|writer| {
        names.iter().try_for_each(|name| writer.write_field(name))?;
        writer.write_field(what)?;
        writer.write_record(None::<&[u8]>)
    })
}

fn rows(records: &[Arc<Record>]) -> Vec<u8> {
    written(|writer| {
        for record in records {
            let path = &record.path;
            let text =
                [record.id.as_deref().unwrap_or_default(), &record.device.to_string(), &record.serial].map(harmless);
            let place = [&*path.resource, &path.index, &path.area, &path.name].map(harmless);
            let flags = record.flags.names().collect::<Vec<_>>().join(" ");
            writer.write_field(record.position.get().to_string())?;
            text.iter().chain(&place).try_for_each(|cell| writer.write_field(cell))?;
            for cell in [&*rfc3339(record.time), &rfc3339(record.received), &flags, &harmless(&record.data)] {
                writer.write_field(cell)?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        Ok(())
    })
}

pub(crate) fn written(write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>) -> Vec<u8> {
    let mut writer = WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Into memory, and every line has as many cells as the others: nothing is there that could fail.
    let _ = write(&mut writer);
    writer.into_inner().unwrap_or_default()
}

/// A device's own text as a cell that no spreadsheet takes for a formula. A number stays one.
fn harmless(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && text.parse::<f64>().is_err();
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

/// A text as such a cell that [`meant`] gives back.
pub(crate) fn kept(text: &str) -> String {
    if text.starts_with('\'') { format!("'{text}") } else { harmless(text) }
}

/// What a cell of [`kept`] was.
pub(crate) fn meant(cell: &str) -> &str {
    let guarded = cell.strip_prefix('\'');
    guarded.filter(|text| text.starts_with(['\'', '=', '+', '-', '@', '\t', '\r', '\n'])).unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use vestibule_platform::{DeviceId, DevicePath, Flags};

    use super::*;

    fn record(name: &str, data: &str) -> Arc<Record> {
        let level = |level: &str| level.into();
        let path = DevicePath { resource: level("Lamp"), index: level("0"), area: level("Alarm"), name: level(name) };
        Arc::new(Record {
            position: Position::new(7),
            device: "018f3a2c-0000-7000-8000-000000000000".parse::<DeviceId>().expect("an id"),
            serial: "SN,1".into(),
            kind: RecordKind::Event,
            path: Arc::new(path),
            id: Some("e\"1".into()),
            time: 0,
            received: 1,
            flags: Flags::CLOCK_SUSPECT | Flags::NO_TIME,
            data: data.into(),
        })
    }

    #[test]
    fn a_line_holds_one_report_whatever_its_json_looks_like() {
        let text = lines(&[record("Smoke", "{\n\"a\":\r\n1}"), record("Fire", "[]")]);
        let text = String::from_utf8(text).expect("text");
        let read: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((read.len(), &read[0]["data"]["a"], &read[1]["name"]), (2, &1.into(), &"Fire".into()));
    }

    #[test]
    fn a_row_has_the_cells_of_the_head_and_reads_back() {
        let text = [head(RecordKind::Event), rows(&[record("Smoke", "{\"a\":\"x,\\ny\"}")])].concat();
        let mut reader = csv::Reader::from_reader(&*text);
        let names: Vec<String> = reader.headers().expect("a head").iter().map(str::to_owned).collect();
        let row = reader.records().next().expect("a row").expect("as long as the head");
        let cell = |name: &str| &row[names.iter().position(|known| known == name).expect("a column")];
        assert_eq!((cell("position"), cell("id"), cell("serial")), ("7", "e\"1", "SN,1"));
        assert_eq!((cell("flags"), cell("data")), ("clock_suspect no_time", "{\"a\":\"x,\\ny\"}"));
        assert_eq!(cell("time"), "1970-01-01T00:00:00.000Z");
        assert!(String::from_utf8(head(RecordKind::Attribute)).is_ok_and(|head| head.trim_end().ends_with(",value")));
    }

    #[test]
    fn csv_formulas_of_a_device_are_text() {
        for formula in ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"] {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        for plain in ["", "Smoke", "-12.5", "+3", "a=b"] {
            assert_eq!(harmless(plain), plain);
        }
    }

    #[test]
    fn a_cell_that_is_read_back_is_what_it_was() {
        for text in ["", "a", "-12.5", "-a", "'", "'a", "'=a", "''-", "=1", "\tx", "it's"] {
            let cell = kept(text);
            assert_eq!(meant(&cell), text, "{cell}");
            assert!(!cell.starts_with(['=', '@', '\t']), "{cell}");
        }
        assert_eq!(meant("'plain"), "'plain", "written by hand");
    }
}
