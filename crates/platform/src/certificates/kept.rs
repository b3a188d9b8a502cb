//! Certificates as the store keeps them.

use vestibule_store::CertificateRow;
use vestibule_tls::rustls::pki_types::CertificateDer;
use vestibule_tls::{Authority, Ca, Key, Purpose, Rank, pem, read_pem};

use super::{CertificatesError, Held, acquired, secret};

/// What the server's own row is called.
const SERVER: &str = "server";

/// A certificate of an authority, as a row.
pub(super) fn row(purpose: Purpose, ca: &Ca) -> CertificateRow {
    CertificateRow {
        id: ca.facts().serial_hex(),
        kind: kind(purpose, ca.rank()).to_owned(),
        chain: pem([ca.certificate()]),
        key: ca.key().map(secret),
    }
}

/// The server's certificate, as a row.
pub(super) fn server_row(chain: &[CertificateDer<'static>], key: &Key) -> CertificateRow {
    CertificateRow { id: SERVER.to_owned(), kind: SERVER.to_owned(), chain: pem(chain), key: Some(secret(key.pkcs8())) }
}

/// What the rows hold; what is missing of it has to be made.
pub(super) fn load(rows: Vec<CertificateRow>) -> Result<Held, CertificatesError> {
    let (mut servers, mut devices, mut server) = (Vec::new(), Vec::new(), None);
    for row in rows {
        if acquired::is_kind(&row.kind) {
            continue;
        }
        let unusable =
            |reason: &dyn std::fmt::Display| CertificatesError::Kept(format!("{} ({}): {reason}", row.id, row.kind));
        let chain = read_pem(row.chain.as_bytes()).map_err(|error| unusable(&error))?;
        let key = row.key.as_ref().map(|key| key.expose());
        if row.kind == SERVER {
            let key = key.ok_or_else(|| unusable(&"it has no key"))?;
            server = Some((Key::from_pkcs8(key).map_err(|error| unusable(&error))?, chain));
            continue;
        }
        let (purpose, rank) = parse(&row.kind).ok_or_else(|| unusable(&"this version does not know its kind"))?;
        let leaf = chain.into_iter().next().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let ca = Ca::load(purpose, rank, leaf, key).map_err(|error| unusable(&error))?;
        match purpose {
            Purpose::Servers => servers.push(ca),
            Purpose::Devices => devices.push(ca),
        }
    }
    let (key, chain) = match server {
        Some(server) => server,
        None => (Key::generate()?, Vec::new()),
    };
    Ok(Held {
        servers: Authority::new(Purpose::Servers, servers),
        devices: Authority::new(Purpose::Devices, devices),
        key,
        chain,
    })
}

const KINDS: [(&str, Purpose, Rank); 5] = [
    ("servers/root", Purpose::Servers, Rank::Root),
    ("servers/intermediate", Purpose::Servers, Rank::Intermediate),
    ("servers/cross", Purpose::Servers, Rank::Cross),
    ("devices/root", Purpose::Devices, Rank::Root),
    ("devices/intermediate", Purpose::Devices, Rank::Intermediate),
];

fn parse(kind: &str) -> Option<(Purpose, Rank)> {
    KINDS.iter().find(|(name, ..)| *name == kind).map(|&(_, purpose, rank)| (purpose, rank))
}

/// How a certificate's place is written.
pub(super) fn kind(purpose: Purpose, rank: Rank) -> &'static str {
    let found = KINDS.iter().find(|&&(_, of, as_what)| (of, as_what) == (purpose, rank));
    // An authority of devices has no other.
    found.map_or("devices/cross", |(name, ..)| name)
}
