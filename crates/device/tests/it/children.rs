//! A hub and its children (osap-wire 10.6).

use std::sync::Arc;

use osap::das::login::FirstOrBreak::Break;
use parking_lot::Mutex;
use serde_json::json;
use vestibule_device::{Child, ChildBuilder, ChildError, ChildState, Device, MemoryStorage, ReportError, StartError};

use crate::life::first_connection;
use crate::server::{CODE, SERIAL, Seen, Server};
use crate::soon;

const AUTH_1: &str =
    r#"{"childserial":"SUB000001","childverifycode":"A3A8F72BF61D8E1336F528A501D91E05","devAccessMode":0}"#;

fn first_child() -> ChildBuilder {
    Child::builder("SUB000001", "ZXCVBN").product("PLUG").version("V1")
}

fn hub(server: &Server, children: impl IntoIterator<Item = ChildBuilder>) -> Device {
    let builder =
        Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new()).hub();
    children.into_iter().fold(builder, |builder, child| builder.child(child)).start().unwrap()
}

/// A message of the hub domain.
#[track_caller]
fn told(seen: Seen, number: u32, body: &str) {
    let Seen::Command(command) = seen else { panic!("{seen:?}") };
    assert_eq!((command.topic, command.body), (format!("/7002/{number}"), body.to_owned()));
    assert_eq!((&*command.version, command.answers), ("V2.0.0", false));
}

/// Judges a child, with `{}` for its serial.
pub async fn judge(server: &mut Server, serial: &str, result: u8) {
    let body = json!({"childserial": serial, "result": result}).to_string();
    server.send_unseen("/SN0000001/7002/17", 1, body);
}

/// Takes what comes until both PUBACK and these have been seen, whatever the order between them.
async fn expect_told(server: &mut Server, expected: &[(u32, &str)]) {
    let mut expected = expected.iter();
    let mut acknowledged = false;
    while !acknowledged || !expected.as_slice().is_empty() {
        match server.next().await {
            Seen::PubAck(78) => acknowledged = true,
            seen => {
                let (number, body) = *expected.next().unwrap_or_else(|| panic!("{seen:?} as well"));
                told(seen, number, body);
            }
        }
    }
}

async fn reach(child: &Child, wanted: ChildState) {
    soon(child.watch_state().wait_for(|state| *state == wanted)).await.unwrap();
}

fn listed(connected: u8) -> String {
    format!(
        r#"[{{"connected":{connected},"childdevid":"SUB000001","version":"V1","type":"PLUG","FirmwareIdentificationCode":""}}]"#
    )
}

