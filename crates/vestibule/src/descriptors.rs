//! File descriptors: each connection takes one, and processes may have few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// For databases, the runtime for HTTP, and standard streams.
const REST: u64 = 512;

/// A process may not have as many as it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFew {
    /// How many it may have at most.
    pub(crate) most: u64,
}

/// As many as a platform takes whose listeners are full.
pub(crate) fn needed(config: &Config) -> u64 {
    let full = |is_on: bool, connections: usize| if is_on { connections as u64 } else { 0 };
    REST + runtimes(config)
        + full(true, config.http.max_connections)
        + [config.lbs.listen, config.lbs.plain_listen, config.lbs.legacy_listen]
            .iter()
            .map(|listen| full(listen.is_some(), config.lbs.max_connections))
            .sum::<u64>()
        // The same devices, by whichever they come.
        + full(config.das.is_on(), config.das.max_connections)
        + full(config.mqtt.listen.is_some(), config.mqtt.max_connections)
        + full(config.mqtt.tls_listen.is_some(), config.mqtt.max_connections)
}

/// What the threads for devices take, of which each core has one for MQTT and one for the LBS: three for what a runtime waits with,
/// and two for each listener, a socket and one that is kept for when there are none.
fn runtimes(config: &Config) -> u64 {
    let lbs = [config.lbs.listen, config.lbs.plain_listen, config.lbs.legacy_listen];
    let das = [config.das.listen, config.das.plain_listen, config.das.legacy_listen];
    let listeners = lbs.iter().chain(&das).chain(&[config.mqtt.listen, config.mqtt.tls_listen]).flatten().count();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores * (2 * 3 + 2 * listeners)) as u64
}

/// Raises this process's limit to what is needed, or as far as it may.
pub(crate) fn raise(needed: u64) -> Result<(), TooFew> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limit.maximum.map_or(needed, |most| most.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    match raised {
        Ok(()) if most >= needed => Ok(()),
        Ok(()) => Err(TooFew { most }),
        Err(_) => Err(TooFew { most: limit.current.unwrap_or(0) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_needs_one_for_each_connection_of_what_is_on() {
        let mut config = Config::default();
        (config.lbs.listen, config.das.listen) = (None, None);
        let off = needed(&config);
        assert_eq!(off, REST + runtimes(&config) + config.http.max_connections as u64);
        let none = runtimes(&config);
        config.das.legacy_listen = Some(([127, 0, 0, 1], 0).into());
        let cores = std::thread::available_parallelism().expect("told").get() as u64;
        assert_eq!(runtimes(&config), none + 2 * cores);
        assert_eq!(needed(&config), off + 2 * cores + config.das.max_connections as u64);
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        assert_eq!(raise(1), Ok(()));
        if let Some(most) = getrlimit(Resource::Nofile).maximum {
            assert_eq!(raise(u64::MAX), Err(TooFew { most }));
        }
    }
}
