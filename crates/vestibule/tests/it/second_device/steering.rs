//! A device none of our code is part of under orders, and its ways back (osap-wire 4.3, 9 and 10.5).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{Fresh, PATH, event};
use crate::support::{Listener, Platform, SecondDevice, until};

#[track_caller]
fn order(platform: &Platform, device: &Fresh, order: &str, body: &Value) {
    let answer = platform.http().post(&format!("/v1/devices/{}/{order}", device.serial), body);
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// A device that is in, under these flags, and stays.
#[track_caller]
fn held(platform: &Platform, device: &Fresh, more: &[&str]) -> SecondDevice {
    let mut running = device.start(platform, &[more, &["--hold", "60"]].concat());
    running.until("ping");
    running
}

/// Another name of the LBS: it forwards what comes in on the same port.
struct OtherLbs {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl OtherLbs {
    fn of(platform: &Platform) -> OtherLbs {
        let lbs = platform.address(Listener::Lbs);
        let IpAddr::V4(host) = lbs.ip() else { panic!("the tests listen on IPv4") };
        // No platform of the tests listens in this half of the loopback net.
        let [_, second, third, last] = host.octets();
        let address = SocketAddr::from((Ipv4Addr::new(127, second + 127, third, last), lbs.port()));
        let listener = TcpListener::bind(address).expect("nobody listens there");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let Ok(onward) = TcpStream::connect(lbs) else { return };
                for (mut from, mut to) in [(stream.try_clone(), onward.try_clone()), (Ok(onward), Ok(stream))]
                    .map(|(from, to)| (from.expect("a socket"), to.expect("a socket")))
                {
                    std::thread::spawn(move || {
                        // An error says that one side has gone, which the other is to see.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        OtherLbs { address, connections }
    }
}

#[test]
fn osap_10_5_a_redirected_device_authenticates_at_the_other_lbs_without_its_master_key() {
    let platform = Platform::start();
    let (device, other) = (Fresh::on(&platform), OtherLbs::of(&platform));
    let mut running = held(&platform, &device, &["--answer", "echo"]);
    let former = device.kept();
    order(&platform, &device, "redirect", &json!({ "host": other.address.ip().to_string() }));
    assert_eq!(running.until("authenticated")["run"], "ecdh_refresh");
    assert_eq!(running.until("redirect")["moved"], true);
    // It takes its leave, and its first login under the new key is answered 11 like every first one (13.2.2).
    running.until("unsubscribed");
    let logins = [running.until("connack"), running.until("connack")];
    assert_eq!(logins.each_ref().map(|login| &login["code"]), [11, 0]);
    assert!(logins.iter().all(|login| login["first"] == false), "it breaks with the old one: {logins:?}");
    running.until("subscribed");
    running.until("subscribed");
    assert_eq!(other.connections.load(Ordering::SeqCst), 2, "both runs went there");
    let kept = device.kept();
    assert_eq!(kept["dev_id"], former["dev_id"]);
    assert_ne!(kept["master_key"], former["master_key"]);
    let operation = format!("/v1/devices/{}/operations/Lamp/0/Light/Blink", device.serial);
    assert_eq!(platform.http().post(&operation, &json!({})).ok()["outcome"], "done");
    running.kill();
}

#[test]
fn osap_10_5_a_device_that_is_sent_where_nobody_listens_stays() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let mut running = held(&platform, &device, &[]);
    let peer = platform.device(&device.serial)["presence"]["peer"].clone();
    let IpAddr::V4(host) = platform.address(Listener::Lbs).ip() else { panic!("the tests listen on IPv4") };
    for nowhere in [host, Ipv4Addr::new(127, 255, 255, 253)] {
        order(&platform, &device, "redirect", &json!({ "host": nowhere.to_string() }));
        assert_eq!(running.until("redirect")["moved"], false, "{nowhere}");
    }
    let shown = platform.device(&device.serial);
    assert_eq!((&shown["presence"]["state"], &shown["presence"]["peer"]), (&json!("online"), &peer));
    running.kill();
}

#[test]
fn osap_10_5_a_pushed_keep_alive_counts_from_the_next_ping_on() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    // A timer of 1.5 times what is pushed, started at the push, would be over before the ping that is due.
    let mut running = held(&platform, &device, &["--keep-alive", "9"]);
    let peer = platform.device(&device.serial)["presence"]["peer"].clone();
    order(&platform, &device, "keep-alive", &json!({ "seconds": 5 }));
    assert_eq!(running.until("keep_alive")["seconds"], 5);
    assert_eq!(running.until("pinged")["after"], 9, "the one that was due");
    assert_eq!(running.until("pinged")["after"], 5);
    let shown = platform.device(&device.serial);
    assert_eq!(shown["presence"]["peer"], peer, "a healthy connection goes on (9.9)");
    running.kill();
}

fn invoke(platform: &Platform, device: &Fresh, operation: &str, body: &Value) -> Value {
    platform.http().post(&format!("/v1/devices/{}/operations/{operation}", device.serial), body).ok()
}

#[test]
fn osap_10_5_what_is_on_the_risk_list_is_not_sent_any_more_answers_included() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let mut running = device.start(&platform, &["--notice", "--answer", "echo", "--hold", "60"]);
    running.until("ping");
    let bind = json!({ "input": { "user": "u-1" }, "deadline_ms": 20_000 });
    assert_eq!(invoke(&platform, &device, "global/0/base/bind", &bind)["outcome"], "done");
    assert_eq!(running.until("binding")["user"], "u-1");
    // The answer to a change of binding, and a whole domain that it has no commands of.
    order(&platform, &device, "silence", &json!({ "commands": { "1100": [18_759, 10_247], "7002": [] } }));
    assert_eq!(running.until("risk_list")["domains"], json!({ "1100": [10_247, 18_759], "7002": [] }));
    let bind = json!({ "input": { "user": "u-2" }, "deadline_ms": 1_000 });
    assert_eq!(invoke(&platform, &device, "global/0/base/bind", &bind)["outcome"], "timed_out");
    assert_eq!(running.until("binding")["user"], "u-2");
    assert_eq!(running.until("withheld")["command"], "/1100/18759");
    let owner = format!("/v1/devices/{}/attributes/global/0/base/owner", device.serial);
    assert_eq!(platform.http().get(&owner).ok()["reported"]["value"], "u-1", "what is not confirmed is not so");
    // The list is of commands of the older form; all else goes on.
    assert_eq!(invoke(&platform, &device, "Lamp/0/Light/Blink", &json!({ "input": 1 }))["output"], 1);
    let other = json!({ "input": { "token": 1, "period_s": 60 } });
    assert_eq!(invoke(&platform, &device, "global/0/base/challenge", &other)["outcome"], "done");
    running.kill();
}

#[test]
fn osap_10_4_a_change_of_binding_is_answered_and_the_device_belongs_to_the_new_owner() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let mut running = held(&platform, &device, &[]);
    let owner = format!("/v1/devices/{}/attributes/global/0/base/owner", device.serial);
    for user in [json!("a<b>&c"), Value::Null] {
        let done = invoke(&platform, &device, "global/0/base/bind", &json!({ "input": { "user": user } }));
        assert_eq!(done["outcome"], "done", "{done}");
        assert_eq!(running.until("binding")["user"], user);
        until("its owner is shown", || (platform.http().get(&owner).ok()["reported"]["value"] == user).then_some(()));
    }
    running.kill();
}

#[test]
fn osap_10_4_who_is_at_the_device_shows_it_with_the_token_and_one() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let ask = |token: u64| {
        let input = json!({ "input": { "token": token, "period_s": 60 } });
        invoke(&platform, &device, "global/0/base/challenge", &input)["outcome"].clone()
    };
    let mut absent = held(&platform, &device, &[]);
    assert_eq!(ask(40), "done", "it is asked, and nobody is there");
    assert_eq!(absent.until("challenge")["token"], 40);
    absent.kill();
    let mut running = held(&platform, &device, &["--present"]);
    assert_eq!(ask(41), "done");
    let challenge = running.until("challenge");
    assert_eq!((&challenge["token"], &challenge["seconds"]), (&json!(41), &json!(60)));
    running.until("presence_known");
    let events = until("the presence is stored", || {
        Some(platform.events(Some(&device.serial))).filter(|events| !events.is_empty())
    });
    let [shown] = &events[..] else { panic!("not one event: {events:?}") };
    assert_eq!((&shown["area"], &shown["name"]), (&json!("base"), &json!("presence")));
    assert_eq!(shown["data"], json!({ "token": 42 }));
    running.kill();
}

