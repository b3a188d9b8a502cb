//! Uploads: one ticket, one object, in as many pieces as it takes (media 7.1).

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use vestibule_store::{DeviceId, MediaArrival, MediaKind, MediaRow, MediaState};

use crate::blobs::BlobError;
use crate::content::{ContentError, Described, Format, look};
use crate::explain;
use crate::media::{FILE_TYPE, Media, stored, upload_path};
use crate::places::Place;
use crate::problem::{Kind, Problem};
use crate::source::Source;
use crate::ticket::TicketKind;
use crate::turns::Turn;

/// How long an upload waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits until an older one for the same upload has stopped. One that stores what has come does not stop.
const TURN: Duration = Duration::from_secs(30);
/// What is gathered of a body before it goes to the disk.
const GATHERED: usize = 128 * 1024;

type Digest = [u8; 32];

/// What has come of a request.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The object is here, from this request on.
    Arrived(MediaRow),
    /// It was here before, and is the same.
    Again(MediaRow),
    /// So much is here, and more has to come.
    Partly(u64),
}

impl Media {
    /// The object a ticket is for, as long as something may be done with it. An upload that has begun outlives the time of its
    /// ticket; one that is complete may be repeated, in case its answer was lost.
    pub(crate) async fn ticketed(&self, id: Uuid, ticket: &str) -> Result<MediaRow, Problem> {
        let path = upload_path(id);
        let opened = self.keys.open_ticket(ticket, TicketKind::Upload, id, &path).ok_or_else(Problem::ticket)?;
        let row = self.control.media(id).await?.ok_or_else(Problem::ticket)?;
        let now = self.now();
        let in_time =
            row.state != MediaState::Offered || u64::try_from(now / 1_000).is_ok_and(|now| now < opened.expiry);
        if !in_time || now >= row.deadline || row.state == MediaState::Gone {
            return Err(Problem::ticket());
        }
        Ok(row)
    }

    /// Takes a whole object.
    pub(crate) async fn put(
        &self,
        id: Uuid,
        ticket: &str,
        length: u64,
        digest: Option<Digest>,
        body: Body,
    ) -> Result<Taken, Problem> {
        let row = self.ticketed(id, ticket).await?;
        let taken = self.put_to(&row, ticket, length, digest, body).await;
        self.explain(&row, &taken);
        taken
    }

    async fn put_to(
        &self,
        row: &MediaRow,
        ticket: &str,
        length: u64,
        digest: Option<Digest>,
        body: Body,
    ) -> Result<Taken, Problem> {
        let id = row.id;
        fits(row, length)?;
        if row.state != MediaState::Here && row.digest.or(digest).is_none() {
            let detail = "Send the header \"Repr-Digest: sha-256=:<base64>:\"; the ticket does not say the digest.";
            return Err(Problem::new(Kind::Request, detail));
        }
        let turn = self.turn(id).await?;
        let _place = self.upload_place(row.device).await?;
        // It may have gone on while others had their turn.
        let row = self.ticketed(id, ticket).await?;
        if row.state == MediaState::Here {
            return self.compare(row, length, body, &turn).await;
        }
        fits(&row, length)?;
        let row = self.begin(row, Some(length), digest).await?;
        let offset = self.receive(&row, 0, length, body, &turn).await?;
        if offset < length {
            return Err(Problem::new(Kind::Request, "The body ended before it was complete.").at(offset));
        }
        self.arrived(row).await.map(Taken::Arrived)
    }

    /// Takes the piece of an object that begins at this offset. `length` is what the sender says now of the whole, `last`
    /// whether it says that this piece is the last one.
    pub(crate) async fn append(&self, id: Uuid, ticket: &str, piece: Piece, body: Body) -> Result<Taken, Problem> {
        let row = self.ticketed(id, ticket).await?;
        let taken = self.append_to(&row, ticket, piece, body).await;
        self.explain(&row, &taken);
        taken
    }

