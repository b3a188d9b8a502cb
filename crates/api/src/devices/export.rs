//! Devices as one file, which an import reads again.
//!
//! It is read page by page as its client takes it. Those that come by themselves are before those that are reached through
//! another, so that an import finds each hub before what is behind it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use vestibule_platform::{Caller, Device, DeviceQuery, Platform, PresenceState};

use crate::api::Shared;
use crate::export::{Format, kept, written};
use crate::extract::{Answer, Params, TheCaller};
use crate::feed;
use crate::find::{self, asking_for_devices};
use crate::problem::ProblemDocument;
use crate::shapes::rfc3339;

/// Devices that are read at once.
const PAGE: usize = 500;

asking_for_devices! {
    DeviceExportParams {
        /// In this order: `added` (when they were registered), `serial`, `name`, or `seen` (when they were seen last: those
        /// that are online come last). From its end with a `-` before it. Sub-devices come after all others.
        #[param(pattern = "^-?(added|serial|name|seen)$", default = "added", example = "name")]
        order: Option<String>,
        /// `ndjson` or `csv`.
        #[param(pattern = "^(ndjson|csv)$", default = "ndjson")]
        format: Option<String>,
    }
}

/// A device as an import reads it, and what else is known of it.
#[derive(Serialize)]
struct Exported<'a> {
    serial: &'a str,
    product: Option<&'a str>,
    name: Option<&'a str>,
    /// The serial of its hub: its id is another one where it is imported.
    parent: Option<Arc<str>>,
    org: &'a str,
    labels: &'a BTreeMap<String, String>,
    disabled: bool,
    id: String,
    family: &'static str,
    suite: Option<&'a str>,
    presence: &'static str,
    since: Option<String>,
    created: String,
}

/// The columns of CSV, in the order of their cells.
const COLUMNS: [&str; 13] = [
    "serial", "product", "name", "parent", "org", "labels", "disabled", "id", "family", "suite", "presence", "since",
    "created",
];

/// Export devices
///
/// All devices that match, one JSON object on each line or, with `format=csv`, one row each, where text that a spreadsheet would
/// take for a formula has a `'` before it, and so has what begins with one. An import takes the file as it is; it holds no
/// verification code, which an import needs of devices that it registers.
#[utoipa::path(
    get,
    path = "/v1/devices/export",
    tag = "devices",
    params(DeviceExportParams),
    responses(
        (status = 200, description = "The devices", content(
            (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 404, description = "No device has the id or serial of `parent`",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open, or the platform is shutting down",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn export_devices(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    Params(mut params): Params<DeviceExportParams>,
) -> Answer<Response> {
    let place = feed::place(&shared)?;
    let filter = params.asked().filter(&shared.platform, &caller)?;
    let query = find::query(filter, params.order.as_deref())?;
    let format = Format::named(params.format.as_deref())?;
    let state = Pages {
        platform: Arc::clone(&shared.platform),
        by: caller,
        query,
        format,
        part: Some(Part { sub_devices: false, cursor: None }),
        begun: false,
        has_sub_devices: false,
        _place: place,
    };
    let closing = shared.closing.subscribe();
    let chunks = stream::unfold(state, move |mut state| {
        let is_closing = *closing.borrow();
        async move {
            let chunk = if is_closing { Err("the platform is shutting down") } else { state.next().await };
            // Its client sees the connection end too early.
            let chunk =
                chunk.inspect_err(|error| tracing::warn!(error, "an export ends early")).map_err(io::Error::other);
            Some((chunk.transpose()?, state))
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    let file = match format {
        Format::Csv => "attachment; filename=\"devices.csv\"",
        Format::Ndjson => "attachment; filename=\"devices.ndjson\"",
    };
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(file));
    Ok(response)
}

/// Which devices come now, and after which.
struct Part {
    sub_devices: bool,
    cursor: Option<String>,
}

/// The devices of an export, page by page.
struct Pages {
    platform: Arc<Platform>,
    by: Caller,
    query: DeviceQuery,
    format: Format,
    /// None: all have come.
    part: Option<Part>,
    begun: bool,
    has_sub_devices: bool,
    /// It is one of the streams that may be open.
    _place: OwnedSemaphorePermit,
}

impl Pages {
    /// The next page as it is written; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        let mut text = Vec::new();
        if !std::mem::replace(&mut self.begun, true) && self.format == Format::Csv {
            text = head();
        }
        while text.is_empty()
            && let Some(Part { sub_devices, cursor }) = self.part.take()
        {
            if !self.by.is_current(self.platform.clock().now_ms()) {
                return Err("the rights of its caller have ended");
            }
            let page = self.platform.find_devices(&self.query, cursor.as_deref(), PAGE, &self.by).await;
            // A cursor of the same query is always one of it.
            let page = page.map_err(|_| "the cursor is lost")?;
            self.part = match (page.next, sub_devices) {
                (Some(next), _) => Some(Part { sub_devices, cursor: Some(next) }),
                (None, false) => Some(Part { sub_devices: true, cursor: None }),
                (None, true) => None,
            };
            for device in page.items {
                let parent = self.parent(&device);
                self.has_sub_devices |= parent.is_some();
                if parent.is_some() == sub_devices {
                    self.write(&device, parent, &mut text);
                }
            }
            if !self.has_sub_devices && self.part.as_ref().is_some_and(|part| part.sub_devices) {
                self.part = None;
            }
        }
        Ok((!text.is_empty()).then(|| Bytes::from(text)))
    }

    /// The serial of the device's hub, if its reader sees that.
    fn parent(&self, device: &Device) -> Option<Arc<str>> {
        let parent = self.platform.parent_seen(device, &self.by)?;
        self.platform.device_by_id(parent).map(|parent| Arc::clone(&parent.serial))
    }

    fn write(&self, device: &Device, parent: Option<Arc<str>>, text: &mut Vec<u8>) {
        let (description, presence) = (device.description(), device.presence());
        let exported = Exported {
            serial: &device.serial,
            product: device.product.as_deref(),
            name: description.name.as_deref(),
            parent,
            org: description.org.as_str(),
            labels: &description.labels,
            disabled: device.is_disabled(),
            id: device.id.to_string(),
            family: device.family.as_str(),
            suite: presence.suite.as_deref(),
            presence: presence.state.as_str(),
            since: (presence.state != PresenceState::NeverSeen).then(|| rfc3339(presence.since)),
            created: rfc3339(device.created),
        };
        match self.format {
            Format::Csv => text.extend(row(&exported)),
            Format::Ndjson => {
                // Strings and booleans always have a JSON text.
                let _ = serde_json::to_writer(&mut *text, &exported);
                text.push(b'\n');
            }
        }
    }
}

/// The line of names.
fn head() -> Vec<u8> {
    written(|writer| writer.write_record(COLUMNS))
}

fn row(device: &Exported<'_>) -> Vec<u8> {
    let labels = serde_json::to_string(device.labels).unwrap_or_default();
    let text = [
        Some(device.serial),
        device.product,
        device.name,
        device.parent.as_deref(),
        Some(device.org),
        Some(&labels),
        Some(if device.disabled { "true" } else { "false" }),
        Some(&device.id),
        Some(device.family),
        device.suite,
        Some(device.presence),
        device.since.as_deref(),
        Some(&device.created),
    ];
    written(|writer| writer.write_record(text.map(|cell| kept(cell.unwrap_or_default()))))
}
