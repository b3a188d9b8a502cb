//! Ends of a run that know its secrets and do not keep its rules: a device that says what ours would not, and an LBS that
//! has a certificate the device trusts and does not know the code.

use osap::modern::client::{self, Client};
use osap::modern::message::{AuthI, AuthIi, first};
use osap::modern::schedule::{Early, Fresh, Schedule};
use osap::modern::seal::{Direction, RecordKey, TAG_LEN};
use osap::modern::server::{self, Server};
use osap::modern::share::ShareKey;
use osap::modern::slots::Way;
use osap::modern::{Exporter, Psk};
use osap::{Random, Suite};

use super::modern_pair::{Device, Platform, exporter};
use super::vectors::Seeded;

/// A frame of at most 16 KiB with `head` in clear and `text` sealed.
pub fn seal(first: u8, head: &[u8], key: &RecordKey, counter: u64, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    let length = head.len() + text.len() + TAG_LEN;
    if length > 0x7F {
        frame.extend([(length & 0x7F) as u8 | 0x80, (length >> 7) as u8]);
    } else {
        frame.push(length as u8);
    }
    frame.extend(head);
    let mut sealed = text.to_vec();
    key.seal_tail(counter, &[&frame], &mut sealed, 0);
    frame.extend(sealed);
    frame
}

/// What came of one frame.
pub struct Sent {
    pub answer: Option<Vec<u8>>,
    pub end: server::Output,
}

/// A device beyond AUTH-II, with the machine of its LBS.
pub struct Insider {
    pub schedule: Schedule,
    pub server: Server,
    exporter: Exporter,
}

impl Insider {
    /// Goes as far as AUTH-II, with the newest ticket of `device` if it has one.
    pub fn new(platform: &mut Platform, device: &Device, suite: Suite) -> Self {
        let mut random = Seeded::new(0x1151DE);
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let key = ShareKey::draw(suite, &mut random);
        let auth = AuthI {
            protocol_type: suite.protocol_type(),
            group: osap::lbs::message::Group::new(&[suite.protocol_type()]).unwrap(),
            nonce,
            serial: device.identity.serial.clone(),
            share: key.as_ref().map(|key| key.public().to_vec()).unwrap_or_default(),
            bound: None,
        };
        let slot = device.flash.newest.as_ref();
        let frame = match slot {
            Some(slot) => auth.encode_bound(slot.ticket, &slot.psk),
            None => auth.encode(),
        };
        let exporter = exporter(&mut random);
        let mut server = Server::new(platform.policy.clone(), platform.certificate.clone());
        server.handle_frame(&frame, &mut platform.random);
        let answer = loop {
            match platform.answer(&mut server, &exporter) {
                None => {}
                Some(server::Output::Send(bytes)) => break bytes,
                Some(end) => panic!("{end:?}"),
            }
        };
        let AuthIi::Accepted { share, .. } = AuthIi::decode(&answer, suite).unwrap() else { panic!("{answer:02x?}") };
        let schedule = meet(slot.map(|slot| &slot.psk), key.as_ref(), &share, &exporter).complete(&frame, &answer);
        Self { schedule, server, exporter }
    }

    /// Sends a sealed frame and sees what comes of it.
    pub fn say(&mut self, platform: &mut Platform, first: u8, counter: u64, text: &[u8]) -> Sent {
        let frame = seal(first, &[1, 0x10, 0], &self.schedule.record_key(Direction::Up), counter, text);
        self.send(platform, &frame)
    }

    pub fn send(&mut self, platform: &mut Platform, frame: &[u8]) -> Sent {
        assert_eq!(self.server.poll(), server::Output::Read);
        self.server.handle_frame(frame, &mut platform.random);
        let mut answer = None;
        loop {
            match platform.answer(&mut self.server, &self.exporter) {
                None => {}
                Some(server::Output::Send(bytes)) => answer = Some(bytes),
                Some(end) => return Sent { answer, end },
            }
        }
    }

    /// The text of 0x42 (`returning`) or 0x72 with what is asked for in `claim`.
    pub fn entry(&self, claim: &[u8], info: &[u8]) -> Vec<u8> {
        let info_len = u16::try_from(info.len()).unwrap().to_be_bytes();
        [&self.schedule.mac_d()[..], &[claim.len() as u8], claim, &info_len, info].concat()
    }
}

