//! Pictures and files as those who ask for them see it: who keeps them is an adapter that enters itself here, so that neither
//! another adapter nor the API knows it.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule_store::{DeviceId, MediaKind, StoreError};

use crate::caller::Caller;
use crate::device::Device;
use crate::platform::Platform;

/// What somebody wants to send for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The id it is to have, if its sender has one for it: asked for again, it is the same object. None: a new one.
    pub id: Option<Uuid>,
    /// What it is taken for.
    pub kind: MediaKind,
    /// What its sender calls it; may be empty.
    pub name: String,
    /// How many bytes it has, if that is known.
    pub bytes: Option<u64>,
    /// Its media type, if only that is to be taken.
    pub media_type: Option<String>,
    /// Its SHA-256, if that is known.
    pub digest: Option<[u8; 32]>,
}

/// Where something is sent or fetched, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// The id the object has from now on.
    pub id: Uuid,
    /// What its sender calls it.
    pub name: String,
    /// The address with its ticket. Whoever has it needs nothing else, so it belongs in no log.
    pub url: String,
    /// For how long it may be begun.
    pub expires_in: Duration,
}

/// Where whoever asks came in, which an address follows unless the operator has named one for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrance {
    /// A connection without TLS.
    Plain,
    /// A device's connection over TLS: it trusts the roots that it knows, and no others.
    DeviceTls,
    /// HTTPS, at this host and port.
    Https(String),
}

/// Why nothing is offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Pictures and files are not kept here.
    #[error("pictures and files are not kept here")]
    Off,
    /// It is longer than is taken.
    #[error("at most {most} bytes are taken")]
    TooLarge {
        /// The most that is taken.
        most: u64,
    },
    /// It is of a type that is not taken.
    #[error("media type {media_type} is not taken")]
    Type {
        /// The type that was asked for.
        media_type: String,
    },
    /// The name is too long, or has characters that no name has.
    #[error("a name has at most 255 bytes and no control characters")]
    Name,
    /// The device has as many open offers, or as many bytes, as it may.
    #[error("there is no room for more")]
    Quota,
    /// The id is that of something else.
    #[error("the id is that of something else")]
    Taken,
    /// The device has no such object, or it is not here.
    #[error("there is no such object")]
    Unknown,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An answer in the making.
pub type Offered<'a> = Pin<Box<dyn Future<Output = Result<Offer, OfferError>> + Send + 'a>>;

/// Implemented by the adapter that keeps pictures and files.
pub trait MediaStorage: Send + Sync + 'static {
    /// A place where what a device wants to send may be put, for whoever came in there.
    fn offer_upload(&self, device: DeviceId, wish: Wish, entrance: Entrance) -> Offered<'_>;

    /// An address where an object of a device may be fetched, for whoever came in there.
    fn offer_download(&self, device: DeviceId, id: Uuid, entrance: Entrance) -> Offered<'_>;

    /// How long pictures and files are kept.
    fn kept_for(&self) -> Duration;

    /// Why they cannot be kept at the moment and what to do, in one sentence or two for people. None: they can.
    fn problem(&self) -> Option<String> {
        None
    }
}

impl Platform {
    /// Enters the adapter that keeps pictures and files; the first one stays. It is forgotten when it is dropped.
    pub fn keep_media_in(&self, storage: &Arc<impl MediaStorage>) {
        let storage: Weak<dyn MediaStorage> = Arc::downgrade(&(Arc::clone(storage) as Arc<dyn MediaStorage>));
        // A second one would be a mistake of the program that starts the parts; the first goes on.
        let _ = self.pictures().storage().set(storage);
    }

    pub(crate) fn media_storage(&self) -> Result<Arc<dyn MediaStorage>, OfferError> {
        self.pictures().storage().get().and_then(Weak::upgrade).ok_or(OfferError::Off)
    }

    /// Whether somebody sees what this device has sent. Of a removed one that is who sees everything: where it belonged is not
    /// known any more.
    pub fn sees_media_of(&self, device: DeviceId, by: &Caller) -> bool {
        by.subtree().is_root() || self.registry().is_seen(device, by)
    }

    /// A place where what a device wants to send may be put. `by` is who asks for the device; none: the device itself. It is
    /// in the audit when this returns, if somebody asks. `entrance` is where whoever asks came in.
    ///
    /// # Errors
    /// When it is not taken, there is no room, or who asks does not see the device.
    pub async fn offer_upload(
        &self,
        device: &Arc<Device>,
        wish: Wish,
        by: Option<&Caller>,
        entrance: Entrance,
    ) -> Result<Offer, OfferError> {
        self.in_sight(device, by)?;
        let kind = wish.kind;
        let offer = self.media_storage()?.offer_upload(device.id, wish, entrance).await?;
        if let Some(caller) = by {
            let detail = json!({"id": offer.id, "kind": kind.as_str()});
            self.audited(caller.name(), "media.offer", device, detail, true).await;
        }
        Ok(offer)
    }

    /// An address where an object of a device may be fetched; `by` and `entrance` as above.
    ///
    /// # Errors
    /// When the device has no such object, or who asks does not see the device.
    pub async fn offer_download(
        &self,
        device: &Arc<Device>,
        id: Uuid,
        by: Option<&Caller>,
        entrance: Entrance,
    ) -> Result<Offer, OfferError> {
        self.in_sight(device, by)?;
        self.media_storage()?.offer_download(device.id, id, entrance).await
    }

    fn in_sight(&self, device: &Device, by: Option<&Caller>) -> Result<(), OfferError> {
        if by.is_some_and(|caller| !caller.sees(device)) { Err(OfferError::Unknown) } else { Ok(()) }
    }
}
