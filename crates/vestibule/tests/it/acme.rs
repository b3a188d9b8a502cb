//! A certificate from an ACME server: Pebble, which Let's Encrypt tests its clients with.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use vestibule_tls::rustls::pki_types::UnixTime;
use vestibule_tls::{Authority, Key, Purpose, pem};

use crate::support::{Listener, Platform, Program, python, until};
use crate::tls::shown;

/// How long its certificates are good for, in seconds.
const LIFE: i64 = 30;

/// What binds an account, where the server wants that: the key, base64url, under its name.
const BOUND: (&str, &str) = ("hall-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// An ACME server, which looks for proofs at one port of each name.
struct Pebble {
    dir: TempDir,
    program: Option<Program>,
    port: u16,
    management: u16,
    /// Where it looks.
    http: u16,
    /// An account has to be bound by [`BOUND`].
    binds: bool,
}

impl Pebble {
    fn start() -> Pebble {
        Pebble::with(false)
    }

    fn with(binds: bool) -> Pebble {
        let dir = tempfile::tempdir().expect("a directory");
        let now = i64::try_from(UnixTime::now().as_secs()).expect("before the end of time") * 1_000;
        let mut authority = Authority::new(Purpose::Servers, []);
        authority.due(now).expect("made").into_iter().for_each(|ca| authority.add(ca));
        let pair = rcgen::KeyPair::generate().expect("a key");
        let key = Key::from_pkcs8(pair.serialized_der()).expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let chain = authority.server_certificate(&key, &names, now).expect("issued");
        let file = |name: &str| dir.path().join(name);
        fs::write(file("ca.pem"), pem(&authority.anchors(now))).expect("written");
        fs::write(file("cert.pem"), pem(&chain)).expect("written");
        fs::write(file("key.pem"), pair.serialize_pem()).expect("written");
        let mut pebble =
            Pebble { dir, program: None, port: free_port(), management: free_port(), http: free_port(), binds };
        pebble.run();
        pebble
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("text").to_owned()
    }

    fn run(&mut self) {
        let mut config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.file("cert.pem"), "privateKey": self.file("key.pem"),
            "httpPort": self.http, "tlsPort": 1, "ocspResponderURL": "", "certificateValidityPeriod": LIFE,
        }});
        if self.binds {
            config["pebble"]["externalAccountBindingRequired"] = json!(true);
            config["pebble"]["externalAccountMACKeys"] = json!({BOUND.0: BOUND.1});
        }
        fs::write(self.file("config.json"), config.to_string()).expect("written");
        let mut command = Command::new("pebble");
        command.args(["-config", &self.file("config.json"), "-strict"]).env("PEBBLE_VA_NOSLEEP", "1");
        self.program = Some(Program::of(command));
        until("Pebble", || std::net::TcpStream::connect(("127.0.0.1", self.management)).is_ok().then_some(()));
    }

    /// Its root, which is another one after each start.
    fn root(&self) -> std::path::PathBuf {
        let mut curl = Command::new("curl");
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        curl.args(["--silent", "--fail", "--noproxy", "*", "--cacert", &self.file("ca.pem"), &url]);
        let root = Program::of(curl).finish().expect(0).stdout;
        let file = self.dir.path().join("root.pem");
        fs::write(&file, root).expect("written");
        file
    }

    fn settings(&self, name: &str) -> String {
        format!(
            "[tls.acme]\ndirectory = \"https://localhost:{}/dir\"\nnames = {name:?}\naccept_terms = true\n\
             contact = \"mailto:hall@example.org\"\nchallenge_listen = \"127.0.0.1:{}\"\nca_file = {:?}\n",
            self.port,
            self.http,
            self.file("ca.pem")
        )
    }
}

/// What curl makes of a name whose address is that of the platform.
fn curl(platform: &Platform, ca: &Path, name: &str) -> Option<i32> {
    let address = platform.address(Listener::Https);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--cacert"]).arg(ca);
    curl.args(["--resolve", &format!("{name}:{}:{}", address.port(), address.ip())]);
    curl.arg(format!("https://{name}:{}/healthz", address.port()));
    Program::of(curl).finish().code
}

