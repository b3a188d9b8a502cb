//! The adapter itself: what holds the parts together, what it offers, and what becomes of what is old.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;
use vestibule_platform::{Entrance, MediaStorage, Offer, OfferError, Offered, Platform, Wish};
use vestibule_store::{Control, DeviceId, MediaKind, MediaRow, MediaState, StoreError};

use crate::blobs::{BlobError, Blobs, SweepError};
use crate::config::MediaConfig;
use crate::content::Format;
use crate::explain;
use crate::keys::KeyRing;
use crate::places::Places;
use crate::staging::Staging;
use crate::thumbnail::{self, Thumbnails};
use crate::ticket::TicketKind;
use crate::turns::Turns;
use crate::usage::Usage;

/// How long a ticket may be begun with (MED-32).
const TICKET: Duration = Duration::from_secs(15 * 60);
/// Offers and uploads under way that a device may have.
const MAX_OPEN: i64 = 256;
/// Objects that are stored at the same time; each may have a part of 5 MiB in memory.
const STORED_AT_ONCE: usize = 4;
/// How often what has had its time is removed.
const SWEEP: Duration = Duration::from_secs(5 * 60);
/// Every so many sweeps what nobody refers to is looked for as well.
const DEEP: u32 = 12 * 24;
/// How long an upload that has had its time is waited for; one that is being stored does not stop.
const BUSY: Duration = Duration::from_secs(1);
/// How long nobody is told of arrivals when the store does not answer.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of a name.
const MAX_NAME: usize = 255;

/// The media type of files.
pub(crate) const FILE_TYPE: &str = "application/octet-stream";

