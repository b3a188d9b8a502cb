//! Strangers at the LBS: what they learn, what they cost, whom they disturb (osap-wire 13.2).

use std::time::{Duration, Instant};

use osap::ResultCode;
use vestibule_access::LbsConfig;
use vestibule_platform::Caller;

use crate::device::TestDevice;
use crate::site::{Plan, SERIAL, Site};

#[test]
fn osap_13_2_3_unknown_wrong_and_disabled_get_the_same_answer_and_none_comes_early() {
    const PACE: Duration = Duration::from_millis(60);
    let limits = LbsConfig { refusal_pace: PACE, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    let disabled = site.add("SN0000002");
    site.block_on(site.platform.set_disabled(&disabled, true, &Caller::program())).expect("disabled");
    let strangers = [
        TestDevice { code: "ABCDEG".into(), ..TestDevice::new() },
        TestDevice::of("SN0000002"),
        TestDevice { code: "ABCDEG".into(), ..TestDevice::of("SN0000002") },
        TestDevice::of("SN0000003"),
    ];
    let mut answers = Vec::new();
    for stranger in strangers {
        let mut visit = stranger.visit(&site);
        let begun = Instant::now();
        answers.push(visit.answer());
        assert!(begun.elapsed() >= PACE, "{} had its answer too soon", stranger.serial);
        visit.wire.expect_end();
    }
    assert_eq!(answers[0], [0x2A, 5, 1, 1, 1, 0, ResultCode::CodeRefused.into()]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:02x?}");
}
