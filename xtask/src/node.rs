//! The packages of npm that the tests need: those of the generated TypeScript client.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::workspace;

/// The folder that says what it needs, from the root of the workspace.
const FOLDER: &str = "examples/typescript";

/// Installs the packages, or takes those installed before for the same needs, and answers with the folder of `node_modules`.
///
/// # Errors
/// A sentence, when a part is missing or a command fails.
pub fn packages(path: &OsStr) -> Result<PathBuf, String> {
    let file = workspace::root().join(FOLDER).join("package.json");
    let wanted = fs::read_to_string(&file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let folder = workspace::target().join("test-node");
    let (copy, stamp) = (folder.join("package.json"), folder.join("package.installed"));
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(folder);
    }
    let not_written = |error| format!("{} cannot be written: {error}", folder.display());
    fs::create_dir_all(&folder).and_then(|()| fs::write(&copy, &wanted)).map_err(not_written)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]);
    match npm.current_dir(&folder).env("PATH", path).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("npm install: {status}")),
        Err(error) => return Err(format!("npm cannot be started: {error}")),
    }
    fs::write(&stamp, wanted).map_err(not_written)?;
    Ok(folder)
}
