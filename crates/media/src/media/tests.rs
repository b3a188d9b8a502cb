use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tower::ServiceExt as _;
use vestibule_platform::{Clock, DevicePath, Entrance, Flags, PlatformConfig, Position, Record, RecordKind, TokenFile};
use vestibule_store::{Scan, Store, StoreConfig};

use super::*;

const NOON: i64 = 1_795_214_614_000;
/// What the shortest object counts as.
const LEAST: u64 = vestibule_store::MEDIA_LEAST.unsigned_abs();
const DAY: i64 = 24 * 60 * 60 * 1_000;

#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        NOON + self.0.load(Ordering::Relaxed)
    }
}

/// A directory, and a clock that the test sets.
struct Bed {
    dir: TempDir,
    hands: Arc<Hands>,
    limits: fn(&mut MediaConfig),
}

impl Bed {
    fn new(limits: fn(&mut MediaConfig)) -> Bed {
        Bed { dir: tempfile::tempdir().expect("a directory"), hands: Arc::default(), limits }
    }

    fn set(&self, after_noon: i64) {
        self.hands.0.store(after_noon, Ordering::Relaxed);
    }

    fn now(&self) -> i64 {
        self.hands.now_ms()
    }

    async fn open(&self) -> Arc<Media> {
        let store = Store::open(StoreConfig::new(self.dir.path())).await.expect("a store");
        let control = store.control.clone();
        let token = TokenFile::open(&self.dir.path().join("token")).expect("a token");
        let clock = Arc::clone(&self.hands) as Arc<dyn Clock>;
        let platform = Platform::open(store, PlatformConfig::default(), clock, token).await.expect("a platform");
        let mut config = MediaConfig::new(self.dir.path().join("media"), "");
        (self.limits)(&mut config);
        let (media, keeper) = Media::open(config, platform, control).await.expect("media");
        // The test says when what has had its time goes.
        keeper.abort();
        media
    }

    /// Files under a directory of the media.
    fn files(&self, kind: &str) -> usize {
        fn count(dir: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.dir.path().join("media").join(kind))
    }
}

fn file(bytes: Option<u64>) -> Wish {
    Wish { id: None, kind: MediaKind::File, name: String::new(), bytes, media_type: None, digest: None }
}

async fn asked(media: &Arc<Media>, request: Request<Body>) -> StatusCode {
    crate::router(Arc::clone(media)).oneshot(request).await.expect("an answer").status()
}

async fn put(media: &Arc<Media>, url: &str, content: &[u8]) -> StatusCode {
    let digest = STANDARD.encode(digest(&SHA256, content));
    let request = Request::put(url).header("repr-digest", format!("sha-256=:{digest}:"));
    let request = request.header("content-length", content.len()).body(Body::from(content.to_vec()));
    asked(media, request.expect("a request")).await
}

async fn patch(media: &Arc<Media>, url: &str, offset: u64, content: &[u8]) -> StatusCode {
    let request = Request::patch(url).header("content-type", "application/partial-upload");
    let request = request.header("upload-offset", offset).body(Body::from(content.to_vec()));
    asked(media, request.expect("a request")).await
}

