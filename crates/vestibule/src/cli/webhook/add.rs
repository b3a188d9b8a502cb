//! `vestibule webhook add`

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::device::read_secret;
use super::super::out::Out;
use super::super::words::{printable, text};
use crate::client::{Client, Route};

/// Add a webhook; its secret is shown this once
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule webhook add https://hall.example/in
  vestibule webhook add https://hall.example/in --kind event --kind operation --device SN-0001
  vestibule webhook add https://hall.example/in --type Smoke --after 0 --json

An address inside of your network takes webhooks.allow in the configuration of the platform.")]
pub(in super::super) struct Args {
    /// Where it is told: https://host/path
    #[arg(value_name = "URL")]
    receiver: String,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// What it is told of: event, attribute, operation or pass; several times for several [default: event]
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only of this device (id or serial)
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// Only of this area
    #[arg(long)]
    area: Option<String>,
    /// Only with this name, such as that of an event
    #[arg(long = "type", value_name = "NAME")]
    event: Option<String>,
    /// File with the secret, whsec_… as Standard Webhooks has it; `-` is standard input [default: the platform draws one]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Begin after this position of the journal [default: with what comes from now on]
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
    /// Add it, and tell it nothing until it is enabled
    #[arg(long)]
    disabled: bool,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut body = json!({ "url": args.receiver, "enabled": !args.disabled });
    let members = [
        ("name", args.name),
        ("device", args.device),
        ("area", args.area),
        ("type", args.event),
        ("after", args.after),
    ];
    for (member, value) in members {
        if let Some(value) = value {
            body[member] = Value::from(value);
        }
    }
    if !args.kinds.is_empty() {
        body["kinds"] = Value::from(args.kinds);
    }
    if let Some(file) = args.secret_file {
        body["secret"] = Value::from(read_secret(file)?.as_str());
    }
    let webhook: Value = client.post(&Route::new("/v1/webhooks"), &body)?;
    if out.is_json() {
        return out.json(&webhook);
    }
    out.line(format!("{} is told as {}", printable(&text(&webhook, "/url")), text(&webhook, "/id")))?;
    match text(&webhook, "/secret") {
        secret if secret.is_empty() => Ok(()),
        secret => out.line(format!("its secret, shown this once: {secret}")),
    }
}
