//! A store: its directory, its control database and its journal.

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::control::Control;
use crate::db::Db;
use crate::directory::DataDir;
use crate::envelope::keeping::Candidates;
use crate::envelope::recorded::{Under, record};
use crate::envelope::{Envelope, EnvelopeKey};
use crate::journal::Journal;
use crate::{OpenError, StoreConfig};

/// An open store. The data directory belongs to it until [`Store::close`].
pub struct Store {
    /// The registry and its credentials.
    pub control: Control,
    /// The events.
    pub journal: Journal,
    open: Mutex<Option<Open>>,
}

/// What closing ends.
struct Open {
    control_writer: JoinHandle<()>,
    journal_writer: JoinHandle<()>,
    _dir: DataDir,
}

impl Store {
    /// Opens the store: locks the directory, creates or migrates the databases, and starts the writers on the current
    /// runtime, which is to outlive the store.
    pub async fn open(config: StoreConfig) -> Result<Store, OpenError> {
        let mut dir = DataDir::open(&config.dir)?;
        let (db, key) = sealed_database(&mut dir, &config).await?;
        let envelope = Envelope::new(&key);
        let (journal, journal_writer) = Journal::start(&config).await?;
        let (control, control_writer) = Control::start(db, envelope);
        Ok(Store { control, journal, open: Mutex::new(Some(Open { control_writer, journal_writer, _dir: dir })) })
    }

    /// Makes durable what is queued, closes the databases and gives the directory back. A journal that cannot commit is
    /// tried a few times more; what it does not take was never acknowledged. A second call does nothing.
    pub async fn close(&self) {
        let Some(open) = self.open.lock().take() else {
            return;
        };
        self.control.stop().await;
        self.journal.stop();
        for (name, task) in [("control", open.control_writer), ("journal", open.journal_writer)] {
            if let Err(error) = task.await {
                tracing::error!(%error, writer = name, "a writer of the store ended badly");
            }
        }
        self.control.close().await;
    }
}

/// Opens the control database, which is the one place that knows the right key, and then brings directory and schema up to
/// date: with another key nothing is written.
pub(crate) async fn sealed_database(dir: &mut DataDir, config: &StoreConfig) -> Result<(Db, EnvelopeKey), OpenError> {
    let candidates = Candidates::find(dir, config.envelope_key.as_ref())?;
    let db = match &config.url {
        Some(url) => Db::postgres(url).await?,
        None => Db::sqlite(dir.path()).await?,
    };
    let under = Under::read(&db).await?;
    let key = candidates.settle(&under)?;
    dir.set_up()?;
    db.migrate().await?;
    if matches!(under, Under::Seen(_)) {
        record(&db, &key, (config.now)()).await?;
    }
    Ok((db, key))
}
