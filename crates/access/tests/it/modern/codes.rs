//! Codes that work once (osap-wire 13.3, ticket rule 4).

use std::time::Duration;

use osap::modern::client::Trouble;
use osap::modern::slots::Way;
use osap::{Code, ResultCode};
use vestibule_access::Provisioner;
use vestibule_platform::{Caller, CodeUse, Secret};

use super::device::{Device, House, LONG_CODE};
use crate::device::TestDevice;
use crate::site::{CODE, Modern, SERIAL, Site};

const REFUSED: Trouble = Trouble::Refused(ResultCode::CodeRefused);

fn rotate(site: &Site, code: &str) {
    let (device, by) = (site.device(), Caller::program());
    site.block_on(site.platform.rotate_device(&device, Secret::new(code), true, &by)).expect("rotated");
}

fn open_window(site: &Site, rearm: bool) {
    let window = Duration::from_secs(600);
    let (device, by) = (site.device(), Caller::program());
    site.block_on(site.platform.open_enrolment(&device, window, rearm, &by)).expect("opened");
}

fn open(house: &House) -> (Site, Modern) {
    let site = Site::new();
    site.add(SERIAL);
    site.platform.set_provisioner(std::sync::Arc::new(Provisioner::new(std::sync::Arc::clone(&site.epochs))));
    rotate(&site, LONG_CODE);
    let modern = site.open_modern(Some((house.lbs.clone(), house.das.clone())));
    (site, modern)
}

/// What the store has, not what is in memory.
fn stored(site: &Site) -> CodeUse {
    site.block_on(site.platform.stored_secrets(&site.device())).expect("it answers").credentials.code
}

#[test]
fn osap_13_3_rule_4_a_one_time_code_is_used_up_by_0x92_and_refused_like_a_wrong_one() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    // However often 0x92 is lost, it comes with the code again.
    for _ in 0..3 {
        device.lose(modern.lbs, Way::Code);
        assert_eq!(stored(&site), CodeUse::OneTime);
    }
    device.run(modern.lbs, Way::Code).expect("enrolled");
    let CodeUse::Spent(at) = stored(&site) else { panic!("it is not used up") };
    assert_eq!(at, site.platform.clock().now_ms());
    assert_eq!(site.device().code_use(), CodeUse::Spent(at));

    // Who has read the label later, and who guesses.
    let mut late = Device::over_tls(&house);
    let right = late.run(modern.lbs, Way::Code).expect_err("refused");
    late.code = Some(Code::new("ABCDEFGHJKMNQ").expect("a code"));
    let wrong = late.run(modern.lbs, Way::Code).expect_err("refused");
    assert_eq!((&right.trouble, &wrong.trouble), (&REFUSED, &REFUSED));
    site.expect_fact("code_spent");
    let fact = site.device().facts().pop().expect("a fact");
    assert!(fact.text.contains("was used up on 20") && fact.text.contains("--rearm"), "{}", fact.text);
    // A window is not what it lacks.
    open_window(&site, false);
    late.code = Some(Code::new(LONG_CODE).expect("a code"));
    assert_eq!(late.run(modern.lbs, Way::Code).expect_err("refused").trouble, REFUSED);
    device.run(modern.lbs, Way::Newest).expect("its ticket is none the worse");
    assert_eq!(stored(&site), CodeUse::Spent(at));
}

#[test]
fn osap_13_3_rule_4_0x92_of_a_run_with_the_ticket_uses_the_code_up_as_well() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    device.half_run(modern.lbs, Way::Code);
    assert_eq!(stored(&site), CodeUse::OneTime, "the device has a ticket, and has not said so");
    device.run(modern.lbs, Way::Newest).expect("it comes with the ticket");
    assert!(matches!(stored(&site), CodeUse::Spent(_)));
}

#[test]
fn a_code_that_is_used_up_stays_so_over_a_restart() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    device.run(modern.lbs, Way::Code).expect("enrolled");
    let spent = stored(&site);
    let site = site.restart();
    assert_eq!((stored(&site), site.device().code_use()), (spent, spent));
}

#[test]
fn a_code_that_is_armed_anew_or_rotated_works_once_more() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    device.run(modern.lbs, Way::Code).expect("enrolled");
    open_window(&site, true);
    assert_eq!(stored(&site), CodeUse::OneTime);
    // Who only comes back leaves it for whom it was armed.
    device.run(modern.lbs, Way::Newest).expect("back");
    assert_eq!(stored(&site), CodeUse::OneTime);
    let mut repaired = Device::over_tls(&house);
    repaired.run(modern.lbs, Way::Code).expect("enrolled anew");
    assert!(matches!(stored(&site), CodeUse::Spent(_)));
    assert_eq!(Device::over_tls(&house).run(modern.lbs, Way::Code).expect_err("refused").trouble, REFUSED);

    rotate(&site, "ABCDEFGHJKMNQ");
    assert_eq!(stored(&site), CodeUse::OneTime);
    repaired.code = Some(Code::new("ABCDEFGHJKMNQ").expect("a code"));
    repaired.run(modern.lbs, Way::Code).expect("enrolled by the new one");
    assert!(matches!(stored(&site), CodeUse::Spent(_)));
    // One that lasts is never used up.
    let (device, by) = (site.device(), Caller::program());
    site.block_on(site.platform.rotate_device(&device, Secret::new(LONG_CODE), false, &by)).expect("rotated");
    Device::over_tls(&house).run(modern.lbs, Way::Code).expect("enrolled");
    assert_eq!(stored(&site), CodeUse::Lasting);
}

#[test]
fn osap_13_7_8_a_spent_code_costs_the_budget_of_an_address_like_a_wrong_one() {
    let house = House::new();
    let tries = |spent: bool| {
        let (_site, modern) = open(&house);
        if spent {
            Device::over_tls(&house).run(modern.lbs, Way::Code).expect("enrolled");
        }
        let mut late = Device::over_tls(&house);
        if !spent {
            late.code = Some(Code::new("ABCDEFGHJKMNQ").expect("a code"));
        }
        (0..22).map(|_| late.run(modern.lbs, Way::Code).expect_err("refused").trouble).collect::<Vec<_>>()
    };
    let spent = tries(true);
    assert_eq!(spent, tries(false));
    assert_eq!(spent.last(), Some(&Trouble::Refused(ResultCode::Unavailable)), "they are spent in the end");
}

#[test]
fn a_one_time_code_is_used_up_by_a_legacy_enrolment_and_refused_there_too() {
    let site = Site::new();
    site.add(SERIAL);
    rotate(&site, CODE);
    let mut device = TestDevice::new();
    // Lost before it has shown what it was given: the code is good still.
    device.lose_answer(&site);
    assert_eq!(stored(&site), CodeUse::OneTime);
    let (mqtt, _) = device.come_in(&site);
    drop(mqtt);
    assert!(matches!(stored(&site), CodeUse::Spent(_)));
    let refreshed = device.authenticate(&site);
    assert_eq!(device.log_in(&site, &refreshed).0, 0, "with its master key it comes back");
    open_window(&site, false);
    let late = TestDevice::new();
    let wrong = TestDevice { code: "FEDCBA".into(), ..TestDevice::new() };
    assert_eq!((late.refused(&site), wrong.refused(&site)), (ResultCode::CodeRefused, ResultCode::CodeRefused));
    site.expect_fact("code_spent");
    open_window(&site, true);
    let mut late = TestDevice::new();
    late.come_in(&site);
    assert!(matches!(stored(&site), CodeUse::Spent(_)));
}
