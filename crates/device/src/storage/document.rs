//! The text of a file of credentials.
//!
//! A device that knows the legacy suite alone has a file of version 1, as ever; what the modern suites left makes it one
//! of version 2, which has all members of the first.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use osap::modern::slots::Slot;
use osap::modern::{Psk, Slots, TicketId};
use osap::{DevId, MasterKey, Serial};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Credentials, IssuedCertificate, LegacyCredentials, ModernCredentials};

/// More than any file this module writes; what is longer is damaged.
pub(super) const MAX_FILE: usize = 32 * 1024;

/// Certificates of a chain at most.
const MAX_CHAIN: usize = 8;

/// Anchors that a device learns, at most.
const MAX_ANCHORS: usize = 2;

/// What a text is wrong about.
pub(super) type Reason = &'static str;

// A serial and a DevID may contain characters JSON escapes, which cannot be borrowed; secrets never do.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    version: u32,
    #[serde(borrow)]
    serial: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    dev_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    master_key: Option<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    modern: Option<Modern<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Modern<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    dev_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    newest: Option<Ticket<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    older: Option<Ticket<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    base: Option<Ticket<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<&'a str>,
    /// In base64.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    anchors: Vec<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known_time_ms: Option<i64>,
}

/// Both in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ticket<'a> {
    ticket: &'a str,
    psk: &'a str,
}

/// Both in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate<'a> {
    #[serde(borrow)]
    chain: Vec<&'a str>,
    key: &'a str,
}

/// Texts in base64, which live as long as the document does and are wiped.
#[derive(Default)]
struct Texts {
    slots: [Option<[Zeroizing<String>; 2]>; 3],
    pin: Option<Zeroizing<String>>,
    anchors: Vec<String>,
    chain: Vec<String>,
    key: Option<Zeroizing<String>>,
}

impl Texts {
    fn of(modern: &ModernCredentials) -> Self {
        let Slots { newest, older, base, .. } = &modern.slots;
        let slot = |slot: &Option<Slot>| {
            slot.as_ref().map(|slot| [encode(slot.ticket.as_bytes()), encode(slot.psk.as_bytes())])
        };
        let certificate = modern.certificate.as_ref();
        Self {
            slots: [slot(newest), slot(older), slot(base)],
            pin: modern.pin.map(|pin| encode(&pin)),
            anchors: modern.anchors.iter().map(|der| STANDARD.encode(der)).collect(),
            chain: certificate.iter().flat_map(|of| &of.chain).map(|der| STANDARD.encode(der)).collect(),
            key: certificate.map(|of| encode(&of.key)),
        }
    }

    fn document<'a>(&'a self, modern: &'a ModernCredentials) -> Modern<'a> {
        let [newest, older, base] = &self.slots;
        Modern {
            dev_id: modern.slots.dev_id.as_ref().map(|dev_id| dev_id.as_str().into()),
            newest: ticket(newest),
            older: ticket(older),
            base: ticket(base),
            pin: self.pin.as_ref().map(|pin| pin.as_str()),
            anchors: self.anchors.iter().map(String::as_str).collect(),
            certificate: self
                .key
                .as_ref()
                .map(|key| Certificate { chain: self.chain.iter().map(String::as_str).collect(), key }),
            known_time_ms: modern.known_time_ms,
        }
    }
}

fn ticket(texts: &Option<[Zeroizing<String>; 2]>) -> Option<Ticket<'_>> {
    texts.as_ref().map(|[ticket, psk]| Ticket { ticket, psk })
}

fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

fn decode<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    // A little longer than the bytes: the decoder wants room for what it may turn out to be.
    let mut bytes = Zeroizing::new([0; 64]);
    let len = STANDARD.decode_slice(text, &mut *bytes).ok()?;
    let bytes = bytes.get(..len)?;
    Some(Zeroizing::new(bytes.try_into().ok()?))
}

