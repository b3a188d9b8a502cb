//! The data directory: who may use it, and what can be read out of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use vestibule_store::{Credentials, OpenError, Secret, Store};

use crate::bed::{Bed, commit, on_both, only_on};
use crate::control::{credential, row};

on_both!(
    a_second_opening_is_refused_until_the_first_is_closed,
    files_are_for_the_owner_only,
    a_newer_or_foreign_format_is_refused,
    an_exposed_damaged_or_missing_key_is_refused,
    a_newer_schema_is_refused,
);

only_on!(Sqlite: no_secret_is_in_any_file);

async fn refusal(bed: &Bed) -> OpenError {
    match Store::open(bed.config()).await {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

async fn a_second_opening_is_refused_until_the_first_is_closed(bed: Bed) {
    let store = bed.open().await;
    let error = refusal(&bed).await;
    let text = error.to_string();
    assert!(matches!(error, OpenError::InUse { .. }), "{text}");
    assert!(text.contains(bed.dir().to_str().unwrap()) && text.contains(&std::process::id().to_string()), "{text}");
    store.close().await;
    bed.open().await.close().await;
}

async fn files_are_for_the_owner_only(bed: Bed) {
    let store = bed.open().await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(bed.dir()), 0o700);
    assert_eq!(mode(bed.dir().join("keys")), 0o700);
    assert_eq!(mode(bed.dir().join("keys/envelope.key")), 0o600);
    assert_eq!(fs::read_to_string(bed.dir().join("VERSION")).unwrap(), "2\n");
    store.close().await;
}

async fn a_newer_or_foreign_format_is_refused(bed: Bed) {
    bed.open().await.close().await;
    let version = bed.dir().join("VERSION");
    fs::write(&version, "3\n").unwrap();
    let error = refusal(&bed).await;
    assert!(matches!(error, OpenError::Newer { found: 3, known: 2, .. }), "{error}");
    fs::write(&version, "1\n").unwrap();
    let error = refusal(&bed).await;
    assert!(matches!(error, OpenError::Older { found: 1, known: 2, .. }), "{error}");
    assert!(error.to_string().contains(bed.dir().to_str().unwrap()), "{error}");
    for foreign in ["", "one", "0", "-1", "1 2"] {
        fs::write(&version, foreign).unwrap();
        let error = refusal(&bed).await;
        assert!(matches!(error, OpenError::Version { .. }), "{foreign}: {error}");
    }
    fs::write(&version, "2\n").unwrap();
    bed.open().await.close().await;
}

async fn an_exposed_damaged_or_missing_key_is_refused(bed: Bed) {
    bed.open().await.close().await;
    let path = bed.dir().join("keys/envelope.key");
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(&bed).await;
        assert!(matches!(error, OpenError::KeyExposed { .. }), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let key = fs::read(&path).unwrap();
    assert_eq!(key.len(), 32);
    fs::write(&path, &key[1..]).unwrap();
    assert!(matches!(refusal(&bed).await, OpenError::KeyText { .. }));
    fs::remove_file(&path).unwrap();
    assert!(matches!(refusal(&bed).await, OpenError::KeyMissing { .. }));
    assert!(!path.exists(), "a new key hides that the old one is lost");
}

async fn a_newer_schema_is_refused(bed: Bed) {
    bed.open().await.close().await;
    const LATER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                         SELECT 99, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";
    match &bed.url {
        Some(_) => drop(sqlx::query(LATER).execute(&mut bed.pg().await).await.unwrap()),
        None => {
            use sqlx::{ConnectOptions as _, Connection as _};
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bed.dir().join("control.db"));
            let mut connection = options.connect().await.unwrap();
            sqlx::query(LATER).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
    let error = refusal(&bed).await;
    assert!(matches!(error, OpenError::Newer { found: 99, known, .. } if known < 99), "{error}");
}

/// Looks for the secrets as bytes, as hexadecimal in both cases and as Base64 at every alignment.
async fn no_secret_is_in_any_file(bed: Bed) {
    let code = b"QWXYZKJV";
    let master = b"0f1e2d3c4b5a6978";
    let session = [0xd3, 0x14, 0x15, 0x92, 0x65, 0x35, 0x89, 0x79, 0x32, 0x38, 0x46, 0x26, 0x43, 0x38, 0x32, 0x79];
    let store = bed.open().await;
    let device = row("SERIAL-THAT-IS-NO-SECRET");
    store.control.insert_device(&device, &Secret::new(*code)).await.unwrap();
    let mut full = credential(1);
    full.master_key = Secret::new(*master);
    full.session_key = Some(Secret::new(session));
    let both = Credentials { committed: Some(full.clone()), candidate: Some(full), ..Credentials::default() };
    store.control.put_credentials(device.id, &both).await.unwrap();
    commit(&store.journal, [bed.event(device.id, "e")]).await;

    // While it is open, with the logs, and after.
    assert_absent(&bed.dir(), &[code, master, &session]);
    store.close().await;
    let files = assert_absent(&bed.dir(), &[code, master, &session]);
    assert!(contains(&files, b"SERIAL-THAT-IS-NO-SECRET"), "the search does not find what is there");
    let store = bed.open().await;
    assert_eq!(store.control.credentials(device.id).await.unwrap(), both);
    store.close().await;
}

fn assert_absent(dir: &Path, secrets: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let content = fs::read(&path).unwrap();
                for secret in secrets {
                    for form in forms(secret) {
                        assert!(!contains(&content, &form), "{} holds {form:?}", path.display());
                    }
                }
                all.extend(content);
            }
        }
    }
    all
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    // Cut to whole groups, so that the characters do not depend on what stands around the secret.
    for start in 0..3 {
        let groups = &secret[start..];
        let groups = &groups[..groups.len() / 3 * 3];
        let bits: String = groups.iter().map(|byte| format!("{byte:08b}")).collect();
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let sextets = bits.as_bytes().chunks(6).map(|bits| {
            let index = bits.iter().fold(0, |index, bit| index * 2 + usize::from(bit - b'0'));
            ALPHABET[index]
        });
        forms.push(sextets.collect());
    }
    forms
}

fn contains(content: &[u8], form: &[u8]) -> bool {
    content.windows(form.len()).any(|window| window == form)
}

#[test]
fn the_forms_of_a_secret_are_the_known_ones() {
    let forms = forms(b"Many hands");
    assert!(forms.contains(&b"4d616e792068616e6473".to_vec()));
    assert!(forms.contains(&b"TWFueSBoYW5k".to_vec()));
}
