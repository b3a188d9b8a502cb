//! Devices of which a certificate is demanded (osap-wire 13.3, TLS profile 6).

use std::time::Duration;

use osap::ResultCode;
use osap::modern::client::Trouble;
use osap::modern::slots::Way;
use vestibule_access::Provisioner;
use vestibule_platform::{Caller, ChildRefused, Demand, DeviceCertificateQuery, Secret, Suites};

use super::device::{Device, House, LONG_CODE};
use crate::device::TestDevice;
use crate::site::{CODE, Modern, SERIAL, Site};

const REFUSED: Trouble = Trouble::Refused(ResultCode::Refused);

/// A site whose LBS believes the certificates that its platform issues.
fn open() -> (Site, House, Modern) {
    let site = Site::new();
    let device = site.add(SERIAL);
    site.platform.set_provisioner(std::sync::Arc::new(Provisioner::new(std::sync::Arc::clone(&site.epochs))));
    site.block_on(site.platform.rotate_device(&device, Secret::new(LONG_CODE), false, &Caller::program()))
        .expect("rotated");
    let house = House::of(&site);
    let modern = site.open_modern(Some((house.lbs.clone(), house.das.clone())));
    (site, house, modern)
}

fn demand(site: &Site, certificate: Demand) {
    let suites = Suites { certificate: Some(certificate), ..Suites::default() };
    site.block_on(site.platform.set_suites(&site.device(), suites, &Caller::program())).expect("set");
}

#[test]
fn osap_13_3_who_enrols_is_let_in_with_the_certificate_it_asks_for_and_from_then_on_shows_it() {
    let (site, house, modern) = open();
    demand(&site, Demand::Demanded);
    let mut device = Device::over_tls(&house);
    let refused = device.run(modern.lbs, Way::Code).expect_err("it asks for none");
    assert_eq!(refused.trouble, REFUSED);
    site.expect_fact("certificate_required");
    device.asks = true;
    // Cut off before it has the certificate, as often as may be: it comes with the code again.
    device.lose(modern.lbs, Way::Code);
    device.run(modern.lbs, Way::Code).expect("enrolled");
    let certificate = device.identity.take().expect("a certificate");
    // It has lost it again, before it ever showed it: with the ticket it asks for another.
    device.run(modern.lbs, Way::Newest).expect("it asks");
    device.identity = Some(certificate);
    device.asks = false;
    device.run(modern.lbs, Way::Newest).expect("with ticket and certificate");
    device.run(modern.lbs, Way::Certificate).expect("with the certificate alone");

    // Whoever has copied the ticket, or has the code, asks in vain.
    let certificate = device.identity.take();
    device.asks = true;
    assert_eq!(device.run(modern.lbs, Way::Newest).expect_err("refused").trouble, REFUSED);
    let mut late = Device::over_tls(&house);
    late.asks = true;
    assert!(late.run(modern.lbs, Way::Code).is_err());
    // Unless an operator lets it.
    let window = Duration::from_secs(600);
    let (device, by) = (site.device(), Caller::program());
    site.block_on(site.platform.open_enrolment(&device, window, false, &by)).expect("opened");
    late.run(modern.lbs, Way::Code).expect("inside the window");
    late.asks = false;
    late.run(modern.lbs, Way::Newest).expect("it shows it");
    // It has lost it again: a window lets it ask with its ticket, once.
    late.identity = None;
    late.asks = true;
    site.block_on(site.platform.open_enrolment(&device, window, false, &by)).expect("opened");
    late.run(modern.lbs, Way::Newest).expect("inside the window");
    late.identity = None;
    assert_eq!(late.run(modern.lbs, Way::Newest).expect_err("it is closed").trouble, REFUSED);
    drop(certificate);
}

