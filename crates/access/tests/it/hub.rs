//! Hubs and the devices behind them (osap-wire 10.6, 13.2.7).

use std::sync::Arc;
use std::time::Duration;

use osap::das::envelope::MsgType;
use osap::das::hub::ChildProof;
use osap::{Code, Serial};
use vestibule_platform::{AuditQuery, Caller, Device, DevicePath, Invoke, Outcome, PresenceState};

use crate::device::TestDevice;
use crate::operations::{Logged, logged_in};
use crate::site::{CODE, eventually};

const CHILD: &str = "SUB000001";

fn proof(code: &str, serial: &str) -> String {
    let proof = ChildProof::new(&Code::new(code).expect("a code"), &Serial::new(serial).expect("a serial"));
    proof.as_str().to_owned()
}

impl Logged {
    fn child(&self) -> Arc<Device> {
        self.site.platform.device_by_serial(CHILD).expect("registered")
    }

    fn child_is(&self, state: PresenceState) -> bool {
        self.child().presence().state == state
    }

    /// Proves a child, and gives the result the hub is told.
    #[track_caller]
    fn prove(&mut self, id: u16, serial: &str, proof: &str) -> String {
        let body = format!(r#"{{"childserial":"{serial}","childverifycode":"{proof}","devAccessMode":0}}"#);
        self.reply("/7002/16", id, id.into(), body.as_bytes());
        let verdict = self.arrived();
        assert_eq!((&*verdict.topic, &*verdict.version), ("/SN0000001/7002/17", "V2.0.0"));
        assert_eq!((verdict.seq, verdict.msg_type), (id.into(), Some(MsgType::Response)));
        verdict.body
    }

    #[track_caller]
    fn tell(&mut self, command: u16, id: u16, body: &str) {
        self.reply(&format!("/7002/{command}"), id, id.into(), body.as_bytes());
    }

    #[track_caller]
    fn child_event(&mut self, id: u16) {
        let topic = format!("/iot/SN0000001/{CHILD}/0-Lamp/model/event/report/Alarm/Smoke");
        self.reply(&topic, id, id.into(), br#"{"level":1}"#);
    }
}

fn hub() -> Logged {
    let it = logged_in();
    it.site.add(CHILD);
    it
}

fn list(connected: u8) -> String {
    format!(
        r#"[{{"connected":{connected},"childdevid":"{CHILD}","version":"V1","type":"T","FirmwareIdentificationCode":""}}]"#
    )
}

#[test]
fn osap_10_6_a_hub_proves_a_child_tells_of_it_and_speaks_for_it() {
    let mut it = hub();
    assert_eq!(it.prove(1, CHILD, &proof(CODE, CHILD)), format!(r#"{{"childserial":"{CHILD}","result":0}}"#));
    assert!(it.child_is(PresenceState::NeverSeen), "proven, and not there yet");
    it.tell(1, 2, &list(1));
    assert_eq!(it.arrived().topic, "/SN0000001/7002/2");
    assert!(it.child_is(PresenceState::Online));
    it.child_event(3);
    assert_eq!(&*it.site.events()[0].serial, CHILD);
    it.tell(3, 4, &format!(r#"[{{"connected":0,"childdevid":"{CHILD}"}}]"#));
    assert_eq!(it.arrived().topic, "/SN0000001/7002/4");
    let presence = it.child().presence();
    assert_eq!((presence.state, &*presence.reason), (PresenceState::Offline, "hub_says"));
    // What speaks is there.
    it.child_event(5);
    assert!(it.child_is(PresenceState::Online));
    it.tell(1, 6, "[]");
    assert!(it.child_is(PresenceState::Offline));
    it.tell(3, 7, &format!(r#"[{{"connected":1,"childdevid":"{CHILD}"}}]"#));
    assert!(it.child_is(PresenceState::Online));
    drop(it.mqtt.wire);
    let child = it.site.platform.device_by_serial(CHILD).expect("registered");
    eventually("the child goes with its hub", || child.presence().reason == "hub_offline");
}

#[test]
fn a_child_is_asked_through_its_hub_and_answers_for_itself() {
    let mut it = hub();
    it.prove(1, CHILD, &proof(CODE, CHILD));
    it.child_event(2);
    let (platform, child) = (Arc::clone(&it.site.platform), it.child());
    let invoked = it.site.spawn(async move {
        let [resource, index, area, name] = ["Lamp", "0", "Light", "Blink"].map(Into::into);
        let (path, by) = (DevicePath { resource, index, area, name }, &Caller::program());
        let deadline = Duration::from_secs(20);
        let invoke = Invoke { path, input: None, deadline, queue: None, idempotency_key: None, by };
        platform.invoke(&child, invoke).await.map(|(_, outcome)| outcome)
    });
    let sent = it.arrived();
    assert_eq!(sent.topic, format!("/iot/SN0000001/{CHILD}/0-Lamp/model/service/operate/Light/Blink"));
    // An answer in the name of the hub itself is an answer to nothing.
    it.reply("/iot/SN0000001/global/0-Lamp/model/service/operate_reply/Light/Blink", 3, sent.seq, br#"{"code":0}"#);
    it.site.expect_fact("reply_to_nothing");
    let topic = format!("/iot/SN0000001/{CHILD}/0-Lamp/model/service/operate_reply/Light/Blink");
    it.reply(&topic, 4, sent.seq, br#"{"code":0,"data":7}"#);
    let outcome = it.site.block_on(invoked).expect("no panic").expect("sent");
    assert_eq!(outcome, Outcome::Done { output: Some("7".into()) });
}

#[test]
fn osap_13_2_7_a_hub_speaks_for_nobody_but_its_children() {
    let mut it = hub();
    it.child_event(1);
    it.site.expect_fact("unknown_child");
    assert!(it.site.events().is_empty());
    let refused = |serial: &str| format!(r#"{{"childserial":"{serial}","result":1}}"#);
    assert_eq!(it.prove(2, CHILD, &proof("WRONGC", CHILD)), refused(CHILD));
    assert_eq!(it.prove(3, "NOBODY", &proof(CODE, "NOBODY")), refused("NOBODY"));
    it.site.expect_fact("child_unproven");
    it.tell(1, 4, &list(1));
    it.arrived();
    it.site.expect_fact("unproven_child");
    assert!(it.child_is(PresenceState::NeverSeen));
    let query = AuditQuery { limit: 10, ..AuditQuery::default() };
    let actions = || -> Vec<String> {
        let rows = it.site.block_on(it.site.platform.audits(&query)).expect("readable");
        rows.into_iter().map(|row| row.action).collect()
    };
    for action in ["hub.unknown_child", "hub.child_refused"] {
        eventually(action, || actions().iter().any(|known| known == action));
    }
}

#[test]
fn a_child_that_is_shut_out_is_shut_out_at_once_and_may_come_back() {
    let mut it = hub();
    it.prove(1, CHILD, &proof(CODE, CHILD));
    it.child_event(2);
    let set_disabled = |it: &Logged, disabled| {
        it.site.block_on(it.site.platform.set_disabled(&it.child(), disabled, &Caller::program())).expect("stored");
    };
    set_disabled(&it, true);
    assert!(it.child_is(PresenceState::Offline));
    it.child_event(3);
    assert_eq!(it.site.events().len(), 1, "its topic was known, and is judged again");
    assert!(it.mqtt.is_alive(), "the hub goes on");
    set_disabled(&it, false);
    it.child_event(4);
    assert_eq!(it.site.events().len(), 2);
    assert!(it.child_is(PresenceState::Online));
}

#[test]
fn a_hub_with_more_children_than_it_may_have_is_held_to_64() {
    let mut it = logged_in();
    let hub = it.site.device();
    for n in 0..65 {
        let new = vestibule_platform::NewDevice {
            serial: format!("SUB{n}"),
            code: vestibule_platform::Secret::new(CODE),
            product: None,
            name: None,
            parent: Some(Arc::clone(&hub)),
        };
        it.site.block_on(it.site.platform.add_device(new, &Caller::program())).expect("registered");
    }
    for n in 0..65 {
        let topic = format!("/iot/SN0000001/SUB{n}/0-Lamp/model/event/report/Alarm/Smoke");
        it.reply(&topic, n + 1, u64::from(n) + 1, br#"{"level":1}"#);
    }
    assert_eq!(it.site.events().len(), 64);
    it.site.expect_fact("too_many_children");
}

#[test]
fn osap_13_2_3_a_hub_cannot_guess_the_code_of_a_device_also_not_all_at_once() {
    const OTHER: &str = "SUB000002";
    let mut it = hub();
    it.site.add(OTHER);
    it.prove(1, CHILD, &proof(CODE, CHILD));
    let body =
        format!(r#"{{"childserial":"{OTHER}","childverifycode":"{}","devAccessMode":0}}"#, proof("WRONGC", OTHER));
    for n in 2..32 {
        it.reply("/7002/16", n, n.into(), body.as_bytes());
    }
    let refused = format!(r#"{{"childserial":"{OTHER}","result":1}}"#);
    for _ in 0..20 {
        assert_eq!(it.arrived().body, refused);
    }
    it.site.expect_fact("child_guessed");
    let body = format!(r#"{{"childserial":"{OTHER}","childverifycode":"{}","devAccessMode":0}}"#, proof(CODE, OTHER));
    it.reply("/7002/16", 32, 32, body.as_bytes());
    // The next messages to the hub are the answers to its next ones: nothing is said of what is not looked at.
    assert_eq!(it.prove(33, "NOBODY", &proof(CODE, "NOBODY")), r#"{"childserial":"NOBODY","result":1}"#);
    let accepted = format!(r#"{{"childserial":"{CHILD}","result":0}}"#);
    assert_eq!(it.prove(34, CHILD, &proof(CODE, CHILD)), accepted, "what it has it does not lose");
    assert_eq!(it.site.platform.device_by_serial(OTHER).expect("registered").parent(), None);
}

#[test]
fn a_child_that_is_registered_anew_is_heard_without_a_new_connection() {
    let mut it = hub();
    it.prove(1, CHILD, &proof(CODE, CHILD));
    it.child_event(2);
    it.site.block_on(it.site.platform.remove_device(&it.child(), &Caller::program())).expect("removed");
    it.child_event(3);
    assert_eq!(it.site.events().len(), 1);
    it.site.add(CHILD);
    it.prove(4, CHILD, &proof(CODE, CHILD));
    it.child_event(5);
    assert_eq!(it.site.events().len(), 2);
}

#[test]
fn a_hub_is_told_nothing_of_a_child_that_may_be_let_in_again() {
    let mut it = hub();
    it.site.block_on(it.site.platform.set_disabled(&it.child(), true, &Caller::program())).expect("stored");
    let body = format!(r#"{{"childserial":"{CHILD}","childverifycode":"{}","devAccessMode":0}}"#, proof(CODE, CHILD));
    it.reply("/7002/16", 1, 1, body.as_bytes());
    it.site.expect_fact("child_disabled");
    // The next message to the hub is the answer to the next one of its own.
    assert_eq!(it.prove(2, "NOBODY", &proof(CODE, "NOBODY")), r#"{"childserial":"NOBODY","result":1}"#);
}

#[test]
fn a_child_that_comes_in_by_itself_leaves_its_hub() {
    let mut it = hub();
    it.prove(1, CHILD, &proof(CODE, CHILD));
    it.child_event(2);
    let mut own = TestDevice::of(CHILD);
    let (mut mqtt, _) = own.come_in(&it.site);
    assert_eq!(it.child().parent(), None);
    it.child_event(3);
    it.site.expect_fact("unknown_child");
    assert!(mqtt.is_alive(), "the hub does not get in its way");
    assert_eq!(it.prove(4, CHILD, &proof(CODE, CHILD)), format!(r#"{{"childserial":"{CHILD}","result":1}}"#));
}
