//! A device none of our code is part of lives its whole life against the platform.

mod channels;
mod hub;
mod steering;

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use osap::ResultCode;
use osap::lbs::client::Stored;

use crate::support::{self, Listener, Platform, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";
const PATH: &str = "Lamp/0/Alarm/Smoke";

/// A registered device with a place for its state.
struct Fresh {
    serial: String,
    directory: TempDir,
}

impl Fresh {
    fn on(platform: &Platform) -> Fresh {
        let serial = minted("SN");
        platform.add(&serial, CODE);
        Fresh { serial, directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state.json")
    }

    fn kept(&self) -> Value {
        serde_json::from_slice(&fs::read(self.state()).expect("a state file")).expect("JSON")
    }

    fn start(&self, platform: &Platform, more: &[&str]) -> SecondDevice {
        let state = self.state();
        let state = state.to_str().expect("UTF-8");
        SecondDevice::start(platform, &self.serial, CODE, &[&["--state", state], more].concat())
    }
}

fn event(marker: &str) -> String {
    json!({ "level": 3, "marker": marker }).to_string()
}

#[test]
fn a_first_connection_is_answered_11_once_and_then_let_in() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    assert_eq!(platform.device(&device.serial)["presence"]["state"], "never_seen");
    let told = device.start(&platform, &[]).finish().happened();
    let expected = [
        "authenticated first",
        "das",
        "connack 11",
        "authenticated plain_refresh",
        "das",
        "connack 0",
        "subscribed",
        "subscribed",
        "ping",
        "unsubscribed",
        "unsubscribed",
        "disconnected",
    ];
    assert_eq!(told.story(), expected);
    let das = told.all("das")[0];
    let address = format!("{}:{}", das["address"].as_str().expect("an address"), das["port"]);
    assert_eq!(address, platform.address(Listener::Das).to_string());
    platform.until_presence(&device.serial, "offline", "disconnect");
    let reasons = platform.reasons(&device.serial);
    assert_eq!(reasons, ["authenticated", "sent_for_new_key", "refreshed", "accepted", "disconnect"]);
}

#[test]
fn an_acknowledged_event_is_read_back_with_its_id_path_and_time() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let before = Timestamp::now();
    let told = device.start(&platform, &["--event", &event("x\"ä"), "--path", PATH]).finish().happened();
    let sent = told.one("event");
    assert_eq!(sent["acked"], true);

    let [stored] = &platform.events(Some(&device.serial))[..] else { panic!("not one event") };
    assert_eq!(stored["id"], sent["uuid"]);
    assert_eq!(stored["device"]["serial"], device.serial);
    assert_eq!(stored["device"]["id"], platform.device(&device.serial)["id"]);
    let path = ["resource", "index", "area", "name"].map(|level| stored[level].as_str().expect("a level"));
    assert_eq!(path.join("/"), PATH);
    assert_eq!(stored["data"]["marker"], "x\"ä");
    assert_eq!(stored["flags"], json!([]));
    let moment = |text: &Value| text.as_str().expect("a moment").parse::<Timestamp>().expect("RFC 3339");
    assert_eq!(moment(&stored["time"]), moment(&stored["data"]["basic"]["dateTime"]), "as the device sent it");
    let received = moment(&stored["received"]);
    assert!(before <= received && received <= Timestamp::now(), "{stored}");
}

#[test]
fn an_event_without_an_id_is_stored_and_labelled_at_least_once() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let flags = ["--no-uuid", "--event", &event("bare"), "--path", PATH];
    device.start(&platform, &flags).finish().happened();
    let [stored] = &platform.events(Some(&device.serial))[..] else { panic!("not one event") };
    assert_eq!(stored["id"], Value::Null);
    assert_eq!(stored["time"], stored["received"]);
    let flags = stored["flags"].as_array().expect("flags");
    assert!(flags.contains(&json!("at_least_once")) && flags.contains(&json!("no_time")), "{stored}");
}

