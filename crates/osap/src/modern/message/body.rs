//! What is sealed in 0x72, 0x42, 0x82 and 0x62 (osap-wire 13.3).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{MAX_EXTRA, MessageError};
use crate::id::DevId;
use crate::json;
use crate::modern::schedule::{MAC_LEN, Mac};
use crate::modern::secret::TicketId;
use crate::wire::Reader;

/// What a device sends along when it enrols or returns: a JSON object, unknown members ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Info {
    /// A PKCS #10 request, DER: the device asks for a certificate.
    pub csr: Option<Vec<u8>>,
    /// SHA-256 of the CA certificates, DER, by which the device knows the platform; `None` when it says nothing of them.
    /// A member of ours (`anchors`): the specification is silent on how a new root comes to devices.
    pub anchors: Option<Vec<AnchorId>>,
}

/// SHA-256 of a CA certificate, DER.
pub type AnchorId = [u8; 32];

/// Anchors that one message names at most: more are not read, nor sent.
pub const MAX_ANCHORS: usize = 4;

impl Info {
    /// Reads what was sent; nothing at all is an empty one.
    ///
    /// # Errors
    /// [`MessageError::Content`] unless it is empty or one JSON object whose `csr` is base64.
    pub fn decode(text: &[u8]) -> Result<Self, MessageError> {
        let mut info = Self::default();
        if text.is_empty() {
            return Ok(info);
        }
        let mut broken = false;
        json::for_each_member(text, |name, value| {
            if name == "csr" {
                info.csr = json::string(value).and_then(|text| STANDARD.decode(text.as_bytes()).ok());
                broken |= info.csr.is_none();
            } else if name == "anchors" {
                // Of another shape it is somebody else's member of this name, which is none of ours.
                info.anchors = anchor_ids(value.get());
            }
        })
        .map_err(|_| MessageError::Content)?;
        if broken { Err(MessageError::Content) } else { Ok(info) }
    }

    /// The text that travels: always an object when a device enrols, as in the vectors, and nothing when it returns and
    /// has nothing to say.
    #[must_use]
    pub fn encode(&self, enrols: bool) -> Vec<u8> {
        let said = Said {
            csr: self.csr.as_ref().map(|csr| STANDARD.encode(csr)),
            anchors: self
                .anchors
                .as_ref()
                .map(|ids| ids.iter().take(MAX_ANCHORS).map(|id| STANDARD.encode(id)).collect()),
        };
        if said.csr.is_none() && said.anchors.is_none() && !enrols {
            return Vec::new();
        }
        serde_json::to_vec(&said).expect("text serialises")
    }
}

#[derive(Serialize)]
struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    csr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchors: Option<Vec<String>>,
}

fn anchor_ids(text: &str) -> Option<Vec<AnchorId>> {
    let list: Vec<String> = serde_json::from_str(text).ok()?;
    list.iter().take(MAX_ANCHORS).map(|id| STANDARD.decode(id).ok()?.try_into().ok()).collect()
}

/// What the LBS sends along: a JSON object, unknown members ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The certificate that was asked for and what leads to its root, DER, leaf first.
    pub certificate: Vec<Vec<u8>>,
    /// CA certificates, DER, by which the device is to know the platform from now on, the newest first. A member of ours
    /// (`anchors`); empty when there is nothing to tell.
    pub anchors: Vec<Vec<u8>>,
}

impl Grant {
    /// Reads what was sent.
    ///
    /// # Errors
    /// [`MessageError::Content`] unless it is empty or one JSON object whose `cert` is a list of base64.
    pub fn decode(text: &[u8]) -> Result<Self, MessageError> {
        let mut grant = Self::default();
        if text.is_empty() {
            return Ok(grant);
        }
        let mut broken = false;
        json::for_each_member(text, |name, value| {
            if name == "cert" {
                let list: Option<Vec<String>> = serde_json::from_str(value.get()).ok();
                let list = list.and_then(|list| list.iter().map(|der| STANDARD.decode(der).ok()).collect());
                broken |= list.is_none();
                grant.certificate = list.unwrap_or_default();
            } else if name == "anchors" {
                // Of another shape it is somebody else's member of this name, which is none of ours.
                grant.anchors = anchors(value.get()).unwrap_or_default();
            }
        })
        .map_err(|_| MessageError::Content)?;
        if broken { Err(MessageError::Content) } else { Ok(grant) }
    }

