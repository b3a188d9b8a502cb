//! Where the bytes are: each content once, under its digest, in an object store.
//!
//! An object's row is written after its bytes are durable and removed before they are, so that whatever is seen is whole, and a
//! crash leaves at most bytes that nobody refers to. Those go with the next [`Blobs::sweep`].

use std::collections::HashSet;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, MutexGuard};
use vestibule_store::{Control, StoreError};

use crate::hex;

/// Bytes of one part of a large object, and so the most of it that is in memory.
const PART: usize = 5 * 1024 * 1024;
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
    dir: PathBuf,
    /// Held by who stores or removes something whose digest ends this way, so that no content goes while another object
    /// of the same is being made.
    gates: [Mutex<()>; 16],
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
        // process that was killed put there may not have been synced, and is taken as stored from here on.
        for kind in ["blob", "thumb"] {
            for first in 0..=u8::MAX {
                let dir = dir.join(kind).join(format!("{first:02x}"));
                std::fs::create_dir_all(&dir)?;
                std::fs::File::open(dir)?.sync_all()?;
            }
            std::fs::File::open(dir.join(kind))?.sync_all()?;
        }
        std::fs::File::open(dir)?.sync_all()?;
        let store = LocalFileSystem::new_with_prefix(dir).map_err(io::Error::other)?.with_fsync(true);
        Ok(Blobs { store: Arc::new(store), dir: dir.to_owned(), gates: std::array::from_fn(|_| Mutex::default()) })
    }

    /// Nobody else stores or removes this content until the guard is dropped.
    pub(crate) async fn gate(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        self.gates[usize::from(digest[31] & 15)].lock().await
    }

    /// Stores the content of a file, durably when this returns, unless it is there. To be called with its gate held.
    pub(crate) async fn store_file(&self, digest: &Digest, path: &FilePath, bytes: u64) -> Result<(), BlobError> {
        let place = place(digest, Part::Original);
        match self.store.head(&place).await {
            Ok(meta) if meta.size == bytes => return Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = tokio::fs::File::open(path).await.map_err(BlobError::Staged)?;
        let first = next_part(&mut file).await?;
        if first.len() < PART {
            self.store.put(&place, first.into()).await?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(&place).await?;
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.put_part(part.into()).await {
                // What is left of it goes with a sweep if this fails too.
                let _ = upload.abort().await;
                return Err(error.into());
            }
            part = next_part(&mut file).await?;
        }
        upload.complete().await?;
        Ok(())
    }

    /// Stores a thumbnail.
    pub(crate) async fn store_thumbnail(&self, digest: &Digest, width: u32, bytes: Vec<u8>) -> Result<(), BlobError> {
        self.store.put(&place(digest, Part::Thumbnail(width)), bytes.into()).await?;
        Ok(())
    }

    /// Bytes of a content.
    pub(crate) async fn get(
        &self,
        digest: &Digest,
        part: Part,
        options: GetOptions,
    ) -> Result<GetResult, object_store::Error> {
        self.store.get_opts(&place(digest, part), options).await
    }

    /// Removes a content and its thumbnails. To be called with its gate held, when no object has it.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        for part in THUMBNAILS.map(Part::Thumbnail).into_iter().chain([Part::Original]) {
            match self.store.delete(&place(digest, part)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
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

    /// Removes what the object store has not finished writing. Only at the start, before anything is written.
    pub(crate) fn remove_unfinished(&self) -> io::Result<u64> {
        let mut removed = 0;
        for kind in ["blob", "thumb"] {
            for first in 0..=u8::MAX {
                for file in std::fs::read_dir(self.dir.join(kind).join(format!("{first:02x}")))? {
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
