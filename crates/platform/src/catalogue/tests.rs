use std::collections::BTreeMap;

use serde_json::json;
use vestibule_store::DeviceRow;

use super::*;
use crate::clock::SystemClock;
use crate::find::DeviceOrder::{Added, Name, Seen, Serial};
use crate::org::OrgPath;
use crate::presence::PresenceState;

/// Devices of a large registry.
const MANY: usize = 100_000;
const PAGE: usize = 100;

/// The device with this number: a tenth is online, half was there once; a hundred products, a thousand halls; one in a
/// thousand is labelled "rare".
fn device(n: usize) -> Arc<Device> {
    let state = match n % 10 {
        0 => "online",
        1..6 => "offline",
        _ => "never_seen",
    };
    // Far from the order of registration.
    let shuffled = n * 7_919 % MANY;
    let presence = (state != "never_seen").then(|| {
        let since = i64::try_from(shuffled).expect("small");
        json!({"state": state, "since": since, "reason": "login", "suite": "legacy", "confidential": false, "peer": null})
            .to_string()
    });
    let mut labels = BTreeMap::from([("floor".to_owned(), format!("F{}", n % 50))]);
    if n.is_multiple_of(1_000) {
        labels.insert("rare".to_owned(), "yes".to_owned());
    }
    let row = DeviceRow {
        id: DeviceId::mint(),
        serial: format!("SN-{shuffled:06}"),
        family: "osap".to_owned(),
        product: Some(format!("P{}", n % 100)),
        name: Some(format!("Name {}", n * 31 % MANY)),
        org: format!("/plant-{}/hall-{}", n / 10 % 10, n / 10 % 1_000),
        labels: json!(labels).to_string(),
        version: 1,
        created: 0,
        enrol_until: 0,
        disabled: n % 100 == 7,
        modern: false,
        tls_only: false,
        code_use: vestibule_store::CodeUse::Lasting,
        certificate: None,
        parent: None,
        last_failure: None,
        presence: presence.filter(|_| state != "online"),
    };
    let device = Arc::new(Device::from_row(row, None, &SystemClock).expect("a device"));
    if state == "online" {
        let since = i64::try_from(shuffled).expect("small");
        device.presence.lock().pretend(PresenceState::Online, since, "legacy");
    }
    device
}

fn catalogue(devices: &[Arc<Device>]) -> Catalogue {
    let catalogue = Catalogue::default();
    devices.iter().for_each(|device| catalogue.note(device));
    catalogue
}

/// Every page of what is wanted, and how many devices were looked at.
fn pages(catalogue: &Catalogue, wanted: &Wanted<'_>, most: usize) -> (Vec<Arc<Device>>, usize) {
    let (mut devices, mut examined, mut after) = (Vec::new(), 0, None);
    let (mut page, mut looked) = (0, 0);
    loop {
        let found = catalogue.find(wanted, after.as_ref(), PAGE - page, looked);
        examined += found.examined;
        (page, looked) = (page + found.devices.len(), looked + found.examined);
        if page == PAGE {
            (page, looked) = (0, 0);
        }
        devices.extend(found.devices.into_iter().map(|(_, device)| device));
        after = found.reached;
        if after.is_none() || devices.len() >= most {
            return (devices, examined);
        }
    }
}

fn at(org: &str) -> Trait {
    Trait::At(OrgPath::parse(org).expect("a place"))
}

#[test]
fn the_work_is_bounded_by_what_is_found_at_a_hundred_thousand_devices() {
    let devices: Vec<_> = (0..MANY).map(device).collect();
    let catalogue = catalogue(&devices);
    assert_eq!(catalogue.len(), MANY);
    let label = |name: &str| Trait::Label(name.into());
    let floor = Trait::LabelValue("floor".into(), "F20".into());
    let product = Trait::Product("P20".into());
    let [online, offline, never] = PresenceState::ALL.map(Trait::Presence);
    // What is wanted, how many there are, and how many at most are looked at for each that is found.
    for (traits, there, ratio) in [
        (vec![], MANY, 1),
        (vec![online.clone()], MANY / 10, 12),
        (vec![offline], MANY / 2, 3),
        (vec![never], MANY * 4 / 10, 4),
        (vec![product.clone()], MANY / 100, 20),
        (vec![label("rare")], MANY / 1_000, 2),
        (vec![at("/plant-3")], MANY / 10, 12),
        (vec![at("/plant-3/hall-13")], MANY / 1_000, 2),
        (vec![floor.clone(), online.clone()], MANY / 50, 21),
        (vec![Trait::Disabled(true)], MANY / 100, 20),
        (vec![Trait::Suite("legacy".into()), product, floor, online], MANY / 100, 20),
    ] {
        for order in DeviceOrder::ALL {
            for descending in [false, true] {
                let wanted = Wanted { traits: &traits, text: "", order, descending };
                let (found, examined) = pages(&catalogue, &wanted, 5 * PAGE);
                assert_eq!(found.len(), there.min(5 * PAGE), "{traits:?} {order:?}");
                let ratio = if order == Added { 1 } else { ratio };
                assert!(
                    examined <= found.len() * ratio + PAGE,
                    "{traits:?} {order:?} {descending}: {examined} looked at for {}",
                    found.len()
                );
            }
        }
    }
}