    async fn append_to(&self, row: &MediaRow, ticket: &str, piece: Piece, body: Body) -> Result<Taken, Problem> {
        let id = row.id;
        let turn = self.turn(id).await?;
        let _place = self.upload_place(row.device).await?;
        let row = self.ticketed(id, ticket).await?;
        if row.state == MediaState::Here {
            // Used.
            return Err(Problem::ticket());
        }
        let here = if row.state == MediaState::Offered { 0 } else { self.staging.offset(id).await? };
        if piece.offset != here {
            return Err(
                Problem::new(Kind::Conflict, "The upload is not there; Upload-Offset says where it is.").at(here)
            );
        }
        let known = row.length.map(stored);
        if let (Some(known), Some(said)) = (known, piece.length)
            && known != said
        {
            return Err(Problem::new(Kind::Conflict, "The upload has another length.").at(here));
        }
        let length = known.or(piece.length);
        if length.is_some_and(|length| length < here) {
            return Err(Problem::new(Kind::Conflict, "More than that has come.").at(here));
        }
        if let Some(length) = length {
            fits(&row, length)?;
        }
        let most = length.unwrap_or(stored(row.bytes));
        if piece.body.is_some_and(|body| body > most.saturating_sub(here)) {
            return Err(too_large(most).at(here));
        }
        let row = match row.state {
            MediaState::Offered => self.begin(row, length, piece.digest).await?,
            _ => self.learn(row, length, piece.digest).await?,
        };
        let offset = self.receive(&row, here, most, body, &turn).await?;
        if length == Some(offset) || (length.is_none() && piece.last) {
            return self.arrived(row).await.map(Taken::Arrived);
        }
        if piece.last {
            return Err(Problem::new(Kind::Conflict, "The upload is not complete.").at(offset));
        }
        Ok(Taken::Partly(offset))
    }

    /// How much of an upload is here, and how long it is as far as that is known. Whoever is still at it stops.
    pub(crate) async fn standing(&self, id: Uuid, ticket: &str) -> Result<(u64, Option<u64>), Problem> {
        self.ticketed(id, ticket).await?;
        let _turn = self.turn(id).await?;
        let row = self.ticketed(id, ticket).await?;
        let offset = match row.state {
            MediaState::Offered => 0,
            MediaState::Receiving => self.staging.offset(id).await?,
            MediaState::Here | MediaState::Gone => stored(row.bytes),
        };
        Ok((offset, row.length.map(stored)))
    }

    /// The turn of a request, when those before it have stopped.
    async fn turn(&self, id: Uuid) -> Result<Turn, Problem> {
        if let Ok(turn) = timeout(TURN, self.turns.take(id)).await {
            return Ok(turn);
        }
        let here = self.staging.offset(id).await?;
        Err(Problem::new(Kind::Conflict, "Another request is at this upload still. Try again.").at(here))
    }

    /// When an upload has to be over.
    fn end_of(&self, row: &MediaRow) -> Instant {
        let left = Duration::from_millis(stored(row.deadline.saturating_sub(self.now())));
        let now = Instant::now();
        // What is too far away to be told is never.
        now.checked_add(left).unwrap_or(now + self.config.upload_ttl)
    }

    /// A place among the uploads that are received at once.
    async fn upload_place(&self, device: DeviceId) -> Result<Place, Problem> {
        match timeout(PATIENCE, self.uploads.take(device)).await {
            Ok(Some(place)) => Ok(place),
            _ => Err(Problem::new(Kind::Quota, "As many uploads as allowed are under way.")),
        }
    }

    /// Marks the upload as begun, once, and takes its bytes from what the device may have; or begins it anew.
    async fn begin(&self, row: MediaRow, length: Option<u64>, digest: Option<Digest>) -> Result<MediaRow, Problem> {
        if row.state == MediaState::Receiving {
            let row = self.learn(row, length, digest).await?;
            self.staging.remove(row.id).await?;
            return Ok(row);
        }
        let row = described(row, length, digest)?;
        // From here on it takes what it says, not what it might have had.
        let row = MediaRow { bytes: row.length.unwrap_or(row.bytes), ..row };
        if !self.usage.take(row.device, stored(row.bytes)) {
            return Err(Problem::new(Kind::Quota, "There is no room for more pictures and files."));
        }
        let now = self.now();
        let ttl = i64::try_from(self.config.upload_ttl.as_millis()).unwrap_or(i64::MAX);
        let deadline = now.saturating_add(ttl);
        match self.control.begin_media(row.id, now, row.length, row.digest, deadline).await {
            Ok(true) => Ok(MediaRow { state: MediaState::Receiving, deadline, ..row }),
            begun => {
                self.usage.give_back(row.device, stored(row.bytes));
                begun?;
                // Another node was faster, or the time is up.
                Err(Problem::ticket())
            }
        }
    }

    async fn learn(&self, row: MediaRow, length: Option<u64>, digest: Option<Digest>) -> Result<MediaRow, Problem> {
        let (before, row) = ((row.length, row.digest), described(row, length, digest)?);
        if before != (row.length, row.digest) && !self.control.learn_media(row.id, row.length, row.digest).await? {
            return Err(Problem::ticket());
        }
        Ok(row)
    }

