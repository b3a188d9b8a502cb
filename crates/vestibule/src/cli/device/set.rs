//! `vestibule device set`

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;
use crate::config::duration_from_text;

/// Wish an attribute of a device to have a value
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device set SN-0001 Lamp/0/Light/Power true
  vestibule device set SN-0001 Light/Colour '\"red\"' --wait 10s --expires-in 1h

A device that is away is told when it comes back, unless the wish has expired. Exit status 0: taken, or not
answered yet; 1: refused by the device, replaced by another wish, or expired.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// The attribute: resource/index/area/name; area/name means the device itself (global/0)
    attribute: String,
    /// The value, as JSON
    value: String,
    /// How long to wait for what the device says, up to 25s
    #[arg(long, value_parser = duration_from_text)]
    wait: Option<Duration>,
    /// For how long it is wished, 1s to 366d; without it until it is fulfilled, refused or replaced
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    expires_in: Option<Duration>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::part_of(super::route_of(&args.device).segment("attributes"), &args.attribute)?;
    let value: Value = serde_json::from_str(&args.value)
        .with_context(|| format!("the value is not JSON: {}\n  a text is written as '\"text\"'", args.value))?;
    let mut body = Map::from_iter([("value".to_owned(), value)]);
    if let Some(wait) = args.wait {
        body.insert("wait_ms".to_owned(), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into());
    }
    if let Some(expires_in) = args.expires_in {
        body.insert("expires_in".to_owned(), expires_in.as_secs().into());
    }
    let attribute: Value = client.put(&route, &body.into())?;
    let desired = &attribute["desired"];
    let outcome = desired["outcome"].as_str().unwrap_or_default();
    let device = words::printable(&args.device);
    if out.is_json() {
        out.json(&attribute)?;
    } else if outcome == "applied" {
        out.line(format!("{device} has taken it"))?;
    } else if outcome == "pending" {
        out.line(format!("{device} has not said anything yet; it is told again when it comes"))?;
    }
    match outcome {
        "refused" => {
            let words = desired["message"].as_str().map(|words| format!(": {}", words::printable(words)));
            bail!("{device} does not take it: code {}{}", desired["code"], words.unwrap_or_default())
        }
        "superseded" => bail!("somebody wished for another value before {device} had said anything"),
        "expired" => bail!("its time was over before {device} had said anything"),
        _ => Ok(()),
    }
}
