//! How a device comes in: by code, by ticket, by certificate, and what it does when something is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use osap::DevId;
use osap::modern::ticket::{Held, Used};
use vestibule_device::{FileStorage, Reason, Serial, State, Storage};

use super::house::{At, House, NOW};
use super::peer::{Cut, Peer, SERIAL, Seen};
use super::storage::Fickle;
use crate::{reach, soon};

const NEXT: Used = Used::Ticket(Held::Next);
const CURRENT: Used = Used::Ticket(Held::Current);

/// A device that has enrolled and gone.
async fn enrolled(peer: &mut Peer) -> Arc<Fickle> {
    let storage = Fickle::new();
    let device = peer.device(Arc::clone(&storage));
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    peer.expect([Seen::Disconnect]).await;
    storage
}

#[tokio::test]
async fn a_device_enrols_by_its_code_and_comes_back_by_its_ticket() {
    let mut peer = Peer::tls().await;
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::new(dir.path()).unwrap();
    let mut boots = Vec::new();
    for used in [Used::Code, NEXT, NEXT] {
        let device = peer.device(storage.clone());
        peer.expect([Seen::Run(used)]).await;
        boots.push(peer.login().await);
        reach(&device, |state| *state == State::Online).await;
        let kept = storage.load(&Serial::new(SERIAL).unwrap()).unwrap().unwrap().modern.unwrap();
        let tickets = peer.world(|world| world.record.tickets.clone());
        let newest = kept.slots.newest.unwrap();
        let next = tickets.next.unwrap();
        assert_eq!((kept.slots.dev_id, newest.ticket, &newest.psk), (tickets.dev_id, next.id, &next.psk));
        assert!(tickets.confirmed);
        assert_eq!((kept.pin, kept.known_time_ms), (None, Some(NOW)));
        assert_eq!(device.counters().authentications, 1);
        soon(device.stop()).await.unwrap();
        peer.expect([Seen::Disconnect]).await;
    }
    assert!(boots[0] != boots[1] && boots[1] != boots[2]);
}

#[tokio::test]
async fn osap_13_3_whatever_is_lost_the_next_attempt_gets_in() {
    for (cut, then) in [
        (Cut::Hello, NEXT),
        (Cut::Unstored, NEXT),
        (Cut::Unsent, CURRENT),
        (Cut::Unread, NEXT),
        (Cut::Unanswered, NEXT),
    ] {
        let mut peer = Peer::tls().await;
        let storage = enrolled(&mut peer).await;
        peer.world(|world| world.cut = Some(cut));
        let _device = peer.device(Arc::clone(&storage));
        peer.expect([Seen::Cut, Seen::Run(then)]).await;
        peer.login().await;
        assert!(storage.modern().slots.older.is_some(), "{cut:?}");
    }
}

#[tokio::test]
async fn osap_13_3_a_first_enrolment_may_lose_its_answers_too() {
    for (cut, then) in [(Cut::Unsent, Used::Code), (Cut::Unread, NEXT), (Cut::Unanswered, NEXT)] {
        let mut peer = Peer::tls().await;
        peer.world(|world| world.cut = Some(cut));
        let _device = peer.device(Fickle::new());
        peer.expect([Seen::Cut, Seen::Run(then)]).await;
        peer.login().await;
    }
}

#[tokio::test]
async fn osap_13_3_rule_3_what_is_not_stored_is_not_said() {
    for lies in [false, true] {
        let mut peer = Peer::tls().await;
        let storage = enrolled(&mut peer).await;
        let before = storage.modern();
        peer.world(|world| world.record.tickets.confirmed = false);
        if lies { &storage.lies } else { &storage.failures }.store(1, SeqCst);
        let device = peer.device(Arc::clone(&storage));
        peer.expect([Seen::Cut]).await;
        reach(&device, |state| matches!(state, State::Waiting { reason: Reason::Storage, .. })).await;
        assert_eq!(storage.modern(), before);
        assert!(!peer.world(|world| world.record.tickets.confirmed));
        peer.expect([Seen::Run(CURRENT)]).await;
        peer.login().await;
    }
}

