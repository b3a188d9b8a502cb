//! Copies of a data directory: taken while the platform runs, brought back into an empty directory.
//!
//! A backup is a directory: `control.db`, `journal/` with its segments and its id, `VERSION`, `SHA256SUMS` in the format of
//! `sha256sum -c`, `BACKUP` with what it is, and, only when asked for, `keys/envelope.key`. Without that key what is sealed
//! in it stays sealed: keep the key apart. The administrator's token is never in it, a restored platform makes another.
//!
//! The control database is copied before the journal. So the journal knows all that the twins know, as after a crash, and
//! what it knows more is applied when the platform starts. A restored journal goes on behind every position that may have
//! been given since, and what waited for its device is not sent again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use crate::OpenError;
use crate::db::BUSY;
use crate::directory::{RESTORING, create_dir, sync_entry, write_new};
use crate::envelope::EnvelopeKey;
use crate::envelope::keeping::{KEY, NEXT};
use crate::examine::{beside, seal_of};
use crate::journal::{LOG, RESTORED, SEAL, segment_files};

/// The format of backups; `BACKUP` holds it.
const FORMAT: i64 = 1;
const ABOUT: &str = "BACKUP";
const SUMS: &str = "SHA256SUMS";
const CONTROL: &str = "control.db";

/// What to copy, and where to.
#[derive(Debug, Clone)]
pub struct BackupPlan<'a> {
    /// The data directory. The platform may run on it.
    pub data: &'a Path,
    /// A directory that does not exist yet.
    pub into: &'a Path,
    /// Whether the control database is in PostgreSQL, which has backups of its own: then only the journal is copied.
    pub control_elsewhere: bool,
    /// Whether the key that opens the secrets is to lie beside them; it has to be the one in the data directory.
    pub with_key: bool,
    /// When it is taken, Unix milliseconds.
    pub now: i64,
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// When it was taken, Unix milliseconds.
    pub taken: i64,
    /// Files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the control database is among them.
    pub control: bool,
    /// Whether the key is among them.
    pub key: bool,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The target is there already.
    #[error("{} is there already: name a directory that does not exist yet", .0.display())]
    Exists(PathBuf),
    /// The data directory to restore to has something in it.
    #[error("{} is not empty: restore into an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// The directory is no data directory.
    #[error("{} is no data directory: it has no VERSION", .0.display())]
    NotData(PathBuf),
    /// The directory is no complete backup of a format known here.
    #[error("{} is no backup that this release can read: {reason}", path.display())]
    NotBackup {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file is not what it was when the backup was taken.
    #[error("{} was changed or damaged since the backup was taken: use another one", .0.display())]
    Damaged(PathBuf),
    /// The secrets need a key that is not in the backup.
    #[error("the backup has no key{}: name the file keys/envelope.key of the platform it was taken of", needed.as_ref().map(|id| format!(" and needs the key {id}")).unwrap_or_default())]
    KeyNeeded {
        /// The id of the key, where it is known.
        needed: Option<String>,
    },
    /// The key is another one.
    #[error(
        "the key from {origin} is {given}, and the secrets of the backup are sealed under the key {needed}: bring that one, which is the platform's key of the time before `admin rekey` if the backup is older than that"
    )]
    WrongKey {
        /// In words, where the key is from.
        origin: String,
        /// Its id.
        given: String,
        /// The id of the key that is needed.
        needed: String,
    },
    /// The key cannot be put into the backup.
    #[error(
        "the key that the secrets are sealed under is not in the data directory: leave out --with-key and keep the key apart"
    )]
    KeyElsewhere,
    /// There are two keys, and the database that says which one counts is elsewhere.
    #[error(
        "an exchange of the key was cut short, and both keys are in the data directory: start the platform once, which settles it"
    )]
    KeyUnsettled,
    /// A database cannot be copied.
    #[error("cannot copy the database {}", path.display())]
    Database {
        /// Which one.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// A file or directory cannot be read or written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Copies a data directory. Safe while the platform runs: it goes on writing, and the copy is what a crash would leave.
/// `copied` is told of each file and its bytes.
///
/// # Errors
/// [`BackupError`]; what was copied until then lies in `<into>.partial-…`.
pub async fn back_up(plan: &BackupPlan<'_>, mut copied: impl FnMut(&Path, u64)) -> Result<Backup, BackupError> {
    let BackupPlan { data, into, control_elsewhere, with_key, now } = *plan;
    let version = fs::read_to_string(data.join("VERSION")).map_err(|_| BackupError::NotData(data.to_owned()))?;
    if into.exists() {
        return Err(BackupError::Exists(into.to_owned()));
    }
    let kept: Vec<EnvelopeKey> = [KEY, NEXT]
        .map(|name| data.join(name))
        .into_iter()
        .filter(|path| path.exists())
        .map(|path| EnvelopeKey::read(&path))
        .collect::<Result<_, _>>()?;
    // Where nothing says which one counts, it is the one that is there.
    let counting = |recorded: Option<&String>| match (recorded, kept.as_slice()) {
        (Some(recorded), kept) => kept.iter().find(|key| key.id() == *recorded).ok_or(BackupError::KeyElsewhere),
        (None, [key]) => Ok(key),
        (None, []) => Err(BackupError::KeyElsewhere),
        (None, _) => Err(BackupError::KeyUnsettled),
    };
    if with_key {
        // What lies here of a database that is elsewhere by now says nothing.
        let recorded = if control_elsewhere { None } else { recorded_key(data).await };
        counting(recorded.as_ref())?;
    }
    // Without a slash at the end, and nobody else's.
    let into: PathBuf = into.components().collect();
    let mut partial = into.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    create_dir(&partial.join("journal"))?;
    let mut writer = Writer { dir: &partial, sums: String::new(), backup: Backup { taken: now, ..Backup::default() } };
    writer.write("VERSION", version.as_bytes())?;
    if !control_elsewhere {
        writer.database(&data.join(CONTROL), CONTROL).await?;
        writer.backup.control = true;
        copied(Path::new(CONTROL), writer.backup.bytes);
    }
    let id = data.join("journal/ID");
    if id.exists() {
        writer.copy(&id, "journal/ID")?;
    }
    let journal = data.join("journal");
    let mut done = BTreeSet::new();
    // One that the platform repairs is gone for a moment, and one that retention takes stays so.
    for _ in 0..3 {
        let mut segments = if journal.exists() { segment_files(&journal)? } else { Vec::new() };
        segments.retain(|(segment, _)| !done.contains(segment));
        segments.sort();
        for (segment, _) in segments {
            let Some(name) = segment.file_name().and_then(|name| name.to_str()) else { continue };
            let before = writer.backup.bytes;
            if writer.segment(&segment, &format!("journal/{name}")).await? {
                copied(Path::new(name), writer.backup.bytes - before);
                done.insert(segment);
            }
        }
    }
    let recorded = if writer.backup.control { key_id_of(&partial.join(CONTROL)).await } else { None };
    // It may have been exchanged since.
    let counting = counting(recorded.as_ref());
    let key_id = recorded.clone().or_else(|| counting.as_ref().ok().map(|key| key.id())).unwrap_or_default();
    if with_key {
        let key = counting?;
        create_dir(&partial.join("keys"))?;
        writer.write(KEY, key.bytes())?;
        writer.backup.key = true;
    }
    let about = format!("format={FORMAT}\ntaken={now}\ncontrol={}\nkey_id={key_id}\n", writer.backup.control);
    writer.write(ABOUT, about.as_bytes())?;
    let Writer { sums, backup, .. } = writer;
    write_new(&partial.join(SUMS), sums.as_bytes(), 0o600)?;
    fs::rename(&partial, &into).and_then(|()| sync_entry(&into)).map_err(|error| io("write", &into, error))?;
    Ok(backup)
}

/// The id of the key that the secrets in a data directory are sealed under, as its control database says; `None`: it is in
/// PostgreSQL, cannot be read, or does not say.
pub async fn recorded_key(data: &Path) -> Option<String> {
    let control = data.join(CONTROL);
    if control.exists() { key_id_of(&control).await } else { None }
}

async fn key_id_of(control: &Path) -> Option<String> {
    let mut connection = reader(control).await.ok()?;
    let id = sqlx::query_scalar("SELECT key_id FROM envelope").fetch_optional(&mut connection).await;
    let _ = connection.close().await;
    id.ok()?
}

/// Brings a backup back into a data directory, which is empty or does not exist; all of it or nothing. The key that seals
/// the secrets is that in the file `key`, or the one that the platform will be given from `elsewhere`, which is not written
/// anywhere, or the backup's own.
///
/// # Errors
/// [`BackupError`]. After one of the system's the directory says itself that its restoring was interrupted.
pub async fn restore(
    from: &Path,
    data: &Path,
    key: Option<&Path>,
    elsewhere: Option<&EnvelopeKey>,
    mut copied: impl FnMut(&Path, u64),
) -> Result<Backup, BackupError> {
    let about = About::read(from)?;
    // Where a key is given from elsewhere, none is to lie in the data directory.
    let key =
        key.map(Path::to_owned).or_else(|| Some(from.join(KEY)).filter(|key| key.exists() && elsewhere.is_none()));
    let found = match (&key, elsewhere) {
        (Some(path), _) => Some(EnvelopeKey::read(path)?),
        (None, elsewhere) => elsewhere.cloned(),
    };
    match &found {
        None if about.control || !about.key_id.is_empty() => {
            return Err(BackupError::KeyNeeded { needed: Some(about.key_id).filter(|id| !id.is_empty()) });
        }
        Some(found) if !about.key_id.is_empty() && found.id() != about.key_id => {
            let (origin, given) = (found.origin().to_owned(), found.id());
            return Err(BackupError::WrongKey { origin, given, needed: about.key_id });
        }
        _ => {}
    }
    let is_empty = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(io("list", data, error)),
    };
    if !is_empty {
        return Err(BackupError::NotEmpty(data.to_owned()));
    }
    let restoring = data.join(RESTORING);
    create_dir(&restoring.join("journal"))?;
    create_dir(&restoring.join("keys"))?;
    let mut backup = Backup { taken: about.taken, control: about.control, ..Backup::default() };
    for (sum, name) in about.files.iter().filter(|(_, name)| name != KEY) {
        let (source, target) = (from.join(name), restoring.join(name));
        let bytes = copy(&source, &target)?;
        if digest(&target)? != *sum {
            return Err(BackupError::Damaged(source));
        }
        backup.files += 1;
        backup.bytes += bytes;
        copied(Path::new(name), bytes);
    }
    if let (Some(_), Some(found)) = (key, found) {
        write_new(&restoring.join(KEY), found.bytes(), 0o600)?;
        backup.files += usize::from(about.files.iter().any(|(_, name)| name == KEY));
        backup.key = true;
    }
    if about.control {
        forget_the_future(&restoring.join(CONTROL)).await?;
    }
    write_new(&restoring.join("journal").join(RESTORED), format!("{}\n", about.taken).as_bytes(), 0o600)?;
    let moved = || {
        for name in [CONTROL, "journal", "keys", "VERSION"] {
            if restoring.join(name).exists() {
                fs::rename(restoring.join(name), data.join(name))?;
            }
        }
        fs::File::open(data)?.sync_all()?;
        fs::remove_dir_all(&restoring)?;
        fs::File::open(data)?.sync_all()
    };
    moved().map_err(|error| io("restore into", data, error))?;
    Ok(backup)
}