#[test]
fn what_lies_all_at_one_end_of_an_order_costs_no_more_than_twice_what_putting_it_in_order_does() {
    let devices: Vec<_> = (0..20_000).map(device).collect();
    let catalogue = catalogue(&devices);
    // Those with such numbers are all offline, and half of the others were never seen.
    let traits = [3, 13, 23, 33, 43].map(|n| vec![Trait::LabelValue("floor".into(), format!("F{n}").into())]);
    for traits in &traits {
        for descending in [false, true] {
            let wanted = Wanted { traits, text: "", order: Seen, descending };
            let (found, examined) = pages(&catalogue, &wanted, PAGE);
            assert_eq!(found.len(), PAGE);
            assert!(examined <= 2 * 20_000 / 50 + STRIDE, "{examined}");
        }
    }
    let disabled = [Trait::Disabled(false), Trait::Suite("legacy".into())];
    let (found, examined) = pages(&catalogue, &Wanted { descending: false, ..wanted(&disabled, Seen) }, PAGE);
    assert_eq!(found.len(), PAGE);
    assert!(examined <= 2 * 12_000 + STRIDE, "{examined}");
}

#[test]
fn every_order_holds_each_device_once_and_both_ways_are_each_other_reversed() {
    let devices: Vec<_> = (0..3_000).map(device).collect();
    let catalogue = catalogue(&devices);
    for traits in [vec![], vec![Trait::Product("P7".into())], vec![Trait::Presence(PresenceState::Offline)]] {
        let mut expected: Vec<_> = pages(&catalogue, &wanted(&traits, Added), usize::MAX).0;
        assert!(expected.is_sorted_by_key(|device| device.id));
        for order in DeviceOrder::ALL {
            let (found, _) = pages(&catalogue, &wanted(&traits, order), usize::MAX);
            match order {
                Added => {}
                Serial => expected.sort_by_key(|device| (Arc::clone(&device.serial), device.id)),
                Name => {
                    expected.sort_by_key(|device| (device.description().name.clone().map(|n| folded(&n)), device.id))
                }
                Seen => expected.sort_by_key(|device| {
                    let presence = device.presence();
                    let rank = [PresenceState::NeverSeen, PresenceState::Offline, PresenceState::Online];
                    (rank.iter().position(|state| *state == presence.state), presence.since, device.id)
                }),
            }
            let ids = |devices: &[Arc<Device>]| devices.iter().map(|device| device.id).collect::<Vec<_>>();
            assert_eq!(ids(&found), ids(&expected), "{order:?}");
            let (mut back, _) = pages(&catalogue, &Wanted { descending: true, ..wanted(&traits, order) }, usize::MAX);
            back.reverse();
            assert_eq!(ids(&back), ids(&expected), "{order:?} from its end");
        }
    }
}

fn wanted(traits: &[Trait], order: DeviceOrder) -> Wanted<'_> {
    Wanted { traits, text: "", order, descending: false }
}

#[test]
fn text_is_found_in_serials_names_products_and_labels_whatever_its_case() {
    let devices: Vec<_> = (0..3_000).map(device).collect();
    let catalogue = catalogue(&devices);
    let count = |text: &str, traits: &[Trait]| {
        let wanted = Wanted { text: &folded(text), ..wanted(traits, Name) };
        pages(&catalogue, &wanted, usize::MAX).0.len()
    };
    assert_eq!(count(&devices[5].serial, &[]), 1);
    assert_eq!(count("sn-", &[]), 3_000);
    assert_eq!(count("RARE", &[]), 3);
    assert_eq!(count("rare", &[Trait::Product("P0".into())]), 3);
    assert_eq!(count("rare", &[Trait::Product("P1".into())]), 0);
    assert_eq!(count("p99", &[]), 30);
    assert_eq!(count("nothing of the kind", &[]), 0);
}

