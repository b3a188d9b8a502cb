//! `vestibule device silence`

use std::collections::BTreeMap;

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Forbid a device to send some of its commands
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device silence SN-0001 1100/18759 7002
  vestibule device silence SN-0001

Devices made with our SDK take the list in place of the one before, so that an empty one allows everything again.
How devices of others are allowed again what was forbidden is not known. Devices answer nothing to this: that one obeys
shows in what it does next.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// What is forbidden: domain/command, or the number of a whole domain
    #[arg(value_name = "COMMAND", value_parser = forbidden)]
    commands: Vec<Forbidden>,
}

/// A domain, and one command of it or all.
type Forbidden = (u32, Option<u32>);

fn forbidden(text: &str) -> Result<Forbidden, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number of a domain or command"));
    match text.split_once('/') {
        Some((domain, command)) => Ok((number(domain)?, Some(number(command)?))),
        None => Ok((number(text)?, None)),
    }
}

/// The list as the API takes it; a whole domain counts more than commands of it.
fn list(commands: &[Forbidden]) -> BTreeMap<u32, Vec<u32>> {
    let mut list: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (domain, command) in commands {
        list.entry(*domain).or_default().extend(command);
    }
    for (domain, _) in commands.iter().filter(|(_, command)| command.is_none()) {
        list.insert(*domain, Vec::new());
    }
    list
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let commands = list(&args.commands);
    client.tell(&super::route_of(&args.device).segment("silence"), &json!({ "commands": commands }))?;
    if out.is_json() {
        return out.json(&json!({ "told": args.device, "commands": commands }));
    }
    out.line(format!("{} is told {}", words::printable(&args.device), said(&commands)))
}

/// What was sent, in words.
fn said(commands: &BTreeMap<u32, Vec<u32>>) -> String {
    if commands.is_empty() {
        return "that nothing is forbidden: an empty list".to_owned();
    }
    let one = |(domain, numbers): (&u32, &Vec<u32>)| match &numbers[..] {
        [] => vec![format!("all of {domain}")],
        numbers => numbers.iter().map(|number| format!("{domain}/{number}")).collect(),
    };
    format!("not to send {}", commands.iter().flat_map(one).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_commands_and_whole_domains() {
        let read = |texts: &[&str]| {
            let commands: Result<Vec<_>, _> = texts.iter().map(|text| forbidden(text)).collect();
            commands.map(|commands| serde_json::to_value(list(&commands)).expect("JSON"))
        };
        assert_eq!(read(&["1100/18759", "7002", "1100/2"]), Ok(json!({"1100": [18_759, 2], "7002": []})));
        assert_eq!(read(&["7002/1", "7002", "7002/2"]), Ok(json!({"7002": []})));
        assert_eq!(read(&[]), Ok(json!({})));
        let words = |texts: &[&str]| said(&list(&texts.iter().flat_map(|text| forbidden(text)).collect::<Vec<_>>()));
        assert_eq!(words(&["7002", "1100/18759", "1100/2"]), "not to send 1100/18759, 1100/2, all of 7002");
        assert_eq!(words(&[]), "that nothing is forbidden: an empty list");
        for wrong in ["", "a", "1/", "/1", "1/2/3", "-1", "4294967296"] {
            assert!(read(&[wrong]).is_err(), "{wrong}");
        }
    }
}
