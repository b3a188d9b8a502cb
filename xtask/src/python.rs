//! The Python environment of the tests: the second implementation of the device side, the contract of the HTTP API, a client that
//! is generated from it, and an object store.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workspace;

/// The folder of the second implementation, from the root of the workspace.
pub const SECOND_DEVICE: &str = "tests/second_device";

/// The folders that say what they need.
const FOLDERS: [&str; 4] = [SECOND_DEVICE, "tests/contract", "tests/object_store", "examples/python"];

/// Makes the environment, or takes the one made before for the same requirements, and answers with its interpreter.
///
/// # Errors
/// A sentence, when a part is missing or a command fails.
pub fn environment(path: &OsStr) -> Result<PathBuf, String> {
    let files = FOLDERS.map(|folder| workspace::root().join(folder).join("requirements.txt"));
    let mut wanted = String::new();
    for file in &files {
        wanted += &fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    }
    let venv = workspace::target().join("test-python");
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.installed");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) && runs(&python) {
        return Ok(python);
    }
    // `--clear` takes away what an interrupted run or another Python has left.
    command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).env("PATH", path))?;
    command(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(files.iter().flat_map(|file| [OsStr::new("--requirement"), file.as_os_str()])),
    )?;
    fs::write(&stamp, wanted).map_err(|error| format!("{} cannot be written: {error}", stamp.display()))?;
    Ok(python)
}

fn runs(python: &Path) -> bool {
    Command::new(python)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn command(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown} cannot be started: {error}")),
    }
}
