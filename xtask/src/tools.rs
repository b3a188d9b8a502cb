//! Programs the tests need beside cargo, and the Debian packages that hold them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program and the package that installs it.
pub struct Tool {
    /// The program looked for.
    pub program: &'static str,
    /// The Debian package.
    pub package: &'static str,
    /// What the tests do with it.
    pub purpose: &'static str,
    /// Arguments it must accept to count as present, for a package that adds to a program instead of bringing one.
    probe: &'static [&'static str],
}

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose, probe: &[] }
}

/// Everything the tests need. One line here is all a new need takes.
pub const TOOLS: [Tool; 13] = [
    tool("postgres", "postgresql", "store tests run on a real PostgreSQL"),
    tool("initdb", "postgresql", "store tests make their own cluster"),
    tool("strace", "strace", "the order of sync and acknowledgement is read from the system calls"),
    tool("mosquitto", "mosquitto", "the anchor of measurements and a foreign broker"),
    tool("mosquitto_pub", "mosquitto-clients", "foreign MQTT clients"),
    tool("python3", "python3", "the second implementation of the device side"),
    Tool {
        program: "python3",
        package: "python3-venv",
        purpose: "its environment",
        probe: &["-c", "import venv, ensurepip"],
    },
    tool("openssl", "openssl", "it makes certificates and requests for them, and judges those of the platform"),
    tool("pebble", "pebble", "an ACME server to order certificates from"),
    tool("curl", "curl", "commands of the documentation, and a client that others wrote"),
    tool("node", "nodejs", "the generated TypeScript client"),
    tool("npm", "npm", "its packages"),
    tool("chromium", "chromium", "the console is tested in a real browser"),
];

/// Directories searched besides `PATH`: Debian keeps the server programs of PostgreSQL, and for ordinary users all of sbin, out of it.
fn extra_directories() -> Vec<PathBuf> {
    let mut directories = vec![PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut postgres: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.is_dir()).collect();
    // The newest first; names are numbers of two digits.
    postgres.sort();
    postgres.reverse();
    directories.extend(postgres);
    directories
}

/// `PATH` with the extra directories behind it, for the tests to find what was found here.
pub fn path() -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&own).collect();
    for directory in extra_directories() {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    std::env::join_paths(directories).unwrap_or(own)
}

impl Tool {
    fn is_present(&self, path: &OsString) -> bool {
        let Some(program) = find(self.program, path) else { return false };
        self.probe.is_empty()
            || Command::new(program)
                .args(self.probe)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    }
}

fn find(program: &str, path: &OsString) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The tools that are not there.
pub fn missing<'a>(tools: &'a [Tool], path: &OsString) -> Vec<&'a Tool> {
    tools.iter().filter(|tool| !tool.is_present(path)).collect()
}

/// Installs the packages of the tools given, as root or by a sudo that asks nothing.
///
/// # Errors
/// A sentence, when it may not or cannot.
pub fn install(tools: &[&Tool]) -> Result<(), String> {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let advice = format!("install what is missing with: apt-get install {}", packages.join(" "));
    if find("apt-get", &path()).is_none() {
        return Err(format!("this is not Debian; {advice}"));
    }
    let prefix: &[&str] = if is_root() {
        &[]
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        &["sudo", "-n"]
    } else {
        return Err(format!("this user may not install packages; {advice}"));
    };
    let apt = |arguments: &[&str]| {
        let words: Vec<&str> =
            prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).collect();
        Command::new(words[0])
            .args(&words[1..])
            .args(arguments)
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    // An outdated index is still an index: whether the packages come is decided by the second command.
    apt(&["update"]);
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    if apt(&arguments) { Ok(()) } else { Err(format!("apt-get failed; {advice}")) }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_present_when_it_can_be_run_and_passes_its_probe() {
        let path = path();
        let sh = tool("sh", "dash", "a shell");
        assert!(sh.is_present(&path));
        assert!(!tool("no-such-program", "none", "nothing").is_present(&path));
        assert!(Tool { probe: &["-c", "true"], ..tool("sh", "dash", "a shell") }.is_present(&path));
        assert!(!Tool { probe: &["-c", "false"], ..tool("sh", "dash", "a shell") }.is_present(&path));
    }

    #[test]
    fn what_is_missing_is_named() {
        let tools = [tool("sh", "dash", "a shell"), tool("no-such-program", "none", "nothing")];
        let missing = missing(&tools, &path());
        assert_eq!(missing.iter().map(|tool| tool.package).collect::<Vec<_>>(), ["none"]);
    }

    #[test]
    fn the_path_keeps_its_own_order() {
        let own = std::env::var_os("PATH").expect("a path");
        let own: Vec<PathBuf> = std::env::split_paths(&own).collect();
        let ours: Vec<PathBuf> = std::env::split_paths(&path()).collect();
        assert_eq!(ours[..own.len()], own);
    }
}
