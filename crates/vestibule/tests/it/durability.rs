//! Acknowledged means durable.

pub mod disk;
mod trace;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use self::disk::Disk;
use self::trace::{Call, calls};
use crate::listen::counted;
use crate::support::{Load, Platform, Program, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";

#[test]
fn puback_follows_sync() {
    acknowledged_after_a_sync(Platform::start());
}

#[test]
fn puback_follows_sync_while_segments_end() {
    let platform = Platform::with_environment(&[("VESTIBULE_STORE__SEGMENT_ROWS", "2")]);
    let platform = acknowledged_after_a_sync(platform);
    assert!(segments(&platform.data()) >= 3);
}

/// How many segments the journal in a data directory has.
fn segments(data: &Path) -> usize {
    let files = fs::read_dir(data.join("journal")).expect("a journal");
    files.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|end| end == "db"))).count()
}

/// Watches the system calls of a platform that takes some events, and ends it.
fn acknowledged_after_a_sync(mut platform: Platform) -> Platform {
    const EVENTS: usize = 5;
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let trace_file = directory.path().join("trace");

    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "200", "-e"]);
    strace.arg("trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync");
    strace.arg("-o").arg(&trace_file).args(["-p", &platform.pid().to_string()]);
    let strace = Program::of(strace);
    until("strace at work", || {
        // Attached, it sees the platform answer.
        platform.http().get("/healthz");
        fs::metadata(&trace_file).is_ok_and(|file| file.len() > 0).then_some(())
    });
    let event = json!({ "level": 3 }).to_string();
    let flags = ["--event", &event, "--path", "Lamp/0/Alarm/Smoke", "--count", &EVENTS.to_string()];
    let told = SecondDevice::run(&platform, &serial, CODE, &flags).happened();
    assert_eq!(told.all("event").iter().filter(|event| event["acked"] == true).count(), EVENTS);
    platform.kill();
    let done = strace.finish();
    let trace = fs::read_to_string(&trace_file).expect("a trace");
    let calls = calls(&trace);

    let topic = format!("/iot/{serial}/global/0-Lamp/model/event/report/Alarm/Smoke");
    let publishes: Vec<&Call> = calls.iter().filter(|call| call.reads() && call.arguments.contains(&topic)).collect();
    assert_eq!(publishes.len(), EVENTS, "strace saw another number of PUBLISH packets; it said {}", done.stderr);
    for publish in publishes {
        let puback = calls
            .iter()
            .find(|call| {
                // 0x40 0x02 is the head of a PUBACK; strace shows it as below.
                call.begun > publish.ended
                    && call.writes()
                    && call.is_on(publish.descriptor())
                    && call.arguments.contains("\"@\\2")
            })
            .unwrap_or_else(|| panic!("no PUBACK follows {publish:?}"));
        let synced =
            calls.iter().any(|call| call.syncs_journal() && call.begun > publish.ended && call.ended < puback.begun);
        let between: Vec<&Call> =
            calls.iter().filter(|call| call.ended >= publish.ended && call.begun <= puback.ended).collect();
        assert!(synced, "no sync of the journal lies between a PUBLISH and its PUBACK: {between:#?}");
    }
    // What SQLite is built with: it waits for no more than it needs.
    let whole =
        calls.iter().find(|call| call.syncs() && call.name != "fdatasync" && call.descriptor().ends_with("-wal"));
    assert!(whole.is_none(), "{whole:?}");
    platform
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    const ROUNDS: usize = 4;
    let mut platform = Platform::start();
    let load = Load::start(&platform, 6);
    for round in 0..ROUNDS {
        // A moment nobody has chosen, in the midst of the work.
        let moment = 150
            + usize::from(u16::from_be_bytes(*uuid::Uuid::new_v4().as_bytes().first_chunk().expect("16 bytes"))) % 700;
        load.acknowledges(moment);
        platform.kill();
        let acknowledged = load.acknowledged();
        platform.restart();
        let stored = counted(&platform);
        // Taken last: whatever is stored was sent before it.
        let sent = load.sent();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and gone: {lost:?}");
        assert!(stored.values().all(|&count| count == 1), "round {round}: stored twice");
        assert!(stored.keys().all(|id| sent.contains(id)), "round {round}: stored and never sent");
    }
    let killed = load.sent().len() - load.acknowledged().len();
    let sent = load.finish();
    let stored = counted(&platform);
    assert!(stored.values().all(|&count| count == 1), "stored twice");
    assert_eq!(stored.len(), sent.len(), "{killed} events were under way at the last kill");
    assert!(sent.iter().all(|id| stored.contains_key(id)));
    platform.assert_no_panic();
}

#[test]
fn a_directory_rebuilt_from_what_was_synced_holds_everything_acknowledged() {
    rebuilt_holds_everything_acknowledged(&[]);
}

#[test]
fn a_directory_rebuilt_while_segments_end_holds_everything_acknowledged() {
    let platform = rebuilt_holds_everything_acknowledged(&[("VESTIBULE_STORE__SEGMENT_ROWS", "7")]);
    assert!(segments(&platform.data()) >= 6);
    // A power cut is no damage.
    assert_eq!(platform.http().get("/readyz").ok()["problems"], json!([]));
}

fn rebuilt_holds_everything_acknowledged(variables: &[(&str, &str)]) -> Platform {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let trace_file = directory.path().join("trace");
    let mut platform = Platform::traced(&trace_file, variables);
    let load = Load::start(&platform, 2);
    load.acknowledges(60);
    // The power fails: what no sync has made durable is gone.
    platform.kill();
    let acknowledged = load.acknowledged();
    let trace = fs::read_to_string(&trace_file).expect("a trace");
    let disk = Disk::after(&trace, &platform.data());
    fs::remove_dir_all(platform.data()).expect("removed");
    disk.write(&platform.data());

    platform.restart();
    let stored = counted(&platform);
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
    assert!(stored.values().all(|&count| count == 1), "stored twice");
    // Credentials were durable before the devices got them, so they come back by themselves.
    load.acknowledges(20);
    let sent = load.finish();
    assert_eq!(counted(&platform).len(), sent.len());
    platform
}
