//! The control database: devices and their credentials.

use vestibule_store::{
    CodeUse, Credential, Credentials, DeviceId, DeviceRow, InsertError, Note, Secret, Store, StoreError,
};

use crate::bed::{Backend, Bed, NOON, on_both};
use crate::meter::Meter;

on_both!(
    a_device_comes_back_as_it_was,
    the_code_of_a_new_device_is_kept_sealed_until_something_is_agreed,
    what_is_said_of_a_device_is_replaced,
    a_serial_is_registered_once,
    devices_are_listed_by_id_in_pages,
    changes_are_kept_across_a_restart,
    notes_are_kept_together_and_of_devices_that_exist,
    what_does_not_exist_is_said_so,
    credentials_are_replaced_whole,
    a_rotated_device_has_another_code_and_nothing_else,
    credentials_written_together_reach_each_device_that_exists,
    removing_a_device_removes_its_credentials,
    callers_at_the_same_time_share_commits,
    one_bad_write_does_not_fail_its_neighbours,
    one_text_that_a_database_does_not_take_fails_alone,
    one_note_that_a_database_does_not_take_keeps_back_no_other,
    a_sealed_value_opens_in_its_own_row_only,
    a_closed_store_says_so,
);

pub fn row(serial: &str) -> DeviceRow {
    DeviceRow {
        id: DeviceId::mint(),
        serial: serial.into(),
        family: "osap".into(),
        product: None,
        name: None,
        org: "/".into(),
        labels: "{}".into(),
        version: 1,
        created: NOON,
        enrol_until: 0,
        disabled: false,
        modern: false,
        tls_only: false,
        code_use: CodeUse::Lasting,
        certificate: None,
        parent: None,
        last_failure: None,
        presence: None,
    }
}

pub fn credential(seed: u8) -> Credential {
    Credential {
        suite: "legacy".into(),
        epoch: i64::from(seed),
        dev_id: format!("{seed:032x}"),
        master_key: Secret::new([seed; 16]),
        session_key: None,
        created: NOON + i64::from(seed),
        code_case_lower: seed % 2 == 1,
    }
}

pub async fn registered(store: &Store, serial: &str) -> DeviceRow {
    let row = row(serial);
    store.control.insert_device(&row, &Secret::new(*b"ABCDEF")).await.unwrap();
    row
}

async fn a_device_comes_back_as_it_was(bed: Bed) {
    let store = bed.open().await;
    let bare = registered(&store, "S-1").await;
    let mut full = row("S-2 'quoted\" ß");
    full.product = Some("camera".into());
    full.name = Some("Tür 🚪".into());
    full.org = "/Werk 1/Halle ß".into();
    full.labels = r#"{"floor":"2"}"#.into();
    full.version = 7;
    full.enrol_until = i64::MAX;
    full.disabled = true;
    full.last_failure = Some(r#"{"step":"login"}"#.into());
    full.presence = Some("{}".into());
    store.control.insert_device(&full, &Secret::new(vec![0xff, 0, 1])).await.unwrap();
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [bare.clone(), full.clone()]);
    assert_eq!(store.control.code(bare.id).await.unwrap(), Some(Secret::new(*b"ABCDEF")));
    assert_eq!(store.control.code(full.id).await.unwrap(), Some(Secret::new(vec![0xff, 0, 1])));
    store.close().await;
}

async fn what_is_said_of_a_device_is_replaced(bed: Bed) {
    let store = bed.open().await;
    let (one, other) = (registered(&store, "S-1").await, registered(&store, "S-2").await);
    store.control.describe(one.id, Some("Tür"), "/a/b", r#"{"k":"v"}"#, 2).await.unwrap();
    let name = Some("Tür".into());
    let described = DeviceRow { name, org: "/a/b".into(), labels: r#"{"k":"v"}"#.into(), version: 2, ..one.clone() };
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [described, other.clone()]);
    store.control.describe(one.id, None, "/", "{}", 3).await.unwrap();
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [DeviceRow { version: 3, ..one }, other]);
    let nobody = store.control.describe(DeviceId::mint(), None, "/", "{}", 2).await;
    assert!(matches!(nobody, Err(StoreError::UnknownDevice)));
    store.close().await;
}

