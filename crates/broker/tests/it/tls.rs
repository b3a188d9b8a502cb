//! The engine over TLS.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use vestibule_broker::codec::{PublishHead, QoS, encode};
use vestibule_broker::{EndReason, Profile, TlsListener};
use vestibule_tls::rustls::ServerConfig;

use crate::client::{CONNACK_OK, DISCONNECT, PINGREQ, PINGRESP, connect, connect_with, publish, subscribe};
use crate::server::{Server, counted};
use crate::tls_client::{House, TlsClient};

fn serve(config: &Arc<ServerConfig>, name: &'static str, change: impl FnOnce(&mut TlsListener)) -> Server {
    let mut tls = TlsListener::new(Arc::clone(config));
    change(&mut tls);
    Server::with(2, Profile::Strict, |listener| {
        listener.name = name;
        listener.tls = Some(tls);
    })
}

fn ended(name: &str, reason: &str) -> u64 {
    counted("vestibule_connections_ended_total", &format!("listener={name};reason={reason};"))
}

#[track_caller]
fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let late = std::time::Instant::now() + crate::probe::PATIENCE;
    while !look() {
        assert!(std::time::Instant::now() < late, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_session_over_tls_is_a_session_and_a_plain_one_has_no_facts() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_session", |_| {});
    let mut client = TlsClient::dial(server.address, &house.client().mqtt()).log_in("a");
    client.send(&subscribe(7, &[("x/#", QoS::AtLeastOnce)]));
    client.expect(&[0x90, 3, 0, 7, 1]);
    client.send(&publish("x/1", None, b"hello"));
    client.expect(&publish("x/1", None, b"hello"));
    let shown = server.probe.shown("a").expect("TLS");
    assert_eq!((shown.alpn.as_deref(), shown.certificate), (Some(&b"mqtt"[..]), None));
    let ours = client.tls.export_keying_material([0u8; 48], b"EXPERIMENTAL-test", Some(b"context")).expect("exported");
    assert_eq!(shown.exported, ours);
    client.send(&DISCONNECT);
    client.expect_end();
    assert!(client.said_goodbye, "the end is authentic");
    assert_eq!(server.probe.wait_ended("a"), EndReason::Disconnect);

    let plain = Server::start();
    plain.login("a");
    assert_eq!(plain.probe.shown("a"), None);
}

#[test]
fn osap_13_3_the_certificate_of_a_device_is_the_services_to_see() {
    let house = House::new();
    let server = serve(&house.das(), "tls_device", |_| {});
    let (identity, leaf) = house.device("SN1");
    let client = house.client().with_identity(&identity).expect("a pair");
    let client = TlsClient::dial(server.address, &client.osap_das()).log_in("with");
    let shown = server.probe.shown("with").expect("TLS");
    assert_eq!(shown.certificate.as_deref(), Some(&leaf[..]));
    assert_eq!(shown.alpn.as_deref(), Some(&b"osap-das"[..]));
    drop(client);
    let _without = TlsClient::dial(server.address, &house.client().osap_das()).log_in("without");
    assert_eq!(server.probe.shown("without").expect("TLS").certificate, None);
}

#[test]
fn a_handshake_and_a_session_may_come_byte_by_byte() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_bytes", |_| {});
    let client = TlsClient::dial(server.address, &house.client().mqtt());
    let mut client = client.shake_hands(|stream, bytes| {
        for byte in bytes {
            stream.write_all(&[*byte]).expect("sent");
        }
    });
    for (bytes, answer) in [
        (&connect("slow")[..], &CONNACK_OK[..]),
        (&publish("done/1", Some(1), b"hello"), &[0x40, 2, 0, 1]),
        (&PINGREQ, &PINGRESP),
    ] {
        client.tls.writer().write_all(bytes).expect("room");
        for byte in client.unsent() {
            client.stream.write_all(&[byte]).expect("sent");
        }
        client.expect(answer);
    }
    assert_eq!(server.probe.wait_published(1), [("done/1".to_owned(), b"hello".to_vec())]);
}

