//! `vestibule device codes`

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use vestibule_platform::Secret;

/// Make verification codes for serials
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device codes serials.txt > devices.csv
  vestibule device import devices.csv
  vestibule device sheet devices.csv --out sheet.html

One serial a line in, CSV with `serial,code` out, and with --one-time `one_time` beside them. A code has sixteen letters: fourteen random ones, 64
bits, so that nobody guesses it, and two that tell whether it was mistyped. Nothing is sent anywhere.")]
pub(in super::super) struct Args {
    /// File with one serial a line; `-` is standard input
    #[arg(value_name = "FILE")]
    serials: PathBuf,
    /// Each code enrols its device once only: a column `one_time` says so
    #[arg(long)]
    one_time: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let serials: Box<dyn io::Read> = if args.serials.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let opened = fs::File::open(&args.serials);
        Box::new(opened.with_context(|| format!("the serials in {} cannot be read", args.serials.display()))?)
    };
    let mut csv = csv::Writer::from_writer(io::stdout().lock());
    csv.write_record(&["serial", "code", "one_time"][..if args.one_time { 3 } else { 2 }])?;
    for line in io::BufReader::new(serials).lines() {
        let line = line.context("the serials are no text")?;
        let serial = line.trim();
        if !serial.is_empty() {
            let code = Secret::random_code();
            let cells = [serial.as_bytes(), code.expose(), b"true"];
            csv.write_record(&cells[..if args.one_time { 3 } else { 2 }])?;
        }
    }
    csv.flush()?;
    io::stdout().flush()?;
    Ok(())
}