async fn the_code_of_a_new_device_is_kept_sealed_until_something_is_agreed(bed: Bed) {
    let store = bed.open().await;
    let new = row("S-1");
    let sealed = store.control.insert_device(&new, &Secret::new(*b"ABCDEF")).await.unwrap();
    assert_eq!(store.control.open_code(new.id, &sealed).unwrap(), Secret::new(*b"ABCDEF"));
    assert!(store.control.open_code(DeviceId::mint(), &sealed).is_err(), "it is of use for its own device only");
    for (serial, committed) in [("S-2", true), ("S-3", false)] {
        let known = registered(&store, serial).await;
        let (held, none) = (Some(credential(1)), None);
        let (committed, candidate) = if committed { (held, none) } else { (none, held) };
        store
            .control
            .put_credentials(known.id, &Credentials { committed, candidate, ..Credentials::default() })
            .await
            .unwrap();
    }
    let codes = store.control.new_codes().await.unwrap();
    assert_eq!(codes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [new.id]);
    assert_eq!(store.control.open_code(new.id, &codes[0].1).unwrap(), Secret::new(*b"ABCDEF"));
    store.close().await;
}

async fn a_serial_is_registered_once(bed: Bed) {
    let store = bed.open().await;
    let first = registered(&store, "S-1").await;
    let again = store.control.insert_device(&row("S-1"), &Secret::new(*b"OTHER1")).await;
    assert!(matches!(again, Err(InsertError::SerialTaken)), "{again:?}");
    assert_eq!(store.control.devices(None, 10).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(store.control.code(first.id).await.unwrap(), Some(Secret::new(*b"ABCDEF")));

    // Of many at the same moment one wins.
    let rows: Vec<DeviceRow> = (0..20).map(|_| row("S-2")).collect();
    let mut inserts = tokio::task::JoinSet::new();
    for row in rows {
        let control = store.control.clone();
        inserts.spawn(async move { control.insert_device(&row, &Secret::new(*b"ABCDEF")).await.is_ok() });
    }
    let won = inserts.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);

    // A removed device's serial is free again.
    store.control.remove_device(first.id).await.unwrap();
    registered(&store, "S-1").await;
    store.close().await;
}

async fn devices_are_listed_by_id_in_pages(bed: Bed) {
    let store = bed.open().await;
    let mut expected = Vec::new();
    for n in 0..25 {
        expected.push(registered(&store, &format!("S-{n}")).await);
    }
    expected.sort_by_key(|row| row.id);
    let mut listed: Vec<DeviceRow> = Vec::new();
    loop {
        let page = store.control.devices(listed.last().map(|row| row.id), 10).await.unwrap();
        assert!(page.len() <= 10);
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, expected);
    assert!(store.control.devices(None, -5).await.unwrap().is_empty());
    store.close().await;
}

async fn changes_are_kept_across_a_restart(bed: Bed) {
    let store = bed.open().await;
    let mut device = registered(&store, "S-1").await;
    let other = registered(&store, "S-2").await;
    store.control.set_enrol_until(device.id, NOON + 600_000).await.unwrap();
    store.close().await;

    let store = bed.open().await;
    device.enrol_until = NOON + 600_000;
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [device, other]);
    store.close().await;
}

