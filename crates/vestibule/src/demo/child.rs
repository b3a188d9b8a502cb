//! The device process of the check: a device of its own, made with the SDK, that talks to the platform over sockets.
//!
//! It reads its verification code as the first line of standard input, comes in, reports one event, says so in a line of
//! JSON, and does what it is asked to until its standard input ends: it carries out operations, takes a value, and passes
//! back what is passed to it. Then it leaves in order.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vestibule_device::{Anchor, Child, Device, FileStorage, OperationError, PassThrough};
use zeroize::Zeroizing;

use crate::cli::Out;
use crate::up::runtime;

/// A device that is not in after this long was refused.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the process is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// LBS: osaps://host:port, or host:port of the legacy suite
    #[arg(long)]
    lbs: String,
    /// What vouches for the platform at osaps://
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Serial
    #[arg(long)]
    serial: String,
    /// Directory for what the device is given
    #[arg(long)]
    state: PathBuf,
    /// What the event carries
    #[arg(long)]
    marker: String,
    /// Serial of a sub-device it brings, whose verification code is the same
    #[arg(long)]
    child: Option<String>,
}

/// Runs the device.
///
/// # Errors
/// When the device is not let in, or its event is not acknowledged.
pub fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut code = Zeroizing::new(String::with_capacity(128));
    std::io::stdin().lock().read_line(&mut code).context("no verification code on standard input")?;
    runtime()?.block_on(async {
        let (passed, came) = mpsc::channel(1);
        let builder = Device::builder(&args.serial, code.trim()).lbs(&args.lbs);
        let builder = match &args.ca {
            Some(ca) => builder.anchors(Anchor::from_pem(&std::fs::read(ca)?)?),
            None => builder.legacy(),
        };
        let mut builder = builder
            .storage(FileStorage::new(&args.state)?)
            .device_type("check")
            .operation("Check", 0, "Check", "Echo", async |input: Value| Ok(input))
            .operation("Check", 0, "Check", "Fail", async |(): ()| Err::<(), _>(OperationError::new(7, "as asked")))
            .attribute("Check", 0, "Check", "Label", async |_: String| Ok(()))
            // One at a time is enough for a check, and says by its absence that it was not.
            .on_pass(move |message| drop(passed.try_send(message)));
        if let Some(child) = &args.child {
            let child = Child::builder(child, code.trim());
            builder = builder.child(child.operation("Check", 0, "Check", "Echo", async |input: Value| Ok(input)));
        }
        let device = builder.start()?;
        let event = device.event("Check", 0, "Check", "Ping");
        let body = json!({ "marker": args.marker });
        match tokio::time::timeout(PATIENCE, event.report(&body)).await {
            Ok(receipt) => out.json(&json!({ "reported": receipt?.id }))?,
            Err(_) => bail!("the event was not acknowledged; the device is {:?}", device.state()),
        }
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new()));
        tokio::select! {
            ended = ended => ended.context("standard input")?.context("standard input")?,
            failed = echo(&device, came) => failed?,
        };
        device.stop().await?;
        Ok(())
    })
}

/// Passes back what is passed to the device. Ends only when that fails.
async fn echo(device: &Device, mut came: mpsc::Receiver<PassThrough>) -> anyhow::Result<usize> {
    while let Some(PassThrough { area, name, media_type, bytes, .. }) = came.recv().await {
        device.pass("Check", 0, &area, &name, &media_type, &bytes).await?;
    }
    std::future::pending().await
}
