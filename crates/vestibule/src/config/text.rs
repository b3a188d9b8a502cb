//! How values are written: one small module per notation, for `#[serde(with = …)]`.
//!
//! What is off, or left to the platform, is a word (`"off"`, `"auto"`, `"sqlite"`) and not an absent key: TOML has no null, and a layer
//! above must be able to take back what a layer below has set.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serializer};

use super::advertise::Advertise;
use super::capacity::{Capacity, bytes_from_text, bytes_text};
use super::media::Secret;
use super::store::StoreUrl;

/// An integer or a text, whichever the file holds.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

/// A socket address.
pub(super) mod listen {
    use std::net::SocketAddr;

    use super::*;

    pub(crate) fn parse<E: serde::de::Error>(text: &str) -> Result<SocketAddr, E> {
        text.parse().map_err(|_| {
            E::custom(format!("`{text}` is no address and port; write them as 127.0.0.1:8080 or [::1]:8080"))
        })
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
        parse(&String::deserialize(from)?)
    }

    pub(crate) fn serialize<S: Serializer>(address: &SocketAddr, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(address)
    }
}

/// A socket address, or `off`.
pub(super) mod listen_or_off {
    use std::net::SocketAddr;

    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "off" => Ok(None),
            text => listen::parse(text).map(Some),
        }
    }

    pub(crate) fn serialize<S: Serializer>(address: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
        match address {
            None => to.serialize_str("off"),
            Some(address) => to.collect_str(address),
        }
    }
}

/// A socket address, `off`, or `auto`.
pub(super) mod beside {
    use super::super::http::Beside;
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Beside, D::Error> {
        match String::deserialize(from)?.as_str() {
            "auto" => Ok(Beside::Auto),
            "off" => Ok(Beside::Off),
            text => listen::parse(text).map(Beside::At),
        }
    }

    pub(crate) fn serialize<S: Serializer>(beside: &Beside, to: S) -> Result<S::Ok, S::Error> {
        match beside {
            Beside::Auto => to.serialize_str("auto"),
            Beside::Off => to.serialize_str("off"),
            Beside::At(address) => to.collect_str(address),
        }
    }
}

/// Hosts and addresses with commas between them, or `none`.
pub(super) mod names {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        let text = String::deserialize(from)?;
        if text == "none" {
            return Ok(Vec::new());
        }
        let name = |part: &str| match part.trim() {
            part if vestibule_tls::is_name(part) => Ok(part.to_owned()),
            part => Err(D::Error::custom(format!("`{part}` is neither a host name nor an address; or write none"))),
        };
        text.split(',').map(name).collect()
    }

    pub(crate) fn serialize<S: Serializer>(names: &[String], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }
}

/// A host, or host and port, or `auto`.
pub(super) mod advertise_or_auto {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Advertise>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "auto" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }

    pub(crate) fn serialize<S: Serializer>(told: &Option<Advertise>, to: S) -> Result<S::Ok, S::Error> {
        match told {
            None => to.serialize_str("auto"),
            Some(told) => to.collect_str(told),
        }
    }
}

/// A host, or host and port, or `off`.
pub(super) mod host_or_off {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Advertise>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "off" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }

    pub(crate) fn serialize<S: Serializer>(host: &Option<Advertise>, to: S) -> Result<S::Ok, S::Error> {
        match host {
            None => to.serialize_str("off"),
            Some(host) => to.collect_str(host),
        }
    }
}

/// A database address, or `sqlite`. The text never appears in a message: it may hold a password.
pub(super) mod store_url {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StoreUrl>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "sqlite" => Ok(None),
            text => StoreUrl::new(text).map(Some).ok_or_else(|| {
                D::Error::custom("expected \"sqlite\" or an address such as postgres://user@host/database")
            }),
        }
    }

    pub(crate) fn serialize<S: Serializer>(url: &Option<StoreUrl>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(url.as_ref().map_or("sqlite", |_| "postgres://…"))
    }
}

/// An amount of storage, absolute or as a share.
pub(super) mod capacity {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Capacity, D::Error> {
        match NumberOrText::deserialize(from).map_err(|_| D::Error::custom(super::super::capacity::CapacityError))? {
            NumberOrText::Number(bytes) => bytes.to_string().parse(),
            NumberOrText::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }

    pub(crate) fn serialize<S: Serializer>(capacity: &Capacity, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(capacity)
    }
}

/// A number of bytes: `128KiB`, or a bare number.
pub(super) mod bytes {
    use super::*;