/// What waited for its device when the backup was taken may have been sent since: it is marked, so that it ends as unknown
/// and is not sent again.
async fn forget_the_future(control: &Path) -> Result<(), BackupError> {
    let marked = async {
        let mut connection = SqliteConnectOptions::new().filename(control).connect().await?;
        sqlx::query("UPDATE queued_operation SET taken = 1").execute(&mut connection).await?;
        connection.close().await
    };
    marked.await.map_err(|error| BackupError::Database { path: control.to_owned(), source: Box::new(error) })
}

/// Fills a backup.
struct Writer<'a> {
    dir: &'a Path,
    sums: String,
    backup: Backup,
}

impl Writer<'_> {
    fn write(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        write_new(&self.dir.join(name), content, 0o600)?;
        self.written(name)
    }

    fn copy(&mut self, source: &Path, name: &str) -> Result<(), BackupError> {
        copy(source, &self.dir.join(name))?;
        self.written(name)
    }

    /// Copies a database that is written to: what is committed when the copy begins.
    async fn database(&mut self, source: &Path, name: &str) -> Result<(), BackupError> {
        let failed = |error| BackupError::Database { path: source.to_owned(), source: Box::new(error) };
        let target = self.dir.join(name);
        let mut connection = reader(source).await.map_err(failed)?;
        let copied = sqlx::query("VACUUM INTO $1")
            .bind(target.to_str().ok_or_else(|| failed(sqlx::Error::Configuration("a path that is no text".into())))?)
            .execute(&mut connection)
            .await;
        let _ = connection.close().await;
        copied.map_err(failed)?;
        harden(&target).map_err(|error| io("sync", &target, error))?;
        self.written(name)
    }

    /// Copies a segment: a sealed one, which never changes, with its seal; another one with its log, as a crash of this
    /// moment would leave them. False: it is not there any more.
    async fn segment(&mut self, source: &Path, name: &str) -> Result<bool, BackupError> {
        let copied = match seal_of(source) {
            Some(seal) => self.copy(source, name).and_then(|()| self.copy(&seal, &format!("{name}{SEAL}"))),
            None => {
                // While somebody reads, what the log has is not taken out of it, and the file has all that it has not. One
                // that cannot be read is copied as it is.
                let reading = hold(source).await.ok();
                let copied = self.copy(source, name).and_then(|()| {
                    let log = beside(source, LOG);
                    let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
                    if has_log { self.copy(&log, &format!("{name}{LOG}")) } else { Ok(()) }
                });
                if let Some(connection) = reading {
                    let _ = connection.close().await;
                }
                copied
            }
        };
        match copied {
            Err(_) if !source.exists() => {
                for name in ["", LOG, SEAL].map(|suffix| format!("{name}{suffix}")) {
                    let _ = fs::remove_file(self.dir.join(&name));
                    self.forget(&name);
                }
                Ok(false)
            }
            copied => copied.map(|()| true),
        }
    }

    fn forget(&mut self, name: &str) {
        let end = format!("  {name}\n");
        let kept: String = self.sums.split_inclusive('\n').filter(|line| !line.ends_with(&end)).collect();
        self.sums = kept;
    }

    fn written(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.dir.join(name);
        self.sums.push_str(&format!("{}  {name}\n", digest(&path)?));
        self.backup.files += 1;
        self.backup.bytes += fs::metadata(&path).map_err(|error| io("read", &path, error))?.len();
        Ok(())
    }
}

