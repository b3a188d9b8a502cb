//! Reports as lines of JSON, or rows of CSV.

use std::sync::Arc;

use csv::WriterBuilder;
use vestibule_platform::{Record, RecordKind};

use crate::shapes::{EventShape, ReportShape, rfc3339};

/// Each report on a line of its own. A device's own JSON may hold line breaks between its tokens: they are spaces to JSON.
pub(super) fn lines(records: &[Arc<Record>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(records.len() * 512);
    for record in records {
        let begin = text.len();
        // Shapes are strings, numbers and checked JSON: they always have a JSON text.
        let _ = match record.kind {
            RecordKind::Attribute => serde_json::to_writer(&mut text, &ReportShape::from(&**record)),
            _ => serde_json::to_writer(&mut text, &EventShape::from(&**record)),
        };
        for byte in &mut text[begin..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        text.push(b'\n');
    }
    text
}

/// The line of names.
pub(super) fn head(kind: RecordKind) -> Vec<u8> {
    let what = if kind == RecordKind::Attribute { "value" } else { "data" };
    let names =
        ["position", "id", "device_id", "serial", "resource", "index", "area", "name", "time", "received", "flags"];
    written(|writer| {
        names.iter().try_for_each(|name| writer.write_field(name))?;
        writer.write_field(what)?;
        writer.write_record(None::<&[u8]>)
    })
}

pub(super) fn rows(records: &[Arc<Record>]) -> Vec<u8> {
    written(|writer| {
        for record in records {
            let path = &record.path;
            let text =
                [record.id.as_deref().unwrap_or_default(), &record.device.to_string(), &record.serial].map(harmless);
            let place = [&*path.resource, &path.index, &path.area, &path.name].map(harmless);
            let flags = record.flags.names().collect::<Vec<_>>().join(" ");
            writer.write_field(record.position.get().to_string())?;
            text.iter().chain(&place).try_for_each(|cell| writer.write_field(cell))?;
            for cell in [&*rfc3339(record.time), &rfc3339(record.received), &flags, &harmless_json(&record.data)] {
                writer.write_field(cell)?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        Ok(())
    })
}

pub(crate) fn written(write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>) -> Vec<u8> {
    let mut writer = WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Into memory, and every line has as many cells as the others: nothing is there that could fail.
    let _ = write(&mut writer);
    writer.into_inner().unwrap_or_default()
}

/// What a spreadsheet takes for the beginning of a formula. Some take the full-width forms for it, too.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// A device's own text as a cell that no spreadsheet takes for a formula, nor a part of it where the spreadsheet separates cells
/// by semicolons. A number stays one.
fn harmless(text: &str) -> String {
    guarded(text, begins_formula)
}

/// A text as such a cell that [`meant`] gives back.
pub(crate) fn kept(text: &str) -> String {
    guarded(text, |part| part.starts_with('\'') || begins_formula(part))
}

/// What a cell of [`kept`] was.
pub(crate) fn meant(cell: &str) -> String {
    let bare = |part: &'_ str| match part.strip_prefix('\'') {
        Some(text) if text.starts_with('\'') || begins_formula(text) => text.to_owned(),
        _ => part.to_owned(),
    };
    cell.split(';').map(bare).collect::<Vec<_>>().join(";")
}

fn begins_formula(text: &str) -> bool {
    text.starts_with(['\t', '\r', '\n']) || text.trim_start_matches([' ', '"', '\'']).starts_with(FORMULA)
}

/// With an apostrophe before each part that wants one; a number that is all of it wants none.
fn guarded(text: &str, wants: impl Fn(&str) -> bool) -> String {
    if text.parse::<f64>().is_ok() {
        return text.to_owned();
    }
    let mut cell = String::with_capacity(text.len() + 1);
    for (number, part) in text.split(';').enumerate() {
        if number > 0 {
            cell.push(';');
        }
        if wants(part) {
            cell.push('\'');
        }
        cell.push_str(part);
    }
    cell
}

/// A device's own JSON as such a cell, with the same value: a semicolon stands in strings only, where a character may be
/// written by its number.
fn harmless_json(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for (number, part) in text.trim().split(';').enumerate() {
        let first = part.trim_start_matches(' ');
        match first.chars().next().filter(|first| number > 0 && FORMULA.contains(first)) {
            Some(formula) => {
                let spaces = &part[..part.len() - first.len()];
                let rest = &first[formula.len_utf8()..];
                cell.push_str(&format!(";{spaces}\\u{:04x}{rest}", u32::from(formula)));
            }
            None if number > 0 => {
                cell.push(';');
                cell.push_str(part);
            }
            None => cell.push_str(part),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use vestibule_platform::{DeviceId, DevicePath, Flags, Position};

    use super::*;

    fn record(name: &str, data: &str) -> Arc<Record> {
        let level = |level: &str| level.into();
        let path = DevicePath { resource: level("Lamp"), index: level("0"), area: level("Alarm"), name: level(name) };
        Arc::new(Record {
            position: Position::new(7),
            device: "018f3a2c-0000-7000-8000-000000000000".parse::<DeviceId>().expect("an id"),
            serial: "SN,1".into(),
            kind: RecordKind::Event,
            path: Arc::new(path),
            id: Some("e\"1".into()),
            time: 0,
            received: 1,
            flags: Flags::CLOCK_SUSPECT | Flags::NO_TIME,
            data: data.into(),
        })
    }

    #[test]
    fn a_line_holds_one_report_whatever_its_json_looks_like() {
        let text = lines(&[record("Smoke", "{\n\"a\":\r\n1}"), record("Fire", "[]")]);
        let text = String::from_utf8(text).expect("text");
        let read: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((read.len(), &read[0]["data"]["a"], &read[1]["name"]), (2, &1.into(), &"Fire".into()));
    }

    #[test]
    fn a_row_has_the_cells_of_the_head_and_reads_back() {
        let text = [head(RecordKind::Event), rows(&[record("Smoke", "{\"a\":\"x,\\ny\"}")])].concat();
        let mut reader = csv::Reader::from_reader(&*text);
        let names: Vec<String> = reader.headers().expect("a head").iter().map(str::to_owned).collect();
        let row = reader.records().next().expect("a row").expect("as long as the head");
        let cell = |name: &str| &row[names.iter().position(|known| known == name).expect("a column")];
        assert_eq!((cell("position"), cell("id"), cell("serial")), ("7", "e\"1", "SN,1"));
        assert_eq!((cell("flags"), cell("data")), ("clock_suspect no_time", "{\"a\":\"x,\\ny\"}"));
        assert_eq!(cell("time"), "1970-01-01T00:00:00.000Z");
        assert!(String::from_utf8(head(RecordKind::Attribute)).is_ok_and(|head| head.trim_end().ends_with(",value")));
    }

    #[test]
    fn csv_formulas_of_a_device_are_text() {
        for formula in [
            "=1+1",
            "+A1",
            "-A1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\nx",
            "=cmd|' /C calc'!A0",
            "＝1",
            "＋1",
            "－A1",
            "＠x",
            " =1",
            "\"=1",
        ] {
            assert_eq!(harmless(formula), format!("'{formula}"));
        }
        for plain in ["", "Smoke", "-12.5", "+3", "a=b", "a;b", "a;", "1;2"] {
            assert_eq!(harmless(plain), plain);
        }
        for (text, cell) in [
            ("a;=1", "a;'=1"),
            ("a;-1", "a;'-1"),
            ("a; @x;b;＝1", "a;' @x;b;'＝1"),
            ("a;\"=1", "a;'\"=1"),
            ("a;\t=1", "a;'\t=1"),
            ("=1;=2", "'=1;'=2"),
        ] {
            assert_eq!(harmless(text), cell);
        }
    }

    #[test]
    fn a_cell_that_is_read_back_is_what_it_was() {
        for text in
            ["", "a", "-12.5", "-a", "'", "'a", "'=a", "''-", "=1", "\tx", "it's", "a;=b", "a;'=b;'c", "; =1;＝x"]
        {
            let cell = kept(text);
            assert_eq!(meant(&cell), text, "{cell}");
            assert!(!cell.starts_with(['=', '@', '\t']) && !cell.contains(";="), "{cell}");
        }
        assert_eq!(meant("'plain"), "'plain", "written by hand");
    }

    #[test]
    fn csv_json_of_a_device_has_no_formula_and_the_same_value() {
        for (json, cell) in [
            (r#"{"a":"x;=1; -2;b","c":-1}"#, r#"{"a":"x;\u003d1; \u002d2;b","c":-1}"#),
            (r#"[";＠x",";",";;+"]"#, r#"[";\uff20x",";",";;\u002b"]"#),
            ("\t\n-1.5", "-1.5"),
            ("{\n\"a\": 1}", "{\n\"a\": 1}"),
        ] {
            assert_eq!(harmless_json(json), cell);
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            assert_eq!(value(&harmless_json(json)), value(json));
        }
    }
}
