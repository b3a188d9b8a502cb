//! The layers: defaults < file < environment < command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use figment::Figment;
use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::Value;
use zeroize::Zeroize as _;

use super::envelope_key::{EnvelopeKey, VARIABLE};
use super::file::{section_message, settings, unknown_message};
use super::keys::Keys;
use super::problem::{Origin, Problem, Problems};
use super::{Config, check};

const PREFIX: &str = "VESTIBULE_";

/// Variables with our prefix that are read elsewhere and hold no key.
const NOT_KEYS: [&str; 4] = ["URL", "TOKEN", "TOKEN_FILE", "ENVELOPE_KEY"];

/// Where the file layer comes from.
#[derive(Clone, Debug)]
pub enum ConfigFile {
    /// Named by the user: it must be there.
    Required(PathBuf),
    /// Read when it is there.
    IfPresent(PathBuf),
}

/// What the layers are made of. The process' own environment and arguments are passed in, never looked up.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The file.
    pub file: ConfigFile,
    /// All environment variables; those without our prefix are ignored.
    pub environment: Environment,
    /// `--set key=value`, in the order given.
    pub set: Vec<String>,
    /// `--data DIR`.
    pub data: Option<PathBuf>,
}

impl Default for Sources {
    /// `./vestibule.toml` when it is there, and nothing else.
    fn default() -> Self {
        Sources {
            file: ConfigFile::IfPresent(PathBuf::from("vestibule.toml")),
            environment: Environment::default(),
            set: Vec::new(),
            data: None,
        }
    }
}

impl Sources {
    /// Wipes the copy of the envelope key that is in the environment here.
    pub fn wipe(&mut self) {
        self.environment.wipe();
    }
}