#[tokio::test]
async fn a_ticket_is_begun_in_time_and_an_upload_ends_in_time() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let device = DeviceId::mint();
    let late = media.offer_upload(device, file(None), Entrance::Plain).await.expect("an offer");
    let begun = media.offer_upload(device, file(Some(6)), Entrance::Plain).await.expect("an offer");
    assert_eq!(patch(&media, &begun.url, 0, b"abc").await, StatusCode::NO_CONTENT);
    bed.set(15 * 60 * 1_000);
    assert_eq!(put(&media, &late.url, b"x").await, StatusCode::UNAUTHORIZED);
    assert_eq!(patch(&media, &begun.url, 3, b"d").await, StatusCode::NO_CONTENT, "it has begun");
    bed.set(DAY - 1);
    assert_eq!(patch(&media, &begun.url, 4, b"e").await, StatusCode::NO_CONTENT);
    media.expire(bed.now()).await.expect("expired");
    assert_eq!(media.control.media(late.id).await.expect("a store"), None);
    assert_eq!(bed.files("staging"), 1);
    bed.set(DAY);
    assert_eq!(patch(&media, &begun.url, 5, b"f").await, StatusCode::UNAUTHORIZED);
    media.expire(bed.now()).await.expect("expired");
    assert_eq!(media.control.media(begun.id).await.expect("a store"), None);
    assert_eq!(bed.files("staging"), 0);
    assert!(media.usage.has_room(device, media.config.device_max_bytes), "what it took is given back");
    media.platform.close().await;
}

#[tokio::test]
async fn equal_contents_are_stored_once_and_go_with_the_last() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let device = DeviceId::mint();
    for n in 0..2 {
        bed.set(n * 1_000);
        let offer = media.offer_upload(device, file(None), Entrance::Plain).await.expect("an offer");
        assert_eq!(put(&media, &offer.url, b"the same").await, StatusCode::CREATED);
        assert_eq!(bed.files("blob"), 1);
    }
    media.expire(NOON + 30 * DAY).await.expect("expired");
    assert_eq!(bed.files("blob"), 1, "the second is younger");
    media.expire(NOON + 30 * DAY + 1_000).await.expect("expired");
    assert_eq!(bed.files("blob"), 0);
    assert!(media.usage.has_room(device, media.config.device_max_bytes));
    media.platform.close().await;
}

#[tokio::test]
async fn neither_a_device_nor_all_have_more_than_they_may() {
    let bed = Bed::new(|config| {
        config.device_max_bytes = 10 * LEAST;
        config.max_bytes = 15 * LEAST;
    });
    let media = bed.open().await;
    let (a, b) = (DeviceId::mint(), DeviceId::mint());
    let eight = vec![8; 8 * LEAST as usize];
    let first = media.offer_upload(a, file(Some(8 * LEAST)), Entrance::Plain).await.expect("an offer");
    let second = media.offer_upload(a, file(Some(8 * LEAST)), Entrance::Plain).await.expect("an offer takes nothing");
    assert_eq!(put(&media, &first.url, &eight).await, StatusCode::CREATED);
    assert_eq!(put(&media, &second.url, &eight).await, StatusCode::TOO_MANY_REQUESTS);
    assert!(matches!(media.offer_upload(a, file(Some(3 * LEAST)), Entrance::Plain).await, Err(OfferError::Quota)));
    assert!(matches!(media.offer_upload(b, file(Some(8 * LEAST)), Entrance::Plain).await, Err(OfferError::Quota)));
    for _ in 0..7 {
        let third = media.offer_upload(b, file(None), Entrance::Plain).await;
        assert!(matches!(third, Err(OfferError::Quota)), "what does not say its length may be as long as any");
        let third = media.offer_upload(b, file(Some(1)), Entrance::Plain).await.expect("an offer");
        assert_eq!(put(&media, &third.url, b"0").await, StatusCode::CREATED);
    }
    assert!(
        matches!(media.offer_upload(b, file(Some(0)), Entrance::Plain).await, Err(OfferError::Quota)),
        "the shortest counts"
    );
    media.expire(NOON + 31 * DAY).await.expect("expired");
    for _ in 0..MAX_OPEN {
        media.offer_upload(a, file(Some(1)), Entrance::Plain).await.expect("an offer");
    }
    assert!(
        matches!(media.offer_upload(a, file(Some(1)), Entrance::Plain).await, Err(OfferError::Quota)),
        "too many are open"
    );
    media.platform.close().await;
}

