//! `vestibule device pass`

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;
use crate::config::duration_from_text;

/// One byte more than a message may have.
const MAX_FILE: u64 = vestibule_platform::MAX_PASS as u64 + 1;

/// Pass a message to a part of a device as it is
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device pass SN-0001 Meter/0/Raw/Frame --type text/plain --data 'GET 1.8.0'
  vestibule device pass SN-0001 Meter/0/Raw/Frame --type application/octet-stream --file frame.bin

The message is sent once and never kept for later. Exit status 0: the device has it; 1: it has not, or nobody can know.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// Where it goes: resource/index/area/name; area/name means the device itself (global/0)
    part: String,
    /// What the message is: a media type
    #[arg(long = "type", value_name = "TYPE", value_parser = super::header_text)]
    media_type: String,
    #[command(flatten)]
    message: Message,
    /// How long the device may take to say that it has it, 100ms to 25s
    #[arg(long, value_parser = duration_from_text)]
    deadline: Option<Duration>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Message {
    /// The message as text
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// File with the message; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Message {
    fn read(self) -> anyhow::Result<Vec<u8>> {
        let Some(path) = self.file else { return Ok(self.data.unwrap_or_default().into_bytes()) };
        let mut bytes = Vec::new();
        let read = if path == Path::new("-") {
            io::stdin().lock().take(MAX_FILE).read_to_end(&mut bytes)
        } else {
            File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        };
        read.with_context(|| format!("the file {} cannot be read", path.display()))?;
        Ok(bytes)
    }
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::part_of(super::route_of(&args.device).segment("pass"), &args.part)?;
    let deadline = args.deadline.map(|deadline| deadline.as_millis().to_string());
    let route = route.query_if("deadline_ms", deadline.as_deref());
    let end: Value = client.post_bytes(&route, &args.media_type, args.message.read()?)?;
    let (device, outcome) = (words::printable(&args.device), end["outcome"].as_str().unwrap_or_default());
    if out.is_json() {
        out.json(&end)?;
    } else if outcome == "delivered" {
        out.line(format!("{device} has it"))?;
    }
    match outcome {
        "delivered" => Ok(()),
        "timed_out" => bail!("{device} did not say in time that it has it; it may have it"),
        "offline" => bail!("{device} is not there; nothing was sent"),
        "unknown" => {
            bail!("the connection of {device} was lost after the message was sent; nobody can know whether it has it")
        }
        other => bail!("the platform says `{}`, which this version does not know", words::printable(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_text_or_a_file_of_a_bounded_length() {
        let text = Message { data: Some("hello".to_owned()), file: None };
        assert_eq!(text.read().expect("text"), b"hello");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("frame");
        std::fs::write(&path, vec![0xff; 100_000]).expect("written");
        let file = Message { data: None, file: Some(path) };
        assert_eq!(file.read().expect("read").len(), 65_537, "one more than the platform takes, so that it says so");
        let missing = Message { data: None, file: Some(dir.path().join("none")) };
        assert!(missing.read().expect_err("missing").to_string().contains("none cannot be read"));
    }
}
