//! A device comes to know another root of its platform (osap-wire 13.3, TLS profile 4).

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use aws_lc_rs::digest::{SHA256, digest};
use vestibule_device::{Anchor, Device, FileStorage, Reason, Serial, State, Storage, TlsFault};

use super::house::House;
use super::peer::{Cut, Peer, SERIAL, Seen};
use super::storage::Fickle;
use crate::{reach, soon};

fn id(der: &[u8]) -> [u8; 32] {
    digest(&SHA256, der).as_ref().try_into().unwrap()
}

/// The device comes in and goes. What it said that it knows the platform by.
async fn visit(peer: &mut Peer, device: Device) -> Vec<[u8; 32]> {
    loop {
        match peer.next().await {
            Seen::Run(_) => break,
            Seen::Cut => {}
            other => panic!("{other:?}"),
        }
    }
    peer.login().await;
    reach(&device, |state| *state == State::Online).await;
    soon(device.stop()).await.unwrap();
    peer.expect([Seen::Disconnect]).await;
    peer.world(|world| world.known_by.last().unwrap().clone())
}

fn is_untrusted(state: &State) -> bool {
    matches!(state, State::Waiting { reason: Reason::LbsTls(TlsFault::Untrusted), .. })
}

#[tokio::test]
async fn a_new_root_is_learned_said_and_enough_when_the_older_one_is_gone() {
    let mut peer = Peer::tls().await;
    let dir = tempfile::tempdir().unwrap();
    let storage = || FileStorage::new(dir.path()).unwrap();
    let first = peer.site.house.root.to_vec();
    let device = || peer.builder(storage()).anchors([Anchor::Certificate(first.clone())]).start().unwrap();
    let (one, two) = (device(), peer.site.house.roll());
    let stayed_away = Fickle::new();
    assert_eq!(visit(&mut peer, one).await, [id(&first)]);
    peer.world(|world| world.anchors = vec![two.clone()]);
    let device = |peer: &Peer| peer.builder(storage()).anchors([Anchor::Certificate(first.clone())]).start().unwrap();
    let again = device(&peer);
    assert_eq!(visit(&mut peer, again).await, [id(&first)], "it is told in this run");
    let kept = storage().load(&Serial::new(SERIAL).unwrap()).unwrap().unwrap().modern.unwrap();
    assert_eq!(kept.anchors, std::slice::from_ref(&two), "durably");
    peer.world(|world| world.anchors.clear());
    let again = device(&peer);
    assert_eq!(visit(&mut peer, again).await, [id(&two), id(&first)], "and says so in the next");

    peer.site.house.retire();
    let again = device(&peer);
    assert_eq!(visit(&mut peer, again).await, [id(&two)], "the one its program names is of no use any more");
    // Who was not here in time stays outside, and says why.
    let late = peer.builder(stayed_away).anchors([Anchor::Certificate(first.clone())]).start().unwrap();
    reach(&late, is_untrusted).await;
    let State::Waiting { reason, .. } = late.state() else { panic!("it waits") };
    assert!(reason.to_string().contains("no anchor of the device vouches for the certificate"), "{reason}");
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_told_again() {
    for cut in [Cut::Unsent, Cut::Unread, Cut::Unanswered] {
        let mut peer = Peer::tls().await;
        let storage = Fickle::new();
        let first = peer.site.house.root.to_vec();
        let device = |peer: &Peer| {
            peer.builder(Arc::clone(&storage)).anchors([Anchor::Certificate(first.clone())]).start().unwrap()
        };
        let one = device(&peer);
        visit(&mut peer, one).await;
        let two = peer.site.house.roll();
        peer.world(|world| (world.anchors, world.cut) = (vec![two.clone()], Some(cut)));
        // It is cut off, before or after it has stored what it was told, and never comes to say so in this life.
        let killed = device(&peer);
        peer.expect([Seen::Cut]).await;
        drop(killed);
        let stored = storage.modern().anchors == [two.clone()];
        assert!(!stored || cut != Cut::Unsent);
        while peer.world(|world| world.known_by.last().unwrap().first() != Some(&id(&two))) {
            let again = device(&peer);
            visit(&mut peer, again).await;
        }
        assert_eq!(storage.modern().anchors, [two]);
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_said() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    let device = |peer: &Peer| peer.device(Arc::clone(&storage));
    let one = device(&peer);
    let first = visit(&mut peer, one).await;
    let two = peer.site.house.roll();
    peer.world(|world| world.anchors = vec![two]);
    storage.lies.store(1, SeqCst);
    let again = device(&peer);
    assert_eq!(visit(&mut peer, again).await, first, "the second attempt says the same");
}

#[tokio::test]
async fn a_root_that_does_not_vouch_for_this_very_server_is_not_taken() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    for strange in [House::new().root.to_vec(), b"no certificate".to_vec(), Vec::new()] {
        peer.world(|world| world.anchors = vec![strange]);
        let device = peer.device(Arc::clone(&storage));
        visit(&mut peer, device).await;
        assert_eq!(storage.modern().anchors, [] as [Vec<u8>; 0]);
    }
}

#[tokio::test]
async fn two_are_kept_at_most_and_what_vouches_now_is_one_of_them() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    let mut roots = vec![peer.site.house.root.to_vec()];
    for _ in 0..3 {
        roots.insert(0, peer.site.house.roll());
        peer.world(|world| world.anchors = vec![roots[0].clone()]);
        let device = peer.device(Arc::clone(&storage));
        visit(&mut peer, device).await;
        let learned = roots[..roots.len() - 1].iter().take(2).cloned().collect::<Vec<_>>();
        assert_eq!(storage.modern().anchors, learned);
    }
    // Told the same once more: the older one is to be forgotten.
    let device = peer.device(Arc::clone(&storage));
    visit(&mut peer, device).await;
    assert_eq!(storage.modern().anchors, roots[..1]);
}

#[tokio::test]
async fn what_was_learned_is_forgotten_once_the_program_names_the_newest_root() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    let mut named = peer.site.house.root.to_vec();
    for is_named in [false, true] {
        let newest = peer.site.house.roll();
        peer.world(|world| world.anchors = vec![newest.clone()]);
        if is_named {
            named = newest.clone();
        }
        let device = peer.builder(Arc::clone(&storage)).anchors([Anchor::Certificate(named.clone())]).start().unwrap();
        visit(&mut peer, device).await;
        let learned = if is_named { Vec::new() } else { vec![newest] };
        assert_eq!(storage.modern().anchors, learned);
    }
}

#[tokio::test]
async fn osap_13_4_3_a_pinned_key_gives_way_to_a_root() {
    let mut peer = Peer::tls().await;
    let storage = Fickle::new();
    let device = |peer: &Peer| peer.builder(Arc::clone(&storage)).first_use().start().unwrap();
    let one = device(&peer);
    assert_eq!(visit(&mut peer, one).await, [] as [[u8; 32]; 0]);
    let root = peer.site.house.root.to_vec();
    peer.world(|world| world.anchors = vec![root.clone()]);
    let again = device(&peer);
    visit(&mut peer, again).await;
    let kept = storage.modern();
    assert_eq!((kept.pin, kept.anchors), (Some(peer.site.house.pin), vec![root.clone()]), "never both at once");
    peer.world(|world| world.anchors.clear());
    let again = device(&peer);
    assert_eq!(visit(&mut peer, again).await, [id(&root)]);
    assert_eq!(storage.modern().pin, None);
    // The servers may have another key now.
    peer.site.house.rekey();
    let again = device(&peer);
    visit(&mut peer, again).await;
}
