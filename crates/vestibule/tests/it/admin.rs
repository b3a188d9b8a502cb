//! Looking after an installation: backup, restore, doctor.

use std::collections::HashSet;
use std::fs;

use serde_json::Value;

use crate::support::{Load, Platform, run};

const DEVICES: usize = 8;
/// What the platform of a test is configured with does not count.
const NO_FILE: &str = "store.envelope_key_file=none";

#[test]
fn a_backup_of_a_busy_platform_holds_what_was_acknowledged_and_its_devices_come_back() {
    let mut platform = Platform::start();
    let load = Load::start(&platform, DEVICES);
    load.acknowledges(300);
    let before = load.acknowledged();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let (backup, key) = (elsewhere.path().join("backup"), elsewhere.path().join("envelope.key"));
    let (into, data) = (backup.to_str().expect("text"), platform.data());
    let data = data.to_str().expect("text");
    let told = platform.cli(&["admin", "backup", into, "--data", data]).expect(0);
    assert!(told.stdout.contains("The key is not in it"), "{told:?}");
    load.acknowledges(100);
    run("sh", &["-c", &format!("cd {into} && sha256sum -c SHA256SUMS")]).expect(0);

    fs::copy(platform.data().join("keys/envelope.key"), &key).expect("copied");
    assert!(platform.stop().success());
    fs::remove_dir_all(platform.data()).expect("removed");
    let refused = platform.cli(&["admin", "restore", into, "--data", data]).expect(1);
    assert!(refused.stderr.contains("the backup has no key"), "{refused:?}");
    let key = key.to_str().expect("text");
    let told = platform.cli(&["admin", "restore", into, "--data", data, "--key", key, "--json"]).expect(0).json();
    assert_eq!(told["control"], true, "{told}");
    platform.restart();
    let stored: HashSet<String> =
        platform.events(None).iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    let missing: Vec<&String> = before.difference(&stored).collect();
    assert!(missing.is_empty(), "{} acknowledged before the backup are not in it", missing.len());
    // Their session keys are of another time; they come in again without anybody's help.
    load.acknowledges(100);
    load.finish();
    platform.assert_no_panic();
}

#[test]
fn the_doctor_tells_a_running_platform_from_one_that_cannot_run() {
    let mut platform = Platform::start();
    let data = platform.data();
    let listen = format!("http.listen={}", platform.url().trim_start_matches("http://"));
    let doctor = |platform: &Platform| {
        let arguments =
            ["admin", "doctor", "--data", data.to_str().expect("text"), "--set", &listen, "--deep", "--json"];
        let told = platform.cli(&arguments);
        let examined: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
        (told, examined)
    };
    // What is wrong beside the room that the machine of a test may lack.
    let wrong = |examined: &Value| -> Vec<String> {
        let findings = examined["findings"].as_array().expect("a list").iter();
        let wrong = findings.filter(|found| found["verdict"] == "wrong").map(|found| &found["part"]);
        let parts = wrong.map(|part| part.as_str().expect("a word").to_owned());
        parts.filter(|part| part != "space").collect()
    };
    let words = |examined: &Value, part: &str, verdict: &str| -> Vec<String> {
        let findings = examined["findings"].as_array().expect("a list").iter();
        let of = findings.filter(|found| found["part"] == part && found["verdict"] == verdict);
        of.map(|found| found["words"].as_str().expect("a sentence").to_owned()).collect()
    };
    let (told, well) = doctor(&platform);
    assert!(wrong(&well).is_empty(), "{well}");
    assert_eq!(told.code, Some(if well["ok"] == true { 0 } else { 1 }), "{well}");
    assert_eq!(words(&well, "readiness", "good").len(), 1, "{well}");
    assert!(words(&well, "data", "good")[0].contains(&format!("process {}", platform.pid())), "{well}");

    assert!(platform.stop().success());
    let control = data.join("control.db");
    let mut bytes = fs::read(&control).expect("readable");
    // A page in the middle, not the head.
    let middle = bytes.len() / 4_096 / 2 * 4_096;
    bytes[middle..middle + 4_096].fill(0xa5);
    fs::write(&control, bytes).expect("writable");
    fs::remove_file(data.join("keys/envelope.key")).expect("removed");
    let (told, ill) = doctor(&platform);
    assert_eq!((told.code, &ill["ok"]), (Some(1), &Value::Bool(false)), "{ill}");
    assert!(told.stderr.contains(" things are wrong"), "{told:?}");
    assert_eq!(wrong(&ill), ["secrets", "databases"], "{ill}");
    assert!(words(&ill, "listeners", "good")[0].contains("can be opened"), "{ill}");
}

