//! One function for each decoder and machine that meets bytes from outside.
//!
//! Fuzz targets call them, and ordinary tests replay inputs through them. Each checks what has to
//! hold for any input at all: nothing panics, nothing runs on, what is read can be written again.
//! A violation panics.
//!
//! The two machines get fixed secrets, those of osap-wire 12, so that recorded conversations
//! lead all the way through them.

use crate::das::cipher::SessionCipher;
use crate::das::envelope;
use crate::das::event::EventBody;
use crate::das::login::{self, LoginRecord};
use crate::das::pass::{self, Pass};
use crate::das::profile::Profile;
use crate::das::reply::Reply;
use crate::das::service::Operate;
use crate::das::topic::Topic;
use crate::das::{BodyError, access, attribute, base, event, hub, ota, shadow, storage};
use crate::lbs::client::{self, Client, Identity, Stored};
use crate::lbs::frame::{Frame, frame_len};
use crate::lbs::message::{
    Apply, AuthI, AuthIi, Confirm, Credentials, EcdhRefresh, Purpose, RefreshI, RefreshIi, RefreshIii, ServiceRequest,
    ServiceResponse, first, g0, g1,
};
use crate::lbs::server::{Output, Server, ServerPolicy};
use crate::lbs::{Credential, DasInfo, Record, Standing};
use crate::random::Random;
use crate::{Code, CodeCase, DevId, MasterKey, ResultCode, Serial, SessionKey, Suite};

mod exchange;
pub mod modern;

pub use exchange::exchange;

/// A function that takes any bytes and panics only where a rule is broken.
pub type Target = fn(&[u8]);

/// Every target by the name of its fuzz target.
pub const TARGETS: &[(&str, Target)] = &[
    ("osap_lbs_frame", lbs_frame),
    ("osap_lbs_server", lbs_server),
    ("osap_lbs_client", lbs_client),
    ("osap_login_record", login_record),
    ("osap_envelope", envelope),
    ("osap_topic", topic),
    ("osap_event_body", event_body),
    ("osap_bodies", bodies),
    ("osap_exchange", exchange),
    ("osap_modern_server", modern::server),
    ("osap_modern_client", modern::client),
    ("osap_modern_exchange", modern::exchange),
    ("osap_modern_envelope", modern::envelope),
];

const SESSION_KEY: [u8; 16] =
    [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF];
const DEV_ID: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// Answers each draw by its length: a private key that counts up, the session key and then the
/// bits of the DevID, single bytes in turn, the last of them for ever.
struct Fixed {
    private_from: u8,
    bytes: &'static [u8],
    keys_drawn: u8,
}

impl Random for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        match out.len() {
            48 => (self.private_from..).zip(out).for_each(|(value, byte)| *byte = value),
            16 if self.keys_drawn == 0 => {
                self.keys_drawn = 1;
                out.copy_from_slice(&SESSION_KEY);
            }
            1 => {
                let Some((first, rest)) = self.bytes.split_first() else { return };
                out[0] = *first;
                if !rest.is_empty() {
                    self.bytes = rest;
                }
            }
            _ => {
                let bits = [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF];
                bits.into_iter().cycle().zip(out).for_each(|(value, byte)| *byte = value);
            }
        }
    }
}

fn serial() -> Serial {
    Serial::new("SN0000001").expect("the serial of the vectors is one")
}

fn code() -> Code {
    Code::new("ABCDEF").expect("the code of the vectors is one")
}

fn dev_id() -> DevId {
    DevId::parse(DEV_ID).expect("the DevID of the vectors is one")
}

fn master_key(text: &[u8; 16]) -> MasterKey {
    MasterKey::from_bytes(text).expect("the master keys of the vectors are some")
}

fn session_key() -> SessionKey {
    SessionKey::from_bytes(&SESSION_KEY).expect("sixteen bytes are a session key")
}

