//! Every recorded conversation, whole, cut and altered, through the functions of the fuzz targets.

use osap::fuzz::{self, TARGETS};
use proptest::prelude::*;

use crate::vectors::bytes;

/// Streams a peer of the machines might send, and bodies.
fn seeds() -> Vec<Vec<u8>> {
    let join = |names: &[&str]| names.iter().flat_map(|name| bytes(name)).collect::<Vec<u8>>();
    let with = |choice: u8, stream: Vec<u8>| [vec![choice], stream].concat();
    vec![
        join(&["real_1a", "real_72", "real_a0"]),
        join(&["real_70", "real_90", "real_a0"]),
        join(&["first_1a", "first_72", "first_a0"]),
        join(&["first_1a", "refresh_42", "first_a0"]),
        join(&["g1_12", "first_72", "first_a0"]),
        join(&["g1_real_12", "g1_real_72", "first_a0"]),
        join(&["g1_12", "refresh_42", "first_a0"]),
        join(&["g0_10", "g0_40", "first_a0"]),
        join(&["g0_10", "g0_30", "first_a0"]),
        bytes("g1_22"),
        bytes("g1_82"),
        bytes("g0_20"),
        bytes("g0_60"),
        bytes("g0_50"),
        with(0, join(&["first_2a", "first_82", "first_b0"])),
        with(1, join(&["first_2a", "refresh_62", "first_b0"])),
        with(2, join(&["refresh_80"])),
        bytes("first_82"),
        bytes("refresh_62"),
        bytes("refresh_80"),
        bytes("first_b0"),
        bytes("event_plaintext"),
        bytes("operate_payload"),
        osap::das::login::will_topic(&crate::vectors::serial(), osap::das::login::FirstOrBreak::First).to_vec(),
        br#"{"DevSerial":"","SubSerial":"SN0000001","SDKVersion":{"1100":"v2.0.0","0":"","0":""},"DeviceID":"0123456789abcdef0123456789abcdef","SubSerial":"SN0000001"}"#.to_vec(),
        b"/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke".to_vec(),
        b"/iot/SN0000001/global/0-global/ota/inform/report".to_vec(),
        b"/1100/13381".to_vec(),
        br#"{"level":3,"basic":{"dateTime":"2026-11-20T21:50:17.230+00:00","UUID":"5fb66b24e52c11f1800094306f635ec7"}}"#.to_vec(),
        br#"{"data":{"Value":[1,{"a":"\u00e4"}]}}"#.to_vec(),
    ]
}

#[test]
fn every_seed_through_every_target() {
    for seed in seeds() {
        for (name, target) in TARGETS {
            println!("{name}");
            target(&seed);
        }
    }
}

#[test]
fn every_seed_cut_anywhere() {
    for seed in seeds() {
        for end in 0..seed.len() {
            for (name, target) in TARGETS {
                // A cut behind AUTH-I costs two key agreements and shows nothing the others do not.
                if !matches!(*name, "osap_lbs_server" | "osap_lbs_client") || end % 16 == 0 {
                    target(&seed[..end]);
                }
            }
        }
    }
}

/// The name of the target files and of the corpora is the name in the table.
#[test]
fn the_names_of_the_targets_are_unique() {
    let names: std::collections::BTreeSet<_> = TARGETS.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), TARGETS.len());
}

proptest! {
    #[test]
    fn any_bytes_through_every_decoder(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        for (_, target) in TARGETS.iter().filter(|(name, _)| *name != "osap_lbs_client") {
            target(&data);
        }
    }

    #[test]
    fn any_text_through_the_bodies(text in r#"[\[\]{}":,0-9a-cUTID/ \\-]{0,120}"#) {
        fuzz::login_record(text.as_bytes());
        fuzz::envelope(text.as_bytes());
        fuzz::topic(text.as_bytes());
        fuzz::event_body(text.as_bytes());
    }

    #[test]
    fn a_seed_with_bytes_changed(
        seed in proptest::sample::select(seeds()),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut data = seed;
        for (index, byte) in changes {
            let index = index.index(data.len());
            data[index] = byte;
        }
        for (_, target) in TARGETS {
            target(&data);
        }
    }
}
