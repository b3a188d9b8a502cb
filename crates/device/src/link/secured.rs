//! One login under a modern suite: who is there, and the envelope of what is said (osap-wire 13.3).

use std::time::{Duration, Instant};

use osap::das::envelope::{self as plain, General, Opened};
use osap::modern::envelope::{self, Opener, Sealer};
use osap::modern::login::{self, BootId, Proof};
use osap::modern::receipt::Receipt;
use osap::modern::schedule::Mac;
use osap::modern::seal::Direction;
use osap::modern::{Exporter, Node};
use osap::{DevId, Random, Suite};
use vestibule_mqtt_codec::{PublishHead, encode};

use super::written;
use crate::state::LinkFault;

/// How a device logs in at a DAS.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The secret of the device at this DAS.
    pub node: Node,
    /// The suite of the run at the LBS.
    pub suite: Suite,
    pub dev_id: DevId,
    /// Of this start of the device.
    pub boot_id: BootId,
}

/// One login.
#[derive(Debug)]
pub(crate) struct Secured {
    entry: Entry,
    nonce: [u8; 32],
    /// `LC`.
    login: Mac,
    /// Once the DAS has proven itself.
    keys: Option<(Sealer, Opener)>,
    /// On plain TCP.
    receipts: Option<Receipts>,
}

#[derive(Debug)]
struct Receipts {
    /// What the platform said last.
    told: u64,
    /// When it did.
    heard: Instant,
    /// It is time to say something.
    due: bool,
}

impl Secured {
    /// A login on a connection that is open. `bind` is the exporter of its TLS, where the session is bound to that;
    /// `receipts` where anybody on the way could acknowledge.
    pub(crate) fn new(
        now: Instant,
        entry: Entry,
        bind: Option<&Exporter>,
        receipts: bool,
        random: &mut dyn Random,
    ) -> Self {
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let login = login::login_hash(bind, &entry.dev_id, &nonce);
        let receipts = receipts.then_some(Receipts { told: 0, heard: now, due: false });
        Self { entry, nonce, login, keys: None, receipts }
    }

    /// What this login is known by.
    pub(super) fn nonce(&self) -> &[u8; 32] {
        &self.nonce
    }

    /// The password of the CONNECT.
    pub(super) fn password(&self) -> [u8; login::PROOF_LEN] {
        login::password(&self.entry.node, &self.login, self.nonce).encode()
    }

    /// Of this start of the device.
    pub(super) fn boot_id(&self) -> BootId {
        self.entry.boot_id
    }

    /// Takes what the DAS proves itself with; `false` when it does not.
    pub(super) fn handle_hello(&mut self, now: Instant, payload: &[u8]) -> bool {
        let Entry { node, suite, .. } = &self.entry;
        let Some(proof) = Proof::decode(payload).filter(|proof| login::proves_das(node, &self.login, proof)) else {
            return false;
        };
        let hello = login::hello_hash(&self.login, &proof.nonce);
        let key = |direction| login::record_key(node, &hello, direction);
        let sealer = Sealer::new(*suite, Direction::Up, key(Direction::Up));
        self.keys = Some((sealer, Opener::new(*suite, Direction::Down, key(Direction::Down))));
        if let Some(receipts) = &mut self.receipts {
            receipts.heard = now;
        }
        true
    }

    pub(super) fn publish(
        &mut self,
        head: &PublishHead<'_>,
        general: &General<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u64, LinkFault> {
        self.seal(head, plain::plain_len(general, body.len()), out, |out| {
            plain::write(general, body, out).expect("a number and a version are short");
        })
    }

    /// Seals what `write` appends, at the moment it is written to the socket and never before.
    fn seal(
        &mut self,
        head: &PublishHead<'_>,
        len: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, LinkFault> {
        // Nothing is said before the DAS has proven itself.
        let (sealer, _) = self.keys.as_mut().ok_or(LinkFault::Protocol)?;
        if sealer.seq() >= envelope::MAX_MESSAGES {
            return Err(LinkFault::Exhausted);
        }
        let mut number = 0;
        written(encode::publish_with(head, len + envelope::OVERHEAD, out, |out| {
            let start = out.len();
            write(out);
            number = sealer.seal_tail(head.topic, out, start).expect("the last number was not used yet");
        }));
        Ok(number)
    }

    pub(super) fn open<'a>(&mut self, topic: &str, payload: &'a mut [u8]) -> Result<Option<Opened<'a>>, LinkFault> {
        let (_, opener) = self.keys.as_mut().ok_or(LinkFault::Protocol)?;
        match opener.open(topic, payload) {
            Ok(envelope::Opened::Next(text)) => Ok(plain::read(text).ok()),
            Ok(envelope::Opened::Repeated) => Ok(None),
            Err(broken) => {
                tracing::warn!(%topic, %broken, "the platform's message cannot be its own");
                Err(LinkFault::Broken)
            }
        }
    }

    /// Whether events leave with receipts.
    pub(super) fn has_receipts(&self) -> bool {
        self.receipts.is_some()
    }

    pub(super) fn owe_receipt(&mut self) {
        if let Some(receipts) = &mut self.receipts {
            receipts.due = true;
        }
    }

    /// What is to be said of receipts now, if anything: everything that came is dealt with when the next is read.
    pub(super) fn take_receipt(&mut self) -> Option<Receipt> {
        let receipts = self.receipts.as_mut().filter(|receipts| receipts.due)?;
        let (_, opener) = self.keys.as_ref()?;
        receipts.due = false;
        Some(Receipt { up: receipts.told, down: opener.seq() })
    }

    /// Takes a receipt of the platform; gives the number up to which it has everything.
    ///
    /// # Errors
    /// [`LinkFault::Broken`] for one that speaks of what was never sent.
    pub(super) fn handle_receipt(&mut self, now: Instant, body: &[u8]) -> Result<Option<u64>, LinkFault> {
        let (Some(receipts), Some((sealer, _))) = (&mut self.receipts, &self.keys) else { return Ok(None) };
        let Some(receipt) = Receipt::decode(body) else { return Ok(None) };
        if receipt.up > sealer.seq() {
            return Err(LinkFault::Broken);
        }
        receipts.heard = now;
        receipts.told = receipts.told.max(receipt.up);
        Ok(Some(receipts.told))
    }

    pub(super) fn receipt_missing_at(&self, silence: Duration) -> Option<Instant> {
        self.receipts.as_ref().map(|receipts| receipts.heard + silence)
    }
}

#[cfg(test)]
mod tests;
