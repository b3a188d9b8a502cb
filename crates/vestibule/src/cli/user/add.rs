//! `vestibule user add`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use super::{Password, Role};
use crate::client::{Client, Route};

/// Let somebody log in from now on
#[derive(clap::Args)]
#[command(after_help = "Examples:
  pass show vestibule/anna | vestibule user add anna --role operator
  vestibule user add otto --role viewer --subtree /plant-1 --password-file otto.txt

The password has 10 to 256 characters; there is no other rule.")]
pub(in super::super) struct Args {
    /// Their name, which the audit knows them by
    name: String,
    /// What they may do
    #[arg(long)]
    role: Role,
    /// The part of the organisation they are bound to [default: your own]
    #[arg(long, value_name = "PATH")]
    subtree: Option<String>,
    #[command(flatten)]
    password: Password,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let password = args.password.read()?;
    let mut body = json!({ "name": args.name, "role": args.role.as_str(), "password": password.as_str() });
    if let Some(subtree) = args.subtree {
        body["subtree"] = subtree.into();
    }
    let added: Value = client.post(&Route::new("/v1/users"), &body)?;
    if out.is_json() {
        return out.json(&added);
    }
    let [name, role, subtree] = ["/name", "/role", "/subtree"].map(|member| words::text(&added, member));
    out.line(format!("{} is {role} of {}", words::printable(&name), words::printable(&subtree)))
}
