//! The certificates: whether they are good, for long enough, and for the names that are asked for.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vestibule_tls::rustls::pki_types::CertificateDer;
use vestibule_tls::rustls::time_provider::DefaultTimeProvider;
use vestibule_tls::rustls::{ClientConfig, ClientConnection, Stream};
use vestibule_tls::{Anchor, CertificateFacts, ClientTls, OwnFiles, covers, first_use_http, read_pem, spki_sha256};

use super::Finding;
use super::listeners::reachable;
use crate::config::Config;
use crate::tls;

const PART: &str = "certificates";
const DAY: i64 = 24 * 60 * 60 * 1_000;
/// Less than this is soon, for a certificate that somebody else renews.
const SOON: i64 = 14 * DAY;
/// Less than this is soon for a root, which has to be brought to every client.
const SOON_FOR_A_ROOT: i64 = 365 * DAY;
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn examine(config: &Config, platform: Option<u32>) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let mut findings = Vec::new();
    let own = config.tls.own().map(|(certificate, key)| OwnFiles::new(certificate.clone(), key.clone()).load());
    let roots = fs::read(config.ca_file()).ok().and_then(|text| read_pem(&text).ok());
    let anchors: Vec<Anchor> = match &own {
        Some(Ok(identity)) => {
            findings.extend(leaf("the certificate of tls.certificate_file", identity.leaf(), &wanted(config), now));
            spki_sha256(identity.leaf()).into_iter().map(Anchor::Pin).collect()
        }
        Some(Err(error)) => {
            let cure = "mend the files; a platform that runs goes on with what it read before";
            findings.push(Finding::wrong(PART, error.to_string(), cure));
            Vec::new()
        }
        None => roots.iter().flatten().take(2).cloned().map(Anchor::Ca).collect(),
    };
    findings.extend(roots.as_deref().and_then(<[_]>::first).map(|newest| root(newest, now)));
    if let Some(address) = config.http.tls_address()
        && platform.is_some()
        && address.port() != 0
        && !anchors.is_empty()
    {
        let acme = &config.tls.acme;
        let mut own = wanted(config);
        if acme.directory.is_some() {
            own.retain(|name| !acme.names.contains(name));
            findings.extend(acme.names.iter().map(|name| ordered(reachable(address), anchors.clone(), name, now)));
        }
        findings.push(shown(reachable(address), anchors, &own));
    }
    findings
}

/// The names that a certificate for people and applications should have.
fn wanted(config: &Config) -> Vec<String> {
    let told = config.das.advertise.as_ref().map(|told| told.host().to_owned());
    let mut names = tls::names(config);
    // That one is for devices, which are shown the platform's own.
    names.retain(|name| Some(name) != told.as_ref() || config.tls.names.contains(name));
    names
}

fn leaf(what: &str, certificate: &CertificateDer<'_>, names: &[String], now: i64) -> Vec<Finding> {
    let mut findings = vec![ends(what, certificate, SOON, now, "have it renewed")];
    for name in names.iter().filter(|name| !covers(certificate, name)) {
        let words = format!("{what} is not one for {name}");
        findings.push(Finding::doubtful(
            PART,
            words,
            format!("have one issued for it, or reach the platform by another name than {name}"),
        ));
    }
    findings
}

fn root(certificate: &CertificateDer<'_>, now: i64) -> Finding {
    let cure = "run `vestibule admin ca roll servers` and bring clients the new root";
    ends("the root in ca.pem", certificate, SOON_FOR_A_ROOT, now, cure)
}

fn ends(what: &str, certificate: &CertificateDer<'_>, soon: i64, now: i64, cure: &str) -> Finding {
    let Ok(facts) = CertificateFacts::read(certificate) else {
        return Finding::wrong(PART, format!("{what} cannot be read"), cure);
    };
    let left = facts.not_after.saturating_sub(now);
    let days = left / DAY;
    if facts.not_before > now {
        return Finding::wrong(PART, format!("{what} is not valid yet"), "see whether the clock is right");
    }
    match left {
        ..0 => Finding::wrong(PART, format!("{what} has ended"), cure),
        _ if left < soon => Finding::doubtful(PART, format!("{what} ends in {days} days"), cure),
        _ => Finding::good(PART, format!("{what} is good for {days} days")),
    }
}

