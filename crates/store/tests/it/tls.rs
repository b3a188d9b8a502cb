//! TLS to PostgreSQL.

use vestibule_store::{DeviceId, OpenError, Secret, Store, StoreConfig};

use crate::bed::{Bed, PgServer, commit, only_on};
use crate::control::row;

only_on!(Postgres:
    registry_and_copy_go_over_tls,
    a_server_that_cannot_be_verified_is_refused,
);

fn config(bed: &Bed, host: &str, query: &str) -> StoreConfig {
    let server = PgServer::get();
    let query = query.replace("{dir}", server.dir.to_str().unwrap());
    let url = format!("postgres://postgres@{host}:{}/{}?{query}", server.port, bed.database());
    StoreConfig { url: Some(url), ..bed.config() }
}

async fn registry_and_copy_go_over_tls(bed: Bed) {
    for (round, (host, query, encrypted)) in [
        ("localhost", "sslmode=verify-full&sslrootcert={dir}/ca.pem", true),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={dir}/ca.pem", true),
        ("127.0.0.1", "sslmode=require", true),
        ("127.0.0.1", "sslmode=prefer", true),
        ("127.0.0.1", "sslmode=disable", false),
    ]
    .into_iter()
    .enumerate()
    {
        let store = Store::open(config(&bed, host, query)).await.unwrap();
        let device = row(&format!("S-{round}"));
        store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
        commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
        let connections: Vec<bool> = sqlx::query_scalar(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'vestibule' AND datname = current_database()",
        )
        .fetch_all(&mut bed.pg().await)
        .await
        .unwrap();
        assert!(connections.len() >= 2, "{query}: one for the registry and one for the copy");
        assert!(connections.iter().all(|ssl| *ssl == encrypted), "{query}: {connections:?}");
        store.close().await;
        let (rows,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM journal_record").fetch_one(&mut bed.pg().await).await.unwrap();
        assert_eq!(rows, round as i64 + 1);
    }
}

async fn a_server_that_cannot_be_verified_is_refused(bed: Bed) {
    for (host, query) in [
        // Another name than the certificate's, an authority nobody knows, and one that has not signed it.
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={dir}/ca.pem"),
        ("localhost", "sslmode=verify-full"),
        ("localhost", "sslmode=verify-full&sslrootcert={dir}/other.pem"),
        ("localhost", "sslmode=verify-ca&sslrootcert={dir}/other.pem"),
    ] {
        let error = Store::open(config(&bed, host, query)).await.err().unwrap_or_else(|| panic!("{query}: it opened"));
        let OpenError::Database { source, .. } = error else { panic!("{query}: {error}") };
        assert!(source.to_string().contains("certificate"), "{query}: {source}");
    }
}
