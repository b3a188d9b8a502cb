//! Devices come and go.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use vestibule_platform::{
    AddDeviceError, Caller, DeviceQuery, NewDevice, OrgPath, PlatformConfig, PresenceState, Secret, StoreError,
};

use crate::bed::{Bed, NOON, Plan, changed, connect, eventually, new_device};

fn field(refused: Result<impl Sized, AddDeviceError>) -> &'static str {
    match refused {
        Err(AddDeviceError::Invalid { field, .. }) => field,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[tokio::test]
async fn what_cannot_be_a_device_is_refused_by_field() {
    let bed = Bed::new().await;
    for serial in ["", "a/b", "a+b", "a#b", "a b", "gerät", "a\u{7f}", &"s".repeat(72)] {
        assert_eq!(field(bed.platform.add_device(new_device(serial), &bed.caller()).await), "serial", "{serial:?}");
    }
    for code in ["", "AB CD", &"C".repeat(48)] {
        let new = NewDevice { code: Secret::new(code), ..new_device("S1") };
        assert_eq!(field(bed.platform.add_device(new, &bed.caller()).await), "code", "{code:?}");
    }
    for label in ["x".repeat(129), "line\nbreak".to_owned()] {
        let new = NewDevice { product: Some(label.clone()), ..new_device("S1") };
        assert_eq!(field(bed.platform.add_device(new, &bed.caller()).await), "product");
        let new = NewDevice { name: Some(label), ..new_device("S1") };
        assert_eq!(field(bed.platform.add_device(new, &bed.caller()).await), "name");
    }
    assert!(bed.below(&OrgPath::root(), &Caller::program()).await.is_empty());
    let longest = NewDevice {
        code: Secret::new("C".repeat(47)),
        product: Some("p".repeat(128)),
        name: Some("Gerät im Flur".to_owned()),
        ..new_device(&"s".repeat(71))
    };
    bed.platform.add_device(longest, &bed.caller()).await.expect("at its limits");
}

#[tokio::test]
async fn a_device_is_found_by_both_its_identities() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let other = bed.add("SN2").await;
    assert_eq!(bed.platform.device("SN1", &Caller::program()).expect("by serial").id, device.id);
    assert_eq!(bed.platform.device(&device.id.to_string(), &Caller::program()).expect("by id").id, device.id);
    assert_eq!(bed.platform.device_by_serial("SN2").expect("by serial").id, other.id);
    assert!(bed.platform.device_by_serial(&device.id.to_string()).is_none());
    assert!(bed.platform.device("SN3", &Caller::program()).is_none());
    assert_eq!((device.created, device.presence().state), (NOON, PresenceState::NeverSeen));
}

#[tokio::test]
async fn a_serial_is_taken_once_and_free_again_after_removal() {
    let bed = Bed::new().await;
    let first = bed.add("SN1").await;
    let refused = bed.platform.add_device(new_device("SN1"), &bed.caller()).await;
    assert!(matches!(refused, Err(AddDeviceError::SerialTaken)));
    bed.platform.remove_device(&first, &bed.caller()).await.expect("removed");
    assert!(
        bed.platform.device("SN1", &Caller::program()).is_none()
            && bed.platform.device(&first.id.to_string(), &Caller::program()).is_none()
    );
    let second = bed.add("SN1").await;
    assert_ne!(first.id, second.id);
    // Whoever holds on to the first does not take the second away.
    bed.platform.remove_device(&first, &bed.caller()).await.expect("there is nothing to do");
    assert_eq!(bed.platform.device("SN1", &Caller::program()).expect("there").id, second.id);
}

#[tokio::test]
async fn a_full_registry_takes_no_more() {
    let platform = PlatformConfig { max_devices: 2, ..PlatformConfig::default() };
    let bed = Bed::with(Plan { platform, ..Plan::default() }).await;
    let first = bed.add("SN1").await;
    bed.add("SN2").await;
    assert!(matches!(bed.platform.add_device(new_device("SN3"), &bed.caller()).await, Err(AddDeviceError::Full(2))));
    bed.platform.remove_device(&first, &bed.caller()).await.expect("removed");
    bed.add("SN3").await;
}

