//! The device process of the check: a device of its own, made with the SDK, that talks to the platform over sockets.
//!
//! It reads its verification code as the first line of standard input, comes in, reports one event, says so in a line of
//! JSON, carries out operations until its standard input ends, and then leaves in order.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use vestibule_device::{Device, FileStorage, OperationError};
use zeroize::Zeroizing;

use crate::cli::Out;
use crate::up::runtime;

/// A device that is not in after this long was refused.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the process is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// LBS, host:port
    #[arg(long)]
    lbs: String,
    /// Serial
    #[arg(long)]
    serial: String,
    /// Directory for what the device is given
    #[arg(long)]
    state: PathBuf,
    /// What the event carries
    #[arg(long)]
    marker: String,
}

/// Runs the device.
///
/// # Errors
/// When the device is not let in, or its event is not acknowledged.
pub fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut code = Zeroizing::new(String::with_capacity(128));
    std::io::stdin().lock().read_line(&mut code).context("no verification code on standard input")?;
    runtime()?.block_on(async {
        let device = Device::builder(&args.serial, code.trim())
            .lbs(&args.lbs)
            .storage(FileStorage::new(&args.state)?)
            .device_type("check")
            .operation("Check", 0, "Check", "Echo", async |input: Value| Ok(input))
            .operation("Check", 0, "Check", "Fail", async |(): ()| Err::<(), _>(OperationError::new(7, "as asked")))
            .start()?;
        let event = device.event("Check", 0, "Check", "Ping");
        let body = json!({ "marker": args.marker });
        match tokio::time::timeout(PATIENCE, event.report(&body)).await {
            Ok(receipt) => out.json(&json!({ "reported": receipt?.id }))?,
            Err(_) => bail!("the event was not acknowledged; the device is {:?}", device.state()),
        }
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new()));
        ended.await.context("standard input")?.context("standard input")?;
        device.stop().await?;
        Ok(())
    })
}
