//! Pass-through: bytes to an application and from one.

use std::sync::Arc;

use parking_lot::Mutex;
use vestibule_device::{Child, Device, InvalidEvent, MemoryStorage, PassThrough, ReportError};

use crate::life::first_connection;
use crate::server::{CODE, SERIAL, Seen, Server};
use crate::soon;

/// Keeps what was passed.
fn keep(kept: &Arc<Mutex<Vec<PassThrough>>>) -> impl Fn(PassThrough) + Send + Sync + 'static {
    let kept = Arc::clone(kept);
    move |pass| kept.lock().push(pass)
}

#[tokio::test]
async fn bytes_go_to_an_application_and_are_acknowledged() {
    let mut server = Server::start().await;
    let device = Device::builder(SERIAL, CODE)
        .lbs(server.lbs.to_string())
        .legacy()
        .storage(MemoryStorage::new())
        .start()
        .unwrap();
    server.expect(first_connection()).await;
    soon(device.pass("Lamp", 0, "Light", "Raw", "text/plain; charset=utf-8", b"hello")).await.unwrap();
    let topic = "/iot/SN0000001/global/0-Lamp/pass/Light/Raw/report".into();
    server.expect([Seen::Message { topic, body: "\u{19}text/plain; charset=utf-8hello".into() }]).await;
    let wrong = device.pass("Lamp", 0, "Light", "Raw", "text", b"hello").await;
    assert!(matches!(wrong, Err(ReportError::Invalid(InvalidEvent::MediaType))));
    let large = device.pass("Lamp", 0, "Light", "Raw", "a/b", &[0; 16_000]).await;
    assert!(matches!(large, Err(ReportError::Invalid(InvalidEvent::TooLarge(_)))));
}

#[tokio::test]
async fn bytes_of_an_application_reach_the_program_once() {
    let mut server = Server::start().await;
    let (own, of_child) = (Arc::default(), Arc::default());
    let device = Device::builder(SERIAL, CODE)
        .lbs(server.lbs.to_string())
        .legacy()
        .storage(MemoryStorage::new())
        .on_pass(keep(&own))
        .child(Child::builder("SUB000001", "ZXCVBN").on_pass(keep(&of_child)))
        .child(Child::builder("SUB000002", "ZXCVBN"))
        .start()
        .unwrap();
    server.expect(first_connection()).await;
    for _ in 0..2 {
        assert_eq!(server.command().await.topic, "/7002/16");
    }
    let topic = |sub: &str| format!("/iot/SN0000001/{sub}/0-Lamp/pass/Light/Raw/deliver");
    for (sub, seq) in [("global", 9), ("global", 9), ("SUB000001", 10), ("SUB000002", 11), ("SUB000003", 12)] {
        server.send(&topic(sub), seq, b"\x03a/b\0\xff").await;
    }
    server.send(&topic("global"), 13, b"\x09a/b").await;
    server.send("/iot/SN0000001/global/0-Lamp/pass/Light/Raw/report", 14, b"\x03a/b").await;
    let own = own.lock();
    assert_eq!(own.len(), 1);
    assert_eq!((own[0].child.as_deref(), &*own[0].media_type, &*own[0].bytes), (None, "a/b", &b"\0\xff"[..]));
    assert_eq!((&*own[0].resource, &*own[0].index, &*own[0].area, &*own[0].name), ("Lamp", "0", "Light", "Raw"));
    let of_child = of_child.lock();
    assert_eq!((of_child.len(), of_child[0].child.as_deref()), (1, Some("SUB000001")));
    let counters = device.counters();
    assert_eq!((counters.passed, counters.ignored), (2, 5));
}