    /// Writes a body behind what is here; returns how much is here then. What has come stays when the connection breaks.
    async fn receive(&self, row: &MediaRow, from: u64, most: u64, body: Body, turn: &Turn) -> Result<u64, Problem> {
        let file = self.staging.open_file(row.id, from == 0).await?;
        self.told(row.device, row.id, if from == 0 { explain::begun(row) } else { explain::resumed(row, from) });
        let mut file = BufWriter::with_capacity(GATHERED, file);
        let mut source = Source::new(body, self.end_of(row));
        let mut offset = from;
        let end = loop {
            match source.next(turn).await {
                Ok(Some(bytes)) => {
                    if bytes.len() as u64 > most.saturating_sub(offset) {
                        break Err(too_large(most));
                    }
                    file.write_all(&bytes).await?;
                    offset += bytes.len() as u64;
                }
                Ok(None) => break Ok(offset),
                Err(cut) => break Err(cut),
            }
        };
        file.flush().await?;
        metrics::counter!("vestibule_media_in_bytes_total").increment(offset - from);
        end.map_err(|problem| {
            metrics::counter!("vestibule_media_uploads_total", "result" => "interrupted").increment(1);
            problem.at(offset)
        })
    }

    /// Answers a repetition: the same content is fine, another one is not.
    async fn compare(&self, row: MediaRow, length: u64, body: Body, turn: &Turn) -> Result<Taken, Problem> {
        let different = || Problem::new(Kind::Conflict, "Something else was sent with this ticket before.");
        if length != stored(row.bytes) {
            return Err(different());
        }
        let mut source = Source::new(body, self.end_of(&row));
        let (mut context, mut left) = (Context::new(&SHA256), length);
        while let Some(bytes) = source.next(turn).await? {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(different)?;
            context.update(&bytes);
        }
        if left > 0 || row.digest.as_ref().map(|digest| &digest[..]) != Some(context.finish().as_ref()) {
            return Err(different());
        }
        Ok(Taken::Again(row))
    }

    /// Looks at what has come, stores it and makes it known.
    async fn arrived(&self, row: MediaRow) -> Result<MediaRow, Problem> {
        let Ok(_place) = self.storing.acquire().await else {
            return Err(Problem::new(Kind::Store, "The platform is shutting down."));
        };
        let path = self.staging.path(row.id);
        let (kind, max_pixels) = (row.kind, self.config.picture_max_pixels);
        let seen = tokio::task::spawn_blocking({
            let path = path.clone();
            move || inspect(&path, kind, max_pixels)
        });
        let seen = seen.await.map_err(|_| Problem::new(Kind::Store, "The upload cannot be looked at."))?;
        let seen = seen?;
        let described = match seen.check(&row) {
            Ok(described) => described,
            Err(refused) => {
                metrics::counter!("vestibule_media_uploads_total", "result" => "refused").increment(1);
                // What is wrong stays wrong: whoever sends again begins at the beginning.
                self.staging.remove(row.id).await?;
                return Err(match refused {
                    Refused::Altered(problem) => problem.at(0),
                    Refused::Unfit(problem) => {
                        // Nothing else can come of it, so that it takes nothing any more, and its id is free.
                        if self.control.remove_media(row.id, MediaState::Receiving).await? {
                            self.usage.give_back(row.device, stored(row.bytes));
                        }
                        problem
                    }
                });
            }
        };
        let arrival = MediaArrival {
            digest: seen.digest,
            bytes: i64::try_from(seen.bytes).unwrap_or(i64::MAX),
            media_type: described.map_or(FILE_TYPE, |described| described.format.media_type()),
            size: described.map(|described| (described.width, described.height)),
            now: self.now(),
        };
        let gate = self.blobs.gate(&seen.digest).await;
        self.blobs.store_file(&seen.digest, &path, seen.bytes).await.map_err(|error| match error {
            BlobError::Staged(error) => Problem::from(error),
            BlobError::Store(error) => Problem::from(error),
        })?;
        if !self.control.finish_media(row.id, arrival.clone()).await? {
            // Its time was up; the content goes with a sweep.
            return Err(Problem::ticket());
        }
        drop(gate);
        self.usage.shrink(row.device, stored(row.bytes), seen.bytes);
        if let Err(error) = self.staging.remove(row.id).await {
            tracing::warn!(%error, "the file of a completed upload stays until the next start");
        }
        metrics::counter!("vestibule_media_uploads_total", "result" => "stored").increment(1);
        self.arrival.notify_one();
        Ok(MediaRow {
            state: MediaState::Here,
            bytes: arrival.bytes,
            length: Some(arrival.bytes),
            digest: Some(arrival.digest),
            media_type: arrival.media_type.to_owned(),
            size: arrival.size,
            created: arrival.now,
            ..row
        })
    }
}

