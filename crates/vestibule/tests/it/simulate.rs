//! `vestibule simulate` against the real platform: what it says is so, and it leaves nothing behind.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{Listener, Platform, Program, minted, until};

/// A simulation of this platform, as JSON.
fn simulate(platform: &Platform, flags: &[&str]) -> Program {
    let lbs = platform.address(Listener::Lbs).to_string();
    let mut arguments = vec!["--json", "simulate", "--lbs", &lbs];
    arguments.extend(flags);
    platform.command(&arguments)
}

/// Members of the summary that are numbers.
#[track_caller]
fn number(summary: &Value, pointer: &str) -> u64 {
    summary.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {summary}"))
}

/// Serials of the registered devices that begin so.
fn serials(platform: &Platform, prefix: &str) -> Vec<String> {
    let list = platform.http().get("/v1/devices?limit=1000").ok();
    let serials = list["items"].as_array().expect("items").iter().filter_map(|device| device["serial"].as_str());
    let mut serials: Vec<String> = serials.filter(|serial| serial.starts_with(prefix)).map(str::to_owned).collect();
    serials.sort_unstable();
    serials
}

#[test]
fn a_fleet_with_faults_ends_with_both_sides_in_agreement() {
    let platform = Platform::start();
    let flags = "--devices 20 --profile mix --duration 6s --ramp 500ms --seed 7 --events-per-minute 120 \
                 --operations-per-minute 60 --fault drop=400,pause=100,reconnect=400";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let summary = simulate(&platform, &flags).finish().expect(0).json();
    let at = |pointer: &str| number(&summary, pointer);
    assert_eq!((&summary["ok"], &summary["problems"], at("/seed")), (&json!(true), &json!([]), 7));
    assert_eq!((at("/devices/asked_for"), at("/devices/came_in")), (20, 20));
    assert_eq!(summary["devices"]["by_profile"], json!({"camera": 10, "door": 4, "hub": 2, "nvr": 2, "radar": 2}));

    assert!(at("/events/acknowledged") > 100, "{summary}");
    assert_eq!(at("/events/sent"), at("/events/acknowledged") + at("/events/failed"));
    assert!(at("/reports/acknowledged") >= 20, "each device says what it is: {summary}");
    assert!(at("/operations/done") > 20, "{summary}");
    for latencies in ["/devices/entry_ms", "/events/latency_ms", "/reports/latency_ms", "/operations/latency_ms"] {
        let latencies = summary.pointer(latencies).expect(latencies);
        let [median, p99, max] = ["median", "p99", "max"].map(|name| latencies[name].as_f64().expect(name));
        assert!(0.0 < median && median <= p99 && p99 <= max, "{latencies}");
    }
    assert!(at("/faults/drop") > 0 && at("/faults/reconnect") > 0, "{summary}");
    assert!(at("/devices/logins") > 20, "faults bring logins: {summary}");

    for wrong in ["missing", "doubled", "never_sent"] {
        assert_eq!(at(&format!("/stored/{wrong}")), 0, "{summary}");
    }
    assert_eq!(at("/stored/events"), at("/events/acknowledged") + at("/stored/never_acknowledged"));
    // What it says of the platform is what the platform says: nobody else has reported anything.
    assert_eq!(platform.events(None).len() as u64, at("/stored/events"));
    assert_eq!(serials(&platform, "SIM-"), [""; 0], "it leaves nothing behind");
    platform.assert_no_panic();
}

