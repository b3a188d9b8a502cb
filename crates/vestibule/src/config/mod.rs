//! Configuration: typed, layered, and complete before any port is bound.
//!
//! [`Config`] is what the rest of the program reads. It comes from [`load`], which lays four sources over each other: the defaults, the
//! file, the environment, the command line. Every limit of the platform has its one home in the section that owns it; the commented
//! `vestibule.toml` at the root of the repository is the reference, and a test keeps it equal to these types.

mod advertise;
mod capacity;
mod check;
mod das;
mod envelope_key;
mod file;
mod http;
mod keys;
mod lbs;
mod load;
mod log;
mod media;
mod mqtt;
mod problem;
mod registry;
mod store;
mod text;
mod tls;
mod webhooks;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use advertise::{Advertise, AdvertiseError};
pub use capacity::{Capacity, CapacityError};
pub use das::Das;
pub use envelope_key::{EnvelopeKey, KeyFrom};
pub use http::{Beside, Http};
pub use lbs::Lbs;
pub use load::{ConfigFile, Environment, Sources, load};
pub use log::Log;
pub use media::{Media, S3, Secret};
pub use mqtt::Mqtt;
pub use problem::{Origin, Problem, Problems};
pub use registry::Registry;
pub use store::{Store, StoreUrl};
pub use text::{duration_from_text, duration_text};
pub use tls::{Acme, Tls};
pub use webhooks::Webhooks;

/// Everything that can be set, with its default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory: databases, token, secrets. A relative path is relative to the working directory.
    pub data: PathBuf,
    /// HTTP API and console.
    pub http: Http,
    /// LBS: where devices authenticate.
    pub lbs: Lbs,
    /// DAS: where authenticated devices stay connected.
    pub das: Das,
    /// MQTT for applications.
    pub mqtt: Mqtt,
    /// Certificates of the listeners.
    pub tls: Tls,
    /// Databases and retention.
    pub store: Store,
    /// Pictures and files.
    pub media: Media,
    /// Log output.
    pub log: Log,
    /// The set of known devices.
    pub registry: Registry,
    /// Programs elsewhere that are told what devices report.
    pub webhooks: Webhooks,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("./data"),
            http: Http::default(),
            lbs: Lbs::default(),
            das: Das::default(),
            mqtt: Mqtt::default(),
            tls: Tls::default(),
            store: Store::default(),
            media: Media::default(),
            log: Log::default(),
            registry: Registry::default(),
            webhooks: Webhooks::default(),
        }
    }
}

impl Config {
    /// Where the administrator's token lies unless a command is told otherwise: `<data>/token`.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("token")
    }

    /// Where the roots lie that clients are to trust: `<data>/ca.pem`.
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("ca.pem")
    }
}

#[cfg(test)]
mod tests;