/// What a sender says of a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Where it begins.
    pub(crate) offset: u64,
    /// How long the whole is.
    pub(crate) length: Option<u64>,
    /// How long the piece is.
    pub(crate) body: Option<u64>,
    /// Whether it is the last one.
    pub(crate) last: bool,
    /// The digest of the whole.
    pub(crate) digest: Option<Digest>,
}

/// What has come, as it was found.
struct Seen {
    bytes: u64,
    digest: Digest,
    /// What a picture says of itself, or what is wrong with it.
    described: Option<Result<Described, ContentError>>,
}

/// Why what has come is not taken.
enum Refused {
    /// It is not what was sent; it may be sent again.
    Altered(Problem),
    /// It is what was sent, as far as anybody said, and will never be taken.
    Unfit(Problem),
}

impl Seen {
    /// What a picture says of itself, when all of it is as was said and asked for. Whether it came as it was sent is looked at
    /// first: only then is what is wrong with it its sender's doing.
    fn check(&self, row: &MediaRow) -> Result<Option<Described>, Refused> {
        let altered = |detail| Err(Refused::Altered(Problem::new(Kind::Content, detail)));
        if row.length.map(stored).is_some_and(|length| length != self.bytes) {
            return altered("The content has another length than was said.");
        }
        if row.digest.is_some_and(|digest| digest != self.digest) {
            return altered("The content has another SHA-256 than was said.");
        }
        let described = match &self.described {
            None => return Ok(None),
            Some(Ok(described)) => *described,
            Some(Err(error)) => return Err(Refused::Unfit(unfit(error))),
        };
        match Format::of_media_type(&row.media_type) {
            Some(asked) if described.format != asked => Err(Refused::Unfit(Problem::new(
                Kind::Type,
                format!("The content is {}, and the ticket is for {}.", described.format.media_type(), row.media_type),
            ))),
            _ => Ok(Some(described)),
        }
    }
}

/// Syncs a file and goes through it, once for its digest and, when it is a picture, once for its structure.
fn inspect(path: &Path, kind: MediaKind, max_pixels: u64) -> io::Result<Seen> {
    let mut context = Context::new(&SHA256);
    let (mut bytes, mut described) = (0, None);
    match File::open(path) {
        // An upload of nothing may have no file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => described = Some(Err(ContentError::Broken)),
        Err(error) => return Err(error),
        Ok(mut file) => {
            file.sync_all()?;
            let mut buffer = vec![0; GATHERED];
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                context.update(&buffer[..read]);
                bytes += read as u64;
            }
            if kind == MediaKind::Picture {
                file.rewind()?;
                described = match look(&mut BufReader::with_capacity(GATHERED, file), bytes, max_pixels) {
                    Err(ContentError::Io(error)) => return Err(error),
                    looked => Some(looked),
                };
            }
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(Seen { bytes, digest, described })
}

/// What is wrong with a picture, for its sender.
fn unfit(error: &ContentError) -> Problem {
    match error {
        ContentError::NoPicture => Problem::new(Kind::Type, "The content is not a JPEG, PNG, WebP or AVIF picture."),
        wrong => Problem::new(Kind::Content, format!("{wrong}.")),
    }
}

/// What is known of an upload after what its sender says now; it cannot take anything back.
fn described(row: MediaRow, length: Option<u64>, digest: Option<Digest>) -> Result<MediaRow, Problem> {
    if let (Some(known), Some(said)) = (row.digest, digest)
        && known != said
    {
        return Err(Problem::new(Kind::Content, "The ticket is for content with another SHA-256."));
    }
    let length = length.and_then(|length| i64::try_from(length).ok());
    Ok(MediaRow { length: length.or(row.length), digest: digest.or(row.digest), ..row })
}

fn fits(row: &MediaRow, length: u64) -> Result<(), Problem> {
    if row.state != MediaState::Here && length > stored(row.bytes) {
        return Err(too_large(stored(row.bytes)));
    }
    if row.state != MediaState::Here && row.length.map(stored).is_some_and(|known| known != length) {
        return Err(Problem::new(Kind::Content, "The ticket is for content of another length."));
    }
    Ok(())
}

fn too_large(most: u64) -> Problem {
    Problem::new(Kind::TooLarge, format!("At most {most} bytes are taken."))
}
