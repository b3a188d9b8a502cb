//! Attributes: reported and set through the shadow and through the model (osap-wire 10.1, 10.2).

use std::sync::Arc;
use std::time::Duration;

use osap::das::envelope::MsgType;
use tokio::task::JoinHandle;
use vestibule_platform::{DevicePath, Leaf, Set, SetError, SetOutcome};

use crate::operations::{Logged, logged_in};
use crate::site::eventually;

const SHADOW: &str = "/iot/SN0000001/global/0-Lamp/basic/shadow";
const MODEL: &str = "/iot/SN0000001/global/0-Lamp/model/attribute";
const LONG: Duration = Duration::from_secs(20);

fn path() -> DevicePath {
    DevicePath { resource: "Lamp".into(), index: "0".into(), area: "Light".into(), name: "Power".into() }
}

impl Logged {
    fn wish(&self, value: &'static str, wait: Duration) -> JoinHandle<Result<Leaf, SetError>> {
        let (platform, device, token) = (Arc::clone(&self.site.platform), self.site.device(), self.site.token());
        self.site.spawn(async move {
            let caller = platform.authorize(&token).expect("the administrator");
            platform
                .set(&device, Set { path: path(), value, if_match: None, wait, expires_in: None, by: &caller })
                .await
        })
    }

    #[track_caller]
    fn wished(&self, wish: JoinHandle<Result<Leaf, SetError>>) -> SetOutcome {
        self.site.block_on(wish).expect("no panic").expect("taken").desired.expect("a wish").outcome
    }

    fn leaf(&self) -> Leaf {
        self.site.platform.attribute(&self.site.device(), &path()).expect("an attribute")
    }

    #[track_caller]
    fn shadow(&mut self, msg_type: &str, id: u16, seq: u64, body: &str) {
        self.reply(&format!("{SHADOW}/{msg_type}"), id, seq, body.as_bytes());
    }
}

