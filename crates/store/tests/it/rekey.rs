//! Another envelope key: everything is under it or nothing is, wherever the process dies.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, getpid, kill_process};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use vestibule_store::{
    AuditQuery, BackupError, BackupPlan, Credentials, DeviceId, EnvelopeKey, MediaKey, NewKey, OpenError, RekeyError,
    RekeyStep, Secret, Store, StoreConfig, back_up, rekey, restore,
};

use crate::bed::{Backend, Bed, NOON, on_both, only_on};
use crate::certificate::own;
use crate::control::{credential, row};
use crate::key::key;
use crate::webhook;

on_both!(
    everything_sealed_is_sealed_anew,
    a_key_may_be_given_and_taken_back,
    what_does_not_open_changes_nothing,
    a_key_that_the_directory_has_no_room_for_changes_nothing,
);

only_on!(Sqlite: no_value_stays_under_the_old_key, a_backup_of_before_needs_the_key_of_before);

const DIR: &str = "VESTIBULE_TEST_REKEY_DIR";
const URL: &str = "VESTIBULE_TEST_REKEY_URL";
const AT: &str = "VESTIBULE_TEST_REKEY_AT";
const GIVEN: &str = "VESTIBULE_TEST_REKEY_GIVEN";

/// What has been filled in.
#[derive(Clone, Copy)]
struct Filled {
    device: DeviceId,
    webhook: uuid::Uuid,
}

/// Each kind of secret there is, and so many devices that they do not fit a page.
async fn fill(store: &Store) -> Filled {
    let device = row("A");
    let control = &store.control;
    control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    let credentials = Credentials {
        committed: Some(credential(1)),
        candidate: Some(credential(2)),
        tickets: Some(Secret::new([5; 90])),
        ..Credentials::default()
    };
    control.put_credentials(device.id, &credentials).await.unwrap();
    let hook = webhook::row(1);
    assert!(control.insert_webhook(hook.clone(), &Secret::new(*b"signs"), 9).await.unwrap());
    for number in 1..=2 {
        let key = MediaKey { number, made: NOON, key: Secret::new([number as u8; 32]) };
        control.add_media_key(&key).await.unwrap();
    }
    control.put_certificates(vec![own("a", Some(b"private")), own("b", None), own("c", Some(b"too"))]).await.unwrap();
    let more = (0..600).map(|n| row(&format!("B{n}")));
    for row in more {
        control.insert_device(&row, &Secret::new(*b"GHIJKL")).await.unwrap();
    }
    Filled { device: device.id, webhook: hook.id }
}

/// Opens the store and every secret in it.
async fn opens(config: StoreConfig, filled: Filled) {
    let store = Store::open(config).await.unwrap();
    let control = &store.control;
    let (code, credentials) = control.secrets(filled.device).await.unwrap();
    assert_eq!(code.unwrap().expose(), b"ABCDEF");
    assert_eq!(credentials.committed, Some(credential(1)));
    assert_eq!(credentials.candidate, Some(credential(2)));
    assert_eq!(credentials.tickets.unwrap().expose(), [5; 90]);
    assert_eq!(control.webhook_secret(filled.webhook).await.unwrap().unwrap().expose(), b"signs");
    assert_eq!(control.media_keys().await.unwrap().len(), 2);
    let keys: Vec<_> = control.certificates().await.unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, [Some(Secret::new(*b"private")), None, Some(Secret::new(*b"too"))]);
    let codes = control.new_codes().await.unwrap();
    assert_eq!(codes.len(), 600);
    for (id, code) in codes {
        assert_eq!(control.open_code(id, &code).unwrap().expose(), b"GHIJKL");
    }
    store.close().await;
}

/// Values that are sealed: those of one device with everything, two of the keys of media, two of certificates, a webhook's,
/// and the codes of the others.
const VALUES: u64 = 4 + 2 + 2 + 1 + 600;

