//! What goes wrong, and how a device gets over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use osap::das::login::FirstOrBreak::{Break, First};
use osap::lbs::Run;
use serde_json::json;
use tokio::net::TcpListener;
use vestibule_device::{
    Credentials, Device, FileStorage, MemoryStorage, Reason, ReportError, Serial, State, StopReason, Storage,
    StorageError,
};

use crate::life::{first_connection, login, start};
use crate::server::{CODE, SERIAL, Seen, Server};
use crate::{reach, soon};

/// A device that is online and has one event on the wire that was not acknowledged.
async fn unacknowledged(server: &mut Server) -> (Device, tokio::task::JoinHandle<String>) {
    let device = start(server, MemoryStorage::new());
    server.expect(first_connection()).await;
    server.world.lock().swallow = 1;
    let reporter = device.clone();
    let report = tokio::spawn(async move {
        let event = reporter.event("Camera", 0, "Detection", "Motion");
        event.report(&json!({"level": 3})).await.unwrap().id
    });
    (device, report)
}

#[tokio::test]
async fn an_unacknowledged_event_is_repeated_as_it_was_in_the_same_session() {
    let mut server = Server::start().await;
    let (_device, report) = unacknowledged(&mut server).await;
    let first = server.event().await;
    server.kill.notify_one();
    server.expect([Seen::Connect { full: false, which: Break, code: 0 }]).await;
    let second = server.event().await;
    assert!(second.dup && !first.dup);
    assert_eq!(second, crate::server::Event { dup: true, ..first.clone() });
    assert_eq!(soon(report).await.unwrap(), first.id);
}

#[tokio::test]
async fn an_unacknowledged_event_keeps_its_id_in_a_new_session() {
    let mut server = Server::start().await;
    let (_device, report) = unacknowledged(&mut server).await;
    let first = server.event().await;
    server.world.lock().connacks.push_back(11);
    server.kill.notify_one();
    server
        .expect([
            Seen::Connect { full: false, which: Break, code: 11 },
            Seen::Run(Run::PlainRefresh),
            Seen::Connect { full: true, which: Break, code: 0 },
        ])
        .await;
    server.expect(login().into_iter().skip(1)).await;
    let second = server.event().await;
    assert_eq!((&second.id, &second.json), (&first.id, &first.json));
    assert!(!second.dup && second.seq > first.seq && second.packet_id != first.packet_id);
    assert_eq!(soon(report).await.unwrap(), first.id);
}

#[tokio::test]
async fn session_exists_is_followed_by_a_light_login_with_subscriptions() {
    let mut server = Server::start().await;
    server.world.lock().connacks.extend([11, 12]);
    let device = start(&server, MemoryStorage::new());
    server
        .expect([
            Seen::Run(Run::First),
            Seen::Connect { full: true, which: First, code: 11 },
            Seen::Run(Run::PlainRefresh),
            Seen::Connect { full: true, which: First, code: 12 },
            Seen::Connect { full: false, which: First, code: 0 },
        ])
        .await;
    server.expect(login().into_iter().skip(1)).await;
    reach(&device, |state| *state == State::Online).await;
}

#[tokio::test]
async fn a_blacklisted_device_stops() {
    let mut server = Server::start().await;
    server.world.lock().connacks.push_back(10);
    let device = start(&server, MemoryStorage::new());
    let report = device.event("Camera", 0, "Detection", "Motion");
    let report = soon(report.report(&json!({}))).await;
    assert!(matches!(report, Err(ReportError::Stopped)));
    assert_eq!(device.state(), State::Stopped(StopReason::Blacklisted));
    soon(device.stop()).await.unwrap();
    server.expect([Seen::Run(Run::First), Seen::Connect { full: true, which: First, code: 10 }]).await;
}

#[tokio::test]
async fn a_dev_id_the_platform_forgot_leads_to_a_new_one() {
    let mut server = Server::start().await;
    let storage = Arc::new(MemoryStorage::new());
    let device = start(&server, Arc::clone(&storage));
    server.expect(first_connection()).await;
    soon(device.stop()).await.unwrap();
    while server.next().await != Seen::Disconnect {}
    let serial = Serial::new(SERIAL).unwrap();
    let before = storage.load(&serial).unwrap().unwrap();
    server.world.lock().record.committed = None;

    let _device = start(&server, Arc::clone(&storage));
    server.expect([Seen::Refused(4)]).await;
    assert_eq!(storage.load(&serial).unwrap(), Some(before.clone()), "nothing is deleted");
    server.expect(first_connection()).await;
    let dev_id = |credentials: Credentials| credentials.legacy.unwrap().dev_id;
    assert_ne!(dev_id(storage.load(&serial).unwrap().unwrap()), dev_id(before));
}

