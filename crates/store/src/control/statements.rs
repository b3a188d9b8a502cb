//! Statements that write many rows at once.

use crate::db::Dialect;

/// The same statement for one row, for two, for four and so on, up to `MOST`, a power of two: few to prepare, and each is put
/// together once. Rows that match nothing fill one up.
pub(super) struct Statements<const MOST: usize> {
    sqlite: Vec<String>,
    postgres: Vec<String>,
}

impl<const MOST: usize> Statements<MOST> {
    /// For so many columns; `write` makes the statement of its rows, `(…), (…)`.
    pub(super) fn new(columns: usize, write: impl Fn(&str) -> String) -> Statements<MOST> {
        const { assert!(MOST.is_power_of_two()) };
        let of = |value: &dyn Fn(usize) -> String| {
            let row = |row| (1..=columns).map(|column| value(row * columns + column)).collect::<Vec<_>>().join(", ");
            let rows = |rows| (0..rows).map(|number| format!("({})", row(number))).collect::<Vec<_>>().join(", ");
            (0..=MOST.ilog2()).map(|power| write(&rows(1 << power))).collect()
        };
        Statements {
            // Without numbers: the driver asks SQLite for the name of each parameter, which goes through all names to find it.
            sqlite: of(&|_| "?".to_owned()),
            postgres: of(&|number| format!("${number}")),
        }
    }

    /// The smallest one that takes so many rows, which are `MOST` at most, and how many it takes.
    pub(super) fn of(&self, dialect: Dialect, rows: usize) -> (&str, usize) {
        let statements = match dialect {
            Dialect::Sqlite => &self.sqlite,
            Dialect::Postgres => &self.postgres,
        };
        let rows = rows.next_power_of_two();
        (&statements[rows.ilog2() as usize], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_statement_that_takes_all_rows_is_chosen() {
        let statements = Statements::<4>::new(2, |rows| format!("VALUES {rows}"));
        assert_eq!(statements.of(Dialect::Sqlite, 1), ("VALUES (?, ?)", 1));
        assert_eq!(statements.of(Dialect::Postgres, 2), ("VALUES ($1, $2), ($3, $4)", 2));
        assert_eq!(statements.of(Dialect::Postgres, 3).1, 4);
        assert_eq!(statements.of(Dialect::Sqlite, 4), ("VALUES (?, ?), (?, ?), (?, ?), (?, ?)", 4));
    }
}
