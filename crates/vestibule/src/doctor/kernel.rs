//! Limits of the kernel.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Finding, bytes};
use crate::config::Config;
use crate::{descriptors, memory};

/// As many connections as a listener asks the kernel to keep waiting.
const BACKLOG: u64 = 4_096;

pub(super) fn examine(config: &Config, platform: Option<u32>) -> Vec<Finding> {
    [Some(files(config, platform)), waiting(), room(config, platform)].into_iter().flatten().collect()
}

/// The platform raises its own limit as far as it may, so the hard one counts.
fn files(config: &Config, platform: Option<u32>) -> Finding {
    let needed = descriptors::needed(config);
    let (most, whose) = match platform.and_then(limit_of) {
        Some(limit) => (Some(limit), "the running platform"),
        None => (getrlimit(Resource::Nofile).maximum, "a process"),
    };
    match most {
        Some(most) if most < needed => Finding::doubtful(
            "descriptors",
            format!("{whose} may have {most} file descriptors, and full listeners take {needed}"),
            format!(
                "ulimit -Hn {needed} before the start, or LimitNOFILE={needed} in the systemd unit, or lower *.max_connections"
            ),
        ),
        Some(most) => Finding::good("descriptors", format!("{whose} may have {most}, full listeners take {needed}")),
        None => Finding::good("descriptors", "not limited"),
    }
}

/// The hard limit of another process.
fn limit_of(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn waiting() -> Option<Finding> {
    let most: u64 = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()?;
    Some(match most < BACKLOG {
        true => Finding::doubtful(
            "backlog",
            format!("{most} connections may wait to be accepted; devices that all come at once want {BACKLOG}"),
            format!("sysctl -w net.core.somaxconn={BACKLOG}"),
        ),
        false => Finding::good("backlog", format!("{most} connections may wait to be accepted")),
    })
}

/// A running platform has taken its part already.
fn room(config: &Config, platform: Option<u32>) -> Option<Finding> {
    let taken = platform.and_then(resident).unwrap_or(0);
    let (available, wanted) = (memory::available()?, memory::wanted(config));
    Some(match available + taken < wanted {
        true => Finding::doubtful(
            "memory",
            format!("{} available; a full platform may want {}", bytes(available + taken), bytes(wanted)),
            "give machine or container more memory, or lower das.max_connections or store.queue_bytes",
        ),
        false => Finding::good("memory", format!("{} available", bytes(available))),
    })
}

/// Bytes of memory that another process has.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_this_process_may_have_is_known() {
        assert_eq!(limit_of(std::process::id()), getrlimit(Resource::Nofile).maximum);
        assert_eq!(limit_of(u32::MAX), None);
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(resident(u32::MAX), None);
    }

    #[test]
    fn too_few_descriptors_come_with_the_number_that_is_enough() {
        let mut config = Config::default();
        config.http.max_connections = usize::MAX >> 1;
        let found = files(&config, None);
        if getrlimit(Resource::Nofile).maximum.is_some() {
            assert_eq!(found.verdict, Verdict::Doubtful);
            assert!(found.cure.expect("a cure").contains(&descriptors::needed(&config).to_string()));
        }
    }
}
