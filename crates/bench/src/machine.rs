//! What was measured on: figures of two machines are not compared without it.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine, as far as it says.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Kind of the file system under the data directory.
    pub filesystem: String,
    /// Load averages when the measurement began: above 0.5 others were at work.
    pub load: String,
}

impl Machine {
    /// This one; `data` lies where the platform's data will.
    pub fn this(data: &Path) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        Machine {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal").and_then(kib).unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/self/mounts"), &data).unwrap_or("unknown").to_owned(),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim())
}

fn kib(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse().ok()
}

/// The kind of the mount the path lies on: the deepest, of several on one point the last.
fn filesystem<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "none / rootfs rw 0 0\n/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /tmpfoo x rw 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/var/data")), Some("ext4"));
        assert_eq!(filesystem(mounts, Path::new("/tmp/data")), Some("tmpfs"));
        assert_eq!(filesystem("", Path::new("/tmp")), None);
    }

    #[test]
    fn fields_are_found() {
        assert_eq!(field("a\t: 1\nmodel name\t: Big One @ 3\n", "model name"), Some("Big One @ 3"));
        assert_eq!(field("MemTotal:   2048 kB\n", "MemTotal").and_then(kib), Some(2048));
    }
}
