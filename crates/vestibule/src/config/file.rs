//! The file layer: TOML into settings that know their line.

use std::ops::Range;
use std::path::Path;

use figment::value::Value;
use toml_edit::{Document, Item, TableLike};

use super::keys::Keys;
use super::load::Setting;
use super::problem::{Origin, Problem};

/// Reads the text of a file into settings; what cannot be one goes to `problems`.
pub(super) fn settings(path: &Path, text: &str, keys: &Keys, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            problems.push(Problem {
                origin: Origin::File { path: path.to_owned(), line: error.span().map(|span| line_of(text, span)) },
                key: None,
                message: format!("not TOML: {}", one_line(error.message())),
            });
            return Vec::new();
        }
    };
    let mut walk = Walk { path, text, keys, problems, settings: Vec::new() };
    walk.table("", document.as_table());
    walk.settings
}

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    keys: &'a Keys,
    problems: &'a mut Vec<Problem>,
    settings: Vec<Setting>,
}

impl Walk<'_> {
    fn table(&mut self, section: &str, table: &dyn TableLike) {
        for (name, item) in table.iter() {
            let key = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let origin = Origin::File { path: self.path.to_owned(), line: span.map(|span| line_of(self.text, span)) };
            // A quoted name with a dot in it only looks like a key.
            let (known, section) = if name.contains('.') {
                (false, false)
            } else {
                (self.keys.default_of(&key).is_some(), self.keys.is_section(&key))
            };
            let item_value = value(item).or_else(|| if self.keys.is_list(&key) { list(item) } else { None });
            match (item.as_table_like(), item_value) {
                (Some(inner), _) if section => self.table(&key, inner),
                (Some(_), _) if known => self.problem(origin, key, "expected a value, found a table".to_owned()),
                (None, Some(value)) if known => self.settings.push(Setting { key, value, origin }),
                (None, None) if known => {
                    self.problem(origin, key, "expected one value, found a list or a date".to_owned())
                }
                (None, _) if section => {
                    let message = section_message(self.keys, &key);
                    self.problem(origin, key, message);
                }
                _ => {
                    let message = unknown_message(self.keys.nearest(&key));
                    self.problem(origin, key, message);
                }
            }
        }
    }

    fn problem(&mut self, origin: Origin, key: String, message: String) {
        self.problems.push(Problem { origin, key: Some(key), message });
    }
}

/// What to say of a key that does not exist. `nearest` is written the way the source writes keys.
pub(super) fn unknown_message(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("unknown key; did you mean `{nearest}`?"),
        None => "unknown key; the shipped vestibule.toml lists all of them".to_owned(),
    }
}

/// What to say of a value where a section stands.
pub(super) fn section_message(keys: &Keys, name: &str) -> String {
    let inside: Vec<&str> = keys.in_section(name).collect();
    format!("a section, not a value; its keys are {}", inside.join(", "))
}

/// A list of texts.
fn list(item: &Item) -> Option<Value> {
    let items = item.as_array()?.iter();
    items.map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>().map(Value::from)
}

fn value(item: &Item) -> Option<Value> {
    let value = item.as_value()?;
    if let Some(text) = value.as_str() {
        Some(Value::from(text))
    } else if let Some(number) = value.as_integer() {
        Some(Value::from(number))
    } else if let Some(number) = value.as_float() {
        Some(Value::from(number))
    } else {
        value.as_bool().map(Value::from)
    }
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