#[tokio::test]
async fn pages_hold_every_device_once_in_the_order_of_registration() {
    let bed = Bed::new().await;
    let mut ids = Vec::new();
    for n in 0..25 {
        ids.push(bed.add(&format!("SN{n}")).await.id);
    }
    let (mut paged, mut cursor) = (Vec::new(), None);
    loop {
        let query = DeviceQuery::default();
        let page = bed.platform.find_devices(&query, cursor.as_deref(), 10, &Caller::program()).await.expect("a page");
        paged.extend(page.items.iter().map(|device| device.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        assert_eq!(page.items.len(), 10);
    }
    assert_eq!(paged, ids);
}

#[tokio::test]
async fn the_registry_survives_a_restart() {
    let bed = Bed::new().await;
    let new = NewDevice { product: Some("cam".into()), name: Some("Hall".into()), ..new_device("SN1") };
    let device = bed.platform.add_device(new, &bed.caller()).await.expect("registered");
    let gone = bed.add("SN2").await;
    let until =
        bed.platform.open_enrolment(&device, Duration::from_secs(60), false, &bed.caller()).await.expect("opened");
    assert_eq!(until, NOON + 60_000);
    bed.platform.remove_device(&gone, &bed.caller()).await.expect("removed");
    let id = device.id;
    drop((device, gone));
    let bed = bed.restart().await;
    let device = bed.platform.device("SN1", &Caller::program()).expect("still there");
    assert_eq!((device.id, device.created, device.enrol_until()), (id, NOON, until));
    assert_eq!((device.product.as_deref(), device.description().name.as_deref()), (Some("cam"), Some("Hall")));
    let secrets = bed.platform.secrets(&device).await.expect("readable");
    assert!(secrets.code == Some(Secret::new("ABCDEF")));
    assert!(bed.platform.device("SN2", &Caller::program()).is_none());
    bed.platform.enrolled(&device).await;
    drop(device);
    let bed = bed.restart().await;
    assert_eq!(bed.platform.device("SN1", &Caller::program()).expect("still there").enrol_until(), 0);
}

#[tokio::test]
async fn registration_and_removal_are_announced() {
    let bed = Bed::new().await;
    let (mut changes, mut removals) = (bed.platform.presence_changes(), bed.platform.removals());
    let device = bed.add("SN1").await;
    let told = changed(&mut changes).await;
    assert_eq!((told.id, told.is_removed()), (device.id, false));
    connect(&bed.platform, &device, 1);
    assert_eq!(changed(&mut changes).await.id, device.id);
    assert!(removals.is_empty(), "who waits for removals is not woken by a login");
    bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
    let told = changed(&mut changes).await;
    assert_eq!((told.id, told.is_removed()), (device.id, true));
    assert_eq!(removals.try_recv(), Ok(device.id));
    assert!(bed.platform.device("SN1", &Caller::program()).is_none(), "told after the registry knows");
}

#[tokio::test]
async fn a_device_that_is_removed_while_it_is_there_is_cut_off_and_announced_once() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let (connection, line) = connect(&bed.platform, &device, 1);
    let mut changes = bed.platform.presence_changes();
    bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
    assert_eq!(line.closed(), ["removed"]);
    bed.platform.disconnected(&device, connection, "removed");
    assert_eq!(device.presence().state, PresenceState::Offline);
    // A login that was on its way is cut off as well.
    let (_, late) = connect(&bed.platform, &device, 2);
    assert_eq!(late.closed(), ["removed"]);
    let next = bed.add("SN2").await;
    assert!(changed(&mut changes).await.is_removed());
    assert_eq!(changed(&mut changes).await.id, next.id, "and then the next device's registration");
}

#[tokio::test]
async fn what_was_begun_is_finished_when_the_caller_goes_away() {
    let bed = Bed::new().await;
    let mut context = Context::from_waker(Waker::noop());
    {
        let caller = bed.caller();
        let mut adding = pin!(bed.platform.add_device(new_device("SN1"), &caller));
        assert!(adding.as_mut().poll(&mut context).is_pending());
    }
    eventually("registered", || bed.platform.device("SN1", &Caller::program()).is_some()).await;
    let device = bed.platform.device("SN1", &Caller::program()).expect("there");
    {
        let caller = bed.caller();
        let mut removing = pin!(bed.platform.remove_device(&device, &caller));
        assert!(removing.as_mut().poll(&mut context).is_pending());
    }
    eventually("removed", || bed.platform.device("SN1", &Caller::program()).is_none()).await;
    assert!(device.is_removed());
    bed.add("SN1").await;
}

#[tokio::test]
async fn a_removed_device_has_no_enrolment() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
    let refused = bed.platform.open_enrolment(&device, Duration::from_secs(60), false, &bed.caller()).await;
    assert!(matches!(refused, Err(StoreError::UnknownDevice)));
    assert_eq!(device.enrol_until(), 0);
}
