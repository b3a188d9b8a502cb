//! Clients that others wrote.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vestibule_broker::codec::QoS;
use vestibule_broker::{EndReason, Profile};

use crate::probe::Asked;
use crate::server::Server;

#[track_caller]
fn mosquitto(tool: &str, server: &Server, arguments: &[&str]) -> Child {
    let port = server.address.port().to_string();
    Command::new(tool)
        .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &port])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{tool} does not start ({error}): install the Debian package mosquitto-clients"))
}

/// What the process wrote; it has to end well.
#[track_caller]
fn output(child: Child) -> String {
    let output = child.wait_with_output().expect("the process can be waited for");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn mosquitto_publishes_and_subscribes_at_every_qos() {
    let server = Server::with(2, Profile::Strict, |_| {});
    let reader =
        mosquitto("mosquitto_sub", &server, &["-i", "reader", "-t", "m/+", "-q", "2", "-C", "3", "-W", "20", "-v"]);
    server.probe.wait("its subscription", |asked| asked.contains(&Asked::Subscribed("m/+".into())).then_some(()));
    // The service is asked a moment before the index knows.
    server.login("barrier").expect_silence();
    for qos in ["0", "1", "2"] {
        let topic = format!("m/{qos}");
        let arguments = ["-i", "writer", "-t", &topic, "-q", qos, "-m", "hello", "-r"];
        output(mosquitto("mosquitto_pub", &server, &arguments));
    }
    assert_eq!(output(reader), "m/0 hello\nm/1 hello\nm/2 hello\n");
    assert_eq!(server.probe.wait_ended("reader"), EndReason::Disconnect);
}

#[test]
fn mosquitto_sends_thousands_of_lines_that_wait_for_the_durable_mark() {
    const LINES: usize = 3_000;
    let server = Server::start();
    let mut writer = mosquitto("mosquitto_pub", &server, &["-i", "writer", "-t", "durable/lines", "-q", "1", "-l"]);
    let lines: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    writer.stdin.take().expect("its input").write_all(lines.as_bytes()).expect("it reads");
    // It goes on only as far as its window allows; the mark follows what was received.
    let mut received = 0;
    while received < LINES {
        received = server.probe.wait_published(received + 1).len();
        server.advance(server.probe.last_ticket());
    }
    output(writer);
    let bodies: Vec<_> =
        server.probe.published().into_iter().map(|(_, body)| String::from_utf8(body).expect("text")).collect();
    assert_eq!(bodies, (0..LINES).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn mosquitto_leaves_its_will_when_it_is_killed() {
    let server = Server::start();
    let mut watcher = server.login("watcher");
    watcher.subscribe("wills", QoS::AtMostOnce);
    let arguments = ["-i", "victim", "-t", "x", "--will-topic", "wills", "--will-payload", "killed"];
    let mut victim = mosquitto("mosquitto_sub", &server, &arguments);
    server.probe.wait("its subscription", |asked| asked.contains(&Asked::Subscribed("x".into())).then_some(()));
    victim.kill().expect("it runs");
    victim.wait().expect("it ends");
    assert_eq!(watcher.message().payload, b"killed");
}

#[test]
fn paho_publishes_at_every_qos_and_leaves_a_will() {
    let server = Server::with(2, Profile::Strict, |_| {});
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/paho_client.py");
    let child = Command::new(python_with_paho())
        .arg(script)
        .args(["127.0.0.1", &server.address.port().to_string(), "300"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    assert_eq!(output(child), "900 messages and one will\n");
}

/// A Python that can import paho: the one VESTIBULE_TEST_PYTHON names, or the first `python3`.
#[track_caller]
fn python_with_paho() -> PathBuf {
    let python = std::env::var_os("VESTIBULE_TEST_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let found = Command::new(&python).args(["-c", "import paho.mqtt.client"]).stderr(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "{} cannot import paho: install the package paho-mqtt (2 or later) for it, or name another in VESTIBULE_TEST_PYTHON",
        python.display()
    );
    python
}
