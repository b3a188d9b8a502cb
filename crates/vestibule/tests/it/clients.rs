//! The examples for applications, on clients that are generated from the API's own document.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Listener, Platform, Program, python, until};

/// A platform with three cameras that are there and have said something.
fn hall() -> (Platform, Program) {
    let platform = Platform::start();
    let lbs = platform.address(Listener::Lbs).to_string();
    let fleet = ["simulate", "--lbs", &lbs, "--devices", "3", "--profile", "camera", "--ramp", "10ms", "--keep"];
    let fleet = platform.command(&fleet);
    until("devices that are online and have said something", || {
        let online = platform.http().get("/v1/devices?presence=online").ok();
        let all = online["items"].as_array().is_some_and(|items| items.len() == 3);
        (all && !platform.events(None).is_empty()).then_some(())
    });
    (platform, fleet)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// Runs an example against a platform and looks at what it says.
fn shows_the_hall(mut example: Command) {
    let (platform, mut fleet) = hall();
    example.env("URL", platform.url()).env("TOKEN", platform.token());
    let done = Program::of(example).finish().expect(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "3 online", "{done:?}");
    for (line, serial) in lines[1..4].iter().zip(["SIM-0001", "SIM-0002", "SIM-0003"]) {
        assert!(line.starts_with(&format!("{serial}: brightness applied, snapshot done: {{")), "{line}");
    }
    assert!(lines.len() > 4 && lines[4].contains(" SIM-000"), "{done:?}");
    fleet.kill();
    platform.assert_no_panic();
}

#[test]
fn the_generated_python_client_is_of_use() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut generator = Command::new(python());
    generator.args(["-m", "openapi_python_client", "generate", "--meta", "none", "--path"]);
    generator.arg(root().join("api/openapi.json")).args(["--output-path", "vestibule_client"]);
    Program::of({
        generator.current_dir(directory.path());
        generator
    })
    .finish()
    .expect(0);
    let mut example = Command::new(python());
    example.arg("-B").arg(root().join("examples/python/hall.py")).env("PYTHONPATH", directory.path());
    shows_the_hall(example);
}

#[test]
fn the_generated_typescript_client_is_of_use() {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../test-node");
    let packages = std::env::var_os("VESTIBULE_TEST_NODE").map_or(made, PathBuf::from);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (folder, given) = (directory.path().join("examples/typescript"), root().join("examples/typescript"));
    std::fs::create_dir_all(&folder).expect("a folder");
    symlink(root().join("api"), directory.path().join("api")).expect("the document");
    for file in ["package.json", "tsconfig.json", "hall.ts"] {
        std::fs::copy(given.join(file), folder.join(file)).expect("a part of the example");
    }
    symlink(packages.join("node_modules"), folder.join("node_modules")).expect("the packages");
    for script in ["generate", "build"] {
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", script]).current_dir(&folder);
        let done = Program::of(npm).finish();
        let hint = "`cargo xtask test` installs the packages of examples/typescript";
        assert_eq!(done.code, Some(0), "{script} ({hint}): {done:?}");
    }
    let mut example = Command::new("node");
    example.arg("built/hall.js").current_dir(&folder);
    shows_the_hall(example);
}
