//! Views: lists of devices that people come back to.

use super::Control;
use super::writer::{Write, rows};
use crate::StoreError;
use crate::db::{Transaction, on_db};

/// The most rows [`Control::views`] returns.
const MAX_VIEWS: i64 = 10_000;

/// A view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow {
    /// The place in the organisation whose people it is for.
    pub org: String,
    /// Its name there.
    pub name: String,
    /// What is looked for and in which order, JSON.
    pub query: String,
    /// Who changed it last.
    pub actor: String,
    /// When, Unix milliseconds.
    pub changed: i64,
}

impl Control {
    /// The views of a place by name, 10,000 at most.
    pub async fn views(&self, org: &str) -> Result<Vec<ViewRow>, StoreError> {
        let org = org.to_owned();
        self.read(move |db| async move {
            let rows: Vec<(String, String, String, i64)> = on_db!(&db, pool => sqlx::query_as(
                "SELECT name, query, actor, changed FROM device_view WHERE org = $1 ORDER BY name LIMIT $2",
            )
            .bind(org.clone())
            .bind(MAX_VIEWS)
            .fetch_all(pool)
            .await?);
            let row = |(name, query, actor, changed)| ViewRow { org: org.clone(), name, query, actor, changed };
            Ok(rows.into_iter().map(row).collect())
        })
        .await
    }

    /// The view of this name.
    pub async fn view(&self, org: &str, name: &str) -> Result<Option<ViewRow>, StoreError> {
        let (org, name) = (org.to_owned(), name.to_owned());
        self.read(move |db| async move {
            let row: Option<(String, String, i64)> = on_db!(&db, pool => sqlx::query_as(
                "SELECT query, actor, changed FROM device_view WHERE org = $1 AND name = $2",
            )
            .bind(org.clone())
            .bind(name.clone())
            .fetch_optional(pool)
            .await?);
            Ok(row.map(|(query, actor, changed)| ViewRow { org, name, query, actor, changed }))
        })
        .await
    }

    /// Keeps a view, in place of the one of this name where there is one; false: there are `max` others at its place.
    pub async fn put_view(&self, row: ViewRow, max: usize) -> Result<bool, StoreError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        Ok(self.write(Write::View(ViewWrite::Put { row: Box::new(row), max })).await? > 0)
    }

    /// Removes a view; false when there is none.
    pub async fn remove_view(&self, org: &str, name: &str) -> Result<bool, StoreError> {
        let (org, name) = (org.to_owned(), name.to_owned());
        Ok(self.write(Write::View(ViewWrite::Remove { org, name })).await? > 0)
    }
}

/// A change of the views.
pub(super) enum ViewWrite {
    Put { row: Box<ViewRow>, max: i64 },
    Remove { org: String, name: String },
}

impl ViewWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            ViewWrite::Put { row, max } => rows!(
                transaction,
                "INSERT INTO device_view (org, name, query, actor, changed) SELECT $1, $2, $3, $4, $5 \
                 WHERE (SELECT count(*) FROM device_view AS other WHERE other.org = $1 AND other.name <> $2) < $6 \
                 ON CONFLICT (org, name) DO UPDATE SET query = excluded.query, actor = excluded.actor, \
                 changed = excluded.changed",
                &row.org,
                &row.name,
                &row.query,
                &row.actor,
                row.changed,
                max
            ),
            ViewWrite::Remove { org, name } => {
                rows!(transaction, "DELETE FROM device_view WHERE org = $1 AND name = $2", org, name)
            }
        }
    }
}
