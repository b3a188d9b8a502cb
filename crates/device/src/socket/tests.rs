use osap::das::cipher::SessionCipher;
use osap::lbs::client::Identity;
use osap::{Code, DevId, SessionKey};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use vestibule_mqtt_codec::{Packet, Rules, decode};

use super::*;
use crate::clock::SystemClock;
use crate::keyring::Keyring;
use crate::link::Channel;
use crate::outbox::{DEVICE, Limits};
use crate::session::Login;
use crate::shared::Token;
use crate::{Credentials, MemoryStorage};

const EVENTS: usize = 128;

/// Reads until all events have come; gives their packet ids.
async fn read_events(listener: TcpListener, begin: oneshot::Receiver<()>) -> Vec<u16> {
    let (mut stream, _) = listener.accept().await.unwrap();
    begin.await.unwrap();
    let (mut buffer, mut ids) = (Vec::new(), Vec::new());
    while ids.len() < EVENTS {
        assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0);
        while let Some(len) = frame_len(&buffer, MAX_PACKET).unwrap().filter(|&len| len <= buffer.len()) {
            let frame: Vec<u8> = buffer.drain(..len).collect();
            if let Packet::Publish(publish) = decode(&frame, &Rules::OSAP_LEGACY).unwrap() {
                ids.extend(publish.head.packet_id);
            }
        }
    }
    ids
}

#[tokio::test]
async fn a_packet_the_socket_takes_in_part_is_continued() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    let address = listener.local_addr().unwrap();
    let (begin, begun) = oneshot::channel();
    let peer = tokio::spawn(read_events(listener, begun));
    let mut stream = Stream::Plain(socket.connect(address).await.unwrap());

    let profile = crate::profile::tests::profile();
    let limits = Limits { events: EVENTS, bytes: usize::MAX, window: EVENTS };
    let shared = Arc::new(Shared::new(profile, Arc::new(SystemClock), Arc::default(), limits));
    let storage = Arc::new(MemoryStorage::new());
    let keyring = Arc::new(Keyring::new(Arc::clone(&shared.profile), storage, Credentials::default()));
    let identity = Identity::new(shared.profile.serial.clone(), Code::new("ABCDEF").unwrap());
    let entrance = Arc::new(Entrance::Legacy { identity, keyring });
    let cipher = Channel::Legacy(SessionCipher::new(SessionKey::from_bytes(&[7; 16]).unwrap()));
    let dev_id = DevId::parse(&[b'1'; 32]).unwrap();
    let login = Login { full: false, subscribe: false, first: false };
    let mut link = Link::new(now(), Arc::clone(&shared.profile), cipher, dev_id, login);
    let mut session = Session::new(None);
    let mut calls = None;
    let mut talk = Talk::new(&shared, &entrance, &mut session, &mut link, &mut calls);

    talk.transmit(&mut stream).unwrap();
    talk.packets(&[0x20, 2, 0, 0]).unwrap();
    for _ in 0..EVENTS {
        let (token, _) = oneshot::channel();
        shared
            .outbox
            .lock()
            .push(DEVICE, "t".into(), "x".repeat(14_000).into_bytes().into(), Token::Waiting(token))
            .unwrap();
    }
    stream.ready(false, true).await.unwrap();
    talk.transmit(&mut stream).unwrap();
    assert!(!talk.unsent.is_empty(), "nobody reads, so the socket is full");

    begin.send(()).unwrap();
    while !talk.unsent.is_empty() {
        stream.ready(false, true).await.unwrap();
        talk.transmit(&mut stream).unwrap();
    }
    let ids = peer.await.unwrap();
    assert_eq!(ids, (1..=EVENTS as u16).collect::<Vec<_>>());
}