/// Variables of the environment. The copy of the envelope key among them is wiped when dropped, and no value is printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    fn wipe(&mut self) {
        for (name, value) in &mut self.0 {
            if name == VARIABLE {
                std::mem::take(value).into_encoded_bytes().zeroize();
            }
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Environment {
        Environment(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// One value from one layer.
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Lays the sources over each other and checks the result.
///
/// # Errors
/// All problems of all layers at once, each with its place.
pub fn load(sources: &Sources) -> Result<Config, Problems> {
    let mut layers = Layers { keys: Keys::new(), settings: Vec::new(), problems: Vec::new(), envelope_key: None };
    layers.file(&sources.file);
    layers.environment(&sources.environment.0);
    layers.flags(&sources.set, sources.data.as_ref());
    layers.config()
}

struct Layers {
    keys: Keys,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
    envelope_key: Option<EnvelopeKey>,
}

impl Layers {
    fn file(&mut self, file: &ConfigFile) {
        let path = match file {
            ConfigFile::Required(path) | ConfigFile::IfPresent(path) => path,
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let read = settings(path, &text, &self.keys, &mut self.problems);
                self.settings.extend(read);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(file, ConfigFile::IfPresent(_)) => {}
            Err(error) => self.problems.push(Problem {
                origin: Origin::File { path: path.clone(), line: None },
                key: None,
                message: format!("cannot be read: {error}"),
            }),
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut ours: Vec<(&str, &OsString)> = variables
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value)))
            .filter(|(name, _)| name.strip_prefix(PREFIX).is_some_and(|rest| !is_foreign(rest)))
            .collect();
        ours.sort_unstable();
        if let Some((_, value)) = variables.iter().find(|(name, _)| name == VARIABLE) {
            match EnvelopeKey::take(value.clone()) {
                Ok(key) => self.envelope_key = Some(key),
                Err(error) => {
                    let origin = Origin::Environment(VARIABLE.to_owned());
                    self.problems.push(Problem { origin, key: None, message: error.to_string() });
                }
            }
        }
        for (name, value) in ours {
            let key = name[PREFIX.len()..].replace("__", ".").to_ascii_lowercase();
            let origin = Origin::Environment(name.to_owned());
            match value.to_str() {
                Some(value) => self.text(key, value, origin, variable_of),
                None => {
                    self.problems.push(Problem { origin, key: Some(key), message: "the value is not UTF-8".to_owned() })
                }
            }
        }
    }

    fn flags(&mut self, set: &[String], data: Option<&PathBuf>) {
        for assignment in set {
            match assignment.split_once('=') {
                Some((key, value)) => {
                    let key = key.trim().to_owned();
                    let origin = Origin::Flag(format!("--set {key}"));
                    self.text(key, value, origin, str::to_owned);
                }
                None => self.problems.push(Problem {
                    origin: Origin::Flag(format!("--set {assignment}")),
                    key: None,
                    message: "expected key=value, such as http.listen=127.0.0.1:0".to_owned(),
                }),
            }
        }
        if let Some(data) = data {
            let origin = Origin::Flag("--data".to_owned());
            match data.to_str() {
                Some(data) => self.text("data".to_owned(), data, origin, str::to_owned),
                None => self.problems.push(Problem { origin, key: None, message: "the path is not UTF-8".to_owned() }),
            }
        }
    }

    /// A value given as text takes the type of the key's default, so that `--set data=2024` is a path and `…=5` a number where one is due.
    /// `spell` writes a key the way this source does.
    fn text(&mut self, key: String, text: &str, origin: Origin, spell: fn(&str) -> String) {
        let Some(default) = self.keys.default_of(&key) else {
            let message = if self.keys.is_section(&key) {
                section_message(&self.keys, &key)
            } else {
                unknown_message(self.keys.nearest(&key).map(spell).as_deref())
            };
            self.problems.push(Problem { origin, key: Some(key), message });
            return;
        };
        let value = match default {
            Value::Num(..) => text.trim().parse().map_or_else(|_| Value::from(text), |number: i64| Value::from(number)),
            Value::Bool(..) => text.trim().parse().map_or_else(|_| Value::from(text), |truth: bool| Value::from(truth)),
            Value::Array(..) => {
                serde_json::from_str::<Vec<String>>(text).map_or_else(|_| Value::from(text), Value::from)
            }
            _ => Value::from(text),
        };
        self.settings.push(Setting { key, value, origin });
    }

    /// Extracts until nothing is wrong: each value that does not fit is reported and replaced by its default, so that the next one shows.
    fn config(mut self) -> Result<Config, Problems> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        let mut origins = BTreeMap::new();
        for Setting { key, value, origin } in self.settings {
            figment = figment.merge(Serialized::default(&key, value));
            origins.insert(key, origin);
        }
        let mut wrong = Vec::new();
        let config = loop {
            let error = match figment.extract::<Config>() {
                Ok(config) => break Some(config),
                Err(error) => error,
            };
            let key = error.path.join(".");
            let origin = origins.get(&key).cloned().unwrap_or(Origin::Default);
            let message = in_words(&error.kind);
            self.problems.push(Problem { origin, key: Some(key.clone()), message });
            match self.keys.default_of(&key) {
                Some(default) if !wrong.contains(&key) => figment = figment.merge(Serialized::default(&key, default)),
                _ => break None,
            }
            wrong.push(key);
        };
        let mut config = config;
        if let Some(config) = &mut config {
            config.store.envelope_key = self.envelope_key;
            // A rule over a value that was just replaced would judge what nobody wrote.
            for broken in check::rules(config)
                .into_iter()
                .filter(|rule| !rule.reads.iter().any(|key| wrong.iter().any(|w| w == key)))
            {
                let origin = origins.get(broken.key).cloned().unwrap_or(Origin::Default);
                self.problems.push(Problem { origin, key: Some(broken.key.to_owned()), message: broken.message });
            }
        }
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(Problems(self.problems)),
        }
    }
}

/// Whether a variable with our prefix belongs to somebody else: to the client commands, to the tests, or to Kubernetes, which gives every
/// container the addresses of all services and would take a service named `vestibule` for one.
fn is_foreign(rest: &str) -> bool {
    NOT_KEYS.contains(&rest)
        || rest.starts_with("TEST_")
        || rest == "PORT"
        || rest == "SERVICE_HOST"
        || rest.starts_with("SERVICE_PORT")
        || rest.strip_prefix("PORT_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn in_words(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let expected = match expected.as_str() {
                "usize" | "u64" | "u32" | "u16" => "a whole number",
                "a boolean" => "true or false",
                "a sequence" => "a list such as [\"program\", \"argument\"]",
                other => other,
            };
            format!("expected {expected}, found {found}")
        }
        other => other.to_string(),
    }
}
