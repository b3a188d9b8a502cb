//! Sub-devices: who may bring one, and what becomes of the bond.

use std::sync::Arc;

use vestibule_platform::{AddDeviceError, AuditQuery, Caller, ChildRefused, Device, NewDevice, Secret};

use crate::bed::{Bed, new_device};

async fn admit(bed: &Bed, hub: &Arc<Device>, serial: &str, code: &str) -> Result<Arc<Device>, ChildRefused> {
    bed.platform.admit_child(hub, serial, |held| *held == Secret::new(code)).await
}

fn serials(devices: &[Arc<Device>]) -> Vec<&str> {
    devices.iter().map(|device| &*device.serial).collect()
}

#[tokio::test]
async fn a_hub_brings_a_device_whose_code_it_knows_and_keeps_it() {
    let bed = Bed::new().await;
    let (hub, child) = (bed.add("HUB").await, bed.add("CHILD").await);
    assert!(bed.platform.children(&hub).is_empty());
    for _ in 0..2 {
        let admitted = admit(&bed, &hub, "CHILD", "ABCDEF").await.expect("admitted");
        assert_eq!(admitted.id, child.id);
    }
    assert_eq!((child.parent(), serials(&bed.platform.children(&hub))), (Some(hub.id), vec!["CHILD"]));
    let bed = bed.restart().await;
    let (hub, child) = (
        bed.platform.device("HUB", &Caller::program()).expect("known"),
        bed.platform.device("CHILD", &Caller::program()).expect("known"),
    );
    assert_eq!((child.parent(), serials(&bed.platform.children(&hub))), (Some(hub.id), vec!["CHILD"]));
    // A hub that goes leaves its devices behind.
    bed.platform.remove_device(&hub, &bed.caller()).await.expect("removed");
    assert_eq!(child.parent(), None);
    let bed = bed.restart().await;
    assert_eq!(bed.platform.device("CHILD", &Caller::program()).expect("known").parent(), None);
}

#[tokio::test]
async fn a_hub_may_not_bring_what_is_unknown_unproven_disabled_or_elsewhere() {
    let bed = Bed::new().await;
    let (hub, other) = (bed.add("HUB").await, bed.add("OTHER").await);
    bed.add("CHILD").await;
    let disabled = bed.add("DISABLED").await;
    bed.platform.set_disabled(&disabled, true, &bed.caller()).await.expect("disabled");
    admit(&bed, &other, "CHILD", "ABCDEF").await.expect("admitted");
    for (serial, code, reason) in [
        ("NOBODY", "ABCDEF", "child_unproven"),
        ("CHILD", "WRONG", "child_unproven"),
        ("HUB", "ABCDEF", "child_unproven"),
        ("DISABLED", "WRONG", "child_unproven"),
        ("DISABLED", "ABCDEF", "child_disabled"),
        ("CHILD", "ABCDEF", "child_elsewhere"),
        ("OTHER", "ABCDEF", "child_elsewhere"),
    ] {
        let refused = admit(&bed, &hub, serial, code).await.expect_err("refused");
        assert_eq!(refused.as_str(), reason, "{serial} {code}");
    }
    let child = bed.platform.device("CHILD", &Caller::program()).expect("known");
    assert!(matches!(admit(&bed, &child, "DISABLED", "ABCDEF").await, Err(ChildRefused::Disabled)));
    let query = AuditQuery { action: Some("hub.child_refused".into()), limit: 10, ..AuditQuery::default() };
    while bed.platform.audits(&query, &Caller::program()).await.expect("readable").is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_hubs_that_bring_one_device_at_the_same_moment_do_not_both_get_it() {
    let bed = Bed::new().await;
    for round in 0..20 {
        let child = format!("CHILD{round}");
        bed.add(&child).await;
        let (one, two) = (bed.add(&format!("ONE{round}")).await, bed.add(&format!("TWO{round}")).await);
        let (first, second) = tokio::join!(admit(&bed, &one, &child, "ABCDEF"), admit(&bed, &two, &child, "ABCDEF"));
        assert_ne!(first.is_ok(), second.is_ok());
        let parent = bed.platform.device(&child, &Caller::program()).expect("known").parent();
        assert_eq!(parent, Some(if first.is_ok() { one.id } else { two.id }));
    }
}

#[tokio::test]
async fn a_device_is_registered_below_a_hub_but_not_below_a_sub_device() {
    let bed = Bed::new().await;
    let hub = bed.add("HUB").await;
    let below =
        |serial: &str, parent: &Arc<Device>| NewDevice { parent: Some(Arc::clone(parent)), ..new_device(serial) };
    let child = bed.platform.add_device(below("CHILD", &hub), &bed.caller()).await.expect("registered");
    assert_eq!(serials(&bed.platform.children(&hub)), ["CHILD"]);
    let refused = bed.platform.add_device(below("GRANDCHILD", &child), &bed.caller()).await;
    assert!(matches!(refused, Err(AddDeviceError::Invalid { field: "parent", .. })));
    // The hub shows the code of a sub-device each time: there is none that works once.
    let once = NewDevice { one_time: true, ..below("ONCE", &hub) };
    let refused = bed.platform.add_device(once, &bed.caller()).await;
    assert!(matches!(refused, Err(AddDeviceError::Invalid { field: "one_time", .. })));
    bed.platform.remove_device(&child, &bed.caller()).await.expect("removed");
    assert!(bed.platform.children(&hub).is_empty());
}
