//! The keys in force: two at a time, a new one each day, sealed in the control database and the same on every node (media 10).

use parking_lot::RwLock;
use uuid::Uuid;
use vestibule_store::{Control, MediaKey, Secret, StoreError};

use crate::ticket::{Ticket, TicketKey, TicketKind, scope};

/// How long a key signs, in milliseconds. It opens for as long again.
const SIGNS: i64 = 24 * 60 * 60 * 1_000;
/// Bytes of a key.
const KEY: usize = 32;

/// Signs tickets with the newest key and opens those of the newest two.
pub(crate) struct KeyRing {
    control: Control,
    keys: RwLock<Vec<(MediaKey, TicketKey)>>,
}

impl KeyRing {
    /// Loads the keys; makes the first one, or a new one when the newest has had its day.
    pub(crate) async fn open(control: Control, now: i64) -> Result<KeyRing, StoreError> {
        let ring = KeyRing { control, keys: RwLock::default() };
        ring.load().await?;
        ring.rotate(now).await?;
        Ok(ring)
    }

    async fn load(&self) -> Result<(), StoreError> {
        let keys = self.control.media_keys().await?;
        let keys = keys.into_iter().map(|key| {
            let signer = TicketKey::new(&key.key);
            (key, signer)
        });
        *self.keys.write() = keys.collect();
        Ok(())
    }

    /// Makes a new key when the newest has had its day. A key of another node that is as new is taken instead.
    pub(crate) async fn rotate(&self, now: i64) -> Result<(), StoreError> {
        let newest = self.keys.read().first().map(|(key, _)| (key.number, key.made));
        if newest.is_some_and(|(_, made)| now < made.saturating_add(SIGNS)) {
            return Ok(());
        }
        let mut bytes = vec![0; KEY];
        aws_lc_rs::rand::fill(&mut bytes).expect("the generator of the crypto library never runs dry");
        let number = newest.map_or(1, |(number, _)| number + 1);
        self.control.add_media_key(&MediaKey { number, made: now, key: Secret::new(bytes) }).await?;
        self.load().await
    }

    /// A ticket for one object at one path.
    pub(crate) fn sign(&self, kind: TicketKind, id: Uuid, path: &str, expiry: u64) -> Option<String> {
        let ticket = Ticket { kind, flags: 0, expiry, id, scope: scope(path) };
        self.keys.read().first().map(|(_, key)| key.sign(&ticket))
    }

    /// What a ticket says that was signed here for this kind, object and path. Whether it has expired is for the caller to
    /// see: an upload that has begun outlives its ticket's time.
    pub(crate) fn open_ticket(&self, text: &str, kind: TicketKind, id: Uuid, path: &str) -> Option<Ticket> {
        let ticket = self.keys.read().iter().find_map(|(_, key)| key.open(text))?;
        (ticket.kind == kind && ticket.flags == 0 && ticket.id == id && ticket.scope == scope(path)).then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestibule_store::{Store, StoreConfig};

    const NOON: i64 = 1_795_214_614_000;

    #[tokio::test]
    async fn a_key_signs_a_day_and_opens_two() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path())).await.expect("a store");
        let ring = KeyRing::open(store.control.clone(), NOON).await.expect("keys");
        let id = Uuid::now_v7();
        let sign = |ring: &KeyRing| ring.sign(TicketKind::Upload, id, "/p", 9).expect("a key");
        let opens = |ring: &KeyRing, text: &str| ring.open_ticket(text, TicketKind::Upload, id, "/p").is_some();
        let first = sign(&ring);
        ring.rotate(NOON + SIGNS - 1).await.expect("nothing to do");
        assert_eq!(sign(&ring), first);
        ring.rotate(NOON + SIGNS).await.expect("rotated");
        let second = sign(&ring);
        assert!(second != first && opens(&ring, &first) && opens(&ring, &second));
        // Another process has the same keys, and a start does not make one.
        let again = KeyRing::open(store.control.clone(), NOON + SIGNS + 1).await.expect("keys");
        assert_eq!(sign(&again), second);
        assert!(opens(&again, &first));
        again.rotate(NOON + 2 * SIGNS).await.expect("rotated");
        assert!(!opens(&again, &first) && opens(&again, &second));
        // The first process finds what the other made when its own time comes.
        ring.rotate(NOON + 2 * SIGNS).await.expect("rotated");
        assert_eq!(sign(&ring), sign(&again));
        store.close().await;
    }

    #[tokio::test]
    async fn a_ticket_is_for_one_kind_object_and_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path())).await.expect("a store");
        let ring = KeyRing::open(store.control.clone(), NOON).await.expect("keys");
        let id = Uuid::now_v7();
        let text = ring.sign(TicketKind::Object, id, "/p", 9).expect("a key");
        assert!(ring.open_ticket(&text, TicketKind::Object, id, "/p").is_some());
        assert!(ring.open_ticket(&text, TicketKind::Upload, id, "/p").is_none());
        assert!(ring.open_ticket(&text, TicketKind::Object, Uuid::now_v7(), "/p").is_none());
        assert!(ring.open_ticket(&text, TicketKind::Object, id, "/q").is_none());
        store.close().await;
    }
}