async fn everything_sealed_is_sealed_anew(bed: Bed) {
    let store = bed.open().await;
    let filled = fill(&store).await;
    store.close().await;
    let path = bed.dir().join("keys/envelope.key");
    let old = fs::read(&path).unwrap();
    let keep = bed.dir().with_file_name("old.key");
    // From an exchange that came to nothing: it is kept already.
    fs::copy(&path, &keep).unwrap();
    let mut steps = Vec::new();
    let done = rekey(&bed.config(), NewKey::Kept, Some(&keep), "console", |step| steps.push(step)).await.unwrap();
    assert_eq!(done.values, VALUES);
    let sealed = steps.iter().filter(|step| matches!(step, RekeyStep::Sealed(_))).count();
    assert!(sealed > 6 && steps.contains(&RekeyStep::Sealed(VALUES)), "{steps:?}");
    assert_eq!(steps[steps.len() - 3..], [RekeyStep::Complete, RekeyStep::Committed, RekeyStep::Placed]);
    assert_ne!(fs::read(&path).unwrap(), old);
    assert_eq!(fs::read(&keep).unwrap(), old);
    assert_eq!(EnvelopeKey::read(&path).unwrap().id(), done.to);
    opens(bed.config(), filled).await;
    let other = StoreConfig { envelope_key: Some(EnvelopeKey::read(&keep).unwrap()), ..bed.config() };
    assert!(matches!(Store::open(other).await.err(), Some(OpenError::WrongKey { needed, .. }) if needed == done.to));

    let store = bed.open().await;
    let audits = store.control.audits(&AuditQuery { limit: 1, ..AuditQuery::default() }).await.unwrap();
    assert_eq!((&*audits[0].actor, &*audits[0].action, audits[0].ok), ("console", "admin.rekey", true));
    assert!(audits[0].detail.contains(&done.from) && audits[0].detail.contains(&done.to), "{}", audits[0].detail);
    // The platform has the directory: nobody exchanges the key under it.
    let refused = rekey(&bed.config(), NewKey::Kept, None, "console", |_| {}).await;
    assert!(matches!(refused, Err(RekeyError::Open(OpenError::InUse { .. }))));
    store.close().await;
}

async fn a_key_may_be_given_and_taken_back(bed: Bed) {
    let store = bed.open().await;
    let filled = fill(&store).await;
    store.close().await;
    let with = |digit| StoreConfig { envelope_key: Some(key(digit)), ..bed.config() };
    rekey(&bed.config(), NewKey::Given(key('a')), None, "console", |_| {}).await.unwrap();
    opens(with('a'), filled).await;
    assert!(matches!(Store::open(bed.config()).await.err(), Some(OpenError::WrongKey { .. })));
    rekey(&with('a'), NewKey::Given(key('b')), None, "console", |_| {}).await.unwrap();
    opens(with('b'), filled).await;
    let same = rekey(&with('b'), NewKey::Given(key('b')), None, "console", |_| {}).await;
    assert!(matches!(same, Err(RekeyError::Same(_))));
    // The key of before the first exchange still lies where the new one is to be.
    let older = bed.dir().join("keys/envelope.key");
    let kept = fs::read(&older).unwrap();
    let refused = rekey(&with('b'), NewKey::Kept, None, "console", |_| {}).await;
    assert!(matches!(refused, Err(RekeyError::Older(path)) if path == older));
    assert_eq!(fs::read(&older).unwrap(), kept);
    fs::rename(&older, bed.dir().with_file_name("older.key")).unwrap();
    let done = rekey(&with('b'), NewKey::Kept, None, "console", |_| {}).await.unwrap();
    assert_eq!(done.values, VALUES);
    opens(bed.config(), filled).await;
    assert!(matches!(Store::open(with('b')).await.err(), Some(OpenError::WrongKey { .. })));
    let nothing = StoreConfig { dir: bed.dir().join("nothing"), ..bed.config() };
    assert!(matches!(rekey(&nothing, NewKey::Kept, None, "console", |_| {}).await, Err(RekeyError::NotData(_))));
    assert!(!nothing.dir.exists());
}

