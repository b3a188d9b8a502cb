//! A process that is killed: whatever it said is durable is there.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use vestibule_store::{Position, Store, StoreConfig};

use crate::bed::{Backend, Bed, NOON, commit, everything};

const DIR: &str = "VESTIBULE_TEST_KILL_DIR";
const URL: &str = "VESTIBULE_TEST_KILL_URL";

#[test]
fn what_was_durable_on_sqlite_survives_kill_9() {
    survives("kill::what_was_durable_on_sqlite_survives_kill_9", Backend::Sqlite);
}

#[test]
fn what_was_durable_on_postgres_survives_kill_9() {
    survives("kill::what_was_durable_on_postgres_survives_kill_9", Backend::Postgres);
}

/// The test runs itself again as the process to be killed.
fn survives(name: &str, backend: Backend) {
    if let Some(dir) = std::env::var_os(DIR) {
        let mut config = StoreConfig::new(dir);
        config.url = std::env::var(URL).ok();
        config.now = std::sync::Arc::new(|| NOON);
        // Death also comes between the end of one segment and the seal on it.
        config.segment_rows = 100;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(victim(config));
        return;
    }
    crate::bed::run(backend, async |bed: Bed| {
        let mut seen: HashSet<String> = HashSet::new();
        for round in 0..3 {
            let said = life_and_death(name, &bed, 20 + 30 * round);
            let store = bed.open().await;
            let all = everything(&store.journal).await;
            let stored: HashSet<String> =
                all.iter().filter_map(|record| Some(record.id.as_deref()?.to_owned())).collect();
            let lost: Vec<&String> = said.iter().chain(&seen).filter(|id| !stored.contains(*id)).collect();
            assert!(lost.is_empty(), "round {round}: of {} acknowledged, lost {lost:?}", said.len());
            assert_eq!(all.len(), stored.len(), "an id is there twice");
            assert!(all.is_sorted_by(|a, b| a.position < b.position));
            // No position is given twice.
            let last = all.last().map_or(Position::START, |record| record.position);
            let next = commit(&store.journal, [bed.event(all[0].device, &format!("after {round}"))]).await;
            assert!(next[0] > last);
            seen.extend(stored);
            store.close().await;
            if bed.url.is_some() {
                // Neither side of the copy was killed at a good moment, and closing copied the rest.
                let copied: Vec<String> = sqlx::query_scalar("SELECT event_id FROM journal_record ORDER BY position")
                    .fetch_all(&mut bed.pg().await)
                    .await
                    .unwrap();
                let stored = all.iter().filter_map(|record| Some(record.id.as_deref()?.to_owned()));
                assert_eq!(copied, stored.chain([format!("after {round}")]).collect::<Vec<_>>(), "round {round}");
            }
        }
    });
}

/// Lets the victim live until it has said this much, kills it, and returns the ids it said were durable.
fn life_and_death(name: &str, bed: &Bed, lines: usize) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(DIR, bed.dir()).stdout(Stdio::piped());
    if let Some(url) = &bed.url {
        command.env(URL, url);
    }
    let mut child = command.spawn().unwrap();
    let mut said = Vec::new();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = 0;
    while read < lines {
        let line = output.next().expect("the victim ended by itself").unwrap();
        if let Some(ids) = line.strip_prefix("durable ") {
            said.extend(ids.split(' ').map(str::to_owned));
            read += 1;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died counts too, as far as the line is whole.
    for line in output.map_while(Result::ok) {
        if let Some(ids) = line.strip_prefix("durable ").and_then(|ids| ids.strip_suffix(" .")) {
            said.extend(ids.split(' ').map(str::to_owned));
        }
    }
    said.retain(|id| id != ".");
    said
}

/// Appends from several threads for ever, and says which events are durable.
async fn victim(config: StoreConfig) {
    let store = Store::open(config).await.unwrap();
    let bed = Bed::new(Backend::Sqlite).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let journal = store.journal.clone();
        let device = vestibule_store::DeviceId::mint();
        let record = bed.event(device, "");
        tasks.spawn(async move {
            let mut watch = journal.watch_durable();
            let mut waiting = Vec::new();
            for n in 0_u64.. {
                let id = format!("{device}/{n}");
                let record = vestibule_store::Record { id: Some(id.as_str().into()), ..record.clone() };
                waiting.push((journal.append(record), id));
                if n % 7 == 6 {
                    watch.changed().await.unwrap();
                    let durable = *watch.borrow_and_update();
                    let mut line = String::from("durable");
                    waiting.retain(|(position, id)| {
                        if *position <= durable {
                            line.push(' ');
                            line.push_str(id);
                        }
                        *position > durable
                    });
                    if line.len() > "durable".len() {
                        line.push_str(" .\n");
                        let mut out = std::io::stdout().lock();
                        out.write_all(line.as_bytes()).unwrap();
                        out.flush().unwrap();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
}