#[test]
fn a_device_with_its_keys_comes_back_by_a_plain_refresh_and_is_let_in_at_once() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    device.start(&platform, &[]).finish().happened();
    let kept = device.kept();
    let told = device.start(&platform, &["--event", &event("back"), "--path", PATH]).finish().happened();
    assert_eq!(told.story()[..3], ["authenticated plain_refresh", "das", "connack 0"]);
    assert_eq!(device.kept(), kept, "a plain refresh leaves DevID and master key as they are");
    assert_eq!(platform.events(Some(&device.serial)).len(), 1);
}

#[test]
fn a_device_that_lost_its_master_key_comes_back_by_its_code_and_dev_id() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    device.start(&platform, &[]).finish().happened();
    let kept = device.kept();
    fs::write(device.state(), json!({ "dev_id": kept["dev_id"] }).to_string()).expect("written");
    let told = device.start(&platform, &[]).finish().happened();
    let expected =
        ["authenticated ecdh_refresh", "das", "connack 11", "authenticated plain_refresh", "das", "connack 0"];
    assert_eq!(told.story()[..6], expected);
    assert_ne!(device.kept()["master_key"], kept["master_key"]);
    assert!(platform.reasons(&device.serial).iter().any(|reason| reason == "authenticated_again"));
}

#[test]
fn a_device_whose_connection_broke_comes_back_by_the_light_login() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let flags = ["--login", "light", "--event", &event("light"), "--path", PATH];
    let told = device.start(&platform, &flags).finish().happened();
    let logins: Vec<_> = told.all("connack").iter().map(|it| (it["login"].clone(), it["code"].clone())).collect();
    assert_eq!(logins, [(json!("full"), json!(11)), (json!("full"), json!(0)), (json!("light"), json!(0))]);
    assert_eq!(told.one("event")["acked"], true);
    assert_eq!(platform.events(Some(&device.serial)).len(), 1);
}

#[test]
fn osap_13_2_3_a_wrong_code_and_an_unknown_serial_are_refused_alike() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let wrong = device.start(&platform, &["--wrong-code"]).finish();
    let unknown = SecondDevice::run(&platform, &minted("NO"), CODE, &[]);
    assert_eq!(wrong.code, Some(3), "{wrong:?}");
    assert_eq!(wrong.one("refused")["code"], 1);
    assert_eq!(wrong.steps, unknown.steps, "the answers tell which serials exist");
    assert_eq!(wrong.code, unknown.code);

    let why = platform.why(&device.serial);
    assert_eq!(why["last_failure"]["reason"], "wrong_code", "{why}");
    assert_eq!(why["last_failure"]["step"], "authentication", "{why}");
    assert_eq!(why["presence"]["state"], "never_seen", "{why}");
    let said = platform.cli(&["device", "why", &device.serial]).expect(0);
    assert!(said.stdout.contains("wrong_code"), "{said:?}");
}

#[test]
fn osap_13_2_4_a_second_first_authentication_needs_an_enrolment_window() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    device.start(&platform, &[]).finish().happened();
    let anew = || SecondDevice::run(&platform, &device.serial, CODE, &["--event", &event("anew"), "--path", PATH]);

    let refused = anew();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert_eq!(refused.one("refused")["code"], 5);
    assert_eq!(refused.one("refused")["at"], "0x82");
    assert!(platform.reasons(&device.serial).iter().any(|reason| reason == "enrolment_closed"));
    device.start(&platform, &[]).finish().happened();

    platform.cli(&["device", "enrol", &device.serial, "--window", "5m"]).expect(0);
    assert_eq!(anew().happened().one("event")["acked"], true);
    // The window has served: whoever else has the code does not get in behind the device.
    assert_eq!(anew().one("refused")["code"], 5);
    // The keys given before are worthless now.
    let former = device.start(&platform, &[]).finish();
    assert_eq!(former.code, Some(3), "{former:?}");
}

