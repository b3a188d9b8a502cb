//! Which devices, for commands that are about many.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::client::Route;

/// Flags that say which devices: those to which all of them apply.
#[derive(clap::Args)]
#[command(next_help_heading = "Which devices")]
pub(super) struct Filter {
    /// Only those that are there, were there once, or never were
    #[arg(long, value_enum)]
    presence: Option<Presence>,
    /// Short for --presence online
    #[arg(long, conflicts_with = "presence")]
    online: bool,
    /// Short for --presence offline
    #[arg(long, conflicts_with_all = ["presence", "online"])]
    offline: bool,
    /// Only those whose present or last session has this security suite
    #[arg(long)]
    suite: Option<String>,
    /// Only those of this product
    #[arg(long)]
    product: Option<String>,
    /// Only those of this family of protocols
    #[arg(long)]
    family: Option<String>,
    /// Only those that are reached through the device with this id or serial
    #[arg(long, value_name = "D")]
    parent: Option<String>,
    /// Only at this place in the organisation, or below
    #[arg(long, value_name = "PATH")]
    org: Option<String>,
    /// Only with a label of this name, or one that says this; may be given more than once
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Only with this text in serial, name, product or labels, in upper or lower case
    #[arg(long)]
    text: Option<String>,
    /// Only those that are shut out
    #[arg(long, conflicts_with = "enabled")]
    disabled: bool,
    /// Only those that are not shut out
    #[arg(long)]
    enabled: bool,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Presence {
    Online,
    Offline,
    NeverSeen,
}

impl Filter {
    /// Names and values as the API has them.
    fn parts(&self) -> Vec<(&'static str, String)> {
        let presence = match (self.presence, self.online, self.offline) {
            (Some(Presence::Online), ..) | (None, true, _) => Some("online"),
            (Some(Presence::Offline), ..) | (None, false, true) => Some("offline"),
            (Some(Presence::NeverSeen), ..) => Some("never_seen"),
            (None, false, false) => None,
        };
        let disabled = (self.disabled || self.enabled).then(|| self.disabled.to_string());
        let parts = [
            ("presence", presence.map(str::to_owned)),
            ("suite", self.suite.clone()),
            ("product", self.product.clone()),
            ("family", self.family.clone()),
            ("parent", self.parent.clone()),
            ("org", self.org.clone()),
            ("text", self.text.clone()),
            ("disabled", disabled),
        ];
        let labels = self.label.iter().map(|label| ("label", label.replacen('=', ":", 1)));
        parts.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(labels).collect()
    }

    /// The filter of a body that says which; empty for all.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut filter = Map::new();
        for (name, value) in self.parts() {
            match name {
                "label" => match filter.entry("label").or_insert_with(|| json!([])) {
                    Value::Array(labels) => labels.push(value.into()),
                    _ => continue,
                },
                "disabled" => drop(filter.insert(name.to_owned(), (value == "true").into())),
                _ => drop(filter.insert(name.to_owned(), value.into())),
            }
        }
        filter
    }

    /// The route with the parameters that say which.
    pub(super) fn added_to(&self, route: Route) -> Route {
        self.parts().into_iter().fold(route, |route, (name, value)| route.query(name, &value))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        filter: Filter,
    }

    fn read(args: &[&str]) -> Option<Filter> {
        Command::try_parse_from([&["x"], args].concat()).ok().map(|command| command.filter)
    }

    #[test]
    fn flags_become_parameters() {
        let args = ["--online", "--label", "floor=2=b", "--label", "door", "--enabled", "--text", "a b"];
        let route = read(&args).expect("flags").added_to(Route::new("/v1/devices"));
        let wanted = "/v1/devices?presence=online&text=a%20b&disabled=false&label=floor%3A2%3Db&label=door";
        assert_eq!(route.as_str(), wanted);
        let filter = read(&args).expect("flags").to_json();
        let labels = json!(["floor:2=b", "door"]);
        assert_eq!(
            Value::from(filter),
            json!({"presence": "online", "text": "a b", "disabled": false, "label": labels})
        );
        assert!(read(&[]).is_some_and(|filter| filter.parts().is_empty()));
        assert!(read(&["--online", "--offline"]).is_none() && read(&["--disabled", "--enabled"]).is_none());
    }
}