fn online(connected: u8) -> String {
    format!(r#"[{{"connected":{connected},"childdevid":"SUB000001"}}]"#)
}

/// A hub with one child that was accepted.
async fn accepted(server: &mut Server, child: ChildBuilder) -> (Device, Child) {
    let device = hub(server, [child]);
    server.expect(first_connection()).await;
    told(server.next().await, 16, AUTH_1);
    judge(server, "SUB000001", 0).await;
    expect_told(server, &[(1, &listed(1)), (3, &online(1)), (1, &listed(1))]).await;
    let child = device.child("SUB000001").unwrap();
    reach(&child, ChildState::Accepted).await;
    (device, child)
}

#[tokio::test]
async fn what_a_child_reports_waits_until_the_platform_was_told_of_it() {
    let mut server = Server::start().await;
    let device = hub(&server, [first_child()]);
    let child = device.child("SUB000001").unwrap();
    let reporter = child.clone();
    let report = tokio::spawn(async move {
        reporter.event("Plug", 0, "Power", "Overload").report(&json!({"watts": 3000})).await.unwrap().id
    });
    server.expect(first_connection()).await;
    told(server.next().await, 16, AUTH_1);
    // The hub itself is not held back.
    soon(device.event("Hub", 0, "Power", "Up").report(&json!({}))).await.unwrap();
    assert!(server.event().await.topic.starts_with("/iot/SN0000001/global/"));
    assert_eq!(child.state(), ChildState::Waiting);
    judge(&mut server, "SUB000001", 0).await;
    expect_told(&mut server, &[(1, &listed(1)), (3, &online(1)), (1, &listed(1))]).await;
    let event = server.event().await;
    assert_eq!(event.topic, "/iot/SN0000001/SUB000001/0-Plug/model/event/report/Power/Overload");
    assert_eq!(soon(report).await.unwrap(), event.id);

    child.set_connected(false);
    told(server.next().await, 1, &listed(0));
    told(server.next().await, 3, &online(0));
    assert!(device.remove_child("SUB000001") && !device.remove_child("SUB000001"));
    told(server.next().await, 1, "[]");
    told(server.next().await, 3, "[]");
    assert_eq!(child.state(), ChildState::Gone);
    let late = child.event("Plug", 0, "Power", "Overload").report(&json!({})).await;
    assert!(matches!(late, Err(ReportError::NoChild)));
    let late = child.attribute("Plug", 0, "Power", "Watts").report(&1).await;
    assert!(matches!(late, Err(ReportError::NoChild)));
}

#[tokio::test]
async fn a_refused_child_is_told_to_the_program_and_may_be_tried_again() {
    let mut server = Server::start().await;
    let device = hub(&server, [first_child()]);
    let child = device.child("SUB000001").unwrap();
    let reporter = child.clone();
    let report = tokio::spawn(async move { reporter.event("Plug", 0, "Power", "Overload").report(&json!({})).await });
    server.expect(first_connection()).await;
    told(server.next().await, 16, AUTH_1);
    judge(&mut server, "SUB000001", 1).await;
    expect_told(&mut server, &[(1, "[]"), (3, "[]"), (1, "[]")]).await;
    reach(&child, ChildState::Refused).await;
    assert!(matches!(soon(report).await.unwrap(), Err(ReportError::NoChild)), "it is given up");
    let pass = child.pass("Plug", 0, "Power", "Raw", "a/b", b"").await;
    assert!(matches!(pass, Err(ReportError::NoChild)));

    child.retry();
    told(server.next().await, 16, AUTH_1);
    judge(&mut server, "SUB000001", 0).await;
    expect_told(&mut server, &[(1, &listed(1)), (3, &online(1))]).await;
    soon(child.event("Plug", 0, "Power", "Overload").report(&json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_child_is_authenticated_again_after_a_light_login() {
    let mut server = Server::start().await;
    let (_device, child) = accepted(&mut server, first_child()).await;
    server.kill.notify_one();
    reach(&child, ChildState::Waiting).await;
    let reporter = child.clone();
    let report = tokio::spawn(async move { reporter.event("Plug", 0, "Power", "Overload").report(&json!({})).await });
    server.expect([Seen::Connect { full: false, which: Break, code: 0 }]).await;
    told(server.next().await, 16, AUTH_1);
    judge(&mut server, "SUB000001", 0).await;
    expect_told(&mut server, &[(1, &listed(1)), (3, &online(1)), (1, &listed(1))]).await;
    server.event().await;
    assert!(soon(report).await.unwrap().is_ok());
}

#[tokio::test]
async fn an_unacknowledged_event_of_a_child_gets_a_new_number_and_keeps_its_id() {
    let mut server = Server::start().await;
    let (_device, child) = accepted(&mut server, first_child()).await;
    server.world.lock().swallow = 1;
    let reporter = child.clone();
    let report =
        tokio::spawn(
            async move { reporter.event("Plug", 0, "Power", "Overload").report(&json!({})).await.unwrap().id },
        );
    let first = server.event().await;
    server.kill.notify_one();
    server.expect([Seen::Connect { full: false, which: Break, code: 0 }]).await;
    told(server.next().await, 16, AUTH_1);
    judge(&mut server, "SUB000001", 0).await;
    expect_told(&mut server, &[(1, &listed(1)), (3, &online(1)), (1, &listed(1))]).await;
    let second = server.event().await;
    assert_eq!((&second.id, second.dup), (&first.id, false));
    assert!(second.seq > first.seq);
    assert_eq!(soon(report).await.unwrap(), first.id);
}

#[tokio::test]
async fn a_child_carries_out_operations_and_takes_values() {
    let mut server = Server::start().await;
    let values = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&values);
    let plug = first_child()
        .operation("Plug", 0, "Power", "Toggle", async |times: u32| Ok(json!({ "times": times })))
        .attribute("Plug", 0, "Power", "On", move |on: bool| {
            taken.lock().push(on);
            async { Ok(()) }
        });
    let (device, child) = accepted(&mut server, plug).await;
    let query = "/iot/SN0000001/SUB000001/0-Plug/basic/shadow/query".into();
    server.expect([Seen::Message { topic: query, body: r#"{"method":"query","windowsize":16256}"#.into() }]).await;
    soon(child.attribute("Plug", 0, "Power", "Watts").report(&7)).await.unwrap();
    let Seen::Message { topic, body } = server.next().await else { panic!("the report") };
    assert_eq!(topic, "/iot/SN0000001/SUB000001/0-Plug/basic/shadow/report");
    assert!(body.contains(r#""identifier":"Watts","value":7"#), "{body}");

    let operate = "/iot/SN0000001/SUB000001/0-Plug/model/service/operate/Power/Toggle";
    server.send(operate, 21, r#"{"data":3}"#).await;
    let reply = Seen::Message {
        topic: operate.replace("operate", "operate_reply"),
        body: r#"{"code":0,"data":{"times":3}}"#.into(),
    };
    server.expect([reply]).await;
    // Neither the hub nor another child can do it.
    for (sub, seq) in [("global", 22), ("SUB000009", 23)] {
        server.send(&operate.replace("SUB000001", sub), seq, r#"{"data":3}"#).await;
        let Seen::Message { topic, body } = server.next().await else { panic!("the reply") };
        assert!(topic.contains(sub) && body.starts_with(r#"{"code":-1"#), "{topic} {body}");
    }

    let set = r#"{"method":"set","state":{"desired":{"domain":"Power","identifier":"On","value":true},"version":1}}"#;
    server.send("/iot/SN0000001/SUB000001/0-Plug/basic/shadow/set", 24, set).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let Seen::Message { topic, .. } = server.next().await else { panic!("the reply and the report") };
        seen.push(topic.replace("/iot/SN0000001/SUB000001/0-Plug/basic/shadow/", ""));
    }
    seen.sort();
    assert_eq!((seen, &*values.lock()), (vec!["report".to_owned(), "set_reply".to_owned()], &vec![true]));
    assert_eq!(device.counters().operations, 2);
}

#[tokio::test]
async fn a_device_becomes_a_hub_while_it_runs() {
    let mut server = Server::start().await;
    let device = Device::builder(SERIAL, CODE)
        .lbs(server.lbs.to_string())
        .legacy()
        .storage(MemoryStorage::new())
        .start()
        .unwrap();
    server.expect(first_connection()).await;
    crate::reach(&device, |state| *state == vestibule_device::State::Online).await;
    let child = device.add_child(first_child()).unwrap();
    assert_eq!(device.add_child(first_child()).unwrap_err(), ChildError::Exists);
    told(server.next().await, 16, AUTH_1);
    judge(&mut server, "SUB000001", 0).await;
    expect_told(&mut server, &[(1, &listed(1)), (3, &online(1)), (1, &listed(1))]).await;
    reach(&child, ChildState::Accepted).await;
    assert_eq!(device.children().len(), 1);
    assert!(format!("{child:?}").contains("Accepted"));
}

#[tokio::test]
async fn a_hub_that_never_had_a_child_says_so() {
    let mut server = Server::start().await;
    let _device = hub(&server, []);
    server.expect(first_connection()).await;
    told(server.next().await, 1, "{}");
    told(server.next().await, 3, "[]");
    told(server.next().await, 1, "{}");
}

#[tokio::test]
async fn a_wrong_child_is_refused_at_the_start() {
    let server = Server::start().await;
    let start = |child: ChildBuilder| {
        let builder = Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new());
        builder.child(first_child()).child(child).start()
    };
    for (child, expected) in [(first_child(), ChildError::Exists), (Child::builder("global", "A"), ChildError::Global)]
    {
        let Err(StartError::Child { source, .. }) = start(child) else { panic!("{expected}") };
        assert_eq!(source, expected);
    }
}
