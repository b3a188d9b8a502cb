//! The second device: an implementation of the device side in Python, independent of our crates.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::platform::{Listener, Platform};
use super::program::{Program, run};

/// What the second device told, step by step, and how it ended.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub steps: Vec<Value>,
}

impl Told {
    /// The same, of a device for which everything happened.
    #[track_caller]
    pub fn happened(self) -> Told {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The steps of one kind.
    pub fn all(&self, step: &str) -> Vec<&Value> {
        self.steps.iter().filter(|told| told["step"] == step).collect()
    }

    /// The only step of its kind.
    #[track_caller]
    pub fn one(&self, step: &str) -> &Value {
        match self.all(step)[..] {
            [told] => told,
            _ => panic!("not one step {step}: {self:?}"),
        }
    }

    /// The names of its steps, with the code of each CONNACK; downlinks come when they come, and are left out.
    pub fn story(&self) -> Vec<String> {
        story(&self.steps)
    }
}

fn story(steps: &[Value]) -> Vec<String> {
    let name = |told: &Value| match told["step"].as_str() {
        Some("connack") => format!("connack {}", told["code"]),
        Some("authenticated") => format!("authenticated {}", told["run"].as_str().unwrap_or_default()),
        step => step.unwrap_or_default().to_owned(),
    };
    steps.iter().filter(|told| told["step"] != "downlink").map(name).collect()
}

/// A running second device; killed when dropped.
pub struct SecondDevice {
    program: Program,
    steps: Vec<Value>,
}

impl SecondDevice {
    /// Starts a device with this serial and code; `more` are further flags of its command line.
    pub fn start(platform: &Platform, serial: &str, code: &str, more: &[&str]) -> SecondDevice {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/second_device/device.py");
        let mut command = Command::new(python());
        // Its modules are compiled once for each run; nothing is left in the tree of sources.
        command.arg("-B").arg(script).args(["--lbs", &platform.address(Listener::Lbs).to_string()]);
        command.args(["--serial", serial, "--code", code]).args(more);
        SecondDevice { program: Program::of(command), steps: Vec::new() }
    }

    /// Runs one to its end.
    pub fn run(platform: &Platform, serial: &str, code: &str, more: &[&str]) -> Told {
        SecondDevice::start(platform, serial, code, more).finish()
    }

    /// Waits for the next step of this kind.
    #[track_caller]
    pub fn until(&mut self, step: &str) -> Value {
        while let Some(line) = self.program.line() {
            let told: Value = serde_json::from_str(&line).expect("a JSON object a line");
            self.steps.push(told.clone());
            if told["step"] == step {
                return told;
            }
        }
        panic!("the second device ended without the step {step}: {:?}", self.steps);
    }

    /// What it has told up to what was last waited for; see [`Told::story`].
    pub fn story(&self) -> Vec<String> {
        story(&self.steps)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Told {
        let done = self.program.finish();
        for line in done.stdout.lines() {
            self.steps.push(serde_json::from_str(line).expect("a JSON object a line"));
        }
        assert!(!self.steps.is_empty(), "the second device said nothing: {}", done.stderr);
        Told { code: done.code, steps: self.steps }
    }

    /// Kills it, so that its connection breaks without a goodbye.
    pub fn kill(mut self) {
        self.program.kill();
    }
}

/// The interpreter that has what the second device, the contract test and the generated client need.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../test-python/bin/python");
        let python = match std::env::var_os("VESTIBULE_TEST_PYTHON") {
            Some(named) => PathBuf::from(named),
            None if made.exists() => made,
            None => PathBuf::from("python3"),
        };
        let name = python.to_string_lossy().into_owned();
        let done = run(&name, &["-c", "import paho.mqtt.enums, cryptography, schemathesis, openapi_python_client, moto.server"]);
        assert!(
            done.code == Some(0),
            "{name} lacks paho-mqtt 2, cryptography, schemathesis, openapi-python-client or moto. `cargo xtask test` makes an \
             environment with them; or make one, `pip install -r tests/second_device/requirements.txt -r \
             tests/contract/requirements.txt -r tests/object_store/requirements.txt -r examples/python/requirements.txt` there, and name its python in \
             VESTIBULE_TEST_PYTHON.\n{}",
            done.stderr
        );
        python
    })
}
