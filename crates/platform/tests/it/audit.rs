//! The audit: who did what, and what devices did that they may not.

use std::time::Duration;

use serde_json::{Value, json};
use vestibule_platform::{AuditQuery, AuditRow, Caller, DirectError, Directive, NotSent, Secret};

use crate::bed::{Bed, connect, eventually};

async fn audits(bed: &Bed) -> Vec<AuditRow> {
    let mut rows = bed
        .platform
        .audits(&AuditQuery { limit: 100, ..AuditQuery::default() }, &Caller::program())
        .await
        .expect("readable");
    rows.reverse();
    rows
}

#[tokio::test]
async fn what_is_done_to_a_device_is_written_down_before_the_caller_is_told() {
    let bed = Bed::new().await;
    let caller = bed.caller();
    let device = bed.add("A").await;
    bed.platform.open_enrolment(&device, Duration::from_secs(60), false, &caller).await.expect("opened");
    bed.platform.set_disabled(&device, true, &caller).await.expect("disabled");
    bed.platform.set_disabled(&device, false, &caller).await.expect("enabled");
    bed.platform.rotate_device(&device, Secret::new("FEDCBA"), false, &caller).await.expect("rotated");
    bed.platform.remove_device(&device, &caller).await.expect("removed");
    let rows = audits(&bed).await;
    let actions: Vec<&str> = rows.iter().map(|row| &*row.action).collect();
    let expected = ["device.add", "device.enrol", "device.disable", "device.enable", "device.rotate", "device.remove"];
    assert_eq!(actions, expected);
    for row in &rows {
        assert_eq!((&*row.actor, row.serial.as_deref(), row.device), ("administrator", Some("A"), Some(device.id)));
        assert!(row.ok && row.time == bed.now());
        assert!(!row.detail.contains("FEDCBA") && !row.detail.contains("ABCDEF"), "no secret in {}", row.detail);
    }
    let until: Value = serde_json::from_str(&rows[1].detail).expect("JSON");
    assert_eq!(until, json!({"until": bed.now() + 60_000, "rearmed": false}));
}

#[tokio::test]
async fn a_misdeed_is_written_down_once_an_hour() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    for _ in 0..1_000 {
        bed.platform.misdeed(&device, "device.foreign_serial", json!({"topic": "/iot/B/x"}));
    }
    bed.advance(Duration::from_secs(3_600));
    bed.platform.misdeed(&device, "device.foreign_serial", json!({"topic": "/iot/C/x"}));
    // Registered, and twice misbehaved.
    while audits(&bed).await.len() < 3 {
        tokio::task::yield_now().await;
    }
    let rows = audits(&bed).await;
    assert_eq!(rows.len(), 3);
    assert!(rows[1..].iter().all(|row| row.actor == "device" && !row.ok));
}

#[tokio::test]
async fn rows_older_than_their_time_are_removed_at_the_start() {
    let bed = Bed::new().await;
    bed.add("A").await;
    bed.advance(Duration::from_secs(401 * 86_400));
    bed.add("B").await;
    let bed = bed.restart().await;
    let mut serials = Vec::new();
    while serials != ["B"] {
        serials = audits(&bed).await.into_iter().filter_map(|row| row.serial).collect();
    }
}

#[tokio::test]
async fn a_device_is_directed_when_it_is_there_and_able() {
    let bed = Bed::new().await;
    let (device, caller) = (bed.add("A").await, bed.caller());
    let redirect = |host: &str| Directive::Redirect { host: host.into() };
    let direct = async |directive| bed.platform.direct(&device, directive, &caller).await;
    assert_eq!(direct(Directive::ForceOffline).await, Err(DirectError::Offline));
    let (_, line) = connect(&bed.platform, &device, 1);
    for host in ["", "a b", "<b>", &"x".repeat(64)] {
        assert!(matches!(direct(redirect(host)).await, Err(DirectError::Invalid { field: "host", .. })), "{host}");
    }
    for seconds in [4, 3_601] {
        let refused = direct(Directive::KeepAlive { seconds }).await;
        assert!(matches!(refused, Err(DirectError::Invalid { field: "seconds", .. })));
    }
    direct(redirect("lbs2.example")).await.expect("directed");
    direct(Directive::KeepAlive { seconds: 60 }).await.expect("directed");
    eventually("both arrive", || line.directives().len() == 2).await;
    line.refuse(NotSent::Unsupported);
    assert_eq!(direct(Directive::ForceOffline).await, Err(DirectError::Unsupported));
    let actions: Vec<String> = audits(&bed).await.into_iter().map(|row| row.action).collect();
    assert_eq!(actions, ["device.add", "device.redirect", "device.keep_alive"]);
}
