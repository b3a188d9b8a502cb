//! Plain aligned columns.

use std::fmt;

use super::words::printable;

/// A heading and rows; the last column is as wide as it likes.
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(super) fn new(heading: &[&'static str]) -> Table {
        Table { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Appends a row; what a device may have put into a cell is made harmless, and an empty cell shows as `-`.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells =
            cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(&cell).into_owned() });
        self.rows.push(cells.collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(self.heading.get(column).map(|name| name.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heading.len()).map(width_of).collect();
        let heading: Vec<String> = self.heading.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["SERIAL", "NAME", "STATE"]);
        table.row(["A".to_owned(), "Grüße".to_owned(), "online".to_owned()]);
        table.row(["SN-000001".to_owned(), String::new(), "never seen".to_owned()]);
        assert_eq!(
            table.to_string(),
            "SERIAL     NAME   STATE\nA          Grüße  online\nSN-000001  -      never seen\n"
        );
    }

    #[test]
    fn an_empty_table_is_its_heading() {
        assert_eq!(Table::new(&["A", "B"]).to_string(), "A  B\n");
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\u{1b}[2J".to_owned(), "y\nz".to_owned()]);
        assert_eq!(table.to_string(), "A      B\nx\u{fffd}[2J  y\u{fffd}z\n");
    }
}
