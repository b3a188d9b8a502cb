//! Backups of a store that is written to, and bringing them back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use vestibule_store::{
    Backup, BackupError, BackupPlan, DeviceId, OpenError, QueuedOperation, Secret, Store, back_up, restore,
};

use crate::bed::{Bed, HOUR, NOON, commit, everything, ids, only_on, path, positions};
use crate::control::row;

only_on!(Sqlite:
    a_store_that_is_written_to_is_copied_as_it_is_in_one_moment,
    what_is_restored_is_what_was_there,
    a_backup_goes_where_nothing_is_and_comes_back_where_nothing_is,
    without_its_key_a_backup_opens_nothing,
    a_damaged_backup_restores_nothing_that_opens,
    a_backup_names_no_file_elsewhere,
    where_the_registry_is_elsewhere_the_journal_alone_is_copied,
);

fn beside(bed: &Bed, name: &str) -> PathBuf {
    bed.dir().with_file_name(name)
}

async fn backup(bed: &Bed, into: &Path, with_key: bool) -> Result<Backup, BackupError> {
    let plan = BackupPlan { data: &bed.dir(), into, control_elsewhere: false, with_key, now: NOON };
    back_up(&plan, |_, _| {}).await
}

/// A store with two sealed segments, one that is written to, and a device with a code.
async fn filled(bed: &Bed) -> (Store, DeviceId) {
    let store = bed.open_with(|config| config.segment_rows = 10).await;
    let device = row("A");
    store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    commit(&store.journal, (0..25).map(|n| bed.event(device.id, &n.to_string()))).await;
    (store, device.id)
}

async fn a_store_that_is_written_to_is_copied_as_it_is_in_one_moment(bed: Bed) {
    let (store, device) = filled(&bed).await;
    let into = beside(&bed, "backup");
    let done = AtomicBool::new(false);
    let write = async {
        let mut n = 25;
        while !done.load(Ordering::SeqCst) {
            commit(&store.journal, [bed.event(device, &n.to_string())]).await;
            n += 1;
        }
        n
    };
    let copy = async {
        let backup = backup(&bed, &into, true).await.unwrap();
        done.store(true, Ordering::SeqCst);
        backup
    };
    let (written, copied) = tokio::join!(write, copy);
    assert!(copied.control && copied.key && copied.files >= 7, "{copied:?}");
    store.close().await;

    let data = beside(&bed, "restored");
    assert_eq!(restore(&into, &data, None, None, |_, _| {}).await.unwrap().files, copied.files);
    let mut config = bed.config();
    config.dir = data;
    let store = Store::open(config).await.unwrap();
    let restored = everything(&store.journal).await;
    let count = i64::try_from(restored.len()).unwrap();
    assert!((25..=written).contains(&count), "{count} of {written}");
    assert_eq!(positions(&restored), (1..=count).collect::<Vec<_>>(), "no hole");
    assert_eq!(store.journal.damage(), []);
    // Whoever has seen what came after the backup sees what comes after the restore.
    let next = commit(&store.journal, [bed.event(device, "next")]).await[0];
    assert!(next.get() > written, "{next}");
    store.close().await;
}

async fn what_is_restored_is_what_was_there(bed: Bed) {
    let (store, device) = filled(&bed).await;
    let before = everything(&store.journal).await;
    let waits = QueuedOperation {
        id: uuid::Uuid::now_v7(),
        device,
        path: (*path("global", "area", "name")).clone(),
        input: None,
        created: NOON,
        expires: NOON + HOUR,
        deadline_ms: 1_000,
        by: "somebody".into(),
        taken: false,
    };
    assert!(store.control.queue_operation(waits, 1).await.unwrap());
    let into = beside(&bed, "backup/");
    let mut told = Vec::new();
    let plan = BackupPlan { data: &bed.dir(), into: &into, control_elsewhere: false, with_key: true, now: NOON };
    let copied = back_up(&plan, |path, bytes| told.push((path.to_owned(), bytes))).await.unwrap();
    assert_eq!(told[0].0, Path::new("control.db"));
    assert_eq!((told.len(), told.iter().all(|(_, bytes)| *bytes > 0)), (4, true), "the registry and three segments");
    assert_eq!(copied.taken, NOON);
    store.close().await;
    // Also of a platform that does not run.
    let again = beside(&bed, "again");
    assert!(backup(&bed, &again, true).await.unwrap().control);
    fs::remove_dir_all(bed.dir()).unwrap();
    for from in [into, again] {
        restore(&from, &bed.dir(), None, None, |_, _| {}).await.unwrap();
        let store = bed.open().await;
        assert_eq!((everything(&store.journal).await, store.journal.damage()), (before.clone(), Vec::new()));
        let waiting = store.control.queued_operations().await.unwrap();
        assert_eq!(waiting.iter().map(|one| one.taken).collect::<Vec<_>>(), [true], "it may have been sent since");
        let (code, _) = store.control.secrets(device).await.unwrap();
        assert_eq!(code.unwrap().expose(), b"ABCDEF");
        // A repetition is one there, too.
        commit(&store.journal, [bed.event(device, "3")]).await;
        assert_eq!(ids(&everything(&store.journal).await).len(), 25);
        store.close().await;
        fs::remove_dir_all(bed.dir()).unwrap();
    }
}

