//! What somebody sees who starts Vestibule for the first time.

use serde_json::{Value, json};

use crate::tls::shown;
use vestibule_tls::rustls::pki_types::CertificateDer;

use crate::support::{Browser, Done, Platform, Program, SecondDevice, until, vestibule};

/// A running demonstration; killed when dropped.
struct Demo {
    program: Program,
    url: String,
    /// Its certificate.
    certificate: CertificateDer<'static>,
    data: tempfile::TempDir,
}

impl Demo {
    fn start() -> Demo {
        let data = tempfile::tempdir().expect("a temporary directory");
        let mut command = vestibule();
        command.args(["demo", "--port", "0", "--data"]).arg(data.path().join("site"));
        let mut program = Program::of(command);
        let line = program.line_with("live page");
        let url = line.split_whitespace().last().expect("a URL").to_owned();
        let line = program.line_with("trust ");
        let ca = line.split_whitespace().nth(1).expect("a path");
        let (_, address) = url.split_once("://").expect("a scheme");
        let (address, _) = address.split_once('/').expect("a path");
        let certificate = shown(address.parse().expect("an address"), ca.as_ref()).expect("trusted").into();
        Demo { program, url, certificate, data }
    }
}

#[test]
fn the_demo_shows_its_devices_and_their_events_in_a_browser() {
    let demo = Demo::start();
    assert!(demo.url.starts_with("https://127.0.0.1:") && demo.url.contains("/#token="), "{}", demo.url);

    let mut browser = Browser::open_knowing(&demo.url, &demo.certificate);
    let names = "[...document.querySelectorAll('#devices .name')].map(name => name.textContent)";
    let shown = until("the names of the devices in the page", || {
        let shown = browser.evaluate(names);
        let all = ["Entrance camera", "Yard camera", "Main door", "Hall hub", "Lamp plug", "Fan plug"];
        all.iter().all(|name| shown.as_array().is_some_and(|shown| shown.iter().any(|it| it == name))).then_some(shown)
    });
    assert_eq!(shown.as_array().map(Vec::len), Some(6), "{shown}");
    let rows = "[...document.querySelectorAll('#events li')].map(row => row.textContent)";
    let first = until("a row of an event in the page", || {
        let shown = browser.evaluate(rows);
        shown.as_array().filter(|rows| !rows.is_empty()).map(Vec::len)
    });
    // The page is live: rows come without a reload.
    until("a further row in the page", || {
        browser.evaluate(rows).as_array().filter(|rows| rows.len() > first).map(drop)
    });
    // Devices of the broken suites are labelled wherever they show (osap-wire 13.2.9).
    until("the label of the legacy suite in the page", || {
        let label = "document.querySelector('#devices')?.textContent.includes('legacy, not confidential')";
        (browser.evaluate(label) == true).then_some(())
    });
    assert_eq!(browser.complaints(), [] as [Value; 0], "the browser complains of the page");
}

