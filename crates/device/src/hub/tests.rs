use osap::{Code, Serial};

use super::*;

fn entry(serial: &str) -> Entry {
    let (code, serial) = (Code::new("ZXCVBN").expect("a code"), Serial::new(serial).expect("a serial"));
    Entry::new(ChildProof::new(&code, &serial), AccessMode::Code, "PLUG".into(), "V1".into(), Arc::default())
}

/// Everything that is due, as `number body`.
fn sent(hub: &mut Hub, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| hub.poll(now))
        .map(|note| format!("{} {}", note.command.number(), String::from_utf8_lossy(&note.body)))
        .collect()
}

fn told(serial: &str, lane: Lane, report: bool) -> Told {
    Told { serial: serial.into(), lane, report }
}

const AUTH_A: &str =
    r#"16 {"childserial":"SUB000001","childverifycode":"A3A8F72BF61D8E1336F528A501D91E05","devAccessMode":0}"#;
const LIST_A: &str =
    r#"1 [{"connected":1,"childdevid":"SUB000001","version":"V1","type":"PLUG","FirmwareIdentificationCode":""}]"#;
const ONLINE_A: &str = r#"3 [{"connected":1,"childdevid":"SUB000001"}]"#;

#[test]
fn osap_10_6_children_are_told_twice_at_login_and_on_every_change() {
    let mut now = Instant::now();
    let mut hub = Hub::default();
    hub.add(now, "SUB000001".into(), entry("SUB000001")).expect("room");
    assert_eq!(sent(&mut hub, now), [] as [&str; 0], "not before the login");
    hub.handle_ready(now, true);
    assert_eq!(sent(&mut hub, now), [AUTH_A]);
    assert_eq!((hub.handle_verdict(now, "SUB000001", true), hub.take_told()), (Some(None), vec![]));
    assert_eq!(sent(&mut hub, now), [LIST_A, ONLINE_A, LIST_A]);
    assert_eq!(hub.take_told(), [told("SUB000001", 1, true)]);
    assert_eq!(hub.handle_verdict(now, "SUB000001", true), Some(None));
    assert_eq!(sent(&mut hub, now), [] as [&str; 0], "nothing changed");

    hub.set_connected("SUB000001", false);
    hub.set_connected("SUB000001", false);
    let gone = |text: &str| text.replace("\"connected\":1", "\"connected\":0");
    assert_eq!(sent(&mut hub, now), [gone(LIST_A), gone(ONLINE_A)]);
    assert!(hub.remove("SUB000001").is_some() && hub.remove("SUB000001").is_none());
    assert_eq!(sent(&mut hub, now), ["1 []", "3 []"]);

    // One that comes while the hub is online, and is judged late.
    hub.add(now, "SUB000001".into(), entry("SUB000001")).expect("room");
    assert_eq!(sent(&mut hub, now), [AUTH_A]);
    now += PATIENCE;
    assert_eq!((hub.deadline(now), sent(&mut hub, now)), (Some(now), vec![AUTH_A.to_owned()]), "asked again");
    hub.handle_verdict(now, "SUB000001", true);
    assert_eq!(sent(&mut hub, now), [LIST_A, ONLINE_A]);
    assert_eq!(hub.deadline(now), None);
}

#[test]
fn a_hub_that_never_had_a_child_says_so() {
    let now = Instant::now();
    let mut hub = Hub::default();
    hub.handle_ready(now, true);
    assert_eq!(sent(&mut hub, now), ["1 {}", "3 []", "1 {}"]);
}

#[test]
fn the_list_does_not_wait_for_ever_and_a_refused_child_is_not_in_it() {
    let now = Instant::now();
    let mut hub = Hub::default();
    for serial in ["SUB000001", "SUB000002", "SUB000003"] {
        hub.add(now, serial.into(), entry(serial)).expect("room");
    }
    hub.handle_ready(now, true);
    assert_eq!(sent(&mut hub, now).len(), 3);
    hub.handle_verdict(now, "SUB000001", true);
    assert_eq!(hub.handle_verdict(now, "SUB000002", false), Some(Some(2)));
    assert_eq!(hub.handle_verdict(now, "SUB000009", true), None);
    assert_eq!((sent(&mut hub, now), hub.deadline(now)), (vec![], Some(now + SETTLE)));
    assert_eq!(hub.take_told(), [], "what an accepted child reports waits for the list");
    assert_eq!(sent(&mut hub, now + SETTLE), [LIST_A, ONLINE_A, LIST_A]);
    assert_eq!(hub.take_told(), [told("SUB000001", 1, true)]);

    // After a light login those that were accepted have to be accepted again; a refused one is not asked about.
    hub.handle_link_end();
    assert_eq!((sent(&mut hub, now), hub.deadline(now)), (vec![], None));
    hub.handle_ready(now, false);
    assert_eq!(sent(&mut hub, now).len(), 2);
    hub.handle_verdict(now, "SUB000001", true);
    hub.handle_verdict(now, "SUB000003", true);
    assert_eq!(sent(&mut hub, now).len(), 3);
    assert_eq!(hub.take_told(), [told("SUB000001", 1, false), told("SUB000003", 3, true)]);
    hub.retry(now, "SUB000002");
    hub.retry(now, "SUB000001");
    assert!(sent(&mut hub, now)[0].contains("SUB000002"));
}

#[test]
fn there_are_at_most_64_and_each_once() {
    let now = Instant::now();
    let mut hub = Hub::default();
    for n in 0..64 {
        hub.add(now, n.to_string().into(), entry("SUB000001")).expect("room");
    }
    assert_eq!(hub.add(now, "0".into(), entry("SUB000001")), Err(ChildError::Exists));
    assert_eq!(hub.add(now, "64".into(), entry("SUB000001")), Err(ChildError::Full(64)));
    let lane = hub.remove("7").expect("there").lane;
    hub.add(now, "64".into(), entry("SUB000001")).expect("room again");
    assert_eq!(hub.child("64").expect("there").lane, lane);
}

#[test]
fn few_verdicts_are_waited_for_at_once() {
    let mut now = Instant::now();
    let mut hub = Hub::default();
    let serials: Vec<String> = (1..=9).map(|n| format!("SUB00000{n}")).collect();
    for serial in &serials {
        hub.add(now, serial.as_str().into(), entry(serial)).expect("room");
    }
    hub.handle_ready(now, true);
    assert_eq!(sent(&mut hub, now).len(), 4);
    assert_eq!(hub.deadline(now), Some(now + IN_THE_WAY));
    hub.handle_verdict(now, &serials[2], true);
    assert!(sent(&mut hub, now)[0].contains(&serials[4]), "the next takes its place");
    // Of those that do not answer the others do not wait for long; the list waits as long as verdicts come.
    now += IN_THE_WAY;
    assert_eq!(sent(&mut hub, now).len(), 4);
    for serial in &serials[..8] {
        now += SETTLE - Duration::from_secs(1);
        hub.handle_verdict(now, serial, true);
        assert!(sent(&mut hub, now).iter().all(|note| note.starts_with("16 ")));
    }
    hub.handle_verdict(now, &serials[8], true);
    assert!(sent(&mut hub, now)[0].starts_with("1 ["));
}