async fn a_backup_goes_where_nothing_is_and_comes_back_where_nothing_is(bed: Bed) {
    let into = beside(&bed, "backup");
    assert!(matches!(backup(&bed, &into, false).await, Err(BackupError::NotData(_))));
    let (store, _) = filled(&bed).await;
    backup(&bed, &into, true).await.unwrap();
    assert!(matches!(backup(&bed, &into, true).await, Err(BackupError::Exists(_))));
    assert!(matches!(restore(&into, &bed.dir(), None, None, |_, _| {}).await, Err(BackupError::NotEmpty(_))));
    store.close().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&into), mode(&into.join("control.db")), mode(&into.join("keys/envelope.key"))),
        (0o700, 0o600, 0o600)
    );
    // An empty directory, such as one that is mounted, will do.
    let data = beside(&bed, "mounted");
    fs::create_dir(&data).unwrap();
    restore(&into, &data, None, None, |_, _| {}).await.unwrap();
    assert!(!data.join("restoring").exists());
}

async fn without_its_key_a_backup_opens_nothing(bed: Bed) {
    let (store, device) = filled(&bed).await;
    let into = beside(&bed, "backup");
    assert!(!backup(&bed, &into, false).await.unwrap().key);
    store.close().await;
    let key = bed.dir().join("keys/envelope.key");
    let secret = fs::read(&key).unwrap();
    for file in ["BACKUP", "SHA256SUMS", "control.db"] {
        let bytes = fs::read(into.join(file)).unwrap();
        assert!(
            !bytes.windows(32).any(|window| window == secret) && !bytes.windows(6).any(|window| window == b"ABCDEF")
        );
    }
    let data = beside(&bed, "restored");
    assert!(matches!(restore(&into, &data, None, None, |_, _| {}).await, Err(BackupError::KeyNeeded { .. })));
    let other = beside(&bed, "other.key");
    fs::write(&other, [7; 32]).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(restore(&into, &data, Some(&other), None, |_, _| {}).await, Err(BackupError::WrongKey { .. })));
    assert!(!data.exists());
    assert!(restore(&into, &data, Some(&key), None, |_, _| {}).await.unwrap().key);
    let mut config = bed.config();
    config.dir = data;
    let store = Store::open(config).await.unwrap();
    assert_eq!(store.control.secrets(device).await.unwrap().0.unwrap().expose(), b"ABCDEF");
    store.close().await;
}

async fn a_damaged_backup_restores_nothing_that_opens(bed: Bed) {
    let (store, _) = filled(&bed).await;
    let into = beside(&bed, "backup");
    backup(&bed, &into, true).await.unwrap();
    store.close().await;
    let file = into.join("journal/2026-02-03-1.db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let data = beside(&bed, "restored");
    match restore(&into, &data, None, None, |_, _| {}).await {
        Err(BackupError::Damaged(path)) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
    let mut config = bed.config();
    config.dir = data.clone();
    assert!(matches!(Store::open(config).await, Err(OpenError::HalfRestored { dir }) if dir == data));
    fs::remove_file(into.join("SHA256SUMS")).unwrap();
    let elsewhere = beside(&bed, "elsewhere");
    assert!(matches!(restore(&into, &elsewhere, None, None, |_, _| {}).await, Err(BackupError::NotBackup { .. })));
}

async fn a_backup_names_no_file_elsewhere(bed: Bed) {
    let (store, _) = filled(&bed).await;
    let into = beside(&bed, "backup");
    backup(&bed, &into, true).await.unwrap();
    store.close().await;
    let sums = fs::read_to_string(into.join("SHA256SUMS")).unwrap();
    for name in ["../token", "/etc/passwd", "journal/../../x", "journal/", "token"] {
        fs::write(into.join("SHA256SUMS"), format!("{sums}{:064}  {name}\n", 0)).unwrap();
        let refused = restore(&into, &beside(&bed, "restored"), None, None, |_, _| {}).await;
        assert!(matches!(refused, Err(BackupError::NotBackup { .. })), "{name}");
    }
}

async fn where_the_registry_is_elsewhere_the_journal_alone_is_copied(bed: Bed) {
    let (store, _) = filled(&bed).await;
    let into = beside(&bed, "backup");
    let plan = BackupPlan { data: &bed.dir(), into: &into, control_elsewhere: true, with_key: false, now: NOON };
    let copied = back_up(&plan, |_, _| {}).await.unwrap();
    store.close().await;
    assert!(!copied.control && !into.join("control.db").exists());
    let data = beside(&bed, "restored");
    let key = bed.dir().join("keys/envelope.key");
    // What is in PostgreSQL is sealed under it.
    assert!(matches!(restore(&into, &data, None, None, |_, _| {}).await, Err(BackupError::KeyNeeded { .. })));
    restore(&into, &data, Some(&key), None, |_, _| {}).await.unwrap();
    assert!(data.join("journal/2026-02-03-1.db").exists() && !data.join("control.db").exists());
}
