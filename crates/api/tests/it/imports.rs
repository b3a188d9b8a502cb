//! Many devices from one file and into one.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::site::{Answer, Site, read_answer, until};

const NDJSON: &str = "application/x-ndjson";

fn import(site: &Site, kind: &str, query: &str, file: &str) -> Value {
    let answer = send(site, kind, query, file);
    assert_eq!(answer.status, 201, "{}", answer.body);
    let shown = site.get(answer.header("location").expect("an address")).json();
    assert_eq!(shown, answer.json(), "the answer is the job as it is kept");
    shown
}

fn send(site: &Site, kind: &str, query: &str, file: &str) -> Answer {
    site.request("POST", &format!("/v1/imports{query}"), &format!("{}content-type: {kind}\r\n", site.bearer()), file)
}

fn counts(job: &Value) -> [u64; 4] {
    ["rows", "added", "unchanged", "failed"].map(|name| job[name].as_u64().expect("a number"))
}

fn export(site: &Site, query: &str) -> String {
    let answer = site.get(&format!("/v1/devices/export{query}"));
    assert_eq!(answer.status, 200);
    answer.body
}

#[test]
fn a_file_is_imported_and_once_more_changes_nothing() {
    let site = Site::new();
    let rows = [
        json!({"serial": "HUB", "code": "SECRET1", "org": "/a", "labels": {"floor": "2"}}),
        json!({"serial": "CHILD", "code": "SECRET2", "parent": "HUB", "name": "=Lamp"}),
        json!({"serial": "OFF", "code": "SECRET3", "disabled": true, "product": "cam"}),
    ];
    let file = rows.map(|row| format!("{row}\n")).concat();
    let dry = import(&site, NDJSON, "?dry_run=true", &file);
    assert_eq!((counts(&dry), &dry["dry_run"], &dry["state"]), ([3, 3, 0, 0], &json!(true), &json!("done")));
    assert_eq!(site.get("/v1/devices").json()["items"], json!([]));
    let job = import(&site, NDJSON, "", &file);
    assert_eq!((counts(&job), &job["errors"]), ([3, 3, 0, 0], &json!([])));
    let child = site.get("/v1/devices/CHILD").json();
    let hub = site.get("/v1/devices/HUB").json();
    assert_eq!((&child["parent"], &child["org"], &child["name"]), (&hub["id"], &json!("/a"), &json!("=Lamp")));
    assert_eq!(site.get("/v1/devices/OFF").json()["disabled"], true);
    assert_eq!(counts(&import(&site, NDJSON, "", &file)), [3, 0, 3, 0]);
    let audit = site.get("/v1/audit?action=device.add").json();
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(3));
    for said in [&audit, &job, &site.get("/v1/imports").json()] {
        assert!(!said.to_string().contains("SECRET"), "{said}");
    }
    assert_eq!(site.get("/v1/imports").json()["items"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_row_that_is_not_taken_is_told_by_line_and_field_and_keeps_no_other_out() {
    let site = Site::new();
    site.add("THERE");
    let file = "serial,code,name,parent,labels,org\r\n\
                GOOD,SECRET,,,,\r\n\
                GOOD,SECRET,,,,\r\n\
                a/b,SECRET,,,,\r\n\
                NOCODE,,,,,\r\n\
                SUB,SECRET,,NOBODY,,\r\n\
                THERE,SECRET,other,,,\r\n\
                ,SECRET,,,,\r\n\
                \"TWO\nLINES\",SECRET,,,,\r\n\
                BAD,SECRET,,,nonsense,\r\n\
                SHORT,SECRET\r\n\
                LAST,SECRET,,,\"{\"\"a\"\":\"\"b\"\"}\",/x";
    let job = import(&site, "text/csv; charset=utf-8", "", file);
    assert_eq!(counts(&job), [11, 2, 0, 9]);
    let errors: Vec<(u64, Option<&str>)> = job["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| (error["line"].as_u64().expect("a line"), error["field"].as_str()))
        .collect();
    let field = |line, name| (line, Some(name));
    assert_eq!(
        errors,
        [
            field(3, "serial"),
            field(4, "serial"),
            field(5, "code"),
            field(6, "parent"),
            field(7, "name"),
            field(8, "serial"),
            field(9, "serial"),
            field(11, "labels"),
            (12, None)
        ]
    );
    assert!(!job.to_string().contains("SECRET") && !job.to_string().contains("nonsense"), "{job}");
    assert_eq!(site.get("/v1/devices/LAST").json()["labels"], json!({"a": "b"}));
}

#[test]
fn what_is_no_file_of_devices_is_refused_or_ends_the_import() {
    let site = Site::new();
    send(&site, "application/json", "", "{}").problem(415, "unsupported-media-type");
    send(&site, NDJSON, "?dry_run=maybe", "{}").problem(422, "invalid-value");
    assert_eq!(counts(&import(&site, NDJSON, "", "")), [0, 0, 0, 0]);
    for file in ["SN-1,SECRET\n", "serial,serial\n", "code\nSECRET\n", &format!("serial\n{}", "S".repeat(70_000))] {
        let job = import(&site, "text/csv", "", file);
        assert_eq!(job["state"], "interrupted", "{job}");
        assert!(job["reason"].as_str().is_some_and(|reason| !reason.contains("SECRET")), "{job}");
    }
    // The registry is as it was.
    assert_eq!(site.get("/v1/devices").json()["items"], json!([]));
}

#[test]
fn an_import_whose_sender_goes_away_is_interrupted_and_gone_on_with_by_sending_it_again() {
    let site = Site::new();
    let rows: Vec<String> =
        (0..1_200).map(|n| format!("{}\n", json!({"serial": format!("S{n}"), "code": "ABCDEF"}))).collect();
    let file = rows.concat();
    let mut stream = site.connect();
    let head = format!(
        "POST /v1/imports HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}content-type: {NDJSON}\r\ncontent-length: {}\r\n\r\n",
        site.bearer(),
        file.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&file.as_bytes()[..file.len() * 2 / 3]).expect("sent");
    let running = || site.get("/v1/imports").json()["items"][0].clone();
    until("some are registered", || running()["added"].as_u64() >= Some(500));
    drop(stream);
    until("it is interrupted", || running()["state"] == "interrupted");
    let added = running()["added"].as_u64().expect("a number");
    assert!((500..1_200).contains(&added), "{added}");
    let job = import(&site, NDJSON, "", &file);
    assert_eq!(counts(&job), [1_200, 1_200 - added, added, 0]);
}

#[test]
fn a_running_import_can_be_cancelled() {
    let site = Site::new();
    let mut stream = site.connect();
    let head = format!(
        "POST /v1/imports HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}content-type: {NDJSON}\r\ncontent-length: 100000\r\n\r\n",
        site.bearer()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(b"{\"serial\":\"S1\",\"code\":\"ABCDEF\"}\n").expect("sent");
    let running = || site.get("/v1/imports").json()["items"][0].clone();
    until("it has begun", || running()["state"] == "running");
    let id = running()["id"].as_str().expect("an id").to_owned();
    assert_eq!(site.post(&format!("/v1/imports/{id}/cancel"), "").status, 200);
    stream.write_all(b"{\"serial\":\"S2\",\"code\":\"ABCDEF\"}\n").expect("sent");
    until("it is cancelled", || running()["state"] == "cancelled");
    let answer = read_answer(stream);
    assert!(answer.status == 201 && answer.body.contains("\"cancelled\""), "{}", answer.body);
    assert_eq!(site.get("/v1/devices").json()["items"], json!([]));
    site.get("/v1/imports/nobody").problem(404, "unknown-job");
    site.get(&format!("/v1/bulk/{id}")).problem(404, "unknown-job");
}

#[test]
fn what_is_exported_is_imported_again_but_for_the_codes() {
    let site = Site::new();
    let file = [
        json!({"serial": "=1", "code": "SECRET1", "name": "'=x", "labels": {"a": "=b"}, "org": "/a b"}),
        json!({"serial": "SUB", "code": "SECRET2", "name": "line, \"quoted\"", "product": "-p", "disabled": true}),
        json!({"serial": "HUB", "code": "SECRET3"}),
    ];
    import(&site, NDJSON, "", &file.map(|row| format!("{row}\n")).concat());
    site.add("GONE");
    assert_eq!(site.request("DELETE", "/v1/devices/GONE", &site.bearer(), "").status, 204);
    for (format, kind) in [("ndjson", NDJSON), ("csv", "text/csv")] {
        let file = export(&site, &format!("?format={format}"));
        assert!(!file.contains("SECRET"));
        let job = import(&site, kind, "", &file);
        assert_eq!(counts(&job), [3, 0, 3, 0], "{format}: {job}\n{file}");
        // Where they are not registered the codes are missing, and nothing else.
        let elsewhere = Site::new();
        let job = import(&elsewhere, kind, "", &file);
        assert_eq!(counts(&job), [3, 0, 0, 3], "{job}");
        assert!(job["errors"].as_array().expect("errors").iter().all(|error| error["field"] == "code"), "{job}");
    }
    let csv = export(&site, "?format=csv&order=serial");
    assert!(csv.lines().skip(1).all(|line| !line.starts_with(['=', '+', '-', '@'])), "{csv}");
    assert_eq!(export(&site, "?text=sub").lines().count(), 1);
    assert_eq!(export(&site, "?presence=online"), "");
}

#[test]
fn hubs_are_exported_before_what_is_behind_them() {
    let site = Site::new();
    for (serial, parent) in [("HUB", None), ("A", Some("HUB")), ("ALONE", None), ("B", Some("HUB"))] {
        let new = json!({"serial": serial, "code": "ABCDEF", "parent": parent});
        assert_eq!(site.post("/v1/devices", &new.to_string()).status, 201);
    }
    let file = export(&site, "");
    let rows: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let serials: Vec<_> = rows.iter().map(|row| row["serial"].as_str().expect("a serial")).collect();
    assert_eq!(serials, ["HUB", "ALONE", "A", "B"]);
    assert_eq!((&rows[2]["parent"], &rows[1]["parent"]), (&json!("HUB"), &Value::Null));
}
