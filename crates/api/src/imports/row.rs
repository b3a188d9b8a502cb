//! One row of an import.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use vestibule_platform::{ImportRow, RowWrong, Secret};

use crate::export::meant;
use crate::fields;
use crate::org::OrgParam;
use crate::problem::{Kind, Problem};

/// A device of an import. What is absent or null is not said of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeviceToImport)]
pub(super) struct RowToImport {
    /// The device's own identity: printable ASCII without spaces, `/`, `+` and `#`.
    #[schema(min_length = 1, max_length = 71, example = "SN-0001")]
    serial: String,
    /// Its verification code, needed where it is not registered yet. That of one that is registered is not looked at.
    #[schema(min_length = 1, max_length = 47, format = Password)]
    code: Option<String>,
    /// Whether that enrols the device once only; of one that is registered it is not looked at.
    one_time: Option<bool>,
    /// The product it is an instance of.
    #[schema(max_length = 128)]
    product: Option<String>,
    /// A name for people.
    #[schema(max_length = 128)]
    name: Option<String>,
    /// Id or serial of the hub or gateway it is reached through: one that is registered, or in a row before.
    parent: Option<String>,
    /// Where it belongs in the organisation; absent: where its hub belongs, or else where you are bound to.
    #[schema(value_type = Option<String>, max_length = 256, example = "/plant-1/hall-2")]
    org: Option<OrgParam>,
    /// What is written on it: at most 32 texts of 256 bytes, under names of 64.
    labels: Option<BTreeMap<String, String>>,
    /// Whether it is shut out.
    disabled: Option<bool>,
    /// Passed over, as an export says it.
    #[schema(value_type = Option<Value>)]
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    /// Passed over, as an export says it.
    #[schema(value_type = Option<Value>)]
    #[serde(rename = "family")]
    _family: Option<IgnoredAny>,
    /// Passed over, as an export says it.
    #[schema(value_type = Option<Value>)]
    #[serde(rename = "suite")]
    _suite: Option<IgnoredAny>,
    /// Passed over, as an export says it.
    #[schema(value_type = Option<Value>)]
    #[serde(rename = "presence")]
    _presence: Option<IgnoredAny>,
    /// Passed over, as an export says it.
    #[schema(value_type = Option<Value>)]
    #[serde(rename = "since")]
    _since: Option<IgnoredAny>,
    /// Passed over, as an export says it.
    #[schema(value_type = Option<Value>)]
    #[serde(rename = "created")]
    _created: Option<IgnoredAny>,
}

/// The columns of CSV, beside those of one label each.
const COLUMNS: [&str; 15] = [
    "serial", "code", "one_time", "product", "name", "parent", "org", "labels", "disabled", "id", "family", "suite",
    "presence", "since", "created",
];
/// What a column of one label begins with.
const LABEL: &str = "label:";

impl From<RowToImport> for ImportRow {
    fn from(row: RowToImport) -> ImportRow {
        ImportRow {
            serial: row.serial,
            code: row.code.map(|code| Secret::new(code.into_bytes())),
            one_time: row.one_time,
            product: row.product,
            name: row.name,
            parent: row.parent,
            org: row.org.map(|org| org.0),
            labels: row.labels,
            disabled: row.disabled,
        }
    }
}

/// A row of NDJSON.
pub(super) fn of_json(text: &[u8]) -> Result<ImportRow, RowWrong> {
    fields::from_json::<RowToImport>(text).map(ImportRow::from).map_err(wrong)
}

/// What a problem of a body is for a row.
fn wrong(problem: Problem) -> RowWrong {
    let (kind, field, detail) = problem.into_parts();
    let detail = match (kind, &field) {
        (Kind::MalformedJson, _) => "The line is not JSON.".to_owned(),
        (Kind::WrongType, None) => "The line must be a JSON object.".to_owned(),
        _ => detail,
    };
    RowWrong { field, detail }
}

/// What a column of CSV is.
enum Column {
    Field(&'static str),
    Label(String),
}

/// The first line of CSV.
pub(super) struct Head(Vec<Column>);

impl Head {
    /// Reads the names of the columns. A file without that line has a code there, so that nothing of it is said.
    pub(super) fn read(line: &[u8]) -> Result<Head, RowWrong> {
        let cells = cells(line)?;
        let mut columns = Vec::with_capacity(cells.len());
        for (n, name) in cells.iter().enumerate() {
            let name = name.trim();
            let column = match (COLUMNS.iter().find(|known| **known == name), name.strip_prefix(LABEL)) {
                (Some(known), _) => Column::Field(known),
                (None, Some(label)) => Column::Label(label.to_owned()),
                (None, None) => {
                    let known = COLUMNS[..9].join(", ");
                    let detail = format!(
                        "The first line must name the columns: {known}, or {LABEL}NAME. Column {} is none of them.",
                        n + 1
                    );
                    return Err(RowWrong { field: None, detail });
                }
            };
            columns.push(column);
        }
        let name_of = |column: &Column| match column {
            Column::Field(name) => Some(*name),
            Column::Label(_) => None,
        };
        let fields: Vec<&str> = columns.iter().filter_map(name_of).collect();
        let is_twice = |name: &&&str| fields.iter().filter(|other| other == name).count() > 1;
        if let Some(name) = fields.iter().find(is_twice) {
            return Err(RowWrong { field: None, detail: format!("The first line names {name} twice.") });
        }
        if !fields.contains(&"serial") {
            return Err(RowWrong { field: None, detail: "The first line must name a column serial.".to_owned() });
        }
        Ok(Head(columns))
    }

