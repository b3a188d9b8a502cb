//! A program with a cache that is killed in the midst of its work, again and again.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::*;

/// Where this test is the program: LBS, directory, first number, and whether it reports or empties the cache.
const ORDER: &str = "VESTIBULE_TEST_CACHE_PROGRAM";

/// The program: says the number of each event that is safe.
#[tokio::test]
async fn program() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let [lbs, dir, first, task] = order.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let dir = Path::new(dir);
    let storage = FileStorage::new(dir.join("state")).unwrap();
    let device = builder(lbs, storage, directory(&dir.join("cache"))).cache_grace(Duration::ZERO).start().unwrap();
    if task == "empty" {
        let last = device.event("Camera", 0, "Detection", "Last").report(&json!({})).await.unwrap();
        last.delivered().await.unwrap();
        device.stop().await.unwrap();
        println!("\nleft {}", device.unacknowledged());
        return;
    }
    for number in first.parse::<usize>().unwrap().. {
        report(&device, number..number + 1).await;
        println!("\nsafe {number}");
    }
}

struct Program {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(lbs: impl ToString, dir: &Path, first: usize, task: &str) -> Self {
        let order = format!("{} {} {first} {task}", lbs.to_string(), dir.display());
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cache::killed::program", "--nocapture"])
            .env(ORDER, order)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// What it says next that begins with this word.
    async fn says(&mut self, word: &str) -> usize {
        loop {
            let line = soon(self.lines.next_line()).await.unwrap().expect("it still runs");
            if let Some(number) = line.strip_prefix(word) {
                return number.trim().parse().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn kill_9_loses_no_event_that_was_safe() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut safe = Vec::new();
    for round in 0..6 {
        // Every second one has no network.
        let lbs = if round % 2 == 0 { server.lbs } else { nobody().await };
        // It is ahead of what it has said, so each has numbers of its own.
        let mut program = Program::start(lbs, dir.path(), 100_000 * round, "report");
        for _ in 0..40 + 13 * round {
            safe.push(program.says("safe ").await);
        }
        program.process.kill().await.unwrap();
    }
    let mut program = Program::start(server.lbs, dir.path(), 0, "empty");
    assert_eq!(program.says("left ").await, 0);
    soon(program.process.wait()).await.unwrap();

    // What was sent again is no new event to a platform, by its id.
    let (mut ids, mut seen) = (BTreeSet::new(), Vec::new());
    loop {
        let event = next_event(&mut server).await;
        if event.topic.ends_with("/Last") {
            break;
        }
        let number = serde_json::from_str::<Value>(&event.json).unwrap()["number"].as_u64().unwrap() as usize;
        if ids.insert(event.id) {
            seen.push(number);
        }
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, each under one id: {seen:?}");
    let seen = seen.into_iter().collect::<BTreeSet<_>>();
    let lost: Vec<_> = safe.iter().filter(|number| !seen.contains(number)).collect();
    assert!(lost.is_empty(), "safe and lost: {lost:?}");
}
