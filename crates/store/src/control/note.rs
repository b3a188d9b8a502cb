//! What is noted of devices behind their backs: whether they are there, and how they failed last.

use std::sync::LazyLock;

use super::Control;
use super::statements::Statements;
use super::writer::{Write, is_of_one_write};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, StoreError};

/// Notes of one statement at most; a power of two.
const STATEMENT: usize = 64;

/// What is noted of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whose it is.
    pub device: DeviceId,
    /// The last known presence, JSON.
    pub presence: String,
    /// The last failed connection fact, JSON; none: what was noted before stays.
    pub last_failure: Option<String>,
}

impl Note {
    /// How many share a transaction at most.
    pub const TOGETHER: usize = 512;
}

impl Control {
    /// Keeps notes, durably when this returns; one of a device that does not exist is ignored. Each device may have one among
    /// them.
    ///
    /// # Errors
    /// Some are not kept: all of them, or those alone that the database does not take, and it is not said which.
    pub async fn put_notes(&self, notes: Vec<Note>) -> Result<(), StoreError> {
        let mut result = Ok(());
        for some in notes.chunks(Note::TOGETHER) {
            match self.write(Write::Notes(NotesWrite { notes: some.to_vec() })).await {
                Ok(_) => {}
                Err(StoreError::Database(error)) if is_of_one_write(&error) => {
                    // One device must not keep what is noted of the others.
                    for note in some {
                        let alone = NotesWrite { notes: vec![note.clone()] };
                        result = self.write(Write::Notes(alone)).await.map(drop).and(result);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        result
    }
}

/// Notes to be written.
pub(super) struct NotesWrite {
    notes: Vec<Note>,
}

impl NotesWrite {
    /// How many rows these are.
    pub(super) fn weight(&self) -> usize {
        self.notes.len()
    }

    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        for some in self.notes.chunks(STATEMENT) {
            put_together(transaction, some).await?;
        }
        Ok(1)
    }
}

/// The statements that write notes together.
static STATEMENTS: LazyLock<Statements<STATEMENT>> = LazyLock::new(|| {
    Statements::new(3, |rows| {
        format!(
            "UPDATE device SET presence = given.column2, last_failure = COALESCE(given.column3, device.last_failure) \
             FROM (VALUES {rows}) AS given WHERE device.id = given.column1"
        )
    })
});

/// Writes notes in one statement: a fleet that comes in at once is noted at once, and each statement is a trip to the
/// database and back.
async fn put_together(transaction: &mut Transaction<'_>, notes: &[Note]) -> Result<(), sqlx::Error> {
    // Rows without an id fill it up.
    let (statement, rows) = STATEMENTS.of(transaction.dialect(), notes.len());
    on_db!(Transaction, transaction, transaction => {
        let mut query = sqlx::query(statement);
        for note in notes {
            query = query.bind(note.device.as_bytes().to_vec()).bind(&note.presence).bind(&note.last_failure);
        }
        for _ in notes.len()..rows {
            query = query.bind(None::<Vec<u8>>).bind(None::<String>).bind(None::<String>);
        }
        query.execute(&mut **transaction).await?;
    });
    Ok(())
}
