//! User memory of another process.

use anyhow::Context as _;
use serde::Serialize;

/// What `/proc/PID/smaps_rollup` says, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident memory, shared pages divided by the number of processes that share them. What the kernel keeps for
    /// the process's sockets is not in it.
    pub pss_kib: u64,
    /// The part of it that no file stands behind: heap and stacks.
    pub anonymous_kib: u64,
}

impl Memory {
    /// Reads it for a process of this user.
    ///
    /// # Errors
    /// When the process has ended or the kernel does not tell.
    pub fn of(pid: u32) -> anyhow::Result<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .context("the platform's memory cannot be read")?;
        parse(&text).context("smaps_rollup is not understood")
    }
}

fn parse(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory { pss_kib: field("Pss")?, anonymous_kib: field("Pss_Anon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_read() {
        let text =
            "55ff-7ffe ---p 0 00:00 0 [rollup]\nRss:  900 kB\nPss:   791 kB\nPss_Dirty: 1 kB\nPss_Anon:  609 kB\n";
        assert_eq!(parse(text), Some(Memory { pss_kib: 791, anonymous_kib: 609 }));
        assert_eq!(parse("Pss: 791 kB\n"), None);
        assert_eq!(parse("Pss: many kB\nPss_Anon: 1 kB\n"), None);
    }
}
