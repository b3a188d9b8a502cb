//! Faults of the machine: what stops, what goes on, and what the platform says of it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::listen::counted;
use crate::support::{self, Listener, Load, Platform, Program, QoS, minted, until};

/// Takes what is left of the volume the platform's journal is on.
fn fill(filler: &mut File) {
    // Page by page, so that nothing is left.
    while match filler.write(&[b'x'; 4096]) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            false
        }
    } {}
}

#[test]
fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    let platform = Platform::on_small_journal();
    let load = Load::start(&platform, 2);
    load.acknowledges(40);
    let opened = platform.metric("vestibule_connections_total", &[("listener", "das_legacy")]);
    let path = platform.journal_seen_from_inside().join("filler");
    let mut filler = File::create(&path).expect("the journal's volume");
    let refused = || platform.metric("vestibule_journal_refused_total", &[("reason", "error")]);
    // What a failed commit gives back is taken as well, until nothing goes through any more.
    let ready = until("the end of acknowledgements", || {
        fill(&mut filler);
        let (acknowledged, before) = (load.acknowledged(), refused());
        until("two more attempts, or a success", || {
            (refused() >= before + 2.0 || load.acknowledged() != acknowledged).then_some(())
        });
        let ready = platform.http().get("/readyz");
        (ready.status == 503 && load.acknowledged() == acknowledged).then_some(ready)
    });
    let problem = ready.body["problems"][0].as_str().expect("a sentence").to_owned();
    assert!(problem.contains("journal cannot be written") && problem.contains("full"), "{problem}");
    assert_eq!(platform.http().text("/healthz"), "ok\n");
    assert!(platform.log().contains("the journal failed to commit"));
    // The registry is elsewhere and works.
    platform.add(&minted("SN"), "ABCDEF");
    assert_eq!(platform.http().get("/v1/devices").status, 200);

    drop(filler);
    fs::remove_file(path).expect("space again");
    load.acknowledges(40);
    until("readiness", || (platform.http().get("/readyz").status == 200).then_some(()));
    let now = platform.metric("vestibule_connections_total", &[("listener", "das_legacy")]);
    assert_eq!(now, opened, "connections were held");
    let sent = load.finish();
    let stored = counted(&platform);
    assert!(stored.len() == sent.len() && stored.values().all(|&count| count == 1), "each is stored once");
    platform.assert_no_panic();
}

#[test]
fn a_disk_that_syncs_slowly_is_waited_for() {
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", "inject=fsync,fdatasync:delay_enter=100000"]);
    let mut platform = Platform::under(strace);
    let load = Load::start(&platform, 4);
    load.acknowledges(200);
    assert_eq!(platform.http().get("/readyz").ok()["ready"], true);
    // Many share a sync: the platform says how long one takes.
    let commits = platform.metric("vestibule_journal_commit_seconds_count", &[]);
    let seconds = platform.metric("vestibule_journal_commit_seconds_sum", &[]);
    assert!(commits >= 1.0 && seconds / commits >= 0.1, "{commits} commits took {seconds} s");
    platform.kill();
    let acknowledged = load.acknowledged();
    platform.restart();
    let stored = counted(&platform);
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
    load.finish();
}

#[test]
fn without_descriptors_new_connections_are_refused_and_old_ones_go_on() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, "ABCDEF");
    let (_, mut device) = support::enrol(&platform, &serial, "ABCDEF");
    let topic = format!("/iot/{serial}/global/0-Lamp/model/event/report/Alarm/Smoke");
    let mut report = |seq: u64| {
        let id = device.publish(&topic, seq, QoS::AtLeastOnce, format!(r#"{{"level":{seq}}}"#));
        device.acknowledged(id);
    };
    report(1);
    assert_eq!(platform.events(Some(&serial)).len(), 1);
    let pid = platform.pid().to_string();
    let limit = |limit: &str| {
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
        assert!(status.expect("prlimit of util-linux").success());
    };
    let former = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let former = former.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let former = former.split_whitespace().nth(3).expect("a number").to_owned();
    let highest = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let highest = highest.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).max();
    let highest = highest.expect("there are some");
    limit(&(highest + 4).to_string());

    // As many as there are numbers, taken or not, and one more.
    let connect = |_| TcpStream::connect(platform.address(Listener::Das)).expect("the kernel accepts");
    let mut open: Vec<TcpStream> = (0..highest + 5).map(connect).collect();
    let refused = [("listener", "das_legacy"), ("reason", "descriptors")];
    let refused = || platform.metric("vestibule_connections_refused_total", &refused);
    until("a connection that is refused", || (refused() >= 1.0).then_some(()));
    let ended = until("its end", || {
        open.iter_mut().position(|stream| {
            stream.set_nonblocking(true).expect("a socket");
            match stream.read(&mut [0; 1]) {
                Ok(read) => read == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            }
        })
    });
    assert!(ended < open.len());
    report(2);
    let errors = platform.metric("vestibule_accept_errors_total", &[("listener", "das_legacy")]);
    assert!((1.0..1_000.0).contains(&errors), "the loop spins: {errors} errors");
    assert!(platform.log().contains("accept failed"));
    assert_eq!(platform.http().text("/healthz"), "ok\n");

    drop(open);
    limit(&former);
    report(3);
    let other = minted("SN");
    platform.add(&other, "ABCDEF");
    support::enrol(&platform, &other, "ABCDEF");
    assert_eq!(platform.events(Some(&serial)).len(), 3);
    platform.assert_no_panic();
}

