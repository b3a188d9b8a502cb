//! The session at the DAS, over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use osap::modern::ticket::{Held, Used};
use serde_json::json;
use vestibule_device::{Device, LinkFault, Reason, State};

use super::house::House;
use super::peer::{Down, EVENT, Hello, Peer, Seen};
use super::storage::Fickle;
use crate::{reach, soon};

const NEXT: Used = Used::Ticket(Held::Next);
const OPEN: &str = "/iot/SN0000001/global/0-Door/model/service/operate/Lock/Open";
const OPENED: &str = "/iot/SN0000001/global/0-Door/model/service/operate_reply/Lock/Open";

/// A device that is online.
async fn online(peer: &mut Peer) -> Device {
    let device = peer.device(Fickle::new());
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    device
}

fn open(seq: u64) -> (String, u64, String) {
    (OPEN.into(), seq, r#"{"Input":{"seconds":3}}"#.into())
}

#[tokio::test]
async fn events_go_up_and_operations_come_down() {
    let mut peer = Peer::tls().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let builder = peer.builder(Fickle::new()).anchors([peer.site.house.anchor()]);
    let builder = builder.operation("Door", 0, "Lock", "Open", move |_: Option<serde_json::Value>| {
        counted.fetch_add(1, SeqCst);
        async { Ok(json!({"open": true})) }
    });
    let device = builder.start().unwrap();
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({"level": 3}))).await.unwrap();
    let event = peer.event().await;
    assert_eq!((&*event.topic, event.number), (EVENT, 2));
    assert!(event.body.starts_with(r#"{"level":3,"#), "{}", event.body);

    let (topic, seq, body) = open(1);
    peer.down(Down::Twice { topic, seq, body });
    let mut seen = [peer.next().await, peer.next().await, peer.next().await];
    seen.sort_by_key(|seen| matches!(seen, Seen::Event(_)));
    let [Seen::PubAck, Seen::PubAck, Seen::Event(answer)] = seen else { panic!("{seen:?}") };
    assert_eq!((&*answer.topic, answer.seq), (OPENED, 1));
    assert_eq!(calls.load(SeqCst), 1, "a repetition is acknowledged and dropped");
    assert_eq!(device.counters().ignored, 1);

    // A server that was started anew counts anew: its first operation of the next login is not the one of before.
    peer.site.kill.notify_one();
    peer.expect([Seen::Gone]).await;
    peer.login().await;
    let (topic, seq, body) = open(1);
    peer.down(Down::Send { topic, seq, body });
    while !matches!(peer.next().await, Seen::Event(event) if event.topic == OPENED) {}
    assert_eq!(calls.load(SeqCst), 2);
    soon(device.stop()).await.unwrap();
}

#[tokio::test]
async fn osap_13_3_a_das_that_does_not_prove_itself_hears_nothing() {
    let mut peer = Peer::tls().await;
    peer.world(|world| world.hello = Hello::Wrong);
    let device = peer.device(Fickle::new());
    peer.expect([Seen::Run(Used::Code), Seen::Connect(0), Seen::Gone]).await;
    let lost =
        |state: &State| matches!(state, State::Waiting { reason: Reason::LinkLost(LinkFault::NotAuthentic), .. });
    reach(&device, lost).await;
    assert_eq!(device.counters().logins, 0);

    let mut peer = Peer::tls().await;
    peer.world(|world| world.hello = Hello::Missing);
    let _device = peer.device(Fickle::new());
    peer.expect([Seen::Run(Used::Code), Seen::Connect(0), Seen::Disconnect]).await;
    peer.world(|world| world.hello = Hello::Right);
    peer.login().await;
}

#[tokio::test]
async fn osap_13_7_7_a_message_that_is_missing_or_changed_ends_the_connection() {
    let mut peer = Peer::tls().await;
    let device = online(&mut peer).await;
    let (topic, seq, body) = open(1);
    peer.down(Down::Gap { topic, seq, body });
    peer.expect([Seen::Gone]).await;
    peer.login().await;
    let (topic, seq, body) = open(1);
    peer.down(Down::Spoil { topic, seq, body });
    peer.expect([Seen::Gone]).await;
    peer.login().await;
    assert_eq!((device.counters().logins, device.counters().operations), (3, 0));
    assert_eq!(device.counters().authentications, 1, "the session lives on");
}

#[tokio::test]
async fn osap_13_3_what_was_not_acknowledged_is_sealed_again_after_the_next_login() {
    let mut peer = Peer::tls().await;
    let device = online(&mut peer).await;
    peer.world(|world| world.swallow = 1);
    let reporter = device.clone();
    let report =
        tokio::spawn(
            async move { reporter.event("Camera", 0, "Detection", "Motion").report(&json!({"level": 3})).await },
        );
    let first = peer.event().await;
    peer.site.kill.notify_one();
    peer.expect([Seen::Gone]).await;
    peer.login().await;
    let again = peer.event().await;
    assert_eq!((&again.topic, &again.body, again.seq), (&first.topic, &first.body, first.seq));
    soon(report).await.unwrap().unwrap();
}

#[tokio::test]
async fn osap_13_3_a_refusal_leads_to_the_lbs_or_slows_down_and_ends_nothing() {
    let mut peer = Peer::tls().await;
    let device = online(&mut peer).await;
    peer.world(|world| world.connacks = vec![10, 11]);
    peer.site.kill.notify_one();
    peer.expect([Seen::Gone, Seen::Connect(11), Seen::Run(NEXT), Seen::Connect(10)]).await;
    peer.login().await;
    assert_eq!(device.counters().authentications, 2);
}

#[tokio::test]
async fn osap_13_3_a_session_is_renewed_before_its_life_is_over() {
    let mut peer = Peer::tls().await;
    peer.world(|world| world.expires_in = 3);
    let device = online(&mut peer).await;
    peer.world(|world| world.expires_in = 86_400);
    // The LBS first, while the connection goes on.
    peer.expect([Seen::Run(NEXT), Seen::Disconnect]).await;
    peer.login().await;
    assert_eq!(device.counters().logins, 2);
}

#[tokio::test]
async fn behind_a_tls_terminator_the_login_is_not_bound() {
    let mut peer = Peer::tls().await;
    peer.world(|world| world.bind = false);
    online(&mut peer).await;
}

#[tokio::test]
async fn osap_13_5_another_lbs_has_to_pass_the_same_anchors() {
    let redirect = |host: &str| Down::Send {
        topic: "/SN0000001/1000/13433".into(),
        seq: 9,
        body: format!("<Request><DomainName>{host}</DomainName></Request>"),
    };
    let mut peer = Peer::start(House::of(&["127.0.0.1", "localhost", "das.example"]), true).await;
    let device = online(&mut peer).await;
    peer.down(redirect("localhost"));
    peer.expect([Seen::PubAck, Seen::Run(NEXT), Seen::Disconnect]).await;
    peer.login().await;
    assert_eq!(device.counters().authentications, 2);

    // This one has a certificate for another name.
    let mut peer = Peer::tls().await;
    let device = online(&mut peer).await;
    peer.down(redirect("localhost"));
    peer.expect([Seen::PubAck]).await;
    soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({}))).await.unwrap();
    peer.event().await;
    assert_eq!(device.counters().authentications, 1);
}
