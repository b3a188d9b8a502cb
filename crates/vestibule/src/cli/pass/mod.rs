//! `vestibule pass …`

mod follow;
mod list;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::Value;

use super::connect::Connect;
use super::out::Out;
use super::words::text;
use crate::client::Route;

/// Bytes of a message that are shown in a line, of one that is no text.
const SHOWN: usize = 32;

/// Read and follow the messages that pass to and from devices as they are
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule pass list --device SN-0001
  vestibule pass follow --json

`vestibule device pass` sends one to a device.")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Follow(follow::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::List(args) => list::run(args, client, out),
        Command::Follow(args) => follow::run(args, client, out),
    }
}

/// Which messages a command is about.
#[derive(clap::Args)]
struct Filter {
    /// Only of or for this device (id or serial)
    #[arg(long, value_name = "D")]
    device: Option<String>,
}

impl Filter {
    fn apply(&self, route: Route) -> Route {
        route.query_if("device", self.device.as_deref())
    }
}

/// Where a message goes, and what became of it if it goes to a device: `up`, `down delivered`.
fn way(message: &Value) -> String {
    match message.get("outcome").and_then(Value::as_str) {
        Some(outcome) => format!("{} {outcome}", text(message, "/direction")),
        None => text(message, "/direction"),
    }
}

/// The part of the device.
fn part(message: &Value) -> String {
    ["/resource", "/index", "/area", "/name"].map(|member| text(message, member)).join("/")
}

/// A message for people: text as it is, anything else as the first bytes in hexadecimal.
fn shown(message: &Value) -> String {
    let Some(bytes) = message["base64"].as_str().and_then(|text| STANDARD.decode(text).ok()) else {
        return "-".to_owned();
    };
    let is_plain = |text: &&str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\r' && c != '\t');
    if let Some(text) = std::str::from_utf8(&bytes).ok().filter(is_plain) {
        return text.to_owned();
    }
    let hex: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > SHOWN { format!("0x{hex}…") } else { format!("0x{hex}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_shown_as_text_where_it_is_text() {
        let of = |bytes: &[u8]| shown(&json!({ "base64": STANDARD.encode(bytes) }));
        assert_eq!(of("1.8.0(017*kWh)\r\nä".as_bytes()), "1.8.0(017*kWh)\r\nä");
        assert_eq!(of(b""), "");
        assert_eq!(of(&[0, 0xff, 0x7e]), "0x00ff7e");
        assert_eq!(of(b"\x1b[2J"), "0x1b5b324a", "nothing that moves the cursor");
        assert_eq!(of(&[0xff; 33]), format!("0x{}…", "ff".repeat(32)));
        assert_eq!(shown(&json!({ "base64": "?" })), "-");
    }
}