    /// Reads a row. An empty cell says nothing.
    pub(super) fn row(&self, line: &[u8]) -> Result<ImportRow, RowWrong> {
        let cells = cells(line)?;
        if cells.len() != self.0.len() {
            let detail = format!("The row has {} cells, and the first line {}.", cells.len(), self.0.len());
            return Err(RowWrong { field: None, detail });
        }
        let (mut fields, mut labels) = (Map::new(), Map::new());
        let mut has_labels = false;
        for (column, cell) in self.0.iter().zip(&cells).filter(|(_, cell)| !cell.is_empty()) {
            let text = || Value::String(meant(cell));
            match column {
                Column::Label(name) => {
                    has_labels = true;
                    labels.insert(name.clone(), text());
                }
                Column::Field("labels") => {
                    has_labels = true;
                    let read: Option<Map<String, Value>> = serde_json::from_str(&meant(cell)).ok();
                    let Some(read) = read else {
                        let detail = "labels must be a JSON object of texts, or columns label:NAME.".to_owned();
                        return Err(RowWrong { field: Some("labels".to_owned()), detail });
                    };
                    labels.extend(read);
                }
                Column::Field(name @ ("disabled" | "one_time")) => {
                    let flag = match cell.to_ascii_lowercase().as_str() {
                        "true" => Value::Bool(true),
                        "false" => Value::Bool(false),
                        _ => text(),
                    };
                    fields.insert((*name).to_owned(), flag);
                }
                Column::Field(name) => drop(fields.insert((*name).to_owned(), text())),
            }
        }
        if has_labels {
            fields.insert("labels".to_owned(), Value::Object(labels));
        }
        fields::from_map::<RowToImport>(fields).map(ImportRow::from).map_err(wrong)
    }
}

fn cells(line: &[u8]) -> Result<StringRecord, RowWrong> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line);
    let mut records = reader.records();
    match (records.next(), records.next()) {
        (Some(Ok(record)), None) => Ok(record),
        (Some(Ok(_)), Some(_)) => {
            let detail =
                "The row ends in its middle. Lines end with LF or CRLF; a cell with line ends is in quotation marks.";
            Err(RowWrong { field: None, detail: detail.to_owned() })
        }
        _ => Err(RowWrong { field: None, detail: "The row is not CSV in UTF-8.".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(row: Result<ImportRow, RowWrong>) -> Option<String> {
        let wrong = row.err().expect("refused");
        assert!(!wrong.detail.contains("SECRET"), "{}", wrong.detail);
        wrong.field
    }

    #[test]
    fn a_row_is_the_same_in_both_formats() {
        let json = r#"{"serial":"S1","code":"C","name":"=x","org":"/a","labels":{"floor":"2"},"disabled":true,"id":5}"#;
        let head = Head::read(b"serial,code,name,org,labels,label:floor,disabled,id,product").ok().expect("a head");
        for row in [
            of_json(json.as_bytes()),
            head.row(br#"S1,C,'=x,/a,"{""floor"":""2""}",,TRUE,5,"#),
            head.row(b"S1,C,'=x,/a,,2,true,,"),
        ] {
            let row = row.ok().expect("a row");
            assert!(row.code == Some(Secret::new("C")) && row.disabled == Some(true));
            assert_eq!((row.serial.as_str(), row.name.as_deref(), row.product), ("S1", Some("=x"), None));
            assert_eq!(row.org.map(|org| org.to_string()).as_deref(), Some("/a"));
            assert_eq!(row.labels, Some(BTreeMap::from([("floor".to_owned(), "2".to_owned())])));
        }
        let bare = head.row(b"S1,,,,,,,,").ok().expect("a row");
        assert!(bare.code.is_none() && bare.labels.is_none() && bare.org.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_by_field_and_nothing_that_was_sent_is() {
        for (json, wrong) in [
            (r#"{"code":"SECRET"}"#, Some("serial")),
            (r#"{"serial":"S","code":["SECRET"]}"#, Some("code")),
            (r#"{"serial":"S","kode":"SECRET"}"#, Some("kode")),
            (r#"{"serial":"S","org":"SECRET"}"#, Some("org")),
            (r#"{"serial":"S","code":"SECRET""#, None),
            (r#"["SECRET"]"#, None),
        ] {
            assert_eq!(field(of_json(json.as_bytes())).as_deref(), wrong, "{json}");
        }
        let head = Head::read(b"\"serial\", code ,labels,disabled").ok().expect("a head");
        for (row, wrong) in [
            ("S,SECRET,[],", Some("labels")),
            ("S,SECRET,\"{\"\"a\"\":1}\",", Some("labels")),
            ("S,SECRET,,maybe", Some("disabled")),
            (",SECRET,,", Some("serial")),
            ("S,SECRET", None),
        ] {
            assert_eq!(field(head.row(row.as_bytes())).as_deref(), wrong, "{row}");
        }
        for head in ["code,name", "serial,SECRET", "serial,serial", "SN-1,SECRET", "\"", ""] {
            let wrong = Head::read(head.as_bytes()).err().expect("no head");
            assert!(!wrong.detail.contains("SECRET"), "{head}");
        }
    }
}