/// The text of these credentials.
pub(super) fn render(serial: &Serial, credentials: &Credentials) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let Credentials { legacy, modern } = credentials;
    let master_key = legacy.as_ref().map(|legacy| std::str::from_utf8(legacy.master_key.as_bytes()));
    let texts = modern.as_ref().map(Texts::of).unwrap_or_default();
    let document = Document {
        version: if modern.is_some() { 2 } else { 1 },
        serial: serial.as_str().into(),
        dev_id: legacy.as_ref().map(|legacy| legacy.dev_id.as_str().into()),
        master_key: master_key.transpose().map_err(|_| "the master key is not text")?,
        modern: modern.as_ref().map(|modern| texts.document(modern)),
    };
    // Sized beforehand: growing would leave copies of the keys behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE));
    serde_json::to_writer(Bounded(&mut text), &document).map_err(|_| "the credentials are too long")?;
    text.push(b'\n');
    Ok(text)
}

/// Takes no more than a file may have.
struct Bounded<'a>(&'a mut Vec<u8>);

impl std::io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() >= MAX_FILE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads the text of the credentials of this device.
pub(super) fn parse(text: &[u8], serial: &Serial) -> Result<Credentials, Reason> {
    if text.len() > MAX_FILE {
        return Err("it is too long");
    }
    let document: Document<'_> =
        serde_json::from_slice(text).map_err(|_| "it is cut short or not a file of this program")?;
    if !matches!((document.version, &document.modern), (1, None) | (2, Some(_))) {
        return Err("it has a version this program does not know");
    }
    if document.serial != serial.as_str() {
        return Err("it belongs to another device");
    }
    let legacy = match (document.dev_id, document.master_key) {
        (Some(id), Some(key)) => Some(LegacyCredentials {
            dev_id: dev_id(&id)?,
            master_key: MasterKey::from_bytes(key.as_bytes()).map_err(|_| "its master key is not one")?,
        }),
        (None, None) if document.modern.is_some() => None,
        _ => return Err("it lacks a DevID or a master key"),
    };
    Ok(Credentials { legacy, modern: document.modern.map(modern).transpose()? })
}

fn dev_id(text: &str) -> Result<DevId, Reason> {
    DevId::parse(text.as_bytes()).map_err(|_| "its DevID is not one")
}

fn modern(document: Modern<'_>) -> Result<ModernCredentials, Reason> {
    let slots = Slots {
        dev_id: document.dev_id.as_deref().map(dev_id).transpose()?,
        newest: document.newest.map(slot).transpose()?,
        older: document.older.map(slot).transpose()?,
        base: document.base.map(slot).transpose()?,
    };
    let pin = document.pin.map(|pin| decode(pin).map(|pin| *pin).ok_or("its pin is not one")).transpose()?;
    let certificate = document.certificate.map(certificate).transpose()?;
    if document.anchors.len() > MAX_ANCHORS {
        return Err("it has more anchors than a device learns");
    }
    let anchors = document.anchors.iter().map(|der| STANDARD.decode(der)).collect::<Result<_, _>>();
    let anchors = anchors.map_err(|_| "an anchor in it is not one")?;
    Ok(ModernCredentials { slots, pin, anchors, certificate, known_time_ms: document.known_time_ms })
}

fn slot(Ticket { ticket, psk }: Ticket<'_>) -> Result<Slot, Reason> {
    let slot = decode(ticket)
        .zip(decode::<48>(psk))
        .and_then(|(ticket, psk)| Some(Slot { ticket: TicketId::new(*ticket), psk: Psk::from_bytes(&*psk).ok()? }));
    slot.ok_or("a ticket in it is not one")
}