#[tokio::test]
async fn a_wrong_code_is_tried_in_both_cases_and_then_slowly() {
    let mut server = Server::start().await;
    let lbs = server.lbs.to_string();
    let device = Device::builder(SERIAL, "WRONG").lbs(lbs).legacy().storage(MemoryStorage::new()).start().unwrap();
    server.expect([Seen::Refused(1), Seen::Refused(1)]).await;
    let state = reach(&device, |state| matches!(state, State::Waiting { .. })).await;
    let State::Waiting { reason: Reason::Refused(code), .. } = state else { panic!("{state:?}") };
    assert_eq!(u8::from(code), 1);
    soon(device.stop()).await.unwrap();
}

/// Fails the first time it is to store something.
#[derive(Default)]
struct Reluctant {
    calls: AtomicUsize,
    memory: MemoryStorage,
}

impl Storage for Reluctant {
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError> {
        self.memory.load(serial)
    }

    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError> {
        match self.calls.fetch_add(1, SeqCst) {
            0 => Err(StorageError::Other("no room".into())),
            _ => self.memory.store(serial, credentials),
        }
    }
}

#[tokio::test]
async fn no_login_before_the_credentials_are_durable() {
    let mut server = Server::start().await;
    let storage = Arc::new(Reluctant::default());
    let device = start(&server, Arc::clone(&storage));
    let failed = |state: &State| matches!(state, State::Waiting { reason: Reason::Storage, .. });
    // The pause may be too short to be seen, so the order of what the server sees decides.
    server.expect([Seen::Run(Run::First)]).await;
    let next = server.next().await;
    assert_eq!(next, Seen::Connect { full: true, which: First, code: 11 });
    assert_eq!(storage.calls.load(SeqCst), 2);
    assert!(!failed(&device.state()));
}

#[tokio::test]
async fn a_damaged_storage_is_said_and_replaced() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("SN0000001.json"), "{\"version\":1,").unwrap();
    let storage = FileStorage::new(dir.path()).unwrap();
    let device = start(&server, storage.clone());
    assert!(matches!(device.storage_damage(), Some(StorageError::Damaged { .. })));
    server.expect(first_connection()).await;
    assert!(storage.load(device.serial()).unwrap().is_some());
}

#[tokio::test]
async fn a_device_without_a_server_waits_refuses_and_stops_at_once() {
    // A port nobody listens on: it was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let device = Device::builder(SERIAL, CODE)
        .lbs(port.to_string())
        .legacy()
        .storage(MemoryStorage::new())
        .queue(2, 10_000)
        .start()
        .unwrap();
    let mut reports = Vec::new();
    for _ in 0..2 {
        let device = device.clone();
        reports.push(tokio::spawn(
            async move { device.event("Camera", 0, "Detection", "Motion").report(&json!({})).await },
        ));
    }
    let waiting = |state: &State| matches!(state, State::Waiting { reason: Reason::LbsUnreachable(_), .. });
    reach(&device, waiting).await;
    assert_eq!(device.unacknowledged(), 2);
    let error = device.event("Camera", 0, "Detection", "Motion").report(&json!({})).await.unwrap_err();
    assert!(matches!(error, ReportError::Full { events: 2, .. }), "{error}");

    soon(device.stop()).await.unwrap();
    for report in reports {
        assert!(matches!(soon(report).await.unwrap(), Err(ReportError::Stopped)));
    }
}

#[tokio::test]
async fn a_mute_lbs_does_not_delay_the_end() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = Device::builder(SERIAL, CODE)
        .lbs(mute.local_addr().unwrap().to_string())
        .legacy()
        .storage(MemoryStorage::new())
        .start()
        .unwrap();
    let _connection = soon(mute.accept()).await.unwrap();
    assert_eq!(device.state(), State::Authenticating);
    let stopped = tokio::time::timeout(Duration::from_secs(4), device.stop()).await;
    stopped.expect("it does not wait for the answer").unwrap();
}

#[tokio::test]
async fn packets_that_arrive_in_pieces_are_put_together() {
    let mut server = Server::start().await;
    server.world.lock().trickle = true;
    let device = start(&server, MemoryStorage::new());
    server.expect(first_connection()).await;
    server.downlink.notify_one();
    server.expect([Seen::PubAck(77)]).await;
    soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_full_window_of_large_events_arrives() {
    const EVENTS: usize = 256;
    let mut server = Server::start().await;
    let device = Device::builder(SERIAL, CODE)
        .lbs(server.lbs.to_string())
        .legacy()
        .storage(MemoryStorage::new())
        .queue(EVENTS, 8 << 20)
        .window(128)
        .start()
        .unwrap();
    let padding = "x".repeat(14_000);
    let mut reports = Vec::new();
    for number in 0..EVENTS {
        let (device, body) = (device.clone(), json!({ "number": number, "padding": padding }));
        reports.push(tokio::spawn(async move {
            let event = device.event("Camera", 0, "Detection", "Motion");
            event.report(&body).await.unwrap().id
        }));
    }
    server.expect(first_connection()).await;
    for report in reports {
        let event = server.event().await;
        assert_eq!((event.dup, event.json.len() > 14_000), (false, true));
        assert_eq!(soon(report).await.unwrap(), event.id);
    }
    assert_eq!(device.counters().logins, 1);
}
