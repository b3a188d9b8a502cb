//! Hubs and the devices behind them (osap-wire 10.6, 13.2.7).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

    /// Shows the proof of a child.
    #[track_caller]
    fn show(&mut self, id: u16, serial: &str, proof: &str) {
        let body = format!(r#"{{"childserial":"{serial}","childverifycode":"{proof}","devAccessMode":0}}"#);
        self.reply("/7002/16", id, id.into(), body.as_bytes());
    }

    /// So many proofs are over for this reason, and of none of them was the hub told anything: the next message to it is the
    /// answer to what it tells now.
    #[track_caller]
    fn is_told_nothing(&mut self, id: u16, reason: &str, count: u32) {
        let hub = self.site.device();
        let over = || hub.facts().iter().filter(|fact| fact.reason == reason).map(|fact| fact.count).sum::<u32>();
        eventually(reason, || over() == count);
        self.tell(3, id, "[]");
        assert_eq!(self.arrived().topic, "/SN0000001/7002/4");
    }

    /// Proves a child, and gives the result the hub is told.
    #[track_caller]
    fn prove(&mut self, id: u16, serial: &str, proof: &str) -> String {
        self.show(id, serial, proof);
        let verdict = self.arrived();
        assert_eq!((&*verdict.topic, &*verdict.version), ("/SN0000001/7002/17", "V2.0.0"));
        assert_eq!((verdict.seq, verdict.msg_type), (id.into(), Some(MsgType::Response)));
        verdict.body
    }

    /// The next messages to the hub, in no order.
    #[track_caller]
    fn answers(&mut self, count: usize) -> BTreeSet<String> {
        (0..count).map(|_| self.arrived().body).collect()
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

fn accepted(serial: &str) -> String {
    format!(r#"{{"childserial":"{serial}","result":0}}"#)
}

fn refused(serial: &str) -> String {
    format!(r#"{{"childserial":"{serial}","result":1}}"#)
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
    assert_eq!(it.prove(1, CHILD, &proof(CODE, CHILD)), accepted(CHILD));
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
    assert_eq!(it.prove(2, CHILD, &proof("WRONGC", CHILD)), refused(CHILD));
    assert_eq!(it.prove(3, "NOBODY", &proof(CODE, "NOBODY")), refused("NOBODY"));
    it.site.expect_fact("child_unproven");
    it.tell(1, 4, &list(1));
    it.arrived();
    it.site.expect_fact("unproven_child");
    assert!(it.child_is(PresenceState::NeverSeen));
    let query = AuditQuery { limit: 10, ..AuditQuery::default() };
    let actions = || -> Vec<String> {
        let rows = it.site.block_on(it.site.platform.audits(&query, &Caller::program())).expect("readable");
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
            one_time: false,
            product: None,
            name: None,
            parent: Some(Arc::clone(&hub)),
            org: None,
            labels: Default::default(),
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
    let other = it.site.add(OTHER);
    it.prove(1, CHILD, &proof(CODE, CHILD));
    for n in 2..32 {
        it.show(n, OTHER, &proof("WRONGC", OTHER));
    }
    for _ in 0..5 {
        assert_eq!(it.arrived().body, refused(OTHER));
    }
    it.site.expect_fact("child_guessed");
    it.show(32, OTHER, &proof(CODE, OTHER));
    // The next messages to the hub are the answers to its next ones: nothing is said of what is not looked at.
    assert_eq!(it.prove(33, "NOBODY", &proof(CODE, "NOBODY")), refused("NOBODY"));
    assert_eq!(it.prove(34, CHILD, &proof(CODE, CHILD)), accepted(CHILD), "what it has it does not lose");
    assert_eq!(other.parent(), None);
    // What an operator does for a device gives it a fresh budget.
    for disabled in [true, false] {
        it.site.block_on(it.site.platform.set_disabled(&other, disabled, &Caller::program())).expect("stored");
    }
    assert_eq!(it.prove(35, OTHER, &proof(CODE, OTHER)), accepted(OTHER));
}

/// Each that is no child of the hub: nobody has registered it, its code is another one, it is disabled, it is another hub's.
/// The last two are shown with the right code.
fn strangers(it: &Logged) -> [(&'static str, String); 4] {
    let [_wrong, disabled, foreign] = ["SUB000002", "SUB000003", "SUB000004"].map(|serial| it.site.add(serial));
    let by = &Caller::program();
    it.site.block_on(it.site.platform.set_disabled(&disabled, true, by)).expect("stored");
    let other_hub = it.site.add("HUB000002");
    let code = Code::new(CODE).expect("a code");
    let proves = |known: &vestibule_platform::Secret| known.expose() == code.as_bytes();
    it.site.block_on(it.site.platform.admit_child(&other_hub, &foreign.serial, proves)).expect("adopted");
    [("SUB000001", CODE), ("SUB000002", "WRONGC"), ("SUB000003", CODE), ("SUB000004", CODE)]
        .map(|(serial, code)| (serial, proof(code, serial)))
}

#[test]
fn osap_13_2_3_no_answer_and_no_silence_tells_a_hub_which_serials_exist() {
    const PACE: Duration = Duration::from_millis(25);
    let mut it = logged_in();
    let strangers = strangers(&it);
    let mut id = 0;
    for (serial, proof) in &strangers {
        for _ in 0..5 {
            id += 1;
            let begun = Instant::now();
            assert_eq!(it.prove(id, serial, proof), refused(serial));
            assert!(begun.elapsed() >= PACE, "{serial} had its answer too soon");
        }
        // From now on there is none.
        it.show(id + 1, serial, proof);
        id += 1;
    }
    // What the hub has left is spent by serials that do not exist.
    let left = 64 * 6 - 4 * 5;
    for batch in 0..left / 52 {
        let nobodies: Vec<String> = (0..52).map(|n| format!("NO{}", 100 * batch + n)).collect();
        for nobody in &nobodies {
            id += 1;
            it.show(id, nobody, &proof(CODE, nobody));
        }
        assert_eq!(it.answers(52), nobodies.iter().map(|nobody| refused(nobody)).collect());
    }
    let later = it.site.add("SUB000005");
    for (serial, proof) in strangers.iter().cloned().chain([("NO", proof(CODE, "NO")), (CHILD, proof(CODE, CHILD))]) {
        id += 1;
        it.show(id, serial, &proof);
    }
    id += 1;
    it.show(id, &later.serial, &proof(CODE, &later.serial));
    it.is_told_nothing(id + 1, "child_guessed", 4 + 7);
    // An hour later it is looked at again.
    it.site.clock.advance(Duration::from_secs(3_600 + 400));
    assert_eq!(it.prove(id + 2, &later.serial, &proof(CODE, &later.serial)), accepted(&later.serial));
}

#[test]
fn osap_13_2_3_a_hub_that_came_before_its_children_were_registered_brings_them_once_they_are() {
    let mut it = logged_in();
    let children: Vec<String> = (0..64).map(|n| format!("SUB{n:06}")).collect();
    let show_all = |it: &mut Logged, round: u16| {
        for (n, child) in (1..).zip(&children) {
            it.show(100 * round + n, child, &proof(CODE, child));
        }
    };
    for round in 0..5 {
        show_all(&mut it, round);
        assert_eq!(it.answers(64), children.iter().map(|child| refused(child)).collect());
    }
    // It asks on, and hears nothing.
    show_all(&mut it, 5);
    it.is_told_nothing(599, "child_guessed", 64);
    for child in &children {
        it.site.add(child);
    }
    show_all(&mut it, 6);
    assert_eq!(it.answers(64), children.iter().map(|child| accepted(child)).collect());
    assert_eq!(it.site.platform.children(&it.site.device()).len(), 64);
}

/// While the store is down nobody is told anything, whether he would have to be read, is in memory, or does not exist.
#[test]
fn osap_13_2_3_a_hub_is_not_told_who_exists_while_the_store_is_down() {
    let mut it = logged_in();
    let strangers = strangers(&it);
    let read = it.site.add("SUB000005");
    it.site.block_on(it.site.platform.secrets(&read)).expect("readable");
    it.site.break_store();
    for (id, (serial, proof)) in (1..).zip(&strangers) {
        it.show(id, serial, proof);
    }
    it.show(5, &read.serial, &proof("WRONGC", &read.serial));
    it.is_told_nothing(6, "child_unavailable", 5);
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
fn a_hub_is_told_nothing_of_a_child_of_its_own_that_may_be_let_in_again() {
    let mut it = hub();
    it.prove(1, CHILD, &proof(CODE, CHILD));
    for disabled in [true, false] {
        it.site.block_on(it.site.platform.set_disabled(&it.child(), disabled, &Caller::program())).expect("stored");
        if disabled {
            it.show(2, CHILD, &proof(CODE, CHILD));
            it.is_told_nothing(3, "child_disabled", 1);
        }
    }
    assert_eq!(it.prove(4, CHILD, &proof(CODE, CHILD)), accepted(CHILD));
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
    assert_eq!(it.prove(4, CHILD, &proof(CODE, CHILD)), refused(CHILD));
}
