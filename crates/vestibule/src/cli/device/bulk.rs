//! `vestibule device bulk`

use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::super::out::Out;
use super::super::progress::Progress;
use super::super::table::Table;
use super::super::words;
use super::describe::label;
use super::filter::Filter;
use crate::client::{Client, Route};
use crate::config::duration_from_text;

/// How often it is asked how far the change is.
const TICK: Duration = Duration::from_millis(250);

/// Do the same to many devices
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device bulk label --org /plant-1 --set floor=2 --unset old --dry-run
  vestibule device bulk move --label floor=2 --to /plant-1/hall-2
  vestibule device bulk disable --device SN-0001 --device SN-0002
  vestibule device bulk enrol --offline --product cam --window 1h

Which devices it is about is decided when it begins. --dry-run counts them and shows some.")]
pub(in super::super) struct Args {
    /// What is done to each
    #[arg(value_enum)]
    action: Action,
    /// The device with this id or serial; may be given more than once, in place of what is true of them
    #[arg(long, value_name = "D")]
    device: Vec<String>,
    /// For label: a label to be set; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    set: Vec<(String, String)>,
    /// For label: a label to be taken off; may be given more than once
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// For move: the place in the organisation
    #[arg(long, value_name = "PATH")]
    to: Option<String>,
    /// For enrol: how long the window stays open [default: 15m]
    #[arg(long, value_parser = duration_from_text)]
    window: Option<Duration>,
    /// Count the devices and show some, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Set labels and take them off
    Label,
    /// Move to another place in the organisation
    Move,
    /// Shut out
    Disable,
    /// Let in again
    Enable,
    /// Remove
    Remove,
    /// Open a window for enrolment
    Enrol,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Label => "label",
            Action::Move => "move",
            Action::Disable => "disable",
            Action::Enable => "enable",
            Action::Remove => "remove",
            Action::Enrol => "enrol",
        }
    }
}

/// What is sent.
fn body(args: Args) -> anyhow::Result<Value> {
    let filter = args.filter.to_json();
    let mut body = match (args.device.is_empty(), filter.is_empty()) {
        (true, true) => bail!("which devices is not said; all of them are meant by --org /"),
        (false, false) => bail!("which devices is said twice: by --device and by what is true of them"),
        (true, false) => json!({ "filter": filter }),
        (false, true) => json!({ "devices": args.device }),
    };
    body["action"] = args.action.name().into();
    body["dry_run"] = args.dry_run.into();
    let off = args.unset.into_iter().map(|name| (name, Value::Null));
    let labels: Map<_, _> = off.chain(args.set.into_iter().map(|(name, value)| (name, value.into()))).collect();
    if !labels.is_empty() {
        body["labels"] = labels.into();
    }
    if let Some(to) = args.to {
        body["org"] = to.into();
    }
    let window = args.window.or((args.action == Action::Enrol).then_some(Duration::from_secs(15 * 60)));
    if let Some(window) = window {
        body["window_seconds"] = window.as_secs().into();
    }
    Ok(body)
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let (dry_run, body) = (args.dry_run, body(args)?);
    let mut job: Value = client.post(&Route::new("/v1/bulk"), &body)?;
    if dry_run {
        return print_dry_run(&job, out);
    }
    let address = Route::new("/v1/bulk").segment(&words::text(&job, "/id"));
    let mut progress = Progress::new("devices");
    while job["state"] == "running" {
        sleep(TICK);
        job = client.get(&address)?;
        progress.says(|| format!("{} of {} devices", job["seen"], job["devices"]));
    }
    drop(progress);
    print(&job, out)?;
    let failed = job["failed"].as_u64().unwrap_or_default();
    match job["state"].as_str() {
        Some("done") if failed == 0 => Ok(()),
        Some("done") => bail!("{failed} devices were not changed"),
        state => {
            let reason = words::text(&job, "/reason");
            bail!("it was {}: {}", state.unwrap_or("not finished"), words::printable(&reason))
        }
    }
}

fn print_dry_run(answer: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(answer);
    }
    let sample = answer["sample"].as_array().map(Vec::as_slice).unwrap_or_default();
    let some: Vec<String> = sample.iter().map(|device| words::text(device, "/serial")).collect();
    let some = some.join(", ");
    out.line(format!("{} devices: {}", answer["devices"], words::printable(&some)))
}

fn print(job: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(job);
    }
    let [devices, changed, unchanged, failed] = ["devices", "changed", "unchanged", "failed"].map(|name| &job[name]);
    out.line(format!("{devices} devices: {changed} changed, {unchanged} so already, {failed} not changed"))?;
    let errors = job["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if errors.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["DEVICE", "WHAT IS WRONG"]);
    for error in errors {
        let serial = words::text(error, "/serial");
        let device = if serial.is_empty() { words::text(error, "/device") } else { serial };
        table.row([device, words::text(error, "/detail")]);
    }
    out.table(&table)
}