fn meet(psk: Option<&Psk>, key: Option<&ShareKey>, share: &[u8], exporter: &Exporter) -> Early {
    match key {
        Some(key) => Early::new(psk, &Fresh::Shared(&key.agree(share).unwrap())),
        None => Early::new(psk, &Fresh::Exporter(exporter)),
    }
}

/// A device with a ticket that enters with 0x42 or, with its code, 0x72.
pub fn enters_with(platform: &mut Platform, device: &Device, suite: Suite, returning: bool) -> Sent {
    let mut insider = Insider::new(platform, device, suite);
    if returning {
        let text = insider.entry(device.flash.dev_id.unwrap().as_bytes(), b"");
        return insider.say(platform, first::RETURN, 0, &text);
    }
    let proof = insider.schedule.proof_d(device.identity.code.as_ref().unwrap());
    let text = insider.entry(&proof, b"{}");
    insider.say(platform, first::APPLY, 0, &text)
}

/// An LBS that answers a device by `way` over TLS, knows the connection and `psk`, and sends as 0x82 or 0x62 what `issue`
/// makes of the run. Gives what the device does next.
pub fn false_lbs(
    device: &mut Device,
    way: Way,
    psk: Option<&Psk>,
    issue: &dyn Fn(&Schedule) -> Vec<u8>,
) -> (client::Output, Client) {
    let exporter = exporter(&mut Seeded::new(0xFA15E));
    let attempt = device.attempt(Suite::Tls, way);
    let mut client = Client::new(device.identity.clone(), device.flash.clone(), attempt);
    client.compute(&mut device.random);
    let client::Output::Send(hello) = client.poll() else { panic!("AUTH-I comes first") };
    let early = Early::new(psk, &Fresh::Exporter(&exporter));
    let mut answer = AuthIi::Accepted { nonce: [9; 32], share: Vec::new(), mac: [0; 48] }.encode(Suite::Tls);
    let mac = early.server_mac(&hello, &answer);
    let at = answer.len() - mac.len();
    answer[at..].copy_from_slice(&mac);
    let schedule = early.complete(&hello, &answer);
    client.handle_frame(&answer);
    client.handle_exporter(&exporter);
    if let client::Output::Send(entry) = client.poll() {
        let first = if entry[0] == first::RETURN { first::RETURNED } else { first::APPLIED };
        let text = issue(&schedule);
        client.handle_frame(&seal(first, &[1, 0x10, 0, 0], &schedule.record_key(Direction::Down), 0, &text));
    }
    (client.poll(), client)
}

#[test]
fn an_insider_that_keeps_the_rules_gets_in() {
    for suite in Suite::MODERN {
        let (mut platform, device) = super::modern_pair::known(suite, 40);
        let sent = enters_with(&mut platform, &device, suite, true);
        assert_eq!((sent.answer.map(|answer| answer[0]), sent.end), (Some(0x62), server::Output::Read), "{suite}");
    }
}

