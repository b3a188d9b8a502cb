//! The data directory: whose it is, who may read it, and whether its databases are whole.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use vestibule_store::{check_database, databases};

use super::Finding;
use crate::config::Config;

/// The process that has the directory, if one runs that says so. Looked up, not tried: a platform that starts in this
/// moment must not find the lock taken.
pub(super) fn running(data: &Path) -> Option<u32> {
    let path = data.join("LOCK");
    let pid: u32 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let file = format!(":{}", fs::metadata(&path).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holds = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"FLOCK")
            && words.contains(&pid.to_string().as_str())
            && words.iter().any(|word| word.ends_with(&file))
    };
    locks.lines().any(holds).then_some(pid)
}

pub(super) async fn examine(config: &Config, platform: Option<u32>, deep: bool) -> Vec<Finding> {
    let data = &config.data;
    if data.join("restoring").exists() {
        let words = format!("{} was restored in part only", data.display());
        return vec![Finding::wrong("data", words, "empty it and restore the backup again")];
    }
    if !data.join("VERSION").exists() {
        return vec![Finding::good("data", format!("{} will be made when the platform starts", data.display()))];
    }
    let user = match platform {
        Some(pid) => format!("{}, in use by process {pid}", data.display()),
        None => format!("{}, in use by nobody", data.display()),
    };
    let mut findings = vec![Finding::good("data", user)];
    findings.extend(["keys/envelope.key", "token"].into_iter().filter_map(|name| private(&data.join(name))));
    if !data.join("keys/envelope.key").exists() {
        let words = "keys/envelope.key is missing: what is sealed under it cannot be read";
        findings.push(Finding::wrong("secrets", words, "bring the file back from where it is kept"));
    }
    findings.extend(whole(data, deep).await);
    findings
}

/// A file that only its owner may read.
fn private(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let words = format!("{} may be read by others (mode {mode:o})", path.display());
        Finding::wrong("secrets", words, format!("chmod 600 {}, and take what it holds for known", path.display()))
    })
}

/// Reads the databases: the registry and the newest segment, or all.
async fn whole(data: &Path, deep: bool) -> Vec<Finding> {
    let mut files = databases(data);
    let all = files.len();
    if !deep {
        // The registry comes first, the newest segment last.
        let newest = files.split_off(all.saturating_sub(1).max(1).min(all));
        files.truncate(1);
        files.extend(newest);
    }
    let mut findings = Vec::new();
    for file in &files {
        if let Err(words) = check_database(file).await {
            findings.push(Finding::wrong(
                "databases",
                format!("{} is damaged: {words}", file.display()),
                "restore a backup; the platform sets a damaged segment of the journal aside by itself",
            ));
        }
    }
    if findings.is_empty() {
        let rest = if deep || all == files.len() { "" } else { "; --deep reads all" };
        findings.push(Finding::good("databases", format!("{} of {all} read, whole in structure{rest}", files.len())));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_no_fault() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { data: dir.path().join("data"), ..Config::default() };
        let found = examine(&config, None, false).await;
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Good));
        fs::create_dir_all(config.data.join("restoring")).expect("writable");
        assert_eq!(examine(&config, None, false).await[0].verdict, Verdict::Wrong);
    }

    #[tokio::test]
    async fn what_others_may_read_and_what_is_no_database_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { data: dir.path().to_owned(), ..Config::default() };
        for (name, content) in
            [("VERSION", "1\n"), ("token", "x"), ("control.db", "this is no database at all, whatever its name says")]
        {
            fs::write(dir.path().join(name), content).expect("writable");
        }
        fs::set_permissions(dir.path().join("token"), fs::Permissions::from_mode(0o644)).expect("ours");
        let found = examine(&config, None, false).await;
        let wrong: Vec<_> =
            found.iter().filter(|found| found.verdict == Verdict::Wrong).map(|found| found.part).collect();
        assert_eq!(wrong, ["secrets", "secrets", "databases"], "{found:?}");
    }
}