async fn what_does_not_open_changes_nothing(bed: Bed) {
    let store = bed.open().await;
    let filled = fill(&store).await;
    store.close().await;
    const SPOIL: &str = "UPDATE media_key SET sealed = (SELECT secret FROM webhook) WHERE number = 2";
    const MEND: &str = "DELETE FROM media_key WHERE number = 2";
    let run = async |sql: &'static str| match &bed.url {
        Some(_) => drop(sqlx::query(sql).execute(&mut bed.pg().await).await.unwrap()),
        None => {
            let mut connection = control(&bed).connect().await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    };
    run(SPOIL).await;
    let refused = rekey(&bed.config(), NewKey::Kept, None, "console", |_| {}).await;
    assert!(matches!(refused, Err(RekeyError::Value { table: "media_key", column: "sealed", .. })), "{refused:?}");
    run(MEND).await;
    let store = bed.open().await;
    assert!(!bed.dir().join("keys/envelope.key.new").exists());
    store.control.add_media_key(&MediaKey { number: 2, made: NOON, key: Secret::new([2; 32]) }).await.unwrap();
    store.close().await;
    opens(bed.config(), filled).await;
}

async fn a_key_that_the_directory_has_no_room_for_changes_nothing(bed: Bed) {
    let store = bed.open().await;
    let filled = fill(&store).await;
    store.close().await;
    // Where the new one goes there is something that cannot be replaced by a file.
    let next = bed.dir().join("keys/envelope.key.new");
    let keep = bed.dir().with_file_name("old.key");
    fs::write(&keep, "somebody else's").unwrap();
    let refused = rekey(&bed.config(), NewKey::Kept, Some(&keep), "console", |_| {}).await;
    assert!(matches!(refused, Err(RekeyError::Open(OpenError::Io { .. }))), "{refused:?}");
    assert_eq!(fs::read(&keep).unwrap(), b"somebody else's");
    assert!(!next.exists());
    opens(bed.config(), filled).await;
}

fn control(bed: &Bed) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(bed.dir().join("control.db"))
}

/// Table and column of every value that begins like one that was sealed under this key, however many there are.
async fn under(bed: &Bed, id: &str) -> Vec<String> {
    let head: Vec<u8> = (0..4).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
    let head = [&[1], &head[..]].concat();
    let mut connection = control(bed).connect().await.unwrap();
    let mut found = Vec::new();
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'").fetch_all(&mut connection).await;
    for table in tables.unwrap().iter().map(|row| row.get::<String, _>(0)) {
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        for column in sqlx::query(AssertSqlSafe(columns)).fetch_all(&mut connection).await.unwrap() {
            let column: String = column.get(0);
            let sql = format!(
                "SELECT count(*) FROM \"{table}\" WHERE typeof(\"{column}\") = 'blob' AND substr(\"{column}\", 1, 5) = $1"
            );
            let count: i64 =
                sqlx::query_scalar(AssertSqlSafe(sql)).bind(&head).fetch_one(&mut connection).await.unwrap();
            if count > 0 {
                found.push(format!("{table}.{column}"));
            }
        }
    }
    connection.close().await.unwrap();
    found.sort();
    found
}

/// Goes by what is in the database, not by anybody's list: a column that is sealed and was not moved shows here, and one that
/// nobody has filled in shows as missing.
async fn no_value_stays_under_the_old_key(bed: Bed) {
    let store = bed.open().await;
    fill(&store).await;
    store.close().await;
    let old = EnvelopeKey::read(&bed.dir().join("keys/envelope.key")).unwrap().id();
    const ALL: [&str; 8] = [
        "certificate.sealed",
        "device.candidate",
        "device.code",
        "device.committed",
        "device.tickets",
        "envelope.proof",
        "media_key.sealed",
        "webhook.secret",
    ];
    assert_eq!(under(&bed, &old).await, ALL);
    let done = rekey(&bed.config(), NewKey::Kept, None, "console", |_| {}).await.unwrap();
    assert_eq!(done.from, old);
    assert_eq!(under(&bed, &old).await, Vec::<String>::new());
    assert_eq!(under(&bed, &done.to).await, ALL);
}

