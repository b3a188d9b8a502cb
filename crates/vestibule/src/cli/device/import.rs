//! `vestibule device import`

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::super::out::Out;
use super::super::progress::Progress;
use super::super::table::Table;
use super::super::words;
use crate::client::{Client, Route};

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Register many devices from a file, or see what is wrong with it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device import devices.csv --dry-run
  vestibule device import devices.ndjson
  zcat devices.ndjson.gz | vestibule device import --format ndjson -

NDJSON holds one device on each line: {\"serial\": \"SN-1\", \"code\": \"ABCDEF\", \"name\": …, \"product\": …,
\"parent\": …, \"org\": …, \"labels\": {…}, \"disabled\": …}. CSV has a line with these names, labels being JSON
or columns label:NAME. Rows are registered as they arrive. What is registered already is left as it is, so
that an import that was interrupted is gone on with by the same command. Codes are not kept in the file's form.")]
pub(in super::super) struct Args {
    /// The file; `-` is standard input
    file: PathBuf,
    /// How it is written [default: what its name ends in]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Register nothing, and say what would be
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

impl Format {
    /// What the end of a file's name says.
    fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv",
        }
    }
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let Some(format) = args.format.or_else(|| Format::of(&args.file)) else {
        bail!("what the file holds is not said: name it .csv or .ndjson, or say --format");
    };
    let from: Box<dyn Read + Send> = if args.file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(&args.file);
        Box::new(file.with_context(|| format!("the file {} cannot be read", args.file.display()))?)
    };
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = Counted { from, bytes: Arc::clone(&bytes) };
    let route = Route::new("/v1/imports").query("dry_run", if args.dry_run { "true" } else { "false" });
    let (ended, end) = mpsc::channel();
    let upload = || {
        let job: Result<Value, _> = client.upload(&route, format.media_type(), counted);
        // Whoever shows progress waits for this.
        let _ = ended.send(());
        job
    };
    let job = thread::scope(|scope| {
        let upload = scope.spawn(upload);
        let mut progress = Progress::new("bytes sent");
        while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            progress.says(|| format!("{} KiB sent", bytes.load(Ordering::Relaxed) / 1024));
        }
        upload.join()
    });
    let job = job.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    print(&job, out)?;
    let failed = job["failed"].as_u64().unwrap_or_default();
    match job["state"].as_str() {
        Some("done") if failed == 0 => Ok(()),
        Some("done") if failed == 1 => bail!("1 row was not taken"),
        Some("done") => bail!("{failed} rows were not taken"),
        state => {
            let reason = words::text(&job, "/reason");
            bail!("the import was {}: {}", state.unwrap_or("not finished"), words::printable(&reason))
        }
    }
}

/// The end of an import: counts, and what is wrong line by line.
fn print(job: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(job);
    }
    let count = |name: &str| job[name].as_u64().unwrap_or_default();
    let [rows, added, unchanged, failed] = ["rows", "added", "unchanged", "failed"].map(count);
    let would = if job["dry_run"] == true { "would be registered" } else { "registered" };
    out.line(format!("{rows} rows: {added} {would}, {unchanged} unchanged, {failed} not taken"))?;
    let errors = job["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    if errors.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["LINE", "FIELD", "WHAT IS WRONG"]);
    for error in errors {
        table.row([words::text(error, "/line"), words::text(error, "/field"), words::text(error, "/detail")]);
    }
    out.table(&table)?;
    let more = failed.saturating_sub(errors.len() as u64);
    if more > 0 { out.line(format!("and {more} more")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_what_it_holds() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(
            (of("a/b.CSV"), of("x.ndjson"), of("x.jsonl")),
            (Some(Format::Csv), Some(Format::Ndjson), Some(Format::Ndjson))
        );
        assert_eq!((of("-"), of("devices"), of("devices.xlsx")), (None, None, None));
    }
}
