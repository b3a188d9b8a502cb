//! `vestibule token add`

use std::time::Duration;

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use super::Role;
use crate::client::{Client, Route};
use crate::config::duration_from_text;

/// Make a token; its secret is shown this once
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule token add wall-display --role viewer --subtree /plant-1
  vestibule token add ci --role operator --expires-in 30d --json | jq -r .token > ci.token")]
pub(in super::super) struct Args {
    /// A name for it, which the audit knows it by
    name: String,
    /// What it may do
    #[arg(long)]
    role: Role,
    /// The part of the organisation it is bound to [default: your own]
    #[arg(long, value_name = "PATH")]
    subtree: Option<String>,
    /// After this time it is nobody's any more, such as 12h or 30d [default: when it is removed]
    #[arg(long, value_name = "TIME", value_parser = duration_from_text)]
    expires_in: Option<Duration>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut body = json!({ "name": args.name, "role": args.role.as_str() });
    if let Some(subtree) = args.subtree {
        body["subtree"] = subtree.into();
    }
    if let Some(expires_in) = args.expires_in {
        body["expires_in"] = expires_in.as_secs().into();
    }
    let made: Value = client.post(&Route::new("/v1/tokens"), &body)?;
    if out.is_json() {
        return out.json(&made);
    }
    let [name, role, subtree] = ["/name", "/role", "/subtree"].map(|member| words::text(&made, member));
    let name = words::printable(&name);
    out.line(format!("{name} is {role} of {}, by this token, shown this once:", words::printable(&subtree)))?;
    out.line(words::text(&made, "/token"))
}