#[test]
fn osap_10_3_a_device_that_is_told_to_fetch_other_firmware_says_whether_it_will() {
    let platform = Platform::start();
    let file = json!({
        "module": "DT1", "url": "files.example/dt1.bin", "degist": "00112233445566778899aabbccddeeff",
        "fw_ver": "V1.3.0 build 260201", "size": 4096,
    });
    let upgrade = json!({ "input": { "maxtry": 3, "interval": 5, "file_info": [file] } });
    for (answer, outcome) in [("accept", "done"), ("refuse", "failed")] {
        let device = Fresh::on(&platform);
        let mut running = held(&platform, &device, &["--upgrade", answer]);
        let end = invoke(&platform, &device, "global/0/ota/upgrade", &upgrade);
        assert_eq!(end["outcome"], outcome, "{end}");
        let told = running.until("upgrade");
        assert_eq!((&told["accepted"], &told["files"]), (&json!(answer == "accept"), &json!([file])));
        running.kill();
    }
}

#[test]
fn osap_10_5_a_device_that_is_forced_offline_keeps_its_socket_and_the_das_closes_it() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let running = held(&platform, &device, &[]);
    order(&platform, &device, "force-offline", &json!({}));
    let told = running.finish().happened();
    assert_eq!(told.one("sent_away")["closed"], true);
    assert!(told.all("disconnected").is_empty() && told.all("unsubscribed").is_empty(), "no goodbye: {told:?}");
    platform.until_presence(&device.serial, "offline", "forced_offline");
    let refused = platform.http().post(&format!("/v1/devices/{}/force-offline", device.serial), &json!({}));
    assert_eq!(refused.status, 409, "{}", refused.body);
    device.start(&platform, &[]).finish().happened();
}

