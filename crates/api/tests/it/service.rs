//! Permissions, health, metrics, the document and the page.

use serde_json::Value;

use crate::site::Site;

#[test]
fn every_route_but_the_open_ones_asks_for_a_token() {
    let site = Site::new();
    let document = site.request("GET", "/v1/openapi.json", "", "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let (mut open, mut guarded) = (0, 0);
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_uppercase();
            let path = path.replace("{d}", "SN-1").replace("/problems/{name}", "/problems/timeout");
            let permission = operation["x-permission"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
            let answer = site.request(&method, &path, "", "");
            if permission == "open" {
                open += 1;
                if !operation["requestBody"].is_null() {
                    answer.problem(415, "unsupported-media-type");
                    continue;
                }
                assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.status);
                continue;
            }
            guarded += 1;
            answer.problem(401, "unauthenticated");
            assert!(answer.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
            for wrong in
                ["Bearer x", "Basic eDp5", &format!("Basic {}", site.token), &format!("Bearer {}x", site.token)]
            {
                let answer = site.request(&method, &path, &format!("authorization: {wrong}\r\n"), "");
                answer.problem(401, "unauthenticated");
                assert!(!answer.body.contains(&site.token));
            }
        }
    }
    assert_eq!((open, guarded), (6, 81));
}

#[test]
fn health_and_metrics() {
    let site = Site::new();
    assert_eq!(site.request("GET", "/healthz", "", "").status, 200);
    let ready = site.request("GET", "/readyz", "", "");
    assert_eq!((ready.status, ready.json()), (200, serde_json::json!({"ready": true, "problems": []})));
    let metrics = site.get("/metrics");
    assert_eq!(metrics.body, "vestibule_up 1\n");
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
}

#[test]
fn the_page_is_locked_down_and_new_each_time() {
    let site = Site::new();
    let page = site.request("GET", "/", "", "");
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    let nonce = policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert!(page.body.contains(&format!("<script nonce=\"{nonce}\">")));
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !page.body.contains("{{nonce}}"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("access-control-allow-origin"), None);
    assert_ne!(site.request("GET", "/", "", "").header("content-security-policy"), Some(&*policy));
}

#[test]
fn answers_are_not_kept_by_anybody() {
    let site = Site::new();
    for answer in [site.get("/v1/devices"), site.get("/nothing")] {
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn an_ordinary_client_keeps_its_connection() {
    let site = Site::new();
    let agent = ureq::Agent::new_with_defaults();
    for _ in 0..3 {
        let mut answer = agent
            .get(format!("http://{}/v1/devices", site.address))
            .header("Authorization", format!("Bearer {}", site.token))
            .call()
            .expect("an answer");
        let list: Value = answer.body_mut().read_json().expect("JSON");
        assert_eq!(list["next"], Value::Null);
    }
}
