//! The steps of an upload as facts of its device, in words a technician understands.

use uuid::Uuid;
use vestibule_platform::{DeviceId, Fact, MediaKind, MediaRow, OfferError, Step, Wish};

use crate::media::{Media, stored};
use crate::problem::{Kind, Problem};
use crate::upload::Taken;

impl Media {
    /// Writes down what became of a request to upload.
    pub(crate) fn explain(&self, row: &MediaRow, taken: &Result<Taken, Problem>) {
        let fact = match taken {
            Ok(Taken::Arrived(row)) => arrived(row),
            // That it is under way was said when it began.
            Ok(Taken::Again(_) | Taken::Partly(_)) => return,
            Err(problem) => match (problem.kind, problem.offset()) {
                (Kind::Timeout | Kind::Request, Some(offset)) => cut(row, offset, problem.detail()),
                // Whoever is behind is told where to go on, and who came later goes on.
                (Kind::Conflict, _) => return,
                (Kind::Ticket, _) => too_late(row),
                (Kind::Store, _) => not_stored(row, problem.detail()),
                _ => refused(row, problem.detail()),
            },
        };
        self.told(row.device, row.id, fact);
    }

    /// Writes down a step of an object's upload.
    pub(crate) fn told(&self, device: DeviceId, object: Uuid, fact: Fact) {
        self.platform.upload_fact(device, object, fact);
    }
}

/// What an object is called where people read it.
fn named(kind: MediaKind, name: &str, id: Option<Uuid>) -> String {
    let kind = match kind {
        MediaKind::Picture => "picture",
        MediaKind::File => "file",
    };
    match (name, id) {
        ("", None) => format!("a {kind}"),
        ("", Some(id)) => format!("{kind} {id}"),
        (name, None) => format!("{kind} \"{name}\""),
        // A device may have given the object its id as a name.
        (name, Some(id)) if name == id.to_string() => format!("{kind} {id}"),
        (name, Some(id)) => format!("{kind} \"{name}\" ({id})"),
    }
}

fn of(row: &MediaRow) -> String {
    named(row.kind, &row.name, Some(row.id))
}

fn ok(reason: &'static str, text: String) -> Fact {
    Fact { text: text.into(), ..Fact::ok(Step::Upload, reason, "", None) }
}

fn failure(reason: &'static str, text: String) -> Fact {
    Fact { text: text.into(), ..Fact::failure(Step::Upload, reason, "", None) }
}

pub(crate) fn offered(wish: &Wish, id: Uuid) -> Fact {
    ok("upload_offered", format!("An address was given to send {} to.", named(wish.kind, &wish.name, Some(id))))
}

pub(crate) fn not_offered(wish: &Wish, error: &OfferError) -> Fact {
    failure(
        "upload_not_offered",
        format!("No address was given to send {} to: {error}.", named(wish.kind, &wish.name, wish.id)),
    )
}

pub(crate) fn begun(row: &MediaRow) -> Fact {
    let length = row.length.map(|length| format!(" ({length} bytes)")).unwrap_or_default();
    ok("upload_begun", format!("The upload of {} has begun{length}.", of(row)))
}

pub(crate) fn resumed(row: &MediaRow, from: u64) -> Fact {
    ok("upload_resumed", format!("The upload of {} goes on at byte {from}.", of(row)))
}

fn cut(row: &MediaRow, offset: u64, why: &str) -> Fact {
    let text = format!(
        "The upload of {} stopped at byte {offset}: {why} What has come is kept, and it can go on there.",
        of(row)
    );
    failure("upload_cut", text)
}

fn refused(row: &MediaRow, why: &str) -> Fact {
    failure("upload_refused", format!("The upload of {} was refused: {why}", of(row)))
}

fn not_stored(row: &MediaRow, why: &str) -> Fact {
    failure(
        "upload_not_stored",
        format!("The upload of {} was not stored, which is no fault of the device: {why}", of(row)),
    )
}

fn too_late(row: &MediaRow) -> Fact {
    let text = format!(
        "The upload of {} came too late: its time is up, or it was complete. The device asks for a new address.",
        of(row)
    );
    failure("upload_too_late", text)
}

fn arrived(row: &MediaRow) -> Fact {
    let size = row.size.map(|(width, height)| format!(", {width} by {height} pixels")).unwrap_or_default();
    let what = capitalised(&of(row));
    ok("upload_arrived", format!("{what} has arrived: {}, {} bytes{size}.", row.media_type, stored(row.bytes)))
}

pub(crate) fn amended(row: &MediaRow, events: usize) -> Fact {
    let events = match events {
        1 => "One event names it and was amended".to_owned(),
        events => format!("{events} events name it and were amended"),
    };
    ok("event_amended", format!("{events}: {}.", of(row)))
}

pub(crate) fn abandoned(row: &MediaRow) -> Fact {
    let text = format!(
        "The upload of {} was not completed in time (media.upload_ttl); what had come of it is removed.",
        of(row)
    );
    failure("upload_abandoned", text)
}

pub(crate) fn never_begun(row: &MediaRow) -> Fact {
    let text = format!(
        "Nothing was sent to the address that was given for {} within 15 minutes. Does the device reach media.url?",
        of(row)
    );
    failure("upload_never_begun", text)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
