//! Exports by the command line: all of it, or nothing.

use std::fs;

use serde_json::Value;

use crate::support::{FaultProxy, Faults, Listener, Load, Platform, Program, vestibule};

#[test]
fn an_export_is_a_file_with_everything_or_none() {
    let platform = Platform::start();
    let load = Load::start(&platform, 2);
    load.acknowledges(300);
    let sent = load.finish();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("events.ndjson");
    let path = file.to_str().expect("UTF-8");
    platform.cli(&["export", "events", "--output", path]).expect(0);
    let text = fs::read_to_string(&file).expect("written");
    let ids: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!((ids.len(), ids.iter().cloned().collect()), (sent.len(), sent));
    let csv = platform.cli(&["export", "events", "--device", "LOAD-001", "--format", "csv"]).expect(0).stdout;
    assert!(csv.starts_with("position,id,") && csv.lines().skip(1).all(|line| line.contains(",LOAD-001,")), "{csv}");
    assert!(csv.lines().count() > 1);

    // A network that breaks off in the middle of it.
    let broken = FaultProxy::start(1, Faults { breaks_after: Some(20_000..20_001), ..Faults::default() });
    broken.lead_to(platform.address(Listener::Http));
    let half = dir.path().join("half.ndjson");
    let mut command = vestibule();
    command.args(["export", "events", "--output"]).arg(&half);
    command.env("VESTIBULE_URL", format!("http://{}", broken.address()));
    command.env("VESTIBULE_TOKEN_FILE", platform.token_file());
    let done = Program::of(command).finish().expect(1);
    assert!(done.stderr.contains("half.ndjson was not written"), "{}", done.stderr);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing half is left");
    platform.assert_no_panic();
}
