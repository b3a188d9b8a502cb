//! The platform on one core, the load generator on another, so that neither disturbs the caches of the other and
//! "per core" means something.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// Which core does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// The load generator's.
    pub generator: usize,
    /// The platform's.
    pub server: usize,
}

impl Cores {
    /// The first two cores this process may use; `None` on a machine with a single one.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn pick() -> anyhow::Result<Option<Cores>> {
        let allowed = sched_getaffinity(None).context("the cores of this process are not known")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        Ok(cores.next().zip(cores.next()).map(|(generator, server)| Cores { generator, server }))
    }
}

/// Keeps the calling thread, and what it starts from now on, on this core.
///
/// # Errors
/// When the kernel refuses.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("the thread cannot be kept on core {core}"))
}
