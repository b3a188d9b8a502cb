//! `cargo xtask bench`

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::workspace::cargo;

/// Becomes the load generators.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let error = cargo().args(["run", "--release", "--package", "vestibule-bench", "--"]).args(arguments).exec();
    Err(error).context("cargo cannot be started")
}
