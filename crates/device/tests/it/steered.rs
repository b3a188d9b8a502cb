//! What the platform tells a device about itself: time, owner, presence, and where to be (osap-wire 10.4, 10.5).

use std::sync::Arc;
use std::time::Duration;

use osap::das::login::FirstOrBreak::Break;
use osap::lbs::Run;
use parking_lot::Mutex;
use serde_json::json;
use vestibule_device::{Builder, Device, MemoryStorage, PresenceError, ReportError, State, StopReason};

use crate::life::{first_connection, goodbye, login, start};
use crate::server::{CODE, Command, SERIAL, Seen, Server};
use crate::{reach, soon};

/// A device that is online.
pub async fn online(server: &mut Server, configure: impl FnOnce(Builder) -> Builder) -> Device {
    let builder = Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new());
    let device = configure(builder).start().unwrap();
    server.expect(first_connection()).await;
    reach(&device, |state| *state == State::Online).await;
    device
}

/// Reports an event and sees it arrive.
async fn alive(device: &Device, server: &mut Server) {
    soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({}))).await.unwrap();
    server.event().await;
}

#[tokio::test]
async fn osap_10_5_a_pushed_keep_alive_is_used_in_later_connects() {
    let mut server = Server::start().await;
    let _device = online(&mut server, |builder| builder).await;
    server.send("/SN0000001/1000/1", 1, r#"{"KeepAlive":{"Interval":7}}"#).await;
    server.send("/SN0000001/1000/1", 2, r#"{"KeepAlive":{"Interval":0}}"#).await;
    server.kill.notify_one();
    server.expect([Seen::Connect { full: false, which: Break, code: 0 }]).await;
    assert_eq!(server.world.lock().keep_alives, [30, 30, 7]);
}

#[tokio::test]
async fn osap_10_5_a_device_that_is_forced_offline_ends_for_good() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    server.send("/SN0000001/1000/3", 1, "").await;
    server.expect([Seen::Disconnect]).await;
    reach(&device, |state| *state == State::Stopped(StopReason::ForcedOffline)).await;
    let report = device.event("Camera", 0, "Detection", "Motion").report(&json!({})).await;
    assert!(matches!(report, Err(ReportError::Stopped)));
    soon(device.stop()).await.unwrap();
}

#[tokio::test]
async fn osap_10_5_a_device_that_is_forced_offline_stays_so_when_the_das_hangs_up() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    server.world.lock().hang_up = true;
    server.send_unseen("/SN0000001/1000/3", 1, "{}");
    reach(&device, |state| *state == State::Stopped(StopReason::ForcedOffline)).await;
    assert_eq!(device.counters().logins, 1);
}

#[tokio::test]
async fn osap_10_5_a_redirected_device_logs_in_at_the_new_lbs() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    assert_eq!(server.world.lock().lbs_domain, "127.0.0.1");
    // The same LBS under another name: the port stays.
    let redirect = "<?xml version=\"1.0\"?><Request><DomainName>localhost</DomainName></Request>";
    for command in ["13433", "13433", "18719"] {
        server.send_unseen(&format!("/SN0000001/1000/{command}"), 1, redirect);
    }
    // The acknowledgements and the run overtake each other.
    let mut seen = Vec::new();
    while !seen.contains(&Seen::Disconnect) {
        seen.push(server.next().await);
    }
    seen.retain(|seen| *seen != Seen::PubAck(78));
    let mut expected = vec![Seen::Run(Run::EcdhRefresh)];
    expected.extend(goodbye());
    assert_eq!(seen, expected, "once, and the old connection ends in order after that");
    server.expect([Seen::Connect { full: true, which: Break, code: 11 }, Seen::Run(Run::PlainRefresh)]).await;
    server.expect([Seen::Connect { full: true, which: Break, code: 0 }]).await;
    server.expect(login().into_iter().skip(1)).await;
    reach(&device, |state| *state == State::Online).await;
    assert_eq!(server.world.lock().lbs_domain, "localhost");

    server.send("/SN0000001/1000/13433", 2, redirect).await;
    alive(&device, &mut server).await;
    assert_eq!(device.counters().authentications, 4, "it is there already");
}

#[tokio::test]
async fn osap_10_5_a_redirect_to_where_nobody_is_leaves_the_link_alone() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    // Nobody listens there, so the attempt fails at once, and the next may come.
    server.send("/SN0000001/1000/13433", 1, "<Request><DomainName>127.0.0.2</DomainName></Request>").await;
    alive(&device, &mut server).await;
    server.send("/SN0000001/1000/13433", 2, "<Request><DomainName>127.0.0.1</DomainName></Request>").await;
    server.send("/SN0000001/1000/13433", 3, "<Request><DomainName>a b</DomainName></Request>").await;
    alive(&device, &mut server).await;
    assert_eq!((device.state(), device.counters().logins), (State::Online, 1));
    assert_eq!(device.counters().ignored, 1, "what is no name is no redirect");
}