#[test]
fn osap_13_3_what_was_lost_shuts_no_device_out_and_who_is_granted_none_writes_nothing() {
    let (site, house, modern) = open();
    demand(&site, Demand::Demanded);
    let mut device = Device::over_tls(&house);
    device.asks = true;
    // Far more than a device may have at a time: one that did not arrive shuts nobody out.
    for _ in 0..80 {
        device.lose(modern.lbs, Way::Code);
    }
    let certificates = site.platform.certificates();
    let all = DeviceCertificateQuery { device: Some(SERIAL.into()), limit: 1_000, ..Default::default() };
    let valid = |site: &Site| {
        let rows = site.block_on(certificates.issued(all.clone())).expect("listed");
        (rows.len(), rows.iter().filter(|row| row.revoked.is_none()).count())
    };
    assert_eq!(valid(&site), (80, 8));
    assert_eq!(certificates.verifier().revoked(), 72, "whoever has heard one of them does not come in with it");
    // What is kept has an end, and from there on they are issued slowly.
    for _ in 80..128 {
        device.lose(modern.lbs, Way::Code);
    }
    let before = site.credentials();
    assert_eq!(device.run(modern.lbs, Way::Code).expect_err("none is granted").trouble, REFUSED);
    assert_eq!(site.credentials(), before);
    site.expect_fact("certificate_not_issued");
    site.clock.advance(Duration::from_secs(3 * 3_600));
    device.run(modern.lbs, Way::Code).expect("the next one");
    device.asks = false;
    device.run(modern.lbs, Way::Newest).expect("it shows it");
    // Where none is demanded it goes without.
    demand(&site, Demand::Optional);
    device.identity = None;
    let success = device.run(modern.lbs, Way::Newest).expect("in");
    assert!(success.certificate.is_empty());
}

#[test]
fn a_demand_is_the_products_or_the_devices_own() {
    let (site, house, modern) = open();
    let by = Caller::program();
    // The devices of the site are of no product.
    assert!(!site.platform.demands_certificate(&site.device()));
    site.block_on(site.platform.demand_certificate_of("lamp", true, &by)).expect("kept");
    assert!(!site.platform.demands_certificate(&site.device()));
    demand(&site, Demand::Demanded);
    let site = site.restart();
    assert!(site.platform.demands_certificate(&site.device()));
    assert_eq!(site.platform.certified_products(), ["lamp"]);
    demand(&site, Demand::AsProduct);
    assert!(!site.platform.demands_certificate(&site.device()));
    site.block_on(site.platform.demand_certificate_of("lamp", false, &by)).expect("kept");
    assert!(site.platform.certified_products().is_empty());
    drop((house, modern));
}

#[test]
fn osap_13_4_the_legacy_suites_are_closed_to_whom_a_certificate_is_demanded_of() {
    let site = Site::new();
    site.add(SERIAL);
    let mut device = TestDevice { code: CODE.into(), ..TestDevice::new() };
    let (_mqtt, session) = device.come_in(&site);
    demand(&site, Demand::Demanded);
    assert_ne!(device.log_in(&site, &session).0, 0);
    assert!(device.visit(&site).finish().is_err());
    site.expect_fact("certificate_required");
    demand(&site, Demand::Optional);
    let back = device.authenticate(&site);
    assert_eq!(device.log_in(&site, &back).0, 0);
}

#[test]
fn a_device_that_is_in_by_a_modern_suite_is_no_hubs_until_its_code_is_exchanged() {
    let (site, house, modern) = open();
    let (hub, label) = (site.add("HUB"), Secret::new(LONG_CODE));
    Device::over_tls(&house).run(modern.lbs, Way::Code).expect("enrolled");
    let adopt = || site.block_on(site.platform.admit_child(&hub, SERIAL, |held| *held == label));
    assert!(matches!(adopt(), Err(ChildRefused::Elsewhere)), "whoever has read its label takes it over");
    site.block_on(site.platform.rotate_device(&site.device(), Secret::new(LONG_CODE), false, &Caller::program()))
        .expect("rotated");
    adopt().expect("it is nobody's now");
    assert_eq!(site.device().parent(), Some(hub.id));
}
