//! A registry of many devices: from a file, into a file, the same done to all of them.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Platform, until};

fn rows(count: usize) -> String {
    let mut file = "serial,code,product,label:floor\n".to_owned();
    for n in 0..count {
        writeln!(file, "BULK-{n:05},SECRET{n},cam,{}", n % 10).expect("text");
    }
    file
}

fn count(platform: &Platform, query: &str) -> usize {
    let list = platform.cli(&["device", "list", "--json", "--product", "cam", "--text", query]).expect(0).json();
    list["items"].as_array().expect("items").len()
}

#[test]
fn an_import_that_was_killed_in_the_middle_is_gone_on_with() {
    const COUNT: usize = 4_000;
    let mut platform = Platform::start();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("devices.csv");
    fs::write(&file, rows(COUNT)).expect("written");
    let path = file.to_str().expect("UTF-8").to_owned();
    let dry = platform.cli(&["device", "import", &path, "--dry-run", "--json"]).expect(0).json();
    assert_eq!((&dry["added"], count(&platform, "bulk-")), (&json!(COUNT), 0));

    let importing = platform.command(&["device", "import", &path]);
    until("some devices are registered", || {
        let running = platform.http().get("/v1/imports").ok();
        running["items"]
            .as_array()?
            .iter()
            .find(|job| job["dry_run"] == false && job["added"].as_u64() >= Some(500))
            .map(drop)
    });
    platform.kill();
    importing.finish().expect(1);
    platform.restart();
    let jobs = platform.http().get("/v1/imports").ok();
    let killed = &jobs["items"][0];
    assert_eq!((killed["state"].as_str(), killed["dry_run"].as_bool()), (Some("interrupted"), Some(false)), "{jobs}");
    let there = count(&platform, "bulk-");
    assert_eq!(killed["added"].as_u64(), Some(there as u64), "the job knows what was registered");

    let again = platform.cli(&["device", "import", &path, "--json"]).expect(0).json();
    let counts = ["rows", "added", "unchanged", "failed"].map(|name| again[name].as_u64().expect("a number"));
    assert_eq!(counts, [COUNT, COUNT - there, there, 0].map(|count| count as u64), "{again}");
    assert_eq!(count(&platform, "bulk-"), COUNT);
    for said in [platform.log(), jobs.to_string(), again.to_string()] {
        assert!(!said.contains("SECRET"));
    }
    let kept = ["control.db", "control.db-wal"].map(|file| fs::read(platform.data().join(file)).unwrap_or_default());
    let kept = kept.concat();
    assert!(kept.len() > 100_000, "{}", kept.len());
    assert!(!kept.windows(6).any(|window| window == b"SECRET"), "codes are sealed");
    platform.assert_no_panic();
}

#[test]
fn devices_go_into_a_file_and_back_and_are_changed_together() {
    let platform = Platform::start();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::write(path("in.csv"), rows(100)).expect("written");
    let said = platform.cli(&["device", "import", &path("in.csv")]).expect(0).stdout;
    assert!(said.contains("100 rows: 100 registered"), "{said}");
    fs::write(path("bad.ndjson"), "{\"serial\":\"a b\",\"code\":\"SECRET\"}\n").expect("written");
    let bad = platform.cli(&["device", "import", &path("bad.ndjson")]).expect(1);
    assert!(bad.stdout.contains("serial must be") && bad.stderr.contains("1 row was"), "{}{}", bad.stdout, bad.stderr);
    assert!(!bad.stdout.contains("SECRET") && !bad.stderr.contains("SECRET"));

    let bulk = |arguments: &[&str]| platform.cli(&[&["device", "bulk"], arguments].concat());
    let dry = bulk(&["move", "--label", "floor=3", "--to", "/plant/hall-3", "--dry-run"]).expect(0).stdout;
    assert!(dry.starts_with("10 devices: BULK-00003, "), "{dry}");
    let moved = bulk(&["move", "--label", "floor=3", "--to", "/plant/hall-3", "--json"]).expect(0).json();
    assert_eq!((&moved["changed"], &moved["state"]), (&json!(10), &json!("done")));
    let list = ["device", "list", "--org", "/plant", "--order", "-serial", "--json"];
    let list = platform.cli(&list).expect(0).json();
    assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["serial"]), (Some(10), &json!("BULK-00093")));
    bulk(&["disable", "--device", "BULK-00001", "--device", "BULK-00002"]).expect(0);
    let disabled = platform.cli(&["device", "list", "--disabled", "--json"]).expect(0).json();
    assert_eq!(disabled["items"].as_array().map(Vec::len), Some(2));
    bulk(&["remove"]).expect(1);

    for (format, name) in [("ndjson", "out.ndjson"), ("csv", "out.csv")] {
        platform.cli(&["device", "export", "--format", format, "--output", &path(name)]).expect(0);
        assert!(!fs::read_to_string(path(name)).expect("written").contains("SECRET"));
        let again = platform.cli(&["device", "import", &path(name), "--json"]).expect(0).json();
        assert_eq!((&again["unchanged"], &again["failed"]), (&json!(100), &json!(0)), "{again}");
    }
    let some = platform.cli(&["device", "export", "--org", "/plant"]).expect(0).stdout;
    assert!(
        some.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|row| row["org"] == "/plant/hall-3"))
    );
    assert_eq!(some.lines().count(), 10);
    let removed = bulk(&["remove", "--org", "/", "--json"]).expect(0).json();
    assert_eq!(removed["changed"], 100);
    platform.assert_no_panic();
}