async fn notes_are_kept_together_and_of_devices_that_exist(bed: Bed) {
    let store = bed.open().await;
    // More than a statement takes, and more than a transaction does.
    let mut devices: Vec<DeviceRow> = (0..600).map(|n| row(&format!("S-{n}"))).collect();
    let coded: Vec<_> = devices.iter().map(|row| (row.clone(), Secret::new(*b"code"))).collect();
    store.control.enlist(&coded, Vec::new(), None).await.unwrap();
    let note = |device: DeviceId, n: usize| Note {
        device,
        presence: format!(r#"{{"since":{n}}}"#),
        last_failure: n.is_multiple_of(3).then(|| format!(r#"{{"at":{n}}}"#)),
    };
    let (_unnoted, noted) = devices.split_last_mut().expect("some");
    let mut notes: Vec<Note> = (0..).zip(&*noted).map(|(n, row)| note(row.id, n)).collect();
    // One that was removed meanwhile stands in nobody's way.
    notes.insert(7, note(DeviceId::mint(), 3));
    store.control.put_notes(notes).await.unwrap();
    // The next one says nothing of a failure: the last one is still that.
    let later = Note { last_failure: None, ..note(noted[0].id, 1_000) };
    store.control.put_notes(vec![later]).await.unwrap();
    store.control.put_notes(Vec::new()).await.unwrap();
    store.close().await;

    let store = bed.open().await;
    for (n, row) in (0..).zip(&mut *noted) {
        let note = note(row.id, n);
        (row.presence, row.last_failure) = (Some(note.presence), note.last_failure);
    }
    noted[0].presence = Some(r#"{"since":1000}"#.to_owned());
    devices.sort_by_key(|row| row.id);
    assert_eq!(store.control.devices(None, 1_000).await.unwrap(), devices);
    store.close().await;
}

async fn what_does_not_exist_is_said_so(bed: Bed) {
    let store = bed.open().await;
    let nobody = DeviceId::mint();
    let control = &store.control;
    assert!(!control.remove_device(nobody).await.unwrap());
    assert_eq!(control.code(nobody).await.unwrap(), None);
    assert_eq!(control.credentials(nobody).await.unwrap(), Credentials::default());
    let some = Credentials { committed: Some(credential(1)), ..Credentials::default() };
    for result in [
        control.set_enrol_until(nobody, 1).await,
        control.put_credentials(nobody, &some).await,
        control.put_credentials(nobody, &Credentials::default()).await,
    ] {
        assert!(matches!(result, Err(StoreError::UnknownDevice)), "{result:?}");
    }
    store.close().await;
}

async fn credentials_are_replaced_whole(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await.id;
    let other = registered(&store, "S-2").await.id;
    let with_session = Credential { session_key: Some(Secret::new([9; 16])), ..credential(2) };
    let steps = [
        Credentials { candidate: Some(credential(1)), ..Credentials::default() },
        Credentials { committed: Some(credential(1)), candidate: Some(with_session.clone()), ..Credentials::default() },
        Credentials {
            committed: Some(with_session),
            tickets: Some(Secret::new([5; 90])),
            modern: true,
            candidate: None,
            code: CodeUse::Lasting,
        },
        Credentials::default(),
    ];
    let untouched = Credentials {
        code: CodeUse::Lasting,
        committed: Some(credential(7)),
        candidate: Some(credential(8)),
        tickets: Some(Secret::new([6; 30])),
        modern: true,
    };
    store.control.put_credentials(other, &untouched).await.unwrap();
    for step in steps {
        store.control.put_credentials(device, &step).await.unwrap();
        assert_eq!(store.control.credentials(device).await.unwrap(), step);
    }
    assert_eq!(store.control.credentials(other).await.unwrap(), untouched);
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.credentials(other).await.unwrap(), untouched);
    store.close().await;
}

async fn credentials_written_together_reach_each_device_that_exists(bed: Bed) {
    // More than one statement takes, and not a number that fills statements up.
    const DEVICES: u8 = 150;
    let of = |seed: u8| Credentials {
        committed: Some(credential(seed)),
        candidate: seed.is_multiple_of(3).then(|| credential(seed.wrapping_add(1))),
        ..Credentials::default()
    };
    let store = bed.open().await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        devices.push(registered(&store, &format!("S-{n}")).await.id);
    }
    let mut gone = Vec::new();
    for (round, goes) in [(1, None), (2, Some(7)), (3, Some(149))] {
        if let Some(goes) = goes {
            assert!(store.control.remove_device(devices[usize::from(goes)]).await.unwrap());
            gone.push(goes);
        }
        let mut puts = tokio::task::JoinSet::new();
        // The first device is written twice: it has one or the other, whole.
        for (n, seed) in (0..DEVICES).map(|n| (n, n + round)).chain([(0, 200)]) {
            let (control, device) = (store.control.clone(), devices[usize::from(n)]);
            puts.spawn(async move { (n, control.put_credentials(device, &of(seed)).await) });
        }
        for (n, result) in puts.join_all().await {
            match gone.contains(&n) {
                true => assert!(matches!(result, Err(StoreError::UnknownDevice)), "device {n}: {result:?}"),
                false => assert!(result.is_ok(), "device {n}: {result:?}"),
            }
        }
        for n in 0..DEVICES {
            let stored = store.control.credentials(devices[usize::from(n)]).await.unwrap();
            match n {
                n if gone.contains(&n) => assert_eq!(stored, Credentials::default(), "device {n}"),
                0 => assert!(stored == of(round) || stored == of(200), "{stored:?}"),
                n => assert_eq!(stored, of(n + round), "device {n}"),
            }
        }
    }
    store.close().await;
}

async fn removing_a_device_removes_its_credentials(bed: Bed) {
    let store = bed.open().await;
    let gone = registered(&store, "S-1").await;
    let kept = registered(&store, "S-2").await;
    let both = Credentials { committed: Some(credential(1)), candidate: Some(credential(2)), ..Credentials::default() };
    store.control.put_credentials(gone.id, &both).await.unwrap();
    store.control.put_credentials(kept.id, &both).await.unwrap();
    assert!(store.control.remove_device(gone.id).await.unwrap());
    assert!(!store.control.remove_device(gone.id).await.unwrap());
    assert_eq!(store.control.credentials(gone.id).await.unwrap(), Credentials::default());
    assert_eq!(store.control.code(gone.id).await.unwrap(), None);
    assert_eq!(store.control.credentials(kept.id).await.unwrap(), both);
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [kept]);
    store.close().await;
}

async fn callers_at_the_same_time_share_commits(bed: Bed) {
    const CALLERS: u64 = 100;
    std::thread::spawn(move || {
        let meter = Meter::default();
        meter.run(async {
            let store = bed.open().await;
            let mut devices = Vec::new();
            for n in 0..CALLERS {
                devices.push(registered(&store, &format!("S-{n}")).await.id);
            }
            let before = meter.count("vestibule_control_commits_total");
            assert_eq!(before, CALLERS, "one caller at a time commits by itself");
            let mut puts = tokio::task::JoinSet::new();
            for (device, seed) in devices.iter().copied().zip(0..) {
                let control = store.control.clone();
                let credentials = Credentials { committed: Some(credential(seed)), ..Credentials::default() };
                puts.spawn(async move { control.put_credentials(device, &credentials).await });
            }
            assert!(puts.join_all().await.iter().all(Result::is_ok));
            let commits = meter.count("vestibule_control_commits_total") - before;
            assert!(commits <= 5, "{CALLERS} callers took {commits} commits");
            assert_eq!(meter.count("vestibule_control_writes_total"), 2 * CALLERS);
            for (device, seed) in devices.into_iter().zip(0..) {
                let stored = store.control.credentials(device).await.unwrap();
                assert_eq!(stored.committed, Some(credential(seed)));
            }
            store.close().await;
        });
    })
    .join()
    .unwrap();
}

async fn one_bad_write_does_not_fail_its_neighbours(bed: Bed) {
    let store = bed.open().await;
    let first = registered(&store, "S-0").await;
    let mut inserts = tokio::task::JoinSet::new();
    for n in 0..50 {
        let control = store.control.clone();
        let mut row = row(&format!("T-{n}"));
        if n == 25 {
            // Breaks the primary key, which no statement foresees.
            row.id = first.id;
        }
        inserts.spawn(async move { (n, control.insert_device(&row, &Secret::new(*b"ABCDEF")).await) });
    }
    for (n, result) in inserts.join_all().await {
        match n {
            25 => assert!(matches!(result, Err(InsertError::Store(StoreError::Database(_)))), "{result:?}"),
            _ => assert!(result.is_ok(), "{n}: {result:?}"),
        }
    }
    assert_eq!(store.control.devices(None, 100).await.unwrap().len(), 50);
    store.close().await;
}

async fn one_text_that_a_database_does_not_take_fails_alone(bed: Bed) {
    let store = bed.open().await;
    let mut inserts = tokio::task::JoinSet::new();
    for n in 0..50 {
        let control = store.control.clone();
        let mut row = row(&format!("S-{n}"));
        if n == 25 {
            row.name = Some("a\0b".into());
        }
        inserts.spawn(async move { (n, control.insert_device(&row, &Secret::new(*b"ABCDEF")).await) });
    }
    for (n, result) in inserts.join_all().await {
        let refused = n == 25 && bed.backend == Backend::Postgres;
        assert_eq!(result.is_err(), refused, "{n}: {result:?}");
    }
    store.close().await;
}

async fn one_note_that_a_database_does_not_take_keeps_back_no_other(bed: Bed) {
    let store = bed.open().await;
    let mut devices = Vec::new();
    for n in 0..5 {
        devices.push(registered(&store, &format!("S-{n}")).await.id);
    }
    let note = |(n, device): (usize, &DeviceId)| {
        let presence = if n == 2 { "a\0b" } else { "there" };
        Note { device: *device, presence: presence.to_owned(), last_failure: None }
    };
    let result = store.control.put_notes(devices.iter().enumerate().map(note).collect()).await;
    let refused = bed.backend == Backend::Postgres;
    assert_eq!(result.is_err(), refused, "{result:?}");
    for (n, row) in store.control.devices(None, 10).await.unwrap().iter().enumerate() {
        assert_eq!(row.presence.is_none(), refused && n == 2, "{n}: {:?}", row.presence);
    }
    store.close().await;
}

async fn a_sealed_value_opens_in_its_own_row_only(bed: Bed) {
    let store = bed.open().await;
    let mine = registered(&store, "S-1").await.id;
    let victim = registered(&store, "S-2").await.id;
    store.close().await;
    // Somebody who can write to the database gives one device the code of another.
    const COPY: &str = "UPDATE device SET code = (SELECT code FROM device WHERE serial = 'S-1') WHERE serial = 'S-2'";
    match bed.backend {
        Backend::Sqlite => {
            use sqlx::{ConnectOptions as _, Connection as _};
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bed.dir().join("control.db"));
            let mut connection = options.connect().await.unwrap();
            assert_eq!(sqlx::query(COPY).execute(&mut connection).await.unwrap().rows_affected(), 1);
            connection.close().await.unwrap();
        }
        Backend::Postgres => {
            assert_eq!(sqlx::query(COPY).execute(&mut bed.pg().await).await.unwrap().rows_affected(), 1);
        }
    }
    let store = bed.open().await;
    assert!(matches!(store.control.code(victim).await, Err(StoreError::SealBroken)));
    assert!(store.control.code(mine).await.unwrap().is_some());
    store.close().await;
}

async fn a_closed_store_says_so(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await;
    let control = store.control.clone();
    store.close().await;
    assert!(matches!(control.set_enrol_until(device.id, 1).await, Err(StoreError::Closed)));
    assert!(matches!(control.devices(None, 1).await, Err(StoreError::Closed)));
}

async fn a_rotated_device_has_another_code_and_nothing_else(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await;
    let credentials =
        Credentials { committed: Some(credential(1)), candidate: Some(credential(2)), ..Credentials::default() };
    store.control.put_credentials(device.id, &credentials).await.unwrap();
    store.control.set_enrol_until(device.id, NOON).await.unwrap();
    store.control.rotate(device.id, &Secret::new(*b"GHIJKL"), false, None).await.unwrap();
    let (code, credentials) = store.control.secrets(device.id).await.unwrap();
    assert_eq!((code, credentials), (Some(Secret::new(*b"GHIJKL")), Credentials::default()));
    assert_eq!(store.control.devices(None, 10).await.unwrap()[0].enrol_until, 0);
    let unknown = store.control.rotate(DeviceId::mint(), &Secret::new(*b"GHIJKL"), false, None).await;
    assert!(matches!(unknown, Err(StoreError::UnknownDevice)));
    store.close().await;
}