/// A frame and every message it might be: what is read is read again from what is written.
pub fn lbs_frame(data: &[u8]) {
    match frame_len(data, ServerPolicy::MAX_FRAME) {
        Ok(Some(len)) => assert!((2..=ServerPolicy::MAX_FRAME).contains(&len)),
        Ok(None) => assert!(data.len() < 5),
        Err(_) => {}
    }
    let Ok(frame) = Frame::decode(data) else { return };
    assert_eq!(frame_len(data, data.len()), Ok(Some(data.len())));
    macro_rules! again {
        ($message:ty $(, $argument:expr)? $(; $form:expr)?) => {
            if let Ok(message) = <$message>::decode(&frame $(, $argument)? $(, $form)?) {
                let written = message.encode($($form)?);
                let frame = Frame::decode(&written).expect("what is written is a frame");
                assert_eq!(<$message>::decode(&frame $(, $argument)? $(, $form)?), Ok(message));
            }
        };
    }
    again!(AuthI);
    again!(AuthIi, 1);
    again!(g1::AuthI);
    again!(g1::AuthIi);
    again!(g0::AuthI);
    again!(g0::AuthIi);
    again!(g0::Create);
    again!(g0::Created);
    again!(g0::Keep);
    again!(g0::Kept);
    again!(Apply);
    again!(Confirm);
    again!(EcdhRefresh);
    again!(ServiceRequest);
    again!(ServiceResponse);
    for first in [first::APPLIED, first::ECDH_REFRESHED] {
        again!(Credentials; first);
        again!(g1::Credentials; first);
    }
    for purpose in [Purpose::Das, Purpose::Stun] {
        again!(RefreshI; purpose);
        again!(RefreshIi; purpose);
        again!(RefreshIii; purpose);
    }
}

/// Takes the next frame off a stream; `None` when there is none and never will be.
fn next_frame<'a>(stream: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let len = frame_len(stream, max).ok()??;
    let (frame, rest) = stream.split_at_checked(len)?;
    *stream = rest;
    Some(frame)
}

/// A byte stream into the server machine, of any generation, for one registered device.
pub fn lbs_server(data: &[u8]) {
    let credential = Credential {
        suite: Suite::Legacy,
        epoch: 1,
        dev_id: dev_id(),
        master_key: master_key(b"91950C6E59995787"),
        session_key: None,
    };
    let record = Record { code: Some(code()), committed: Some(credential), may_enrol_again: true, ..Record::default() };
    let das = DasInfo {
        address: "127.0.0.1".into(),
        port: 8883,
        udp_port: 8884,
        domain: "das.local".into(),
        server_id: "das1".into(),
    };
    // r2 of osap-wire 12.5; n2 and n4 of 12.7, where a first byte of 0x10 asks for them.
    let bytes: &[u8] = if data.first() == Some(&first::AUTH_I_G0) { &[0x22, 0x44] } else { &[0x9F] };
    let mut random = Fixed { private_from: 0x30, bytes, keys_drawn: 0 };
    let mut server = Server::new(ServerPolicy { g0: true, ..ServerPolicy::legacy() });
    let mut stream = data;
    let mut sent_result = None;
    // The longest way is AUTH-I, 0x72, 0x92, 0xA0 with three steps each at most.
    for _ in 0..32 {
        match server.poll() {
            Output::Read => match next_frame(&mut stream, server.max_frame()) {
                Some(frame) => server.handle_frame(frame),
                None => return,
            },
            Output::Lookup(name) => {
                let nobody = || Record { standing: Standing::Unknown, code: Some(code()), ..Record::default() };
                server.handle_record(if name == serial() { record.clone() } else { nobody() }, &mut random);
            }
            Output::Compute => server.compute(&mut random),
            Output::Assign => server.handle_das(Some(das.clone())),
            Output::Stage(stage) => {
                assert!(record.clone().apply(stage), "what is staged fits the record it came from");
                server.handle_staged();
            }
            Output::Send(bytes) => {
                let frame = Frame::decode(&bytes).expect("what is sent is a frame");
                assert!(bytes.len() <= ServerPolicy::MAX_FRAME);
                sent_result = Some(frame.body.last().copied());
            }
            Output::Done => {
                assert_eq!(server.refusal(), None);
                return;
            }
            Output::Close(reason) => {
                assert_eq!(server.refusal(), reason.result());
                if let Some(result) = reason.result() {
                    let allowed = [1, 3, 4, 5, 6, 9, 10].map(ResultCode::from);
                    assert!(allowed.contains(&result));
                    assert_eq!(sent_result, Some(Some(result.into())));
                }
                assert_eq!(server.poll(), Output::Close(reason));
                return;
            }
        }
    }
    panic!("the server machine runs on");
}

