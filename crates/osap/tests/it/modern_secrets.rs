//! No secret in what the machines print of themselves (osap-wire 13.7.9).

use osap::Suite;
use osap::modern::client::{self, Client};
use osap::modern::server::{self, Server};
use osap::modern::slots::Way;

use super::modern_pair::{LONG_CODE, exporter, known, new_device};

/// How a run of bytes looks in a debug output: as decimals, as hexadecimal digits, or as text.
fn forms(secret: &[u8]) -> Vec<String> {
    let part = &secret[..8];
    let decimals: Vec<String> = part.iter().map(u8::to_string).collect();
    let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![decimals.join(", "), hex.clone(), hex.to_uppercase()];
    forms.extend(std::str::from_utf8(part).ok().map(str::to_owned));
    forms
}

#[test]
fn osap_13_7_9_nothing_the_machines_print_holds_a_secret() {
    for (suite, way) in
        [(Suite::Tls, Way::Newest), (Suite::P384, Way::Newest), (Suite::X25519, Way::Newest), (Suite::Tls, Way::Code)]
    {
        let (mut platform, mut device) = if way == Way::Code { new_device(LONG_CODE, 1) } else { known(suite, 1) };
        let exporter = exporter(&mut platform.random);
        let mut client = Client::new(device.identity.clone(), device.flash.clone(), device.attempt(suite, way));
        let mut server = Server::new(platform.policy.clone(), None);
        let mut printed = Vec::new();
        let mut secrets = vec![exporter.as_bytes().to_vec(), LONG_CODE.as_bytes().to_vec()];
        secrets.extend(device.flash.newest.iter().map(|slot| slot.psk.as_bytes().to_vec()));
        let mut up: Vec<u8> = Vec::new();
        loop {
            let output = client.poll();
            // What is sent travels; it is not printed by anybody.
            if !matches!(output, client::Output::Send(_)) {
                printed.push(format!("{client:?} {client:#?} {output:?}"));
            }
            match output {
                client::Output::Compute => client.compute(&mut device.random),
                client::Output::Export => client.handle_exporter(&exporter),
                client::Output::Send(bytes) => up.extend(bytes),
                client::Output::Store(slots) => {
                    secrets.extend(slots.newest.iter().map(|slot| slot.psk.as_bytes().to_vec()));
                    client.handle_stored(true);
                }
                client::Output::Done(success) => {
                    secrets.push(success.node.as_bytes().to_vec());
                    break;
                }
                client::Output::Failed(failure) => panic!("{failure:?}"),
                client::Output::Read => {
                    let output = server.poll();
                    if let server::Output::Send(bytes) = output {
                        client.handle_frame(&bytes);
                        continue;
                    }
                    printed.push(format!("{server:?} {output:?}"));
                    if output == server::Output::Read {
                        let len = osap::modern::message::next_frame(&up, 4_096).unwrap().unwrap();
                        let frame: Vec<u8> = up.drain(..len).collect();
                        server.handle_frame(&frame, &mut platform.random);
                    } else {
                        assert_eq!(platform.answer(&mut server, &exporter), None);
                    }
                }
            }
        }
        printed.push(format!("{:?} {:?} {:?}", platform.records, platform.stages, device.flash));
        assert!(secrets.len() >= 4 && printed.len() > 10);
        for secret in &secrets {
            for form in forms(secret) {
                assert!(printed.iter().all(|text| !text.contains(&form)), "{suite} {way:?}: {form}");
            }
        }
    }
}