fn certificate(Certificate { chain, key }: Certificate<'_>) -> Result<IssuedCertificate, Reason> {
    const REASON: Reason = "its certificate is not one";
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(REASON);
    }
    let chain = chain.iter().map(|der| STANDARD.decode(der)).collect::<Result<_, _>>().map_err(|_| REASON)?;
    Ok(IssuedCertificate { chain, key: STANDARD.decode(key).map_err(|_| REASON)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial() -> Serial {
        Serial::new("SN0000001").unwrap()
    }

    fn a_slot(n: u8) -> Slot {
        Slot { ticket: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n | 0x80; 48]).unwrap() }
    }

    fn full() -> Credentials {
        let id = |digit: u8| DevId::parse(&[digit; 32]).unwrap();
        let master_key = MasterKey::from_bytes(&[b'A'; 16]).unwrap();
        let slots =
            Slots { dev_id: Some(id(b'd')), newest: Some(a_slot(3)), older: Some(a_slot(2)), base: Some(a_slot(1)) };
        let certificate = IssuedCertificate { chain: vec![vec![1; 700], vec![2; 700]], key: vec![3; 138] };
        Credentials {
            legacy: Some(LegacyCredentials { dev_id: id(b'1'), master_key }),
            modern: Some(ModernCredentials {
                slots,
                pin: Some([9; 32]),
                anchors: vec![vec![4; 430], vec![5; 430]],
                certificate: Some(certificate),
                known_time_ms: Some(1_795_210_282_110),
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_with_every_part_there_or_not() {
        for parts in 0..0x200_u32 {
            let has = |bit: u32| parts & (1 << bit) != 0;
            let mut credentials = full();
            if !has(0) {
                credentials.legacy = None;
            }
            let modern = credentials.modern.as_mut().unwrap();
            if !has(1) {
                modern.slots.dev_id = None;
            }
            if !has(2) {
                modern.slots.newest = None;
            }
            if !has(3) {
                modern.slots.older = None;
            }
            if !has(4) {
                modern.slots.base = None;
            }
            if !has(5) {
                modern.pin = None;
            }
            if !has(6) {
                modern.certificate = None;
            }
            if !has(7) {
                modern.known_time_ms = None;
            }
            if !has(8) {
                modern.anchors.clear();
            }
            let text = render(&serial(), &credentials).unwrap();
            assert_eq!(parse(&text, &serial()), Ok(credentials), "{parts:#b}");
        }
    }

    #[test]
    fn a_file_of_a_former_program_is_read_and_one_without_modern_credentials_is_as_it_was() {
        let text = concat!(
            r#"{"version":1,"serial":"SN0000001","dev_id":"11111111111111111111111111111111","#,
            r#""master_key":"AAAAAAAAAAAAAAAA"}"#,
            "\n"
        );
        let credentials = Credentials { modern: None, ..full() };
        assert_eq!(parse(text.as_bytes(), &serial()), Ok(credentials.clone()));
        assert_eq!(&*render(&serial(), &credentials).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_base_credential_alone_makes_a_file_that_a_factory_can_write() {
        let text = format!(
            r#"{{"version":2,"serial":"SN0000001","modern":{{"dev_id":"{}","base":{{"ticket":"{}","psk":"{}"}}}}}}"#,
            "d".repeat(32),
            STANDARD.encode([1; 16]),
            STANDARD.encode([0x81; 48]),
        );
        let slots = parse(text.as_bytes(), &serial()).unwrap().modern.unwrap().slots;
        assert_eq!(slots, Slots { newest: None, older: None, ..full().modern.unwrap().slots });
    }

    #[test]
    fn what_is_wrong_is_told_without_quoting_it() {
        let good = String::from_utf8(render(&serial(), &full()).unwrap().to_vec()).unwrap();
        let psk = STANDARD.encode([0x83; 48]);
        for (from, to) in [
            ("\"version\":2", "\"version\":3"),
            ("\"version\":2", "\"version\":1"),
            (&*psk, &psk[4..]),
            (&*psk, "!"),
            (&STANDARD.encode([3; 16]), &STANDARD.encode([3; 17])),
            (&STANDARD.encode([9; 32]), &STANDARD.encode([9; 31])),
            ("\"pin\"", "\"pun\""),
            (&STANDARD.encode([4; 430]), "!"),
            ("\"anchors\":[", "\"anchors\":[\"\","),
            (&"d".repeat(32), &"d".repeat(31)),
            (",\"master_key\":\"AAAAAAAAAAAAAAAA\"", ""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            let reason = parse(bad.as_bytes(), &serial()).unwrap_err();
            assert!(!reason.contains(&psk[..8]), "{reason}");
        }
        let long = IssuedCertificate { chain: vec![vec![0; MAX_FILE]], key: Vec::new() };
        let mut credentials = full();
        credentials.modern.as_mut().unwrap().certificate = Some(long);
        assert_eq!(render(&serial(), &credentials).err(), Some("the credentials are too long"));
    }

    #[test]
    fn no_secret_is_printed() {
        let text = format!("{:?}", full());
        assert!(text.contains("Psk(..)") && text.contains("IssuedCertificate(..)") && text.contains("MasterKey(..)"));
    }
}
