//! What `device why` tells.

use std::net::IpAddr;
use std::time::Duration;

use vestibule_platform::{Caller, Fact, Step};

use crate::bed::{Bed, NOON};

#[tokio::test]
async fn facts_are_stamped_and_repetitions_counted() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let from = Some(IpAddr::from([192, 0, 2, 1]));
    bed.platform.fact(&device, Fact::ok(Step::Authentication, "authenticated", "It proved its code.", from));
    for _ in 0..3 {
        bed.advance(Duration::from_secs(1));
        bed.platform.fact(&device, Fact::failure(Step::Login, "wrong_session_key", "It does not open.", from));
    }
    let facts = device.facts();
    assert_eq!(facts.iter().map(|fact| (fact.at, fact.count)).collect::<Vec<_>>(), [(NOON, 1), (NOON + 3_000, 3)]);
    assert_eq!(device.last_failure().as_ref(), facts.last());
}

#[tokio::test]
async fn the_last_failure_survives_a_restart_and_a_success() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let fine = bed.add("SN2").await;
    bed.platform.fact(&device, Fact::failure(Step::Authentication, "wrong_code", "The code is wrong.", None));
    bed.platform.fact(&device, Fact::failure(Step::Assignment, "no_das", "There is no DAS.", None));
    bed.platform.fact(&device, Fact::ok(Step::Login, "accepted", "It logged in.", None));
    bed.platform.fact(&fine, Fact::ok(Step::Login, "accepted", "It logged in.", None));
    let last = device.last_failure();
    drop((device, fine));
    let bed = bed.restart().await;
    let device = bed.platform.device("SN1", &Caller::program()).expect("registered");
    assert!(device.facts().is_empty(), "the ring is of this process");
    assert_eq!(device.last_failure(), last);
    assert_eq!(last.expect("kept").reason, "no_das");
    assert!(bed.platform.device("SN2", &Caller::program()).expect("registered").last_failure().is_none());
}

#[tokio::test]
async fn a_device_removed_with_something_to_write_holds_nobody_up() {
    let bed = Bed::new().await;
    let gone = bed.add("SN1").await;
    let stays = bed.add("SN2").await;
    bed.platform.fact(&gone, Fact::failure(Step::Login, "a", "text", None));
    bed.platform.remove_device(&gone, &bed.caller()).await.expect("removed");
    bed.platform.fact(&gone, Fact::failure(Step::Login, "b", "text", None));
    bed.platform.fact(&stays, Fact::failure(Step::Login, "c", "text", None));
    drop((gone, stays));
    let bed = bed.restart().await;
    assert_eq!(
        bed.platform.device("SN2", &Caller::program()).expect("registered").last_failure().expect("kept").reason,
        "c"
    );
}