/// A byte stream into the client machine; the first byte says what the device has stored.
pub fn lbs_client(data: &[u8]) {
    let Some((&choice, mut stream)) = data.split_first() else { return };
    let stored = match choice % 3 {
        0 => Stored::Nothing,
        1 => Stored::DevId(dev_id()),
        _ => Stored::Both { dev_id: dev_id(), master_key: master_key(b"C45938929A7F2133") },
    };
    let case = if choice & 0x80 == 0 { CodeCase::Upper } else { CodeCase::Lower };
    let mut random = Fixed { private_from: 0, bytes: &[0x11], keys_drawn: 0 };
    let mut client = Client::new(Identity::new(serial(), code()), stored, case);
    for _ in 0..16 {
        match client.poll() {
            client::Output::Compute => client.compute(&mut random),
            client::Output::Send(bytes) => {
                Frame::decode(&bytes).expect("what is sent is a frame");
            }
            client::Output::Read => match next_frame(&mut stream, client::MAX_FRAME) {
                Some(frame) => client.handle_frame(frame),
                None => return,
            },
            client::Output::Done(success) => {
                success.das.check().expect("a device is only sent where it can go");
                return;
            }
            client::Output::Failed(failure) => {
                assert_eq!(client.poll(), client::Output::Failed(failure));
                return;
            }
        }
    }
    panic!("the client machine runs on");
}

/// The login record, in clear and as a will, and the will topic.
pub fn login_record(data: &[u8]) {
    if let Ok(record) = LoginRecord::decode(data) {
        assert_eq!(LoginRecord::decode(&record.encode()), Ok(record));
    }
    let _ = login::check("SN0000001", data, &session_key(), &dev_id());
    if let Some((serial, which)) = login::read_will_topic(data) {
        let topic = login::will_topic(&serial, which);
        assert_eq!(login::read_will_topic(&topic), Some((serial, which)));
    }
}

/// The envelope: the input as a payload, and as the plaintext of one.
pub fn envelope(data: &[u8]) {
    let cipher = SessionCipher::new(session_key());
    let _ = envelope::open(&cipher, &mut data.to_vec());
    let mut payload = Vec::new();
    cipher.seal_into(&[data], &mut payload);
    assert_eq!(payload.len(), SessionCipher::sealed_len(data.len()));
    assert_eq!(cipher.open(&mut payload.clone()).map(|plain| &*plain), Ok(data));
    if let Ok(opened) = envelope::open(&cipher, &mut payload) {
        let mut again = Vec::new();
        envelope::seal(&cipher, &opened.general, opened.application, &mut again)
            .expect("what came in a general part fits one");
        assert_eq!(again.len(), envelope::sealed_len(&opened.general, opened.application.len()));
        assert_eq!(envelope::open(&cipher, &mut again), Ok(opened));
    }
}

/// A topic of either form.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(topic) = Topic::parse(text) {
        assert_eq!(topic.encode().as_deref(), Ok(text));
        if let Some(place) = pass::Place::of(&topic) {
            assert_eq!(place.topic().as_deref(), Ok(text));
        }
    }
}

/// The bodies of event and attribute reports.
pub fn event_body(data: &[u8]) {
    if let Ok(event) = EventBody::parse(data) {
        let mut written = Vec::new();
        match event::write(event.json, "5fb66b24e52c11f1800094306f635ec7", 1_795_211_417_230, &mut written) {
            Ok(()) => {
                if let Ok(again) = EventBody::parse(&written) {
                    assert_eq!(again.uuid, Some("5fb66b24e52c11f1800094306f635ec7"));
                    assert_eq!(again.time_ms, Some(1_795_211_417_230));
                }
            }
            Err(_) => assert!(written.is_empty()),
        }
    }
    if let Ok(value) = attribute::parse_report(data) {
        let mut written = Vec::new();
        attribute::write_report(value, &mut written).expect("a value that was read can be written");
        assert_eq!(attribute::parse_report(&written), Ok(value));
    }
}