#[tokio::test]
async fn the_oldest_make_room() {
    let bed = Bed::new(|config| config.max_bytes = 10 * LEAST);
    let media = bed.open().await;
    let device = DeviceId::mint();
    let mut ids = Vec::new();
    for n in 0..10_u8 {
        bed.set(i64::from(n));
        let offer = media.offer_upload(device, file(Some(10)), Entrance::Plain).await.expect("an offer");
        assert_eq!(put(&media, &offer.url, &[n; 10]).await, StatusCode::CREATED);
        ids.push(offer.id);
    }
    assert!(matches!(media.offer_upload(device, file(Some(10)), Entrance::Plain).await, Err(OfferError::Quota)));
    media.expire(bed.now()).await.expect("room");
    let state = async |id| media.control.media(id).await.expect("a store").map(|row| row.state);
    assert_eq!(state(ids[0]).await, Some(MediaState::Gone), "nobody waits for it");
    for id in &ids[1..] {
        assert_eq!(state(*id).await, Some(MediaState::Here));
    }
    assert_eq!(bed.files("blob"), 9);
    let offer = media.offer_upload(device, file(Some(10)), Entrance::Plain).await.expect("an offer");
    assert_eq!(put(&media, &offer.url, b"0123456789").await, StatusCode::CREATED);
    bed.set(40 * DAY);
    media.expire(bed.now()).await.expect("expired");
    assert_eq!((state(ids[0]).await, bed.files("blob")), (None, 0), "nothing is remembered for ever");
    media.platform.close().await;
}

#[tokio::test]
async fn an_upload_cannot_be_shorter_than_what_has_come() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let offer = media.offer_upload(DeviceId::mint(), file(None), Entrance::Plain).await.expect("an offer");
    assert_eq!(patch(&media, &offer.url, 0, &[7; 1_000]).await, StatusCode::NO_CONTENT);
    // Of a body that does not say its length nobody knows how long it will be.
    let endless = Body::new(Chunks(4));
    let request = Request::patch(&offer.url).header("content-type", "application/partial-upload");
    let request = request.header("upload-offset", 1_000).header("upload-length", 10).body(endless);
    assert_eq!(asked(&media, request.expect("a request")).await, StatusCode::CONFLICT);
    let staged = std::fs::metadata(media.staging.path(offer.id)).expect("a file").len();
    assert_eq!(staged, 1_000);
    media.platform.close().await;
}

#[tokio::test]
async fn what_waited_is_held_to_what_was_said_meanwhile() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let offer = media.offer_upload(DeviceId::mint(), file(None), Entrance::Plain).await.expect("an offer");
    let turn = media.turns.take(offer.id).await;
    let waiting = tokio::spawn({
        let (media, url) = (Arc::clone(&media), offer.url.clone());
        async move { put(&media, &url, b"longer").await }
    });
    // It has looked at the row, and waits for its turn.
    turn.ended().await;
    let now = bed.now();
    assert!(media.control.begin_media(offer.id, now, Some(1), None, now + DAY).await.expect("a store"));
    drop(turn);
    assert_eq!(waiting.await.expect("an answer"), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(bed.files("staging"), 0);
    media.platform.close().await;
}

#[tokio::test]
async fn what_is_being_stored_does_not_hold_up_the_rest() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let device = DeviceId::mint();
    let mut begun = Vec::new();
    for _ in 0..2 {
        let offer = media.offer_upload(device, file(Some(6)), Entrance::Plain).await.expect("an offer");
        assert_eq!(patch(&media, &offer.url, 0, b"abc").await, StatusCode::NO_CONTENT);
        begun.push(offer.id);
    }
    let turn = media.turns.take(begun[0]).await;
    media.expire(NOON + DAY).await.expect("expired");
    let is_here = async |id| media.control.media(id).await.expect("a store").is_some();
    assert!(is_here(begun[0]).await && !is_here(begun[1]).await);
    drop(turn);
    media.expire(NOON + DAY).await.expect("expired");
    assert!(!is_here(begun[0]).await);
    media.platform.close().await;
}

