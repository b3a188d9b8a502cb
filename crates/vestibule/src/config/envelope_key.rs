//! Where the key is from that secrets are sealed under: a file, the environment, a command, or the data directory.

mod command;

use std::ffi::OsString;
use std::fmt;

use anyhow::Context as _;
use zeroize::Zeroize as _;

use super::Store;

/// The variable that may hold the key.
pub(super) const VARIABLE: &str = "VESTIBULE_ENVELOPE_KEY";
const FILE: &str = "store.envelope_key_file";
const COMMAND: &str = "store.envelope_key_command";

/// A key out of the environment. It has no `Debug` that prints it.
#[derive(Clone)]
pub struct EnvelopeKey(vestibule_store::EnvelopeKey);

impl EnvelopeKey {
    /// Reads the value of the variable, which is wiped.
    pub(super) fn take(value: OsString) -> anyhow::Result<EnvelopeKey> {
        let mut bytes = value.into_encoded_bytes();
        let key = vestibule_store::EnvelopeKey::parse(&bytes, VARIABLE);
        bytes.zeroize();
        Ok(EnvelopeKey(key?))
    }
}

impl fmt::Debug for EnvelopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvelopeKey(..)")
    }
}

/// Where the key is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFrom {
    /// It is made in the data directory.
    Data,
    /// A file.
    File,
    /// The environment.
    Environment,
    /// A command.
    Command,
}

impl KeyFrom {
    /// The word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyFrom::Data => "data",
            KeyFrom::File => "file",
            KeyFrom::Environment => "environment",
            KeyFrom::Command => "command",
        }
    }
}

impl Store {
    /// Every place that is named for the key, by the name it is set with.
    pub(super) fn key_places(&self) -> Vec<&'static str> {
        let places = [
            (VARIABLE, self.envelope_key.is_some()),
            (FILE, self.envelope_key_file.is_some()),
            (COMMAND, !self.envelope_key_command.is_empty()),
        ];
        places.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect()
    }

    /// Where the key is from.
    pub fn key_from(&self) -> KeyFrom {
        match self.key_places().first() {
            Some(&VARIABLE) => KeyFrom::Environment,
            Some(&FILE) => KeyFrom::File,
            Some(_) => KeyFrom::Command,
            None => KeyFrom::Data,
        }
    }

    /// Gets the key from where it is; `None`: it is in the data directory. A command may take ten seconds.
    ///
    /// # Errors
    /// When it cannot be had, or is none.
    pub fn key(&self) -> anyhow::Result<Option<vestibule_store::EnvelopeKey>> {
        if let Some(key) = &self.envelope_key {
            return Ok(Some(key.0.clone()));
        }
        if let Some(file) = &self.envelope_key_file {
            return vestibule_store::EnvelopeKey::read(file).map(Some).context(FILE);
        }
        match self.envelope_key_command.split_first() {
            Some((program, arguments)) => command::ask(program, arguments).map(Some).context(COMMAND),
            None => Ok(None),
        }
    }
}
