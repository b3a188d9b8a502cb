//! Where the bytes are: each content once, under its digest, in an object store.
//!
//! An object's row is written after its bytes are durable and removed before they are, so that whatever is seen is whole, and a
//! crash leaves at most bytes that nobody refers to. Those go with the next [`Blobs::sweep`].

use std::collections::HashSet;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, MutexGuard, Notify};
use vestibule_store::{Control, StoreError};

use crate::hex;
use crate::s3::S3Config;

/// Bytes of one part of a large object, and so the most of it that is in memory.
const PART: usize = 5 * 1024 * 1024;
/// How often a bucket is asked whether it answers, and how often while it does not.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Widths that thumbnails are made in.
pub(crate) const THUMBNAILS: [u32; 3] = [160, 320, 640];

type Digest = [u8; 32];

/// Why bytes cannot be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// What has come of an upload cannot be read.
    #[error("an upload cannot be read")]
    Staged(#[source] io::Error),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// The store of pictures, files and thumbnails.
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    place: Place,
    /// Something has failed that should not.
    failed: Arc<Notify>,
    /// Held by who stores or removes something whose digest ends this way, so that no content goes while another object
    /// of the same is being made.
    gates: [Mutex<()>; 16],
}

/// Where the store is.
enum Place {
    Directory(PathBuf),
    Bucket {
        config: S3Config,
        /// Why it cannot be used, as people are told.
        problem: parking_lot::Mutex<Option<String>>,
    },
}

/// Which bytes of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// As it was sent.
    Original,
    /// A thumbnail of this width.
    Thumbnail(u32),
}

fn place(digest: &Digest, part: Part) -> Path {
    let (first, name) = (digest[0], hex::encode(digest));
    match part {
        Part::Original => Path::from(format!("blob/{first:02x}/{name}")),
        Part::Thumbnail(width) => Path::from(format!("thumb/{first:02x}/{name}-{width}")),
    }
}

impl Blobs {
    /// A store in a directory. What is written is synced before it counts as stored.
    pub(crate) fn in_directory(dir: &FilePath) -> io::Result<Blobs> {
        // All directories are there from the start: that a file is in one of them is synced, that they exist is not. What a
        // process that was killed put there may not have been synced, and is taken as stored from here on. Where nothing is,
        // there is nothing to sync: 512 syncs are most of a first start on a slow disk.
        for kind in ["blob", "thumb"] {
            for first in 0..=u8::MAX {
                let dir = dir.join(kind).join(format!("{first:02x}"));
                std::fs::create_dir_all(&dir)?;
                if std::fs::read_dir(&dir)?.next().is_some() {
                    std::fs::File::open(dir)?.sync_all()?;
                }
            }
            std::fs::File::open(dir.join(kind))?.sync_all()?;
        }
        std::fs::File::open(dir)?.sync_all()?;
        let store = LocalFileSystem::new_with_prefix(dir).map_err(io::Error::other)?.with_fsync(true);
        Ok(Blobs::at(Arc::new(store), Place::Directory(dir.to_owned())))
    }

    /// A store in a bucket. Nothing is sent yet: whether the bucket answers is what [`Blobs::watch`] finds out.
    pub(crate) fn in_bucket(config: S3Config) -> Result<Blobs, object_store::Error> {
        let store = config.open()?;
        Ok(Blobs::at(store, Place::Bucket { config, problem: parking_lot::Mutex::default() }))
    }

