//! A journal whose files were damaged.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use vestibule_store::{DeviceId, Scan};

use crate::bed::{Bed, commit, only_on};

only_on!(Sqlite: an_altered_row_is_not_returned);

/// Every column of a row, and what it refers to.
const ALTERATIONS: [&str; 8] = [
    "UPDATE record SET position = 9 WHERE position = 2",
    "UPDATE record SET kind = 2 WHERE position = 2",
    "UPDATE record SET event_id = 'f' WHERE position = 2",
    "UPDATE record SET time = time + 1 WHERE position = 2",
    "UPDATE record SET received = received - 1 WHERE position = 2",
    "UPDATE record SET flags = 1 WHERE position = 2",
    "UPDATE record SET data = '{\"value\":2}' WHERE position = 2",
    "UPDATE path SET name = 'nome'",
];

async fn an_altered_row_is_not_returned(bed: Bed) {
    for alteration in ALTERATIONS {
        let bed = Bed::new(bed.backend).await;
        let store = bed.open().await;
        let device = DeviceId::mint();
        commit(&store.journal, (0..3).map(|n| bed.event(device, &n.to_string()))).await;
        let options = SqliteConnectOptions::new().filename(bed.dir().join("journal/2026-02-03-1.db"));
        let mut connection = options.connect().await.unwrap();
        connection.execute(alteration).await.unwrap();
        connection.close().await.unwrap();
        let all = store.journal.scan(&Scan { limit: 10, ..Scan::default() }).await;
        assert!(all.is_err(), "{alteration}: {all:?}");
        store.close().await;
    }
}
