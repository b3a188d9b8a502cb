//! What the specification asks of LBS and DAS.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, TcpStream};

use osap::modern::client::Trouble;
use osap::modern::slots::Way;
use osap::{Code, ResultCode, Suite};
use vestibule_access::{Agreements, Origin, Provisioner};
use vestibule_broker::TlsListener;
use vestibule_broker::codec::{Packet, Rules, decode};
use vestibule_platform::{AuditQuery, Caller, DevicePath, Invoke, Outcome, Pass, PassOutcome, Provisioned, Secret};

use super::device::{Device, House, LONG_CODE, Talk, Wire};
use crate::attack::guess;
use crate::device::TestDevice;
use crate::mqtt::SMOKE;
use crate::operations::blink;
use crate::site::{PATIENCE, Plan, SERIAL, Site, eventually};

/// A site with a device that has a long code, and services over TLS.
fn open(house: &House) -> (Site, crate::site::Modern) {
    let site = Site::new();
    let device = site.add(SERIAL);
    site.block_on(site.platform.rotate_device(&device, Secret::new(LONG_CODE), false, &Caller::program()))
        .expect("rotated");
    let modern = site.open_modern(Some((house.lbs.clone(), house.das.clone())));
    (site, modern)
}

#[test]
fn osap_13_3_a_device_enrols_by_its_code_comes_back_with_its_ticket_and_reports() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("enrolled");
    assert!(success.das.bind && success.das.tls_port == Some(modern.das.port()));
    let dev_id = success.slots.dev_id;
    let mut talk = device.log_in(modern.das, &success);
    talk.publish(SMOKE, 7, 1, br#"{"UUID":"e1","data":{"level":3}}"#);
    assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, 7]));
    assert_eq!(site.events().len(), 1);
    let presence = site.device().presence();
    assert_eq!((presence.suite.as_deref(), presence.confidential), (Some("tls"), true));
    assert!(site.device().is_modern());

    let back = device.run(modern.lbs, Way::Newest).expect("back");
    assert_eq!(back.slots.dev_id, dev_id, "it stays who it was");
    let mut again = device.log_in(modern.das, &back);
    assert_eq!(talk.frame(), None, "the older connection was closed");
    // The same number of the same start is the same message, whatever connection it comes on.
    again.publish(SMOKE, 8, 1, br#"{"data":{"level":3}}"#);
    assert_eq!(again.frame(), Some(vec![0x40, 2, 0, 8]));
    assert_eq!(site.events().len(), 1);
    assert!(device.run(modern.lbs, Way::Older).is_ok(), "the ticket before is still good");
}

#[test]
fn who_has_been_at_the_lbs_is_no_stranger_at_the_das() {
    let house = House::new();
    let (site, _) = open(&house);
    let mut das = TlsListener::new(house.das.clone());
    (das.max_of_network, das.standstill) = (2, PATIENCE);
    let modern = site.open_modern_at(Some((house.lbs.clone(), das)));
    // Of three who say nothing two take the places of their network, and nobody makes room.
    let mut silent: Vec<_> = (0..3).map(|_| TcpStream::connect(modern.das).expect("a connection")).collect();
    silent.iter().for_each(|stream| stream.set_nonblocking(true).expect("nonblocking"));
    eventually("one is sent away", || {
        let is_open = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        silent.iter_mut().any(|stream| !stream.read(&mut [0; 1]).is_err_and(is_open))
    });
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("in");
    device.log_in(modern.das, &success);
    drop(silent);
}

#[test]
fn osap_13_3_a_wrong_code_and_an_unknown_serial_are_told_the_same() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    device.code = Some(Code::new("ABCDEFGHJKMNQ").expect("a code"));
    let wrong = device.run(modern.lbs, Way::Code).expect_err("refused");
    assert_eq!(wrong.trouble, Trouble::Refused(ResultCode::CodeRefused));
    site.block_on(site.platform.remove_device(&site.device(), &Caller::program())).expect("removed");
    let unknown = device.run(modern.lbs, Way::Code).expect_err("refused");
    assert_eq!(unknown.trouble, wrong.trouble);
}

