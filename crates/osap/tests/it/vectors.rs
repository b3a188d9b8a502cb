//! The vectors of osap-wire 12.1 to 12.7 and what the tests share.

use osap::lbs::{Credential, DasInfo, Record, Standing};
use osap::{Code, DevId, MasterKey, Random, Serial, SessionKey, Suite};

/// The bytes of a named vector.
pub fn bytes(name: &str) -> Vec<u8> {
    include_str!("../vectors/legacy.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(found, _)| *found == name)
        .map(|(_, hex)| unhex(hex))
        .unwrap_or_else(|| panic!("there is no vector {name}"))
}

/// The bytes of a named vector of a known length.
pub fn array<const N: usize>(name: &str) -> [u8; N] {
    bytes(name).try_into().unwrap_or_else(|_| panic!("{name} does not have {N} bytes"))
}

pub fn unhex(hex: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).expect("a vector is hexadecimal") as u8;
    hex.trim().as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub fn serial() -> Serial {
    Serial::new("SN0000001").unwrap()
}

pub fn code() -> Code {
    Code::new("ABCDEF").unwrap()
}

pub fn dev_id() -> DevId {
    DevId::parse(&bytes("dev_id")).unwrap()
}

pub fn session_key() -> SessionKey {
    SessionKey::from_bytes(&bytes("session_key")).unwrap()
}

pub fn master_key(name: &str) -> MasterKey {
    MasterKey::from_bytes(&bytes(name)).unwrap()
}

/// The 0xB0 plaintext of 12.2.
pub fn das() -> DasInfo {
    DasInfo {
        address: "127.0.0.1".into(),
        port: 8883,
        udp_port: 8884,
        domain: "das.local".into(),
        server_id: "das1".into(),
    }
}

/// A registered device without any credential.
pub fn registered() -> Record {
    Record { code: Some(code()), ..Record::default() }
}

/// The record of a serial that nobody has registered. Its code is the right one: not even that lets a stranger in.
pub fn nobody() -> Record {
    Record { standing: Standing::Unknown, ..registered() }
}

pub fn credential(epoch: u64, master_key: MasterKey) -> Credential {
    Credential { suite: Suite::Legacy, epoch, dev_id: dev_id(), master_key, session_key: None }
}

/// A source that plays back what it was given, byte for byte, and nothing more.
pub struct Tape(Vec<u8>);

impl Tape {
    pub fn new(parts: &[&[u8]]) -> Self {
        Self(parts.concat())
    }

    /// What the server draws in a key agreement of the vectors: private key, session key, DevID.
    pub fn of_server() -> Self {
        let dev_id_bits = unhex(dev_id().as_str());
        Self::new(&[&bytes("lbs_private"), &bytes("session_key"), &dev_id_bits])
    }

    pub fn is_used_up(&self) -> bool {
        self.0.is_empty()
    }
}

impl Random for Tape {
    fn fill(&mut self, out: &mut [u8]) {
        assert!(out.len() <= self.0.len(), "more was drawn than the vectors decide");
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
    }
}

/// Repeatable pseudo-random bytes (xorshift64*), for seeded runs.
#[derive(Clone)]
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