/// The files of the journal, the oldest first.
fn segments(platform: &Platform) -> Vec<PathBuf> {
    let files = fs::read_dir(platform.data().join("journal")).expect("a journal");
    let paths = files.map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "db")).collect();
    segments.sort();
    segments
}

#[test]
fn a_damaged_segment_is_told_and_the_rest_goes_on() {
    let mut platform = Platform::with_environment(&[("VESTIBULE_STORE__SEGMENT_ROWS", "40")]);
    let load = Load::start(&platform, 2);
    load.acknowledges(120);
    platform.kill();
    let acknowledged = load.acknowledged();
    let (journal, segments) = (platform.data().join("journal"), segments(&platform));
    // The head of the file and the beginning of its records: what leads to everything, and some of the rows.
    let mut bytes = fs::read(&segments[0]).expect("a segment");
    bytes[..64].fill(0xee);
    let row = bytes.windows(6).rposition(|window| window == b"LOAD-0" || window == b"\"level").unwrap_or(5 * 4096);
    bytes[row / 4096 * 4096..][..8].fill(0);
    fs::write(&segments[0], &bytes).expect("damaged");

    platform.restart();
    let problems = || platform.http().get("/readyz").ok()["problems"].clone();
    let told = until("the damage to be told", || problems()[0].as_str().map(str::to_owned));
    assert!(told.contains(segments[0].to_str().expect("UTF-8")) && told.contains("at byte 0"), "{told}");
    assert!(platform.metric("vestibule_journal_damage_total", &[]) >= 1.0);
    assert!(platform.log().contains("the journal is damaged"));
    let lost = platform.metric("vestibule_journal_lost_records_total", &[]) as usize;
    let stored = counted(&platform);
    let gone = acknowledged.iter().filter(|id| !stored.contains_key(*id)).count();
    assert!(gone <= lost && lost <= 40, "{gone} are gone, {lost} are told");
    // New events are stored, and none twice.
    load.acknowledges(40);
    load.finish();
    assert!(counted(&platform).values().all(|&count| count == 1));
    let name = segments[0].file_stem().expect("a name");
    assert_eq!(
        fs::read(journal.join("damaged").join(name).join(segments[0].file_name().expect("a name"))).ok(),
        Some(bytes)
    );
    platform.assert_no_panic();
}

#[test]
fn a_disk_that_cannot_be_written_is_told_at_the_start() {
    const SCRIPT: &str = "mount -t tmpfs -o ro none . && cd \"$PWD\" && exec \"$@\"";
    let home = tempfile::tempdir().expect("a directory");
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]);
    unshare.arg(env!("CARGO_BIN_EXE_vestibule")).args(["up", "--set", "http.listen=127.0.0.1:0", "--data"]);
    unshare.arg(home.path().join("data")).current_dir(home.path());
    let done = Program::of(unshare).finish().expect(1);
    assert!(done.stderr.contains("Read-only file system") && done.stderr.contains("data"), "{done:?}");
}

/// strace that has system calls of a running program fail, as long as it is attached; those on one file, if it is given.
fn failing(platform: &Platform, calls: &str, error: &str, file: Option<&Path>) -> Program {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    file.iter().for_each(|file| {
        strace.arg("-P").arg(file);
    });
    strace.args(["-e", &format!("inject={calls}:error={error}"), "-p", &platform.pid().to_string()]);
    let program = Program::of(strace);
    until("strace at work", || {
        let status = fs::read_to_string(format!("/proc/{}/status", platform.pid())).expect("it runs");
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).expect("a line");
        (tracer.trim() != "0").then_some(())
    });
    program
}