#[test]
fn devices_of_a_platform_that_was_rekeyed_come_back() {
    let mut platform = Platform::start();
    let load = Load::start(&platform, DEVICES);
    load.acknowledges(100);
    assert_eq!(platform.ready()["envelope_key"], "data");
    let data = platform.data();
    let data = data.to_str().expect("text");
    let refused = platform.cli(&["admin", "rekey", "--data", data]).expect(1);
    assert!(refused.stderr.contains("in use by another process"), "{refused:?}");
    assert!(platform.stop().success());
    let (key, elsewhere) = (platform.data().join("keys/envelope.key"), tempfile::tempdir().expect("a directory"));
    let (old, keep) = (fs::read(&key).expect("a key"), elsewhere.path().join("old.key"));
    let keep_old = keep.to_str().expect("text");
    let told = platform.cli(&["admin", "rekey", "--data", data, "--keep-old", keep_old, "--json"]).expect(0).json();
    assert!(told["values"].as_u64().is_some_and(|values| values > 8) && told["from"] != told["to"], "{told}");
    assert_eq!(fs::read(&keep).expect("kept"), old);
    assert_ne!(fs::read(&key).expect("a key"), old);
    platform.restart();
    load.acknowledges(100);
    load.finish();
    let audit = platform.http().get("/v1/audit?action=admin.rekey").ok();
    assert_eq!(audit["items"][0]["actor"], "console", "{audit}");
    platform.assert_no_panic();

    // What the old key was is wrong now, and said before anything is written.
    assert!(platform.stop().success());
    fs::write(&key, old).expect("writable");
    let refused = platform.cli(&["up", "--data", data, "--set", "http.listen=127.0.0.1:0"]).expect(1);
    let (from, to) = (told["from"].as_str().expect("an id"), told["to"].as_str().expect("an id"));
    assert!(refused.stderr.contains(from) && refused.stderr.contains(to), "{refused:?}");
    let ill = platform.cli(&["admin", "doctor", "--data", data]).expect(1);
    assert!(ill.stdout.contains("sealed under"), "{ill:?}");
}

#[test]
fn a_key_from_elsewhere_is_found_by_every_command_that_needs_it() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let path = |name: &str| elsewhere.path().join(name).to_str().expect("text").to_owned();
    let (key, next) = (path("key"), path("next"));
    run("sh", &["-c", &format!("umask 077; openssl rand -hex 32 > {key}; openssl rand -base64 32 > {next}")]).expect(0);
    let mut platform = Platform::configured(&format!("[store]\nenvelope_key_file = \"{key}\"\n"));
    let load = Load::start(&platform, DEVICES);
    load.acknowledges(100);
    assert_eq!(platform.ready()["envelope_key"], "file");
    assert!(!platform.data().join("keys").exists());
    let data = platform.data();
    let data = data.to_str().expect("text");
    let (file, command) =
        (format!("store.envelope_key_file={key}"), format!("store.envelope_key_command=[\"cat\", \"{next}\"]"));
    let backup = path("backup");
    let told = platform.cli(&["admin", "backup", &backup, "--data", data, "--set", &file]).expect(0);
    assert!(told.stdout.contains("it is from elsewhere (file)"), "{told:?}");
    assert!(platform.stop().success());
    let doctor = platform.cli(&["admin", "doctor", "--data", data, "--set", &file]);
    assert!(doctor.stdout.contains(&format!("from {key} (file)")), "{doctor:?}");

    // Another one, which a command says from then on.
    let refused = platform.cli(&["admin", "rekey", "--data", data, "--set", &file]).expect(1);
    assert!(refused.stderr.contains("--new-key"), "{refused:?}");
    platform.cli(&["admin", "rekey", "--data", data, "--set", &file, "--new-key", &next]).expect(0);
    let refused = platform.cli(&["up", "--data", data, "--set", &file]).expect(1);
    assert!(refused.stderr.contains("are sealed under the key"), "{refused:?}");
    let doctor = platform.cli(&["admin", "doctor", "--data", data, "--set", NO_FILE, "--set", &command]);
    assert!(doctor.stdout.contains("(command)") && !doctor.stdout.contains("wrong     secrets"), "{doctor:?}");

    // What was backed up before needs the key of before, which is still in its file.
    let restored = path("restored");
    let refused = platform
        .cli(&["admin", "restore", &backup, "--data", &restored, "--set", NO_FILE, "--set", &command])
        .expect(1);
    assert!(refused.stderr.contains("admin rekey"), "{refused:?}");
    platform.cli(&["admin", "restore", &backup, "--data", &restored, "--set", &file]).expect(0);
    assert!(!elsewhere.path().join("restored/keys/envelope.key").exists());

    // And back to the one that the platform is configured for.
    platform.cli(&["admin", "rekey", "--data", data, "--set", NO_FILE, "--set", &command, "--new-key", &key]).expect(0);
    platform.restart();
    load.acknowledges(100);
    load.finish();
    platform.assert_no_panic();
}
