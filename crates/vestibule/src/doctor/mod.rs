//! `vestibule admin doctor`: whether machine, data directory and listeners are fit for the platform, and what to do where
//! they are not.

mod certificates;
mod clock;
mod data;
mod disk;
mod holder;
mod kernel;
mod listeners;

use crate::config::Config;

/// How it stands with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but not as well, or not for long, or nobody knows.
    Doubtful,
    /// The platform cannot do its work so.
    Wrong,
}

impl Verdict {
    /// The word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Doubtful => "doubtful",
            Verdict::Wrong => "wrong",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, in a word or two.
    pub part: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, a sentence.
    pub words: String,
    /// What to do, where something is to be done.
    pub cure: Option<String>,
}

impl Finding {
    fn good(part: &'static str, words: impl Into<String>) -> Finding {
        Finding { part, verdict: Verdict::Good, words: words.into(), cure: None }
    }

    fn doubtful(part: &'static str, words: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding { part, verdict: Verdict::Doubtful, words: words.into(), cure: Some(cure.into()) }
    }

    fn wrong(part: &'static str, words: impl Into<String>, cure: impl Into<String>) -> Finding {
        Finding { part, verdict: Verdict::Wrong, words: words.into(), cure: Some(cure.into()) }
    }
}

/// Looks at everything; with `deep` at every page and row of the databases too, which may take long: `told` hears how far it
/// has come.
pub async fn examine(config: &Config, deep: bool, told: &mut dyn FnMut(String)) -> Vec<Finding> {
    let platform = holder::running(&config.data);
    let mut findings = kernel::examine(config, platform);
    findings.extend(disk::examine(config));
    findings.extend(data::examine(config, platform, deep, told).await);
    findings.extend(clock::examine(config));
    findings.extend(listeners::examine(config, platform));
    findings.extend(certificates::examine(config, platform));
    findings
}

/// A number of bytes for people.
fn bytes(count: u64) -> String {
    let mut amount = count as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if amount < 1_024.0 {
            return if unit == "bytes" { format!("{count} bytes") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1_024.0;
    }
    format!("{amount:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        assert_eq!((bytes(12), bytes(2_048), bytes(3 << 30)), ("12 bytes".into(), "2.0 KiB".into(), "3.0 GiB".into()));
    }
}
