//! `vestibule admin ca export`

use anyhow::ensure;
use serde_json::{Value, json};

use super::super::super::out::Out;
use super::Purpose;
use crate::client::Client;

/// Print the roots, PEM, newest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca export servers > ca.pem
  vestibule admin ca export devices > device-ca.pem")]
pub(in super::super::super) struct Args {
    /// Whose
    purpose: Purpose,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let authority: Value = client.get(&super::authority())?;
    let kind = format!("{}/root", args.purpose.as_str());
    let all = authority["authorities"].as_array().into_iter().flatten();
    let roots: String = all.filter(|one| one["kind"] == *kind).filter_map(|one| one["pem"].as_str()).collect();
    ensure!(!roots.is_empty(), "the platform has no root for {}", args.purpose.as_str());
    if out.is_json() { out.json(&json!({ "roots": roots })) } else { out.line(roots.trim_end()) }
}
