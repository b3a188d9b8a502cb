//! File descriptors: each connection takes one, and processes may have few.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For everything besides the devices: requests, runtime, standard streams.
const REST: u64 = 160;
/// Descriptors of a device: its connection.
const PLAIN: u64 = 1;
/// And the two of the relay, where connections are to be interfered with.
const RELAYED: u64 = 3;

/// Raises this process's limit as far as it takes.
///
/// # Errors
/// When it may not have so many.
pub(super) fn provide(devices: u32, relayed: bool) -> anyhow::Result<()> {
    let needed = needed(devices, relayed);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(most) = limit.maximum.filter(|most| *most < needed) {
        let cable = if relayed { " whose connections are cut or silenced" } else { "" };
        bail!(
            "{devices} devices{cable} take {needed} file descriptors, and a process may have {most} here\n  \
             simulate fewer, or raise the limit (`ulimit -Hn`)"
        );
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum }) {
        Ok(()) => Ok(()),
        Err(error) => bail!("{needed} file descriptors are needed, and the limit cannot be raised: {error}"),
    }
}

fn needed(devices: u32, relayed: bool) -> u64 {
    REST + u64::from(devices) * if relayed { RELAYED } else { PLAIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said_before_anything_is_done() {
        assert_eq!((needed(5_000, false), needed(5_000, true)), (5_160, 15_160));
        assert!(provide(1, false).is_ok());
        if let Some(most) = getrlimit(Resource::Nofile).maximum.and_then(|most| u32::try_from(most).ok()) {
            let error = provide(most, true).expect_err("too many");
            assert!(error.to_string().contains("file descriptors"), "{error}");
        }
    }
}
