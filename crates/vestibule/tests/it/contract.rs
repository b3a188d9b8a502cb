//! The HTTP API held to its OpenAPI document by schemathesis, which draws requests from it: such that fit, and such that
//! break it in every way it can think of.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Listener, Platform, Program, python, until};

#[test]
fn every_answer_is_one_that_the_document_promises() {
    let platform = Platform::start();
    let lbs = platform.address(Listener::Lbs).to_string();
    let fleet = ["simulate", "--lbs", &lbs, "--devices", "3", "--profile", "camera", "--ramp", "10ms", "--keep"];
    let mut fleet = platform.command(&fleet);
    until("devices that are online and have said something", || {
        let list = platform.http().get("/v1/devices?limit=10").ok();
        let online = |device: &&serde_json::Value| device["presence"]["state"] == "online";
        let all = list["items"].as_array().expect("items").iter().filter(online).count() == 3;
        (all && !platform.events(None).is_empty()).then_some(())
    });

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut schemathesis = Command::new(python());
    schemathesis.args(["-m", "schemathesis.cli", "--no-color", "--config-file"]);
    schemathesis.arg(root.join("tests/contract/schemathesis.toml")).args(["run", "--seed", "20261121", "--url"]);
    schemathesis.arg(platform.url()).arg(root.join("api/openapi.json"));
    schemathesis.env("SCHEMATHESIS_HOOKS", root.join("tests/contract/hooks.py"));
    schemathesis.env("VESTIBULE_TOKEN", platform.token()).current_dir(platform.data());
    // It says nothing until it has tried everything, some thousand requests.
    let done = Program::of(schemathesis).with_patience(Duration::from_secs(900)).finish();
    assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, done.stderr);
    let tried = done.stdout.lines().find(|line| line.contains(" generated,")).expect("a summary");
    println!("{}", tried.trim());
    fleet.kill();
    assert_eq!(platform.http().get("/readyz").status, 200);
    platform.assert_no_panic();
}
