//! The audit from the command line, with what it tells of: sub-devices, wishes, directives, messages.

use serde_json::{Value, json};

use crate::support::{Platform, Program, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";

fn actions(rows: &Value) -> Vec<&str> {
    rows["items"].as_array().expect("a list").iter().map(|row| row["action"].as_str().expect("an action")).collect()
}

#[test]
fn what_is_done_is_in_the_audit() {
    let platform = Platform::start();
    let (hub, child) = (minted("HUB"), minted("SN"));
    platform.cli(&["device", "add", &hub, "--code", CODE]).expect(0);
    let added = platform.cli(&["device", "add", &child, "--code", CODE, "--parent", &hub, "--json"]).expect(0).json();
    assert_eq!(added["parent"], platform.device(&hub)["id"]);
    let nobody = platform.cli(&["device", "add", "SN-X", "--code", CODE, "--parent", "NOBODY"]).expect(1);
    assert!(nobody.stderr.contains("parent"), "{nobody:?}");
    let children = platform.cli(&["device", "children", &hub, "--json"]).expect(0).json();
    assert_eq!(children, json!({ "items": [platform.device(&child)], "next": null }));
    let shown = platform.cli(&["device", "show", &hub]).expect(0).stdout;
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["children", "1"])), "{shown}");
    let shown = platform.cli(&["device", "show", &child]).expect(0).stdout;
    assert!(shown.lines().any(|line| line.starts_with("parent ")), "{shown}");

    let wished = platform.cli(&["device", "set", &child, "Light/Power", "true", "--expires-in", "1h"]).expect(0);
    assert!(wished.stdout.contains("told again when it comes"), "{wished:?}");
    for command in [
        &["device", "force-offline", &*child][..],
        &["device", "redirect", &child, "hall.example"],
        &["device", "keep-alive", &child, "60s"],
    ] {
        let refused = platform.cli(command).expect(1);
        assert!(refused.stderr.contains("Device offline"), "{refused:?}");
    }
    let passed =
        platform.cli(&["device", "pass", &child, "Raw/Frame", "--type", "text/plain", "--data", "hello"]).expect(1);
    assert!(passed.stderr.contains("is not there; nothing was sent"), "{passed:?}");

    let rows = platform.cli(&["audit", "--device", &child, "--json"]).expect(0).json();
    assert_eq!(actions(&rows), ["pass.deliver", "attribute.set", "device.add"]);
    let row = &rows["items"][0];
    assert_eq!((&row["actor"], &row["ok"]), (&json!("administrator"), &json!(false)));
    assert_eq!((&row["detail"]["media_type"], &row["detail"]["outcome"]), (&json!("text/plain"), &json!("offline")));
    let added = platform.cli(&["audit", "--action", "device.add", "--limit", "1"]).expect(0).stdout;
    assert_eq!(added.lines().count(), 2, "{added}");
    assert!(added.contains(&child) && !added.contains(CODE), "{added}");
    let none = platform.cli(&["audit", "--to", "1h", "--json"]).expect(0).json();
    assert_eq!(none, json!({"items": [], "next": null}));
    platform.assert_no_panic();
}

#[test]
fn a_watched_device_shows_its_attributes() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let mut watch = platform.command(&["device", "watch", &serial, "--json"]);
    let line =
        |program: &mut Program| -> Value { serde_json::from_str(&program.line().expect("a line")).expect("JSON") };
    assert_eq!(line(&mut watch)["presence"]["presence"]["state"], "never_seen");
    let flags = ["--attribute", "Lamp/0/Light/Power=false", "--hold", "60"];
    let device = SecondDevice::start(&platform, &serial, CODE, &flags);
    let report = until("the attribute", || {
        let line = line(&mut watch);
        line.get("attribute").cloned()
    });
    assert_eq!((&report["device"]["serial"], &report["value"]), (&json!(serial), &json!(false)));
    assert_eq!(report["name"], "Power");
    device.kill();
    platform.cli(&["device", "remove", &serial]).expect(0);
    while line(&mut watch).get("removed").is_none() {}
    assert_eq!(watch.finish().code, Some(0));
}

#[test]
fn a_token_from_the_command_line_is_what_it_was_made_for() {
    let platform = Platform::start();
    let (here, there) = (minted("SN"), minted("SN"));
    platform.cli(&["device", "add", &here, "--code", CODE, "--org", "/hall/1", "--label", "floor=2"]).expect(0);
    platform.cli(&["device", "add", &there, "--code", CODE]).expect(0);
    let made =
        platform.cli(&["token", "add", "wall", "--role", "viewer", "--subtree", "/hall", "--json"]).expect(0).json();
    let secret = made["token"].as_str().expect("a secret");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), secret).expect("written");
    let with =
        |command: &[&str]| platform.cli(&[command, &["--token-file", file.path().to_str().expect("UTF-8")]].concat());
    let listed = with(&["device", "list", "--json"]).expect(0).json();
    assert_eq!(listed["items"], json!([platform.device(&here)]));
    assert!(with(&["device", "show", &there]).expect(1).stderr.contains("No device"));
    assert!(with(&["device", "disable", &here]).expect(1).stderr.contains("devices_control"));
    let moved =
        platform.cli(&["device", "describe", &there, "--org", "/hall/2", "--name", "Tür", "--json"]).expect(0).json();
    assert_eq!((&moved["org"], &moved["name"]), (&json!("/hall/2"), &json!("Tür")));
    let listed = with(&["device", "list", "--org", "/hall/2", "--json"]).expect(0).json();
    assert_eq!(listed["items"][0]["serial"], there);
    let shown = platform.cli(&["token", "list"]).expect(0).stdout;
    assert!(shown.contains("wall") && shown.contains("/hall") && !shown.contains(secret), "{shown}");
    platform.cli(&["token", "remove", "wall"]).expect(0);
    assert!(with(&["device", "list"]).expect(1).stderr.contains("Nobody has this token"));
    let rows = platform.cli(&["audit", "--json"]).expect(0).json();
    assert_eq!(actions(&rows)[..2], ["token.remove", "device.describe"]);
    assert!(!platform.log().contains(secret));
}

#[test]
fn a_user_is_managed_from_the_command_line_and_the_password_is_never_on_it() {
    let platform = Platform::start();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, "correct horse\n").expect("written");
    platform.cli(&["user", "add", "anna", "--role", "viewer", "--password-file", path]).expect(0);
    let token = |password: &str| {
        let answer = platform.http.post("/v1/sessions", &json!({ "name": "anna", "password": password }));
        (answer.status == 201).then(|| answer.ok()["token"].as_str().expect("a token").to_owned())
    };
    assert!(token("correct horse").is_some());
    std::fs::write(&file, "another password").expect("written");
    platform.cli(&["user", "password", "anna", "--password-file", path]).expect(0);
    assert!(token("correct horse").is_none() && token("another password").is_some());
    let listed = platform.cli(&["user", "list"]).expect(0).stdout;
    assert!(listed.contains("anna") && listed.contains("viewer"), "{listed}");
    platform.cli(&["user", "remove", "anna"]).expect(0);
    assert!(token("another password").is_none());
    std::fs::write(&file, "short").expect("written");
    let refused = platform.cli(&["user", "add", "otto", "--role", "viewer", "--password-file", path]).expect(1);
    assert!(refused.stderr.contains("10 to 256 characters"), "{refused:?}");
    assert!(!platform.log().contains("correct horse"));
}
