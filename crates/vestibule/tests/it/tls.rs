//! HTTPS and MQTT over TLS, with clients that others wrote.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use vestibule_tls::rustls::pki_types::UnixTime;
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::rustls::{ClientConnection, StreamOwned};
use vestibule_tls::{Anchor, Authority, ClientTls, Key, Purpose, pem, read_pem};

use crate::support::{Browser, Listener, Platform, Program, python, until};

#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::now())
    }
}

fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).expect("before the end of time") * 1_000
}

/// A connection that trusts a root of this file.
fn dial(address: SocketAddr, ca: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let roots = read_pem(&fs::read(ca).expect("the roots")).expect("PEM");
    let anchors = roots.into_iter().map(Anchor::Ca);
    // No protocol is named: HTTP and MQTT are served all the same.
    let mut config = (*ClientTls::new(anchors, Arc::new(Now)).expect("anchors").http()).clone();
    config.alpn_protocols.clear();
    let name = address.ip().into();
    let stream = TcpStream::connect(address).expect("connected");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), stream)
}

/// The certificate that a listener shows to who trusts a root of this file; none when it is not trusted.
pub fn shown(address: SocketAddr, ca: &Path) -> Option<Vec<u8>> {
    let mut stream = dial(address, ca);
    let StreamOwned { conn, sock } = &mut stream;
    while conn.is_handshaking() {
        conn.complete_io(sock).ok()?;
    }
    Some(conn.peer_certificates()?[0].to_vec())
}

fn ok_over(stream: &mut StreamOwned<ClientConnection, TcpStream>) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
}

fn https(platform: &Platform) -> String {
    format!("https://{}", platform.address(Listener::Https))
}

#[test]
fn curl_trusts_the_root_in_the_data_directory_and_nobody_else_does() {
    let platform = Platform::start();
    let (url, ca) = (https(&platform), platform.ca_file());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&ca).expect("it is there").permissions());
    assert_eq!(mode & 0o444, 0o444, "it is public");
    let curl = |more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*"]).args(more).arg(format!("{url}/healthz"));
        Program::of(command).finish()
    };
    let ca = ca.to_str().expect("text");
    assert_eq!(curl(&["--cacert", ca]).expect(0).stdout, "ok\n");
    curl(&["--cacert", ca, "--tlsv1.2", "--tls-max", "1.2"]).expect(0);
    // 60: not trusted. 35: no version in common.
    curl(&[]).expect(60);
    curl(&["--cacert", ca, "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"]).expect(35);
    platform.assert_no_panic();
}

#[test]
fn a_chain_of_ours_is_one_for_openssl() {
    let platform = Platform::start();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &platform.address(Listener::Mqtts).to_string(), "-CAfile"]);
    command.arg(platform.ca_file()).args(["-verify_return_error", "-x509_strict", "-brief", "-alpn", "mqtt"]);
    command.stdin(std::process::Stdio::null());
    let done = Program::of(command).finish().expect(0);
    assert!(done.stderr.contains("Verification: OK"), "{done:?}");
    assert!(done.stderr.contains("Protocol version: TLSv1.3"), "{done:?}");
}

#[test]
fn commands_talk_to_the_platform_over_tls() {
    let platform = Platform::start();
    let (url, ca) = (https(&platform), platform.ca_file());
    let ca = ca.to_str().expect("text");
    platform.cli(&["device", "add", "SN-TLS", "--code", "ABCDEF", "--url", &url, "--ca", ca]).expect(0);
    let listed = platform.cli(&["device", "list", "--url", &url, "--ca", ca, "--json"]).expect(0).json();
    assert_eq!(listed["items"][0]["serial"], "SN-TLS", "{listed}");
    let mut follow = platform.command(&["event", "follow", "--url", &url, "--ca", ca]);
    until("the stream", || (platform.sockets() > 0).then_some(()));
    follow.kill();
    // The platform of this machine leaves its root in its data directory, which need not be named.
    platform.cli(&["device", "list", "--url", &url]).expect(0);
    let strange = tempfile::tempdir().expect("a directory");
    let other = strange.path().join("ca.pem");
    let mut authority = Authority::new(Purpose::Servers, []);
    authority.due(now()).expect("made").into_iter().for_each(|ca| authority.add(ca));
    fs::write(&other, pem(&authority.anchors(now()))).expect("written");
    let refused = platform.cli(&["device", "list", "--url", &url, "--ca", other.to_str().expect("text")]).expect(1);
    assert!(refused.stderr.contains("certificate"), "{refused:?}");
}

