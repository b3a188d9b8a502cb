//! What operators have done to a connection, what devices ask of the platform, and messages that pass through
//! (osap-wire 9.9, 10.1, 10.3 to 10.5).

use std::sync::Arc;
use std::time::Duration;

use osap::Serial;
use osap::das::base::{Ntp, ProfileQuery};
use osap::das::envelope::MsgType;
use osap::das::pass::Pass as Body;
use tokio::task::JoinHandle;
use vestibule_platform::{Caller, DevicePath, Directive, Invoke, Outcome, Pass, PassOutcome, PassQuery, PresenceState};

use crate::operations::{Logged, logged_in, logged_in_at};
use crate::site::{Plan, Site, eventually};

const MODEL: &str = "/iot/SN0000001/global/0-Lamp/model";

impl Logged {
    fn direct(&self, directive: Directive) {
        let (platform, device) = (Arc::clone(&self.site.platform), self.site.device());
        let directed = self.site.spawn(async move { platform.direct(&device, directive, &Caller::program()).await });
        self.site.block_on(directed).expect("no panic").expect("sent");
    }

    fn value(&self, area: &str, name: &str) -> String {
        let [resource, index, area, name] = ["global", "0", area, name].map(Into::into);
        let leaf = self.site.platform.attribute(&self.site.device(), &DevicePath { resource, index, area, name });
        leaf.expect("an attribute").reported.expect("reported").value.get().to_owned()
    }
}

#[test]
fn osap_10_5_a_device_is_redirected_told_its_keep_alive_and_sent_away() {
    let mut it = logged_in();
    it.direct(Directive::Redirect { host: "lbs2.example".into() });
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.version), ("/SN0000001/1000/13433", "v2.0.0"));
    assert_eq!(sent.msg_type, Some(MsgType::Request));
    assert_eq!(sent.body, "<Request><DomainName>lbs2.example</DomainName></Request>");
    it.direct(Directive::KeepAlive { seconds: 15 });
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.body), ("/SN0000001/1000/1", r#"{"KeepAlive":{"Interval":15}}"#));
    it.direct(Directive::ForceOffline);
    assert_eq!(it.arrived().topic, "/SN0000001/1000/3");
    assert_eq!(it.mqtt.frame(), None, "the device keeps the socket open, so the DAS closes it");
    eventually("it is away", || it.site.device().presence().state == PresenceState::Offline);
    it.site.expect_fact("forced_offline");
}