    const EXPECTED: &str = "expected a size such as \"128KiB\" or a number of bytes";

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        let bytes = match NumberOrText::deserialize(from).map_err(|_| D::Error::custom(EXPECTED))? {
            NumberOrText::Number(bytes) => Some(bytes),
            NumberOrText::Text(text) => bytes_from_text(&text),
        };
        bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| D::Error::custom(EXPECTED))
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes_text(*bytes as u64))
    }
}

/// A file, or `none`.
pub(super) mod file_or_none {
    use std::path::PathBuf;

    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "none" => Ok(None),
            "" => Err(D::Error::custom("expected the path of a file, or none")),
            path => Ok(Some(path.into())),
        }
    }

    pub(crate) fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        match path {
            None => to.serialize_str("none"),
            Some(path) => to.collect_str(&path.display()),
        }
    }
}

/// A text, or a word that stands for its absence.
macro_rules! text_or {
    ($name:ident, $word:literal, $doc:literal) => {
        #[doc = $doc]
        pub(super) mod $name {
            use super::*;

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
                match String::deserialize(from)? {
                    text if text == $word => Ok(None),
                    text if text.is_empty() => Err(D::Error::custom(concat!("expected a text, or ", $word))),
                    text => Ok(Some(text)),
                }
            }

            pub(crate) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(text.as_deref().unwrap_or($word))
            }
        }
    };
}

text_or!(text_or_none, "none", "A text, or `none`.");
text_or!(text_or_auto, "auto", "A text, or `auto`.");

/// A secret, or `none`. It never appears in a message.
pub(super) mod secret_or_none {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
        match NumberOrText::deserialize(from) {
            Ok(NumberOrText::Text(text)) if text == "none" => Ok(None),
            Ok(NumberOrText::Text(text)) if !text.is_empty() => Ok(Some(Secret::new(text))),
            _ => Err(D::Error::custom("expected a secret in quotes, or none")),
        }
    }

    pub(crate) fn serialize<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.as_ref().map_or("none", |_| "…"))
    }
}

/// Networks with commas between them, or `none`.
pub(super) mod networks {
    use vestibule_api::Network;

    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Network>, D::Error> {
        let text = String::deserialize(from)?;
        if text == "none" {
            return Ok(Vec::new());
        }
        let network = |part: &str| {
            let part = part.trim();
            part.parse().map_err(|error| D::Error::custom(format!("`{part}`: {error}; or write none")))
        };
        text.split(',').map(network).collect()
    }

    pub(crate) fn serialize<S: Serializer>(networks: &[Network], to: S) -> Result<S::Ok, S::Error> {
        if networks.is_empty() {
            return to.serialize_str("none");
        }
        let texts: Vec<String> = networks.iter().map(Network::to_string).collect();
        to.serialize_str(&texts.join(", "))
    }
}

/// A length of time: `30d`, `15m`, `2ms`, `1h 30m`.
pub(super) mod duration {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        duration_from_text(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&duration_text(*duration))
    }
}

/// Reads a length of time as people write it: `30d`, `15m`, `2ms`, `1h 30m`. A day has 24 hours; months and years have no fixed length
/// and are refused.
///
/// # Errors
/// A sentence that shows the notation.
pub fn duration_from_text(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration: SignedDuration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("`{text}` is no length of time; write it as 30d, 12h, 15m, 10s or 2ms"))
}

/// The shortest exact text of a length of time; below a millisecond it is cut off.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, size)| ms != 0 && ms.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", ms / size),
        None => format!("{ms}ms"),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A log filter: a comma-separated list of levels and `target=level` pairs. A misspelt level would otherwise pass as the name of a target
/// and switch the log off.
pub(super) fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    for part in text.split(',') {
        let level = part.split_once('=').map_or(part, |(_, level)| level).trim();
        if !LEVELS.contains(&level) {
            let levels = LEVELS.join(", ");
            return Err(D::Error::custom(format!("`{level}` is no level; the levels are {levels}")));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, seconds) in [("30d", 2_592_000), ("15m", 900), ("1h 30m", 5_400), ("2w", 1_209_600), ("90s", 90)] {
            assert_eq!(duration_from_text(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration_from_text("2ms"), Ok(Duration::from_millis(2)));
        for text in ["", "30", "-5m", "1 month", "soon"] {
            assert!(duration_from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_of_a_length_of_time_reads_back() {
        for ms in [0, 2, 1_500, 30_000, 900_000, 5_400_000, 86_400_000, 2_592_000_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(duration_from_text(&duration_text(duration)), Ok(duration));
        }
        assert_eq!(duration_text(Duration::from_secs(2_592_000)), "30d");
    }
}
