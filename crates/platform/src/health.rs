//! Whether the platform can do its work.

use serde::Serialize;
use vestibule_store::{Damage, JournalHealth};

use crate::platform::Platform;

/// What stops the platform from doing its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether devices' reports are being stored and acknowledged.
    pub ready: bool,
    /// One sentence for each problem: what happened and what to do. Some keep nothing from being stored.
    pub problems: Vec<String>,
}

impl Platform {
    /// The platform's state as `/readyz` tells it.
    pub fn health(&self) -> Health {
        let problem = match self.journal().health() {
            JournalHealth::Ok => None,
            JournalHealth::Full { bytes, max_bytes } => Some(format!(
                "The journal holds {bytes} of {max_bytes} bytes and takes no more: reports are not acknowledged. \
                 Raise store.max_bytes, shorten store.retention or free the volume."
            )),
            JournalHealth::Failing { error, .. } => Some(format!(
                "The journal cannot be written ({error}): reports are not acknowledged. It tries again by itself, and \
                 goes on when the disk takes it."
            )),
        };
        let ready = problem.is_none();
        // It stores and acknowledges nevertheless.
        let damage = self.journal().damage().into_iter().map(|damage| told(&damage));
        let media = self.media_storage().ok().and_then(|storage| storage.problem());
        Health {
            ready,
            problems: problem.into_iter().chain(damage).chain(media).chain(self.certificates().trouble()).collect(),
        }
    }
}

/// One damaged file, for people.
fn told(damage: &Damage) -> String {
    let Damage { file, offset, what, set_aside, salvaged, lost, dropped } = damage;
    let lost = lost.map_or("an unknown number".to_owned(), |lost| lost.to_string());
    let then = match set_aside {
        Some(dir) if *dropped => format!(
            "Its files have given way at store.max_bytes, the account of it is in {}: this is told until that is taken away.",
            dir.display()
        ),
        Some(dir) => format!("Look at the disk; this is told until {} is taken away.", dir.display()),
        None => "Look at the disk; this is told until the next start.".to_owned(),
    };
    format!(
        "The journal was damaged in {} at byte {offset}: {what}. {salvaged} records were salvaged, {lost} are lost, new \
         ones are stored. {then}",
        file.display()
    )
}