#[test]
fn what_comes_in_one_piece_with_the_end_of_the_handshake_is_read() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_together", |_| {});
    let mut client = TlsClient::dial(server.address, &house.client().mqtt());
    // The client's last word of the handshake, its CONNECT and a message, in one write.
    let hello = client.unsent();
    client.stream.write_all(&hello).expect("sent");
    while client.tls.is_handshaking() {
        let mut buffer = [0; 1 << 14];
        let n = client.stream.read(&mut buffer).expect("an answer");
        client.tls.read_tls(&mut &buffer[..n]).expect("TLS");
        client.tls.process_new_packets().expect("TLS");
    }
    client.tls.writer().write_all(&connect("eager")).expect("room");
    client.tls.writer().write_all(&publish("done/1", Some(1), b"at once")).expect("room");
    let all = client.unsent();
    client.stream.write_all(&all).expect("sent");
    client.expect(&CONNACK_OK);
    client.expect(&[0x40, 2, 0, 1]);
}

#[test]
fn large_messages_go_both_ways_in_order() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_large", |_| {});
    let mut client = TlsClient::dial(server.address, &house.client().mqtt()).log_in("large");
    client.send(&subscribe(7, &[("big", QoS::AtMostOnce)]));
    client.expect(&[0x90, 3, 0, 7, 0]);
    for size in [1usize, 4_096, 16_384, 16_385, 65_536, 200_000] {
        let body: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        let packet = publish("big", None, &body);
        client.send(&packet);
        assert_eq!(client.packet().expect("it comes back"), packet, "{size} bytes");
    }
    // More than one read of the server takes, of messages that straddle records.
    let many: Vec<u8> = (0..2_000u32).flat_map(|n| publish("big", None, &n.to_be_bytes().repeat(60))).collect();
    client.send(&many);
    for n in 0..2_000u32 {
        assert_eq!(client.packet().expect("in order"), publish("big", None, &n.to_be_bytes().repeat(60)));
    }
}

#[test]
fn a_peer_that_reads_nothing_is_held_and_gets_all_of_what_was_kept() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_held", |_| {});
    let client = TlsClient::dial(server.address, &house.client().mqtt());
    let mut client = client.log_in("deaf");
    client.send(&subscribe(7, &[("down", QoS::AtMostOnce)]));
    client.expect(&[0x90, 3, 0, 7, 0]);
    let link = server.probe.link("deaf");
    let body = vec![b'x'; 10_000];
    let mut kept = 0u32;
    // Until the kernel's buffers, what is encrypted and the out buffer are full, and stay so.
    let mut refused = 0;
    while refused < 50 && kept < 10_000 {
        match link.publish("down", QoS::AtMostOnce, body.len(), |out| out.extend_from_slice(&body)) {
            Ok(_) => (kept, refused) = (kept + 1, 0),
            Err(_) => {
                refused += 1;
                std::thread::yield_now();
            }
        }
    }
    assert!(refused == 50, "the out buffer has an end");
    let mut packet = Vec::new();
    let head = PublishHead { dup: false, qos: QoS::AtMostOnce, retain: false, topic: "down", packet_id: None };
    encode::publish(&head, &body, &mut packet).expect("a packet");
    for _ in 0..kept {
        assert_eq!(client.packet().expect("nothing is lost"), packet);
    }
    client.send(&PINGREQ);
    client.expect(&PINGRESP);
}

#[test]
fn a_peer_that_does_not_take_its_answers_is_not_read() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_pings", |_| {});
    let mut client = TlsClient::dial(server.address, &house.client().mqtt()).log_in("pings");
    let all = PINGREQ.repeat(20 << 20);
    let taken = client.stuff(&all, Duration::from_millis(500));
    assert!(taken < all.len(), "the kernel's buffers alone are smaller");
    drop(client);
    server.probe.wait_ended("pings");
}

#[test]
fn garbage_in_place_of_a_handshake_ends_with_an_alert() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_garbage", |_| {});
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &connect("plain"), &[0x16, 3, 1, 0xff, 0xff], &[0; 100], &[0xff; 20_000]]
    {
        let mut stranger = server.dial();
        // The server may be gone before all of it was sent.
        let _ = stranger.stream.write_all(garbage);
        let answer = stranger.read_once();
        assert!(answer.is_empty() || answer[0] == 0x15, "an alert or nothing: {answer:?}");
    }
    wait_for("the last end", || ended("tls_garbage", "tls_error") == 5);
    assert_eq!(server.probe.asked(), []);
}