#[test]
fn hubs_bring_their_children_and_what_those_report_is_accounted_for() {
    let platform = Platform::start();
    let flags = "--devices 3 --profile hub --children 12 --duration 6s --ramp 200ms --seed 11 --events-per-minute 60 \
                 --operations-per-minute 20 --fault child=300,drop=200,reconnect=200";
    let simulation = simulate(&platform, &flags.split_whitespace().collect::<Vec<_>>());
    // Nobody but the hub has said whose children they are.
    let children = until("a hub's children are with it, and online", || {
        let list = platform.http().get("/v1/devices/SIM-0002/children?limit=100");
        let list = (list.status == 200).then(|| list.ok())?;
        let online = |child: &&Value| child["presence"]["state"] == "online";
        let children = list["items"].as_array().expect("items");
        (children.iter().filter(online).count() >= 10).then(|| children.clone())
    });
    let hub = platform.http().get("/v1/devices/SIM-0002").ok();
    assert!(children.iter().all(|child| child["parent"] == hub["id"]), "{children:?} of {hub}");

    let summary = simulation.finish().expect(0).json();
    let at = |pointer: &str| number(&summary, pointer);
    assert_eq!((&summary["ok"], &summary["problems"]), (&json!(true), &json!([])));
    assert_eq!(summary["devices"]["by_profile"], json!({"hub": 3}));
    assert_eq!((at("/devices/children/asked_for"), at("/devices/children/accepted")), (36, 36));
    assert!(at("/faults/child") > 0 && at("/faults/drop") + at("/faults/reconnect") > 0, "{summary}");
    assert!(at("/operations/done") > 20, "{summary}");
    assert_eq!(at("/stored/events"), at("/events/acknowledged") + at("/stored/never_acknowledged"));
    let events = platform.events(None);
    let of_children = events.iter().filter(|event| event["resource"] == "Plug").count();
    assert_eq!(events.len() as u64, at("/stored/events"));
    assert!(of_children > events.len() / 2, "{of_children} of {} events are of children", events.len());
    let by_children = events.iter().filter(|event| event["resource"] == "Plug");
    let serials_of: Vec<&str> = by_children.filter_map(|event| event["device"]["serial"].as_str()).collect();
    assert!(serials_of.iter().all(|serial| serial.matches('-').count() == 2), "{serials_of:?}");
    assert_eq!(serials(&platform, "SIM-"), [""; 0], "it leaves nothing behind");
    platform.assert_no_panic();
}

#[test]
fn devices_with_caches_send_after_a_restart_what_they_could_not_before() {
    let platform = Platform::start();
    let caches = tempfile::tempdir().expect("a directory");
    let dir = caches.path().to_str().expect("UTF-8");
    let flags = "--devices 6 --profile mix --duration 6s --ramp 200ms --seed 13 --events-per-minute 300 --fault drop=600,reconnect=900";
    let flags: Vec<&str> = flags.split_whitespace().chain(["--state", dir]).collect();
    let summary = simulate(&platform, &flags).finish().expect(0).json();
    let at = |pointer: &str| number(&summary, pointer);
    assert_eq!((&summary["ok"], &summary["problems"]), (&json!(true), &json!([])));
    assert!(at("/faults/reconnect") > 0 && at("/events/acknowledged") > 50, "{summary}");
    // What a device had reported when it stopped arrives after its next start: nobody waits for it any more.
    assert_eq!(at("/stored/events"), at("/events/acknowledged") + at("/stored/never_acknowledged"));
    let directories = std::fs::read_dir(caches.path().join("events")).expect("a directory").count();
    assert_eq!(directories, 6, "each has one of its own");
    platform.assert_no_panic();
}

#[test]
fn a_platform_that_is_killed_in_the_middle_has_lost_nothing() {
    let mut platform = Platform::start();
    let prefix = format!("{}-", minted("K"));
    let flags = ["--devices", "12", "--profile", "camera", "--events-per-minute", "600", "--ramp", "100ms"];
    let simulation = simulate(&platform, &[&flags[..], &["--prefix", &prefix]].concat());
    let stored = |platform: &Platform, more: usize| {
        let before = platform.events(None).len();
        until("more events", || (platform.events(None).len() >= before + more).then_some(()));
    };
    until("each device is in and has reported", || {
        let events = platform.events(None);
        let serials: HashSet<&str> = events.iter().filter_map(|event| event["device"]["serial"].as_str()).collect();
        (serials.len() == 12).then_some(())
    });
    stored(&platform, 200);
    platform.kill();
    platform.restart();
    stored(&platform, 200);
    simulation.interrupt();
    let summary = simulation.finish().expect(0).json();
    let at = |pointer: &str| number(&summary, pointer);
    assert_eq!(summary["ok"], true, "{summary}");
    assert!(at("/events/acknowledged") >= 300, "{summary}");
    assert_eq!(at("/devices/came_in"), 12);
    assert_eq!(at("/stored/events"), at("/events/acknowledged") + at("/stored/never_acknowledged"));
    assert_eq!(platform.events(None).len() as u64, at("/stored/events"));
    assert_eq!(serials(&platform, &prefix), [""; 0]);
}

