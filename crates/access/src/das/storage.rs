//! Where devices put and get pictures and files (osap-wire 10.7): the platform offers addresses with tickets, devices use them
//! over HTTP.

use std::sync::Arc;

use osap::das::storage::{Grant, Grants, Method, Object, Query, Results};
use osap::das::{BodyError, storage};
use uuid::Uuid;
use vestibule_broker::Disposition;
use vestibule_platform::{Device, Entrance, MediaKind, Offer, OfferError, Platform, Wish};

use super::grant::{Place, Storage};
use super::{Das, Speaker};

/// Questions of all devices that are looked into at once; what comes beyond is asked again.
pub(super) const ASKED_AT_ONCE: usize = 64;

impl Das {
    /// A device asks for addresses, or tells how it went.
    pub(super) fn storage(
        &self,
        speaker: &Speaker,
        seq: u64,
        place: &Arc<Place>,
        message: Storage,
        application: &[u8],
    ) -> Result<Disposition, BodyError> {
        if message == Storage::Result {
            for object in Results::parse(application)?.objects {
                let result = if object.code == 0 { "done" } else { "failed" };
                metrics::counter!("vestibule_das_transfers_total", "result" => result).increment(1);
                if object.code != 0 {
                    tracing::debug!(serial = %speaker.device.serial, code = object.code, "a device could not transfer an object");
                }
            }
            return Ok(Disposition::Done);
        }
        let asked = Query::parse(application)?;
        let Ok(permit) = Arc::clone(&self.storage_asked).try_acquire_owned() else {
            self.dropped(speaker, "storage_busy");
            return Ok(Disposition::Done);
        };
        let (platform, device) = (Arc::clone(&self.platform), Arc::clone(&speaker.device));
        let over_tls = self.modern.as_ref().is_some_and(|door| door.tls);
        let entrance = if over_tls { Entrance::DeviceTls } else { Entrance::Plain };
        let (line, place) = (Arc::clone(&speaker.line), Arc::clone(place));
        self.runtime.spawn(async move {
            let grants = granted(&platform, &device, message, asked, entrance).await;
            let mut body = Vec::new();
            let sent = grants.write(&mut body).map(|()| line.answer_storage(seq, &place, method(message), &body));
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!(serial = %device.serial, "a question for storage is not answered");
            }
            drop(permit);
        });
        Ok(Disposition::Done)
    }
}

fn method(message: Storage) -> &'static str {
    match message {
        Storage::Upload => storage::UPLOAD,
        Storage::Download => storage::DOWNLOAD,
        Storage::Result => storage::RESULT,
    }
}

/// All that was asked for, or why not.
async fn granted(
    platform: &Platform,
    device: &Arc<Device>,
    message: Storage,
    asked: Query,
    entrance: Entrance,
) -> Grants {
    let mut objects = Vec::with_capacity(asked.objects.len());
    for object in asked.objects {
        let name = object.name.clone();
        let (method, offer) = match message {
            Storage::Download => (
                Method::Get,
                match object.name.parse() {
                    Ok(id) => platform.offer_download(device, id, None, entrance.clone()).await,
                    Err(_) => Err(OfferError::Unknown),
                },
            ),
            _ => (Method::Put, platform.offer_upload(device, wish(object), None, entrance.clone()).await),
        };
        match offer {
            Ok(Offer { url, expires_in, .. }) => {
                let expire_s = u32::try_from(expires_in.as_secs()).unwrap_or(u32::MAX);
                objects.push(Grant { name, method, url, headers: Vec::new(), expire_s });
            }
            Err(error) => {
                tracing::debug!(serial = %device.serial, %error, "a device is given no address");
                return Grants { code: code(&error), objects: Vec::new() };
            }
        }
    }
    Grants { code: 0, objects }
}

/// What is an image by what its device says is taken as a picture, everything else as a file.
fn wish(object: Object) -> Wish {
    let kind = match object.content_type.as_deref() {
        Some(text) if text.starts_with("image/") => MediaKind::Picture,
        _ => MediaKind::File,
    };
    Wish {
        id: own_id(&object.name),
        kind,
        name: object.name,
        bytes: object.size,
        media_type: object.content_type.filter(|_| kind == MediaKind::Picture),
        digest: object.sha256,
    }
}

/// A device that names an object by a UUID has given it its id: so it can name the object in an event before it has asked where
/// to put it, and asks for the same one again after an interruption.
fn own_id(name: &str) -> Option<Uuid> {
    Uuid::try_parse(name).ok().filter(|id| !id.is_nil() && !id.is_max() && id.hyphenated().to_string() == name)
}

/// The reason as a device is told it; the protocol names no codes, so these are those of HTTP.
fn code(error: &OfferError) -> i64 {
    match error {
        OfferError::Off | OfferError::Unknown => 404,
        OfferError::Taken => 409,
        OfferError::TooLarge { .. } => 413,
        OfferError::Type { .. } => 415,
        OfferError::Name => 422,
        OfferError::Quota => 429,
        OfferError::Store(_) => 503,
    }
}