fn report(value: &str) -> String {
    let state = format!(r#"{{"domain":"Light","identifier":"Power","value":{value}}}"#);
    format!(r#"{{"method":"report","spv":3,"state":{{"reported":{state},"version":1}}}}"#)
}

#[test]
fn osap_10_2_a_device_of_the_shadow_reports_asks_and_is_set_through_it() {
    let mut it = logged_in();
    let wish = it.wish("true", Duration::ZERO);
    assert_eq!(it.wished(wish), SetOutcome::Pending);
    // Through the model, because it has not spoken of its state yet; 1.5.2 does not answer that (10.1).
    assert_eq!(it.arrived().topic, format!("{MODEL}/set/Light/Power"));

    it.shadow("report", 1, 1, &report("false"));
    assert_eq!(it.leaf().reported.expect("reported").value.get(), "false");
    it.shadow("query", 2, 2, r#"{"method":"query","windowsize":16256}"#);
    let reply = it.arrived();
    assert_eq!((reply.topic, reply.seq, reply.msg_type), (format!("{SHADOW}/query_reply"), 2, Some(MsgType::Response)));
    let expected = r#"{"code":0,"method":"query_reply","state":{"desired":[{"domain":"Light","identifier":"Power","value":true}]}}"#;
    assert_eq!(reply.body, expected);
    it.shadow("report", 3, 3, &report("true"));
    assert_eq!(it.leaf().desired.expect("a wish").outcome, SetOutcome::Applied);
    it.shadow("query", 4, 4, "{}");
    assert_eq!(it.arrived().body, r#"{"code":0,"method":"query_reply","state":{"desired":[]}}"#);

    let wish = it.wish("false", LONG);
    let set = it.arrived();
    assert_eq!((&*set.topic, set.msg_type), (&*format!("{SHADOW}/set"), Some(MsgType::Request)));
    assert!(set.body.starts_with(
        r#"{"method":"set","state":{"desired":{"domain":"Light","identifier":"Power","value":false},"version":"#
    ));
    it.shadow("set_reply", 5, set.seq, r#"{"method":"set_reply","payload":{"code":0},"timestamp":1}"#);
    assert_eq!(it.wished(wish), SetOutcome::Applied);

    let wish = it.wish("7", LONG);
    let set = it.arrived();
    it.shadow("set_reply", 6, set.seq, r#"{"method":"set_reply","payload":{"code":-1},"timestamp":1}"#);
    assert_eq!(it.wished(wish), SetOutcome::Refused { code: -1, message: None });
}

#[test]
fn osap_9_4_a_device_that_comes_back_by_a_light_login_is_told_what_it_missed() {
    let mut it = logged_in();
    it.shadow("report", 1, 1, &report("false"));
    let session = it.session.clone();
    drop(it.mqtt);
    it.site.expect_fact("connection_lost");
    let site = &it.site;
    let (platform, device, token) = (Arc::clone(&site.platform), site.device(), site.token());
    let caller = platform.authorize(&token).expect("the administrator");
    let wish = Set { path: path(), value: "true", if_match: None, wait: LONG, expires_in: None, by: &caller };
    site.block_on(platform.set(&device, wish)).expect("taken");
    let (code, mqtt) = it.device.log_in(&it.site, &session);
    assert_eq!(code, 0);
    it.mqtt = mqtt;
    let set = it.arrived();
    assert_eq!(set.topic, format!("{SHADOW}/set"));
    it.shadow("set_reply", 2, set.seq, r#"{"payload":{"code":0}}"#);
    it.shadow("report", 3, 2, &report("true"));
    assert_eq!(it.leaf().desired.expect("a wish").outcome, SetOutcome::Applied);
}

#[test]
fn osap_10_1_a_device_of_the_model_is_set_through_it_and_told_when_it_comes_back() {
    let mut it = logged_in();
    it.reply(&format!("{MODEL}/report/Light/Power"), 1, 1, br#"{"data":{"Value":1}}"#);
    let wish = it.wish("2", LONG);
    let set = it.arrived();
    assert_eq!((&*set.topic, &*set.body), (&*format!("{MODEL}/set/Light/Power"), r#"{"data":{"Value":2}}"#));
    let reply = format!("{MODEL}/set_reply/Light/Power");
    it.reply(&reply, 2, set.seq, br#"{"status":200,"code":"0x0","errorMsg":"success"}"#);
    assert_eq!(it.wished(wish), SetOutcome::Applied);

    // Sent, and the connection is lost before the answer: it stays pending and is sent again.
    let wish = it.wish("3", Duration::ZERO);
    assert_eq!(it.wished(wish), SetOutcome::Pending);
    it.arrived();
    let session = it.session.clone();
    let (code, mqtt) = it.device.log_in(&it.site, &session);
    assert_eq!(code, 0);
    it.mqtt = mqtt;
    it.reply(&format!("{MODEL}/report/Light/Power"), 3, 30, br#"{"data":{"Value":2}}"#);
    let again = it.arrived();
    assert_eq!(again.body, r#"{"data":{"Value":3}}"#);
    it.reply(&reply, 4, again.seq, br#"{"code":0}"#);
    let site = &it.site;
    eventually("the answer counts", || {
        let leaf = site.platform.attribute(&site.device(), &path()).expect("an attribute");
        leaf.desired.is_some_and(|desired| desired.outcome == SetOutcome::Applied)
    });
}

#[test]
fn a_body_of_the_shadow_that_is_none_is_dropped_like_any_other() {
    let mut it = logged_in();
    for (id, body) in
        [(1, "{}"), (2, "[]"), (3, r#"{"state":{"reported":{"domain":"a/b","identifier":"c","value":1}}}"#)]
    {
        it.shadow("report", id, u64::from(id), body);
    }
    it.site.expect_fact("not_opened");
    assert!(it.site.platform.attributes(&it.site.device()).is_empty());
    // A query before anything is known is answered, too.
    it.shadow("query", 4, 4, r#"{"windowsize":10}"#);
    assert_eq!(it.arrived().body, r#"{"code":0,"method":"query_reply","state":{"desired":[]}}"#);
}