#[test]
fn osap_9_9_a_second_login_of_a_device_replaces_the_first() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let (access, mut first) = support::enrol(&platform, &serial, CODE);
    let online = platform.until_presence(&serial, "online", "login");
    assert_eq!(online["presence"]["peer"], first.local().to_string());

    let (answer, mut second) = support::connect(&serial, &access);
    assert_eq!(answer, 0);
    assert_eq!(first.drained(), [] as [Vec<u8>; 0], "the first connection is closed without a word");
    until("the end of the first connection", || {
        let labels = [("listener", "das_legacy"), ("reason", "replaced")];
        (platform.metric("vestibule_connections_ended_total", &labels) == 1.0).then_some(())
    });
    let shown = platform.device(&serial);
    assert_eq!(shown["presence"]["state"], "online", "the goodbye of the first takes nothing from the second");
    assert_eq!(shown["presence"]["peer"], second.local().to_string());

    let topic = format!("/iot/{serial}/global/0-Lamp/model/event/report/Alarm/Smoke");
    let id = second.publish(&topic, 1, support::QoS::AtLeastOnce, r#"{"level":1}"#);
    second.acknowledged(id);
    assert_eq!(platform.events(Some(&serial)).len(), 1);
}

#[test]
fn presence_tells_a_goodbye_from_a_lost_connection() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let mut held = device.start(&platform, &["--hold", "30"]);
    held.until("ping");
    let online = platform.until_presence(&device.serial, "online", "login");
    assert_eq!(online["suite"], "legacy");
    assert_eq!(online["confidential"], false);
    assert_eq!(online["security"], "legacy, not confidential");
    held.kill();
    let offline = platform.until_presence(&device.serial, "offline", "connection_lost");
    let moment = |device: &Value| device["presence"]["since"].as_str().map(|text| text.parse::<Timestamp>());
    assert!(moment(&online).expect("since").expect("a moment") <= moment(&offline).expect("since").expect("a moment"));

    device.start(&platform, &["--disconnect", "orderly"]).finish().happened();
    platform.until_presence(&device.serial, "offline", "disconnect");
    device.start(&platform, &["--disconnect", "drop"]).finish().happened();
    platform.until_presence(&device.serial, "offline", "connection_lost");
}

#[test]
fn a_removed_device_is_disconnected_and_refused_afterwards() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let mut held = device.start(&platform, &["--hold", "30", "--event", &event("kept"), "--path", PATH]);
    held.until("ping");
    let id = platform.device(&device.serial)["id"].as_str().expect("an id").to_owned();

    platform.cli(&["device", "remove", &device.serial]).expect(0);
    let told = held.finish();
    assert_eq!(told.code, Some(1), "{told:?}");
    assert_eq!(told.one("failed")["reason"], "the DAS closed the connection");
    assert_eq!(platform.http().get(&format!("/v1/devices/{}", device.serial)).status, 404);

    let back = device.start(&platform, &[]).finish();
    assert_eq!(back.code, Some(3), "its keys are refused: {back:?}");
    let failure = support::authenticate(&platform, &device.serial, CODE, Stored::Nothing).expect_err("removed");
    assert_eq!(failure.result(), Some(ResultCode::CodeRefused), "as an unknown serial");
    // What it reported stays, under its id.
    let events = platform.http().get(&format!("/v1/events?device={id}")).ok();
    assert_eq!(events["items"][0]["data"]["marker"], "kept", "{events}");
}

/// A platform that serves every generation.
fn platform_with_g0() -> Platform {
    Platform::with_environment(&[("VESTIBULE_LBS__G0", "true")])
}

/// The steps of a device that comes in by its code, as far as its session.
fn by_code(run: &str) -> [String; 6] {
    [&format!("authenticated {run}"), "das", "connack 11", "authenticated plain_refresh", "das", "connack 0"]
        .map(str::to_owned)
}

