//! The vectors of osap-wire 13.3: both machines, byte for byte.

use osap::lbs::{DasInfo, Standing};
use osap::modern::client::{self, Attempt, Identity};
use osap::modern::envelope::{Opened, Opener, Sealer};
use osap::modern::login;
use osap::modern::message::Das;
use osap::modern::schedule::{Early, Fresh, binder};
use osap::modern::seal::Direction;
use osap::modern::server::{self, Policy, Record};
use osap::modern::share::ShareKey;
use osap::modern::slots::{Slot, Way};
use osap::modern::ticket::{Stage, Used};
use osap::modern::{Client, Exporter, Node, Psk, Server, Slots, Ticket, TicketId, Tickets};
use osap::{Code, Suite};

use super::vectors::{Tape, bytes, dev_id, serial, unhex};

fn vector(name: &str) -> Vec<u8> {
    include_str!("../vectors/modern.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(found, _)| *found == name)
        .map(|(_, hex)| unhex(hex))
        .unwrap_or_else(|| panic!("there is no vector {name}"))
}

fn range(from: u8, len: u8) -> Vec<u8> {
    (0..len).map(|n| from + n).collect()
}

fn psk() -> Psk {
    Psk::from_bytes(&range(0x80, 48)).unwrap()
}

fn das() -> Das {
    let info = DasInfo {
        address: "127.0.0.1".into(),
        port: 8883,
        udp_port: 8884,
        domain: "das.local".into(),
        server_id: "das1".into(),
    };
    Das { info, tls_port: None, bind: false, expires_in: 86_400 }
}

/// The policy of the vectors: tickets live a day.
fn policy(suite: Suite) -> Policy {
    Policy { suites: vec![suite], ticket_lifetime_s: 86_400 }
}

struct Case {
    prefix: &'static str,
    suites: Vec<Suite>,
    way: Way,
    slots: Slots,
    record: Record,
    device_draws: Vec<u8>,
    server_draws: Vec<u8>,
    exporter: Option<Exporter>,
}

/// A device that comes back with the ticket of the vectors.
fn returning(prefix: &'static str, suite: Suite, other: Suite, device_key: Vec<u8>, server_key: Vec<u8>) -> Case {
    let id = TicketId::new([0x11; 16]);
    let suites = if prefix == "t8" { vec![suite] } else { vec![suite, other] };
    let next = Some(Ticket { id, psk: psk(), expires: None });
    let slot = Slot { ticket: id, psk: psk() };
    Case {
        prefix,
        suites,
        way: Way::Newest,
        slots: Slots { dev_id: Some(dev_id()), newest: Some(slot), ..Slots::default() },
        record: Record { tickets: Tickets { dev_id: Some(dev_id()), next, ..Tickets::default() }, ..Record::default() },
        device_draws: [range(0xA0, 32), device_key].concat(),
        server_draws: [range(0xC0, 32), server_key, vec![0x22; 16]].concat(),
        exporter: None,
    }
}

fn type_8() -> Case {
    returning("t8", Suite::P384, Suite::P384, bytes("device_private"), bytes("lbs_private"))
}

fn type_16() -> Case {
    returning("t16", Suite::X25519, Suite::P384, range(0x00, 32), range(0x30, 32))
}

fn type_4() -> Case {
    let code = Code::new("ABCDEFGHJKMNP").unwrap();
    Case {
        prefix: "t4",
        suites: vec![Suite::Tls, Suite::P384],
        way: Way::Code,
        slots: Slots::default(),
        record: Record { code: Some(code), standing: Standing::Known, ..Record::default() },
        device_draws: range(0xA0, 32),
        // The DevID is the hexadecimal text of these 16 bytes.
        server_draws: [range(0xC0, 32), unhex("0123456789abcdef0123456789abcdef"), vec![0x33; 16]].concat(),
        exporter: Some(Exporter::from_bytes(&range(0x40, 48)).unwrap()),
    }
}

/// Frames by the names of the vectors.
type Frames = Vec<(&'static str, Vec<u8>)>;

/// Runs both machines against each other and gives what travelled, by the names of the vectors.
fn run(case: &Case) -> (Frames, client::Success, Vec<Stage>) {
    let mut client = Client::new(
        Identity { serial: serial(), code: case.record.code.clone(), suites: case.suites.clone() },
        case.slots.clone(),
        Attempt { suite: case.suites[0], way: case.way, csr: None },
    );
    let mut server = Server::new(policy(case.suites[0]), None);
    let (mut ours, mut theirs) = (Tape::new(&[&case.device_draws]), Tape::new(&[&case.server_draws]));
    let (mut frames, mut stages) = (Vec::new(), Vec::new());
    let mut to_server = Vec::new();
    let mut record = |bytes: &[u8]| {
        let name = match bytes[0] {
            0x1A => "auth_i",
            0x2A => "auth_ii",
            0x72 => "0x72",
            0x42 => "0x42",
            0x82 => "0x82",
            0x62 => "0x62",
            0x92 => "0x92",
            0xA2 => "0xa2",
            0xB2 => "0xb2",
            other => panic!("0x{other:02x}"),
        };
        frames.push((name, bytes.to_vec()));
    };
    let success = loop {
        match client.poll() {
            client::Output::Compute => client.compute(&mut ours),
            client::Output::Export => client.handle_exporter(case.exporter.as_ref().unwrap()),
            client::Output::Send(bytes) => to_server.extend(bytes),
            client::Output::Store(_) => client.handle_stored(true),
            client::Output::Done(success) => break *success,
            client::Output::Failed(failure) => panic!("{failure}"),
            client::Output::Read => loop {
                match server.poll() {
                    server::Output::Read => {
                        let len = osap::modern::message::next_frame(&to_server, 4_096).unwrap().unwrap();
                        let frame: Vec<u8> = to_server.drain(..len).collect();
                        record(&frame);
                        server.handle_frame(&frame, &mut theirs);
                    }
                    server::Output::Lookup(_) => server.handle_record(case.record.clone(), 0, &mut theirs),
                    server::Output::Fresh { .. } => server.handle_fresh(true, &mut theirs),
                    server::Output::Compute => server.compute(&mut theirs),
                    server::Output::Export(_) => server.handle_exporter(case.exporter.as_ref().unwrap()),
                    server::Output::Attempt { short } => {
                        assert!(!short);
                        server.handle_attempt(server::Attempt::Go);
                    }
                    server::Output::Assign => server.handle_das(Some(das()), &mut theirs),
                    server::Output::Stage(stage) => {
                        stages.push(stage);
                        server.handle_staged();
                    }
                    server::Output::Send(bytes) => {
                        record(&bytes);
                        client.handle_frame(&bytes);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            },
        }
    };
    assert_eq!(server.poll(), server::Output::Done);
    assert!(ours.is_used_up() && theirs.is_used_up(), "everything that was given was drawn");
    (frames, success, stages)
}

fn check(case: &Case) -> (client::Success, Vec<Stage>) {
    let (frames, success, stages) = run(case);
    for (name, found) in frames {
        let whole = format!("{}_{name}", case.prefix);
        if include_str!("../vectors/modern.txt").lines().any(|line| line.starts_with(&format!("{whole} "))) {
            assert_eq!(found, vector(&whole), "{whole}");
        }
    }
    (success, stages)
}

#[test]
fn osap_13_3_type_8_returns_as_in_the_vectors() {
    let (success, stages) = check(&type_8());
    let resume = Psk::from_bytes(&vector("t8_resume")).unwrap();
    let new = Slot { ticket: TicketId::new([0x22; 16]), psk: resume.clone() };
    assert_eq!(success.slots.newest, Some(new));
    assert_eq!(success.slots.older.map(|slot| slot.ticket), Some(TicketId::new([0x11; 16])));
    assert_eq!(success.node, Node::from_bytes(&vector("login_node")).unwrap());
    assert_eq!(success.das, das());
    let [Stage::Issue { rev: 0, ticket, .. }, Stage::Confirm { .. }, Stage::Session { rev: 1, node, .. }] = &stages[..]
    else {
        panic!("{stages:?}");
    };
    assert_eq!((&ticket.psk, ticket.expires), (&resume, Some(86_400_000)));
    assert_eq!(*node, success.node);
}

#[test]
fn osap_13_3_type_16_returns_as_in_the_vectors() {
    check(&type_16());
}

#[test]
fn osap_13_3_type_4_enrols_as_in_the_vectors() {
    let (success, stages) = check(&type_4());
    assert_eq!(success.slots.dev_id, Some(dev_id()));
    assert_eq!(success.slots.newest.unwrap().psk, Psk::from_bytes(&vector("t4_resume")).unwrap());
    assert!(matches!(&stages[0], Stage::Issue { used: Used::Code, .. }));
}

#[test]
fn osap_13_3_each_secret_of_the_schedule_is_that_of_the_vectors() {
    let psk = psk();
    assert_eq!(binder(&psk, &vector("t8_auth_i")).to_vec(), vector("t8_binder"));
    let mut key = Tape::new(&[&bytes("device_private")]);
    let theirs = ShareKey::draw(Suite::P384, &mut Tape::new(&[&bytes("lbs_private")])).unwrap();
    let shared = ShareKey::draw(Suite::P384, &mut key).unwrap().agree(theirs.public()).unwrap();
    let schedule =
        Early::new(Some(&psk), &Fresh::Shared(&shared)).complete(&vector("t8_auth_i"), &vector("t8_auth_ii"));
    assert_eq!(schedule.mac_d().to_vec(), vector("t8_macd"));
    assert_eq!(schedule.das().as_bytes().to_vec(), vector("t8_das"));
    for (direction, side) in [(Direction::Up, "c"), (Direction::Down, "s")] {
        let key = schedule.record_key(direction);
        assert_eq!(key.expose().0.to_vec(), vector(&format!("t8_lbs_{side}_key")));
        assert_eq!(key.expose().1.to_vec(), vector(&format!("t8_lbs_{side}_iv")));
    }

    let x = ShareKey::draw(Suite::X25519, &mut Tape::new(&[&range(0x30, 32)])).unwrap();
    let z = ShareKey::draw(Suite::X25519, &mut Tape::new(&[&range(0, 32)])).unwrap().agree(x.public()).unwrap();
    assert_eq!(z.as_bytes().to_vec(), vector("t16_z"));
    let schedule = Early::new(Some(&psk), &Fresh::Shared(&z)).complete(&vector("t16_auth_i"), &vector("t16_auth_ii"));
    assert_eq!(schedule.mac_d().to_vec(), vector("t16_macd"));

    let exporter = Exporter::from_bytes(&range(0x40, 48)).unwrap();
    let schedule = Early::new(None, &Fresh::Exporter(&exporter)).complete(&vector("t4_auth_i"), &vector("t4_auth_ii"));
    let code = Code::new("ABCDEFGHJKMNP").unwrap();
    for (found, name) in [
        (schedule.mac_d(), "t4_macd"),
        (schedule.proof_d(&code), "t4_proofd"),
        (schedule.proof_s(&code), "t4_proofs"),
        (*schedule.das().as_bytes(), "t4_das"),
        (*schedule.resume().as_bytes(), "t4_resume"),
    ] {
        assert_eq!(found.to_vec(), vector(name), "{name}");
    }
}

#[test]
fn osap_13_3_the_login_at_the_das_is_that_of_the_vectors() {
    let node = Node::from_bytes(&vector("login_node")).unwrap();
    let nonce_c: [u8; 32] = range(0xE0, 32).try_into().unwrap();
    let nonce_h: [u8; 32] = range(0, 32).try_into().unwrap();
    let lc = login::login_hash(None, &dev_id(), &nonce_c);
    assert_eq!(lc.to_vec(), vector("login_lc"));
    let password = login::password(&node, &lc, nonce_c);
    assert_eq!(password.encode().to_vec(), vector("login_password"));
    assert!(login::proves_device(&node, &lc, &password));
    let lh = login::hello_hash(&lc, &nonce_h);
    assert_eq!(lh.to_vec(), vector("login_lh"));
    let hello = login::hello(&node, &lh, nonce_h);
    assert_eq!(hello.encode().to_vec(), vector("login_hello"));
    assert!(login::proves_das(&node, &lc, &hello));

    let up = login::record_key(&node, &lh, Direction::Up);
    let down = login::record_key(&node, &lh, Direction::Down);
    for (key, side) in [(&up, "c"), (&down, "s")] {
        assert_eq!(key.expose().0.to_vec(), vector(&format!("login_das_{side}_key")));
        assert_eq!(key.expose().1.to_vec(), vector(&format!("login_das_{side}_iv")));
    }
    let message = |general: &str, application: &str| {
        let len = u16::try_from(general.len()).unwrap().to_be_bytes();
        [&len, general.as_bytes(), application.as_bytes()].concat()
    };
    let record =
        r#"{"SubSerial":"SN0000001","DeviceID":"0123456789abcdef0123456789abcdef","BootID":"00112233aabbccdd"}"#;
    let mut sealer = Sealer::new(Suite::P384, Direction::Up, up.clone());
    let mut opener = Opener::new(Suite::P384, Direction::Up, up);
    for (name, topic, text) in [
        ("login_login_report", login::topic(&serial(), "report"), message(r#"{"Seq":1}"#, record)),
        (
            "login_event",
            "/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke".to_owned(),
            message(r#"{"Seq":6}"#, r#"{"level":3}"#),
        ),
    ] {
        let mut sealed = text.clone();
        sealer.seal_tail(&topic, &mut sealed, 0).unwrap();
        assert_eq!(sealed, vector(name), "{name}");
        let Ok(Opened::Next(opened)) = opener.open(&topic, &mut sealed) else { panic!("{name} does not open") };
        assert_eq!(opened, text);
    }
    let mut sealer = Sealer::new(Suite::P384, Direction::Down, down);
    let mut operate = message(r#"{"CmdVer":"v3.0.0","Seq":9004,"MsgType":1}"#, r#"{"data":{"count":3}}"#);
    let topic = "/iot/SN0000001/global/0-Lamp/model/service/operate/Light/Blink";
    sealer.seal_tail(topic, &mut operate, 0).unwrap();
    assert_eq!(operate, vector("login_operate"));
}
