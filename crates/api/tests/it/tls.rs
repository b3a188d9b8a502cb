//! The API over TLS: the same answers and limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use vestibule_api::ApiConfig;
use vestibule_platform::Purpose;
use vestibule_tls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use vestibule_tls::{Anchor, ClientTls, read_pem};

use crate::site::{Site, read_answer, until};

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn client(site: &Site) -> Arc<ClientConfig> {
    let certificates = site.platform.certificates();
    let pem = site.wait(certificates.anchors_pem(Purpose::Servers));
    let anchor = Anchor::Ca(read_pem(pem.as_bytes()).expect("PEM").remove(0));
    ClientTls::new([anchor], certificates.time()).expect("an anchor").http()
}

fn dial(address: SocketAddr, config: &Arc<ClientConfig>) -> Secure {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let name = "localhost".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a client"), stream)
}

fn ask(address: SocketAddr, config: &Arc<ClientConfig>, head: &str) -> crate::site::Answer {
    let mut stream = dial(address, config);
    stream.write_all(head.as_bytes()).expect("sent");
    read_answer(stream)
}

#[test]
fn what_is_answered_is_the_same_and_browsers_are_told_to_stay() {
    let site = Site::new();
    let (address, config) = (site.secure(), client(&site));
    let document =
        ask(address, &config, "GET /v1/openapi.json HTTP/1.1\r\nhost: hall.example.org\r\nconnection: close\r\n\r\n");
    assert_eq!(document.body, site.request("GET", "/v1/openapi.json", "", "").body, "many records long");
    assert_eq!(document.header("strict-transport-security"), Some("max-age=31536000"));
    let head = format!("GET /v1/devices HTTP/1.1\r\nhost: localhost\r\n{}connection: close\r\n\r\n", site.bearer());
    let devices = ask(address, &config, &head);
    assert_eq!((devices.status, devices.header("strict-transport-security")), (200, None));
    let plain = site.request("GET", "/healthz", "host: hall.example.org\r\n", "");
    assert_eq!(plain.header("strict-transport-security"), None);
    ask(address, &config, "NONSENSE\r\n\r\n").problem(400, "malformed-request");
}

#[test]
fn one_connection_carries_many_requests() {
    let site = Site::new();
    let (address, config) = (site.secure(), client(&site));
    let mut stream = dial(address, &config);
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for_and_garbage_is_told_so() {
    let site = Site::with(ApiConfig { head_timeout: Duration::from_millis(300), ..ApiConfig::default() });
    let (address, config) = (site.secure(), client(&site));
    let mut words = Vec::new();
    TcpStream::connect(address).expect("connected").read_to_end(&mut words).expect("closed");
    assert!(words.is_empty());
    let mut plain = TcpStream::connect(address).expect("connected");
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    // An alert, unless the reset overtakes it.
    let _ = plain.read_to_end(&mut words);
    assert!(words.is_empty() || words[0] == 0x15);
    // After the handshake a client that says nothing has the same time again.
    let mut silent = dial(address, &config);
    silent.conn.complete_io(&mut silent.sock).expect("a handshake");
    let mut byte = [0];
    assert_eq!(silent.read(&mut byte).expect("a goodbye"), 0);
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let site = Site::with(ApiConfig { write_timeout: Duration::from_millis(300), ..ApiConfig::default() });
    let (address, config) = (site.secure(), client(&site));
    let mut stream = dial(address, &config);
    // Answers far beyond what the kernel and TLS hold.
    let asked = "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    let _ = stream.write_all(asked.as_bytes());
    // Nothing is read meanwhile: that the connection is gone shows in a write.
    until("the cut", || (&stream.sock).write_all(b"x").is_err());
    let mut taken = 0usize;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        taken += n;
    }
    let whole = site.request("GET", "/v1/openapi.json", "", "").body.len() * 400;
    assert!(taken < whole, "{taken} of {whole}");
}