#[tokio::test]
async fn what_is_never_taken_takes_nothing() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let device = DeviceId::mint();
    let picture = |wish: Wish| Wish { kind: MediaKind::Picture, ..wish };
    let is_there = async |id| media.control.media(id).await.expect("a store").is_some();
    let is_free = || media.usage.has_room(device, media.config.device_max_bytes);
    // The signature of a PNG, and what is not one.
    let broken = b"\x89PNG\r\n\x1a\nand no more";

    let html = media.offer_upload(device, picture(file(None)), Entrance::Plain).await.expect("an offer");
    assert_eq!(put(&media, &html.url, b"<!doctype html>").await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let cut = media.offer_upload(device, picture(file(None)), Entrance::Plain).await.expect("an offer");
    assert_eq!(put(&media, &cut.url, broken).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!is_there(html.id).await && !is_there(cut.id).await && is_free());
    assert_eq!(put(&media, &cut.url, broken).await, StatusCode::UNAUTHORIZED, "the ticket is used");

    // What was altered on its way may come again, whatever became of it.
    let own = Wish { id: Some(cut.id), digest: Some([1; 32]), ..picture(file(Some(6))) };
    let offer = media.offer_upload(device, own, Entrance::Plain).await.expect("the id is free");
    let whole = async |content: &[u8]| {
        let request = Request::put(&offer.url).header("content-length", content.len());
        asked(&media, request.body(Body::from(content.to_vec())).expect("a request")).await
    };
    for _ in 0..2 {
        assert_eq!(whole(b"abcdef").await, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(is_there(offer.id).await && !is_free());
    }
    assert_eq!(bed.files("staging"), 0);
    media.platform.close().await;
}

/// A body of so many chunks that does not say how long it is.
struct Chunks(usize);

impl hyper::body::Body for Chunks {
    type Data = axum::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        self.0 = match self.0.checked_sub(1) {
            Some(left) => left,
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(hyper::body::Frame::data(axum::body::Bytes::from_static(&[7; 1_024])))))
    }
}

#[tokio::test]
async fn a_device_gives_an_id_and_asks_for_it_again() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let (device, id) = (DeviceId::mint(), Uuid::now_v7());
    let own = |digest| Wish { id: Some(id), digest, ..file(Some(6)) };
    let first = media.offer_upload(device, own(Some([1; 32])), Entrance::Plain).await.expect("an offer");
    assert_eq!(first.id, id);
    assert!(
        matches!(media.offer_upload(DeviceId::mint(), own(None), Entrance::Plain).await, Err(OfferError::Taken)),
        "another's"
    );
    assert!(
        matches!(media.offer_upload(device, own(Some([2; 32])), Entrance::Plain).await, Err(OfferError::Taken)),
        "other content"
    );
    let picture = Wish { kind: MediaKind::Picture, ..own(None) };
    assert!(
        matches!(media.offer_upload(device, picture, Entrance::Plain).await, Err(OfferError::Taken)),
        "another kind"
    );
    // The first ticket is too old; what is asked for again is good, and goes on where the upload is.
    bed.set(15 * 60 * 1_000 - 1);
    let again = media.offer_upload(device, own(None), Entrance::Plain).await.expect("an offer");
    bed.set(15 * 60 * 1_000);
    assert_eq!(patch(&media, &first.url, 0, b"abc").await, StatusCode::UNAUTHORIZED);
    assert_eq!(patch(&media, &again.url, 0, b"abc").await, StatusCode::NO_CONTENT);
    let again = media.offer_upload(device, own(None), Entrance::Plain).await.expect("an offer");
    assert_eq!(patch(&media, &again.url, 3, b"def").await, StatusCode::UNPROCESSABLE_ENTITY, "another SHA-256");
    media.platform.close().await;
}

