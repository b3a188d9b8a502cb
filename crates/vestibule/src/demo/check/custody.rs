//! What people do to a device, and where that is written down.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Bench, feed};
use crate::client::Route;

/// Answers to a change of the owner (osap-wire 10.4).
const BINDING: &str = "1100/18759";

impl Bench {
    /// A directive that nothing answers, and one whose effect is seen in what the device does not say.
    pub(super) fn keep_alive(&self) -> anyhow::Result<String> {
        let (_, mut device) = self.visit(&self.code, "state", "directed")?;
        let told = self.done(&["device", "keep-alive", &self.serial, "45s"])?;
        ensure!(told["told"] == *self.serial, "device keep-alive said {told}");
        let bind = |deadline: &str| {
            let input = json!({ "user": self.child }).to_string();
            self.told(&["device", "invoke", &self.serial, "global/0/base/bind", &input, "--deadline", deadline])
        };
        self.done(&["device", "silence", &self.serial, BINDING])?;
        let (_, end) = bind("300ms")?;
        ensure!(end["outcome"] == "timed_out", "what it may not answer ended as {end}");
        self.done(&["device", "silence", &self.serial])?;
        let (_, end) = bind("10s")?;
        ensure!(end["outcome"] == "done", "what it may answer again ended as {end}");
        let shown = self.device()?;
        ensure!(shown["presence"]["state"] == "online", "the device is {}", shown["presence"]);
        device.leave()?;
        Ok("told, and an answer stayed away as long as it was forbidden".to_owned())
    }

    pub(super) fn disable(&self) -> anyhow::Result<String> {
        let (_, mut device) = self.visit(&self.code, "second-state", "disabled")?;
        self.done(&["device", "disable", &self.serial])?;
        self.until("offline because it is disabled", |device| {
            device["presence"]["state"] == "offline" && device["presence"]["reason"] == "disabled"
        })?;
        // It tries to come back.
        super::wait_for("that it is refused", || {
            let why: Value = self.client.get(&Route::new("/v1/devices").segment(&self.serial).segment("why"))?;
            Ok(why["last_failure"]["reason"] == "disabled")
        })?;
        device.kill();
        self.done(&["device", "enable", &self.serial])?;
        let (id, mut device) = self.visit(&self.code, "second-state", "enabled")?;
        device.leave()?;
        self.stored(&id)?;
        Ok("cut off and refused, and let in again with its keys".to_owned())
    }

    pub(super) fn rotate(&self) -> anyhow::Result<String> {
        let (_, mut device) = self.visit(&self.code, "second-state", "before-rotation")?;
        let mut command = self.command(&["device", "rotate", &self.serial, "--code-file", "-"]);
        let done = feed(command.stdin(Stdio::piped()), &self.new_code)?;
        ensure!(done.status.success(), "device rotate: {}", String::from_utf8_lossy(&done.stderr));
        self.until("offline because its code is another", |device| device["presence"]["reason"] == "rotated")?;
        device.kill();
        let (id, mut device) = self.visit(&self.new_code, "third-state", "rotated")?;
        device.leave()?;
        self.stored(&id)?;
        Ok("cut off, and let in with the new code".to_owned())
    }

    pub(super) fn audit(&self) -> anyhow::Result<String> {
        let rows = self.done(&["audit", "--device", &self.serial])?;
        let rows = rows["items"].as_array().context("no items")?;
        let done: BTreeSet<&str> = rows.iter().filter_map(|row| row["action"].as_str()).collect();
        let expected = [
            "device.add",
            "operation.invoke",
            "attribute.set",
            "device.keep_alive",
            "device.silence",
            "device.enrol",
            "device.disable",
            "device.enable",
            "device.rotate",
            "device.downgrade",
        ];
        let missing: Vec<&&str> = expected.iter().filter(|action| !done.contains(**action)).collect();
        ensure!(missing.is_empty(), "the audit lacks {missing:?} and holds {done:?}");
        Ok(format!("{} rows, with everything that was done", rows.len()))
    }
}