/// First authentication, plain refresh, and the code again for a device that has lost its master key.
#[track_caller]
fn lives_its_whole_life(platform: &Platform, generation: &str) {
    let device = Fresh::on(platform);
    let report = |marker: &str| {
        let event = event(marker);
        let flags = ["--generation", generation, "--event", &event, "--path", PATH];
        device.start(platform, &flags).finish().happened()
    };
    let told = report("first");
    assert_eq!(told.story()[..6], by_code("first"));
    assert_eq!(told.one("event")["acked"], true);
    let kept = device.kept();

    let told = report("second");
    assert_eq!(told.story()[..3], ["authenticated plain_refresh", "das", "connack 0"]);
    assert_eq!(device.kept(), kept);

    fs::write(device.state(), json!({ "dev_id": kept["dev_id"] }).to_string()).expect("written");
    let told = report("third");
    assert_eq!(told.story()[..6], by_code("ecdh_refresh"));
    assert_eq!(device.kept()["dev_id"], kept["dev_id"]);
    assert_ne!(device.kept()["master_key"], kept["master_key"]);

    let stored = platform.events(Some(&device.serial));
    let markers: Vec<_> = stored.iter().map(|event| event["data"]["marker"].as_str().expect("a marker")).collect();
    assert_eq!(markers, ["third", "second", "first"]);
    assert_eq!(stored[0]["id"], told.one("event")["uuid"]);
    let shown = platform.until_presence(&device.serial, "offline", "disconnect");
    assert_eq!((&shown["suite"], &shown["security"]), (&json!("legacy"), &json!("legacy, not confidential")));
    let why = platform.why(&device.serial);
    let text = why["facts"][0]["text"].as_str().expect("a sentence");
    assert!(text.contains(&format!("generation {}", generation.to_uppercase())), "{why}");
    for run in ["first", "ecdh_refresh"] {
        let labels = [("generation", generation), ("run", run), ("result", "ok")];
        assert_eq!(platform.metric("vestibule_lbs_runs_total", &labels), 1.0, "{run}");
    }
    let wrong = SecondDevice::run(platform, &device.serial, CODE, &["--generation", generation, "--wrong-code"]);
    assert_eq!((wrong.code, &wrong.one("refused")["code"]), (Some(3), &json!(1)), "{wrong:?}");
    let anew = SecondDevice::run(platform, &device.serial, CODE, &["--generation", generation]);
    assert_eq!((anew.code, &anew.one("refused")["code"]), (Some(3), &json!(5)), "{anew:?}");
}

#[test]
fn osap_6_a_device_of_g1_lives_its_whole_life() {
    lives_its_whole_life(&Platform::start(), "g1");
}

#[test]
fn osap_7_a_device_of_g0_lives_its_whole_life_where_it_is_served() {
    lives_its_whole_life(&platform_with_g0(), "g0");
}

#[test]
fn osap_7_a_device_of_g0_is_closed_without_an_answer_and_its_owner_is_told() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let told = device.start(&platform, &["--generation", "g0"]).finish();
    assert_eq!((told.code, &told.one("failed")["reason"]), (Some(1), &json!("the LBS closed the connection")));
    let why = platform.why(&device.serial);
    assert_eq!(why["last_failure"]["reason"], "generation_g0", "{why}");
    assert!(why["last_failure"]["text"].as_str().expect("a sentence").contains("lbs.g0"), "{why}");
    let labels = [("generation", "g0"), ("result", "generation_g0")];
    assert_eq!(platform.metric("vestibule_lbs_runs_total", &labels), 1.0);
}

#[test]
fn a_device_whose_firmware_changes_the_generation_stays_the_device_it_was() {
    let platform = platform_with_g0();
    let device = Fresh::on(&platform);
    device.start(&platform, &[]).finish().happened();
    let kept = device.kept();
    for generation in ["g1", "g0", "g2"] {
        // With its keys it comes in whatever its firmware speaks, and with its DevID by the code.
        let flags = ["--generation", generation];
        let told = device.start(&platform, &flags).finish().happened();
        assert_eq!(told.story()[..3], ["authenticated plain_refresh", "das", "connack 0"], "{generation}");
        fs::write(device.state(), json!({ "dev_id": kept["dev_id"] }).to_string()).expect("written");
        let told = device.start(&platform, &flags).finish().happened();
        assert_eq!(told.story()[..6], by_code("ecdh_refresh"), "{generation}");
        assert_eq!(device.kept()["dev_id"], kept["dev_id"], "{generation}");
    }
}
