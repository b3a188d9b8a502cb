//! `vestibule user remove`

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::{Client, Route};

/// Remove a user: their sessions end, and they log in no more
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule user remove anna")]
pub(in super::super) struct Args {
    /// Id or name of the user
    user: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.delete(&Route::new("/v1/users").segment(&args.user))?;
    if out.is_json() {
        return out.json(&json!({ "removed": args.user }));
    }
    out.line(format!("{} is removed", words::printable(&args.user)))
}
