//! `[registry]`: the set of known devices.

use serde::{Deserialize, Serialize};

/// Limits of the registry.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Devices that may be registered; each costs memory while the platform runs.
    pub max_devices: usize,
}

impl Default for Registry {
    fn default() -> Self {
        Registry { max_devices: 100_000 }
    }
}