#[test]
fn pages_hold_what_stays_once_whatever_comes_and_goes_between_them() {
    let devices: Vec<_> = (0..2_000).map(device).collect();
    let (first, later) = devices.split_at(1_000);
    for order in DeviceOrder::ALL {
        let catalogue = catalogue(first);
        let mut later = later.iter();
        let (mut seen, mut after) = (Vec::new(), None);
        let mut gone = Vec::new();
        loop {
            let found = catalogue.find(&wanted(&[], order), after.as_ref(), 50, 0);
            seen.extend(found.devices.iter().map(|(_, device)| device.id));
            after = found.reached;
            if after.is_none() {
                break;
            }
            // The last one shown goes, and so does one that was not shown yet; others come.
            let leaves = found.devices.last().map(|(_, device)| Arc::clone(device));
            let next =
                catalogue.find(&wanted(&[], order), after.as_ref(), 1, 0).devices.pop().map(|(_, device)| device);
            for device in leaves.into_iter().chain(next) {
                gone.push(device.id);
                let copy = removed(&device);
                catalogue.note(&copy);
            }
            later.by_ref().take(3).for_each(|device| catalogue.note(device));
        }
        let mut once = seen.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{order:?}: none twice");
        for device in first.iter().filter(|device| !gone.contains(&device.id)) {
            assert!(once.binary_search(&device.id).is_ok(), "{order:?}: {} was missed", device.serial);
        }
    }
}

/// The same device, removed; others of this test go on with the one that is not.
fn removed(device: &Device) -> Arc<Device> {
    let row = DeviceRow {
        id: device.id,
        serial: device.serial.to_string(),
        family: "osap".to_owned(),
        product: None,
        name: None,
        org: "/".to_owned(),
        labels: "{}".to_owned(),
        version: 1,
        created: 0,
        enrol_until: 0,
        disabled: false,
        modern: false,
        tls_only: false,
        code_use: vestibule_store::CodeUse::Lasting,
        certificate: None,
        parent: None,
        last_failure: None,
        presence: None,
    };
    let copy = Device::from_row(row, None, &SystemClock).expect("a device");
    copy.mark_removed();
    Arc::new(copy)
}

#[test]
fn presence_noted_alone_is_as_if_everything_were_noted() {
    let devices: Vec<_> = (0..500).map(device).collect();
    let (alone, whole) = (catalogue(&devices), catalogue(&devices));
    let changes = [
        (PresenceState::Online, "legacy", 3),
        (PresenceState::Offline, "legacy", 4),
        (PresenceState::Online, "ecdhe-p384", 5),
    ];
    for ((state, suite, step), since) in changes.into_iter().zip([1_000_000, 2_000_000, 3_000_000]) {
        for (since, device) in (since..).zip(devices.iter().step_by(step)) {
            device.presence.lock().pretend(state, since, suite);
            alone.note_presence(device);
            whole.note(device);
        }
        let (alone, whole) = (alone.shelves.read(), whole.shelves.read());
        assert_eq!(alone.by_trait, whole.by_trait);
        assert_eq!(alone.by_seen, whole.by_seen);
        let there = alone.by_trait.get(&Trait::Presence(state)).map_or(0, BTreeSet::len);
        assert!(there >= 500 / step && alone.by_seen.len() == 500, "{there}");
    }
}

#[test]
fn what_is_gone_leaves_nothing_behind() {
    let devices: Vec<_> = (0..500).map(device).collect();
    let catalogue = catalogue(&devices);
    for device in &devices {
        device.mark_removed();
        catalogue.note(device);
        catalogue.note(device);
        // A goodbye that comes late brings nobody back.
        catalogue.note_presence(device);
    }
    let shelves = catalogue.shelves.read();
    assert!(shelves.entries.is_empty() && shelves.by_trait.is_empty());
    assert!(shelves.by_serial.is_empty() && shelves.by_name.is_empty() && shelves.by_seen.is_empty());
}