#[tokio::test]
async fn osap_13_3_rule_5_the_older_ticket_follows_the_newer_one_and_the_code_both() {
    let mut peer = Peer::tls().await;
    let storage = enrolled(&mut peer).await;
    let device = peer.device(Arc::clone(&storage));
    peer.expect([Seen::Run(NEXT)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    peer.expect([Seen::Disconnect]).await;

    // The platform was restored one run back.
    peer.world(|world| world.record.tickets.next = None);
    let device = peer.device(Arc::clone(&storage));
    peer.expect([Seen::Refused(10), Seen::Run(CURRENT)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    peer.expect([Seen::Disconnect]).await;

    // And from an old backup.
    peer.world(|world| (world.record.tickets.current, world.record.tickets.next) = (None, None));
    let _device = peer.device(storage);
    peer.expect([Seen::Refused(10), Seen::Refused(10), Seen::Run(Used::Code)]).await;
    peer.login().await;
}

#[tokio::test]
async fn a_sealed_4_enrols_anew_and_nothing_is_deleted_before() {
    let mut peer = Peer::tls().await;
    let storage = enrolled(&mut peer).await;
    let before = storage.modern();
    let other = DevId::parse(&[b'x'; 32]).unwrap();
    peer.world(|world| {
        world.record.tickets.dev_id = Some(other);
        world.record.code = None;
    });
    let device = peer.device(Arc::clone(&storage));
    peer.expect([Seen::Refused(4), Seen::Refused(1)]).await;
    reach(&device, |state| matches!(state, State::Waiting { reason: Reason::Refused(_), .. })).await;
    assert_eq!(storage.modern(), before);
    let code = osap::Code::new(super::peer::CODE).unwrap();
    peer.world(|world| world.record.code = Some(code));
    peer.expect([Seen::Refused(4), Seen::Run(Used::Code)]).await;
    peer.login().await;
    assert_eq!(storage.modern().slots.dev_id, Some(other));
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_leads_in_when_tickets_do_not() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    let builder =
        |peer: &Peer| peer.builder(Arc::clone(&storage)).anchors([peer.site.house.anchor()]).request_certificate();
    let device = builder(&peer).start().unwrap();
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    peer.expect([Seen::Disconnect]).await;
    let issued = storage.modern().certificate.unwrap();
    assert_eq!(issued.chain.len(), 2);

    peer.world(|world| {
        (world.record.tickets.current, world.record.tickets.next) = (None, None);
        world.record.code = None;
    });
    let _device = builder(&peer).start().unwrap();
    peer.expect([Seen::Refused(10), Seen::Run(Used::Certificate)]).await;
    peer.login().await;
    assert_eq!(storage.modern().certificate, Some(issued));
    assert_eq!(peer.world(|world| world.certificates), 1, "it is good for a while");
}

#[tokio::test]
async fn osap_13_3_a_device_whose_certificate_is_refused_comes_again_without() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    let builder =
        |peer: &Peer| peer.builder(Arc::clone(&storage)).anchors([peer.site.house.anchor()]).request_certificate();
    let device = builder(&peer).start().unwrap();
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    assert!(storage.modern().certificate.is_some());

    let mut other = Peer::start(peer.site.house.with_other_devices(), true).await;
    let record = peer.world(|world| world.record.clone());
    other.world(|world| world.record = record);
    let device = builder(&other).start().unwrap();
    other.expect([Seen::Run(NEXT)]).await;
    other.login().await;
    assert_eq!(device.counters().authentications, 1);
}

#[tokio::test]
async fn osap_13_3_a_clock_that_was_not_set_keeps_nobody_out() {
    let mut peer = Peer::tls().await;
    let builder = peer.builder(Fickle::new()).anchors([peer.site.house.anchor()]).clock(At(0));
    let _device = builder.start().unwrap();
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
}

#[tokio::test]
async fn osap_13_4_3_a_first_use_pins_the_key_and_believes_no_other() {
    let mut peer = Peer::start(House::of(&["das.example"]), true).await;
    let storage = Fickle::new();
    let device = peer.builder(Arc::clone(&storage)).first_use().start().unwrap();
    peer.expect([Seen::Run(Used::Code)]).await;
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    assert_eq!(storage.modern().pin, Some(peer.site.house.pin));

    let other = Peer::tls().await;
    let device = other.builder(storage).first_use().start().unwrap();
    let refused = |state: &State| matches!(state, State::Waiting { reason: Reason::LbsTls(_), .. });
    reach(&device, refused).await;
}
