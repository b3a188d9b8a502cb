//! A sign of life on a terminal for what takes over a second.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

const PATIENCE: Duration = Duration::from_secs(1);

/// Counts something; on a terminal, and only after a second, it shows.
pub(super) struct Progress {
    began: Instant,
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins counting `what`, a plural noun.
    pub(super) fn new(what: &'static str) -> Progress {
        Progress { began: Instant::now(), what, bar: None }
    }

    /// There are so many now.
    pub(super) fn reached(&mut self, count: usize) {
        let what = self.what;
        self.says(|| format!("{count} {what}"));
    }

    /// It has come so far, in other words.
    pub(super) fn says(&mut self, words: impl FnOnce() -> String) {
        if self.bar.is_none() && self.began.elapsed() >= PATIENCE {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(words());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