#[test]
fn osap_10_3_what_a_device_says_of_its_firmware_is_an_attribute() {
    let mut it = logged_in();
    let topic = |rest: &str| format!("/iot/SN0000001/global/0-global/ota/{rest}/report");
    let inform = br#"{"modules":[{"index":0,"module":"DT1","fw_ver":"V1.2.3 build 200101"}],"ver":"V1.0.0"}"#;
    it.reply(&topic("inform"), 1, 1, inform);
    assert_eq!(it.value("ota", "DT1"), r#"{"index":0,"version":"V1.2.3 build 200101","whole":"V1.0.0"}"#);
    let progress = br#"{"status":2,"process":40,"code":"0x00000000","errorMsg":"success","module":"DT1"}"#;
    it.reply(&topic("progress"), 2, 2, progress);
    assert_eq!(it.value("ota_progress", "DT1"), r#"{"code":0,"message":"success","percent":40,"status":2}"#);
}

#[test]
fn osap_10_4_who_owns_a_device_is_answered_and_its_leave_is_noted() {
    let mut it = logged_in();
    let request = b"<Request><DevSerial>SN0000001</DevSerial><Authorization></Authorization></Request>";
    it.reply("/1100/13381", 1, 41, request);
    let answer = it.arrived();
    assert_eq!((&*answer.topic, answer.seq, answer.msg_type), ("/SN0000001/1100/13382", 41, Some(MsgType::Response)));
    assert_eq!(answer.body, "<Response><Result>1055746</Result></Response>");
    it.reply("/1100/10247", 2, 42, request);
    it.site.expect_fact("leaving");
    it.reply("/1100/14448", 3, 43, b"{}");
    it.site.expect_fact("not_handled");
}

/// An answer names a place and the digest of what is there. It has no way to say that there is nothing.
#[test]
fn osap_10_4_a_device_that_asks_for_a_profile_is_not_sent_to_one_that_does_not_exist() {
    let mut it = logged_in();
    let serial = Serial::new("SN0000001").expect("a serial");
    let (product, version, profile_version) = ("CAM".to_owned(), "V1.2.3".to_owned(), "3.0".to_owned());
    let query = ProfileQuery { serial, product, version, profile_version, require_schema: true };
    let mut body = Vec::new();
    query.write(&mut body).expect("a body");
    it.reply("/1100/14448", 1, 41, &body);
    it.site.expect_fact("not_handled");
    // The next message to the device is the answer to its next question.
    let request = b"<Request><DevSerial>SN0000001</DevSerial><Authorization></Authorization></Request>";
    it.reply("/1100/13381", 2, 42, request);
    let answer = it.arrived();
    assert_eq!((&*answer.topic, answer.seq), ("/SN0000001/1100/13382", 42));
}

#[test]
fn osap_10_4_a_token_that_nobody_knows_binds_nothing_and_shows() {
    let mut it = logged_in();
    for (packet_id, token) in [(1, &br#"{"token":"t"}"#[..]), (2, b"{}"), (3, b"")] {
        it.reply("/1100/14338", packet_id, u64::from(packet_id), token);
    }
    it.site.expect_fact("bind_not_served");
    let request = b"<Request><DevSerial>SN0000001</DevSerial><Authorization></Authorization></Request>";
    it.reply("/1100/13381", 4, 41, request);
    assert_eq!(
        it.arrived().body,
        "<Response><Result>1055746</Result></Response>",
        "it is nobody's, and the line goes on"
    );
}

#[test]
fn osap_10_1_what_a_device_asks_for_is_answered() {
    let mut it = logged_in();
    it.reply(&format!("{MODEL}/attribute/query/Light/Power"), 1, 7, br#"{"data":{"Value":null}}"#);
    let answer = it.arrived();
    assert_eq!((&*answer.topic, answer.seq), (&*format!("{MODEL}/attribute/query_reply/Light/Power"), 7));
    assert_eq!(answer.body, r#"{"status":404,"code":"0x1","errorMsg":"nothing serves this here"}"#);
    it.reply(&format!("{MODEL}/attribute/report/Light/Power"), 2, 8, br#"{"data":{"Value":true}}"#);
    it.reply(&format!("{MODEL}/attribute/query/Light/Power"), 3, 9, br#"{"data":{"Value":null}}"#);
    let expected = r#"{"status":200,"code":"0x0","errorMsg":"success","data":{"Value":true}}"#;
    assert_eq!(it.arrived().body, expected);
    it.reply(&format!("{MODEL}/service/operate/Light/Ask"), 4, 10, br#"{"data":1}"#);
    let answer = it.arrived();
    assert_eq!(answer.topic, format!("{MODEL}/service/operate_reply/Light/Ask"));
    assert!(answer.body.starts_with(r#"{"status":404,"#));
}

#[test]
fn messages_pass_through_both_ways_and_are_delivered_when_the_device_has_them() {
    let mut it = logged_in();
    let topic = |way: &str| format!("/iot/SN0000001/global/0-Lamp/pass/Meter/Serial/{way}");
    let mut body = Vec::new();
    Body { media_type: "application/x-meter", bytes: &[0, 255] }.write(&mut body).expect("a message");
    it.reply(&topic("report"), 1, 1, &body);
    let (platform, device) = (Arc::clone(&it.site.platform), it.site.device());
    let pass = |deadline| {
        let (platform, device) = (Arc::clone(&platform), Arc::clone(&device));
        it.site.spawn(async move {
            let [resource, index, area, name] = ["Lamp", "0", "Meter", "Serial"].map(Into::into);
            let path = DevicePath { resource, index, area, name };
            let by = &Caller::program();
            platform.pass(&device, Pass { path, media_type: "text/plain", body: b"read 7", deadline, by }).await
        })
    };
    let passed = pass(Duration::from_secs(20));
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.body), (&*topic("deliver"), "\u{a}text/plainread 7"));
    let outcome = it.site.block_on(passed).expect("no panic").expect("sent");
    assert_eq!(outcome, PassOutcome::Delivered);
    let query = PassQuery { limit: 10, ..PassQuery::default() };
    let kept = it.site.block_on(it.site.platform.passed_messages(query, &Caller::program())).expect("readable").items;
    let expected = r#"{"direction":"up","media_type":"application/x-meter","bytes":2,"base64":"AP8="}"#;
    assert_eq!((kept.len(), &*kept[1].data), (2, expected));
}

#[test]
fn a_message_that_the_device_does_not_acknowledge_is_not_delivered() {
    let mut it = logged_in();
    let (platform, device) = (Arc::clone(&it.site.platform), it.site.device());
    let passed = it.site.spawn(async move {
        let [resource, index, area, name] = ["Lamp", "0", "Meter", "Serial"].map(Into::into);
        let (path, by) = (DevicePath { resource, index, area, name }, &Caller::program());
        let deadline = Duration::from_secs(20);
        platform.pass(&device, Pass { path, media_type: "text/plain", body: b"x", deadline, by }).await
    });
    it.mqtt.frame().expect("the message");
    drop(it.mqtt.wire);
    let outcome = it.site.block_on(passed).expect("no panic").expect("sent");
    assert_eq!(outcome, PassOutcome::Unknown);
}

impl Logged {
    fn ask(&self, name: &'static str, input: &'static str) -> JoinHandle<Result<Outcome, String>> {
        let (platform, device) = (Arc::clone(&self.site.platform), self.site.device());
        let area = if name == "upgrade" { "ota" } else { "base" };
        self.site.spawn(async move {
            let [resource, index, area, name] = ["global", "0", area, name].map(Into::into);
            let (path, by) = (DevicePath { resource, index, area, name }, &Caller::program());
            let (input, deadline) = (Some(input), Duration::from_secs(20));
            let invoke = Invoke { path, input, deadline, queue: None, idempotency_key: None, by };
            platform.invoke(&device, invoke).await.map(|(_, outcome)| outcome).map_err(|error| error.to_string())
        })
    }

    #[track_caller]
    fn answered(&self, asked: JoinHandle<Result<Outcome, String>>) -> Outcome {
        self.site.block_on(asked).expect("no panic").expect("sent")
    }
}

#[test]
fn osap_10_4_a_device_is_bound_and_knows_its_owner() {
    let mut it = logged_in();
    let asked = it.ask("bind", r#"{"user":"u1"}"#);
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.body), ("/SN0000001/1100/18759", "<Request><UserId>u1</UserId></Request>"));
    it.reply("/1100/18759", 1, sent.seq, b"<Response><Result>0</Result></Response>");
    assert_eq!(it.answered(asked), Outcome::Done { output: None });
    assert_eq!(it.value("base", "owner"), r#""u1""#);
    let request = b"<Request><DevSerial>SN0000001</DevSerial><Authorization></Authorization></Request>";
    it.reply("/1100/13381", 2, 41, request);
    assert_eq!(it.arrived().body, r#"<Response><Result>0</Result><User Id="u1"/></Response>"#);
    let asked = it.ask("bind", r#"{"user":null}"#);
    let sent = it.arrived();
    it.reply("/1100/18759", 3, sent.seq, b"<Response><Result>7</Result></Response>");
    assert_eq!(it.answered(asked), Outcome::Failed { code: 7, message: None });
    assert_eq!(it.value("base", "owner"), r#""u1""#, "it has not taken note");
    let refused = it.site.block_on(it.ask("bind", "7")).expect("no panic");
    assert!(refused.is_err_and(|error| error.starts_with("input ")));
}

#[test]
fn osap_10_4_who_is_at_the_device_shows_it() {
    let mut it = logged_in();
    let asked = it.ask("challenge", r#"{"token":41,"period_s":30}"#);
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.body), ("/SN0000001/1100/20244", r#"{"token":41,"bindPeriod":30}"#));
    it.reply("/1100/20245", 1, sent.seq, br#"{"result":0}"#);
    assert_eq!(it.answered(asked), Outcome::Done { output: None });
    it.reply("/1100/14344", 2, 50, br#"{"token":42}"#);
    assert_eq!(it.arrived().topic, "/SN0000001/1100/14345");
    let event = &it.site.events()[0];
    assert_eq!((&*event.path.area, &*event.path.name, &*event.data), ("base", "presence", r#"{"token":42}"#));
}

#[test]
fn osap_10_3_an_upgrade_is_an_operation_of_the_device_itself() {
    let mut it = logged_in();
    let order = r#"{"maxtry":3,"interval":5,"file_info":[{"module":"DT1","url":"host/path","degist":"00112233445566778899aabbccddeeff","fw_ver":"V2","size":7}]}"#;
    let asked = it.ask("upgrade", order);
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.body), ("/iot/SN0000001/global/0-global/ota/upgrade/operate", order));
    let topic = "/iot/SN0000001/global/0-global/ota/upgrade/operate_reply";
    it.reply(topic, 1, sent.seq, br#"{"code":"0x00000000","errorMsg":"Succeeded"}"#);
    assert_eq!(it.answered(asked), Outcome::Done { output: None });
    let asked = it.ask("upgrade", order);
    let sent = it.arrived();
    it.reply(topic, 2, sent.seq, br#"{"code":"0x0xffffffff","errorMsg":"device receive failed!"}"#);
    let message = Some("device receive failed!".into());
    assert_eq!(it.answered(asked), Outcome::Failed { code: i64::from(u32::MAX), message });
}

#[test]
fn osap_10_5_a_device_is_told_what_not_to_send() {
    let mut it = logged_in();
    it.direct(Directive::Silence { commands: [(1100, vec![1, 2]), (7002, vec![])].into() });
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.body), ("/SN0000001/1000/2", r#"{"risk":{"1100":[1,2],"7002":[]}}"#));
}

#[test]
fn osap_10_4_a_device_that_logs_in_is_told_the_time_server() {
    let (address, timezone) = ("time.example".to_owned(), "UTC+08:00".to_owned());
    let time = Some(Ntp { address, port: 123, interval_s: 3_600, timezone });
    let mut it = logged_in_at(Site::with(Plan { time, ..Plan::default() }));
    let sent = it.arrived();
    assert_eq!((&*sent.topic, &*sent.version), ("/SN0000001/1100/1", "v2.0.0"));
    let body = r#"{"NTP":{"Addr":"time.example","Port":123,"Interval":3600,"Timezone":"UTC+08:00"}}"#;
    assert_eq!(sent.body, body);
}