/// Reads again what was written of `first`, which was read.
fn again<'a, T: PartialEq + std::fmt::Debug>(
    first: &T,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), BodyError>,
    out: &'a mut Vec<u8>,
    read: impl FnOnce(&'a [u8]) -> Result<T, BodyError>,
) {
    // Escapes may make a text longer than it came, beyond what a body may have.
    if write(out).is_ok() {
        assert_eq!(read(out).as_ref(), Ok(first), "what was written is not what was read");
    }
}

/// Every body that has no target of its own; the first byte says which. What is read and written again is read as the
/// same.
///
/// # Panics
/// When it is not.
pub fn bodies(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else { return };
    if which >= 0x80 {
        return channel_bodies(which & 0x7F, body);
    }
    let out = &mut Vec::new();
    match which % 7 {
        0 => {
            if let Ok(reply) = Reply::parse(body) {
                again(&reply, |out| reply.write(out), out, Reply::parse);
            }
        }
        1 => {
            if let Ok(operate) = Operate::parse(body) {
                again(&operate, |out| operate.write(out), out, Operate::parse);
            }
        }
        2 => {
            if let Ok(report) = shadow::parse_report(body) {
                again(&report, |out| shadow::write_report(&report, out), out, shadow::parse_report);
            }
        }
        3 => {
            if let Ok(set) = shadow::parse_set(body) {
                again(&set, |out| shadow::write_set(&set, out), out, shadow::parse_set);
            }
        }
        4 => {
            if let Ok(desired) = shadow::parse_query_reply(body) {
                again(&desired, |out| shadow::write_query_reply(&desired, out), out, shadow::parse_query_reply);
            }
        }
        5 => {
            let _ = shadow::parse_query(body);
        }
        _ => {
            let _ = shadow::parse_set_reply(body);
        }
    }
}

/// The bodies of pass-through, of the v2 domains, of updates and of storage, and the thing-model profile.
fn channel_bodies(which: u8, body: &[u8]) {
    macro_rules! again {
        ($($number:literal $body:ty;)*) => {
            match which % 20 {
                $($number => {
                    if let Ok(first) = <$body>::parse(body) {
                        // Some bodies can always be written.
                        let write = |out: &mut Vec<u8>| Written::from(first.write(out)).0;
                        again(&first, write, &mut Vec::new(), |written| <$body>::parse(written));
                    }
                })*
                _ => {
                    if let Ok(profile) = Profile::parse(body) {
                        // Not compared: the last digit of a fraction may change.
                        let again = profile.write().and_then(|written| Profile::parse(&written));
                        assert!(again.is_ok(), "{again:?}");
                    }
                }
            }
        };
    }
    again! {
        0 Pass;
        1 base::Ntp;
        2 base::Request;
        3 base::Owner;
        4 base::Binding;
        5 base::BindToken;
        6 base::Challenge;
        7 base::ProfileQuery;
        8 base::ProfileAnswer;
        9 access::RiskList;
        10 access::Redirect;
        11 hub::Children;
        12 hub::Online;
        13 hub::ChildAuth;
        14 ota::Inform;
        15 ota::Progress;
        16 ota::Upgrade;
        17 storage::Query;
        18 storage::Grants;
    }
    let _ = (access::KeepAlive::parse(body), base::Presence::parse(body), base::Outcome::parse(body));
    let _ = (hub::ChildVerdict::parse(body), ota::UpgradeReply::parse(body), storage::Results::parse(body));
}

/// Whether a body was written.
struct Written(Result<(), BodyError>);

impl From<()> for Written {
    fn from((): ()) -> Self {
        Self(Ok(()))
    }
}

impl From<Result<(), BodyError>> for Written {
    fn from(result: Result<(), BodyError>) -> Self {
        Self(result)
    }
}
