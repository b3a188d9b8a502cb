//! `cargo xtask bench`

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::workspace::{cargo, target};

/// Builds the platform and the load generators that start it, and becomes the latter.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    // One after the other: built together they would share features, and the platform measured would not be the one
    // that is shipped.
    for package in ["vestibule", "vestibule-bench"] {
        let built =
            cargo().args(["build", "--release", "--package", package]).status().context("cargo cannot be started")?;
        if !built.success() {
            anyhow::bail!("the build of {package} failed");
        }
    }
    let binary = target().join("release/vestibule-bench");
    let error = Command::new(&binary).args(arguments).exec();
    Err(error).with_context(|| format!("{} cannot be started", binary.display()))
}