#[test]
fn a_disk_that_turns_read_only_is_waited_for() {
    let platform = Platform::start();
    let load = Load::start(&platform, 3);
    load.acknowledges(60);
    let opened = platform.metric("vestibule_connections_total", &[("listener", "das_legacy")]);
    let refused = || platform.metric("vestibule_journal_refused_total", &[("reason", "error")]);
    let before = refused();
    let strace = failing(&platform, "pwrite64,ftruncate,fallocate,fsync,fdatasync,unlink", "EROFS", None);
    until("two commits that fail", || (refused() >= before + 2.0).then_some(()));
    let acknowledged = load.acknowledged();
    let ready = until("the end of readiness", || {
        let ready = platform.http().get("/readyz");
        (ready.status == 503).then_some(ready)
    });
    let problem = ready.body["problems"][0].as_str().expect("a sentence").to_owned();
    assert!(problem.contains("journal cannot be written"), "{problem}");
    assert_eq!(platform.http().text("/healthz"), "ok\n");
    // The registry is on the same disk: it says so, and is read as before.
    let serial = minted("SN");
    let answer = platform.http().post("/v1/devices", &json!({ "serial": serial, "code": "ABCDEF" }));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(platform.http().get("/v1/devices").status, 200);
    assert_eq!(platform.http().get(&format!("/v1/devices/{serial}")).status, 404, "what was refused is not there");
    assert_eq!(load.acknowledged(), acknowledged, "acknowledged without a disk");

    strace.terminate();
    strace.finish();
    load.acknowledges(60);
    until("readiness", || (platform.http().get("/readyz").status == 200).then_some(()));
    platform.add(&serial, "ABCDEF");
    let now = platform.metric("vestibule_connections_total", &[("listener", "das_legacy")]);
    assert_eq!(now, opened, "connections were held");
    let sent = load.finish();
    let stored = counted(&platform);
    assert!(stored.len() == sent.len() && stored.values().all(|&count| count == 1), "each is stored once");
    platform.assert_no_panic();
}

#[test]
fn a_platform_that_gets_no_memory_ends_and_has_lost_nothing() {
    // Otherwise the allocator has asked for a gigabyte at its start, which is there to write to whatever the limit says later.
    let mut platform = Platform::with_environment(&[("MIMALLOC_ARENA_EAGER_COMMIT", "0")]);
    let load = Load::start(&platform, 3);
    load.acknowledges(60);
    assert!(platform.metric("process_resident_memory_bytes", &[]) > 1e6);
    // From now on the kernel gives it nothing more.
    let pid = platform.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, "--data=1"]).status();
    assert!(status.expect("prlimit of util-linux").success());
    // Strangers take what it has left, until it ends.
    let mut strangers = Vec::new();
    let ended = until("its end", || {
        let mut head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ".to_vec();
        head.resize(7_000, b'x');
        strangers.extend(TcpStream::connect(platform.address(Listener::Http)).and_then(|mut stranger| {
            stranger.write_all(&head)?;
            Ok(stranger)
        }));
        platform.ended()
    });
    assert_eq!(ended.signal(), Some(6), "{ended}");
    let acknowledged = load.acknowledged();
    assert!(platform.log().contains("memory allocation of"), "it says why");
    platform.restart();
    let stored = counted(&platform);
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
    load.acknowledges(20);
    let sent = load.finish();
    let stored = counted(&platform);
    assert!(stored.len() == sent.len() && stored.values().all(|&count| count == 1), "each is stored once");
}

#[test]
fn a_segment_of_which_the_disk_refuses_everything_is_kept_and_the_rest_goes_on() {
    let mut platform = Platform::configured("[store]\nsegment_rows = 40\n");
    let load = Load::start(&platform, 2);
    load.acknowledges(120);
    platform.stop();
    platform.restart();
    let oldest = segments(&platform).remove(0);
    let whole = fs::read(&oldest).expect("a segment");
    let strace = failing(&platform, "pread64", "EIO", Some(&oldest));
    let page = until("a list that fails", || {
        let page = platform.http().get("/v1/events?limit=1000");
        (page.status != 200).then_some(page)
    });
    assert_eq!(page.status, 503, "{}", page.body);
    // New events are stored and shown.
    load.acknowledges(40);
    assert_eq!(platform.http().get("/v1/events?limit=10").status, 200);
    assert_eq!(platform.http().text("/healthz"), "ok\n");

    strace.terminate();
    strace.finish();
    let sent = load.finish();
    let stored = counted(&platform);
    assert!(stored.len() == sent.len() && stored.values().all(|&count| count == 1), "nothing is lost or set aside");
    assert_eq!(fs::read(&oldest).expect("it is where it was"), whole);
    platform.assert_no_panic();
}
