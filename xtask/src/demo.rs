//! `cargo xtask demo`

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::workspace::{cargo, target};

/// Builds the binary and becomes it, so that signals and the exit status are its own.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let built =
        cargo().args(["build", "--release", "--package", "vestibule"]).status().context("cargo cannot be started")?;
    if !built.success() {
        anyhow::bail!("the build failed");
    }
    let binary = target().join("release/vestibule");
    let error = Command::new(&binary).arg("demo").args(arguments).exec();
    Err(error).with_context(|| format!("{} cannot be started", binary.display()))
}