#[test]
fn devices_that_are_kept_are_taken_over_and_those_of_others_left_alone() {
    let platform = Platform::start();
    let short = ["--devices", "3", "--profile", "door", "--duration", "500ms", "--events-per-minute", "600"];
    simulate(&platform, &[&short[..], &["--keep"]].concat()).finish().expect(0);
    let kept = serials(&platform, "SIM-");
    assert_eq!(kept, ["SIM-0001", "SIM-0002", "SIM-0003"]);
    let id = platform.device("SIM-0002")["id"].clone();
    let before = platform.events(None).len();

    let summary = simulate(&platform, &[&short[..], &["--keep"]].concat()).finish().expect(0).json();
    assert_eq!(platform.device("SIM-0002")["id"], id, "the same devices, with another code");
    let fresh = platform.events(None).len() - before;
    assert_eq!(number(&summary, "/stored/events"), fresh as u64, "events of the earlier run are not counted");
    simulate(&platform, &short).finish().expect(0);
    assert_eq!(serials(&platform, "SIM-"), [""; 0]);

    platform.add("SIM-0003", "ABCDEF");
    let done = simulate(&platform, &short).finish().expect(1);
    assert!(done.stderr.contains("SIM-0003 is registered already and is not a simulated device"), "{}", done.stderr);
    assert_eq!(serials(&platform, "SIM-"), ["SIM-0003"], "what was begun is taken back, what is another's is not");
}

#[test]
fn ctrl_c_while_devices_are_starting_ends_it_in_order() {
    let platform = Platform::start();
    let flags = ["--devices", "50", "--profile", "radar", "--ramp", "100s", "--reports-per-minute", "60"];
    let simulation = simulate(&platform, &flags);
    // The platform shows a device online before that device has heard so; once it has reported, both know.
    until("two devices are in and have reported", || {
        let has_reported = |serial: &&str| {
            let shown = platform.http().get(&format!("/v1/devices/{serial}/attributes"));
            shown.status == 200 && !shown.ok()["items"].as_array().expect("items").is_empty()
        };
        ["SIM-0001", "SIM-0002"].iter().all(has_reported).then_some(())
    });
    simulation.interrupt();
    let summary = simulation.finish().expect(0).json();
    let (started, came_in) = (number(&summary, "/devices/started"), number(&summary, "/devices/came_in"));
    assert!((2..50).contains(&started) && came_in >= 2, "{summary}");
    assert_eq!((&summary["interrupted"], &summary["ok"]), (&json!(true), &json!(true)));
    assert_eq!(serials(&platform, "SIM-"), [""; 0]);
}

#[test]
fn a_device_that_never_comes_in_is_a_failure_with_its_reason() {
    let platform = Platform::start();
    // A port of the platform's own address that nobody listens on.
    let nobody = std::net::TcpListener::bind((platform.address(Listener::Lbs).ip(), 0)).expect("a port");
    let lbs = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let flags = ["--json", "simulate", "--lbs", &lbs, "--devices", "2", "--duration", "300ms", "--ramp", "0s"];
    let done = platform.cli(&flags).expect(1);
    let summary = done.json();
    assert_eq!((&summary["ok"], number(&summary, "/devices/came_in")), (&json!(false), 0));
    assert!(done.stderr.contains("2 devices never came in: SIM-0001 (waiting"), "{}", done.stderr);
    assert_eq!(serials(&platform, "SIM-"), [""; 0]);
}

#[test]
fn the_ready_file_is_all_it_needs_to_be_told() {
    let platform = Platform::start();
    let ready = platform.data().with_file_name("ready.json");
    let ready = ready.to_str().expect("UTF-8");
    let mut command = crate::support::vestibule();
    command.args(["simulate", "--ready-file", ready, "--devices", "1", "--profile", "radar", "--duration", "300ms"]);
    let done = Program::of(command).finish().expect(0);
    assert!(done.stdout.contains("devices     1 (1 radar), 1 came in"), "{}", done.stdout);
    assert_eq!(done.stderr, "", "it is quiet where nobody watches");

    // Nothing says where devices come in: the platform of the test has picked its ports itself.
    let done = platform.cli(&["simulate", "--duration", "1s"]).expect(1);
    assert!(done.stderr.contains("--lbs host:port"), "{}", done.stderr);
}

#[test]
fn a_silence_is_survived() {
    // Silent again and again, they keep their events, which are acknowledged in the end.
    let platform = Platform::start();
    let flags =
        "--devices 2 --profile camera --duration 5s --ramp 0s --seed 3 --events-per-minute 240 --fault pause=1500";
    let summary = simulate(&platform, &flags.split_whitespace().collect::<Vec<_>>()).finish().expect(0).json();
    assert!(number(&summary, "/faults/pause") > 0, "{summary}");
    let longest = summary["events"]["latency_ms"]["max"].as_f64().expect("a latency");
    assert!(longest >= 1_000.0, "an event had to wait: {summary}");
}
