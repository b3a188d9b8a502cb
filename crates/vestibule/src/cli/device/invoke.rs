//! `vestibule device invoke`

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;
use crate::config::duration_from_text;

/// Have a device carry out an operation, and say how it ended
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device invoke SN-0001 AccessControl/0/Door/Open '{\"seconds\": 5}'
  vestibule device invoke SN-0001 Clock/Adjust --queue 10m --idempotency-key adjust-7

The operation is sent at most once. Exit status 0: the device did it, or it waits; 1: it did not, or nobody can
know. What waits shows in `device queue`.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// The operation: resource/index/area/name; area/name means the device itself (global/0)
    operation: String,
    /// What the operation takes, as JSON
    input: Option<String>,
    /// How long the device may take, 100ms to 25s
    #[arg(long, value_parser = duration_from_text)]
    deadline: Option<Duration>,
    /// Have it wait so long for a device that is away, 1s to 24h
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    queue: Option<Duration>,
    /// A name for this request: asked again within a day, it is answered as before and nothing is sent
    #[arg(long, value_name = "KEY", value_parser = super::header_text)]
    idempotency_key: Option<String>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::part_of(super::route_of(&args.device).segment("operations"), &args.operation)?;
    let mut body = Map::new();
    if let Some(input) = &args.input {
        let input: Value = serde_json::from_str(input)
            .with_context(|| format!("the input is not JSON: {input}\n  a text is written as '\"text\"'"))?;
        body.insert("input".to_owned(), input);
    }
    if let Some(deadline) = args.deadline {
        body.insert("deadline_ms".to_owned(), u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).into());
    }
    if let Some(queue) = args.queue {
        body.insert("queue".to_owned(), json!({ "expires_in": queue.as_secs() }));
    }
    let end: Value = match &args.idempotency_key {
        Some(key) => client.post_once(&route, key, &body.into())?,
        None => client.post(&route, &body.into())?,
    };
    let outcome = end["outcome"].as_str().unwrap_or_default();
    if out.is_json() {
        out.json(&end)?;
    } else if outcome == "done" {
        match end.get("output") {
            Some(output) => out.line(format!("done: {}", words::printable(&output.to_string())))?,
            None => out.line("done".to_owned())?,
        }
    } else if outcome == "queued" {
        let (id, expires) = (words::text(&end, "/operation_id"), words::time(&end, "/expires"));
        out.line(words::printable(&format!("queued: it waits for {} until {expires}, as {id}", args.device)))?;
    }
    let device = words::printable(&args.device);
    match outcome {
        "done" | "queued" => Ok(()),
        "failed" => {
            let words = end["message"].as_str().map(|words| format!(": {}", words::printable(words)));
            bail!("{device} did not do it: code {}{}", end["code"], words.unwrap_or_default())
        }
        "timed_out" => bail!("{device} did not answer in time; it may have done it or may still do it"),
        "offline" => bail!("{device} is not there; nothing was sent"),
        "unknown" => bail!(
            "the connection of {device} was lost after the operation was sent; nobody can know whether it was done"
        ),
        other => bail!("the platform says `{}`, which this version does not know", words::printable(other)),
    }
}