#[test]
fn osap_9_3_a_device_beside_a_live_session_of_its_own_is_let_in_and_never_answered_12() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let former = held(&platform, &device, &[]);
    let told = device.start(&platform, &["--event", &event("newer"), "--path", PATH]).finish().happened();
    assert_eq!(told.story()[..3], ["authenticated plain_refresh", "das", "connack 0"]);
    assert_eq!(told.one("event")["acked"], true);
    let former = former.finish();
    assert_eq!((former.code, &former.one("failed")["reason"]), (Some(1), &json!("the DAS closed the connection")));
    let codes = |told: &[&Value]| told.iter().all(|connack| connack["code"] != 12);
    assert!(codes(&told.all("connack")) && codes(&former.all("connack")));
    until("why tells of it", || platform.reasons(&device.serial).contains(&"replaced".to_owned()).then_some(()));
}

#[test]
fn osap_9_4_after_a_light_login_a_device_is_reached_without_having_subscribed() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let attribute = "Lamp/0/Light/Power=false";
    let mut running =
        device.start(&platform, &["--login", "light", "--answer", "echo", "--attribute", attribute, "--hold", "60"]);
    running.until("ping");
    let operation = format!("/v1/devices/{}/operations/Lamp/0/Light/Blink", device.serial);
    assert_eq!(platform.http().post(&operation, &json!({"input": 1})).ok()["output"], 1);
    let set = platform
        .http()
        .put(&format!("/v1/devices/{}/attributes/Lamp/0/Light/Power", device.serial), &json!({ "value": true }));
    assert_eq!(set.ok()["desired"]["outcome"], "applied");
    assert_eq!(running.until("set")["by"], "set");
    let story = running.story();
    let after = story.iter().rposition(|step| step == "connack 0").expect("the light login");
    assert!(!story[after..].iter().any(|step| ["subscribed", "query", "attribute"].contains(&step.as_str())));
    assert_eq!(story.iter().filter(|step| *step == "subscribed").count(), 2, "{story:?}");
    running.kill();
}

#[test]
fn osap_4_3_a_device_that_hashes_in_lower_case_is_known_at_once() {
    let platform = Platform::with_environment(&[("VESTIBULE_LBS__G0", "true")]);
    for generation in ["g2", "g1", "g0"] {
        let device = Fresh::on(&platform);
        let told = device.start(&platform, &["--generation", generation, "--case", "lower"]).finish().happened();
        assert_eq!(told.all("authenticated")[0]["case"], "lower", "{generation}");
        assert!(told.all("retry").is_empty());
        assert_eq!(platform.why(&device.serial)["last_failure"], Value::Null, "nothing of it is a failure");
    }
}
