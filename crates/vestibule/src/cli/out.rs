//! The output of a command: text for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::Value;

use super::table::Table;

/// Whoever read our output has closed it.
#[derive(Debug, thiserror::Error)]
#[error("the output has been closed")]
pub struct OutputClosed;

/// Where a command prints, and in which shape.
pub struct Out<'a> {
    to: &'a mut dyn Write,
    json: bool,
}

impl<'a> Out<'a> {
    /// Prints to `to`, as JSON when `json` is set.
    pub fn new(to: &'a mut dyn Write, json: bool) -> Out<'a> {
        Out { to, json }
    }

    /// Whether the output is for programs.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a JSON document on a line of its own, visible at once.
    ///
    /// # Errors
    /// [`OutputClosed`], or why it could not be written.
    pub fn json(&mut self, value: &Value) -> anyhow::Result<()> {
        self.line(value)
    }

    /// Prints a line, visible at once.
    ///
    /// # Errors
    /// [`OutputClosed`], or why it could not be written.
    pub fn line(&mut self, line: impl Display) -> anyhow::Result<()> {
        written(writeln!(self.to, "{line}").and_then(|()| self.to.flush()))
    }

    /// Prints what is read, as it comes.
    ///
    /// # Errors
    /// [`OutputClosed`], or why it could not be read or written.
    pub(super) fn copied(&mut self, mut from: impl io::Read) -> anyhow::Result<()> {
        written(io::copy(&mut from, self.to).and_then(|_| self.to.flush()))
    }

    /// Prints a table.
    ///
    /// # Errors
    /// [`OutputClosed`], or why it could not be written.
    pub(super) fn table(&mut self, table: &Table) -> anyhow::Result<()> {
        written(write!(self.to, "{table}").and_then(|()| self.to.flush()))
    }
}

fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("the result cannot be printed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_output_is_told_from_a_failing_one() {
        let error = Out::new(&mut Closed, false).line("x").expect_err("closed");
        assert!(error.is::<OutputClosed>());
    }
}
