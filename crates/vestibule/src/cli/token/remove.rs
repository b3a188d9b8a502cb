//! `vestibule token remove`

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::{Client, Route};

/// Remove a token: it is nobody's from now on
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule token remove wall-display")]
pub(in super::super) struct Args {
    /// Id or name of the token
    token: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.delete(&Route::new("/v1/tokens").segment(&args.token))?;
    if out.is_json() {
        return out.json(&json!({ "removed": args.token }));
    }
    out.line(format!("{} is removed", words::printable(&args.token)))
}
