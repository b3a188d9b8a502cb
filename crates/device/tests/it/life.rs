//! What goes well: enrol, report, come back, leave.

use std::sync::Arc;

use osap::das::login::FirstOrBreak::{Break, First};
use osap::lbs::Run;
use parking_lot::Mutex;
use serde_json::json;
use vestibule_device::{
    Device, Dial, Dialing, FileStorage, MemoryStorage, ReportError, Serial, State, StopReason, Storage, TcpDial,
};

use crate::server::{CODE, SERIAL, Seen, Server};
use crate::{reach, soon};

pub fn start(server: &Server, storage: impl Storage) -> Device {
    let lbs = server.lbs.to_string();
    Device::builder(SERIAL, CODE).lbs(lbs).legacy().storage(storage).start().unwrap()
}

/// What the server sees of a device that comes for the first time.
pub fn first_connection() -> Vec<Seen> {
    let mut seen =
        vec![Seen::Run(Run::First), Seen::Connect { full: true, which: First, code: 11 }, Seen::Run(Run::PlainRefresh)];
    seen.extend(login());
    seen
}

/// What the server sees of a full login.
pub fn login() -> [Seen; 3] {
    [
        Seen::Connect { full: true, which: First, code: 0 },
        Seen::Subscribe("/iot/SN0000001/#".into()),
        Seen::Subscribe("/SN0000001/#".into()),
    ]
}

pub fn goodbye() -> [Seen; 3] {
    [Seen::Unsubscribe("/iot/SN0000001/#".into()), Seen::Unsubscribe("/SN0000001/#".into()), Seen::Disconnect]
}

#[tokio::test]
async fn a_device_enrols_reports_and_leaves_in_order() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::new(dir.path()).unwrap();
    let device = start(&server, storage.clone());
    server.expect(first_connection()).await;
    reach(&device, |state| *state == State::Online).await;

    let stored = storage.load(&Serial::new(SERIAL).unwrap()).unwrap().unwrap().legacy.unwrap();
    let committed = server.world.lock().record.committed.clone().unwrap();
    assert_eq!((stored.dev_id, stored.master_key), (committed.dev_id, committed.master_key));

    let motion = device.event("Camera", 0, "Detection", "Motion");
    let receipt = soon(motion.report(&json!({"level": 3}))).await.unwrap();
    let event = server.event().await;
    assert_eq!(event.topic, "/iot/SN0000001/global/0-Camera/model/event/report/Detection/Motion");
    assert!(event.json.starts_with(r#"{"level":3,"basic":{"dateTime":"20"#), "{}", event.json);
    assert_eq!((event.id, event.seq, event.dup), (receipt.id, 1, false));
    assert_eq!(device.unacknowledged(), 0);
    assert_eq!(device.counters().acknowledged, 1);

    soon(device.stop()).await.unwrap();
    server.expect(goodbye()).await;
    assert_eq!(device.state(), State::Stopped(StopReason::Requested));
    soon(device.stop()).await.unwrap();
    let late = motion.report(&json!({})).await;
    assert!(matches!(late, Err(ReportError::Stopped)));
}

#[tokio::test]
async fn a_device_that_was_here_before_refreshes() {
    let mut server = Server::start().await;
    let storage = Arc::new(MemoryStorage::new());
    let device = start(&server, Arc::clone(&storage));
    server.expect(first_connection()).await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    server.expect(goodbye()).await;

    let device = start(&server, storage);
    server.expect([Seen::Run(Run::PlainRefresh)]).await;
    server.expect(login()).await;
    soon(device.stop()).await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_is_a_goodbye() {
    let mut server = Server::start().await;
    let device = start(&server, MemoryStorage::new());
    server.expect(first_connection()).await;
    reach(&device, |state| *state == State::Online).await;
    let clone = device.clone();
    drop(device);
    assert_eq!(clone.state(), State::Online);
    drop(clone);
    server.expect(goodbye()).await;
}

#[tokio::test]
async fn a_broken_link_is_followed_by_a_light_login() {
    let mut server = Server::start().await;
    let device = start(&server, MemoryStorage::new());
    server.expect(first_connection()).await;
    reach(&device, |state| *state == State::Online).await;

    server.kill.notify_one();
    server.expect([Seen::Connect { full: false, which: Break, code: 0 }]).await;
    // No SUBSCRIBE comes: the next thing seen is the event.
    soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({}))).await.unwrap();
    server.event().await;
    assert_eq!(device.counters().logins, 2);
    assert_eq!(device.counters().authentications, 2);
}

#[tokio::test]
async fn events_that_wait_go_out_in_order() {
    let mut server = Server::start().await;
    let device = start(&server, MemoryStorage::new());
    let mut reports = Vec::new();
    for number in 0..100 {
        let device = device.clone();
        reports.push(tokio::spawn(async move {
            let event = device.event("Camera", 0, "Detection", "Motion");
            event.report(&json!({ "number": number })).await.unwrap().id
        }));
    }
    server.expect(first_connection()).await;
    for (number, report) in (0..100).zip(reports) {
        let event = server.event().await;
        assert!(event.json.starts_with(&format!("{{\"number\":{number},")), "{}", event.json);
        assert_eq!((event.seq, event.dup), (number + 1, false));
        assert_eq!(soon(report).await.unwrap(), event.id);
    }
}

#[tokio::test]
async fn a_message_nobody_understands_is_acknowledged() {
    let mut server = Server::start().await;
    let device = start(&server, MemoryStorage::new());
    server.expect(first_connection()).await;
    server.downlink.notify_one();
    server.expect([Seen::PubAck(77)]).await;
    assert_eq!(device.counters().ignored, 1);
}

/// Connects as usual, and remembers where.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<u16>>>);

impl Dial for Noting {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        self.0.lock().push(port);
        TcpDial.dial(host, port)
    }
}

#[tokio::test]
async fn every_connection_is_opened_as_the_program_says() {
    let mut server = Server::start().await;
    let noting = Noting::default();
    let builder = Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new());
    let device = builder.dial(noting.clone()).start().unwrap();
    server.expect(first_connection()).await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    let ports = noting.0.lock().clone();
    let lbs = server.lbs.port();
    assert!(matches!(ports[..], [a, das, b, again] if a == lbs && b == lbs && das != lbs && again == das), "{ports:?}");
}
