//! The LBS of the peer.

use osap::SystemRandom;
use osap::lbs::das_info::DasInfo;
use osap::modern::Exporter;
use osap::modern::message::{Das, next_frame};
use osap::modern::server::{Attempt, EXPORTER_LABEL, Output, Policy, Server};
use osap::modern::ticket::Stage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vestibule_tls::rustls::ServerConnection;
use vestibule_tls::rustls::pki_types::CertificateSigningRequestDer;

use super::house::NOW;
use super::peer::{Cut, Io, SERIAL, Seen, Site};

pub fn exporter(tls: &ServerConnection) -> Exporter {
    let material = tls.export_keying_material([0; 48], EXPORTER_LABEL, Some(SERIAL.as_bytes())).unwrap();
    Exporter::from_bytes(&material).unwrap()
}

/// Serves one connection; what is cut ends without a word.
pub async fn serve(mut stream: Box<dyn Io>, exporter: Option<Exporter>, owner: Option<String>, site: Site) {
    if run(&mut *stream, exporter, owner, &site).await.is_none() {
        site.see(Seen::Cut);
    }
}

async fn run(stream: &mut dyn Io, exporter: Option<Exporter>, owner: Option<String>, site: &Site) -> Option<()> {
    let cut = site.world.lock().cut.take();
    let suites = site.world.lock().suites.clone();
    let mut lbs = Server::new(Policy { suites, ..Policy::tls() }, owner);
    let mut buffer = Vec::new();
    let mut sent = 0;
    loop {
        match lbs.poll() {
            Output::Read => {
                if cut == Some(Cut::Unread) && sent == 2 {
                    return None;
                }
                let len = loop {
                    if let Some(len) = next_frame(&buffer, lbs.max_frame()).unwrap() {
                        break len;
                    }
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        return None;
                    }
                };
                lbs.handle_frame(&buffer[..len], &mut SystemRandom);
                buffer.drain(..len);
                if cut == Some(Cut::Hello) {
                    return None;
                }
            }
            Output::Lookup(serial) => {
                assert_eq!(serial.as_str(), SERIAL);
                let record = site.world.lock().record.clone();
                lbs.handle_record(record, NOW, &mut SystemRandom);
            }
            Output::Fresh { .. } => lbs.handle_fresh(true, &mut SystemRandom),
            Output::Compute => lbs.compute(&mut SystemRandom),
            Output::Export(_) => lbs.handle_exporter(exporter.as_ref().unwrap()),
            Output::Attempt { .. } => lbs.handle_attempt(Attempt::Go),
            Output::Certify(csr) => {
                let request = CertificateSigningRequestDer::from(csr);
                let life = 90 * 86_400_000;
                let chain = site.house.devices.device_certificate(&request, SERIAL, life, NOW).unwrap();
                site.world.lock().certificates += 1;
                lbs.handle_certificate(chain.iter().map(|der| der.to_vec()).collect());
            }
            Output::Assign => {
                let das = das(site);
                if let Some(known) = lbs.held_anchors() {
                    let mut world = site.world.lock();
                    world.known_by.push(known.to_vec());
                    lbs.tell_anchors(world.anchors.clone());
                }
                lbs.handle_das(Some(das), &mut SystemRandom);
            }
            Output::Stage(stage) => {
                let mut world = site.world.lock();
                match stage {
                    Stage::Issue { rev, over, used, dev_id, ticket } => {
                        if cut == Some(Cut::Unstored) {
                            return None;
                        }
                        assert!(world.record.tickets.issue(rev, over, used, dev_id, ticket));
                        if cut == Some(Cut::Unsent) {
                            return None;
                        }
                    }
                    Stage::Confirm { ticket, .. } => assert!(world.record.tickets.confirm(ticket)),
                    Stage::Session { node, .. } => {
                        if cut == Some(Cut::Unanswered) {
                            return None;
                        }
                        world.node = Some(node);
                        world.suite = lbs.suite();
                    }
                }
                drop(world);
                lbs.handle_staged();
            }
            Output::Send(bytes) => {
                if let Some(result) = lbs.refusal() {
                    site.see(Seen::Refused(result.into()));
                }
                sent += 1;
                stream.write_all(&bytes).await.ok()?;
                stream.flush().await.ok()?;
            }
            Output::Done => {
                site.see(Seen::Run(lbs.used().unwrap()));
                break;
            }
            Output::Close(_) => {
                lbs.refusal()?;
                break;
            }
        }
    }
    let _ = stream.shutdown().await;
    Some(())
}

fn das(site: &Site) -> Das {
    let world = site.world.lock();
    let info = DasInfo {
        address: world.das.ip().to_string(),
        // Where there is TLS nobody listens here.
        port: if world.tls { 9 } else { world.das.port() },
        udp_port: world.das.port(),
        domain: world.domain.clone(),
        server_id: "das1".into(),
    };
    Das {
        info,
        tls_port: world.tls.then_some(world.das.port()),
        bind: world.tls && world.bind,
        expires_in: world.expires_in,
    }
}