#[test]
fn a_device_is_operated_and_its_attributes_are_set_from_the_page() {
    let platform = Platform::start();
    let serial = "SN-PAGE";
    platform.add(serial, "ABCDEF");
    let flags = ["--attribute", "Lamp/0/Light/Power=false", "--answer", "echo", "--hold", "60"];
    let mut device = SecondDevice::start(&platform, serial, "ABCDEF", &flags);
    device.until("ping");
    let mut browser = Browser::open(&format!("{}/#token={}", platform.url(), platform.token()));
    until("the device in the page", || {
        browser.evaluate("document.querySelector('#devices button.name')?.click()");
        (browser.evaluate("document.querySelector('#detail')?.hidden === false") == true).then_some(())
    });
    let attributes = "document.querySelector('#attributes')?.textContent";
    let shows = |browser: &mut Browser, place: &str, wanted: &str| {
        until(wanted, || browser.evaluate(place).as_str().is_some_and(|text| text.contains(wanted)).then_some(()));
    };
    shows(&mut browser, attributes, "Lamp/0/Light/Powerfalse");
    let outcome = "document.querySelector('#outcome')?.textContent";
    for (part, given, button, said) in [
        ("Lamp/0/Light/Blink", r#"{"n": 3}"#, "invoke", r#"done · {"n":3}"#),
        ("Lamp/0/Light/Power", "true", "set", "applied"),
        ("Lamp/0/Light/Colour", "1", "set", "refused · code -1"),
        ("Blink", "1", "invoke", "Name it as"),
        ("Lamp/0/Light/Power", "tru", "set", "That is not JSON"),
    ] {
        browser.evaluate(&format!("document.querySelector('#part').value = {part:?}; document.querySelector('#given').value = {given:?}; document.querySelector('#{button}').click()"));
        shows(&mut browser, outcome, said);
    }
    shows(&mut browser, attributes, "Lamp/0/Light/Powertrue");
    assert_eq!(browser.complaints(), [] as [Value; 0], "the browser complains of the page");
    device.kill();
}

#[test]
fn the_page_shows_what_waits_for_a_device_what_was_done_and_what_lies_under_it() {
    let platform = Platform::start();
    for (serial, parent) in [("HUB", None), ("OTHER", None), ("CHILD", Some("HUB"))] {
        let new = json!({ "serial": serial, "code": "ABCDEF", "parent": parent });
        platform.http().post("/v1/devices", &new).ok();
    }
    let asked = json!({ "input": { "n": 3 }, "queue": { "expires_in": 600 } });
    platform.http().post("/v1/devices/CHILD/operations/Lamp/0/Light/Blink", &asked).ok();
    let wish = json!({ "value": true, "expires_in": 1 });
    platform.http().put("/v1/devices/CHILD/attributes/Lamp/0/Light/Power", &wish).ok();

    let mut browser = Browser::open(&format!("{}/#token={}", platform.url(), platform.token()));
    let names = "[...document.querySelectorAll('#devices li')].map(row => row.className + ' ' + row.querySelector('.name')?.textContent)";
    let expected = json!(["device HUB", "device child CHILD", "device OTHER"]);
    until("the sub-device under its hub", || (browser.evaluate(names) == expected).then_some(()));
    browser.evaluate("document.querySelector('#devices .child button').click()");
    let text = |list: &str| {
        format!(
            "document.querySelector('#{list}').parentElement.hidden ? '' : document.querySelector('#{list}').innerText"
        )
    };
    for (list, parts) in [
        ("queue", &["Lamp/0/Light/Blink", r#"{"n":3}"#, "until"][..]),
        ("attributes", &["Lamp/0/Light/Power", "expired"]),
        ("audit", &["device.add", "attribute.set", "operation.invoke"]),
    ] {
        until(&format!("{parts:?} among the {list}"), || {
            let shown = browser.evaluate(&text(list));
            parts.iter().all(|part| shown.as_str().is_some_and(|shown| shown.contains(part))).then_some(())
        });
    }
    browser.evaluate("document.querySelector('#queue button').click()");
    until("nothing waits", || (browser.evaluate(&text("queue")) == "").then_some(()));
    until("the audit says so", || {
        let shown = browser.evaluate(&text("audit"));
        shown.as_str().is_some_and(|shown| shown.contains("operation.cancel")).then_some(())
    });
    assert_eq!(platform.http().get("/v1/devices/CHILD/queue").ok()["items"], json!([]));
    assert_eq!(browser.complaints(), [] as [Value; 0], "the browser complains of the page");
}

#[test]
fn the_page_without_its_token_shows_nothing_of_the_site() {
    let demo = Demo::start();
    let (address, _) = demo.url.split_once("/#").expect("a token");
    let mut browser = Browser::open_knowing(address, &demo.certificate);
    until("the form for the token", || {
        (browser.evaluate("document.querySelector('#login')?.hidden === false") == true).then_some(())
    });
    let text = browser.evaluate("document.body.innerText");
    assert!(!text.as_str().expect("text").contains("camera"), "{text}");
}

#[test]
fn sigterm_ends_the_demo_and_keeps_a_data_directory_that_was_named() {
    let demo = Demo::start();
    let Demo { program, data, .. } = demo;
    program.terminate();
    let done = program.finish().expect(0);
    assert!(done.stdout.contains("Stopping."), "{done:?}");
    assert!(data.path().join("site/VERSION").exists());
}

#[test]
fn the_check_of_the_demo_passes_and_reports_in_its_documented_shape() {
    let mut command = vestibule();
    command.args(["demo", "--check", "--json"]);
    let done: Done = Program::of(command).finish().expect(0);
    let report = done.json();
    let members: Vec<&String> = report.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["checks", "failed", "passed"]);
    let checks = report["checks"].as_array().expect("checks");
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    for flow in [
        "ready",
        "https",
        "device comes in",
        "device queue",
        "device get, set",
        "device children",
        "device pass",
        "legacy device",
        "audit",
    ] {
        assert!(names.contains(&flow), "{flow} is not checked: {names:?}");
    }
    for check in checks {
        let members: Vec<&String> = check.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["detail", "ms", "name", "ok"], "{check}");
        assert!(check["ok"] == true && check["name"].is_string() && check["detail"].is_string(), "{check}");
        assert!(check["ms"].is_u64(), "{check}");
    }
    assert_eq!(report["passed"], checks.len());
    assert_eq!(report["failed"], 0);
}

#[test]
fn what_devices_and_people_write_is_text_in_the_page_and_never_markup() {
    const MARKUP: &str = "<img src=x onerror=document.title='gotcha'><b>bold</b>";
    let platform = Platform::start();
    let new = json!({ "serial": "SN-<b>", "code": "ABCDEF", "name": MARKUP, "product": MARKUP });
    platform.http().post("/v1/devices", &new).ok();
    let event = json!({ "text": MARKUP }).to_string();
    let flags = ["--event", &event, "--path", "<i>L/0/<i>A/<i>S"];
    SecondDevice::run(&platform, "SN-<b>", "ABCDEF", &flags).happened();

    let mut browser = Browser::open(&format!("{}/#token={}", platform.url(), platform.token()));
    for list in ["devices", "events"] {
        let text = format!("document.querySelector('#{list}')?.textContent");
        until(&format!("the markup as text among the {list}"), || {
            browser.evaluate(&text).as_str().is_some_and(|text| text.contains("<b>bold</b>")).then_some(())
        });
    }
    assert_eq!(browser.evaluate("document.querySelectorAll('main img, main b, main i').length"), 0);
    assert_ne!(browser.evaluate("document.title"), "gotcha");
    assert_eq!(browser.complaints(), [] as [Value; 0], "the browser complains of the page");
}
