//! `vestibule device rotate`

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use super::add::read_code;
use crate::client::Client;

/// Give a device another verification code
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device rotate SN-0001
  vestibule device rotate SN-0001 --code-file code.txt

What was agreed with the device is void and its connection ends: it comes in with the new code as if
for the first time. A code that the platform makes is shown this once.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// File that holds the new code, `-` for standard input; without it the platform makes one
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
    /// The new code enrols the device once only; not for one that a hub brings, which shows it each time
    #[arg(long)]
    one_time: bool,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut body = match args.code_file {
        Some(file) => json!({ "code": read_code(file)?.as_str() }),
        None => json!({}),
    };
    if args.one_time {
        body["one_time"] = Value::Bool(true);
    }
    let answer: Value = client.post(&super::route_of(&args.device).segment("rotate"), &body)?;
    if out.is_json() {
        return out.json(&answer);
    }
    let device = words::printable(&args.device);
    match answer["code"].as_str() {
        Some(code) => out.line(format!("{device} has the new code {code}, shown this once")),
        None => out.line(format!("{device} has the new code")),
    }
}