#[tokio::test]
async fn osap_10_5_forbidden_commands_are_not_sent() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    let binding = "<Request><UserId>u</UserId></Request>";
    server.send("/SN0000001/1000/2", 1, r#"{"risk":{"1100":[18759],"7002":[]}}"#).await;
    server.send("/SN0000001/1100/18759", 2, binding).await;
    alive(&device, &mut server).await;
    assert_eq!(device.counters().forbidden, 1);
    server.send("/SN0000001/1000/2", 3, r#"{"risk":{}}"#).await;
    server.send("/SN0000001/1100/18759", 4, binding).await;
    assert_eq!(server.command().await.seq, 4);
}

#[tokio::test]
async fn osap_10_4_the_time_server_is_known_to_the_program() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| builder).await;
    assert_eq!(device.time_server(), None);
    let body = r#"{"NTP":{"Addr":"ntp.local","Port":123,"Interval":3600,"Timezone":"UTC+08:00"}}"#;
    server.send("/SN0000001/1100/1", 1, body).await;
    alive(&device, &mut server).await;
    let time_server = device.time_server().unwrap();
    assert_eq!((&*time_server.address, time_server.offset_minutes()), ("ntp.local", Some(480)));
}

#[tokio::test]
async fn osap_10_4_a_changed_binding_is_told_and_answered_under_its_own_number() {
    let mut server = Server::start().await;
    let owners = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&owners);
    let note = move |owner: Option<&str>| {
        told.lock().push(owner.map(str::to_owned));
        assert_ne!(owner, Some("bomb"), "a hook that panics does no harm");
    };
    let _device = online(&mut server, |builder| builder.on_binding(note)).await;
    for (seq, user) in [(7, "u&amp;1"), (8, ""), (9, "bomb")] {
        server.send("/SN0000001/1100/18759", seq, format!("<Request><UserId>{user}</UserId></Request>")).await;
        let expected = Command {
            topic: "/1100/18759".into(),
            version: "v2.0.0".into(),
            seq,
            answers: true,
            body: "<Response><Result>0</Result></Response>".into(),
        };
        assert_eq!(server.command().await, expected);
    }
    assert_eq!(*owners.lock(), [Some("u&1".into()), None, Some("bomb".into())]);
}

#[tokio::test]
async fn osap_10_4_presence_is_confirmed_with_the_next_token() {
    let mut server = Server::start().await;
    let challenges = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&challenges);
    let device =
        online(&mut server, |builder| builder.on_challenge(move |challenge| taken.lock().push(challenge))).await;
    server.send("/SN0000001/1100/20244", 5, r#"{"token":41,"bindPeriod":60}"#).await;
    let answer = server.command().await;
    assert_eq!((&*answer.topic, answer.seq, answer.answers), ("/1100/20245", 5, true));
    assert_eq!(answer.body, r#"{"result":0}"#);
    server.send("/SN0000001/1100/20244", 6, r#"{"token":50,"bindPeriod":0}"#).await;
    assert_eq!(server.command().await.seq, 6);
    let challenges = std::mem::take(&mut *challenges.lock());
    assert_eq!(challenges[0].period(), Duration::from_secs(60));
    assert_eq!(challenges[1].confirm(), Err(PresenceError::TooLate));
    challenges[0].confirm().unwrap();
    let presence = server.command().await;
    assert_eq!((&*presence.topic, presence.answers, &*presence.body), ("/1100/14344", false, r#"{"token":42}"#));
    soon(device.stop()).await.unwrap();
    assert_eq!(challenges[0].confirm(), Err(PresenceError::Offline));
}

#[tokio::test]
async fn osap_10_4_a_device_that_can_ask_nobody_says_so() {
    let mut server = Server::start().await;
    let _device = online(&mut server, |builder| builder).await;
    server.send("/SN0000001/1100/20244", 5, r#"{"token":41,"bindPeriod":60}"#).await;
    assert_eq!(server.command().await.body, r#"{"result":-1}"#);
}

#[tokio::test]
async fn osap_10_2_a_query_that_is_not_answered_is_asked_four_times() {
    let mut server = Server::start().await;
    let device = online(&mut server, |builder| {
        builder.keep_alive(5).attribute("Lamp", 0, "Light", "Power", |_: bool| async { Ok(()) })
    })
    .await;
    let query = Seen::Message {
        topic: "/iot/SN0000001/global/0-Lamp/basic/shadow/query".into(),
        body: r#"{"method":"query","windowsize":16256}"#.into(),
    };
    server.expect([query.clone()]).await;
    // From here on the clock runs ahead whenever nothing else is to be done.
    tokio::time::pause();
    let mut asked = 0;
    let mut pings = 0;
    while pings < 40 {
        match server.next().await {
            Seen::Ping => pings += 1,
            seen if seen == query => asked += 1,
            other => panic!("{other:?}"),
        }
    }
    tokio::time::resume();
    assert_eq!((asked, device.state(), device.counters().logins), (3, State::Online, 1));
}

#[tokio::test]
async fn osap_10_2_an_answered_query_is_not_asked_again() {
    let mut server = Server::start().await;
    let handler = |_: bool| async { Ok(()) };
    let device =
        online(&mut server, |builder| builder.keep_alive(5).attribute("Lamp", 0, "Light", "Power", handler)).await;
    let Seen::Message { topic, .. } = server.next().await else { panic!("the query") };
    let reply = r#"{"code":0,"method":"query_reply","state":{"desired":[]}}"#;
    server.send(&topic.replace("/query", "/query_reply"), 1, reply).await;
    tokio::time::pause();
    for _ in 0..40 {
        server.expect([Seen::Ping]).await;
    }
    tokio::time::resume();
    assert_eq!(device.state(), State::Online);
}

#[tokio::test]
async fn a_device_that_is_no_hub_says_nothing_of_children() {
    let mut server = Server::start().await;
    let device = start(&server, MemoryStorage::new());
    server.expect(first_connection()).await;
    alive(&device, &mut server).await;
    assert!(device.children().is_empty() && device.child("SUB000001").is_none() && !device.remove_child("SUB000001"));
    alive(&device, &mut server).await;
}
