//! How the messages of one connection are sealed and opened.

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::modern::envelope::{OVERHEAD, Sealer};
use osap::suite::Suite;
use parking_lot::Mutex;

/// The way to seal what goes to a device.
pub(super) enum Sealing {
    /// Under the session key (osap-wire 9.6).
    Legacy(SessionCipher),
    /// Under the keys of this login. By itself, so that an idle legacy device does not take the room.
    Modern(Box<Numbered>),
}

/// Seals each message with the next number of the connection (13.3). That happens while the message is put into the connection's
/// out buffer, under its lock, so that numbers and bytes have one order.
pub(super) struct Numbered {
    suite: Suite,
    sealer: Mutex<Sealer>,
}

impl Sealing {
    /// That of a login of a modern suite.
    pub(super) fn modern(suite: Suite, sealer: Sealer) -> Sealing {
        Sealing::Modern(Box::new(Numbered { suite, sealer: Mutex::new(sealer) }))
    }

    pub(super) fn suite(&self) -> Suite {
        match self {
            Sealing::Legacy(_) => Suite::Legacy,
            Sealing::Modern(numbered) => numbered.suite,
        }
    }

    /// The length of a sealed message.
    pub(super) fn sealed_len(&self, general: &General<'_>, application: usize) -> usize {
        match self {
            Sealing::Legacy(_) => envelope::sealed_len(general, application),
            Sealing::Modern(_) => envelope::plain_len(general, application) + OVERHEAD,
        }
    }

    /// Whether the login has to be renewed before anything more can be sealed.
    pub(super) fn is_exhausted(&self) -> bool {
        match self {
            Sealing::Legacy(_) => false,
            Sealing::Modern(numbered) => numbered.sealer.lock().is_exhausted(),
        }
    }

    /// Whether the other side says by sealed receipts what has arrived: anybody could acknowledge over plain TCP (13.3).
    pub(super) fn has_receipts(&self) -> bool {
        let suite = self.suite();
        suite.is_modern() && suite != Suite::Tls
    }

    /// Appends the sealed message, which has [`Self::sealed_len`] bytes. Its number, under a modern suite.
    pub(super) fn seal(
        &self,
        topic: &str,
        general: &General<'_>,
        application: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        match self {
            Sealing::Legacy(cipher) => {
                envelope::seal(cipher, general, application, out).expect("three short members");
                None
            }
            Sealing::Modern(numbered) => {
                let start = out.len();
                envelope::write(general, application, out).expect("three short members");
                // Somebody else has sealed the last one since it was looked: nothing is appended, and the message that was
                // announced with another length is taken back.
                let sealed = numbered.sealer.lock().seal_tail(topic, out, start);
                sealed.inspect_err(|_| out.truncate(start)).ok()
            }
        }
    }
}