/// What a backup says of itself.
struct About {
    taken: i64,
    control: bool,
    key_id: String,
    /// Digest and name of each file.
    files: Vec<(String, String)>,
}

impl About {
    fn read(dir: &Path) -> Result<About, BackupError> {
        let bad = |reason| BackupError::NotBackup { path: dir.to_owned(), reason };
        let text = fs::read_to_string(dir.join(ABOUT)).map_err(|_| bad("it has no file BACKUP"))?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        match value("format").and_then(|format| format.parse::<i64>().ok()) {
            Some(FORMAT) => {}
            Some(_) => return Err(bad("it has another format")),
            None => return Err(bad("its file BACKUP names no format")),
        }
        let sums = fs::read_to_string(dir.join(SUMS)).map_err(|_| bad("it has no file SHA256SUMS"))?;
        let files: Option<Vec<(String, String)>> = sums.lines().map(sum).collect();
        let files = files.ok_or_else(|| bad("its file SHA256SUMS has a line that is none"))?;
        if !files.iter().any(|(_, name)| name == "VERSION") {
            return Err(bad("it has no VERSION"));
        }
        Ok(About {
            taken: value("taken").and_then(|taken| taken.parse().ok()).unwrap_or(0),
            control: value("control") == Some("true"),
            key_id: value("key_id").unwrap_or_default().to_owned(),
            files,
        })
    }
}

