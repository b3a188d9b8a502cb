//! Chromium without a window, steered over its debugging pipe: JSON messages, each ended by a zero byte.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use vestibule_tls::rustls::pki_types::CertificateDer;
use vestibule_tls::spki_sha256;

/// How long it may take to end.
const GOODBYE: Duration = Duration::from_secs(10);

/// The pipe lies on the descriptors 3 and 4.
const REDIRECT: &str = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#;

const FLAGS: [&str; 10] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one page open; ended when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: String,
    calls: u64,
    complaints: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with a fresh profile and opens the page.
    pub fn open(url: &str) -> Browser {
        Browser::start(url, &[])
    }

    /// The same with a browser that takes this certificate for good, and no other that it would not.
    pub fn open_knowing(url: &str, certificate: &CertificateDer<'_>) -> Browser {
        let key = STANDARD.encode(spki_sha256(certificate).expect("a certificate"));
        Browser::start(url, &[format!("--ignore-certificate-errors-spki-list={key}")])
    }

    fn start(url: &str, more: &[String]) -> Browser {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new("sh")
            .args(["-c", REDIRECT, "sh", "chromium"])
            .args(FLAGS)
            .args(more)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let (session, complaints) = (String::new(), Vec::new());
        let mut browser = Browser { child, to, from, session, calls: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(domain, json!({}));
        }
        let navigated = browser.call("Page.navigate", json!({ "url": url }));
        assert_eq!(navigated["errorText"], Value::Null, "{url}");
        browser
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Exceptions of the page, and what the browser had to complain of: blocked scripts, failed requests.
    pub fn complaints(&self) -> &[Value] {
        &self.complaints
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let sent = write!(self.to, "{message}\0").and_then(|()| self.to.flush());
        let hint = "Chromium does not run; `cargo xtask test` installs it (Debian package chromium)";
        sent.expect(hint);
        loop {
            let mut text = Vec::new();
            let read = self.from.read_until(0, &mut text).expect("a pipe");
            assert!(read > 0, "{hint}");
            text.pop();
            let answer: Value = serde_json::from_slice(&text).expect("JSON");
            if answer["id"] == self.calls {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].clone();
            }
            let bad_entry = answer["method"] == "Log.entryAdded" && answer["params"]["entry"]["level"] == "error";
            if bad_entry || answer["method"] == "Runtime.exceptionThrown" {
                self.complaints.push(answer["params"].clone());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it ends its own processes first, which would otherwise still write to the profile.
        let _ = write!(self.to, "{}\0", json!({ "id": 0, "method": "Browser.close" })).and_then(|()| self.to.flush());
        let begun = Instant::now();
        while begun.elapsed() < GOODBYE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