#[test]
fn an_account_is_bound_where_the_server_wants_that_and_refused_without() {
    let pebble = Pebble::with(true);
    let unbound = Platform::configured(&pebble.settings("localhost"));
    until("the refusal", || unbound.log().contains("externalAccountRequired").then_some(()));
    drop(unbound);
    let (id, key) = BOUND;
    let settings = pebble.settings("localhost");
    let bound = Platform::configured(&format!("{settings}eab_key_id = {id:?}\neab_key = {key:?}\n"));
    let root = pebble.root();
    until("the certificate of the ACME server", || (curl(&bound, &root, "localhost") == Some(0)).then_some(()));
    assert!(!bound.log().contains(key), "the key is in no log");
}

#[test]
fn a_certificate_is_ordered_shown_kept_and_renewed_while_connections_live() {
    let mut pebble = Pebble::start();
    let mut platform = Platform::configured(&pebble.settings("localhost"));
    let root = pebble.root();
    until("the certificate of the ACME server", || (curl(&platform, &root, "localhost") == Some(0)).then_some(()));
    let (https, mqtts) = (platform.address(Listener::Https), platform.address(Listener::Mqtts));
    let leaf = |address| {
        let mut command = Command::new(python());
        let script = "import base64,socket,ssl,sys; c=socket.create_connection((sys.argv[1],int(sys.argv[2]))); \
                      s=ssl._create_unverified_context().wrap_socket(c,server_hostname='localhost'); \
                      print(base64.b64encode(s.getpeercert(True)).decode())";
        let address: std::net::SocketAddr = address;
        command.args(["-c", script, &address.ip().to_string(), &address.port().to_string()]);
        Program::of(command).finish().expect(0).stdout.trim().to_owned()
    };
    // Whoever does not ask for its name goes on by the platform's own.
    assert!(shown(https, &platform.ca_file()).is_some());
    assert_eq!(curl(&platform, &platform.ca_file(), "localhost"), Some(60));
    let first = leaf(https);
    assert_eq!(leaf(mqtts), first, "MQTT shows the same");
    // Devices trust the platform's own root, and go on being shown what that vouches for.
    assert_ne!(leaf(platform.address(Listener::LbsTls)), first);

    // Nothing else is answered in the clear.
    let mut plain = Command::new("curl");
    plain.args(["--silent", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
    plain.arg(format!("http://localhost:{}/v1/devices", pebble.http));
    let told = Program::of(plain).finish().expect(0).stdout;
    assert!(told.starts_with(&format!("308 https://localhost:{}", https.port())), "{told}");

    // It was kept: without the server a restart shows it again, and its key is not in the database.
    assert!(platform.stop().success());
    pebble.program.take().expect("it runs").kill();
    platform.restart();
    assert_eq!(leaf(https), first);
    let database = fs::read(platform.data().join("control.db")).expect("readable");
    let mark = b"PRIVATE KEY";
    assert!(!database.windows(mark.len()).any(|window| window == mark));

    // At two thirds of its life nobody answers: the former stays, and that is told.
    let problem = until("the complaint", || {
        let told = platform.http().text("/readyz");
        told.contains("tls.acme: no certificate could be ordered").then_some(told)
    });
    assert!(problem.contains("the former one is good for"), "{problem}");
    assert_eq!(leaf(https), first);
    assert_eq!(platform.http().get("/readyz").status, 200, "it keeps nobody from working");
    assert!(platform.http().text("/metrics").contains("vestibule_acme_orders_total{result=\"error\"}"));

    // With the server back a start orders at once.
    assert!(platform.stop().success());
    pebble.run();
    let root = pebble.root();
    platform.restart();
    until("the next certificate", || (curl(&platform, &root, "localhost") == Some(0)).then_some(()));
    assert_ne!(leaf(https), first);
    platform.assert_no_panic();
}
