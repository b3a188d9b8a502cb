//! `vestibule pass follow`

use serde_json::Value;

use super::super::out::Out;
use super::super::words::{self, text, time};
use super::{Filter, part, shown, way};
use crate::client::{Client, Follow, Followed, Route};

/// Print messages as they pass, until stopped
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule pass follow
  vestibule pass follow --device SN-0001 --json
  vestibule pass follow --after 0

A lost connection is taken up again where it ended: no message is missed and none is shown twice.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Begin after this position instead of now; 0 begins with the oldest message kept
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut follow = Follow::open(client, args.filter.apply(Route::new("/v1/pass/stream")), args.after)?;
    loop {
        let followed = follow.wait()?;
        if let Some(notice) = words::notice(&followed) {
            eprintln!("vestibule: {notice}");
        }
        match followed {
            Followed::Passed(message) if out.is_json() => out.json(&message)?,
            Followed::Passed(message) => out.line(line(&message))?,
            _ => {}
        }
    }
}

/// When, who, which way, where, and what.
fn line(message: &Value) -> String {
    let parts = [
        time(message, "/time"),
        text(message, "/device/serial"),
        way(message),
        part(message),
        text(message, "/media_type"),
        shown(message),
    ];
    words::printable(&parts.join("  ")).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let message = json!({
            "device": {"serial": "SN-1"}, "resource": "Meter", "index": "0", "area": "Raw", "name": "Frame",
            "time": "2026-01-01T00:00:00Z", "direction": "up", "media_type": "text/plain", "base64": "MTcNCg=="
        });
        let line = line(&message);
        assert!(line.starts_with("2026-01-01T00:00:00Z  SN-1  up  Meter/0/Raw/Frame  text/plain  17"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line:?}");
    }
}