#[test]
fn osap_13_3_a_replayed_connect_never_disturbs_the_live_session() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("enrolled");
    let mut live = device.log_in(modern.das, &success);
    // Over another connection its binding fails: whoever has it needs the very connection it was made for.
    let mut client = Talk::over(Wire::tls(modern.das, house_client(&house), "localhost"));
    client.wire.send(&live.connect.clone());
    assert_eq!(client.frame(), Some(vec![0x20, 2, 0, 11]));
    // A second login that never reports is a guest, and changes nothing.
    let (code, guest) = device.connect(modern.das, &success);
    assert_eq!(code, 0);
    live.publish(SMOKE, 9, 2, br#"{"UUID":"e2","data":1}"#);
    assert_eq!(live.frame(), Some(vec![0x40, 2, 0, 9]));
    drop(guest);
    eventually("the event is there", || site.events().len() == 1);
}

fn house_client(house: &House) -> std::sync::Arc<vestibule_tls::rustls::ClientConfig> {
    house.client_das()
}

#[test]
fn osap_13_3_what_does_not_open_or_comes_out_of_turn_ends_the_connection() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("enrolled");
    let tamper: [fn(&mut Talk); 3] = [
        |talk| {
            let mut payload = talk.sealed(SMOKE, 1, b"{}");
            *payload.last_mut().expect("a tag") ^= 1;
            talk.publish_raw(SMOKE, 5, &payload);
        },
        |talk| {
            let _lost = talk.sealed(SMOKE, 1, b"{}");
            let next = talk.sealed(SMOKE, 2, b"{}");
            talk.publish_raw(SMOKE, 5, &next);
        },
        |talk| {
            let payload = talk.sealed(SMOKE, 1, b"{}");
            talk.publish_raw("/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Fire", 5, &payload);
        },
    ];
    for tampered in tamper {
        let mut talk = device.log_in(modern.das, &success);
        tampered(&mut talk);
        assert_eq!(talk.frame(), None, "closed without an acknowledgement");
    }
    assert!(site.events().is_empty());
}

#[test]
fn osap_13_3_operations_go_down_sealed_and_their_answers_come_back() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("enrolled");
    let mut talk = device.log_in(modern.das, &success);
    let invoked = {
        let (platform, device, token) = (site.platform.clone(), site.device(), site.token());
        site.spawn(async move {
            let caller = platform.authorize(&token).expect("the administrator");
            let (path, input, deadline) = (blink(), Some("{}"), PATIENCE);
            let invoke = Invoke { path, input, deadline, queue: None, idempotency_key: None, by: &caller };
            platform.invoke(&device, invoke).await.expect("sent").1
        })
    };
    let (topic, seq, body) = talk.opened().expect("an operation");
    assert_eq!(topic, "/iot/SN0000001/global/0-Lamp/model/service/operate/Light/Blink");
    assert!(body.starts_with(br#"{"data":"#), "{}", String::from_utf8_lossy(&body));
    talk.publish(&topic.replace("/operate/", "/operate_reply/"), 2, seq, br#"{"code":0,"message":"ok"}"#);
    assert!(matches!(site.block_on(invoked).expect("it ran"), Outcome::Done { .. }));
}

#[test]
fn osap_13_4_the_legacy_suites_are_closed_to_a_modern_device_and_it_is_audited() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    device.run(modern.lbs, Way::Code).expect("enrolled");
    let legacy = TestDevice { code: LONG_CODE.into(), ..TestDevice::new() };
    assert_eq!(legacy.refused(&site), ResultCode::InvalidData);
    site.expect_fact("modern_device");
}

/// A site whose device was provisioned, and services over plain TCP.
fn open_plain() -> (Site, crate::site::Modern, Provisioned) {
    let site = Site::new();
    let device = site.add(SERIAL);
    let provisioner = Provisioner::new(std::sync::Arc::clone(&site.epochs));
    site.platform.set_provisioner(std::sync::Arc::new(provisioner));
    let given = site.block_on(site.platform.provision(&device, &Caller::program())).expect("provisioned");
    let modern = site.open_modern(None);
    (site, modern, given)
}

#[test]
fn osap_13_3_rule_8_a_provisioned_device_comes_in_over_plain_tcp_and_needs_a_window_for_its_first_ticket_later() {
    for suite in [Suite::P384, Suite::X25519] {
        let (site, modern, given) = open_plain();
        let mut device = Device::over_tcp(suite, &given);
        let success = device.run(modern.lbs, Way::Base).expect("in");
        assert_eq!((success.das.tls_port, success.das.bind), (None, false));
        let mut talk = device.log_in(modern.das, &success);
        talk.publish(SMOKE, 7, 1, br#"{"UUID":"e1","data":1}"#);
        assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, 7]));
        device.run(modern.lbs, Way::Newest).expect("back");
        device.run(modern.lbs, Way::Newest).expect("back");
        let closed = device.run(modern.lbs, Way::Base).expect_err("refused");
        assert_eq!(closed.trouble, Trouble::Hint(ResultCode::MasterKeyInvalid));
        let window = std::time::Duration::from_secs(60);
        site.block_on(site.platform.open_enrolment(&site.device(), window, false, &Caller::program())).expect("opened");
        device.run(modern.lbs, Way::Base).expect("within the window");
    }
}

