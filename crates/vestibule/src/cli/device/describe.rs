//! `vestibule device describe`

use anyhow::bail;
use serde_json::{Map, Value};

use super::super::out::Out;
use super::show;
use crate::client::Client;

/// Change a device's name, place in the organisation and labels
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device describe SN-0001 --name 'Front door' --org /plant-1/hall-2
  vestibule device describe SN-0001 --label floor=2 --no-label spare

What is not named stays as it is. The devices behind a hub stay where they are.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// Another name; an empty one takes the name off
    #[arg(long)]
    name: Option<String>,
    /// Another place in the organisation
    #[arg(long, value_name = "PATH")]
    org: Option<String>,
    /// A label to be set; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// A label to be taken off; may be given more than once
    #[arg(long, value_name = "NAME")]
    no_label: Vec<String>,
}

/// `NAME=VALUE`; the value may have further `=`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut change = Map::new();
    if let Some(name) = args.name {
        change.insert("name".to_owned(), Some(name).filter(|name| !name.is_empty()).map_or(Value::Null, Value::from));
    }
    if let Some(org) = args.org {
        change.insert("org".to_owned(), org.into());
    }
    let off = args.no_label.into_iter().map(|name| (name, Value::Null));
    let labels: Map<_, _> = off.chain(args.label.into_iter().map(|(name, value)| (name, value.into()))).collect();
    if !labels.is_empty() {
        change.insert("labels".to_owned(), labels.into());
    }
    if change.is_empty() {
        bail!("nothing to change is named: --name, --org, --label or --no-label");
    }
    let device: Value = client.patch(&super::route_of(&args.device), &change.into())?;
    if out.is_json() { out.json(&device) } else { show::print(&device, out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_name_and_a_value() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert!(label("a").is_err() && label("=b").is_err());
    }
}
