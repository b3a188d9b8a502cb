//! Who is there.

use std::time::Duration;

use vestibule_platform::{Caller, OrgPath, PresenceState};

use crate::bed::{Bed, NOON, changed, connect, peer};

#[tokio::test]
async fn a_login_and_a_goodbye_are_told() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let mut changes = bed.platform.presence_changes();
    let (connection, line) = connect(&bed.platform, &device, 1);
    assert_eq!(changed(&mut changes).await.id, device.id);
    let there = device.presence();
    assert_eq!((there.state, there.since, there.reason.as_ref()), (PresenceState::Online, NOON, "login"));
    assert_eq!((there.suite.as_deref(), there.confidential, there.peer), (Some("legacy"), false, Some(peer(1))));
    bed.advance(Duration::from_secs(5));
    bed.platform.disconnected(&device, connection, "keep_alive_timeout");
    assert_eq!(changed(&mut changes).await.id, device.id);
    let gone = device.presence();
    assert_eq!(
        (gone.state, gone.since, gone.reason.as_ref()),
        (PresenceState::Offline, NOON + 5_000, "keep_alive_timeout")
    );
    assert_eq!(gone.peer, Some(peer(1)), "where it was last");
    assert!(line.closed().is_empty(), "nobody asked for the end");
}

#[tokio::test]
async fn osap_9_9_the_newest_connection_wins_and_a_late_goodbye_is_ignored() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let (older, older_line) = connect(&bed.platform, &device, 1);
    let (newer, newer_line) = connect(&bed.platform, &device, 2);
    assert_eq!(older_line.closed(), ["replaced"]);
    assert!(newer_line.closed().is_empty());
    let mut changes = bed.platform.presence_changes();
    bed.platform.disconnected(&device, older, "replaced");
    let there = device.presence();
    assert_eq!((there.state, there.peer), (PresenceState::Online, Some(peer(2))));
    assert!(changes.try_recv().is_err(), "nothing has changed");
    bed.platform.disconnected(&device, newer, "disconnect");
    bed.platform.disconnected(&device, newer, "connection_lost");
    assert_eq!(device.presence().reason, "disconnect", "an end is told once");
}

#[tokio::test]
async fn nobody_is_there_after_a_restart() {
    let bed = Bed::new().await;
    let online = bed.add("SN1").await;
    let offline = bed.add("SN2").await;
    bed.add("SN3").await;
    connect(&bed.platform, &online, 1);
    let (connection, _line) = connect(&bed.platform, &offline, 2);
    bed.platform.disconnected(&offline, connection, "disconnect");
    bed.advance(Duration::from_secs(60));
    let bed = bed.restart().await;
    let presence = |bed: &Bed, serial| bed.platform.device(serial, &Caller::program()).expect("registered").presence();
    let restarted = presence(&bed, "SN1");
    assert_eq!((restarted.state, restarted.reason.as_ref()), (PresenceState::Offline, "platform_restart"));
    assert_eq!((restarted.since, restarted.peer), (NOON + 60_000, Some(peer(1))));
    let left = presence(&bed, "SN2");
    assert_eq!((left.state, left.reason.as_ref(), left.since), (PresenceState::Offline, "disconnect", NOON));
    assert_eq!(presence(&bed, "SN3").state, PresenceState::NeverSeen);
    // And another restart tells the same moment.
    bed.advance(Duration::from_secs(60));
    let bed = bed.restart().await;
    assert_eq!(presence(&bed, "SN1"), restarted);
}

#[tokio::test]
async fn the_last_of_many_changes_is_what_stays() {
    let bed = Bed::new().await;
    let mut devices = Vec::new();
    for n in 0..50 {
        devices.push(bed.add(&format!("SN{n}")).await);
    }
    for round in 0..20 {
        for device in &devices {
            let (connection, _line) = connect(&bed.platform, device, round);
            bed.platform.disconnected(device, connection, if round == 19 { "disconnect" } else { "connection_lost" });
            tokio::task::yield_now().await;
        }
    }
    drop(devices);
    let bed = bed.restart().await;
    for device in bed.below(&OrgPath::root(), &Caller::program()).await {
        let presence = device.presence();
        assert_eq!((presence.reason.as_ref(), presence.peer), ("disconnect", Some(peer(19))));
    }
}