#[test]
fn osap_13_3_over_plain_tcp_what_is_durable_is_said_sealed() {
    let (site, modern, given) = open_plain();
    let mut device = Device::over_tcp(Suite::X25519, &given);
    let success = device.run(modern.lbs, Way::Base).expect("in");
    let mut talk = device.log_in(modern.das, &success);
    talk.publish(SMOKE, 7, 1, br#"{"UUID":"e1","data":1}"#);
    assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, 7]));
    let (topic, _, body) = talk.opened().expect("a receipt");
    assert_eq!(topic, "/iot/SN0000001/global/0-global/basic/login/receipt");
    assert_eq!(body, br#"{"up":2,"down":0}"#);
    // A device that says nothing of its own for two intervals is cut off.
    talk.publish(&topic, 8, 2, br#"{"up":0,"down":2}"#);
    assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, 8]));
    site.clock.advance(std::time::Duration::from_secs(61));
    while talk.frame().is_some() {}
    site.expect_fact("no_receipt");
}

#[test]
fn osap_13_2_key_agreements_of_type_8_wait_for_their_turn() {
    let site = Site::with(Plan { lbs_threads: (1, 8), ..Plan::default() });
    let [agreements] = site.lbs_threads.agreements() else { panic!("one thread") };
    let (device, by) = (site.add(SERIAL), Caller::program());
    site.platform.set_provisioner(std::sync::Arc::new(Provisioner::new(std::sync::Arc::clone(&site.epochs))));
    let given = site.block_on(site.platform.provision(&device, &by)).expect("provisioned");
    let (modern, mut device) = (site.open_modern(None), Device::over_tcp(Suite::P384, &given));
    let somebody = Origin::from(IpAddr::from([10, 0, 0, 1]));
    let turns = [(); Agreements::AT_ONCE].map(|()| site.block_on(agreements.turn(somebody)).expect("free"));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| device.run(modern.lbs, Way::Base).map(|_| ()));
        eventually("it waits", || agreements.waiting() == 1);
        assert!(!run.is_finished());
        drop(turns);
        run.join().expect("no panic").expect("in");
    });
}

#[test]
fn osap_13_3_nobody_runs_a_type_on_another_transport_than_its_own() {
    let (site, modern, given) = open_plain();
    let mut device = Device::over_tcp(Suite::P384, &given);
    // Of the two it would run, the server wants the other one.
    device.also(Suite::X25519);
    let mismatch = device.run(modern.lbs, Way::Base).expect_err("another type is to be run");
    assert_eq!(mismatch.trouble, Trouble::Mismatch { instead: Some(Suite::X25519) });
    // A session of type 16 is none at the DAS over TLS.
    let mut device = Device::over_tcp(Suite::X25519, &given);
    let success = device.run(modern.lbs, Way::Base).expect("in");
    let house = House::new();
    let over_tls = site.open_modern(Some((house.lbs.clone(), house.das.clone())));
    let (code, _) = Device::over_tls(&house).connect(over_tls.das, &success);
    assert_eq!(code, 11);
}

