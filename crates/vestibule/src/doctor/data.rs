//! The data directory: who may read it, and whether its databases are whole.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use vestibule_store::{
    EnvelopeKey, Flaw, check_database, check_segment, control_database, newest_segment, recorded_key, segments,
};

use super::{Finding, bytes};
use crate::config::Config;

const SALVAGED: &str = "look at the disk; the platform sets a damaged segment of the journal aside by itself, when it starts or reads \
                        it, and keeps every row that is readable";

pub(super) async fn examine(
    config: &Config,
    platform: Option<u32>,
    deep: bool,
    told: &mut dyn FnMut(String),
) -> Vec<Finding> {
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
    findings.extend(private(&data.join("token")));
    findings.extend(envelope_key(config).await);
    findings.extend(if deep { content(data, platform.is_some(), told).await } else { structure(data).await });
    findings
}

/// The key that secrets are sealed under: where it is from, and whether it is the one.
async fn envelope_key(config: &Config) -> Vec<Finding> {
    const BACK: &str = "bring the right one back from where it is kept";
    // What lies here of a registry that is elsewhere by now says nothing.
    let recorded = if config.store.url.is_none() { recorded_key(&config.data).await } else { None };
    let (kept, next) = (config.data.join("keys/envelope.key"), config.data.join("keys/envelope.key.new"));
    let from = config.store.key_from();
    let mut findings = Vec::new();
    let key = match config.store.key() {
        Ok(Some(key)) => {
            if kept.exists() {
                let words = format!("{} is there, and the key is from elsewhere ({})", kept.display(), from.as_str());
                let cure = "move it to where older keys are kept, for the backups of before, or remove it";
                findings.push(Finding::doubtful("secrets", words, cure));
            }
            key
        }
        Ok(None) => {
            if let Some(exposed) = private(&kept) {
                return vec![exposed];
            }
            if !kept.exists() && !next.exists() {
                let words = "keys/envelope.key is missing: what is sealed under it cannot be read";
                return vec![Finding::wrong("secrets", words, "bring the file back from where it is kept")];
            }
            let is_it = |key: &EnvelopeKey| recorded.as_ref().is_none_or(|recorded| *recorded == key.id());
            match (EnvelopeKey::read(&kept), EnvelopeKey::read(&next)) {
                (Ok(key), _) if is_it(&key) => key,
                (_, Ok(next)) if is_it(&next) => {
                    let words = "an exchange of the key was cut short after its end: the next start tidies up";
                    return vec![Finding::good("secrets", words)];
                }
                (Ok(key), _) | (Err(_), Ok(key)) => key,
                (Err(error), Err(_)) => return vec![Finding::wrong("secrets", error.to_string(), BACK)],
            }
        }
        Err(error) => {
            let cure = "see that whoever the platform runs as can have it";
            return vec![Finding::wrong("secrets", format!("the envelope key cannot be had: {error:#}"), cure)];
        }
    };
    let (id, origin) = (key.id(), key.origin());
    findings.push(match recorded {
        Some(needed) if needed != id => {
            let words = format!("the envelope key from {origin} is {id}, and the secrets are sealed under {needed}");
            Finding::wrong("secrets", words, BACK)
        }
        Some(_) => Finding::good("secrets", format!("sealed under the key {id} from {origin} ({})", from.as_str())),
        None if config.store.url.is_some() => Finding::good(
            "secrets",
            format!(
                "the envelope key from {origin} ({}) is {id}; not checked: the registry is in PostgreSQL",
                from.as_str()
            ),
        ),
        // A database that nobody can read, which is said elsewhere.
        None => Finding::good("secrets", format!("the envelope key from {origin} ({}) is {id}", from.as_str())),
    });
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

/// Reads the registry and the newest segment, as the database does.
async fn structure(data: &Path) -> Vec<Finding> {
    let (control, newest, all) = (control_database(data), newest_segment(data), segments(data).len());
    let mut findings = Vec::new();
    if let Some(control) = &control {
        findings.extend(registry(control, false).await);
    }
    if let Some(newest) = &newest
        && let Err(words) = check_database(newest, false).await
    {
        findings.push(Finding::wrong("databases", format!("{} is damaged: {words}", newest.display()), SALVAGED));
    }
    if findings.is_empty() {
        let read = usize::from(control.is_some()) + usize::from(newest.is_some());
        let older = all.saturating_sub(1);
        let words = format!(
            "{read} read, whole in structure; not looked at: {older} older segments of the journal, what is in the \
             rows, the seals. --deep does"
        );
        findings.push(Finding::good("databases", words));
    }
    findings
}

/// Reads everything, each page and each row.
async fn content(data: &Path, running: bool, told: &mut dyn FnMut(String)) -> Vec<Finding> {
    let control = control_database(data);
    let mut findings = Vec::new();
    if let Some(control) = &control {
        told("the registry".to_owned());
        findings.extend(registry(control, true).await);
    }
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let segments = segments(data);
    let whole: u64 = segments.iter().map(|segment| size(segment)).sum();
    let (mut done, mut records) = (0, 0);
    for (index, segment) in segments.iter().enumerate() {
        told(format!("segment {} of {}, {} of {}", index + 1, segments.len(), bytes(done), bytes(whole)));
        done += size(segment);
        match check_segment(segment, running).await {
            Ok(checked) => {
                records += checked.records;
                findings.extend(checked.flaw.map(|flaw| damaged(flaw, checked.records)));
            }
            Err(words) => {
                let words = format!("{} cannot be looked at: {words}", segment.display());
                findings.push(Finding::wrong("databases", words, "see that it can be read"));
            }
        }
    }
    if findings.is_empty() {
        let registry = if control.is_some() { "the registry and " } else { "" };
        let words = format!(
            "{registry}{} segments of the journal read to the last byte: {records} records, each as it was written",
            segments.len()
        );
        findings.push(Finding::good("databases", words));
    }
    findings
}

async fn registry(control: &Path, deep: bool) -> Option<Finding> {
    let words = check_database(control, deep).await.err()?;
    Some(Finding::wrong("databases", format!("{} is damaged: {words}", control.display()), "restore a backup"))
}

fn damaged(flaw: Flaw, readable: u64) -> Finding {
    let Flaw { file, offset, what, lost } = flaw;
    let at = offset.map_or(String::new(), |offset| format!(" at byte {offset}"));
    let lost = lost.map_or("an unknown number".to_owned(), |lost| lost.to_string());
    let words = format!("{} is damaged{at}: {what}; {readable} records are readable, {lost} are lost", file.display());
    Finding::wrong("databases", words, SALVAGED)
}

#[cfg(test)]
mod tests {
    use vestibule_store::{DeviceId, DevicePath, Flags, Position, Record, RecordKind, Store, StoreConfig};

    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_no_fault() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { data: dir.path().join("data"), ..Config::default() };
        let found = examine(&config, None, false, &mut |_| {}).await;
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Good));
        fs::create_dir_all(config.data.join("restoring")).expect("writable");
        assert_eq!(examine(&config, None, false, &mut |_| {}).await[0].verdict, Verdict::Wrong);
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
        let found = examine(&config, None, false, &mut |_| {}).await;
        let wrong: Vec<_> =
            found.iter().filter(|found| found.verdict == Verdict::Wrong).map(|found| found.part).collect();
        assert_eq!(wrong, ["secrets", "secrets", "databases"], "{found:?}");
    }

    #[tokio::test]
    async fn what_lies_here_of_a_registry_that_is_elsewhere_by_now_says_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config { data: dir.path().to_owned(), ..Config::default() };
        Store::open(StoreConfig::new(dir.path())).await.expect("a store").close().await;
        fs::write(dir.path().join("keys/envelope.key"), [0xa5; 32]).expect("writable");
        let verdict = async |config: &Config| {
            let found = envelope_key(config).await.remove(0);
            (found.verdict, format!("{found:?}").contains("not checked"))
        };
        assert_eq!(verdict(&config).await, (Verdict::Wrong, false));
        config.store.url = crate::config::StoreUrl::new("postgres://localhost/registry");
        assert_eq!(verdict(&config).await, (Verdict::Good, true));
    }

    #[tokio::test]
    async fn what_is_looked_at_is_said_and_a_damaged_segment_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { data: dir.path().to_owned(), ..Config::default() };
        let store =
            Store::open(StoreConfig { segment_rows: 5, ..StoreConfig::new(dir.path()) }).await.expect("a store");
        let path = DevicePath { resource: "r".into(), index: "0".into(), area: "a".into(), name: "n".into() };
        let record = Record {
            position: Position::START,
            device: DeviceId::mint(),
            serial: "S".into(),
            kind: RecordKind::Event,
            path: path.into(),
            id: None,
            time: 0,
            received: 0,
            flags: Flags::NONE,
            data: "1".into(),
        };
        let last = (0..8).fold(Position::START, |_, _| store.journal.append(record.clone()));
        store.journal.watch_durable().wait_for(|durable| *durable >= last).await.expect("durable");
        store.close().await;
        let databases = async |deep: bool| {
            let mut told = Vec::new();
            let found = examine(&config, None, deep, &mut |words| told.push(words)).await;
            (found.into_iter().filter(|found| found.part == "databases").collect::<Vec<_>>(), told)
        };
        let (found, _) = databases(false).await;
        assert!(found[0].words.contains("not looked at: 1 older segments"), "{found:?}");
        let (found, told) = databases(true).await;
        assert!(found[0].words.contains("2 segments") && found[0].words.contains("8 records"), "{found:?}");
        assert!(told.iter().any(|words| words.starts_with("segment 2 of 2")), "{told:?}");

        let oldest = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&oldest).expect("readable");
        bytes[5 * 4_096 + 2_000..6 * 4_096].fill(0);
        fs::write(&oldest, bytes).expect("writable");
        assert_eq!(databases(false).await.0[0].verdict, Verdict::Good, "the newest is whole");
        let (found, _) = databases(true).await;
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Wrong), "{found:?}");
        assert!(found[0].words.contains("at byte 20480: a page is not what was written"), "{found:?}");
        assert!(found[0].words.contains("0 records are readable, 5 are lost"), "{found:?}");
    }
}
