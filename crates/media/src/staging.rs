//! What has come of uploads so far: a file each, beside the database that says which there are.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use uuid::Uuid;

/// The directory of uploads under way.
pub(crate) struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// Makes the directory.
    pub(crate) async fn open(dir: &Path) -> io::Result<Staging> {
        let dir = dir.join("staging");
        tokio::fs::create_dir_all(&dir).await?;
        Ok(Staging { dir })
    }

    /// The file of an upload. The name is made of the id alone, so that nothing from outside is part of a path.
    pub(crate) fn path(&self, id: Uuid) -> PathBuf {
        self.dir.join(id.simple().to_string())
    }

    /// How much of an upload is here.
    pub(crate) async fn offset(&self, id: Uuid) -> io::Result<u64> {
        match tokio::fs::metadata(self.path(id)).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Opens the file of an upload for what comes next, or anew.
    pub(crate) async fn open_file(&self, id: Uuid, anew: bool) -> io::Result<File> {
        if anew {
            self.remove(id).await?;
        }
        OpenOptions::new().append(true).create(true).open(self.path(id)).await
    }

    /// Forgets what has come.
    pub(crate) async fn remove(&self, id: Uuid) -> io::Result<()> {
        match tokio::fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes every file that belongs to none of these uploads; returns how many there were.
    pub(crate) async fn keep_only(&self, known: &[Uuid]) -> io::Result<u64> {
        let mut removed = 0;
        let mut files = tokio::fs::read_dir(&self.dir).await?;
        while let Some(file) = files.next_entry().await? {
            let name = file.file_name();
            let id = name.to_str().and_then(|name| Uuid::try_parse(name).ok());
            if !id.is_some_and(|id| known.contains(&id)) {
                tokio::fs::remove_file(file.path()).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
