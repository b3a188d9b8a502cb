//! How many file descriptors simulated devices take.

use anyhow::anyhow;

use crate::descriptors::{self, TooFew};

/// For everything besides the devices: requests, runtime, standard streams.
const REST: u64 = 160;
/// Descriptors of a device: its connection.
const PLAIN: u64 = 1;
/// And the two of the relay, where connections are to be interfered with.
const RELAYED: u64 = 3;
/// Where a device has a cache: its lock, the segment it writes, and one it reads or a directory it syncs.
const CACHED: u64 = 3;

/// Raises this process's limit as far as it takes.
///
/// # Errors
/// When it may not have so many.
pub(super) fn provide(devices: u32, relayed: bool, cached: bool) -> anyhow::Result<()> {
    let needed = needed(devices, relayed, cached);
    descriptors::raise(needed).map_err(|TooFew { most }| {
        let cable = if relayed { " whose connections are cut or silenced" } else { "" };
        anyhow!(
            "{devices} devices{cable} take {needed} file descriptors, and a process may have {most} here\n  \
             simulate fewer, or raise the limit (`ulimit -Hn`)"
        )
    })
}

fn needed(devices: u32, relayed: bool, cached: bool) -> u64 {
    REST + u64::from(devices) * (if relayed { RELAYED } else { PLAIN } + if cached { CACHED } else { 0 })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    use super::*;

    #[test]
    fn what_cannot_be_had_is_said_before_anything_is_done() {
        assert_eq!((needed(5_000, false, false), needed(5_000, true, false)), (5_160, 15_160));
        assert_eq!(needed(5_000, true, true), 30_160);
        assert!(provide(1, false, true).is_ok());
        if let Some(most) = getrlimit(Resource::Nofile).maximum.and_then(|most| u32::try_from(most).ok()) {
            let error = provide(most, true, false).expect_err("too many");
            assert!(error.to_string().contains("file descriptors"), "{error}");
        }
    }
}