#[tokio::test]
async fn what_a_crash_leaves_is_not_seen_and_goes() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let device = DeviceId::mint();
    let kept = media.offer_upload(device, file(Some(4)), Entrance::Plain).await.expect("an offer");
    assert_eq!(put(&media, &kept.url, b"kept").await, StatusCode::CREATED);
    let going = media.offer_upload(device, file(Some(6)), Entrance::Plain).await.expect("an offer");
    assert_eq!(patch(&media, &going.url, 0, b"abc").await, StatusCode::NO_CONTENT);
    // As if the process had ended after the content was stored and before its row said so.
    let stray: [u8; 32] = std::array::from_fn(|n| n as u8);
    let path = media.staging.path(going.id);
    media.blobs.store_file(&stray, &path, 3).await.expect("stored");
    media.platform.close().await;
    drop(media);
    // And in the middle of a write of the object store, and after the row of an upload went.
    let dir = bed.dir.path().join("media");
    std::fs::write(dir.join("blob/00/half#1"), "ha").expect("written");
    std::fs::write(dir.join("staging").join(Uuid::now_v7().simple().to_string()), "x").expect("written");
    assert_eq!((bed.files("blob"), bed.files("staging")), (3, 2));

    let media = bed.open().await;
    assert_eq!((bed.files("blob"), bed.files("staging")), (2, 1));
    assert_eq!(media.blobs.sweep(&media.control).await.expect("swept"), 1);
    assert_eq!(bed.files("blob"), 1);
    // What was under way goes on, and what was here is here.
    assert_eq!(patch(&media, &going.url, 3, b"def").await, StatusCode::CREATED);
    assert_eq!(put(&media, &kept.url, b"kept").await, StatusCode::OK);
    assert!(media.offer_download(device, kept.id, Entrance::Plain).await.is_ok());
    assert!(matches!(media.offer_download(DeviceId::mint(), kept.id, Entrance::Plain).await, Err(OfferError::Unknown)));
    media.platform.close().await;
}

#[tokio::test]
async fn a_crash_between_an_amendment_and_its_mark_amends_once() {
    let bed = Bed::new(|_| ());
    let media = bed.open().await;
    let device = DeviceId::mint();
    let picture = Wish { kind: MediaKind::Picture, ..file(None) };
    let offer = media.offer_upload(device, picture, Entrance::Plain).await.expect("an offer");
    let level = || Box::from("x");
    let event = Record {
        position: Position::START,
        device,
        serial: "S".into(),
        kind: RecordKind::Event,
        path: Arc::new(DevicePath { resource: level(), index: level(), area: level(), name: level() }),
        id: Some("e-1".into()),
        time: bed.now(),
        received: bed.now(),
        flags: Flags::NONE,
        data: format!("{{\"shot\":{{\"id\":\"{}\"}}}}", offer.id).into(),
    };
    let at = media.platform.journal().append(event);
    media.platform.journal().watch_durable().wait_for(|durable| *durable >= at).await.expect("durable");
    let mut png = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(4, 4).write_to(&mut png, image::ImageFormat::Png).expect("encoded");
    assert_eq!(put(&media, &offer.url, &png.into_inner()).await, StatusCode::CREATED);
    // The end comes after the amendment was stored, and before the row says that it was told.
    let row = media.control.media(offer.id).await.expect("a store").expect("a row");
    assert_eq!(media.platform.picture_arrived(&row).await.expect("told"), 1);
    media.platform.close().await;
    drop(media);

    let media = bed.open().await;
    assert_eq!(media.control.untold_media().await.expect("a store").len(), 1);
    media.tell_arrivals().await.expect("told");
    assert!(media.control.untold_media().await.expect("a store").is_empty());
    let amendments = Scan { kind: Some(RecordKind::Amendment), limit: 10, ..Scan::default() };
    let amendments = media.platform.journal().scan(&amendments).await.expect("a journal");
    assert_eq!(amendments.len(), 1);
    media.platform.close().await;
}
