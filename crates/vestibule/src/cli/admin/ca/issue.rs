//! `vestibule admin ca issue`

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::super::super::out::Out;
use super::super::super::progress::Progress;
use super::super::super::words::printable;
use crate::client::Client;

/// What is read of a request at most.
const MAX_CSR: u64 = 64 * 1024;

/// Issue a device's certificate for its request (PKCS #10), or those of many
///
/// The private key never leaves the device, or the line where it is made: the request is all that is needed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca issue SN0000001 --csr SN0000001.csr > SN0000001.pem
  openssl req -new -key key.pem -subj / | vestibule admin ca issue SN0000001 --csr -
  vestibule admin ca issue --from requests --into certificates --days 730

With --from, each file SERIAL.csr of a directory is a request; SERIAL.pem is written for each.")]
pub(in super::super::super) struct Args {
    /// Serial or id of the device
    #[arg(required_unless_present = "from", conflicts_with = "from", requires = "csr")]
    device: Option<String>,
    /// File with its request, PEM or base64; - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    csr: Option<PathBuf>,
    /// Directory with the requests of many
    #[arg(long, value_name = "DIR", requires = "into")]
    from: Option<PathBuf>,
    /// Directory for their certificates; made when it is missing
    #[arg(long, value_name = "DIR", requires = "from")]
    into: Option<PathBuf>,
    /// How long they are good for, up to 730 days
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u64,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    match (args.device, args.csr, args.from, args.into) {
        (Some(device), Some(csr), ..) => {
            let issued = issue(client, &device, &read(&csr)?, args.days)?;
            if out.is_json() {
                return out.json(&issued);
            }
            out.line(issued["chain"].as_str().unwrap_or_default().trim_end())
        }
        (_, _, Some(from), Some(into)) => many(client, &from, &into, args.days, out),
        _ => bail!("name a device with --csr FILE, or directories with --from and --into"),
    }
}

fn issue(client: &Client, device: &str, csr: &str, days: u64) -> anyhow::Result<Value> {
    Ok(client.post(&super::of_device(device), &json!({ "csr": csr, "days": days }))?)
}

/// Goes through a directory; one that is refused does not keep the others.
fn many(client: &Client, from: &Path, into: &Path, days: u64, out: &mut Out<'_>) -> anyhow::Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))?;
    let mut requests = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", from.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "csr") {
            requests.push(path);
        }
    }
    requests.sort();
    fs::create_dir_all(into).with_context(|| format!("{} cannot be made", into.display()))?;
    let mut progress = Progress::new("certificates");
    let (mut issued, mut failed) = (0usize, Vec::new());
    for path in &requests {
        match issue_file(client, path, into, days) {
            Ok(()) => issued += 1,
            Err(error) => failed.push((path.display().to_string(), format!("{error:#}"))),
        }
        progress.reached(issued);
    }
    drop(progress);
    if out.is_json() {
        let failed: Vec<_> = failed.iter().map(|(file, error)| json!({ "file": file, "error": error })).collect();
        out.json(&json!({ "issued": issued, "failed": failed }))?;
    } else {
        for (file, error) in &failed {
            out.line(format!("{}: {}", printable(file), printable(error)))?;
        }
        out.line(format!("{issued} certificates in {}", into.display()))?;
    }
    if failed.is_empty() { Ok(()) } else { bail!("{} of {} requests were refused", failed.len(), requests.len()) }
}

fn issue_file(client: &Client, path: &Path, into: &Path, days: u64) -> anyhow::Result<()> {
    let serial = path.file_stem().and_then(|stem| stem.to_str()).context("its name is not UTF-8")?;
    let issued = issue(client, serial, &read(path)?, days)?;
    let file = into.join(format!("{serial}.pem"));
    let chain = issued["chain"].as_str().context("the answer holds no certificate")?;
    fs::write(&file, chain).with_context(|| format!("{} cannot be written", file.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_CSR).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_CSR).read_to_string(&mut text))
    };
    read.with_context(|| format!("the request {} cannot be read", path.display()))?;
    Ok(text)
}
