//! A record of what became of each event, for whoever wants to compare by himself: it survives a kill of the simulation.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde::Serialize;

/// What became of an event.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It has an id, and is about to be reported.
    Made,
    /// It is in the device's cache, or stored.
    Safe,
    /// The platform has acknowledged it.
    Acknowledged,
}

/// A file with one line of JSON for each step of each event. Each is handed to the kernel before the simulation goes on:
/// a kill cuts nothing off.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
    failure: Mutex<Option<io::Error>>,
}

#[derive(Serialize)]
struct Line<'a> {
    serial: &'a str,
    id: &'a str,
    is: Fate,
}

impl Record {
    /// Appends to a file, which is made where it does not exist.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Record> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.with_context(|| format!("the record {} cannot be written", path.display()))?;
        Ok(Record { file, failure: Mutex::default() })
    }

    pub(crate) fn note(&self, serial: &str, id: &str, is: Fate) {
        let line = serde_json::to_vec(&Line { serial, id, is }).map_err(io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            (&self.file).write_all(&line)
        });
        if let Err(error) = written {
            self.failure.lock().get_or_insert(error);
        }
    }

    /// Why it is not complete, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().as_ref().map(|error| format!("the record of the events is not complete: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        for fate in [Fate::Made, Fate::Acknowledged] {
            let record = Record::open(&path).expect("opened");
            record.note("SIM-0001", "8f", fate);
            assert_eq!(record.failure(), None);
        }
        let text = std::fs::read_to_string(&path).expect("written");
        let made = r#"{"serial":"SIM-0001","id":"8f","is":"made"}"#;
        let acknowledged = r#"{"serial":"SIM-0001","id":"8f","is":"acknowledged"}"#;
        assert_eq!(text, format!("{made}\n{acknowledged}\n"));
    }

    #[test]
    fn a_full_disk_is_told() {
        let record = Record::open(Path::new("/dev/full")).expect("opened");
        record.note("SIM-0001", "8f", Fate::Made);
        assert!(record.failure().is_some_and(|why| why.contains("not complete")));
    }
}