async fn a_backup_of_before_needs_the_key_of_before(bed: Bed) {
    let store = bed.open().await;
    let filled = fill(&store).await;
    store.close().await;
    let beside = |name: &str| bed.dir().with_file_name(name);
    let (before, after, keep) = (beside("before"), beside("after"), beside("old.key"));
    let plan = BackupPlan { data: &bed.dir(), into: &before, control_elsewhere: false, with_key: false, now: NOON };
    back_up(&plan, |_, _| {}).await.unwrap();
    let done = rekey(&bed.config(), NewKey::Kept, Some(&keep), "console", |_| {}).await.unwrap();
    back_up(&BackupPlan { into: &after, with_key: true, ..plan }, |_, _| {}).await.unwrap();
    let present = bed.dir().join("keys/envelope.key");
    let error = restore(&before, &beside("restored"), Some(&present), None, |_, _| {}).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BackupError::WrongKey { .. }));
    assert!(text.contains(&done.from) && text.contains(&done.to) && text.contains("admin rekey"), "{text}");
    restore(&before, &beside("restored"), Some(&keep), None, |_, _| {}).await.unwrap();
    opens(StoreConfig { dir: beside("restored"), ..bed.config() }, filled).await;
    restore(&after, &beside("restored too"), None, None, |_, _| {}).await.unwrap();
    opens(StoreConfig { dir: beside("restored too"), ..bed.config() }, filled).await;

    // After an exchange that was cut short the database says which key it is, and where it is elsewhere nothing does.
    let next = bed.dir().join("keys/envelope.key.new");
    fs::copy(&keep, &next).unwrap();
    let plan_of_two = BackupPlan { into: &beside("two"), with_key: true, ..plan };
    let elsewhere = BackupPlan { control_elsewhere: true, ..plan_of_two };
    assert!(matches!(back_up(&elsewhere, |_, _| {}).await, Err(BackupError::KeyUnsettled)));
    back_up(&plan_of_two, |_, _| {}).await.unwrap();
    assert_eq!(fs::read(beside("two").join("keys/envelope.key")).unwrap(), fs::read(&present).unwrap());
    fs::remove_file(&next).unwrap();

    // Where the key is from elsewhere, a backup has none and a restore writes none.
    rekey(&bed.config(), NewKey::Given(key('a')), None, "console", |_| {}).await.unwrap();
    let with_key = BackupPlan { into: &beside("elsewhere"), with_key: true, ..plan };
    assert!(matches!(back_up(&with_key, |_, _| {}).await, Err(BackupError::KeyElsewhere)));
    let without = BackupPlan { into: &beside("elsewhere"), with_key: false, ..plan };
    back_up(&without, |_, _| {}).await.unwrap();
    let dir = beside("restored from elsewhere");
    let wrong = restore(&beside("elsewhere"), &dir, None, Some(&key('b')), |_, _| {}).await;
    assert!(matches!(wrong, Err(BackupError::WrongKey { .. })));
    restore(&beside("elsewhere"), &dir, None, Some(&key('a')), |_, _| {}).await.unwrap();
    assert!(!dir.join("keys/envelope.key").exists());
    opens(StoreConfig { dir, envelope_key: Some(key('a')), ..bed.config() }, filled).await;
}

#[test]
fn killed_at_any_step_on_sqlite_it_is_all_or_nothing() {
    survives("rekey::killed_at_any_step_on_sqlite_it_is_all_or_nothing", Backend::Sqlite);
}

#[test]
fn killed_at_any_step_on_postgres_it_is_all_or_nothing() {
    survives("rekey::killed_at_any_step_on_postgres_it_is_all_or_nothing", Backend::Postgres);
}

