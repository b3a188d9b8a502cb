//! Certificates over the API.

use serde_json::{Value, json};
use vestibule_tls::{device_serial, read_pem};

use crate::site::Site;

fn request() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("signed");
    request.pem().expect("PEM")
}

fn register(site: &Site, serial: &str) {
    assert_eq!(site.post("/v1/devices", &json!({"serial": serial, "code": "ABCDEF"}).to_string()).status, 201);
}

fn issue(site: &Site, serial: &str, body: &Value) -> crate::site::Answer {
    site.post(&format!("/v1/devices/{serial}/certificates"), &body.to_string())
}

#[test]
fn a_device_is_issued_a_certificate_which_is_listed_and_revoked() {
    let site = Site::new();
    register(&site, "SN1");
    let issued = issue(&site, "SN1", &json!({"csr": request(), "days": 30}));
    assert_eq!(issued.status, 201, "{}", issued.body);
    let issued = issued.json();
    let chain = read_pem(issued["chain"].as_str().expect("PEM").as_bytes()).expect("PEM");
    assert_eq!((chain.len(), device_serial(&chain[0]).as_deref()), (2, Ok("SN1")));
    assert_eq!(issued["certificate"]["ends"], "2026-01-31T00:00:00.000Z");

    let listed = site.get("/v1/devices/SN1/certificates").json();
    assert_eq!(listed["items"], json!([issued["certificate"]]));
    let ending = |days: u32| site.get(&format!("/v1/certificates?ending_within_days={days}")).json()["items"].clone();
    assert_eq!((ending(29), ending(31)), (json!([]), json!([issued["certificate"]])));

    let serial = &issued["certificate"]["serial"];
    let revoke = |body: Value| site.post("/v1/devices/SN1/certificates/revoke", &body.to_string());
    assert_eq!(revoke(json!({"serial": serial})).json(), json!({"revoked": 1}));
    revoke(json!({"serial": serial})).problem(404, "unknown-certificate");
    revoke(json!({"serial": "no digits"})).problem(422, "invalid-value");
    assert_eq!(revoke(json!({})).json(), json!({"revoked": 0}));
    let revoked = site.get("/v1/certificates?revoked=true").json();
    assert_eq!(revoked["items"][0]["revoked"], "2026-01-01T00:00:00.000Z");
    assert_eq!(ending(31), json!([]));
}

#[test]
fn what_is_no_request_is_the_callers_fault() {
    let site = Site::new();
    register(&site, "SN1");
    for csr in ["", "AAEC", "-----BEGIN CERTIFICATE REQUEST-----\nAAEC\n-----END CERTIFICATE REQUEST-----\n"] {
        issue(&site, "SN1", &json!({"csr": csr})).problem(422, "invalid-value");
    }
    issue(&site, "SN1", &json!({"csr": request(), "days": 731})).problem(422, "invalid-value");
    issue(&site, "SN2", &json!({"csr": request()})).problem(404, "unknown-device");
    for _ in 0..8 {
        assert_eq!(issue(&site, "SN1", &json!({"csr": request()})).status, 201);
    }
    issue(&site, "SN1", &json!({"csr": request()})).problem(409, "too-many-certificates");
}

#[test]
fn pages_of_certificates_are_complete_and_in_order() {
    let site = Site::new();
    for n in 0..5 {
        register(&site, &format!("SN{n}"));
        issue(&site, &format!("SN{n}"), &json!({"csr": request()}));
    }
    let mut seen = Vec::new();
    let mut path = "/v1/certificates?limit=2".to_owned();
    loop {
        let page = site.get(&path).json();
        seen.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|one| one["serial"].as_str().expect("a serial").to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/certificates?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted());
    for wrong in ["cursor=x", "ending_within_days=3651", "revoked=perhaps"] {
        site.get(&format!("/v1/certificates?{wrong}")).problem(422, "invalid-value");
    }
}

#[test]
fn a_roll_shows_both_roots() {
    let site = Site::new();
    let before = site.get("/v1/authority").json();
    assert_eq!(before["names"], json!(["localhost", "127.0.0.1", "::1"]));
    let after = site.post("/v1/authority/roll", r#"{"purpose": "servers"}"#).json();
    let roots = after["roots"].as_str().expect("PEM");
    assert!(roots.ends_with(before["roots"].as_str().expect("PEM")));
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2);
    assert_ne!(after["server"]["serial"], before["server"]["serial"]);
    assert_eq!(after["server"]["spki_sha256"], before["server"]["spki_sha256"]);
    site.post("/v1/authority/roll", r#"{"purpose": "people"}"#).problem(422, "invalid-value");
}

#[test]
fn older_roots_are_retired_when_nobody_needs_them() {
    let site = Site::new();
    register(&site, "SN1");
    let closed = site.request(
        "PUT",
        "/v1/devices/SN1/suites",
        &format!("{}content-type: application/json\r\n", site.bearer()),
        r#"{"legacy": false}"#,
    );
    assert_eq!(closed.status, 200, "{}", closed.body);
    assert_eq!(site.get("/v1/authority/overdue").json()["total"], 1, "{}", site.get("/v1/authority/overdue").body);
    site.post("/v1/authority/roll", r#"{"purpose": "servers"}"#);
    let overdue = site.get("/v1/authority/overdue").json();
    assert_eq!(overdue["items"][0]["serial"], "SN1");
    assert_eq!((&overdue["items"][0]["root"], &overdue["next"]), (&Value::Null, &Value::Null));
    let retire = |body: &str| site.post("/v1/authority/retire", body);
    let refused = retire(r#"{"purpose": "servers"}"#);
    assert!(refused.body.contains("1 devices do not know the newest root yet"), "{}", refused.body);
    refused.problem(409, "root-needed");
    register(&site, "SN2");
    assert!(retire(r#"{"purpose": "servers"}"#).body.contains("and 1 have never been in"));
    let retired = retire(r#"{"purpose": "servers", "force": true}"#).json();
    assert_eq!(retired["roots"].as_str().expect("PEM").matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(retire(r#"{"purpose": "devices"}"#).status, 200, "there is nothing to retire");
    retire(r#"{"purpose": "people"}"#).problem(422, "invalid-value");
}
