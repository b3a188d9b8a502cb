//! Whom a device does not believe, and what it is not led to (osap-wire 13.3, TLS profile; 13.4).

use std::sync::Arc;

use osap::modern::TicketId;
use osap::modern::message::{AuthI, Issued, VERSION, first, next_frame};
use osap::modern::schedule::{Early, Fresh};
use osap::modern::seal::Direction;
use osap::modern::ticket::Used;
use osap::{DevId, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use vestibule_device::{Anchor, Device, ModernCredentials, Reason, State, TlsFault};

use super::house::{At, House, NOW};
use super::lbs::exporter;
use super::peer::{CODE, Peer, SERIAL, Seen};
use super::storage::Fickle;
use crate::{reach, soon};

/// Waits until the device waits, and says why.
async fn waits(device: &Device) -> Reason {
    match reach(device, |state| matches!(state, State::Waiting { .. })).await {
        State::Waiting { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn osap_13_7_4_a_server_that_nobody_vouches_for_hears_nothing() {
    let house = House::new();
    let mut peer = Peer::start(house.clone(), true).await;
    let stranger = House::new().anchor();
    let device = peer.builder(Fickle::new()).anchors([stranger]).start().unwrap();
    assert_eq!(waits(&device).await, Reason::LbsTls(TlsFault::Untrusted));
    let late = peer.builder(Fickle::new()).anchors([house.anchor()]).clock(At(NOW + 200 * 86_400_000));
    assert_eq!(waits(&late.start().unwrap()).await, Reason::LbsTls(TlsFault::Untrusted));
    let pinned = peer.builder(Fickle::new()).anchors([Anchor::PublicKey([7; 32])]);
    assert_eq!(waits(&pinned.start().unwrap()).await, Reason::LbsTls(TlsFault::Untrusted));
    assert!(peer.is_quiet());

    let elsewhere = Peer::start(House::of(&["elsewhere.example"]), true).await;
    let device = elsewhere.device(Fickle::new());
    assert_eq!(waits(&device).await, Reason::LbsTls(TlsFault::Name));
}

#[tokio::test]
async fn one_of_two_anchors_is_enough_and_a_pin_looks_at_no_name() {
    let house = House::of(&["elsewhere.example"]);
    let mut peer = Peer::start(house.clone(), true).await;
    let anchors = [House::new().anchor(), Anchor::PublicKey(house.pin)];
    let storage = Fickle::new();
    let _device = peer.builder(Arc::clone(&storage)).anchors(anchors).start().unwrap();
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    assert_eq!(storage.modern().known_time_ms, None, "no date was looked at");
}

#[tokio::test]
async fn osap_13_7_4_a_server_that_does_not_speak_osap_hears_nothing() {
    let mut house = House::new();
    let mut config = (*house.lbs).clone();
    config.alpn_protocols = Vec::new();
    house.lbs = Arc::new(config);
    let mut peer = Peer::start(house, true).await;
    let device = peer.device(Fickle::new());
    assert_eq!(waits(&device).await, Reason::LbsTls(TlsFault::Protocol));
    peer.expect([Seen::Cut]).await;

    let mut house = House::new();
    house.das = Arc::clone(&house.lbs);
    let mut peer = Peer::start(house, true).await;
    let device = peer.device(Fickle::new());
    peer.expect([Seen::Run(Used::Code)]).await;
    assert_eq!(waits(&device).await, Reason::DasTls(TlsFault::Protocol));
}

#[tokio::test]
async fn osap_13_7_4_a_das_of_another_name_hears_nothing() {
    let mut peer = Peer::tls().await;
    peer.world(|world| world.domain = "other.example".into());
    let device = peer.device(Fickle::new());
    peer.expect([Seen::Run(Used::Code)]).await;
    assert_eq!(waits(&device).await, Reason::DasTls(TlsFault::Name));
}

#[tokio::test]
async fn osap_13_4_2_a_device_that_came_in_over_tls_does_not_go_on_without() {
    let mut peer = Peer::tls().await;
    let device = peer.device(Fickle::new());
    peer.world(|world| world.tls = false);
    peer.expect([Seen::Run(Used::Code)]).await;
    assert_eq!(waits(&device).await, Reason::DasTls(TlsFault::Missing));
}

/// An LBS with a certificate that the device trusts. It does not know the code, and says yes to whoever comes.
async fn false_lbs(house: House, listener: TcpListener) -> usize {
    let mut frames = 0;
    let (tcp, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(Arc::clone(&house.lbs)).accept(tcp).await.unwrap();
    let exporter = exporter(stream.get_ref().1);
    let mut buffer = Vec::new();
    let auth_i = read(&mut stream, &mut buffer).await.unwrap();
    AuthI::decode(&auth_i).unwrap();
    let mut auth_ii = frame(first::AUTH_II, &[&[4], &VERSION, &[0], &[7; 32], &[0, 0, 0, 0], &[0; 48]]);
    let mac = Early::new(None, &Fresh::Exporter(&exporter)).server_mac(&auth_i, &auth_ii);
    let at = auth_ii.len() - mac.len();
    auth_ii[at..].copy_from_slice(&mac);
    stream.write_all(&auth_ii).await.unwrap();
    read(&mut stream, &mut buffer).await.unwrap();

    let schedule = Early::new(None, &Fresh::Exporter(&exporter)).complete(&auth_i, &auth_ii);
    let issued = Issued {
        dev_id: DevId::mint(&mut SystemRandom),
        lifetime_s: 0,
        ticket: TicketId::draw(&mut SystemRandom),
        proof: Some([7; 48]),
        grant: Vec::new(),
    };
    let text = issued.encode();
    let mut sealed = frame(first::APPLIED, &[&VERSION, &[0], &text, &[0; 16]]);
    let start = sealed.len() - text.len() - 16;
    let head = sealed[..start].to_vec();
    sealed.truncate(start + text.len());
    schedule.record_key(Direction::Down).seal_tail(0, &[&head], &mut sealed, start);
    stream.write_all(&sealed).await.unwrap();
    while read(&mut stream, &mut buffer).await.is_some() {
        frames += 1;
    }
    frames
}

/// A frame of this first byte; its remaining length in its shortest form.
fn frame(first: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    let len = body.len();
    let mut frame = vec![first];
    if len < 128 {
        frame.push(len as u8)
    } else {
        frame.extend([len as u8 | 0x80, (len >> 7) as u8])
    }
    frame.extend(body);
    frame
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(len) = next_frame(buffer, 4096).unwrap() {
            return Some(buffer.drain(..len).collect());
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn osap_13_3_an_lbs_that_does_not_know_the_code_leads_to_nothing() {
    let house = House::new();
    for first_use in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lbs = tokio::spawn(false_lbs(house.clone(), listener));
        let storage = Fickle::new();
        let builder = Device::builder(SERIAL, CODE).lbs(format!("osaps://{address}"));
        let builder = builder.storage(Arc::clone(&storage)).clock(At(NOW));
        let builder = if first_use { builder.first_use() } else { builder.anchors([house.anchor()]) };
        let device = builder.start().unwrap();
        assert_eq!(soon(lbs).await.unwrap(), 0, "nothing is said to have been stored");
        assert_eq!(waits(&device).await, Reason::LbsAnswer);
        assert_eq!(storage.modern(), ModernCredentials::default(), "nothing is stored, and no key pinned");
    }
}