/// The test runs itself again as the process that is killed.
fn survives(name: &str, backend: Backend) {
    if let Some(dir) = std::env::var_os(DIR) {
        return victim(PathBuf::from(dir));
    }
    crate::bed::run(backend, async |bed: Bed| {
        let store = bed.open().await;
        let filled = fill(&store).await;
        store.close().await;
        let path = bed.dir().join("keys/envelope.key");
        let id = || EnvelopeKey::read(&path).unwrap().id();
        for (step, is_done) in
            [("Prepared", false), ("Sealed(500)", false), ("Complete", false), ("Committed", true), ("Placed", true)]
        {
            let before = id();
            die(name, &bed, step, false);
            let has_next = bed.dir().join("keys/envelope.key.new").exists();
            assert_eq!(has_next, step != "Placed", "{step}");
            opens(bed.config(), filled).await;
            assert_eq!(id() != before, is_done, "{step}");
            assert!(!bed.dir().join("keys/envelope.key.new").exists(), "{step}");
        }
        // A start on another database, an empty one, by mistake: whichever key the right one is under, it stays.
        for (step, starts, is_done) in [("Complete", 1, false), ("Committed", 1, true), ("Committed", 2, true)] {
            let before = id();
            die(name, &bed, step, false);
            let next = bed.dir().join("keys/envelope.key.new");
            let needed = EnvelopeKey::read(&next).unwrap().id();
            // With its log, which a process that was killed leaves behind.
            let moved = |from: PathBuf, to: PathBuf| {
                for name in ["control.db", "control.db-wal", "control.db-shm"] {
                    let _ = fs::rename(from.join(name), to.join(name));
                }
            };
            let away = bed.dir().with_file_name("away");
            fs::create_dir_all(&away).unwrap();
            if bed.url.is_none() {
                moved(bed.dir(), away.clone());
            }
            for _ in 0..starts {
                Store::open(StoreConfig { url: None, ..bed.config() }).await.unwrap().close().await;
            }
            fs::remove_file(bed.dir().join("control.db")).unwrap();
            moved(away, bed.dir());
            if starts == 2 {
                assert!(matches!(Store::open(bed.config()).await.err(), Some(OpenError::WrongKey { .. })));
                fs::rename(bed.dir().join(format!("keys/envelope.key.{needed}")), &next).unwrap();
            }
            opens(bed.config(), filled).await;
            assert_eq!(id() != before, is_done, "{step}");
        }
        // The same with a key from elsewhere.
        let given = StoreConfig { envelope_key: Some(key('a')), ..bed.config() };
        for (step, is_done) in [("Sealed(500)", false), ("Complete", false), ("Committed", true)] {
            die(name, &bed, step, true);
            let (good, bad) = if is_done { (&given, bed.config()) } else { (&bed.config(), given.clone()) };
            opens(good.clone(), filled).await;
            assert!(matches!(Store::open(bad).await.err(), Some(OpenError::WrongKey { .. })), "{step}");
        }
    });
}

fn die(name: &str, bed: &Bed, step: &str, given: bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).stdout(Stdio::null());
    command.env(DIR, bed.dir()).env(AT, step);
    if let Some(url) = &bed.url {
        command.env(URL, url);
    }
    if given {
        command.env(GIVEN, "yes");
    }
    let status = command.status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}: {status}");
}

fn victim(dir: PathBuf) {
    let at = std::env::var(AT).unwrap();
    let config = StoreConfig { url: std::env::var(URL).ok(), ..StoreConfig::new(dir) };
    let new = if std::env::var_os(GIVEN).is_some() { NewKey::Given(key('a')) } else { NewKey::Kept };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let told = |step: RekeyStep| {
            if format!("{step:?}") == at {
                kill_process(getpid(), Signal::KILL).unwrap();
            }
        };
        rekey(&config, new, None, "console", told).await.unwrap();
    });
}
