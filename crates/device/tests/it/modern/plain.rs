//! Types 8 and 16, over plain TCP.

use std::sync::Arc;

use osap::SystemRandom;
use osap::modern::client::provision;
use osap::modern::ticket::{Held, Ticket, Used};
use serde_json::json;
use vestibule_device::{Builder, Device, Reason, State, Suite};

use super::house::House;
use super::peer::{Down, Peer, Seen};
use super::storage::Fickle;
use crate::{reach, soon};

/// A platform, and a device that was provisioned for it.
async fn provisioned(suites: &[Suite]) -> (Peer, Builder, Arc<Fickle>) {
    let peer = Peer::start(House::new(), false).await;
    let (dev_id, slot) = provision(&mut SystemRandom);
    peer.world(|world| {
        world.record.tickets.dev_id = Some(dev_id);
        world.record.tickets.base = Some(Ticket { id: slot.ticket, psk: slot.psk.clone(), expires: None });
    });
    let storage = Fickle::new();
    let builder = peer.builder(Arc::clone(&storage)).suites(suites.to_vec()).provisioned(dev_id, slot);
    (peer, builder.keep_alive(5), storage)
}

fn report(device: &Device) -> tokio::task::JoinHandle<()> {
    let device = device.clone();
    tokio::spawn(async move {
        device.event("Camera", 0, "Detection", "Motion").report(&json!({"level": 3})).await.unwrap();
    })
}

#[tokio::test]
async fn osap_13_3_rule_8_a_provisioned_device_comes_in_and_goes_on_with_tickets() {
    for suite in [Suite::X25519, Suite::P384] {
        let (mut peer, builder, storage) = provisioned(&[suite]).await;
        peer.world(|world| world.suites = vec![suite]);
        let device = builder.start().unwrap();
        peer.expect([Seen::Run(Used::Ticket(Held::Base))]).await;
        peer.login().await;
        assert_eq!(peer.world(|world| world.suite), Some(suite));
        reach(&device, |state| *state == State::Online).await;
        soon(device.stop()).await.unwrap();
        peer.expect([Seen::Disconnect]).await;
        assert!(storage.modern().slots.base.is_some(), "it is kept for ever");
        let _device = peer.builder(storage).suites([suite]).start().unwrap();
        peer.expect([Seen::Run(Used::Ticket(Held::Next))]).await;
        peer.login().await;
    }
}

#[tokio::test]
async fn osap_13_4_1_a_mismatch_leads_to_what_is_allowed_and_nowhere_else() {
    let (mut peer, builder, _) = provisioned(&[Suite::P384, Suite::X25519]).await;
    let _device = builder.start().unwrap();
    let mut seen = peer.next().await;
    while !matches!(seen, Seen::Run(_)) {
        seen = peer.next().await;
    }
    peer.login().await;
    assert_eq!(peer.world(|world| world.suite), Some(Suite::X25519), "the server's first choice");

    let (peer, builder, _) = provisioned(&[Suite::P384]).await;
    peer.world(|world| world.suites = vec![Suite::X25519]);
    let device = builder.start().unwrap();
    let waits = |state: &State| matches!(state, State::Waiting { reason: Reason::NothingInCommon, .. });
    reach(&device, waits).await;
}

#[tokio::test]
async fn osap_13_3_an_event_is_delivered_with_the_receipt() {
    let (mut peer, builder, _) = provisioned(&[Suite::X25519]).await;
    let device = builder.start().unwrap();
    peer.expect([Seen::Run(Used::Ticket(Held::Base))]).await;
    peer.login().await;
    let report = report(&device);
    peer.event().await;
    // The PUBACK has come before this answer does, and ends nothing.
    peer.down(Down::Send { topic: "/SN0000001/1000/1".into(), seq: 1, body: "{}".into() });
    peer.expect([Seen::PubAck]).await;
    assert_eq!((device.unacknowledged(), report.is_finished()), (1, false));
    peer.down(Down::Receipt);
    soon(report).await.unwrap();
    assert_eq!((device.unacknowledged(), device.counters().acknowledged), (0, 1));
    // With its next sign of life the device says what it has.
    peer.expect([Seen::Receipt(2)]).await;
}

#[tokio::test]
async fn osap_13_7_7_swallowed_events_are_noticed_and_delivered_after_the_next_login() {
    let (mut peer, builder, _) = provisioned(&[Suite::X25519]).await;
    peer.world(|world| world.receipts = false);
    let device = builder.start().unwrap();
    peer.expect([Seen::Run(Used::Ticket(Held::Base))]).await;
    peer.login().await;
    let report = report(&device);
    let first = peer.event().await;
    // Somebody acknowledges, and nobody gives a receipt: two intervals later the device comes again.
    loop {
        match peer.next().await {
            Seen::Receipt(0) => {}
            Seen::Disconnect => break,
            other => panic!("{other:?}"),
        }
    }
    peer.world(|world| world.receipts = true);
    peer.login().await;
    let again = peer.event().await;
    assert_eq!((again.seq, again.body), (first.seq, first.body));
    peer.down(Down::Receipt);
    soon(report).await.unwrap();
}
