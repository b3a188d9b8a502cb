//! `vestibule export`

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::Timestamp;

use super::connect::Connect;
use super::moment::Moment;
use super::out::Out;
use crate::client::{Client, Route};

/// Write what devices reported into a file, oldest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule export events --from 2026-01-01 --to 2026-02-01 --output january.ndjson
  vestibule export attributes --device SN-0001 --name Temperature --format csv --output temperature.csv
  vestibule export events --received-from 1d | gzip > yesterday.ndjson.gz

The file gets its name once it is complete. With --format csv, text that a spreadsheet would take for a formula has a ' before it.")]
pub(super) struct Args {
    /// What
    what: What,
    /// NDJSON: one JSON object on each line; or CSV
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Into this file; otherwise to the standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only of this device (id or serial)
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// Only of this area
    #[arg(long)]
    area: Option<String>,
    /// Only events or attributes with this name
    #[arg(long)]
    name: Option<String>,
    /// From this device time on: 2026-01-31T12:00:00Z, 2026-01-31, or 15m (ago)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Up to, and not including, this device time
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// Received from this time on, by the platform's clock
    #[arg(long, value_name = "TIME")]
    received_from: Option<Moment>,
    /// Received up to, and not including, this time
    #[arg(long, value_name = "TIME")]
    received_to: Option<Moment>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Events
    Events,
    /// Attributes, as they were reported
    Attributes,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let time_of = |moment: Option<Moment>| moment.map(|moment| moment.rfc3339(now));
    let route = match args.what {
        What::Events => Route::new("/v1/events/export"),
        What::Attributes => Route::new("/v1/attributes/export"),
    };
    let route = match args.format {
        Format::Ndjson => route.query("format", "ndjson"),
        Format::Csv => route.query("format", "csv"),
    };
    let route = route
        .query_if("device", args.device.as_deref())
        .query_if("area", args.area.as_deref())
        .query_if("name", args.name.as_deref())
        .query_if("from", time_of(args.from).as_deref())
        .query_if("to", time_of(args.to).as_deref())
        .query_if("received_from", time_of(args.received_from).as_deref())
        .query_if("received_to", time_of(args.received_to).as_deref());
    let client = args.connect.client()?;
    save(&client, &route, args.output, out)
}

/// Writes what is at `route` into a file, which gets its name once it is complete, or to the standard output.
pub(super) fn save(client: &Client, route: &Route, output: Option<PathBuf>, out: &mut Out<'_>) -> anyhow::Result<()> {
    let Some(output) = output else { return out.copied(client.download(route)?) };
    let unfinished = output.with_added_extension("part");
    let written = || {
        let mut file = File::create(&unfinished)?;
        let mut body = client.download(route)?;
        std::io::copy(&mut body, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        anyhow::Ok(fs::rename(&unfinished, &output)?)
    };
    written().with_context(|| format!("{} was not written", output.display())).inspect_err(|_| {
        // Half of it is of no use to anybody.
        let _ = fs::remove_file(&unfinished);
    })
}
