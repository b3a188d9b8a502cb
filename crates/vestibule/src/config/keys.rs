//! The keys there are, and the nearest one to a misspelt one.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::Config;

/// Below this likeness (1 = equal) a suggestion would be a guess.
const LIKE: f64 = 0.8;

/// Every key with its default value, taken from the types themselves.
pub(super) struct Keys {
    leaves: BTreeMap<String, Value>,
}

impl Keys {
    /// Reads the keys off the default configuration.
    pub(super) fn new() -> Keys {
        let defaults =
            Value::serialize(Config::default()).expect("the defaults are plain strings, numbers and booleans");
        let mut leaves = BTreeMap::new();
        if let Value::Dict(_, dict) = defaults {
            flatten("", dict, &mut leaves);
        }
        Keys { leaves }
    }

    /// The default of a key; `None` when there is no such key.
    pub(super) fn default_of(&self, key: &str) -> Option<&Value> {
        self.leaves.get(key)
    }

    /// Whether the values of a key are lists.
    pub(super) fn is_list(&self, key: &str) -> bool {
        matches!(self.default_of(key), Some(Value::Array(..)))
    }

    /// Whether the name is that of a section.
    pub(super) fn is_section(&self, name: &str) -> bool {
        self.in_section(name).next().is_some()
    }

    /// The keys of a section, without its name.
    pub(super) fn in_section<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.leaves.keys().filter_map(move |key| key.strip_prefix(name)?.strip_prefix('.'))
    }

    /// All keys, dotted, in alphabetical order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    /// The key most like a text, if any is like it. A text without its section is compared with the last parts of the keys as well.
    pub(super) fn nearest(&self, text: &str) -> Option<&str> {
        let likeness = |key: &str| {
            let whole = strsim::jaro_winkler(text, key);
            match key.rsplit_once('.') {
                Some((_, last)) if !text.contains('.') => whole.max(strsim::jaro_winkler(text, last)),
                _ => whole,
            }
        };
        self.iter()
            .map(|key| (likeness(key), key))
            .filter(|(like, _)| *like >= LIKE)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, key)| key)
    }
}

fn flatten(prefix: &str, dict: Dict, leaves: &mut BTreeMap<String, Value>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) => flatten(&key, inner, leaves),
            leaf => {
                leaves.insert(key, leaf);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_types() {
        let keys = Keys::new();
        assert!(keys.default_of("http.listen").is_some());
        assert!(keys.default_of("lbs.legacy_listen").is_some(), "a key that is off is a key");
        assert!(keys.default_of("http").is_none() && keys.is_section("http"));
        assert!(!keys.is_section("data"));
    }

    #[test]
    fn the_nearest_key_is_found_from_parts_and_misspellings() {
        let keys = Keys::new();
        for (text, nearest) in [
            ("http.lisen", Some("http.listen")),
            ("http_listen", Some("http.listen")),
            ("retention", Some("store.retention")),
            ("store.max_byte", Some("store.max_bytes")),
            ("dta", Some("data")),
            ("lbs.lisen", Some("lbs.listen")),
            ("weather", None),
        ] {
            assert_eq!(keys.nearest(text), nearest, "{text}");
        }
    }
}
