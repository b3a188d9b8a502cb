//! `cargo xtask test`: everything that proves the platform.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::count::{Count, Runner};
use crate::node;
use crate::python::{self, SECOND_DEVICE};
use crate::report::Report;
use crate::step::{self, Outcome};
use crate::{tools, workspace};

/// How much to run.
#[derive(clap::Args)]
pub struct Args {
    /// Only format, lints and unit tests: nothing is installed, nothing real is needed
    #[arg(long)]
    fast: bool,
    /// Fail when cargo-deny is not installed, instead of leaving its check out
    #[arg(long, conflicts_with = "fast")]
    deny: bool,
}

/// Runs all steps, whatever fails on the way, and prints the closing line.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    if args.fast {
        fast(&mut report)
    } else {
        full(&mut report, args.deny)
    }
    println!("\n{report}");
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn fast(report: &mut Report) {
    lints(report);
    let tests = cargo(&["test", "--workspace", "--lib", "--bins", "--no-fail-fast"]);
    report.step("unit tests", || step::run(tests, Runner::Cargo));
}

fn full(report: &mut Report, deny: bool) {
    report.step("programs the tests need", programs);
    let path = tools::path();
    let python = made(report, "Python environment", || python::environment(&path));
    let node = made(report, "packages of npm", || node::packages(&path));
    lints(report);

    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    tests.env("PATH", &path);
    if let Some(python) = &python {
        tests.env("VESTIBULE_TEST_PYTHON", python);
    }
    if let Some(node) = &node {
        tests.env("VESTIBULE_TEST_NODE", node);
    }
    report.step("tests", || step::run(tests, Runner::Cargo));

    // Without its environment the step is named as failed by the step that makes it.
    if let Some(python) = python {
        let mut tests = Command::new(python);
        tests.args(["-m", "unittest", "vectors"]).current_dir(workspace::root().join(SECOND_DEVICE));
        report.step("tests of the second device", || step::run(tests, Runner::Unittest));
    }
    dependencies(report, deny);
}

fn lints(report: &mut Report) {
    report.step("format", || step::run(cargo(&["fmt", "--all", "--check"]), Runner::Nothing));
    let clippy = cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    report.step("lints", || step::run(clippy, Runner::Nothing));
}

/// Installs what is missing; what is still missing then is a failure, never a reason to leave a test out.
fn programs() -> Outcome {
    let missing = tools::missing(&tools::TOOLS, &tools::path());
    let refused = if missing.is_empty() { None } else { tools::install(&missing).err() };
    let still: Vec<String> = tools::missing(&tools::TOOLS, &tools::path())
        .iter()
        .map(|tool| format!("{} of package {} ({})", tool.program, tool.package, tool.purpose))
        .collect();
    let failure = (!still.is_empty()).then(|| {
        let why = refused.map(|sentence| format!(": {sentence}")).unwrap_or_default();
        format!("missing: {}{why}", still.join(", "))
    });
    Outcome { count: Count::default(), failure }
}

/// What the tests need and this step makes.
fn made(report: &mut Report, step: &'static str, make: impl FnOnce() -> Result<PathBuf, String>) -> Option<PathBuf> {
    let mut made = None;
    report.step(step, || {
        let failure = match make() {
            Ok(path) => {
                made = Some(path);
                None
            }
            Err(sentence) => Some(sentence),
        };
        Outcome { count: Count::default(), failure }
    });
    made
}

/// cargo-deny takes minutes to install and is no part of what the platform does, so that only `--deny` insists on it.
fn dependencies(report: &mut Report, insist: bool) {
    let mut probe = cargo(&["deny", "--version"]);
    let present = probe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let check = cargo(&["deny", "check", "bans", "licenses", "sources"]);
    match (present, insist) {
        (true, _) => report.step("dependencies", || step::run(check, Runner::Nothing)),
        (false, true) => {
            report.fail("dependencies", "cargo-deny is missing: cargo install cargo-deny --locked".to_owned())
        }
        (false, false) => {
            eprintln!("xtask: cargo-deny is not installed; deny.toml is checked where it is, or with --deny")
        }
    }
}

/// Cargo at the root, in colour when a person is watching.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = workspace::cargo();
    command.args(arguments);
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
}
