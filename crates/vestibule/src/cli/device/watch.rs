//! `vestibule device watch`

use std::sync::mpsc::{self, SyncSender};
use std::thread;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::{Client, ClientError, Follow, Followed, Route};

/// Follow the presence, the events and the attributes of one device
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device watch SN-0001
  vestibule device watch SN-0001 --json

With --json each line is {\"presence\": device}, {\"event\": event}, {\"attribute\": report} or {\"removed\": device}.
It goes on until it is stopped or the device is removed; a lost connection is taken up again.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut watch = Watch { client, route: super::route_of(&args.device), last: None };
    // Read once for its id, which also names a device that does not exist; and again once the streams are open, so that no change falls between.
    let id = words::text(&watch.device()?, "/id");
    let (teller, told) = mpsc::sync_channel(16);
    // Both come from one platform: that it was lost and is back is told once.
    let streams = [("/v1/events/stream", true), ("/v1/attributes/stream", false)];
    let mut opening = streams.len();
    for (path, tells_of_loss) in streams {
        let (client, route, teller) = (client.clone(), Route::new(path).query("device", &id), teller.clone());
        thread::spawn(move || tell(&client, route, tells_of_loss, &teller));
    }
    drop(teller);
    for followed in told {
        let Some(followed) = followed? else {
            opening -= 1;
            if opening == 0 {
                watch.show(&watch.device()?, out)?;
            }
            continue;
        };
        if let Some(notice) = words::notice(&followed) {
            eprintln!("vestibule: {notice}");
        }
        match followed {
            Followed::Event(event) if out.is_json() => out.json(&json!({ "event": event }))?,
            Followed::Event(event) => out.line(words::event(&event))?,
            Followed::Amended(amendment) if out.is_json() => out.json(&json!({ "amended": amendment }))?,
            Followed::Amended(amendment) => out.line(words::amendment(&amendment))?,
            Followed::Attribute(report) if out.is_json() => out.json(&json!({ "attribute": report }))?,
            Followed::Attribute(report) => out.line(words::attribute(&report))?,
            Followed::Presence(device) if words::text(&device, "/id") == id => watch.show(&device, out)?,
            Followed::Reconnected | Followed::PresenceMissed => watch.show(&watch.device()?, out)?,
            Followed::Removed(device) if words::text(&device, "/id") == id => return removed(&device, out),
            _ => {}
        }
    }
    Ok(())
}

/// What a stream brings: that it is open, what it shows, and last why it cannot go on.
type Told = Result<Option<Followed>, ClientError>;

/// Tells what a stream brings, until nobody listens.
fn tell(client: &Client, route: Route, tells_of_loss: bool, teller: &SyncSender<Told>) {
    let (mut follow, opened) = match Follow::open(client, route, None) {
        Ok(follow) => (Some(follow), Ok(None)),
        Err(error) => (None, Err(error)),
    };
    let mut told = teller.send(opened);
    while told.is_ok()
        && let Some(open) = &mut follow
    {
        let followed = open.wait();
        let is_loss = matches!(followed, Ok(Followed::Lost { .. } | Followed::Reconnected));
        if followed.is_err() {
            follow = None;
        }
        if tells_of_loss || !is_loss {
            told = teller.send(followed.map(Some));
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
