//! `vestibule user password`

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use super::Password;
use crate::client::{Client, Route};

/// Give a user another password: their sessions end
#[derive(clap::Args)]
#[command(after_help = "Examples:
  pass show vestibule/anna | vestibule user password anna
  vestibule user password anna --password-file new.txt")]
pub(in super::super) struct Args {
    /// Id or name of the user
    user: String,
    #[command(flatten)]
    password: Password,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = Route::new("/v1/users").segment(&args.user).segment("password");
    client.put_only(&route, &json!({ "password": args.password.read()?.as_str() }))?;
    if out.is_json() {
        return out.json(&json!({ "changed": args.user }));
    }
    out.line(format!("{} has the new password", words::printable(&args.user)))
}