#[test]
fn a_changed_byte_in_any_record_ends_the_connection_and_nothing_else() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_changed", |_| {});
    let config = house.client().mqtt();
    let hello = TlsClient::dial(server.address, &config).unsent();
    for at in (0..hello.len()).step_by(37) {
        let mut client = TlsClient::dial(server.address, &config);
        let mut bytes = client.unsent();
        bytes[at] ^= 0x5a;
        client.stream.write_all(&bytes).expect("sent");
        client.stream.shutdown(Shutdown::Write).expect("half closed");
        // Whatever it made of that, it ends.
        let _ = client.stream.read_to_end(&mut Vec::new());
    }
    let mut client = TlsClient::dial(server.address, &config).log_in("broken");
    client.tls.writer().write_all(&PINGREQ).expect("room");
    let mut bytes = client.unsent();
    *bytes.last_mut().expect("a record") ^= 1;
    client.stream.write_all(&bytes).expect("sent");
    assert_eq!(server.probe.wait_ended("broken"), EndReason::Protocol("tls_error"));
    TlsClient::dial(server.address, &config).log_in("well");
}

#[test]
fn the_end_of_the_bytes_is_a_loss_with_goodbye_or_without() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_end", |_| {});
    let config = house.client().mqtt();
    let mut client = TlsClient::dial(server.address, &config).log_in("polite");
    client.tls.send_close_notify();
    let goodbye = client.unsent();
    client.stream.write_all(&goodbye).expect("sent");
    assert_eq!(server.probe.wait_ended("polite"), EndReason::Lost);
    let client = TlsClient::dial(server.address, &config).log_in("sudden");
    client.stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(server.probe.wait_ended("sudden"), EndReason::Lost);
    // In the middle of the handshake.
    let mut client = TlsClient::dial(server.address, &config);
    let hello = client.unsent();
    client.stream.write_all(&hello[..20]).expect("sent");
    drop(client);
    wait_for("its end", || ended("tls_end", "connection_lost") >= 1);
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_timeout", |tls| tls.handshake_timeout = Duration::from_secs(1));
    let mut silent = server.dial();
    let mut halfway = TlsClient::dial(server.address, &house.client().mqtt());
    let hello = halfway.unsent();
    halfway.stream.write_all(&hello).expect("sent");
    silent.expect_end();
    let mut answer = Vec::new();
    let _ = halfway.stream.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "it was answered before");
    wait_for("both ends", || ended("tls_timeout", "tls_timeout") == 2);
    // Who has shaken hands has the time of a CONNECT.
    TlsClient::dial(server.address, &house.client().mqtt()).log_in("in time");
}

#[test]
fn a_refused_login_is_told_over_tls() {
    let house = House::new();
    let server = serve(&house.tls.mqtt(), "tls_refused", |_| {});
    let client = TlsClient::dial(server.address, &house.client().mqtt());
    let mut client = client.shake_hands(|stream, bytes| stream.write_all(bytes).expect("sent"));
    client.send(&connect_with("a", 0, Some("refused"), None));
    client.expect(&[0x20, 2, 0, 5]);
    client.expect_end();
    assert!(client.said_goodbye);
}

#[test]
fn a_shutdown_is_told_over_tls_after_what_is_owed() {
    let house = House::new();
    let server = Arc::new(serve(&house.tls.mqtt(), "tls_shutdown", |_| {}));
    let mut client = TlsClient::dial(server.address, &house.client().mqtt()).log_in("owed");
    client.send(&publish("durable/1", Some(9), b"x"));
    server.probe.wait_published(1);
    let going = Arc::clone(&server).shut_down(Duration::from_secs(10));
    server.advance(1);
    client.expect(&[0x40, 2, 0, 9]);
    client.expect_end();
    assert!(client.said_goodbye);
    going.join().expect("shut down");
}
