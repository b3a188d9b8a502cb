//! Memory: how much a full platform may want, and how much there is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// What a platform needs besides its connections.
const BASE: u64 = 256 << 20;
/// What a connected device may need, with its twin.
const DEVICE: u64 = 16 << 10;

/// As many bytes as a platform may take whose listeners and queues are full. Who has not logged in takes the place of a device
/// that has: a handshake needs no more.
pub(crate) fn wanted(config: &Config) -> u64 {
    let devices = if config.das.is_on() { config.das.max_connections as u64 } else { 0 };
    BASE + devices * DEVICE + config.store.queue_bytes as u64
}

/// Bytes that this process may still take: what the machine has left, or less where a control group (a container, a unit
/// of systemd) allows less. `None` where the system does not tell.
pub(crate) fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

/// The same of a system whose files lie below `root`.
fn available_below(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.split_whitespace().next()?.parse::<u64>().ok()? << 10;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let rooms = groups.lines().filter_map(|line| Group::of(line, root)).filter_map(|group| group.room());
    Some(rooms.fold(machine, u64::min))
}

/// A control group that this process is in.
struct Group {
    /// Where its hierarchy is mounted.
    mount: PathBuf,
    path: PathBuf,
    names: &'static Names,
}

/// The files of a version of control groups.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with what the kernel takes back before it ends a process.
    inactive: &'static str,
}

const V1: Names =
    Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", inactive: "total_inactive_file " };
const V2: Names = Names { limit: "memory.max", used: "memory.current", inactive: "inactive_file " };

impl Group {
    /// From a line of `/proc/self/cgroup`, when it is about memory.
    fn of(line: &str, root: &Path) -> Option<Group> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (mount, names) = match (number, controllers) {
            ("0", "") => ("sys/fs/cgroup", &V2),
            (_, list) if list.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", &V1),
            _ => return None,
        };
        Some(Group { mount: root.join(mount), path: path.trim_start_matches('/').into(), names })
    }

    /// What it and those it is in leave. Seen from within a container its own path may not be there; the mount is.
    fn room(&self) -> Option<u64> {
        self.path.ancestors().filter_map(|path| room(&self.mount.join(path), self.names)).min()
    }
}

fn room(dir: &Path, names: &Names) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    // Without a limit it says "max", or a number above all memory.
    let limit = number(names.limit)?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let inactive = stat.lines().find_map(|line| line.strip_prefix(names.inactive)?.trim().parse::<u64>().ok());
    let used = number(names.used)?.saturating_sub(inactive.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in [("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn a_machine_without_control_groups_has_what_is_available() {
        assert_eq!(available_below(system(&[]).path()), Some(4_000 << 10));
        assert_eq!(available_below(system(&[("proc/self/cgroup", "0::/\n")]).path()), Some(4_000 << 10));
        assert_eq!(available_below(Path::new("/nowhere")), None);
        assert!(available().is_some_and(|bytes| bytes > 0), "this machine tells");
    }

    #[test]
    fn the_tightest_of_the_groups_counts() {
        let unlimited = [
            ("proc/self/cgroup", "0::/system.slice/vestibule.service\n"),
            ("sys/fs/cgroup/system.slice/vestibule.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/vestibule.service/memory.current", "1000\n"),
        ];
        assert_eq!(available_below(system(&unlimited).path()), Some(4_000 << 10));
        let above = [
            ("sys/fs/cgroup/system.slice/memory.max", "900000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "500000\n"),
            ("sys/fs/cgroup/system.slice/memory.stat", "anon 100\ninactive_file 100000\n"),
        ];
        assert_eq!(available_below(system(&[&unlimited[..], &above[..]].concat()).path()), Some(500_000));
    }

    #[test]
    fn groups_of_the_first_version_count_as_well() {
        let files = [
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n"),
            ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "70000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "100000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "120000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 30000\n"),
        ];
        assert_eq!(available_below(system(&files).path()), Some(10_000));
    }
}