/// Why pictures and files cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("the directory of pictures and files {dir}")]
    Directory {
        /// Which directory.
        dir: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bucket cannot be used as it is described.
    #[error("the bucket of pictures and files, as [media.s3] describes it")]
    Bucket(#[source] object_store::Error),
    /// The control database does not answer.
    #[error("the list of pictures and files cannot be read")]
    Store(#[from] StoreError),
}

/// Keeps pictures and files. One for each process, behind an `Arc`.
pub struct Media {
    pub(crate) config: MediaConfig,
    pub(crate) platform: Arc<Platform>,
    pub(crate) control: Control,
    pub(crate) keys: KeyRing,
    pub(crate) blobs: Blobs,
    pub(crate) staging: Staging,
    pub(crate) usage: Usage,
    pub(crate) turns: Turns,
    pub(crate) thumbnails: Thumbnails,
    /// One place for each upload that is received.
    pub(crate) uploads: Places,
    /// One permit for each object that is being stored.
    pub(crate) storing: Semaphore,
    /// Something has arrived that nobody was told of.
    pub(crate) arrival: Arc<Notify>,
    /// Room is short.
    pub(crate) short: Arc<Notify>,
}

/// The path of an upload.
pub(crate) fn upload_path(id: Uuid) -> String {
    format!("/media/v1/upload/{id}")
}

/// The path of an object that is here.
pub(crate) fn object_path(kind: MediaKind, id: Uuid) -> String {
    format!("/media/v1/{}/{id}", kind.as_str())
}

impl Media {
    /// Opens the directory, removes what a crash left there, and enters itself at the platform. `control` is the database of
    /// the platform's store.
    pub async fn open(
        config: MediaConfig,
        platform: Arc<Platform>,
        control: Control,
    ) -> Result<(Arc<Media>, JoinHandle<()>), OpenError> {
        let unusable = |source| OpenError::Directory { dir: config.dir.clone(), source };
        let staging = Staging::open(&config.dir).await.map_err(unusable)?;
        let (blobs, unfinished) = match config.s3.clone() {
            Some(bucket) => (Blobs::in_bucket(bucket).map_err(OpenError::Bucket)?, 0),
            None => {
                let dir = config.dir.clone();
                let opened = tokio::task::spawn_blocking(move || {
                    let blobs = Blobs::in_directory(&dir)?;
                    let unfinished = blobs.remove_unfinished()?;
                    io::Result::Ok((blobs, unfinished))
                });
                opened.await.map_err(io::Error::other).and_then(|opened| opened).map_err(unusable)?
            }
        };
        let orphans = staging.keep_only(&control.receiving_media().await?).await.map_err(unusable)?;
        if unfinished + orphans > 0 {
            tracing::info!(unfinished, orphans, "what was being written when the last process ended is removed");
        }
        let keys = KeyRing::open(control.clone(), platform.clock().now_ms()).await?;
        let usage = Usage::new(config.max_bytes, config.device_max_bytes, control.media_usage().await?);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let media = Arc::new(Media {
            uploads: Places::new(config.max_uploads),
            storing: Semaphore::new(STORED_AT_ONCE),
            arrival: Arc::default(),
            short: Arc::default(),
            thumbnails: Thumbnails::new(cores, thumbnail::MEMORY),
            turns: Turns::default(),
            config,
            platform,
            control,
            keys,
            blobs,
            staging,
            usage,
        });
        media.platform.keep_media_in(&media);
        let keeper = Arc::downgrade(&media);
        let keeper = tokio::spawn(async move {
            tokio::join!(Media::keep(Weak::clone(&keeper)), Media::tell(Weak::clone(&keeper)), Media::watch(keeper),);
        });
        Ok((media, keeper))
    }

    pub(crate) fn now(&self) -> i64 {
        self.platform.clock().now_ms()
    }

    /// Rotates keys and removes what has had its time, until the adapter is gone.
    async fn keep(media: Weak<Media>) {
        let mut round = 0_u32;
        while let Some(media) = media.upgrade() {
            let now = media.now();
            if let Err(error) = media.keys.rotate(now).await {
                tracing::warn!(%error, "the key of tickets is not replaced yet");
            }
            if let Err(error) = media.expire(now).await {
                tracing::warn!(%error, "pictures and files that have had their time stay");
            }
            if round.is_multiple_of(DEEP) {
                match media.blobs.sweep(&media.control).await {
                    Ok(0) => {}
                    Ok(count) => {
                        metrics::counter!("vestibule_media_orphans_total").increment(count);
                        tracing::info!(count, "contents that belong to nothing are removed");
                    }
                    Err(error) => tracing::warn!(%error, "contents that belong to nothing stay"),
                }
            }
            round = round.wrapping_add(1);
            let short = Arc::clone(&media.short);
            drop(media);
            // Somebody who finds no room has it made.
            let _ = timeout(SWEEP, short.notified()).await;
        }
    }

    /// Tells those who follow events of pictures that have arrived, also of those the last process did not come to, until the
    /// adapter is gone.
    async fn tell(media: Weak<Media>) {
        while let Some(media) = media.upgrade() {
            let told = media.tell_arrivals().await;
            let pause = match told {
                Ok(()) => SWEEP,
                Err(error) => {
                    tracing::warn!(%error, "nobody is told yet that pictures have arrived");
                    TELL_AGAIN
                }
            };
            // The strong handle is not held while nothing happens, or the adapter would never be gone.
            let arrival = media.arrival.clone();
            drop(media);
            let _ = timeout(pause, arrival.notified()).await;
        }
    }

    /// Asks a bucket whether it answers, until the adapter is gone. Where it does not, the platform says so and goes on: devices
    /// report and are acknowledged all the same.
    async fn watch(media: Weak<Media>) {
        while let Some(media) = media.upgrade() {
            let Some(pause) = media.blobs.watch().await else { return };
            let failed = media.blobs.failed();
            drop(media);
            let _ = timeout(pause, failed.notified()).await;
        }
    }

    async fn tell_arrivals(&self) -> Result<(), StoreError> {
        loop {
            let untold = self.control.untold_media().await?;
            for row in &untold {
                if row.kind == MediaKind::Picture {
                    let amended = self.platform.picture_arrived(row).await?;
                    metrics::counter!("vestibule_media_amendments_total").increment(amended as u64);
                    if amended > 0 {
                        self.told(row.device, row.id, explain::amended(row, amended));
                    }
                }
                self.control.told_media(row.id).await?;
            }
            if untold.is_empty() {
                return Ok(());
            }
        }
    }

    /// Removes offers nobody took, uploads nobody completed, and objects past their retention.
    pub(crate) async fn expire(&self, now: i64) -> Result<(), ExpireError> {
        for state in [MediaState::Offered, MediaState::Receiving] {
            loop {
                let due = self.control.due_media(state, now).await?;
                let mut busy = 0;
                for row in &due {
                    // Whoever is at it stops first; who does not has it stay until the next time.
                    let Ok(_turn) = timeout(BUSY, self.turns.take(row.id)).await else {
                        busy += 1;
                        continue;
                    };
                    if !self.control.remove_due_media(row.id, state, now).await? {
                        continue;
                    }
                    let is_begun = state == MediaState::Receiving;
                    let fact = if is_begun { explain::abandoned(row) } else { explain::never_begun(row) };
                    self.told(row.device, row.id, fact);
                    if is_begun {
                        self.usage.give_back(row.device, stored(row.bytes));
                        self.staging.remove(row.id).await?;
                        metrics::counter!("vestibule_media_uploads_total", "result" => "abandoned").increment(1);
                    }
                }
                if (due.len() as i64) < vestibule_store::MEDIA_PAGE || busy == due.len() {
                    break;
                }
            }
        }
        let retention = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        let before = now.saturating_sub(retention);
        loop {
            let old = self.control.old_media(MediaState::Here, before).await?;
            for row in &old {
                self.remove(row, false).await?;
                metrics::counter!("vestibule_media_expired_total", "why" => "age").increment(1);
            }
            if (old.len() as i64) < vestibule_store::MEDIA_PAGE {
                break;
            }
        }
        loop {
            let gone = self.control.old_media(MediaState::Gone, before).await?;
            for row in &gone {
                self.control.remove_media(row.id, MediaState::Gone).await?;
            }
            if (gone.len() as i64) < vestibule_store::MEDIA_PAGE {
                break;
            }
        }
        self.make_room().await
    }

    /// Removes the oldest objects until there is room for a twentieth of all again.
    async fn make_room(&self) -> Result<(), ExpireError> {
        while self.usage.is_short() {
            let oldest = self.control.old_media(MediaState::Here, i64::MAX).await?;
            if oldest.is_empty() {
                break;
            }
            for row in &oldest {
                if !self.usage.is_short() {
                    break;
                }
                self.remove(row, true).await?;
                metrics::counter!("vestibule_media_expired_total", "why" => "room").increment(1);
            }
        }
        Ok(())
    }

    /// Removes an object that is here, and its content when no other has the same. One that goes `early` is remembered, so
    /// that nobody waits for it.
    async fn remove(&self, row: &MediaRow, early: bool) -> Result<(), ExpireError> {
        let Some(digest) = row.digest else { return Ok(()) };
        let _gate = self.blobs.gate(&digest).await;
        let removed = match early {
            true => self.control.evict_media(row.id).await?,
            false => self.control.remove_media(row.id, MediaState::Here).await?,
        };
        if removed {
            self.usage.give_back(row.device, stored(row.bytes));
            self.platform.picture_gone(row.id);
            if !self.control.has_media_digest(digest).await? {
                self.blobs.remove(&digest).await?;
            }
        }
        Ok(())
    }

    /// The most bytes an object of this kind may have.
    fn most(&self, kind: MediaKind) -> u64 {
        match kind {
            MediaKind::Picture => self.config.picture_max_bytes,
            MediaKind::File => self.config.file_max_bytes,
        }
    }

    async fn upload_offer(&self, device: DeviceId, wish: Wish, entrance: Entrance) -> Result<Offer, OfferError> {
        let offer = self.place_for(device, wish.clone(), entrance).await;
        match &offer {
            Ok(offer) => self.told(device, offer.id, explain::offered(&wish, offer.id)),
            Err(error) => self.told(device, wish.id.unwrap_or_default(), explain::not_offered(&wish, error)),
        }
        offer
    }

    async fn place_for(&self, device: DeviceId, wish: Wish, entrance: Entrance) -> Result<Offer, OfferError> {
        let most = self.most(wish.kind);
        if wish.bytes.is_some_and(|bytes| bytes > most) {
            return Err(OfferError::TooLarge { most });
        }
        let taken = wish.media_type.as_deref().is_none_or(|text| match wish.kind {
            MediaKind::Picture => Format::of_media_type(text).is_some(),
            MediaKind::File => text == FILE_TYPE,
        });
        if !taken {
            return Err(OfferError::Type {
                media_type: wish.media_type.unwrap_or_default().chars().take(64).collect(),
            });
        }
        if wish.name.len() > MAX_NAME || wish.name.chars().any(char::is_control) {
            return Err(OfferError::Name);
        }
        let now = self.now();
        let deadline = now.saturating_add(TICKET.as_millis() as i64);
        let id = wish.id.unwrap_or_else(Uuid::now_v7);
        let offer = |name| self.offer(TicketKind::Upload, id, name, &upload_path(id), deadline, &entrance);
        if wish.id.is_some()
            && let Some(row) = self.control.media(id).await?
        {
            // Asked for again, because an answer was lost or the time was up: the same object, as far as it has come.
            let is_same = row.digest.zip(wish.digest).is_none_or(|(known, said)| known == said);
            if row.device != device || row.kind != wish.kind || row.state == MediaState::Gone || !is_same {
                return Err(OfferError::Taken);
            }
            self.control.renew_media(id, deadline).await?;
            return offer(wish.name);
        }
        let bytes = wish.bytes.unwrap_or(most);
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let row = MediaRow {
            id,
            device,
            kind: wish.kind,
            name: wish.name.clone(),
            media_type: wish.media_type.unwrap_or_default(),
            state: MediaState::Offered,
            bytes: number(bytes),
            length: wish.bytes.map(number),
            digest: wish.digest,
            size: None,
            created: now,
            deadline,
        };
        if self.usage.is_short() {
            self.short.notify_one();
        }
        if !self.usage.has_room(device, bytes) || !self.control.offer_media(row, MAX_OPEN).await? {
            metrics::counter!("vestibule_media_refused_total", "why" => "quota").increment(1);
            return Err(OfferError::Quota);
        }
        offer(wish.name)
    }

    async fn download_offer(&self, device: DeviceId, id: Uuid, entrance: Entrance) -> Result<Offer, OfferError> {
        let row = self.control.media(id).await?;
        let row = row.filter(|row| row.device == device && row.state == MediaState::Here).ok_or(OfferError::Unknown)?;
        let deadline = self.now().saturating_add(TICKET.as_millis() as i64);
        self.offer(TicketKind::Object, id, row.name, &object_path(row.kind, id), deadline, &entrance)
    }

    fn offer(
        &self,
        kind: TicketKind,
        id: Uuid,
        name: String,
        path: &str,
        until: i64,
        entrance: &Entrance,
    ) -> Result<Offer, OfferError> {
        let expiry = u64::try_from(until / 1_000).unwrap_or(0);
        // There is always a key: opening makes one.
        let ticket = self.keys.sign(kind, id, path, expiry).ok_or(OfferError::Off)?;
        metrics::counter!("vestibule_media_tickets_total").increment(1);
        let base = match (&self.config.url, entrance) {
            (Some(url), _) => url.clone(),
            (None, Entrance::Plain) => self.config.plain_url.clone(),
            (None, Entrance::DeviceTls) => self.config.device_url.clone(),
            (None, Entrance::Https(host)) => format!("https://{host}"),
        };
        Ok(Offer { id, name, url: format!("{base}{path}?ticket={ticket}"), expires_in: TICKET })
    }
}

impl MediaStorage for Media {
    fn offer_upload(&self, device: DeviceId, wish: Wish, entrance: Entrance) -> Offered<'_> {
        Box::pin(self.upload_offer(device, wish, entrance))
    }

    fn offer_download(&self, device: DeviceId, id: Uuid, entrance: Entrance) -> Offered<'_> {
        Box::pin(self.download_offer(device, id, entrance))
    }

    fn kept_for(&self) -> Duration {
        self.config.retention
    }

    fn problem(&self) -> Option<String> {
        self.blobs.problem()
    }
}

/// Bytes as the database has them.
pub(crate) fn stored(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

/// Why something that has had its time stays for now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpireError {
    #[error(transparent)]
    Control(#[from] StoreError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the file of an upload cannot be removed")]
    Staged(#[from] io::Error),
    #[error(transparent)]
    Sweep(#[from] SweepError),
}

#[cfg(test)]
mod tests;
