//! The journal of events, on SQLite and copied to PostgreSQL, and the control database, on either.
//!
//! # How an event becomes durable
//!
//! 1. [`Journal::append`] gives the record the next [`Position`] under one short lock and puts it in the queue. It never
//!    blocks and never fails; a caller asks [`Journal::has_room`] first and stops reading from its publisher when the
//!    answer is no.
//! 2. One writer task takes the whole queue. Commits begin at least `commit_delay` apart unless `commit_records` are
//!    waiting: a lone record on an idle journal is committed at once, a busy journal shares each sync among many.
//! 3. A record whose (device, event id) is journalled already is dropped: the one writer knows the events of the segment
//!    it writes to from memory, and probes earlier segments behind a filter each. The rest goes into one transaction
//!    together with the journal's high-water mark, into the segment file of the day (SQLite, WAL, `synchronous=FULL`, so
//!    COMMIT returns after the sync of the log).
//! 4. After the commit the records enter the in-memory tail ([`Journal::recent`]), then the durable watermark
//!    ([`Journal::durable`], [`Journal::watch_durable`]) moves past them, repetitions included: the original is durable.
//!    Only now may anybody acknowledge them.
//! 5. When a commit fails the batch is kept and tried again with back-off; [`Journal::health`] says so, the watermark
//!    stands still, and nothing is acknowledged or lost. The segment is opened anew first: the mark in it says whether the
//!    commit went through after all, and its log is brought into the file, because frames whose sync failed may be seen
//!    and yet never reach the disk. At the size cap commits wait in the same way until retention frees space.
//!
//! Positions are contiguous in append order, begin at 1 and never go to a second record that became durable: the
//! high-water mark is stored with every commit, so it also survives repetitions at the very end and the removal of every
//! old segment.
//!
//! # Segments
//!
//! A segment file is written to without secondary indexes: with thousands of devices every record would touch its own page
//! of each, and the log carries whole pages, which costs several times what the records do. What the indexes would answer
//! is held in memory, made from the file again after a restart. When the segment ends (next UTC day of receipt, or its
//! number of rows) it is sealed beside the writing: indexes, then the log into the file, a look at every row, then filter and
//! page checksums into a file beside it. From then on it never changes, is read through a few connections, and removed whole
//! by retention.
//!
//! # Damage
//!
//! Each row carries a checksum over its columns and what they refer to, compared whenever it is read. A sealed segment has a
//! checksum for each page in the file of its seal, compared before the first reading and, beside the work, after each start;
//! before it is sealed every row is looked at once more, so that no seal is made over damage. One that is not sealed is gone
//! through page by page, with its log, at every start. What is not as it was written is reported once with file and offset
//! ([`Journal::damage`]); its files are moved to `journal/damaged/<name>`, where they count toward the size cap and give way
//! first, and every row that is readable goes into a new file in its place, whatever led to it: lost are the rows of damaged pages, and what the
//! log had from a damaged frame on unless its rows are readable there. A page that the disk refuses to read is a damaged one,
//! when it is still refused after the rest was written; a disk that refuses everything is an error, and nothing is set aside.
//! Salvaging goes on beside the writing while new events go into another segment; a commit waits for it only when it has to
//! know whether an event is one that cannot be read there. How far the journal went is written down beside the segments
//! (`journal/MARK`), so that one that lost its end is recognised and no position is given twice.
//!
//! # Clocks
//!
//! A position is the order of receipt, whatever the clock says. The day in the name of a segment is that of the clock, and
//! within one life of the process never before that of the segment before. A record is old when the wall clock says so and
//! the journal has run for the retention since it was stored; a stop counts as the clock says, up to a day. So a clock that
//! is stepped forward removes nothing by that alone.
//!
//! # The copy in PostgreSQL
//!
//! With a PostgreSQL the journal is the same, and the outbox of a task that copies it there: committed records in the order
//! of their positions, and how far they go, in one transaction, so that a crash on either side leaves neither a hole nor a
//! repetition. While the server is away devices are acknowledged as before; no segment is removed before it is copied, so
//! that in the end the size cap says that something is wrong. The mark in the table names the journal that may copy there:
//! another one takes it over only when nobody holds it, and then gives positions beyond those that are known there.
//!
//! # The control database
//!
//! The control database holds the registry and its credentials, the twins, the operations that wait for their device, the
//! idempotency keys, the webhooks with what they could not be told, the tokens and people that may use the platform, the
//! pictures and files that are here or under way, the platform's certificates, those of devices and by which root each device knows it, and the audit. All its writes pass through one task which gathers what
//! is queued into one transaction, so a thousand devices that authenticate at once share a handful of syncs. Secrets are
//! sealed (AES-256-GCM) before they reach any database, under a key that is given, or is in `keys/envelope.key`.

mod backup;
mod config;
mod control;
mod db;
mod device;
mod directory;
mod envelope;
mod error;
mod examine;
mod journal;
mod record;
mod rekey;
mod scan;
mod secret;
mod store;

pub use backup::{Backup, BackupError, BackupPlan, back_up, recorded_key, restore};
pub use config::{Clock, ReadAt, StoreConfig};
pub use control::{
    AuditQuery, AuditRow, Begun, CertificateRow, CodeUse, Control, Credential, Credentials, DeadLetter,
    DeviceCertificateQuery, DeviceCertificateRow, DeviceRow, JobRow, KnownBy, LeafPart, LeafRow, MEDIA_LEAST,
    MEDIA_PAGE, MediaArrival, MediaKey, MediaKind, MediaRow, MediaState, NewAudit, Note, OverdueRow, PrincipalRow,
    QueuedOperation, SealedCode, SessionRow, ViewRow, WebhookPlace, WebhookRow,
};
pub use device::DeviceId;
pub use envelope::EnvelopeKey;
pub use error::{InsertError, OpenError, StoreError};
pub use examine::{check_database, control_database, newest_segment, segments};
pub use journal::{Checked, Damage, Flaw, Journal, JournalHealth, Recent, check_segment};
pub use record::{DevicePath, Flags, MAX_EVENT_ID, Position, Record, RecordKind};
pub use rekey::{NewKey, RekeyError, RekeyStep, Rekeyed, rekey};
pub use scan::{Looked, MAX_SCAN, Order, Scan};
pub use secret::Secret;
pub use store::Store;