/// A site over TLS whose platform voids what a device has.
fn open_with_provisioner(house: &House) -> (Site, crate::site::Modern) {
    let (site, modern) = open(house);
    let provisioner = Provisioner::new(std::sync::Arc::clone(&site.epochs));
    site.platform.set_provisioner(std::sync::Arc::new(provisioner));
    (site, modern)
}

#[test]
fn osap_13_3_a_device_whose_code_was_rotated_comes_in_anew_however_often_it_was_in() {
    let house = House::new();
    let (site, modern) = open_with_provisioner(&house);
    let mut device = Device::over_tls(&house);
    device.run(modern.lbs, Way::Code).expect("enrolled");
    for _ in 0..3 {
        device.run(modern.lbs, Way::Newest).expect("back");
    }
    let success = device.run(modern.lbs, Way::Newest).expect("back");
    let mut live = device.log_in(modern.das, &success);
    // A second login that waits with its report.
    let (code, mut guest) = device.connect(modern.das, &success);
    assert_eq!(code, 0);
    let code = Secret::new("ABCDEFGHJKMNQ");
    site.block_on(site.platform.rotate_device(&site.device(), code, false, &Caller::program())).expect("rotated");
    while live.frame().is_some() {}
    guest.report(&device, &success);
    assert_eq!(guest.frame(), None, "who waited is not let in by what was voided");
    assert_eq!(device.connect(modern.das, &success).0, 11);
    let refused = device.run(modern.lbs, Way::Newest).expect_err("refused");
    assert_eq!(refused.trouble, Trouble::Hint(ResultCode::MasterKeyInvalid));
    device.code = Some(Code::new("ABCDEFGHJKMNQ").expect("a code"));
    let success = device.run(modern.lbs, Way::Code).expect("enrolled by its new code");
    device.log_in(modern.das, &success);
}

#[test]
fn osap_13_2_7_a_topic_that_is_not_the_devices_own_costs_it_the_message_and_nothing_else() {
    let house = House::new();
    let (site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("enrolled");
    let mut talk = device.log_in(modern.das, &success);
    for (id, topic) in [
        (2, "/iot/SN0000002/global/0-Lamp/model/event/report/Alarm/Smoke"),
        (3, "/iot/SN0000001/CHILD/0-Lamp/model/event/report/Alarm/Smoke"),
        (4, "/no/topic/of/ours"),
    ] {
        talk.publish(topic, id, u64::from(id), b"{}");
        assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, id as u8]));
    }
    talk.publish(SMOKE, 9, 9, br#"{"UUID":"e1","data":1}"#);
    assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, 9]));
    assert_eq!(site.events().len(), 1);
}

#[test]
fn osap_13_2_5_bodies_that_cannot_be_read_shut_no_modern_device_out() {
    let house = House::new();
    let (_site, modern) = open(&house);
    let mut device = Device::over_tls(&house);
    let success = device.run(modern.lbs, Way::Code).expect("enrolled");
    let mut talk = device.log_in(modern.das, &success);
    for id in 2..22 {
        talk.publish(SMOKE, id, u64::from(id), b"no json");
        assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, id as u8]));
    }
    drop(talk);
    device.log_in(modern.das, &success);
}

#[test]
fn osap_13_7_8_the_budget_of_an_address_is_the_same_for_every_serial() {
    let house = House::new();
    // One nobody has registered, one with a long code, one with a short code and no window.
    let tries = |prepare: fn(&Site)| {
        let (site, modern) = open(&house);
        prepare(&site);
        let mut device = Device::over_tls(&house);
        device.code = Some(Code::new("ABCDEFGHJKMNQ").expect("a code"));
        (0..22).map(|_| device.run(modern.lbs, Way::Code).expect_err("refused").trouble).collect::<Vec<_>>()
    };
    let long = tries(|_| {});
    let short = tries(|site| {
        let code = Secret::new("ABCDEF");
        site.block_on(site.platform.rotate_device(&site.device(), code, false, &Caller::program())).expect("rotated");
    });
    let nobody = tries(|site| {
        site.block_on(site.platform.remove_device(&site.device(), &Caller::program())).expect("removed");
    });
    assert_eq!((&long, &long), (&short, &nobody));
    assert_eq!(long.last(), Some(&Trouble::Refused(ResultCode::Unavailable)), "they are spent in the end");
}

