//! `vestibule device watch`

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::{Client, Follow, Followed, Route};

/// Follow the presence and the events of one device
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device watch SN-0001
  vestibule device watch SN-0001 --json

With --json each line is {\"presence\": device}, {\"event\": event} or {\"removed\": device}.
It goes on until it is stopped or the device is removed; a lost connection is taken up again.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut watch = Watch { client, route: super::route_of(&args.device), last: None };
    // Read once for its id, which also names a device that does not exist; and again once the stream is open, so that no change falls between.
    let id = words::text(&watch.device()?, "/id");
    let mut follow = Follow::open(client, Route::new("/v1/events/stream").query("device", &id), None)?;
    watch.show(&watch.device()?, out)?;
    loop {
        let followed = follow.wait()?;
        if let Some(notice) = words::notice(&followed) {
            eprintln!("vestibule: {notice}");
        }
        match followed {
            Followed::Event(event) if out.is_json() => out.json(&json!({ "event": event }))?,
            Followed::Event(event) => out.line(words::event(&event))?,
            Followed::Presence(device) if words::text(&device, "/id") == id => watch.show(&device, out)?,
            Followed::Reconnected | Followed::PresenceMissed => watch.show(&watch.device()?, out)?,
            Followed::Removed(device) if words::text(&device, "/id") == id => return removed(&device, out),
            _ => {}
        }
    }
}

/// There is nothing left to watch.
fn removed(device: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(&json!({ "removed": device }));
    }
    let line = format!("{}  {}  removed", now(), words::text(device, "/serial"));
    out.line(words::printable(&line))
}

/// The present time, as exact as the API shows times.
fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

struct Watch<'a> {
    client: &'a Client,
    route: Route,
    last: Option<Value>,
}

impl Watch<'_> {
    fn device(&self) -> anyhow::Result<Value> {
        Ok(self.client.get(&self.route)?)
    }

    /// Shows the presence when it differs from the one shown last.
    fn show(&mut self, device: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
        let presence = device.get("presence").cloned();
        if self.last == presence {
            return Ok(());
        }
        self.last = presence;
        if out.is_json() {
            return out.json(&json!({ "presence": device }));
        }
        let since = words::time(device, "/presence/since");
        let at = if since.is_empty() { now() } else { since };
        let serial = words::text(device, "/serial");
        out.line(words::printable(&format!("{at}  {serial}  {}{}", words::state(device), words::reason(device))))
    }
}