    /// The text that travels; nothing when there is nothing to say.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let list = |of: &[Vec<u8>]| of.iter().map(|der| STANDARD.encode(der)).collect::<Vec<String>>();
        let given = Given { cert: list(&self.certificate), anchors: list(&self.anchors) };
        if given.cert.is_empty() && given.anchors.is_empty() {
            return Vec::new();
        }
        serde_json::to_vec(&given).expect("text serialises")
    }

    /// The same as far as it fits: anchors wait for another run where a certificate takes their place.
    #[must_use]
    pub fn within(mut self, most: usize) -> Self {
        while self.encode().len() > most && self.anchors.pop().is_some() {}
        self
    }
}

#[derive(Serialize)]
struct Given {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cert: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anchors: Vec<String>,
}

fn anchors(text: &str) -> Option<Vec<Vec<u8>>> {
    let list: Vec<String> = serde_json::from_str(text).ok()?;
    list.iter().take(MAX_ANCHORS).map(|der| STANDARD.decode(der).ok()).collect()
}

/// What proves the device in 0x72 and 0x42.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Over the transcript.
    pub mac: Mac,
    /// 0x72: the proof of the code, nothing with a certificate. 0x42: the DevID.
    pub claim: Vec<u8>,
    /// What is sent along, not read yet.
    pub info: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry(..)")
    }
}

impl Entry {
    /// Reads the opened text; the claim has one of these lengths.
    ///
    /// # Errors
    /// [`MessageError::Content`] when the fields do not fit.
    pub fn decode(text: &[u8], claims: &[usize]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(text);
        let fields = (|| {
            let mac = reader.array()?;
            let len = reader.u8()?;
            let claim = reader.take(len.into())?.to_vec();
            let len = reader.array().map(u16::from_be_bytes)?;
            Ok::<_, crate::wire::Short>((mac, claim, reader.take(len.into())?.to_vec()))
        })();
        let (mac, claim, info) = fields.map_err(|_| MessageError::Content)?;
        if !reader.is_empty() || !claims.contains(&claim.len()) || info.len() > MAX_EXTRA {
            return Err(MessageError::Content);
        }
        Ok(Self { mac, claim, info })
    }

    /// The text to be sealed.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(MAC_LEN + 4 + self.claim.len() + self.info.len()));
        out.extend_from_slice(&self.mac);
        out.push(self.claim.len() as u8);
        out.extend_from_slice(&self.claim);
        out.extend_from_slice(&(self.info.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.info);
        out
    }
}

/// What 0x82 and 0x62 hand out. The PSK that goes with the ticket does not travel: both ends derive it.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The identity.
    pub dev_id: DevId,
    /// How long the ticket is accepted, in seconds; 0: without end. The device does not judge it.
    pub lifetime_s: u32,
    /// The new ticket.
    pub ticket: TicketId,
    /// Proves that the LBS knows the code, after a run that showed it.
    pub proof: Option<Mac>,
    /// What is sent along, not read yet.
    pub grant: Vec<u8>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dev_id, lifetime_s, ticket, .. } = self;
        let mut shown = f.debug_struct("Issued");
        shown.field("dev_id", dev_id).field("lifetime_s", lifetime_s).field("ticket", ticket).finish_non_exhaustive()
    }
}

impl Issued {
    /// Reads the opened text.
    ///
    /// # Errors
    /// [`MessageError::Content`] when the fields do not fit.
    pub fn decode(text: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(text);
        let issued = (|| {
            (usize::from(reader.u8().ok()?) == DevId::LEN).then_some(())?;
            let dev_id = DevId::parse(&reader.array::<32>().ok()?).ok()?;
            let lifetime_s = reader.array().map(u32::from_be_bytes).ok()?;
            (usize::from(reader.u8().ok()?) == TicketId::LEN).then_some(())?;
            let ticket = TicketId::new(reader.array().ok()?);
            let proof = match usize::from(reader.u8().ok()?) {
                0 => None,
                MAC_LEN => Some(reader.array().ok()?),
                _ => return None,
            };
            let len = reader.array().map(u16::from_be_bytes).ok()?;
            let grant = reader.take(len.into()).ok()?.to_vec();
            Some(Self { dev_id, lifetime_s, ticket, proof, grant })
        })();
        issued.filter(|issued| reader.is_empty() && issued.grant.len() <= MAX_EXTRA).ok_or(MessageError::Content)
    }

    /// The text to be sealed.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(112 + self.grant.len()));
        out.push(32);
        out.extend_from_slice(self.dev_id.as_bytes());
        out.extend_from_slice(&self.lifetime_s.to_be_bytes());
        out.push(TicketId::LEN as u8);
        out.extend_from_slice(self.ticket.as_bytes());
        match &self.proof {
            None => out.push(0),
            Some(proof) => {
                out.push(MAC_LEN as u8);
                out.extend_from_slice(proof);
            }
        }
        out.extend_from_slice(&(self.grant.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.grant);
        out
    }
}