/// What the platform shows at its listener.
fn shown(address: SocketAddr, anchors: Vec<Anchor>, names: &[String]) -> Finding {
    let name = names.first().map_or("localhost", String::as_str);
    match platforms_own(address, anchors, name) {
        Ok(_) => Finding::good(PART, format!("http.tls_listen proves to be {name}")),
        Err(error) => Finding::wrong(
            PART,
            format!("http.tls_listen does not prove to be {name}: {error}"),
            "see the platform's log; was it started with this configuration?",
        ),
    }
}

/// What the platform shows under a name of the ACME server's certificate.
fn ordered(address: SocketAddr, anchors: Vec<Anchor>, name: &str, now: i64) -> Finding {
    let cure = "see /readyz and the platform's log: is the certificate ordered?";
    if platforms_own(address, anchors, name).is_ok() {
        return Finding::doubtful(PART, format!("the platform's own certificate is shown for {name}"), cure);
    }
    let seen = shake_hands(address, first_use_http(Arc::new(DefaultTimeProvider)), name);
    match seen.map(|chain| chain.into_iter().next()) {
        Ok(Some(leaf)) if covers(&leaf, name) => {
            // It is renewed when a third of its life is left, and may be a short one.
            let soon = CertificateFacts::read(&leaf).map_or(SOON, |facts| (facts.not_after - facts.not_before) / 6);
            ends(&format!("the certificate of the ACME server for {name}"), &leaf, soon, now, cure)
        }
        Ok(_) => Finding::wrong(PART, format!("what is shown for {name} is not for that name"), cure),
        Err(error) => Finding::wrong(PART, format!("http.tls_listen shows nothing for {name}: {error}"), cure),
    }
}

fn platforms_own(
    address: SocketAddr,
    anchors: Vec<Anchor>,
    name: &str,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    shake_hands(address, ClientTls::new(anchors, Arc::new(DefaultTimeProvider))?.http(), name)
}

/// The chain that is shown.
fn shake_hands(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &str,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let mut connection = ClientConnection::new(config, name.to_owned().try_into()?)?;
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let stream = Stream::new(&mut connection, &mut socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(stream.sock)?;
    }
    Ok(connection.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use vestibule_tls::{Authority, Key, Purpose};

    use super::*;
    use crate::doctor::Verdict;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn a_certificate_is_judged_by_its_end_and_its_names() {
        let mut authority = Authority::new(Purpose::Servers, []);
        authority.due(NOW).expect("made").into_iter().for_each(|ca| authority.add(ca));
        let key = Key::generate().expect("a key");
        let chain = authority.server_certificate(&key, &["hall.example".to_owned()], NOW).expect("issued");
        let verdict = |days: i64| ends("it", &chain[0], SOON, NOW + days * DAY, "").verdict;
        assert_eq!((verdict(0), verdict(80), verdict(91)), (Verdict::Good, Verdict::Doubtful, Verdict::Wrong));
        assert_eq!(verdict(-1), Verdict::Wrong);
        let found = leaf("it", &chain[0], &["hall.example".to_owned(), "192.0.2.7".to_owned()], NOW);
        let doubtful: Vec<_> = found.iter().filter(|found| found.verdict == Verdict::Doubtful).collect();
        assert!(doubtful.len() == 1 && doubtful[0].words.contains("192.0.2.7"), "{found:?}");
        assert_eq!(root(&authority.anchors(NOW)[0], NOW).verdict, Verdict::Good);
    }

    #[test]
    fn files_that_are_no_pair_are_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config { data: dir.path().to_owned(), ..Config::default() };
        assert_eq!(examine(&config, None), []);
        config.tls.certificate_file = Some(dir.path().join("none.pem"));
        config.tls.key_file = Some(dir.path().join("none.key"));
        let found = examine(&config, None);
        assert!(found[0].verdict == Verdict::Wrong && found[0].words.contains("none.pem"), "{found:?}");
    }
}
