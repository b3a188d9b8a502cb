//! The login at the DAS (osap-wire 13.3, "DAS login").
//!
//! Each login draws new random values at both ends, so no counter has to survive a crash. The
//! CONNECT proves the device, the *hello* that answers it proves the DAS, and the first sealed
//! message, the *report*, shows that the CONNECT was no recording.

use super::schedule::{MAC_LEN, Mac, expand, hash, mac, same};
use super::seal::{Direction, RecordKey};
use super::secret::{Exporter, Node};
use crate::id::{DevId, Serial};
use crate::random::Random;
use crate::wire::unhex;

/// The length of a password, and of a hello: 32 random bytes and a MAC.
pub const PROOF_LEN: usize = 32 + MAC_LEN;

/// The exporter label of a DAS login; the context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-osap2-das";

/// A nonce with the MAC over what it stands for: the password of a CONNECT, or the body of a hello.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// 32 random bytes.
    pub nonce: [u8; 32],
    /// What proves its sender.
    pub mac: Mac,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It is good for a login until it was used.
        f.write_str("Proof(..)")
    }
}

impl Proof {
    /// Reads one; `None` unless it has exactly 80 bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (nonce, rest) = bytes.split_first_chunk::<32>()?;
        Some(Self { nonce: *nonce, mac: rest.try_into().ok()? })
    }

    /// The bytes that travel.
    #[must_use]
    pub fn encode(&self) -> [u8; PROOF_LEN] {
        let mut bytes = [0; PROOF_LEN];
        bytes[..32].copy_from_slice(&self.nonce);
        bytes[32..].copy_from_slice(&self.mac);
        bytes
    }
}

/// `LC`: the login of a device with its nonce. `bind` is the exporter of the TLS connection where the session is bound to
/// it.
#[must_use]
pub fn login_hash(bind: Option<&Exporter>, dev_id: &DevId, nonce: &[u8; 32]) -> Mac {
    let bind: &[u8] = bind.map_or(&[0; 48], |exporter| exporter.as_bytes());
    hash(&[b"osap2-login", bind, dev_id.as_bytes(), nonce])
}

/// `LH`: the answer of the DAS with its nonce.
#[must_use]
pub fn hello_hash(login: &Mac, nonce: &[u8; 32]) -> Mac {
    hash(&[b"osap2-hello", login, nonce])
}

/// The password of a CONNECT.
#[must_use]
pub fn password(node: &Node, login: &Mac, nonce: [u8; 32]) -> Proof {
    Proof { nonce, mac: mac(&expand(node.as_bytes(), "login c", &[]), &[login]) }
}

/// Whether a password proves the device.
#[must_use]
pub fn proves_device(node: &Node, login: &Mac, password: &Proof) -> bool {
    same(&mac(&expand(node.as_bytes(), "login c", &[]), &[login]), &password.mac)
}

/// The body of the hello.
#[must_use]
pub fn hello(node: &Node, hello: &Mac, nonce: [u8; 32]) -> Proof {
    Proof { nonce, mac: mac(&expand(node.as_bytes(), "login s", &[]), &[hello]) }
}

/// Whether a hello proves the DAS.
#[must_use]
pub fn proves_das(node: &Node, login: &Mac, proof: &Proof) -> bool {
    let expected = mac(&expand(node.as_bytes(), "login s", &[]), &[&hello_hash(login, &proof.nonce)]);
    same(&expected, &proof.mac)
}

/// The key of one direction of a login.
#[must_use]
pub fn record_key(node: &Node, hello: &Mac, direction: Direction) -> RecordKey {
    let (key, iv) = match direction {
        Direction::Up => ("das c key", "das c iv"),
        Direction::Down => ("das s key", "das s iv"),
    };
    RecordKey::new(expand(node.as_bytes(), key, hello), expand(node.as_bytes(), iv, hello))
}

/// The number of a process of a device: 16 hexadecimal digits, drawn at each start. With it and `Seq` a message is known
/// for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId([u8; 8]);

impl BootId {
    /// Draws one, at the start of a process.
    #[must_use]
    pub fn draw(random: &mut dyn Random) -> Self {
        let mut bits = [0; 8];
        random.fill(&mut bits);
        Self(bits)
    }

    /// Reads 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text.as_bytes()).map(Self)
    }
}

impl std::fmt::Display for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A topic of the login itself, `what` being `hello`, `report` or `receipt`.
#[must_use]
pub fn topic(serial: &Serial, what: &str) -> String {
    format!("/iot/{serial}/global/0-global/basic/login/{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_sixteen_digits() {
        let boot = BootId::parse("00112233aabbccdd").unwrap();
        assert_eq!(boot.to_string(), "00112233aabbccdd");
        for wrong in ["", "00112233aabbccd", "00112233aabbccddee", "00112233aabbccdg"] {
            assert_eq!(BootId::parse(wrong), None, "{wrong}");
        }
    }
}