#[test]
fn osap_13_4_what_an_operator_closes_is_closed_at_once() {
    let (site, modern, given) = open_plain();
    let mut device = Device::over_tcp(Suite::X25519, &given);
    let success = device.run(modern.lbs, Way::Base).expect("in");
    let mut talk = device.log_in(modern.das, &success);
    let suites = vestibule_platform::Suites { plain: Some(false), ..Default::default() };
    site.block_on(site.platform.set_suites(&site.device(), suites, &Caller::program())).expect("set");
    while talk.frame().is_some() {}
    assert_eq!(device.connect(modern.das, &success).0, 11);
    let sent = device.run(modern.lbs, Way::Newest).expect_err("refused");
    assert!(matches!(sent.trouble, Trouble::Mismatch { instead: None }), "{sent}");
}

#[test]
fn osap_13_3_a_certificate_that_is_revoked_in_the_middle_of_a_run_buys_nothing() {
    // Before the frame that asks for a ticket, before what says that it is stored, and before the DAS is asked for.
    for at in [0x42, 0x92] {
        let site = Site::new();
        let device = site.add(SERIAL);
        let provisioner = Provisioner::new(std::sync::Arc::clone(&site.epochs));
        site.platform.set_provisioner(std::sync::Arc::new(provisioner));
        let house = House::of(&site);
        let modern = site.open_modern(Some((house.lbs.clone(), house.das.clone())));
        let key = vestibule_tls::Key::generate().expect("a key");
        let request = vestibule_tls::certificate_request(&key).expect("a request").into();
        let life = std::time::Duration::from_secs(86_400);
        let issued = site.block_on(site.platform.issue_certificate(&device, &request, life, &Caller::program()));
        let issued = issued.expect("issued");
        let mut shown = Device::over_tls(&house);
        shown.code = None;
        shown.identity = Some(vestibule_tls::Identity::new(issued.chain, &key).expect("a pair"));
        let success = shown.run(modern.lbs, Way::Certificate).expect("in by its certificate");
        shown.log_in(modern.das, &success);

        let revoke = || {
            let revoked = site.block_on(site.platform.revoke_certificates(&device, None, &Caller::program()));
            assert_eq!(revoked.expect("revoked"), 1);
        };
        let sent = shown.run_with(modern.lbs, Way::Certificate, |first| {
            if first == at {
                revoke();
            }
        });
        let refused = sent.expect_err("refused");
        assert_eq!(refused.trouble, Trouble::Refused(ResultCode::Unavailable), "{at:02x}");
        site.expect_fact("outrun");
        // Neither what it had before nor what it was handed in between opens anything.
        shown.identity = None;
        assert_eq!(shown.connect(modern.das, &success).0, 11);
        for way in [Way::Newest, Way::Older] {
            if shown.slots.next_way(None, Default::default()).is_some() {
                let refused = shown.run(modern.lbs, way).expect_err("refused");
                assert!(matches!(refused.trouble, Trouble::Hint(ResultCode::MasterKeyInvalid) | Trouble::Unusable));
            }
        }
    }
}

#[test]
fn osap_13_2_3_a_serial_has_one_budget_of_wrong_codes_at_every_door() {
    let house = House::new();
    let (site, modern) = open(&house);
    let code = Secret::new("ABCDEF");
    site.block_on(site.platform.rotate_device(&site.device(), code, false, &Caller::program())).expect("rotated");
    let window = std::time::Duration::from_secs(900);
    site.block_on(site.platform.open_enrolment(&site.device(), window, false, &Caller::program())).expect("opened");
    for number in 0..3 {
        assert_eq!(guess(&site, SERIAL, number, [127, 0, 0, 1]), ResultCode::CodeRefused);
    }
    let mut device = Device::over_tls(&house);
    device.code = Some(Code::new("ABCDEG").expect("a code"));
    let mut over_tls = || device.run(modern.lbs, Way::Code).expect_err("refused").trouble;
    for _ in 0..2 {
        assert_eq!(over_tls(), Trouble::Refused(ResultCode::CodeRefused));
    }
    // Five were wrong: none is looked at any more, wherever it comes.
    over_tls();
    site.expect_fact("too_many_attempts");
    assert_eq!(guess(&site, SERIAL, 3, [127, 0, 0, 1]), ResultCode::Unavailable);
}

