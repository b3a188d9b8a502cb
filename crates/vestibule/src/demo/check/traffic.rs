//! What goes to and from a device that is in.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Bench, PATIENCE, feed, wait_for};
use crate::client::Route;

const ECHO: &str = "Check/0/Check/Echo";
const LABEL: &str = "Check/0/Check/Label";

impl Bench {
    pub(super) fn queue(&self) -> anyhow::Result<String> {
        let input = json!({ "waits": self.serial });
        let queued = self.done(&["device", "invoke", &self.serial, ECHO, &input.to_string(), "--queue", "5m"])?;
        let id = queued["operation_id"].as_str().context("an operation that waits has no id")?;
        ensure!(queued["outcome"] == "queued", "without a device, it ended {queued}");
        let waiting = self.done(&["device", "queue", &self.serial])?;
        ensure!(waiting["items"][0]["operation_id"] == id, "what waits is shown as {waiting}");
        let (_, mut device) = self.visit(&self.code, "state", "worked-off")?;
        let mut end = Value::Null;
        wait_for("the end of the operation that waited", || {
            let log: Value = self.client.get(&Route::new("/v1/operations").query("device", &self.serial))?;
            let items = log["items"].as_array().context("no items")?;
            end = items.iter().find(|entry| entry["queued"] == id).cloned().unwrap_or_default();
            Ok(!end.is_null())
        })?;
        device.leave()?;
        ensure!(end["outcome"] == "done" && end["output"] == input, "what waited ended as {end}");
        let waiting = self.done(&["device", "queue", &self.serial])?;
        ensure!(waiting["items"] == json!([]), "it still waits: {waiting}");
        Ok(format!("operation {id} waited for the device and was carried out"))
    }

    pub(super) fn attribute(&self) -> anyhow::Result<String> {
        // What is wished for while the device is away reaches it when it comes.
        let value = json!(format!("label of {}", self.serial));
        let wished = self.done(&["device", "set", &self.serial, LABEL, &value.to_string()])?;
        ensure!(wished["desired"]["outcome"] == "pending", "without a device, it is {wished}");
        let (_, mut device) = self.visit(&self.code, "state", "labelled")?;
        let is_taken = |value: &Value| {
            wait_for("the attribute as it was set", || {
                let shown = self.done(&["device", "get", &self.serial, LABEL])?;
                Ok(shown["reported"]["value"] == *value && shown["desired"]["outcome"] == "applied")
            })
        };
        is_taken(&value)?;
        let other = json!("another");
        let told = self.done(&["device", "set", &self.serial, LABEL, &other.to_string(), "--wait", "10s"])?;
        ensure!(told["desired"]["outcome"] == "applied", "with a device, it is {told}");
        is_taken(&other)?;
        device.leave()?;
        Ok("taken after the device came, and while it was there".to_owned())
    }

    pub(super) fn follow(&self) -> anyhow::Result<String> {
        let follow = Stream::of(self, &["event", "follow", "--device", &self.serial, "--after", "0", "--json"])?;
        let watch = Stream::of(self, &["device", "watch", &self.serial, "--json"])?;
        let shown = watch.until("the device", |line| line["presence"].is_object())?;
        ensure!(shown["presence"]["presence"]["state"] == "offline", "it is shown as {shown}");
        let (id, mut device) = self.visit(&self.code, "state", "followed")?;
        watch.until("that the device is online", |line| line["presence"]["presence"]["state"] == "online")?;
        watch.until("the event", |line| line["event"]["id"] == *id)?;
        let first = follow.until("the first event", |_| true)?;
        ensure!(first["data"]["marker"] == "comes-in", "the oldest event is {first}");
        let event = follow.until("the event", |line| line["id"] == *id)?;
        device.leave()?;
        watch.until("that the device has left", |line| line["presence"]["presence"]["state"] == "offline")?;
        Ok(format!("event {id} was followed to position {}, and the device watched", event["position"]))
    }

    pub(super) fn pass(&self) -> anyhow::Result<String> {
        let (_, mut device) = self.visit(&self.code, "state", "passed")?;
        let arguments = ["device", "pass", &self.serial, "Check/0/Raw/Frame", "--type", "text/x-check", "--data"];
        let end = self.done(&[&arguments[..], &[&self.serial]].concat())?;
        ensure!(end["outcome"] == "delivered", "the message ended as {end}");
        // The device sends it back.
        let mut passed = Vec::new();
        wait_for("the message that came back", || {
            let list = self.done(&["pass", "list", "--device", &self.serial])?;
            passed = list["items"].as_array().context("no items")?.clone();
            Ok(passed.len() > 1)
        })?;
        device.leave()?;
        // A device may answer before it acknowledges, which is when what went down is written.
        let directions: BTreeSet<&str> = passed.iter().filter_map(|message| message["direction"].as_str()).collect();
        let same = passed.iter().all(|message| {
            message["base64"] == passed[0]["base64"]
                && message["media_type"] == "text/x-check"
                && message["bytes"] == self.serial.len()
        });
        ensure!(same && passed.len() == 2 && directions.len() == 2, "the list holds {passed:?}");
        Ok("delivered as it was, and came back".to_owned())
    }

    pub(super) fn children(&self) -> anyhow::Result<String> {
        let mut command = self.command(&["device", "add", &self.child, "--parent", &self.serial, "--code-file", "-"]);
        let done = feed(command.stdin(Stdio::piped()), &self.code)?;
        ensure!(done.status.success(), "device add: {}", String::from_utf8_lossy(&done.stderr));
        let mut hub = self.start_with(&self.code, "state", "hub", &["--child", &self.child])?;
        hub.reported()?;
        let is = |state: &str| {
            wait_for(&format!("the sub-device {state}"), || {
                let children = self.done(&["device", "children", &self.serial])?;
                let child = &children["items"][0];
                Ok(child["serial"] == *self.child && child["presence"]["state"] == state)
            })
        };
        is("online")?;
        let input = json!({ "for": self.child });
        let end = self.done(&["device", "invoke", &self.child, ECHO, &input.to_string()])?;
        ensure!(end["outcome"] == "done" && end["output"] == input, "an echo of the sub-device ended {end}");
        hub.leave()?;
        is("offline")?;
        let removed = self.done(&["device", "remove", &self.child])?;
        ensure!(removed["removed"] == *self.child, "the sub-device was removed as {removed}");
        Ok(format!("{} came with its hub, was reached through it, and left with it", self.child))
    }
}

/// A command that goes on; killed when dropped.
struct Stream {
    child: Child,
    lines: Receiver<String>,
}

impl Stream {
    fn of(bench: &Bench, arguments: &[&str]) -> anyhow::Result<Stream> {
        let mut child = bench.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let (teller, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if teller.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Stream { child, lines })
    }

    /// The next line that says this.
    fn until(&self, what: &str, says: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE.saturating_sub(begun.elapsed()))
                .with_context(|| format!("{what} was not told within {} s", PATIENCE.as_secs()))?;
            let line = serde_json::from_str(&line).with_context(|| format!("a line is no JSON: {line}"))?;
            if says(&line) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
