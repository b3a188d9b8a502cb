//! The key schedule of a run at the LBS (osap-wire 13.3, "Keys").
//!
//! `E(k, l, ctx, n)` is HKDF-Expand-SHA384 of `k` with the info `"osap2 " | l | 0x00 | ctx`; every
//! MAC is HMAC-SHA384, whole and compared in constant time; frames enter hashes complete, header
//! included.

use aws_lc_rs::{digest, hkdf, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::seal::{Direction, RecordKey};
use super::secret::{DasSecret, Exporter, Node, Psk, SECRET_LEN};
use super::share::Shared;
use crate::key::Code;

/// The length of every MAC and of every transcript hash.
pub const MAC_LEN: usize = 48;

/// A MAC or a transcript hash.
pub type Mac = [u8; MAC_LEN];

/// HKDF asks for a type that says how long its output is.
struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// `E(key, label, context, N)`.
pub(crate) fn expand<const N: usize>(key: &[u8; SECRET_LEN], label: &str, context: &[u8]) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA384, key)
        .expand(&[b"osap2 ", label.as_bytes(), &[0], context], Len(N))
        .and_then(|okm| okm.fill(&mut *out))
        .expect("less than 255 hashes of output");
    out
}

/// HMAC-SHA384 over the concatenation of `parts`.
pub(crate) fn mac(key: &[u8; SECRET_LEN], parts: &[&[u8]]) -> Mac {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA384, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().try_into().expect("HMAC-SHA384 has 48 bytes")
}

/// SHA-384 over the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> Mac {
    let mut context = digest::Context::new(&digest::SHA384);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-384 has 48 bytes")
}

/// Whether two MACs are the same, in the same time whatever differs.
#[must_use]
pub(crate) fn same(left: &Mac, right: &Mac) -> bool {
    left.ct_eq(right).into()
}

/// A frame without its last 48 bytes, which hold a MAC over the rest.
pub(crate) fn without_mac(frame: &[u8]) -> &[u8] {
    &frame[..frame.len().saturating_sub(MAC_LEN)]
}

/// The binder of an AUTH-I that shows a ticket. `frame` is the whole frame; its last 48 bytes,
/// where the binder stands, do not enter.
#[must_use]
pub fn binder(psk: &Psk, frame: &[u8]) -> Mac {
    mac(&expand::<SECRET_LEN>(psk.as_bytes(), "binder", &[]), &[&hash(&[without_mac(frame)])])
}

/// Where the fresh secret of a run comes from.
#[derive(Debug)]
pub enum Fresh<'a> {
    /// Type 4: the TLS connection.
    Exporter(&'a Exporter),
    /// Types 8 and 16: an agreement.
    Shared(&'a Shared),
}

/// The secrets of a run once AUTH-II exists: what each side proves, and the keys of what follows.
#[derive(Clone)]
pub struct Schedule {
    prk: Zeroizing<[u8; SECRET_LEN]>,
    th1: Mac,
    th2: Mac,
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schedule(..)")
    }
}

/// Before AUTH-II is complete: its own MAC is not in it yet.
pub struct Early {
    prk: Zeroizing<[u8; SECRET_LEN]>,
}

impl std::fmt::Debug for Early {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Early(..)")
    }
}

impl Early {
    /// `PRK = HKDF-Extract-SHA384(salt, IKM)`; the salt follows from the PSK of the ticket that was shown, if one was.
    #[must_use]
    pub fn new(psk: Option<&Psk>, fresh: &Fresh<'_>) -> Self {
        let salt = match psk {
            Some(psk) => expand::<SECRET_LEN>(psk.as_bytes(), "salt", &[]),
            None => Zeroizing::new([0; SECRET_LEN]),
        };
        let ikm: &[u8] = match fresh {
            Fresh::Exporter(exporter) => exporter.as_bytes(),
            Fresh::Shared(shared) => shared.as_bytes(),
        };
        // HKDF-Extract is one HMAC under the salt (RFC 5869, 2.2).
        Self { prk: Zeroizing::new(mac(&salt, &[ikm])) }
    }

    /// `macS`, which ends AUTH-II. Both frames are whole; what stands in the last 48 bytes of `auth_ii` does not enter.
    #[must_use]
    pub fn server_mac(&self, auth_i: &[u8], auth_ii: &[u8]) -> Mac {
        self.mac_s(&hash(&[auth_i, without_mac(auth_ii)]))
    }

    fn mac_s(&self, th1: &Mac) -> Mac {
        mac(&expand(&self.prk, "s fin", th1), &[th1])
    }

    /// The whole schedule, over the whole of both frames.
    #[must_use]
    pub fn complete(self, auth_i: &[u8], auth_ii: &[u8]) -> Schedule {
        let th1 = hash(&[auth_i, without_mac(auth_ii)]);
        Schedule { prk: self.prk, th1, th2: hash(&[auth_i, auth_ii]) }
    }
}

impl Schedule {
    /// Proves the LBS: knows the fresh secret, and the PSK where a ticket was shown.
    #[must_use]
    pub fn mac_s(&self) -> Mac {
        mac(&expand(&self.prk, "s fin", &self.th1), &[&self.th1])
    }

    /// Proves the device the same way.
    #[must_use]
    pub fn mac_d(&self) -> Mac {
        mac(&expand(&self.prk, "c fin", &self.th2), &[&self.th2])
    }

    /// Proves that the device knows its code.
    #[must_use]
    pub fn proof_d(&self, code: &Code) -> Mac {
        mac(&expand(&self.prk, "code c", &self.th2), &[code.as_bytes()])
    }

    /// Proves that the LBS knows the code, too. Sent only after the device's proof was right.
    #[must_use]
    pub fn proof_s(&self, code: &Code) -> Mac {
        mac(&expand(&self.prk, "code s", &self.th2), &[code.as_bytes()])
    }

    /// The key of sealed frames in one direction.
    #[must_use]
    pub fn record_key(&self, direction: Direction) -> RecordKey {
        let (key, iv) = match direction {
            Direction::Up => ("lbs c key", "lbs c iv"),
            Direction::Down => ("lbs s key", "lbs s iv"),
        };
        RecordKey::new(expand(&self.prk, key, &self.th2), expand(&self.prk, iv, &self.th2))
    }

    /// What this run leaves for the DAS.
    #[must_use]
    pub fn das(&self) -> DasSecret {
        let secret = expand::<SECRET_LEN>(&self.prk, "das", &self.th2);
        DasSecret::from_bytes(&*secret).expect("48 bytes were expanded")
    }

    /// The PSK of the ticket this run hands out.
    #[must_use]
    pub fn resume(&self) -> Psk {
        let secret = expand::<SECRET_LEN>(&self.prk, "resume", &self.th2);
        Psk::from_bytes(&*secret).expect("48 bytes were expanded")
    }
}

impl DasSecret {
    /// The secret that the DAS of this name, and nobody else, is given.
    #[must_use]
    pub fn node(&self, server_id: &str) -> Node {
        let secret = expand::<SECRET_LEN>(self.as_bytes(), "das node", server_id.as_bytes());
        Node::from_bytes(&*secret).expect("48 bytes were expanded")
    }
}