#[test]
fn osap_13_3_rule_6_an_old_ticket_is_a_row_of_the_audit_an_hour_which_says_that_nothing_proves_it() {
    let (site, modern, given) = open_plain();
    let mut device = Device::over_tcp(Suite::X25519, &given);
    device.run(modern.lbs, Way::Base).expect("in");
    let copied = device.slots.clone();
    for _ in 0..3 {
        device.run(modern.lbs, Way::Newest).expect("back");
    }
    // Whoever has heard its name can show it, with any secret.
    device.slots = copied;
    if let Some(slot) = &mut device.slots.newest {
        slot.psk = osap::modern::Psk::from_bytes(&[7; 48]).expect("48 bytes");
    }
    for _ in 0..20 {
        let refused = device.run(modern.lbs, Way::Newest).expect_err("refused");
        assert_eq!(refused.trouble, Trouble::Hint(ResultCode::MasterKeyInvalid));
    }
    site.expect_fact("dropped_ticket");
    let rows = || {
        let query = AuditQuery { action: Some("device.old_ticket".to_owned()), limit: 50, ..AuditQuery::default() };
        site.block_on(site.platform.audits(&query, &Caller::program())).expect("readable")
    };
    eventually("a row", || !rows().is_empty());
    let rows = rows();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].detail.contains(r#""proven":false"#), "{}", rows[0].detail);
}

#[test]
fn osap_13_3_over_plain_tcp_a_passed_message_is_delivered_by_a_receipt_and_not_by_a_puback() {
    let (site, modern, given) = open_plain();
    let mut device = Device::over_tcp(Suite::X25519, &given);
    let success = device.run(modern.lbs, Way::Base).expect("in");
    let receipt = "/iot/SN0000001/global/0-global/basic/login/receipt";
    // What anybody can say does not count, until the link is gone; nor what covers less than all of it.
    for (say, outcome) in
        [(None, PassOutcome::Unknown), (Some(0), PassOutcome::Unknown), (Some(1), PassOutcome::Delivered)]
    {
        let mut talk = device.log_in(modern.das, &success);
        let passed = {
            let (platform, device) = (site.platform.clone(), site.device());
            site.spawn(async move {
                let [resource, index, area, name] = ["Meter", "0", "Raw", "Frame"].map(Into::into);
                let (path, by) = (DevicePath { resource, index, area, name }, &Caller::program());
                let pass = Pass { path, media_type: "text/plain", body: b"x", deadline: PATIENCE, by };
                platform.pass(&device, pass).await.expect("sent")
            })
        };
        let frame = talk.frame().expect("the message");
        let Ok(Packet::Publish(publish)) = decode(&frame, &Rules::STRICT) else { panic!("no PUBLISH") };
        assert!(publish.head.topic.ends_with("/Raw/Frame/deliver"), "{}", publish.head.topic);
        let [high, low] = publish.head.packet_id.expect("QoS 1").to_be_bytes();
        talk.wire.send(&[0x40, 2, high, low]);
        if let Some(down) = say {
            talk.publish(receipt, 8, 2, format!(r#"{{"up":1,"down":{down}}}"#).as_bytes());
        }
        // Everything before it has been looked at when this is acknowledged.
        talk.publish(SMOKE, 9, 9, b"{}");
        while talk.frame().is_some_and(|frame| frame != [0x40, 2, 0, 9]) {}
        drop(talk);
        assert_eq!(site.block_on(passed).expect("it ran"), outcome, "{say:?}");
    }
}
