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

One serial a line in, CSV with `serial,code` out. A code has sixteen letters: fourteen random ones, 64
bits, so that nobody guesses it, and two that tell whether it was mistyped. Nothing is sent anywhere.")]
pub(in super::super) struct Args {
    /// File with one serial a line; `-` is standard input
    #[arg(value_name = "FILE")]
    serials: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let serials: Box<dyn io::Read> = if args.serials.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let opened = fs::File::open(&args.serials);
        Box::new(opened.with_context(|| format!("the serials in {} cannot be read", args.serials.display()))?)
    };
    let mut csv = csv::Writer::from_writer(io::stdout().lock());
    csv.write_record(["serial", "code"])?;
    for line in io::BufReader::new(serials).lines() {
        let line = line.context("the serials are no text")?;
        let serial = line.trim();
        if !serial.is_empty() {
            csv.write_record([serial.as_bytes(), Secret::random_code().expose()])?;
        }
    }
    csv.flush()?;
    io::stdout().flush()?;
    Ok(())
}