fn mosquitto(tool: &str, platform: &Platform, more: &[&str]) -> Program {
    let address = platform.address(Listener::Mqtts);
    let mut command = Command::new("stdbuf");
    command.args(["-oL", tool, "-V", "311", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.args(["-u", "token", "-P", &platform.token(), "--cafile"]).arg(platform.ca_file()).args(more);
    Program::of(command)
}

#[test]
fn mosquitto_publishes_and_subscribes_over_tls() {
    let platform = Platform::start();
    let mut reader = mosquitto("mosquitto_sub", &platform, &["-d", "-v", "-q", "1", "-t", "hall/#"]);
    reader.line_with("Subscribed (mid:");
    let large = "x".repeat(300_000);
    let file = platform.data().join("large");
    fs::write(&file, &large).expect("written");
    let large_file = file.to_str().expect("text");
    for (topic, message) in [("hall/1", ["-m", "hello"]), ("hall/2", ["-f", large_file])] {
        let publish = [&["-q", "1", "-t", topic][..], &message].concat();
        mosquitto("mosquitto_pub", &platform, &publish).finish().expect(0);
    }
    reader.line_with("hall/1 hello");
    assert_eq!(reader.line_with("hall/2 x"), format!("hall/2 {large}"));
    let metrics = platform.http().text("/metrics");
    assert!(metrics.contains("vestibule_tls_handshakes_total{listener=\"mqtts\",result=\"ok\"} 3"), "{metrics}");
    platform.assert_no_panic();
}

#[test]
fn paho_comes_in_over_tls_and_not_without_the_root() {
    const SCRIPT: &str = r#"
import ssl, sys, threading
import paho.mqtt.client as mqtt
host, port, token, ca = sys.argv[1:5]
got = threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
client.tls_set(ca_certs=None if ca == "none" else ca)
client.username_pw_set("token", token)
client.on_connect = lambda c, *_: c.subscribe("paho/#", 1)
client.on_subscribe = lambda c, *_: c.publish("paho/1", b"hello", 1)
client.on_message = lambda c, u, m: got.set()
try:
    client.connect(host, int(port))
except ssl.SSLCertVerificationError:
    sys.exit(7)
client.loop_start()
ok = got.wait(20)
client.disconnect()
client.loop_stop()
sys.exit(0 if ok else 1)
"#;
    let platform = Platform::start();
    let address = platform.address(Listener::Mqtts);
    let paho = |ca: &str| {
        let mut command = Command::new(python());
        command.args(["-c", SCRIPT, &address.ip().to_string(), &address.port().to_string(), &platform.token(), ca]);
        Program::of(command).finish()
    };
    paho(platform.ca_file().to_str().expect("text")).expect(0);
    paho("none").expect(7);
}

#[test]
fn a_browser_that_knows_the_certificate_shows_the_page_over_tls() {
    let platform = Platform::start();
    platform.add("SN-BROWSER", "ABCDEF");
    let leaf = shown(platform.address(Listener::Https), &platform.ca_file()).expect("trusted");
    let url = format!("{}/#token={}", https(&platform), platform.token());
    let mut browser = Browser::open_knowing(&url, &leaf.into());
    until("the device in the page", || {
        (browser.evaluate("document.querySelector('#devices')?.textContent.includes('SN-BROWSER')") == true)
            .then_some(())
    });
    assert_eq!(browser.evaluate("window.isSecureContext"), true);
    assert_eq!(browser.complaints(), [] as [Value; 0], "the browser complains of the page");
}

#[test]
fn a_restart_shows_the_certificate_of_before() {
    let mut platform = Platform::start();
    let (address, ca) = (platform.address(Listener::Https), platform.ca_file());
    let (before, roots) = (shown(address, &ca).expect("trusted"), fs::read(&ca).expect("roots"));
    assert!(platform.stop().success());
    fs::remove_file(&ca).expect("removed");
    platform.restart();
    assert_eq!(fs::read(&ca).expect("written again"), roots);
    assert_eq!(shown(address, &ca).as_ref(), Some(&before));
    // What seals its key is not in the database.
    let database = fs::read(platform.data().join("control.db")).expect("readable");
    let mark = b"PRIVATE KEY";
    assert!(!database.windows(mark.len()).any(|window| window == mark));
}

/// A certificate of the operator's own, in files that are renewed.
struct Own {
    dir: TempDir,
    authority: Authority,
}

impl Own {
    fn new() -> Own {
        let mut authority = Authority::new(Purpose::Servers, []);
        authority.due(now()).expect("made").into_iter().for_each(|ca| authority.add(ca));
        let own = Own { dir: tempfile::tempdir().expect("a directory"), authority };
        fs::write(own.file("ca.pem"), pem(&own.authority.anchors(now()))).expect("written");
        own.renew();
        own
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a new pair, one file after the other, and returns the certificate.
    fn renew(&self) -> Vec<u8> {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let key = Key::from_pkcs8(pair.serialized_der()).expect("a key");
        // Whichever address of the loopback net the platform is at.
        let names: Vec<String> = std::iter::once("localhost".to_owned()).chain(self.host()).collect();
        let chain = self.authority.server_certificate(&key, &names, now()).expect("issued");
        fs::write(self.file("cert.pem"), pem(&chain)).expect("written");
        fs::write(self.file("key.pem"), pair.serialize_pem()).expect("written");
        chain[0].to_vec()
    }

    fn host(&self) -> Option<String> {
        fs::read_to_string(self.file("host")).ok()
    }
}

#[test]
fn a_certificate_of_ones_own_is_exchanged_while_connections_live() {
    let own = Own::new();
    let (cert, key) = (own.file("cert.pem"), own.file("key.pem"));
    let mut platform = Platform::configured(&format!("[tls]\ncertificate_file = {cert:?}\nkey_file = {key:?}\n"));
    let address = platform.address(Listener::Https);
    let ca = own.file("ca.pem");
    fs::write(own.file("host"), address.ip().to_string()).expect("written");
    let first = own.renew();
    platform.hang_up();
    until("the first certificate", || (shown(address, &ca) == Some(first.clone())).then_some(()));
    assert_eq!(shown(platform.address(Listener::Mqtts), &ca), Some(first.clone()), "MQTT shows the same");
    assert_eq!(shown(address, &platform.ca_file()), None, "it is not of the platform's own root");

    let mut open = dial(address, &ca);
    ok_over(&mut open);
    // A broken one keeps the former, and says so.
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("written");
    platform.hang_up();
    until("the complaint", || platform.log().contains("the former stays in use").then_some(()));
    assert_eq!(shown(address, &ca), Some(first));
    // A good one is seen without being asked.
    let second = own.renew();
    until("the second certificate", || (shown(address, &ca) == Some(second.clone())).then_some(()));
    ok_over(&mut open);
    platform.assert_no_panic();
    assert!(platform.stop().success());
}

#[test]
fn a_certificate_that_cannot_be_used_keeps_the_platform_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let start = |settings: &[&str]| {
        let mut command = crate::support::vestibule();
        command.args(["up", "--set", "http.listen=127.0.0.1:0", "--data"]).arg(&data).current_dir(dir.path());
        for setting in settings {
            command.args(["--set", setting]);
        }
        Program::of(command).finish()
    };
    let missing = start(&["tls.certificate_file=/no/such.pem", "tls.key_file=/no/key.pem"]).expect(1);
    assert!(missing.stderr.contains("/no/such.pem cannot be read"), "{missing:?}");
    let half = start(&["tls.certificate_file=/no/such.pem"]).expect(2);
    assert!(half.stderr.contains("tls.key_file: must name a file"), "{half:?}");
    let name = start(&["tls.names=hall example"]).expect(2);
    assert!(name.stderr.contains("neither a host name nor an address"), "{name:?}");
}

/// A request for a certificate as OpenSSL makes it, with its key beside it.
fn openssl_request(dir: &Path, serial: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/"]);
    command.args(["-keyout", &format!("{serial}.key"), "-out", &format!("{serial}.csr")]).current_dir(dir);
    Program::of(command).finish().expect(0);
}

#[test]
fn certificates_of_devices_are_issued_revoked_and_overdue_from_the_command_line() {
    let platform = Platform::start();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    for serial in ["SN-A", "SN-B"] {
        platform.add(serial, "ABCDEF");
        openssl_request(dir.path(), serial);
    }
    openssl_request(dir.path(), "SN-NOBODY");
    let one = platform.cli(&["admin", "ca", "issue", "SN-A", "--csr", &path("SN-A.csr"), "--days", "20"]).expect(0);
    assert_eq!(one.stdout.matches("BEGIN CERTIFICATE").count(), 2, "{one:?}");
    let bulk = platform.cli(&["admin", "ca", "issue", "--from", &path(""), "--into", &path("out"), "--json"]).expect(1);
    let listed: Value = serde_json::from_str(&bulk.stdout).expect("JSON");
    assert_eq!((&listed["issued"], listed["failed"].as_array().map(Vec::len)), (&Value::from(2), Some(1)), "{bulk:?}");

    // OpenSSL believes them by the root of devices, for a client, and by no other.
    let devices = platform.cli(&["admin", "ca", "export", "devices"]).expect(0).stdout;
    fs::write(path("devices.pem"), devices).expect("written");
    let verify = |ca: &str, purpose: &str| {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca]);
        command.args(["-untrusted", &path("out/SN-B.pem"), &path("out/SN-B.pem")]);
        Program::of(command).finish().code
    };
    assert_eq!(verify(&path("devices.pem"), "sslclient"), Some(0));
    assert_ne!(verify(&path("devices.pem"), "sslserver"), Some(0));
    assert_ne!(verify(platform.ca_file().to_str().expect("text"), "sslclient"), Some(0));

    let overdue = |days: &str| {
        let listed = platform.cli(&["admin", "ca", "overdue", "--within-days", days, "--json"]).expect(0).json();
        listed["items"].as_array().expect("a list").iter().map(|one| one["device"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(overdue("30"), [] as [String; 0], "the one that ends soon was replaced");
    assert_eq!(overdue("400").len(), 2);
    let revoked = platform.cli(&["admin", "ca", "revoke", "SN-A"]).expect(0);
    assert!(revoked.stdout.contains("2 certificates of SN-A are revoked"), "{revoked:?}");
    assert_eq!(overdue("400"), ["\"SN-B\""]);

    let told = platform.cli(&["admin", "ca", "show"]).expect(0).stdout;
    for word in ["servers/root", "devices/intermediate", "localhost", "pin of the server's key"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    platform.assert_no_panic();
}

#[test]
fn a_new_root_is_written_for_clients_and_those_of_the_older_one_go_on() {
    let platform = Platform::start();
    let (address, ca) = (platform.address(Listener::Https), platform.ca_file());
    let older = fs::read(&ca).expect("roots");
    let old_ca = ca.with_file_name("old.pem");
    fs::write(&old_ca, &older).expect("written");
    let before = shown(address, &old_ca).expect("trusted");
    platform.cli(&["admin", "ca", "roll", "servers"]).expect(0);
    let both = until("both roots", || fs::read(&ca).ok().filter(|now| now.len() > older.len()));
    assert!(both.ends_with(&older));
    let after = shown(address, &old_ca).expect("the older root vouches for the newer one");
    assert_ne!(after, before);
    assert_eq!(shown(address, &ca), Some(after));
    // Also to others' eyes.
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--cacert"]).arg(&old_ca).arg(format!("{}/healthz", https(&platform)));
    Program::of(curl).finish().expect(0);
}
