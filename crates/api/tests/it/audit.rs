//! The audit, and the directives that it tells of.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_platform::{Connection, DeviceLink, Directive, NotSent, Operate, SetAttribute};

use crate::site::Site;

/// Obeys, but for one thing.
#[derive(Default)]
struct Obedient(Mutex<Vec<Directive>>);

impl DeviceLink for Obedient {
    fn close(&self, _: &'static str) {}

    fn operate(&self, _: Operate<'_>) -> Result<(), NotSent> {
        Err(NotSent::Ending)
    }

    fn set(&self, _: SetAttribute<'_>) -> Result<(), NotSent> {
        Err(NotSent::Ending)
    }

    fn direct(&self, directive: &Directive) -> Result<(), NotSent> {
        if *directive == (Directive::Redirect { host: "nowhere.example".to_owned() }) {
            return Err(NotSent::Unsupported);
        }
        self.0.lock().expect("a lock").push(directive.clone());
        Ok(())
    }
}

fn actions(page: &Value) -> Vec<&str> {
    let rows = page["items"].as_array().expect("a list").iter();
    rows.map(|row| row["action"].as_str().expect("an action")).collect()
}

#[test]
fn a_device_is_directed_and_the_audit_knows() {
    let site = Site::new();
    let device = site.add("A");
    let force = |serial: &str| site.request("POST", &format!("/v1/devices/{serial}/force-offline"), &site.bearer(), "");
    force("A").problem(409, "device-offline");
    force("B").problem(404, "unknown-device");
    let link = Arc::new(Obedient::default());
    let peer = SocketAddr::from(([192, 0, 2, 7], 5_000));
    let (suite, link_of) = ("legacy", Arc::clone(&link) as Arc<dyn DeviceLink>);
    site.platform.connected(&device, Connection { suite, confidential: false, peer, link: link_of });
    let redirect = |host: &str| site.post("/v1/devices/A/redirect", &json!({ "host": host }).to_string());
    let keep_alive = |seconds: u64| site.post("/v1/devices/A/keep-alive", &json!({ "seconds": seconds }).to_string());
    let silence = |commands: Value| site.post("/v1/devices/A/silence", &json!({ "commands": commands }).to_string());
    let forbidden = json!({"1100": [18_759], "7002": []});
    for told in [redirect("hall.example"), keep_alive(60), silence(forbidden), force("A")] {
        assert_eq!((told.status, told.body.as_str()), (202, ""));
    }
    let host = "hall.example".to_owned();
    let commands = [(1_100, vec![18_759]), (7_002, Vec::new())].into();
    let (to, silent) = (Directive::Redirect { host }, Directive::Silence { commands });
    let obeyed = [to, Directive::KeepAlive { seconds: 60 }, silent, Directive::ForceOffline];
    assert_eq!(*link.0.lock().expect("a lock"), obeyed);
    redirect("nowhere.example").problem(422, "unsupported");
    assert_eq!(redirect("no host").problem(422, "invalid-value")["field"], "host");
    for seconds in [4, 3_601, u64::from(u16::MAX) + 61] {
        assert_eq!(keep_alive(seconds).problem(422, "invalid-value")["field"], "seconds");
    }
    let many: serde_json::Map<_, _> = (0..65).map(|domain| (format!("{domain}"), json!([]))).collect();
    for wrong in [many.into(), json!({"door": [1]}), json!({"1": 1}), json!([])] {
        let refused = silence(wrong);
        assert_eq!((refused.status, &refused.json()["field"]), (422, &json!("commands")), "{}", refused.body);
    }
    let page = site.get("/v1/audit?device=A").json();
    let done = ["device.force_offline", "device.silence", "device.keep_alive", "device.redirect", "device.add"];
    assert_eq!(actions(&page), done);
    let expected = json!({
        "id": page["items"][2]["id"], "time": "2026-01-01T00:00:00.000Z", "actor": "administrator",
        "action": "device.keep_alive", "device": {"id": device.id.to_string(), "serial": "A"},
        "detail": {"seconds": 60}, "ok": true,
    });
    assert_eq!(page["items"][2], expected);
}

#[test]
fn the_audit_is_filtered_and_paged() {
    let site = Site::new();
    for serial in ["A", "B"] {
        site.post("/v1/devices", &json!({"serial": serial, "code": "SECRET"}).to_string());
        site.advance(Duration::from_secs(60));
    }
    let id = site.get("/v1/devices/B").json()["id"].as_str().expect("an id").to_owned();
    site.request("POST", "/v1/devices/A/disable", &site.bearer(), "");
    site.request("DELETE", "/v1/devices/B", &site.bearer(), "");
    let all = site.get("/v1/audit");
    assert!(!all.body.contains("SECRET"));
    assert_eq!(actions(&all.json()), ["device.remove", "device.disable", "device.add", "device.add"]);
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = site.get(&format!("/v1/audit?limit=1{cursor}")).json();
        paged.extend(page["items"].as_array().expect("a list").clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(Value::from(paged), all.json()["items"]);
    for (query, expected) in [
        ("device=A", &["device.disable", "device.add"][..]),
        (&format!("device={id}"), &["device.remove", "device.add"]),
        ("action=device.remove", &["device.remove"]),
        ("actor=administrator&action=device.add", &["device.add", "device.add"]),
        ("actor=nobody", &[]),
        ("from=2026-01-01T00:01:00Z&to=2026-01-01T00:02:00Z", &["device.add"]),
    ] {
        assert_eq!(actions(&site.get(&format!("/v1/audit?{query}")).json()), expected, "{query}");
    }
    site.get("/v1/audit?device=C").problem(404, "unknown-device");
    site.get("/v1/audit?limit=1001").problem(422, "invalid-value");
    site.get("/v1/audit?cursor=x").problem(422, "invalid-value");
}
