//! What strangers and devices try on the way over HTTP, by the names it goes by. SSRF is tried in `webhook.rs`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Browser, Listener, Platform, SecondDevice, until};

const CODE: &str = "ABCDEF";

/// An answer to a request of which no library changes a byte.
fn raw(platform: &Platform, method: &str, target: &str, headers: &str) -> (u16, String) {
    let address = platform.address(Listener::Http);
    let mut stream = TcpStream::connect(address).expect("a connection");
    let request = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[test]
fn path_traversal_reaches_no_file() {
    let platform = Platform::start();
    let secret = platform.token();
    let bearer = format!("authorization: Bearer {secret}\r\n");
    let ups = ["..", "%2e%2e", "..%2f..", "%2e%2e%2f", "..%5c..", "....//..", "%252e%252e", "..%00", "%c0%ae%c0%ae"];
    for base in ["/", "/v1/", "/v1/devices/", "/v1/views/", "/problems/", "/media/v1/picture/", "/media/v1/file/"] {
        for up in ups {
            for file in ["token", "etc/passwd", "control.db", "keys/envelope.key"] {
                for target in [format!("{base}{up}/{file}"), format!("{base}{up}/{up}/{up}/{file}")] {
                    let (status, answer) = raw(&platform, "GET", &target, &bearer);
                    assert!((400..500).contains(&status), "{target}: {answer}");
                    assert!(!answer.contains(&secret) && !answer.contains("root:") && !answer.contains("SQLite"));
                }
            }
        }
    }
    platform.assert_no_panic();
}

#[test]
fn header_injection_is_refused_in_every_text_that_is_taken() {
    let platform = Platform::start();
    platform.add("SN1", CODE);
    let evil = "a\r\nx-evil: 1";
    let field = |name: &str| json!({"serial": "SN2", "code": CODE, name: evil});
    let mut tried = 0;
    let mut refused = |path: &str, body: Value| {
        let answer = platform.http().post(path, &body);
        assert!((400..500).contains(&answer.status), "{path}: {}: {}", answer.status, answer.body);
        tried += 1;
    };
    for name in ["serial", "code", "product", "name", "org"] {
        refused("/v1/devices", field(name));
    }
    for labels in [json!({evil: "a"}), json!({"a": evil})] {
        refused("/v1/devices", json!({"serial": "SN2", "code": CODE, "labels": labels}));
    }
    refused("/v1/tokens", json!({"name": evil, "role": "viewer"}));
    refused("/v1/users", json!({"name": evil, "password": "correct horse", "role": "viewer"}));
    for url in [format!("http://93.184.216.34/{evil}"), format!("http://93.184.216.34{evil}/")] {
        refused("/v1/webhooks", json!({"url": url}));
    }
    refused("/v1/devices/SN1/uploads", json!({"kind": "file", "media_type": evil}));
    assert_eq!(tried, 12);
    // In a path it is a name that nobody has, and comes back in no header.
    let bearer = format!("authorization: Bearer {}\r\n", platform.token());
    for target in ["/v1/devices/a%0d%0ax-evil:%201", "/v1/views/a%0d%0ax-evil:%201", "/problems/a%0d%0ax-evil:%201"] {
        let (status, answer) = raw(&platform, "GET", target, &bearer);
        assert!((400..500).contains(&status), "{answer}");
        assert!(!answer.to_lowercase().contains("x-evil"), "{answer}");
    }
}

#[test]
fn a_token_in_a_url_is_no_token() {
    let platform = Platform::start();
    let token = platform.token();
    for name in ["token", "access_token", "authorization", "bearer", "ticket"] {
        for target in ["/v1/devices", "/v1/events", "/v1/events/stream", "/metrics", "/media/v1/picture/x"] {
            let (status, answer) = raw(&platform, "GET", &format!("{target}?{name}={token}"), "");
            assert!(matches!(status, 401 | 404), "{target}: {answer}");
            assert!(!answer.contains(&token), "{target}: {answer}");
        }
    }
    assert!(!platform.log().contains(&token), "it is in the log");
}

#[test]
fn stored_script_in_every_text_field_stays_text() {
    const EVIL: &str = "<img src=x onerror=\"window.evil=1\"><script>window.evil=1</script>";
    const SHORT: &str = "<img src=x onerror=\"window.evil=1\">";
    let platform = Platform::start();
    let device = json!({
        "serial": "SN-<script>window.evil=1</script>".replace('/', "|"),
        "code": CODE,
        "name": EVIL,
        "product": EVIL,
        "labels": {SHORT: EVIL},
        "org": format!("/{SHORT}"),
    });
    platform.http().post("/v1/devices", &device).ok();
    platform.add("SN1", CODE);
    platform.http().post("/v1/tokens", &json!({"name": SHORT, "role": "viewer"})).ok();
    let user = json!({"name": format!("{SHORT}2"), "password": "correct horse", "role": "viewer"});
    platform.http().post("/v1/users", &user).ok();
    let event = json!({"level": EVIL}).to_string();
    let flags = ["--event", &event, "--path", "Lamp/0/<b>Alarm/<b>Smoke", "--attribute"];
    let attribute = format!("Lamp/0/Light/Power={}", Value::from(EVIL));
    let flags = [&flags[..], &[&attribute, "--hold", "60"]].concat();
    let mut reporting = SecondDevice::start(&platform, "SN1", CODE, &flags);
    reporting.until("ping");
    until("the event", || (!platform.events(Some("SN1")).is_empty()).then_some(()));
    // What answers with it says that it is no page, and browsers are told to believe that.
    let bearer = format!("authorization: Bearer {}\r\n", platform.token());
    for target in ["/v1/devices", "/v1/events", "/v1/devices/SN1/attributes", "/v1/audit", "/v1/devices/export"] {
        let (status, answer) = raw(&platform, "GET", target, &bearer);
        assert_eq!(status, 200, "{answer}");
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        assert!(head.contains("x-content-type-options: nosniff") && !head.contains("text/html"), "{target}: {head}");
        assert!(answer.contains("window.evil"), "{target} does not show it");
    }
    let mut browser = Browser::open(&format!("{}/#token={}", platform.url(), platform.token()));
    until("the devices and the event in the page", || {
        let shown = browser.evaluate("document.body?.textContent");
        let shown = shown.as_str().unwrap_or_default();
        (shown.contains(EVIL) && shown.contains("<b>Smoke")).then_some(())
    });
    for number in 0..2 {
        browser.evaluate(&format!("document.querySelectorAll('#devices button.name')[{number}].click()"));
        until("the details of a device in the page", || {
            (browser.evaluate("document.querySelector('#detail')?.hidden === false") == true).then_some(())
        });
    }
    until("the attribute in the page", || {
        let shown = browser.evaluate("document.querySelector('#attributes')?.textContent");
        shown.as_str().is_some_and(|shown| shown.contains("onerror")).then_some(())
    });
    assert_eq!(browser.evaluate("window.evil === undefined"), true);
    assert_eq!(browser.evaluate("document.querySelectorAll('img[src=x]').length"), 0);
    assert_eq!(browser.complaints(), [] as [Value; 0], "nothing was even tried");
    reporting.kill();
    assert!(fs::read_dir(platform.data()).is_ok());
}

/// What the page says is tested is tested.
#[test]
fn every_test_that_the_security_page_names_exists() {
    fn sources(directory: &std::path::Path, into: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory of the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let mut code = String::new();
    sources(&root.join("crates"), &mut code);
    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.len() > 20 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .collect();
    assert!(named.len() > 25, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "{name} is no test");
    }
}
