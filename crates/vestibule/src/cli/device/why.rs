//! `vestibule device why`

use serde_json::Value;

use super::super::out::Out;
use super::super::table::Table;
use super::super::words::{presence, printable, text, time};
use crate::client::Client;

/// Tell why a device is online or not: its last steps and refusals
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device why SN-0001")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let why: Value = client.get(&super::route_of(&args.device).segment("why"))?;
    if out.is_json() {
        return out.json(&why);
    }
    out.line(format!("{}: {}", printable(&args.device), presence(&why)))?;
    let until = time(&why, "/enrol_until");
    if !until.is_empty() {
        out.line(format!("its last enrolment window: until {until}"))?;
    }
    if let Some(failure) = why.get("last_failure").filter(|failure| failure.is_object()) {
        out.line(format!("last failure at {}: {}", time(failure, "/at"), printable(&sentence(failure))))?;
    }
    let facts = why.get("facts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if facts.is_empty() {
        return out.line("nothing has been seen of it since the platform started");
    }
    out.line("")?;
    out.table(&table(facts))
}

/// What happened, and how often in a row.
fn sentence(fact: &Value) -> String {
    let mut sentence = text(fact, "/text");
    if sentence.is_empty() {
        sentence = text(fact, "/reason");
    }
    match fact.get("count").and_then(Value::as_u64) {
        Some(count) if count > 1 => format!("{sentence} ({count} times)"),
        _ => sentence,
    }
}

fn table(facts: &[Value]) -> Table {
    let mut table = Table::new(&["AT", "STEP", "OUTCOME", "PEER", "WHAT"]);
    for fact in facts {
        let outcome = match fact.get("ok").and_then(Value::as_bool) {
            Some(true) => "ok".to_owned(),
            _ => text(fact, "/reason"),
        };
        table.row([time(fact, "/at"), text(fact, "/step"), outcome, text(fact, "/peer"), sentence(fact)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_become_rows() {
        let facts = [
            json!({"at": 1_767_225_600_000_i64, "step": "authentication", "ok": false, "reason": "wrong_code", "text": "The code differs.", "peer": "192.0.2.1", "count": 3}),
            json!({"at": "2026-01-01T00:00:01Z", "step": "login", "ok": true, "reason": "", "text": "", "peer": null}),
        ];
        assert_eq!(
            table(&facts).to_string(),
            "AT                    STEP            OUTCOME     PEER       WHAT\n\
             2026-01-01T00:00:00Z  authentication  wrong_code  192.0.2.1  The code differs. (3 times)\n\
             2026-01-01T00:00:01Z  login           ok          -          -\n"
        );
    }
}