    fn at(store: Arc<dyn ObjectStore>, place: Place) -> Blobs {
        Blobs { store, place, failed: Arc::default(), gates: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Why nothing can be stored at the moment, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.place {
            Place::Directory(_) => None,
            Place::Bucket { problem, .. } => problem.lock().clone(),
        }
    }

    /// Asks a bucket whether it answers, once, and says how long until the next time. None: it is no bucket.
    pub(crate) async fn watch(&self) -> Option<Duration> {
        let Place::Bucket { config, problem } = &self.place else { return None };
        // A listing tells a bucket that is gone from an object that is not there; asking for an object may not.
        let answer = self.store.list_with_delimiter(Some(&Path::from("blob/00"))).await;
        let now = answer.err().map(|error| config.told(&error));
        let before = std::mem::replace(&mut *problem.lock(), now.clone());
        match (&before, &now) {
            (None, Some(told)) => tracing::error!("{told}"),
            (Some(_), None) => tracing::info!(bucket = config.bucket, "the bucket of pictures and files answers again"),
            _ => {}
        }
        metrics::gauge!("vestibule_media_store_failing").set(if now.is_some() { 1.0 } else { 0.0 });
        Some(if now.is_some() { LOOK_AGAIN } else { LOOK })
    }

    /// Says when something has failed that should not, so that it is time to [`Blobs::watch`].
    pub(crate) fn failed(&self) -> Arc<Notify> {
        Arc::clone(&self.failed)
    }

    /// Has a failure of a bucket looked into at once. That an object is not there is one only where it has to be.
    fn look_into(&self, error: &object_store::Error) {
        if let Place::Bucket { problem, .. } = &self.place {
            tracing::debug!(
                error = error as &dyn std::error::Error,
                "the bucket of pictures and files did not do as asked"
            );
            metrics::counter!("vestibule_media_store_failures_total").increment(1);
            // What is known to fail is looked at in its own time.
            if problem.lock().is_none() {
                self.failed.notify_one();
            }
        }
    }

    /// Nobody else stores or removes this content until the guard is dropped.
    pub(crate) async fn gate(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        self.gates[usize::from(digest[31] & 15)].lock().await
    }

    /// Stores the content of a file, durably when this returns, unless it is there. To be called with its gate held.
    pub(crate) async fn store_file(&self, digest: &Digest, path: &FilePath, bytes: u64) -> Result<(), BlobError> {
        let stored = self.put_file(&place(digest, Part::Original), path, bytes).await;
        if let Err(BlobError::Store(error)) = &stored {
            self.look_into(error);
        }
        stored
    }

    async fn put_file(&self, place: &Path, path: &FilePath, bytes: u64) -> Result<(), BlobError> {
        match self.store.head(place).await {
            Ok(meta) if meta.size == bytes => return Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = tokio::fs::File::open(path).await.map_err(BlobError::Staged)?;
        let first = next_part(&mut file).await?;
        if first.len() < PART {
            self.store.put(place, first.into()).await?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(place).await?;
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.put_part(part.into()).await {
                // What is left of it goes with a sweep if this fails too; in a bucket by its own rule for such things.
                let _ = upload.abort().await;
                return Err(error.into());
            }
            part = match next_part(&mut file).await {
                Ok(part) => part,
                Err(error) => {
                    let _ = upload.abort().await;
                    return Err(error);
                }
            };
        }
        upload.complete().await?;
        Ok(())
    }

    /// Stores a thumbnail.
    pub(crate) async fn store_thumbnail(&self, digest: &Digest, width: u32, bytes: Vec<u8>) -> Result<(), BlobError> {
        let stored = self.store.put(&place(digest, Part::Thumbnail(width)), bytes.into()).await;
        stored.inspect_err(|error| self.look_into(error))?;
        Ok(())
    }

    /// Bytes of a content. That an original is not there is a failure of the store; a thumbnail need not be.
    pub(crate) async fn get(
        &self,
        digest: &Digest,
        part: Part,
        options: GetOptions,
    ) -> Result<GetResult, object_store::Error> {
        let found = self.store.get_opts(&place(digest, part), options).await;
        found.inspect_err(|error| {
            if part == Part::Original || !matches!(error, object_store::Error::NotFound { .. }) {
                self.look_into(error);
            }
        })
    }

    /// Removes a content and its thumbnails. To be called with its gate held, when no object has it.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        for part in THUMBNAILS.map(Part::Thumbnail).into_iter().chain([Part::Original]) {
            match self.store.delete(&place(digest, part)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    self.look_into(&error);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Removes what no object that is here refers to: a crash may have left it. Returns how many there were.
    pub(crate) async fn sweep(&self, control: &Control) -> Result<u64, SweepError> {
        let mut removed = 0;
        for first in 0..=u8::MAX {
            let known: HashSet<Digest> = control.media_digests(first).await?.into_iter().collect();
            for kind in ["blob", "thumb"] {
                let prefix = Path::from(format!("{kind}/{first:02x}"));
                for object in self.store.list_with_delimiter(Some(&prefix)).await?.objects {
                    let digest = object.location.filename().and_then(|name| hex::decode(name.get(..64)?));
                    let Some(digest) = digest else { continue };
                    if known.contains(&digest) {
                        continue;
                    }
                    let _gate = self.gate(&digest).await;
                    // One that has come since the list was made stays.
                    if !control.has_media_digest(digest).await? {
                        self.store.delete(&object.location).await?;
                        removed += 1;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Removes what the object store has not finished writing. Only at the start, before anything is written. A bucket shows
    /// nothing of it and removes it by its own rule.
    pub(crate) fn remove_unfinished(&self) -> io::Result<u64> {
        let Place::Directory(dir) = &self.place else { return Ok(0) };
        let mut removed = 0;
        for kind in ["blob", "thumb"] {
            for first in 0..=u8::MAX {
                for file in std::fs::read_dir(dir.join(kind).join(format!("{first:02x}")))? {
                    let file = file?;
                    // The object store writes under another name first, which has a `#`.
                    if file.file_name().to_string_lossy().contains('#') {
                        std::fs::remove_file(file.path())?;
                        removed += 1;
                    }
                }
            }
        }
        Ok(removed)
    }
}

/// Why what is left over stays for now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    /// The database does not answer.
    #[error(transparent)]
    Control(#[from] StoreError),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

async fn next_part(file: &mut tokio::fs::File) -> Result<Vec<u8>, BlobError> {
    let mut part = Vec::new();
    file.take(PART as u64).read_to_end(&mut part).await.map_err(BlobError::Staged)?;
    Ok(part)
}