#[test]
fn osap_13_3_what_an_insider_gets_wrong_is_closed_or_refused_under_seal_and_nothing_is_issued() {
    let dev_id = *super::vectors::dev_id().as_bytes();
    let big = vec![b' '; 2_049];
    type Text<'a> = &'a dyn Fn(&Insider) -> Vec<u8>;
    // `None`: closed without an answer; otherwise the sealed result.
    let cases: [(&str, u8, Text<'_>, Option<u8>); 12] = [
        (
            "a wrong mac",
            first::RETURN,
            &|insider| {
                let mut text = insider.entry(&dev_id, b"");
                text[47] ^= 1;
                text
            },
            None,
        ),
        (
            "its own mac of the server",
            first::RETURN,
            &|insider| {
                let mut text = insider.entry(&dev_id, b"");
                text[..48].copy_from_slice(&insider.schedule.mac_s());
                text
            },
            None,
        ),
        ("a DevID of another device", first::RETURN, &|insider| insider.entry(&[b'x'; 32], b""), Some(4)),
        ("a DevID that is cut", first::RETURN, &|insider| insider.entry(&dev_id[..31], b""), None),
        ("no DevID", first::RETURN, &|insider| insider.entry(b"", b""), None),
        ("a proof in place of a DevID", first::RETURN, &|insider| insider.entry(&[1; 48], b""), None),
        ("bytes left over", first::RETURN, &|insider| [&insider.entry(&dev_id, b"")[..], &[0]].concat(), None),
        ("nothing", first::RETURN, &|_| Vec::new(), None),
        ("an info that is no object", first::RETURN, &|insider| insider.entry(&dev_id, b"[]"), None),
        ("a request that is no base64", first::RETURN, &|insider| insider.entry(&dev_id, br#"{"csr":"?"}"#), None),
        ("an info that is too long", first::RETURN, &|insider| insider.entry(&dev_id, &big), None),
        ("neither code nor certificate", first::APPLY, &|insider| insider.entry(b"", b""), Some(1)),
    ];
    for (what, kind, text, expected) in cases {
        let (mut platform, device) = super::modern_pair::known(Suite::Tls, 41);
        let before = platform.tickets().clone();
        let mut insider = Insider::new(&mut platform, &device, Suite::Tls);
        let text = text(&insider);
        let sent = insider.say(&mut platform, kind, 0, &text);
        assert_eq!(sent.answer.map(|answer| answer[5]), expected, "{what}");
        assert!(matches!(sent.end, server::Output::Close(_)), "{what}: {:?}", sent.end);
        assert_eq!(platform.tickets(), &before, "{what}");
    }
    // The longest info that fits is taken, and unknown members are passed over.
    let (mut platform, device) = super::modern_pair::known(Suite::Tls, 41);
    let mut insider = Insider::new(&mut platform, &device, Suite::Tls);
    let mut info = br#"{"other":[1,{}]"#.to_vec();
    info.resize(2_047, b' ');
    info.push(b'}');
    let text = insider.entry(&dev_id, &info);
    assert_eq!(insider.say(&mut platform, first::RETURN, 0, &text).end, server::Output::Read);
}

#[test]
fn osap_13_3_each_frame_is_sealed_for_its_place() {
    // The right text under the right key with the number of another place.
    let dev_id = *super::vectors::dev_id().as_bytes();
    for counter in 1..4 {
        let (mut platform, device) = super::modern_pair::known(Suite::X25519, 42);
        let mut insider = Insider::new(&mut platform, &device, Suite::X25519);
        let text = insider.entry(&dev_id, b"");
        let sent = insider.say(&mut platform, first::RETURN, counter, &text);
        assert!(sent.answer.is_none() && matches!(sent.end, server::Output::Close(_)));
    }
    let request = |serial: &str| format!(r#"{{"DevSerial":"{serial}","Type":"DAS","Mode":0}}"#).into_bytes();
    for (confirm, service, text, answers) in [
        (1, 2, request("SN0000001"), true),
        (0, 2, request("SN0000001"), false),
        (2, 2, request("SN0000001"), false),
        (1, 1, request("SN0000001"), false),
        (1, 2, request("SN0000002"), false),
        (1, 2, br#"{"DevSerial":"SN0000001","Type":"STUN"}"#.to_vec(), false),
        (1, 2, Vec::new(), false),
    ] {
        let (mut platform, device) = super::modern_pair::known(Suite::X25519, 43);
        platform.record().tickets.confirmed = false;
        let mut insider = Insider::new(&mut platform, &device, Suite::X25519);
        let entry = insider.entry(&dev_id, b"");
        assert_eq!(insider.say(&mut platform, first::RETURN, 0, &entry).end, server::Output::Read);
        let sent = insider.say(&mut platform, first::CONFIRM, confirm, b"");
        assert_eq!(platform.tickets().confirmed, confirm == 1);
        if confirm != 1 {
            assert!(sent.answer.is_none() && matches!(sent.end, server::Output::Close(_)));
            continue;
        }
        let sent = insider.say(&mut platform, first::SERVICE, service, &text);
        assert_eq!(sent.answer.is_some(), answers, "{service}");
        assert_eq!(sent.end == server::Output::Done, answers);
    }
}
