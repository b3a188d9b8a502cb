//! `vestibule device export`

use std::path::PathBuf;

use clap::ValueEnum;

use super::super::export::save;
use super::super::out::Out;
use super::filter::Filter;
use crate::client::{Client, Route};

/// Write devices into a file, which an import reads again
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device export --output devices.ndjson
  vestibule device export --org /plant-1 --format csv --output plant-1.csv

The file gets its name once it is complete. It holds no verification codes: an import of devices that
are not registered needs them added. With --format csv, text that a spreadsheet would take for a formula
has a ' before it, which an import takes off again.")]
pub(in super::super) struct Args {
    /// NDJSON: one JSON object on each line; or CSV
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
    /// Into this file; otherwise to the standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = args.filter.added_to(Route::new("/v1/devices/export"));
    let route = match args.format {
        Format::Ndjson => route.query("format", "ndjson"),
        Format::Csv => route.query("format", "csv"),
    };
    save(client, &route, args.output, out)
}
