//! A certificate of the operator's own.

use std::fs;
use std::path::Path;

use vestibule_tls::{FilesError, IdentityError, OwnFiles, pem};

use crate::pair::{House, NOW, names};

fn put(path: &Path, text: &str) {
    // As tools that renew do it: a new file in the place of the old one.
    let next = path.with_extension("next");
    fs::write(&next, text).expect("written");
    fs::rename(next, path).expect("renamed");
}

#[test]
fn files_are_read_watched_and_a_broken_one_keeps_the_former() {
    let house = House::new();
    let dir = tempfile::tempdir().expect("a directory");
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut files = OwnFiles::new(certificate.clone(), key.clone());
    assert!(matches!(files.load(), Err(FilesError::Read { .. })));

    let pair = rcgen::KeyPair::generate().expect("a key");
    let own = vestibule_tls::Key::from_pkcs8(pair.serialized_der()).expect("a key");
    let chain = house.servers.server_certificate(&own, &names(), NOW).expect("issued");
    put(&certificate, &pem(&chain));
    put(&key, &pair.serialize_pem());
    assert!(files.changed());
    let identity = files.load().expect("a pair");
    assert_eq!(identity.chain(), chain);
    assert!(!files.changed());
    house.tls.resolver().replace(&identity).expect("a pair");

    put(&key, &rcgen::KeyPair::generate().expect("a key").serialize_pem());
    assert!(files.changed());
    let mismatch = files.load();
    assert!(matches!(mismatch, Err(FilesError::Identity { source: IdentityError::Mismatch(_), .. })));
    assert!(!files.changed(), "told once");
    put(&certificate, "-----BEGIN CERTIFICATE-----\n!\n");
    assert!(matches!(files.load(), Err(FilesError::Identity { .. })));
    put(&certificate, "");
    assert!(matches!(files.load(), Err(FilesError::Identity { source: IdentityError::Empty, .. })));
    assert_eq!(house.tls.resolver().chain(), chain, "what is shown is what was good");
    fs::remove_file(&key).expect("removed");
    assert!(files.changed());
}
