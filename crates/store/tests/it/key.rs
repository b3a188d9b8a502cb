//! The envelope key: where it is from, and what becomes of a start with another one.

use std::fs;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use vestibule_store::{EnvelopeKey, OpenError, Secret, Store, StoreConfig, recorded_key};

use crate::bed::{Backend, Bed, on_both};
use crate::control::{registered, row};

on_both!(
    a_key_that_is_given_is_written_nowhere,
    another_key_is_refused_before_anything_is_written,
    a_database_that_names_no_key_is_not_taken_over_by_another_one,
    a_new_directory_makes_no_key_for_a_database_that_has_one,
);

/// 64 digits.
pub fn key(digit: char) -> EnvelopeKey {
    EnvelopeKey::parse(digit.to_string().repeat(64).as_bytes(), format!("the key of {digit}")).unwrap()
}

fn given(bed: &Bed, digit: char) -> StoreConfig {
    StoreConfig { envelope_key: Some(key(digit)), ..bed.config() }
}

async fn refusal(config: StoreConfig) -> OpenError {
    Store::open(config).await.err().expect("the store opened")
}

/// Every file of a directory with its content, but what names who has it, and SQLite's log, which is made by looking.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.path().display().to_string();
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else if !["LOCK", "-shm", "-wal"].iter().any(|end| name.ends_with(end)) {
                found.push((name, fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

async fn a_key_that_is_given_is_written_nowhere(bed: Bed) {
    let store = Store::open(given(&bed, 'a')).await.unwrap();
    let device = row("A");
    store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    store.close().await;
    assert!(!bed.dir().join("keys").exists());
    for (name, content) in files(&bed.dir()) {
        assert!(!content.windows(32).any(|window| window == [0xaa; 32]), "{name}");
    }
    let store = Store::open(given(&bed, 'a')).await.unwrap();
    assert_eq!(store.control.code(device.id).await.unwrap().unwrap().expose(), b"ABCDEF");
    store.close().await;
    if bed.backend == Backend::Sqlite {
        assert_eq!(recorded_key(&bed.dir()).await, Some(key('a').id()));
    }
}

async fn another_key_is_refused_before_anything_is_written(bed: Bed) {
    let store = Store::open(given(&bed, 'a')).await.unwrap();
    registered(&store, "A").await;
    store.close().await;
    let before = files(&bed.dir());
    let error = refusal(given(&bed, 'b')).await;
    let text = error.to_string();
    assert!(
        matches!(&error, OpenError::WrongKey { given, needed, .. } if *given == key('b').id() && *needed == key('a').id())
    );
    assert!(text.contains("the key of b") && text.contains(&key('a').id()), "{text}");
    assert_eq!(files(&bed.dir()), before);
    // None at all: there is no key in the directory, and none is made.
    assert!(matches!(refusal(bed.config()).await, OpenError::KeyMissing { .. }));
    assert_eq!(files(&bed.dir()), before);
    Store::open(given(&bed, 'a')).await.unwrap().close().await;
}

/// Does that to the control database.
async fn alter(bed: &Bed, statement: &'static str) {
    match &bed.url {
        Some(_) => drop(sqlx::query(statement).execute(&mut bed.pg().await).await.unwrap()),
        None => {
            let options = SqliteConnectOptions::new().filename(bed.dir().join("control.db"));
            let mut connection = options.connect().await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

/// What a release of before has left behind: secrets, and no word of which key they are under.
async fn a_database_that_names_no_key_is_not_taken_over_by_another_one(bed: Bed) {
    let store = Store::open(given(&bed, 'a')).await.unwrap();
    let device = registered(&store, "A").await;
    store.close().await;
    alter(&bed, "DELETE FROM envelope").await;
    assert!(matches!(refusal(given(&bed, 'b')).await, OpenError::WrongKey { .. }));
    // A release of before has no such table either, and with another key it is not brought up to date.
    alter(&bed, "ALTER TABLE envelope RENAME TO elsewhere").await;
    let before = files(&bed.dir());
    assert!(matches!(refusal(given(&bed, 'b')).await, OpenError::WrongKey { .. }));
    assert_eq!(files(&bed.dir()), before);
    alter(&bed, "ALTER TABLE elsewhere RENAME TO envelope").await;
    let store = Store::open(given(&bed, 'a')).await.unwrap();
    assert!(store.control.code(device.id).await.unwrap().is_some());
    store.close().await;
    assert!(matches!(refusal(given(&bed, 'b')).await, OpenError::WrongKey { .. }));
}

async fn a_new_directory_makes_no_key_for_a_database_that_has_one(bed: Bed) {
    bed.open().await.close().await;
    let other = bed.dir().with_file_name("other");
    let config = StoreConfig { dir: other.clone(), ..bed.config() };
    if bed.backend == Backend::Sqlite {
        fs::create_dir(&other).unwrap();
        fs::copy(bed.dir().join("control.db"), other.join("control.db")).unwrap();
    }
    for _ in 0..2 {
        let error = refusal(config.clone()).await;
        assert!(matches!(error, OpenError::KeyNeeded { .. }), "{error}");
        assert!(!other.join("keys").exists() && !other.join("VERSION").exists());
    }
    // With the key it was made with it opens.
    fs::create_dir(other.join("keys")).unwrap();
    fs::copy(bed.dir().join("keys/envelope.key"), other.join("keys/envelope.key")).unwrap();
    Store::open(config).await.unwrap().close().await;
}