/// A line of `SHA256SUMS`; only of files that a backup has, so that none is written elsewhere.
fn sum(line: &str) -> Option<(String, String)> {
    let (sum, name) = line.split_once("  ")?;
    let in_journal = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let known =
        matches!(name, ABOUT | CONTROL | KEY | "VERSION") || name.strip_prefix("journal/").is_some_and(in_journal);
    known.then(|| (sum.to_owned(), name.to_owned()))
}

/// A connection that reads, and goes on doing so.
async fn hold(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = reader(path).await?;
    sqlx::query("BEGIN").execute(&mut connection).await?;
    sqlx::query("SELECT 1 FROM mark").fetch_optional(&mut connection).await?;
    Ok(connection)
}

async fn reader(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
    options.disable_statement_logging().connect().await
}

/// Copies a file, durably and for its owner only.
fn copy(source: &Path, target: &Path) -> Result<u64, BackupError> {
    let bytes = fs::copy(source, target).map_err(|error| io("copy", source, error))?;
    harden(target).map_err(|error| io("sync", target, error))?;
    Ok(bytes)
}

fn harden(path: &Path) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::File::open(path)?.sync_all()?;
    sync_entry(path)
}

fn digest(path: &Path) -> Result<String, BackupError> {
    let read = || -> std::io::Result<String> {
        let (mut file, mut context) = (fs::File::open(path)?, Context::new(&SHA256));
        let mut chunk = vec![0; 1 << 18];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => context.update(&chunk[..read]),
            }
        }
        Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    };
    read().map_err(|error| io("read", path, error))
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> BackupError {
    OpenError::Io { action, path: path.to_owned(), source }.into()
}
