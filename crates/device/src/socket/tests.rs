use osap::das::cipher::SessionCipher;
use osap::{Code, DevId, Serial, SessionKey};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use vestibule_mqtt_codec::{Packet, Rules, decode};

use super::*;
use crate::clock::SystemClock;
use crate::outbox::{DEVICE, Limits};
use crate::profile::Profile;
use crate::session::Login;
use crate::shared::Token;

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
    let stream = socket.connect(address).await.unwrap();

    let profile = Profile {
        serial: Serial::new("SN0000001").unwrap(),
        lbs_host: "lbs.example".into(),
        lbs_port: 8666,
        keep_alive: 30,
        firmware: "1.2.3".into(),
        device_type: "Camera".into(),
        mac: "".into(),
    };
    let limits = Limits { events: EVENTS, bytes: usize::MAX, window: EVENTS };
    let shared = Arc::new(Shared::new(profile, Arc::new(SystemClock), Arc::default(), limits));
    let identity = Identity::new(shared.profile.serial.clone(), Code::new("ABCDEF").unwrap());
    let cipher = SessionCipher::new(SessionKey::from_bytes(&[7; 16]).unwrap());
    let dev_id = DevId::parse(&[b'1'; 32]).unwrap();
    let login = Login { full: false, subscribe: false, first: false };
    let mut link = Link::new(now(), Arc::clone(&shared.profile), cipher, dev_id, login);
    let mut session = Session::new(None);
    let mut calls = None;
    let mut talk = Talk::new(&shared, &identity, &mut session, &mut link, &mut calls);

    talk.transmit(&stream).unwrap();
    talk.packets(&[0x20, 2, 0, 0]).unwrap();
    for _ in 0..EVENTS {
        let (token, _) = oneshot::channel();
        shared
            .outbox
            .lock()
            .push(DEVICE, "t".into(), "x".repeat(14_000).into_bytes().into(), Token::Waiting(token))
            .unwrap();
    }
    stream.writable().await.unwrap();
    talk.transmit(&stream).unwrap();
    assert!(!talk.unsent.is_empty(), "nobody reads, so the socket is full");
    assert!(talk.interest().is_writable());

    begin.send(()).unwrap();
    while !talk.unsent.is_empty() {
        stream.writable().await.unwrap();
        talk.transmit(&stream).unwrap();
    }
    assert!(!talk.interest().is_writable());
    let ids = peer.await.unwrap();
    assert_eq!(ids, (1..=EVENTS as u16).collect::<Vec<_>>());
}
